"""Faults of the overrides of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlp_lightning.config.overrides import check_overrides
from mlp_lightning.errors import ConfigError, Fault


def faults_of(*overrides: str, multirun: bool = False, config_dir: Path | None = None) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        check_overrides(overrides, multirun=multirun, config_dir=config_dir)
    return list(caught.value.faults)


def fault_of(*overrides: str, multirun: bool = False) -> Fault:
    (fault,) = faults_of(*overrides, multirun=multirun)
    return fault
