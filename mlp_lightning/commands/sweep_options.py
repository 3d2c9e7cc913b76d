"""Which options of a sweep go together, and with a single run."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.config.overrides import CheckedCommand, explicit_keys
from mlp_lightning.errors import ConfigError, Fault


def check_sweep(checked: CheckedCommand, overrides: Sequence[str], folder: Path) -> None:
    """Refuse an existing sweep without ``sweep.resume``, and options that its runs or its launcher cannot follow.

    Args:
        checked: the command.
        overrides: of it.
        folder: of a sweep with its name.

    Raises:
        ConfigError: it cannot be made.
    """
    config, cv = checked.config, checked.config.data.cv
    if "data.cv.fold" in checked.swept and {"search", "hydra/sweeper"} & explicit_keys(overrides):
        rule, hint = "would be searched for the fold that is easiest", "leave it out: data.cv.folds trains all of them"
        raise ConfigError([Fault("data.cv.fold", cv.fold, rule, hint)])
    if config.search.name != "none":
        _check_search(checked, overrides)
    if config.ensemble.members is not None or "ensemble.members" in checked.swept:
        rule, hint = "is for one run", "sweep over single networks first, and make an ensemble of the best without -m"
        raise ConfigError([Fault("ensemble.members", config.ensemble.members, rule, hint)])
    if cv.validates:
        rule, hint = "is for one command", "compare folds that hold out test rows with -m, and train the best without"
        raise ConfigError([Fault("data.cv.held_out_as", cv.held_out_as, rule, hint)])
    if not config.sweep.resume and config.sweep.name is not None and folder.exists():
        rule = f"already exists ({folder})"
        hint = "continue it with sweep.resume=true, or choose another name"
        raise ConfigError([Fault("sweep.name", config.sweep.name, rule, hint)])
    others = [one for one in overrides if one.startswith("hydra/launcher=") and not one.endswith("=vectorized")]
    rules = {"resume": (True, "trains every run"), "store": ("packed", "makes a folder for every run")}
    for name, (value, does) in rules.items() if others else ():
        if getattr(config.sweep, name) == value:
            rule, hint = f"contradicts {others[-1]}, which {does}", "leave hydra/launcher out"
            raise ConfigError([Fault(f"sweep.{name}", value, rule, hint)])
    if config.sweep.store == "packed" and cv.trains_all:
        rule = "packs the runs of stacks, and a cross-validation keeps its folds in folders"
        raise ConfigError([Fault("sweep.store", "packed", rule, "use folders, or choose data.cv.fold")])


# Options of ``data`` that leave the rows, and what is measured on them, as they are.
_OF_SAME_ROWS = ("batch_size", "shuffle", "scaling", "max_one_hot", "max_categories", "class_weight")
# What is no property of a model; some of these decide what it is measured by.
_NOT_SEARCHED = (
    *("task", "name", "verbosity", "ckpt_path", "report_weights", "experiment", "ensemble", "preset", "logger"),
    *("sweep", "search", "allow_targets", "auto_resume"),
)


def _check_search(checked: CheckedCommand, overrides: Sequence[str]) -> None:
    """Refuse a search of what cannot be compared, or that something else of the command cannot do.

    Raises:
        ConfigError: with all of these.
    """
    config, faults = checked.config, []
    rows = "would be searched for the rows that are easiest"
    for key in sorted(checked.swept):
        section, _, name = key.replace("/", ".").partition(".")
        if key == "seed":
            rule, hint = "would be searched for the luckiest", "repeat the best trial with several seeds afterwards"
            faults.append(Fault(key, config.seed, rule, hint))
        elif section == "data" and name not in _OF_SAME_ROWS:
            faults.append(Fault(key, _value(config, key), rows, "give it one value"))
        elif section in _NOT_SEARCHED:
            rule = "cannot be searched: it says nothing of the model"
            faults.append(Fault(key, _value(config, key), rule, "give it one value"))
    if config.search.name == "optuna" and importlib.util.find_spec("optuna") is None:
        hint = "pip install 'mlp-lightning[optuna]', or choose search=random"
        faults.append(Fault("search", "optuna", "needs Optuna, which is not installed", hint))
    for group in ("hydra/sweeper", "hydra/launcher"):
        given = [one.partition("=")[2] for one in overrides if one.lstrip("+").startswith(f"{group}=")]
        if given and given[-1] != "vectorized":
            rule = f"contradicts search={config.search.name}, which trains its trials together"
            faults.append(Fault(group, given[-1], rule, "leave one of them out"))
    if faults:
        raise ConfigError(faults)


def _value(config: Config, key: str) -> Any:
    return functools.reduce(lambda node, name: getattr(node, name, None), key.split("."), config)


def refuse_options_of_sweeps(config: Config, explicit: Collection[str]) -> None:
    """Options of a sweep have no effect on a single run.

    Raises:
        ConfigError: one is set.
    """
    options = ("name", "resume", "fail_fast", "store")
    given = {key: getattr(config.sweep, key) for key in options if f"sweep.{key}" in explicit}
    rule, hint = "has no effect: this is a single run", "add -m for a sweep, or leave it out"
    if config.search.name != "none":
        raise ConfigError([Fault("search", config.search.name, rule, hint)])
    faults = [
        Fault(f"sweep.{key}", value, rule, hint) for key, value in given.items() if value not in (None, False, "auto")
    ]
    if faults:
        raise ConfigError(faults)
