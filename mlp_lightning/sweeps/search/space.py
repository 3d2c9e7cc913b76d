"""The space of a search, in Hydra's words: choices, ranges, intervals and the tag ``log``."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Union

import numpy as np
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from mlp_lightning.errors import ConfigError, Fault

_MOST_DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Values:
    """One of several values, each as likely.

    Attributes:
        texts: as they are written in an override.
    """

    texts: tuple[str, ...]

    @property
    def size(self) -> float:
        return len(self.texts)

    def draw(self, random: np.random.Generator) -> str:
        return self.texts[random.integers(len(self.texts))]


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number.

    Attributes:
        low: the lowest.
        high: the highest.
        step: between two of them.
        log: whether its logarithm is uniform, and not the number itself.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    @property
    def size(self) -> float:
        return (self.high - self.low) // self.step + 1

    def draw(self, random: np.random.Generator) -> str:
        if self.log:  # each number has the part of the line that rounds to it
            ends = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return str(min(self.high, max(self.low, round(math.exp(random.uniform(*ends))))))
        return str(self.low + self.step * int(random.integers(int(self.size))))


@dataclasses.dataclass(frozen=True)
class Real:
    """A number between two others; ``log`` as for :class:`Whole`."""

    low: float
    high: float
    log: bool = False

    @property
    def size(self) -> float:
        return math.inf if self.high > self.low else 1

    def draw(self, random: np.random.Generator) -> str:
        if not self.log:
            return repr(float(random.uniform(self.low, self.high)))
        value = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        return repr(min(self.high, max(self.low, value)))


Dimension = Union[Values, Whole, Real]


@dataclasses.dataclass(frozen=True)
class Space:
    """What differs between the trials of a search, and what does not.

    Attributes:
        dimensions: by the key as it is written in an override.
        fixed: overrides of all trials.
    """

    dimensions: Mapping[str, Dimension]
    fixed: Sequence[str]

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> Space:
        """Read a space; of several overrides of one key the last counts.

        Raises:
            ConfigError: a dimension is empty, or has no logarithm.
        """
        fixed: dict[str, str] = {}
        dimensions: dict[str, Dimension] = {}
        faults = []
        for one in overrides:
            key = one.get_key_element()
            for known in [*dimensions, *fixed]:
                if known.lstrip("+~") == key.lstrip("+~"):  # optimizer.lr and ++optimizer.lr are one option
                    dimensions.pop(known, None)
                    fixed.pop(known, None)
            if not one.is_sweep_override():
                fixed[key] = str(one.input_line) if one.is_delete() else f"{key}={one.get_value_element_as_str()}"
            elif reason := _why_no_dimension(one):
                faults.append(Fault(key, one.get_value_string(), reason, "for example tag(log, interval(0.001, 1))"))
            else:
                dimensions[key] = _dimension(one)
        if faults:
            raise ConfigError(faults)
        return cls(dimensions, tuple(fixed.values()))

    @property
    def size(self) -> float:
        """How many points it has."""
        return math.prod(one.size for one in self.dimensions.values())

    def overrides(self, point: Mapping[str, str]) -> list[str]:
        """Those of the trial at a point."""
        return [*self.fixed, *(f"{key}={text}" for key, text in point.items())]

    def describe(self) -> dict[str, str]:
        """What two commands that search the same space have in common."""
        return {key: repr(one) for key, one in self.dimensions.items()}


def random_points(space: Space, seed: int, count: int) -> list[dict[str, str]]:
    """Draw points, none of them twice: the first ones are the same whatever ``count``.

    Args:
        space: of at least so many points.
        seed: decides them.
        count: how many.
    """
    points: list[dict[str, str]] = []
    known: set[tuple[str, ...]] = set()
    for number in range(count):
        random = np.random.default_rng(seed_of(seed, number))
        for _ in range(_MOST_DRAWS):
            point = {key: one.draw(random) for key, one in space.dimensions.items()}
            if tuple(point.values()) not in known:
                break
        else:  # of a small space that is nearly used up, or whose logarithms rarely come to some of its points
            point = next(one for one in _all_points(space) if tuple(one.values()) not in known)
        known.add(tuple(point.values()))
        points.append(point)
    return points


def seed_of(seed: int, number: int) -> int:
    """What one trial is drawn with."""
    return int.from_bytes(hashlib.sha256(f"search/{seed}/{number}".encode()).digest()[:4], "big")


def _all_points(space: Space) -> list[dict[str, str]]:
    import itertools

    lists = [
        one.texts if isinstance(one, Values) else [str(n) for n in range(one.low, one.high + 1, one.step)]
        for one in space.dimensions.values()
        if isinstance(one, (Values, Whole))
    ]
    return [dict(zip(space.dimensions, texts, strict=True)) for texts in itertools.product(*lists)]


def _why_no_dimension(one: Override) -> str:
    value = one.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        if not (math.isfinite(value.start) and math.isfinite(value.end) and value.start <= value.end):
            return "is no interval from a lower to a higher number"
        return "has no logarithm: its lower end must be above 0" if "log" in value.tags and value.start <= 0 else ""
    try:
        texts = list(one.sweep_string_iterator())
    except (ValueError, TypeError) as error:  # a range in steps of 0, for one
        return f"is no list of values: {error}"
    if not texts:
        return "has no values"
    if isinstance(value, RangeSweep) and "log" in value.tags:
        if not _is_whole(value) or value.step != 1:
            return "has a logarithm in steps of 1 only: use an interval"
        assert value.start is not None
        return "has no logarithm: its lower end must be above 0" if value.start <= 0 else ""
    return ""


def _is_whole(value: RangeSweep) -> bool:
    return all(isinstance(one, int) for one in (value.start, value.stop, value.step))


def _dimension(one: Override) -> Dimension:
    value = one.value()
    if isinstance(value, IntervalSweep):
        log, start, end = "log" in value.tags, value.start, value.end
        assert start is not None
        assert end is not None
        return Whole(start, end, 1, log) if isinstance(start, int) and isinstance(end, int) else Real(start, end, log)
    if isinstance(value, RangeSweep) and _is_whole(value):
        numbers = sorted(value.range())
        low, high, step = int(numbers[0]), int(numbers[-1]), abs(int(value.step))
        return Whole(low, high, step, "log" in value.tags)
    return Values(tuple(dict.fromkeys(one.sweep_string_iterator())))
