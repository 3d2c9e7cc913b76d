"""A configuration as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_SIMPLE = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:
    """Dataclasses and mappings as new dicts, sequences as new lists, recursively."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif dataclasses.is_dataclass(value):
        items = value.__dict__.items()
    elif isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    else:  # numbers of numpy are subclasses of these
        return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), value)
    return {name: one if type(one) in _SIMPLE else plain(one) for name, one in items}
