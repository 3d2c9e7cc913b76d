"""From plain nested dicts to a checked :class:`Config`, collecting every fault."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar

from mlp_lightning.config import schedules, schema
from mlp_lightning.config.annotations import alternatives, has_type, type_words
from mlp_lightning.config.completion import completed, one_limit, with_depth
from mlp_lightning.config.conf_files import optimizer_arguments, optimizer_option
from mlp_lightning.config.contradictions import contradictions
from mlp_lightning.config.ensembles import with_fixed
from mlp_lightning.config.free_names import decoded_name
from mlp_lightning.config.names import OTHER_OPTIMIZERS
from mlp_lightning.config.rules import Choice, Rule, at_least, between, float_rule, unknown_key, unknown_name
from mlp_lightning.config.targets import argument_faults, refused_targets
from mlp_lightning.errors import ConfigError, Fault

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


def parse_config(plain: Mapping[str, Any], given: Collection[str] = ()) -> schema.Config:
    """Check a configuration and turn it into dataclasses. Imports no torch, reads no data.

    What it leaves out is what the command line would choose; see :mod:`mlp_lightning.config.completion`.

    Args:
        plain: nested dicts, with the keys and groups of the command line.
        given: keys of import paths of what the caller has, so that nothing is imported.

    Raises:
        ConfigError: with every fault that could be found: unknown keys, wrong types, values out of range,
            unknown options, contradictions between keys.

    >>> config = parse_config({"data": {"name": "xor"}, "model": "wide_deep"})
    >>> config.model.layer_widths, config.optimizer.lr, config.trainer.max_steps
    ([10, 10, 10], 1.0, 10001)
    """
    faults: list[Fault] = []
    full, explicit = completed(plain, faults) if isinstance(plain, Mapping) else (plain, ())
    return _parsed(full, explicit, faults, given=given)


def parse_complete(
    plain: Mapping[str, Any],
    explicit: Collection[str] = (),
    is_stored: bool = False,
    known: KnownSections | None = None,
) -> schema.Config:
    """Check a configuration that leaves nothing to choose, such as a composed one; a missing key has its default.

    Args:
        plain: nested dicts with resolved values, such as ``OmegaConf.to_container(cfg, resolve=True)``.
        explicit: dotted keys that the user set, to distinguish a contradiction from a default that another
            choice makes irrelevant.
        is_stored: whether it is what a run has left, to be read and not to be trained. It may name parts of the
            user's own that the caller does not allow: nothing here imports them, and who builds one asks again.
        known: sections of earlier configurations, which are not built again; new ones are added.

    Raises:
        ConfigError: as :func:`parse_config`.
    """
    return _parsed(plain, explicit, [], is_stored, known=known)


#: Sections without faults by the identity of what they were built from, which must not change.
KnownSections = dict[tuple[str, int], tuple[Any, Any]]


def _parsed(
    plain: Mapping[str, Any],
    explicit: Collection[str],
    faults: list[Fault],
    is_stored: bool = False,
    given: Collection[str] = (),
    known: KnownSections | None = None,
) -> schema.Config:
    config = _build(schema.Config, plain, "", faults, known)
    if not is_stored and isinstance(plain, Mapping):
        faults.extend(refused_targets(plain, given))
    if not faults:
        faults = contradictions(config, explicit)
    if faults:
        raise ConfigError(faults)
    model, trainer = with_depth(config.model), one_limit(config.trainer, explicit)
    if known is not None:  # the same for the same section
        model = known.setdefault(("with depth", id(config.model)), (config.model, model))[1]
        limits = " ".join(key for key in ("trainer.max_steps", "trainer.max_epochs") if key in explicit)
        trainer = known.setdefault((f"one limit of {limits}", id(config.trainer)), (config.trainer, trainer))[1]
    return dataclasses.replace(config, model=model, trainer=trainer, preset=with_fixed(config.preset, explicit))


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


def _build(cls: type, plain: Any, prefix: str, faults: list[Fault], known: KnownSections | None = None) -> Any:
    """An instance of the dataclass ``cls`` from ``plain``; faults are appended, never raised."""
    if not isinstance(plain, Mapping):
        keys = ", ".join(field.name for field in dataclasses.fields(cls))
        faults.append(Fault(prefix, plain, "must be a section", f"its keys are {keys}"))
        return None
    own = _OWN.get(cls)
    if own is not None and "_target_" in plain:
        return _build_own(own, plain, prefix, faults)
    if cls is schema.OptimizerConfig:
        plain = _with_gathered_options(plain, prefix, faults)
    options = _options(cls)
    sayable = list(options) if own is None else [*options, "_target_"]
    faults.extend(
        unknown_key(_join(prefix, str(name)), value, sayable) for name, value in plain.items() if name not in options
    )
    check = _checked if known is None else functools.partial(_checked_once, known)
    values = {
        name: check(plain[name], one, _join(prefix, name), faults) for name, one in options.items() if name in plain
    }
    return cls(**values)


def _checked_once(known: KnownSections, value: Any, option: _Option, key: str, faults: list[Fault]) -> Any:
    """As :func:`_checked`; a section that is known to be without fault is the same object as before."""
    if not isinstance(value, Mapping):
        return _checked(value, option, key, faults)
    one = known.get((key, id(value)))
    if one is None:
        before = len(faults)
        one = value, _checked(value, option, key, faults)
        if len(faults) == before:
            known[key, id(value)] = one
    return one[1]


_OWN: dict[type, type] = {
    schema.ModelConfig: schema.OwnModelConfig,
    schema.DataConfig: schema.OwnDataConfig,
    schema.OptimizerConfig: schema.OwnOptimizerConfig,
    schema.OwnCallbackConfig: schema.OwnCallbackConfig,
}


def _build_own(cls: type, plain: Mapping[str, Any], prefix: str, faults: list[Fault]) -> Any:
    """A part of the user's own: its arguments are all keys that are none of ours."""
    key, path = f"{prefix}._target_", plain["_target_"]
    if path is None:
        what, example = ("function", "load") if cls is schema.OwnDataConfig else ("class", "MyPart")
        faults.append(Fault(key, None, "is missing", f"name the {what}, for example {key}=my_package.{example}"))
        return cls()
    given = dict(plain)
    of_mlp = schema.OF_MLP if cls is schema.OwnModelConfig else ()
    if of_mlp and all(name in given for name in of_mlp):
        rule = "would get every option of the MLP as an argument"
        faults.append(Fault(key, path, rule, "choose model=own, which has none"))
    if "name" in given and cls is schema.OwnOptimizerConfig:
        rule, hint = f"contradicts {key}", "choose optimizer=own, which has no name"
        faults.append(Fault(f"{prefix}.name", given.pop("name"), rule, hint))
    options = _options(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in given and field.name not in of_mlp and field.name != "options":
            value = given.pop(field.name)
            values[field.name] = _checked(value, options[field.name], _join(prefix, field.name), faults)
    faults.extend(argument_faults(prefix, given))
    if cls is schema.OwnOptimizerConfig:
        values["name"] = str(path).rpartition(".")[2]
    return cls(**values, options=given)


@dataclasses.dataclass(frozen=True)
class _Option:
    """What the annotation and the rule of a field say; looked up once, since a sweep checks every run.

    Attributes:
        alternatives: the types that its value may have.
        rule: for its value.
        section: the dataclass of a section.
        named: the dataclass of the sections that a mapping of names holds.
        is_schedule: whether it is a section whose name says which dataclass it has.
        is_callbacks: whether it is the list of callbacks of the user's own.
        is_gathered: whether its values are checked before.
    """

    alternatives: list[Any]
    rule: Rule | Choice | None
    section: type | None
    named: type | None
    is_schedule: bool
    is_callbacks: bool
    is_gathered: bool


@functools.cache
def _options(cls: type) -> dict[str, _Option]:
    hints = typing.get_type_hints(cls)
    options = {}
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        allowed = alternatives(annotation)
        section: Any = next((one for one in allowed if dataclasses.is_dataclass(one)), None)
        options[field.name] = _Option(
            allowed,
            field.metadata.get("rule"),
            section,
            _named_section(annotation),
            annotation == schedules.ScheduleConfig,
            annotation == list[schema.OwnCallbackConfig],
            field.name == "options",
        )
    return options


def dataclass_of(cls: type, name: str) -> type | None:
    """The dataclass of the section, or of the named sections, that a field holds; ``None`` for a value."""
    option = _options(cls)[name]
    return option.section or option.named


def _checked(value: Any, option: _Option, key: str, faults: list[Fault]) -> Any:
    if option.is_gathered:
        return value
    if option.is_schedule:
        return _build_schedule(value, key, faults)
    if option.is_callbacks:
        return _build_callbacks(value, key, faults)
    if option.named is not None:
        return _build_named(option.named, value, key, faults)
    if option.section is not None:
        optional = type(None) in option.alternatives
        return None if value is None and optional else _build(option.section, value, key, faults)
    if isinstance(option.rule, Choice) and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # precision=64 is read as a number
    else:
        value = _as_text(value, option.alternatives)
    return _checked_value(value, option.alternatives, option.rule, key, faults)


def _as_text(value: Any, alternatives: list[Any]) -> Any:
    """A whole number as its text where an option takes texts: a column may be called 3; others unchanged."""
    if str not in alternatives or int in alternatives or float in alternatives:
        return value
    if isinstance(value, list) and list[str] in alternatives:
        return [_as_text(one, [str]) for one in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _checked_value(
    value: Any, alternatives: list[Any], rule: Rule | Choice | None, key: str, faults: list[Fault]
) -> Any:
    fits = [one for one in alternatives if has_type(value, one)]
    if not fits:
        words = " or ".join(type_words(one) for one in alternatives)
        choices = [name for one in alternatives if typing.get_origin(one) is Literal for name in typing.get_args(one)]
        fault = unknown_name(key, value, f"must be {words}", choices)
        if hasattr(value, "columns"):
            hint = "hand over a data frame as train(config, run_dir, frame=…), with data.name = 'table'"
            fault = Fault(key, f"a {type(value).__name__}", f"must be {words}", hint)
        elif str in alternatives and isinstance(value, (bool, float)) and not isinstance(rule, Choice):
            fault = dataclasses.replace(fault, hint=f"quote a text that looks like something else: '{key}=\"{value}\"'")
        faults.append(fault)
        return None
    if value is None or typing.get_origin(fits[0]) is Literal:
        return value
    if isinstance(value, (list, dict)):
        elements = value.values() if isinstance(value, dict) else value
        if rule is not None and not all(rule.holds(element) for element in elements):
            faults.append(Fault(key, value, f"must have only values {rule.sentence}"))
        return value
    if isinstance(value, float) and (unfit := float_rule(value)):
        faults.append(Fault(key, value, unfit))
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
    if not isinstance(name, str) or name not in schedules.SCHEDULES:
        rule = "must be one of " + ", ".join(schedules.SCHEDULES)
        faults.append(unknown_name(f"{key}.name", name, rule, schedules.SCHEDULES))
        return None
    return _build(schedules.SCHEDULES[name], plain, key, faults)


def _with_gathered_options(plain: Mapping[str, Any], prefix: str, faults: list[Fault]) -> Mapping[str, Any]:
    """Move the arguments of the optimizer class into ``options``, checking them on the way."""
    class_name = plain.get("name", "SGD")
    arguments = optimizer_arguments(class_name) if isinstance(class_name, str) else None
    # A name that is wrong has its fault where it is checked.
    known = OTHER_OPTIMIZERS.get(class_name, plain) if isinstance(class_name, str) else plain
    gathered, rest = schema.plain(arguments or {}), {}
    for name, value in plain.items():
        key = _join(prefix, str(name))
        if name in ("name", "lr"):
            rest[name] = value
        elif name not in (known if arguments is None else arguments):
            fault = unknown_key(key, value, ["name", "lr", *(known if arguments is None else arguments)])
            faults.append(fault if fault.hint else dataclasses.replace(fault, hint=_whole_group(class_name, key)))
        elif arguments is None:
            gathered[name] = value
        else:
            gathered[name] = _checked_argument(value, arguments[name], _OPTIMIZER_RULES.get(name), key, faults)
    return {**rest, "options": gathered}


def _whole_group(class_name: str, key: str) -> str:
    """How to choose an optimizer without the arguments of another one."""
    option = optimizer_option(class_name)
    return f"leave it out with '~{key}'" if option is None else f"choose optimizer={option}"


def _checked_argument(value: Any, default: Any, rule: Rule | Choice | None, key: str, faults: list[Fault]) -> Any:
    """Check one optimizer argument: its type is that of its default in the file."""
    if default is None:
        return value
    if isinstance(default, list):
        count = len(default)
        good = isinstance(value, list) and len(value) == count and all(has_type(one, float) for one in value)
        if not good:
            faults.append(Fault(key, value, f"must be a list of {count} numbers", f"for example {default}"))
            return value
        return _checked_value(value, [list[float]], rule, key, faults)
    return _checked_value(value, [type(default)], rule, key, faults)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
