"""From plain nested dicts to a checked :class:`Config`, collecting every fault."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar, Union

from mlp_lightning.config import schema
from mlp_lightning.config.conf_files import optimizer_arguments
from mlp_lightning.config.contradictions import contradictions
from mlp_lightning.config.free_names import decoded_name
from mlp_lightning.config.rules import Rule, at_least, between
from mlp_lightning.config.targets import argument_faults, target_fault
from mlp_lightning.errors import ConfigError, Fault

_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}
# Rules for arguments of torch's optimizers, by argument name: the same name means the same in all of them.
_OPTIMIZER_RULES: dict[str, Rule] = {
    "weight_decay": at_least(0),
    "momentum": at_least(0),
    "betas": between(0, 1),
    "eps": at_least(0),
    "alpha": between(0, 1),
    "rho": between(0, 1, high_included=True),
    "lr_decay": at_least(0),
    "initial_accumulator_value": at_least(0),
    "momentum_decay": at_least(0),
    "lambd": at_least(0),
    "t0": at_least(0),
}


def parse_config(plain: Mapping[str, Any], explicit: Collection[str] = (), is_stored: bool = False) -> schema.Config:
    """Check a composed configuration and turn it into dataclasses. Imports no torch, reads no data.

    Args:
        plain: nested dicts with resolved values, such as ``OmegaConf.to_container(cfg, resolve=True)``.
        explicit: dotted keys that the user set, to distinguish a contradiction from a default that another
            choice makes irrelevant.
        is_stored: whether it is what a run has left, to be read and not to be trained. It may name parts of the
            user's own that the caller does not allow: nothing here imports them, and who builds one asks again.

    Raises:
        ConfigError: with every fault that could be found: unknown keys, wrong types, values out of range,
            unknown options, contradictions between keys.
    """
    faults: list[Fault] = []
    data = plain.get("data") if isinstance(plain, Mapping) else None
    if isinstance(data, Mapping) and "name" not in plain and isinstance(data.get("name"), str):
        plain = {"name": data["name"], **plain}
    config = _build(schema.Config, plain, "", faults)
    if not faults and not is_stored:
        faults = _refused_targets(config)
    if not faults:
        faults = contradictions(config, explicit)
    if faults:
        raise ConfigError(faults)
    model = dataclasses.replace(config.model, depth=len(config.model.layer_widths))
    return dataclasses.replace(config, model=model, trainer=_one_limit(config.trainer, explicit))


def _refused_targets(config: schema.Config) -> list[Fault]:
    """The parts of the user's own whose import is not allowed."""
    parts: list[tuple[str, Any]] = [("model", config.model), ("optimizer", config.optimizer)]
    parts += [(f"callbacks.extra.{number}", one) for number, one in enumerate(config.callbacks.extra)]
    paths = [(f"{key}._target_", one._target_) for key, one in parts if hasattr(one, "_target_")]
    faults = (target_fault(key, path, config.allow_targets) for key, path in paths)
    return [one for one in faults if one is not None]


_Section = TypeVar("_Section")


def parse_section(cls: type[_Section], plain: Mapping[str, Any], required: Mapping[str, str] | None = None) -> _Section:
    """Check plain nested dicts against a dataclass of options.

    Args:
        cls: the dataclass.
        plain: nested dicts with resolved values.
        required: dotted keys that must not be null, each with what to do.

    Raises:
        ConfigError: with every fault that could be found.
    """
    faults: list[Fault] = []
    section = _build(cls, plain, "", faults)
    for key, hint in (required or {}).items():
        node: Any = plain
        for name in key.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        if node is None:
            faults.append(Fault(key, None, "is missing", hint))
    if faults:
        raise ConfigError(faults)
    return section


def _one_limit(trainer: schema.TrainerConfig, explicit: Collection[str]) -> schema.TrainerConfig:
    """Let a length that the user gave replace the other length, which only the data set suggested.

    Without this ``data=iris trainer.max_steps=1000`` would silently end with iris's 100 epochs.
    """
    limits = {"max_steps": trainer.max_steps, "max_epochs": trainer.max_epochs}
    given = [name for name, value in limits.items() if f"trainer.{name}" in explicit and value is not None]
    if len(given) != 1:
        return trainer
    return dataclasses.replace(trainer, **{name: limits[name] if name in given else None for name in limits})


def nearest(word: str, names: Collection[str]) -> str | None:
    """The valid name that a mistyped word most likely meant, or ``None``."""
    found = difflib.get_close_matches(str(word), list(names), n=1, cutoff=0.6)
    if found:
        return found[0]
    lowered = {name.lower(): name for name in names}
    return lowered.get(str(word).lower())


def unknown_key(key: str, value: Any, known: Collection[str]) -> Fault:
    """The fault of a key that its section does not have."""
    section, _, last = key.rpartition(".")
    where = f"of {section}" if section else "of the configuration"
    match = nearest(last, known)
    hint = f"did you mean {section + '.' if section else ''}{match}?" if match else ""
    return Fault(key, value, f"is not a key {where} ({', '.join(known)})", hint)


def unknown_name(key: str, value: Any, rule: str, names: Collection[str]) -> Fault:
    """The fault of a value that is not one of the valid names."""
    match = nearest(value, names) if isinstance(value, str) else None
    return Fault(key, value, rule, f"did you mean {match}?" if match else "")


def _build(cls: type, plain: Any, prefix: str, faults: list[Fault]) -> Any:
    """An instance of the dataclass ``cls`` from ``plain``; faults are appended, never raised."""
    if not isinstance(plain, Mapping):
        known = ", ".join(field.name for field in dataclasses.fields(cls))
        faults.append(Fault(prefix, plain, "must be a section", f"its keys are {known}"))
        return None
    own = _OWN.get(cls)
    if own is not None and "_target_" in plain:
        return _build_own(own, plain, prefix, faults)
    if cls is schema.OptimizerConfig:
        plain = _with_gathered_options(plain, prefix, faults)
    hints = _annotations(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    sayable = known if own is None else [*known, "_target_"]
    faults.extend(
        unknown_key(_join(prefix, str(name)), value, sayable) for name, value in plain.items() if name not in hints
    )
    values = {}
    for field in dataclasses.fields(cls):
        if field.name in plain:
            key = _join(prefix, field.name)
            value = _checked(plain[field.name], hints[field.name], field, key, faults)
            values[field.name] = value
    return cls(**values)


_OWN: dict[type, type] = {
    schema.ModelConfig: schema.OwnModelConfig,
    schema.OptimizerConfig: schema.OwnOptimizerConfig,
    schema.OwnCallbackConfig: schema.OwnCallbackConfig,
}


def _build_own(cls: type, plain: Mapping[str, Any], prefix: str, faults: list[Fault]) -> Any:
    """A part of the user's own: its arguments are all keys that are none of ours."""
    key, path = f"{prefix}._target_", plain["_target_"]
    if path is None:
        faults.append(Fault(key, None, "is missing", f"name the class, for example {key}=my_package.MyPart"))
        return cls()
    given = dict(plain)
    of_mlp = schema.OF_MLP if cls is schema.OwnModelConfig else ()
    if of_mlp and all(name in given for name in of_mlp):
        rule = "would get every option of the MLP as an argument"
        faults.append(Fault(key, path, rule, "choose model=own, which has none"))
    if given.get("residual") is True and of_mlp:
        faults.append(Fault(f"{prefix}.residual", True, "is for the MLP and has no effect here", "leave it out"))
    if "name" in given and cls is schema.OwnOptimizerConfig:
        rule, hint = f"contradicts {key}", "choose optimizer=own, which has no name"
        faults.append(Fault(f"{prefix}.name", given.pop("name"), rule, hint))
    hints = _annotations(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in given and field.name not in of_mlp and field.name != "options":
            value = given.pop(field.name)
            values[field.name] = _checked(value, hints[field.name], field, _join(prefix, field.name), faults)
    faults.extend(argument_faults(prefix, given))
    if cls is schema.OwnOptimizerConfig:
        values["name"] = str(path).rpartition(".")[2]
    return cls(**values, options=given)


def _checked(value: Any, annotation: Any, field: dataclasses.Field[Any], key: str, faults: list[Fault]) -> Any:
    if field.name == "options":
        return value
    if annotation == schema.ScheduleConfig:
        return _build_schedule(value, key, faults)
    if annotation == list[schema.OwnCallbackConfig]:
        return _build_callbacks(value, key, faults)
    alternatives = _alternatives(annotation)
    if (named := _named_section(annotation)) is not None:
        return _build_named(named, value, key, faults)
    section: Any = next((one for one in alternatives if dataclasses.is_dataclass(one)), None)
    if section is not None:
        return None if value is None and type(None) in alternatives else _build(section, value, key, faults)
    rule: Rule | None = field.metadata.get("rule")
    if rule is not None and rule.names and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # precision=64 is read as a number
    return _checked_value(value, alternatives, rule, key, faults)


def _checked_value(value: Any, alternatives: list[Any], rule: Rule | None, key: str, faults: list[Fault]) -> Any:
    fits = [one for one in alternatives if _has_type(value, one)]
    if not fits:
        words = " or ".join(_type_words(one) for one in alternatives)
        choices = [name for one in alternatives if typing.get_origin(one) is Literal for name in typing.get_args(one)]
        faults.append(unknown_name(key, value, f"must be {words}", choices))
        return None
    if value is None or typing.get_origin(fits[0]) is Literal:
        return value
    if isinstance(value, (list, dict)):
        elements = value.values() if isinstance(value, dict) else value
        if rule is not None and not all(rule.holds(element) for element in elements):
            faults.append(Fault(key, value, f"must have only values {rule.sentence}"))
        return value
    if isinstance(value, float) and math.isinf(value):
        faults.append(Fault(key, value, "must be finite"))
        return value
    if rule is not None and not rule.holds(value):
        faults.append(unknown_name(key, value, f"must be {rule.sentence}", rule.names))
    return float(value) if float in fits and int not in fits and not isinstance(value, bool) else value


def _named_section(annotation: Any) -> type | None:
    """The dataclass whose sections a mapping of names holds; ``None`` for any other annotation."""
    element = typing.get_args(annotation)[1] if typing.get_origin(annotation) is dict else None
    return element if dataclasses.is_dataclass(element) and isinstance(element, type) else None


def _build_named(cls: type, plain: Any, key: str, faults: list[Fault]) -> Any:
    if not isinstance(plain, Mapping):
        faults.append(
            Fault(key, plain, "must be a mapping of names to sections", f"for example {{age: {_example(cls)}}}")
        )
        return {}
    sections = {decoded_name(str(name)): one for name, one in plain.items()}
    return {name: _build(cls, one, _join(key, name), faults) for name, one in sections.items()}


def _build_callbacks(value: Any, key: str, faults: list[Fault]) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(one, Mapping) and "_target_" in one for one in value):
        hint = "for example [{_target_: my_package.MyCallback, threshold: 3}]"
        faults.append(Fault(key, value, "must be a list of sections with a _target_", hint))
        return []
    return [_build(schema.OwnCallbackConfig, one, f"{key}.{number}", faults) for number, one in enumerate(value)]


def _example(cls: type) -> str:
    first = dataclasses.fields(cls)[0]
    return f"{{{first.name}: {first.default}}}"


def _build_schedule(plain: Any, key: str, faults: list[Fault]) -> Any:
    if not isinstance(plain, Mapping):
        faults.append(Fault(key, plain, "must be a section", "choose one with scheduler=cosine, for example"))
        return None
    name = plain.get("name", "none")
    if not isinstance(name, str) or name not in schema.SCHEDULES:
        rule = "must be one of " + ", ".join(schema.SCHEDULES)
        faults.append(unknown_name(f"{key}.name", name, rule, schema.SCHEDULES))
        return None
    return _build(schema.SCHEDULES[name], plain, key, faults)


def _with_gathered_options(plain: Mapping[str, Any], prefix: str, faults: list[Fault]) -> Mapping[str, Any]:
    """Move the arguments of the optimizer class into ``options``, checking them on the way."""
    class_name = plain.get("name", "SGD")
    arguments = optimizer_arguments(class_name) if isinstance(class_name, str) else None
    gathered, rest = {}, {}
    for name, value in plain.items():
        key = _join(prefix, str(name))
        if name in ("name", "lr"):
            rest[name] = value
        elif arguments is None:
            gathered[name] = value
        elif name not in arguments:
            faults.append(unknown_key(key, value, ["name", "lr", *arguments]))
        else:
            gathered[name] = _checked_argument(value, arguments[name], _OPTIMIZER_RULES.get(name), key, faults)
    return {**rest, "options": gathered}


def _checked_argument(value: Any, default: Any, rule: Rule | None, key: str, faults: list[Fault]) -> Any:
    """Check one optimizer argument: its type is that of its default in the file."""
    if default is None:
        return value
    if isinstance(default, list):
        count = len(default)
        good = isinstance(value, list) and len(value) == count and all(_has_type(one, float) for one in value)
        if not good:
            faults.append(Fault(key, value, f"must be a list of {count} numbers", f"for example {default}"))
            return value
        return _checked_value(value, [list[float]], rule, key, faults)
    return _checked_value(value, [type(default)], rule, key, faults)


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def _has_type(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return value in typing.get_args(annotation)
    if origin is list:
        (element,) = typing.get_args(annotation)
        return isinstance(value, list) and all(_has_type(one, element) for one in value)
    if origin is dict:
        element = typing.get_args(annotation)[1]
        return isinstance(value, dict) and all(_has_type(one, element) for one in value.values())
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _type_words(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return ", ".join(str(name) for name in typing.get_args(annotation))
    if origin is list:
        return f"a list of {_type_words(typing.get_args(annotation)[0]).split(' ', 1)[1]}s"
    if origin is dict:
        return "a mapping of names to numbers"
    return _TYPE_WORDS[annotation]


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
