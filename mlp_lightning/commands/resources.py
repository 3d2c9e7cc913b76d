"""What a command needs beside its options, looked for with them: all that is missing is reported together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mlp_lightning.config import parse_complete
from mlp_lightning.errors import ConfigError, DataError, Fault

Parse = Callable[[Mapping[str, Any], Collection[str]], Any]


def parse_with(parse: Parse, faults_of: Callable[[Mapping[str, Any]], list[Fault]]) -> Parse:
    """A function that parses a composed configuration, and adds further faults to those that it finds.

    Args:
        parse: makes the configuration of plain dicts and the keys that you set.
        faults_of: finds the further faults of plain dicts.
    """

    def parse_and_look(plain: Mapping[str, Any], explicit: Collection[str]) -> Any:
        faults: list[Fault] = []
        parsed = None
        try:
            parsed = parse(plain, explicit)
        except ConfigError as error:
            faults += error.faults
        faults += faults_of(plain)
        if faults:
            raise ConfigError(faults)
        return parsed

    return parse_and_look


def parse_training(overrides: Sequence[str]) -> Parse:
    """What parses the configuration of a training, and looks for what it needs."""
    # The workers of other launchers may be on other machines.
    is_here = not any(one.startswith(("hydra/launcher=", "hydra.launcher.backend=")) for one in overrides)

    def missing(plain: Mapping[str, Any]) -> list[Fault]:
        trainer = plain.get("trainer")
        device = trainer.get("accelerator") if is_here and isinstance(trainer, Mapping) else None
        return [*missing_tables(plain), *missing_device("trainer.accelerator", device)]

    # The values of a sweep leave most sections as they are.
    return parse_with(functools.partial(parse_complete, known={}), missing)


def missing_tables(plain: Mapping[str, Any]) -> list[Fault]:
    """The tables of a configuration that are not there. Addresses are not asked, standard input is not read."""
    data = plain.get("data")
    if not isinstance(data, Mapping) or "_target_" in data:  # whose path is an argument of a function of your own
        return []
    faults = []
    for key in ("path", "val_path", "test_path"):
        given = data.get(key)
        if isinstance(given, str) and given not in ("", "-") and "://" not in given:
            from mlp_lightning.tables.reading.paths import find_files

            try:
                find_files(given)
            except DataError as error:
                text = str(error).removesuffix(".")
                says_itself = text.startswith(f"{given} ")
                rule = text.removeprefix(f"{given} ").removeprefix(f"{given}: ")
                faults.append(Fault(f"data.{key}", given, rule if says_itself else f"is no table: {rule}"))
    return faults


def missing_device(key: str, accelerator: Any) -> list[Fault]:
    """An accelerator that this machine does not have."""
    if accelerator not in ("gpu", "mps"):
        return []
    import torch

    has_mps = torch.backends.mps.is_available()
    if has_mps or (accelerator == "gpu" and torch.cuda.is_available()):
        return []
    rule = f"is not there: torch finds none on this machine; use {key}=auto to take what it has"
    return [Fault(key, accelerator, rule)]
