"""Which options of a sweep go together, and with a single run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

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


def refuse_options_of_sweeps(config: Config, explicit: Collection[str]) -> None:
    """Options of a sweep have no effect on a single run.

    Raises:
        ConfigError: one is set.
    """
    options = ("name", "resume", "fail_fast", "store")
    given = {key: getattr(config.sweep, key) for key in options if f"sweep.{key}" in explicit}
    rule, hint = "has no effect: this is a single run", "add -m for a sweep, or leave it out"
    faults = [
        Fault(f"sweep.{key}", value, rule, hint) for key, value in given.items() if value not in (None, False, "auto")
    ]
    if faults:
        raise ConfigError(faults)
