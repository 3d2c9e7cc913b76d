"""Rules that a single configuration value can be held to, and the dataclass field that carries one.

A rule is a sentence and a predicate: the sentence goes into the error message, so what is checked and
what is said cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition on one value.

    Attributes:
        sentence: how the rule reads after "must be", e.g. ``"at least 1"``.
        holds: predicate on a value of the right type. For a list it is applied to each element.
        names: the valid names when the rule is a choice; used for "did you mean".
    """

    sentence: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def at_least(minimum: float) -> Rule:
    return Rule(f"at least {minimum}", lambda value: value >= minimum and not _infinite(value))


def above(minimum: float) -> Rule:
    return Rule(f"greater than {minimum}", lambda value: value > minimum and not _infinite(value))


def between(low: float, high: float, *, high_included: bool = False) -> Rule:
    if high_included:
        return Rule(f"between {low} and {high}", lambda value: low <= value <= high)
    return Rule(f"at least {low} and less than {high}", lambda value: low <= value < high)


def one_of(names: Sequence[str]) -> Rule:
    return Rule("one of " + ", ".join(names), lambda value: value in names, tuple(names))


def not_empty() -> Rule:
    return Rule("a text that is not empty", lambda value: bool(value.strip()))


def option(default: Any, rule: Rule | None = None, *, meaning: str) -> Any:
    """A dataclass field with a default, an optional rule, and a line of meaning (with its unit).

    ``meaning`` is required: an option that cannot be explained in a line should not exist.
    """
    metadata = {"rule": rule, "meaning": meaning}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
