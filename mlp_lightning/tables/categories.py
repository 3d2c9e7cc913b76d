"""Categories and classes as texts: the same value whatever stands around it, and few enough to learn.

Files of one table are written by different programs: ``Private`` is `` Private`` after a comma and a blank, and a
column of codes with a gap comes back from pandas as ``10115.0``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.tables.reading.dialect import NULL_VALUES

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute

_WHOLE = r"^[+-]?[0-9]+(\.0+)?$"
_WITH_ZEROS = r"^([+-]?[0-9]+)\.0+$"
_WORDS = pa.array([one for one in NULL_VALUES if one])


def tidied(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without the blanks around them; where all are whole numbers, without ``.0``. Other values as they are."""
    if not pa.types.is_string(values.type):
        return values
    texts = pc.utf8_trim_whitespace(values)
    if pc.all(pc.match_substring_regex(texts, _WHOLE)).as_py():
        texts = pc.replace_substring_regex(texts, _WITH_ZEROS, r"\1")
    return texts


def frequent(values: pa.ChunkedArray, most: int) -> tuple[list[Any], float]:
    """The different values in order, at most the ``most`` most frequent, and the share of the rows that have others."""
    counts = values.drop_null().value_counts()
    found, times = counts.field("values"), counts.field("counts")
    if len(found) <= most:
        return sorted(found.to_pylist()), 0.0
    # Of equally frequent values the first ones in order.
    order = pc.sort_indices(pa.table({"n": times, "x": found}), sort_keys=[("n", "descending"), ("x", "ascending")])
    kept = order.slice(0, most)
    share = 1 - pc.sum(times.take(kept)).as_py() / max(1, len(values))
    return sorted(found.take(kept).to_pylist()), share - values.null_count / max(1, len(values))


def notes_on_case(name: str, values: Iterable[Any]) -> list[str]:
    """A line on the first values that differ in upper and lower case only.

    >>> notes_on_case("rain", ["Yes", "no", "yes"])
    ["rain: 'Yes' and 'yes' differ in case only, and are two; write them alike if they are one"]
    """
    seen: dict[str, str] = {}
    twice = []
    for value in values:
        other = seen.setdefault(value.casefold(), value) if isinstance(value, str) else value
        if other != value:
            twice.append((other, value))
    more = f" (and {len(twice) - 1:,} more such pairs)" if len(twice) > 1 else ""
    return [
        f"{name}: {one!r} and {other!r}{more} differ in case only, and are two; write them alike if they are one"
        for one, other in twice[:1]
    ]


def positions(values: pa.ChunkedArray, known: pa.Array) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The position of each value among known ones, and which values are missing.

    A text that is not known counts as the one that it is without blanks around it, or without ``.0``; a word such as
    NA that is not known stands for a missing value.

    Args:
        values: of the type of ``known``.
        known: all different.

    Returns:
        Positions, null where a value is missing or not known; and whether it is missing.
    """
    found, missing = pc.index_in(values, value_set=known), pc.is_null(values)
    if not pa.types.is_string(values.type) or found.null_count == values.null_count:
        return found, missing
    texts = pc.utf8_trim_whitespace(values)
    for alike in (texts, pc.replace_substring_regex(texts, _WITH_ZEROS, r"\1")):
        found = pc.coalesce(found, pc.index_in(alike, value_set=known))
    is_word = pc.and_(pc.is_null(found), pc.fill_null(pc.is_in(texts, value_set=_WORDS), False))
    return found, pc.or_(missing, is_word)
