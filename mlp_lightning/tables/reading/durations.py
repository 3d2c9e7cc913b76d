"""Durations that are written like clocks: ``28:35``, ``1:02:03``, ``26:10:00.5``, ``1 days 02:03:04``.

Shapes: ``B`` values.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute

_PATTERN = (
    r"^(?:(?P<days>-?[0-9]{1,7}) days?,? \+?)?(?P<sign>-?)(?P<first>[0-9]{1,9}):(?P<second>[0-5][0-9])"
    r"(?P<third>:[0-5][0-9])?(?P<fraction>[.,][0-9]{1,9})?$"
)
_PARTS = ("days", "sign", "first", "second", "third", "fraction")
_TWO, _THREE = "m:s", "h:m:s"
#: How many parts the durations of a column have: two, three, or some two and some three.
UNITS = (_TWO, _THREE, f"{_THREE} or {_TWO}")
_SAMPLE = 64


@dataclasses.dataclass(frozen=True)
class Clocks:
    """What all values of a column say that are written like clocks.

    Attributes:
        unit: one of :data:`UNITS`.
        count: how many values are written like this.
        are_durations: whether some are no time of day: 24 hours or more, a sign, days, a fraction after two parts.
        shown: one of them; of some two and some three parts, one of each.
    """

    unit: str
    count: int
    are_durations: bool
    shown: tuple[str, ...]


def clocks_of(texts: pa.ChunkedArray) -> Clocks | None:
    """What a column of texts without blanks around them says; ``None`` if few of its first values are clocks."""
    sample = texts.slice(0, _SAMPLE)
    if 2 * _count(pc.match_substring_regex(sample, _PATTERN)) <= len(sample) - sample.null_count:
        return None
    parts = _parts(texts)
    is_clock_B = parts["first"].is_valid().to_numpy()
    texts_B = np.asarray(texts.to_numpy())[is_clock_B]
    three_B = (_lengths(parts["third"]) > 0)[is_clock_B]
    first_B = _numbers(parts["first"])[is_clock_B]
    rest_B = (_numbers(parts["second"]) + _numbers(pc.utf8_ltrim(parts["third"], ":")))[is_clock_B]
    is_long_B = (first_B > 24) | ((first_B == 24) & (rest_B > 0))  # 24:00 is the end of a day
    other_B = (_lengths(parts["days"]) + _lengths(parts["sign"]) > 0)[is_clock_B]
    other_B |= (_lengths(parts["fraction"]) > 0)[is_clock_B] & ~three_B
    kinds = [one for one in (three_B, ~three_B) if one.any()]
    unit = UNITS[2] if len(kinds) == 2 else (_THREE if three_B.any() else _TWO)
    shown = tuple(str(texts_B[int(one.argmax())]) for one in kinds)
    return Clocks(unit, len(texts_B), bool((is_long_B | other_B).any()), shown)


def seconds(texts: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Durations as seconds (``60 a + b`` for two parts), ``(B,)``; missing where a text is none of this unit.

    >>> seconds(pa.chunked_array([["1:02:03", "28:35", "-0:30", "7"]]), "h:m:s or m:s").to_pylist()
    [3723.0, 1715.0, -30.0, None]
    """
    parts = _parts(texts)
    three_B, is_read_B = _lengths(parts["third"]) > 0, parts["first"].is_valid().to_numpy()
    allowed = unit.split(" or ")
    is_read_B &= np.where(three_B, _THREE in allowed, _TWO in allowed)
    first_B, second_B, third_B = (_numbers(pc.utf8_ltrim(parts[one], ":")) for one in ("first", "second", "third"))
    fraction_B = pc.replace_substring(parts["fraction"], ",", ".")
    within_B = np.where(three_B, 3600 * first_B + 60 * second_B + third_B, 60 * first_B + second_B)
    within_B = within_B + _numbers(fraction_B)
    sign_B = np.where(_lengths(parts["sign"]) > 0, -1.0, 1.0)
    return pa.chunked_array([pa.array(86_400 * _numbers(parts["days"]) + sign_B * within_B, mask=~is_read_B)])


def _parts(texts: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    found = pc.extract_regex(texts, pattern=_PATTERN)
    return {name: pc.struct_field(found, name) for name in _PARTS}


def _lengths(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    return pc.fill_null(pc.utf8_length(texts), 0).to_numpy().astype(np.int64)


def _numbers(texts: pa.ChunkedArray) -> NDArray[np.float64]:
    """Digits as numbers, 0 where there are none."""
    return pc.if_else(pc.fill_null(pc.equal(texts, ""), True), "0", texts).cast(pa.float64()).to_numpy()


def _count(truths: pa.ChunkedArray) -> int:
    return pc.sum(truths).as_py() or 0
