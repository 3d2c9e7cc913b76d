"""Faults of configurations that are given as dotted keys."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import pytest

from mlp_lightning.config import parse_complete, parse_config
from mlp_lightning.config.schema import Config
from mlp_lightning.errors import ConfigError, Fault

# The least that makes a valid configuration: a run has to end.
VALID: dict[str, Any] = {"trainer": {"max_steps": 1}}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dicts, on top of ``VALID``."""
    plain = copy.deepcopy(VALID)
    for key, value in settings.items():
        *sections, last = key.split(".")
        node = plain
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return plain


def faults_of(settings: dict[str, Any], explicit: Collection[str] = ()) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        accepted(settings, explicit)
    return list(caught.value.faults)


def fault_of(settings: dict[str, Any], explicit: Collection[str] = ()) -> Fault:
    (fault,) = faults_of(settings, explicit)
    return fault


def accepted(settings: dict[str, Any], explicit: Collection[str] = ()) -> Config:
    """Without ``explicit`` as Python gives it; with it as Hydra composes it of these keys."""
    return parse_complete(nested(settings), explicit) if explicit else parse_config(nested(settings))
