"""What the runs of a sweep share: most of their sections are the same objects, so most of their work is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")
#: The names of the sections of a configuration.
SECTIONS = (
    *("model", "data", "optimizer", "scheduler", "trainer", "callbacks", "logger", "ensemble", "preset"),
    *("sweep", "search"),
)
_MOST_REMEMBERED = 4096


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
