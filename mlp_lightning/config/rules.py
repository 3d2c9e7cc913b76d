"""Rules that a single configuration value can be held to, the dataclass field that carries one, and wrong names.

A rule is a sentence and a predicate: the sentence goes into the error message, so the check and the
message cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePath
from typing import Any

from mlp_lightning.config.names import MOMENT_LETTERS
from mlp_lightning.config.nearest import nearest
from mlp_lightning.config.targets import is_dotted_name, is_import_path
from mlp_lightning.errors import Fault


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition on one value.

    Attributes:
        sentence: how the rule reads after "must be", e.g. ``"at least 1"``.
        holds: predicate on a value of the right type. For a list it is applied to each element.
        names: only a :class:`Choice` has some; used for "did you mean".
    """

    sentence: str
    holds: Callable[[Any], bool]
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Choice:
    """The rule of a choice whose names are looked up when they are needed.

    Attributes:
        listed: looks them up.
        or_path_of: of what an import path may be instead; empty if none may.
    """

    listed: Callable[[], Sequence[str]]
    or_path_of: str = ""

    @property
    def names(self) -> Sequence[str]:
        return self.listed()

    @property
    def sentence(self) -> str:
        listed = "one of " + ", ".join(self.names)
        return f"{listed}, or the import path of a {self.or_path_of}" if self.or_path_of else listed

    def holds(self, value: Any) -> bool:
        return value in self.names or (bool(self.or_path_of) and is_import_path(value))


def at_least(minimum: float) -> Rule:
    return Rule(f"at least {minimum}", lambda value: value >= minimum)


def above(minimum: float) -> Rule:
    return Rule(f"greater than {minimum}", lambda value: value > minimum)


def between(low: float, high: float, *, high_included: bool = False) -> Rule:
    if high_included:
        return Rule(f"between {low} and {high}", lambda value: low <= value <= high)
    return Rule(f"at least {low} and less than {high}", lambda value: low <= value < high)


def between_exclusive(low: float, high: float) -> Rule:
    return Rule(f"greater than {low} and less than {high}", lambda value: low < value < high)


def one_of(names: Sequence[str] | Callable[[], Sequence[str]], or_path_of: str = "") -> Choice:
    return Choice(names if callable(names) else lambda: names, or_path_of)


# File systems take 255 bytes.
_LONGEST_FOLDER = 200


def folder_name() -> Rule:
    """A folder below another one: without ``..``, and not OmegaConf's ``???``."""

    def holds(value: str) -> bool:
        path = PurePath(value)
        is_inside = not path.is_absolute() and ".." not in path.parts
        return bool(value.strip()) and value != "???" and is_inside and len(os.fsencode(value)) <= _LONGEST_FOLDER

    return Rule(f"the name of a folder, relative and without .., of at most {_LONGEST_FOLDER} bytes", holds)


def moment_format() -> Rule:
    """How a date or a time is written, by the letters of ``strptime``; none of them twice."""

    def holds(value: str) -> bool:
        letters = re.findall("%(.?)", value)
        parts = [
            "month" if one in "mbB" else "year" if one in "yY" else "hour" if one in "HI" else one for one in letters
        ]
        known = all(one and one in MOMENT_LETTERS for one in letters)
        says = {"year", "month"} <= set(parts) or "hour" in parts
        return known and says and len(set(parts)) == len(parts)

    listed = " ".join(f"%{one}" for one in MOMENT_LETTERS)
    return Rule(f"a format of dates or times of {listed}, such as %d/%m/%Y", holds)


def dotted_names() -> Rule:
    """For a list: names of packages or modules."""
    return Rule("that are names of packages or modules", is_dotted_name)


def not_empty() -> Rule:
    return Rule("a text that is not empty", lambda value: bool(value.strip()))


def option(default: Any, rule: Rule | Choice | None = None, *, meaning: str) -> Any:
    """A dataclass field with a default, an optional rule, and a line of meaning (with its unit).

    ``meaning`` is required: an option that cannot be explained in a line should not exist.
    """
    metadata = {"rule": rule, "meaning": meaning}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def unknown_key(key: str, value: Any, known: Collection[str]) -> Fault:
    """The fault of a key that its section does not have."""
    section, _, last = key.rpartition(".")
    where = f"of {section}" if section else "of the configuration"
    match = nearest(last, known)
    hint = f"did you mean {section + '.' if section else ''}{match}?" if match else ""
    return Fault(key, value, f"is not a key {where} ({', '.join(known)})", hint)


def unknown_name(key: str, value: Any, rule: str, names: Collection[str]) -> Fault:
    """The fault of a value that is not one of the valid names."""
    match = nearest(value, names) if isinstance(value, str) else None
    return Fault(key, value, rule, f"did you mean {match}?" if match else "")


# The smallest and the largest number that 32 bits hold in full precision.
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


def float_rule(value: float) -> str:
    """The rule that a number breaks which 32 bits do not hold; empty if they do."""
    if value == 0 or math.isnan(value) or _SMALLEST <= abs(value) <= _LARGEST:
        return ""
    if math.isinf(value):
        return "must be finite"
    return f"must be 0 or between {_SMALLEST:.2g} and {_LARGEST:.2g} in size, as 32-bit numbers are"
