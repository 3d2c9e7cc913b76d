"""What a configuration that is given from Python leaves out, from the files that the command line composes.

The keys mean what they mean on the command line. A text chooses an option of a group; a mapping sets keys on top of the
option that would be chosen without it, or of the one that its ``option`` or its ``name`` says::

    {"data": "iris"}                                             data=iris
    {"data": {"name": "moons", "noise": 0.2}, "model": "wide"}   data=moons data.noise=0.2 model=wide
    {"model": {"option": "wide", "dropout": 0.1}}                model=wide model.dropout=0.1
    {"experiment": "lab8_2_mlp", "seed": 1}                      experiment=lab8_2_mlp seed=1
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import yaml

from mlp_lightning.config import schema
from mlp_lightning.config.conf_files import conf_file, conf_text, optimizer_option, option_names
from mlp_lightning.config.defaults import schema_node
from mlp_lightning.config.names import SKLEARN_SETS
from mlp_lightning.config.rules import unknown_name
from mlp_lightning.errors import Fault

_GLOBAL = "# @package _global_"
# The option below a part of the user's own.
_OF_OWN = {"model": "own", "optimizer": "own", "data": "table"}
_INTERPOLATION = re.compile(r"\$\{(?:oc\.select:)?([\w.]+)(?:,(.*))?}")


def completed(given: Mapping[str, Any], faults: list[Fault]) -> tuple[Mapping[str, Any], frozenset[str]]:
    """A configuration with all its keys, and the dotted keys that ``given`` sets.

    A configuration that has every key already (a composed one, the one of a checkpoint) is returned as it is, and
    nothing of it counts as set: nobody knows what of it the user chose.
    """
    if _is_complete(given):
        return given, frozenset()
    chosen: dict[str, str | None] = {}
    plain = dict(given)
    for group in _groups().keys() & given.keys():
        section = given[group]
        if isinstance(section, str) or group == "experiment":
            del plain[group]
            option = section
        elif isinstance(section, Mapping) and "option" in section:
            plain[group] = {name: one for name, one in section.items() if name != "option"}
            option = section["option"]
        elif isinstance(section, Mapping):
            own = _OF_OWN.get(group) if "_target_" in section else None
            is_named = group == "data" and "name" in section  # what contradicts it is reported
            chosen |= {group: own} if own and not is_named else _option_by_name(group, section.get("name"))
            continue
        else:
            continue  # the schema refuses it
        if option in option_names(group) or (group == "experiment" and option is None):
            chosen[group] = option
        else:
            key, options = group if group not in plain else f"{group}.option", option_names(group)
            faults.append(unknown_name(key, option, "must be one of " + ", ".join(options), options))
    # A group is a key only where its option was chosen, as on the command line.
    explicit = frozenset(_keys(plain)) - _groups().keys() | {group for group in _groups() if _chooses(given.get(group))}
    faults.extend(_swept(chosen.get("experiment"), explicit))
    base, interpolated = _composed(frozenset(chosen.items()))
    merged = _merged(schema.plain(base), plain)
    for key in interpolated - explicit:
        _resolve(merged, key)
    return merged, explicit


def _is_complete(given: Mapping[str, Any]) -> bool:
    """Whether it is a whole configuration, such as a run leaves; a key that came later has the schema's default."""
    fields = schema.Config.__dataclass_fields__.values()
    keys = {field.name for field in fields} - {"allow_targets", "auto_resume"}  # no run leaves them
    sections = [field.name for field in fields if isinstance(field.default_factory, type) and field.name in keys]
    return keys <= given.keys() and all(isinstance(given[name], Mapping) for name in sections)


# ---- what is given ---------------------------------------------------------------------------------------


@functools.cache
def _groups() -> dict[str, str | None]:
    """The groups that decide a run, in the order in which they are merged, each with its default option."""
    entries = [one for one in conf_file("train")["defaults"] if isinstance(one, dict)]
    groups = {name: option for one in entries for name, option in one.items() if not name.startswith("override ")}
    del groups["search"]  # decides a sweep
    return groups


def _option_by_name(group: str, name: Any) -> dict[str, str | None]:
    """The option that the ``name`` of a section stands for, by its group."""
    if not isinstance(name, str) or group not in ("data", "optimizer", "scheduler", "preset"):
        return {}
    if group == "optimizer":  # a class; one without a file has its arguments from torch
        return {group: optimizer_option(name)}
    if group == "data" and name == "frame":
        name = "table"
    elif group == "data" and name in SKLEARN_SETS and name not in option_names(group):
        name = "sklearn"
    return {group: name} if name in option_names(group) else {}


def _chooses(section: Any) -> bool:
    return isinstance(section, str) or (isinstance(section, Mapping) and "option" in section)


def _keys(plain: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in plain.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")


# ---- what the files say ----------------------------------------------------------------------------------


def _swept(experiment: str | None, explicit: frozenset[str]) -> Iterator[Fault]:
    """The keys of which an experiment is a sweep, and which have no value: a training is one run."""
    hydra = conf_file(f"experiment/{experiment}").get("hydra", {}) if experiment is not None else {}
    if hydra.get("mode") == "MULTIRUN":
        for key in hydra.get("sweeper", {}).get("params", {}).keys() - explicit:
            yield Fault("experiment", experiment, f"is a sweep of {key}, and this is one run", f"set {key} as well")


@functools.lru_cache(maxsize=256)
def _composed(chosen: frozenset[tuple[str, str | None]]) -> tuple[dict[str, Any], frozenset[str]]:
    """What the command line composes of these options, and the keys whose values are interpolations."""
    options = dict(chosen)
    # As in Hydra, later groups choose options of others first: an experiment chooses data, and data its model.
    for group, default in reversed(_groups().items()):
        option = options.setdefault(group, default)
        if option is not None:
            for other, wanted in _overrides(group, option):
                options.setdefault(other, wanted)
    plain: dict[str, Any] = {}
    for entry in conf_file("train")["defaults"]:
        if entry == "_self_":
            plain = _merged(plain, _own_content("train"))
        elif isinstance(entry, str):
            plain = _merged(plain, schema_node(entry))
        else:
            for group in entry.keys() & options.keys():
                option = options[group]
                plain = _merged(plain, {} if option is None else _content(group, option))
    return plain, frozenset(key for key in _keys(plain) if str(_value(plain, key)).startswith("${"))


def _overrides(group: str, option: str) -> Iterator[tuple[str, str]]:
    """The options of other groups that an option chooses."""
    for entry in reversed(conf_file(f"{group}/{option}").get("defaults", [])):
        if isinstance(entry, dict):
            yield from ((name.removeprefix("override /"), other) for name, other in entry.items())
        elif not entry.startswith("/"):
            yield from _overrides(group, entry)


def _content(group: str, option: str) -> dict[str, Any]:
    """What an option says, and the files that it begins with, as keys of the whole configuration."""
    plain: dict[str, Any] = {}
    for entry in conf_file(f"{group}/{option}").get("defaults", []):
        if isinstance(entry, dict):
            continue
        if entry.startswith("/"):
            node, _, package = entry[1:].partition("@")
            content = schema_node(node)
            inside = content if package == "_here_" else {package: content}
            plain = _merged(plain, {group: inside})
        else:
            plain = _merged(plain, _content(group, entry))
    own = _own_content(f"{group}/{option}")
    return _merged(plain, own if conf_text(f"{group}/{option}").startswith(_GLOBAL) else {group: own})


def _own_content(name: str) -> dict[str, Any]:
    return {key: one for key, one in conf_file(name).items() if key not in ("defaults", "hydra")}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; any other value of ``above`` replaces that of ``below``."""
    plain = dict(below)
    for name, value in above.items():
        old = plain.get(name)
        plain[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return plain


def _value(plain: Any, key: str) -> Any:
    for name in key.split("."):
        plain = plain.get(name) if isinstance(plain, Mapping) else None
    return plain


def _resolve(plain: dict[str, Any], key: str) -> None:
    """Replace an interpolation of a file by its value; where there is none, the schema's default remains."""
    found = _INTERPOLATION.fullmatch(str(_value(plain, key)))
    if found is None:  # the user replaced its section
        return
    *sections, last = key.split(".")
    section: Any = _value(plain, ".".join(sections)) if sections else plain
    value = _value(plain, found[1])
    if value is None and found[2] is not None:
        value = yaml.safe_load(found[2])
    if value is None:
        del section[last]
    else:
        section[last] = value


def with_depth(model: schema.ModelConfig) -> schema.ModelConfig:
    """The model with its number of hidden layers."""
    return dataclasses.replace(model, depth=len(model.layer_widths))


def one_limit(trainer: schema.TrainerConfig, explicit: Collection[str]) -> schema.TrainerConfig:
    """Let a length that the user gave replace the other length, which only the data set suggested.

    Without this ``data=iris trainer.max_steps=1000`` would silently end with iris's 100 epochs.
    """
    limits = {"max_steps": trainer.max_steps, "max_epochs": trainer.max_epochs}
    given = [name for name, value in limits.items() if f"trainer.{name}" in explicit and value is not None]
    if len(given) != 1:
        return trainer
    return dataclasses.replace(trainer, **{name: limits[name] if name in given else None for name in limits})
