"""What the runs of a sweep share: most of their sections are the same objects, so most of their work is the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")
_MOST_REMEMBERED = 4096
_SIMPLE = (bool, int, float, str, type(None))
# A text that Hydra's grammar reads as a number, without quotes, letters or a leading zero: Python reads it alike.
_WHOLE, _DECIMAL = re.compile(r"0|[1-9]\d{0,17}", re.ASCII), re.compile(r"(0|[1-9]\d{0,7})\.\d{1,17}", re.ASCII)


class Remembered(Generic[_Result]):
    """A function of an object, evaluated once for each object; it must not change, nor what the function returns.

    Objects count as the same only if they are identical, so that nothing is compared. The latest are kept alive.
    """

    def __init__(self, function: Callable[[Any], _Result]) -> None:
        self._function = function
        self._known: dict[int, tuple[Any, _Result]] = {}

    def __call__(self, one: Any) -> _Result:
        known = self._known.get(id(one))
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = self._known[id(one)] = (one, self._function(one))
        return known[1]


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
