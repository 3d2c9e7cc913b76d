"""Other values in a configuration, put in without OmegaConf where that means the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

_SIMPLE = (bool, int, float, str, type(None))
# A text that Hydra's grammar reads as a number, without quotes, letters or a leading zero: Python reads it alike.
_WHOLE, _DECIMAL = re.compile(r"0|[1-9]\d{0,17}", re.ASCII), re.compile(r"(0|[1-9]\d{0,7})\.\d{1,17}", re.ASCII)


def as_number(text: str) -> int | float | None:
    """The number that a plain text is in an override; ``None`` if Hydra's grammar has to read it."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else None


def is_plain_value(value: Any) -> bool:
    """Whether a value means the same to OmegaConf and to Python: nothing in it is looked up or merged."""
    if isinstance(value, list):
        return all(type(one) in _SIMPLE and is_plain_value(one) for one in value)
    return type(value) in _SIMPLE and not (isinstance(value, str) and ("$" in value or "???" in value))


def with_value(content: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A configuration with another value at a path; what does not lead there is the same objects."""
    name, *below = keys
    return {**content, name: with_value(content[name], tuple(below), value) if below else value}


def holds_value(content: Any, keys: tuple[str, ...]) -> bool:
    """Whether there is a value at a path, and neither a mapping nor nothing."""
    for name in keys:
        if not isinstance(content, Mapping) or name not in content:
            return False
        content = content[name]
    return not isinstance(content, Mapping)


def updated(plain: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A configuration with another value, as OmegaConf makes it."""
    path = tuple(key.split("."))
    if is_plain_value(value) and holds_value(plain, path):
        return with_value(plain, path, value)
    other: DictConfig = OmegaConf.create(copy.deepcopy(plain))
    OmegaConf.update(other, key, value, force_add=True)
    changed = OmegaConf.to_container(other)
    assert isinstance(changed, dict)
    return {str(name): one for name, one in changed.items()}
