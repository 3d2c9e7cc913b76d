"""The faults of the configuration of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mlp_lightning.config import Config, parse_config
from mlp_lightning.errors import ConfigError, Fault

# The smallest valid configuration of a table.
TABLE: dict[str, Any] = {"data.name": "table", "data.path": "rows.csv", "data.target": "y", "trainer.max_steps": 1}


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dicts."""
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        mapping = plain
        for section in sections:
            mapping = mapping.setdefault(section, {})
        mapping[last] = value
    return plain


def accepted(**settings: Any) -> Config:
    return parse_config(nested({**TABLE, **settings}))


def faults_of(**settings: Any) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        accepted(**settings)
    return list(caught.value.faults)


def fault_of(**settings: Any) -> Fault:
    (fault,) = faults_of(**settings)
    return fault
