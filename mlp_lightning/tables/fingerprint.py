"""The fingerprint of rows: a run that meets its table again finds out whether it is still the same.

It is plain data, as checkpoints and ``result.json`` keep it: for each table of a run (``data``, and ``val`` or ``test``
where these have a separate file) ``{"rows": count, "columns": {name: digest}, "as_set": digest}``. The digest of a
column depends on its values in order, and not on how a file stores them: a CSV and a Parquet file with the same values
have the same. ``as_set`` depends on the rows and not on their order. It finds changes, but not forgeries. Rows of
several labels have ``"split": "by labels"``, too, unless they are split as an earlier version of this package did it.

Shapes: ``B`` rows.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.errors import counted

Words = NDArray[np.uint64]
Fingerprint = Mapping[str, Any]
# So many that what is worked on stays in the cache of the processor.
_ROWS_AT_ONCE = 65_536
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_EXACT_INTEGERS = 2**53  # whole numbers up to here are the same as doubles
_MOST_COLUMNS_NAMED = 5


class RowsHasher:
    """Takes the fingerprint of one table, which may come in parts."""

    def __init__(self) -> None:
        self._rows, self._as_set = 0, 0
        self._columns: dict[str, Any] = {}

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Take in the next rows; all parts have the same columns, of the types that this package reads."""
        for start in range(0, rows.num_rows, _ROWS_AT_ONCE):
            part = rows.slice(start, _ROWS_AT_ONCE)
            of_rows_B = np.zeros(part.num_rows, dtype=np.uint64)
            for name in part.schema.names:
                values = part.column(name)
                words_B = _words(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
                self._columns.setdefault(name, hashlib.sha256()).update(words_B)
                of_rows_B += _mixed(words_B ^ np.uint64(zlib.crc32(name.encode())))
            self._as_set = (self._as_set + int(_mixed(of_rows_B).sum(dtype=np.uint64))) % 2**64
        self._rows += rows.num_rows

    def fingerprint(self) -> dict[str, Any]:
        """What was taken in so far, as plain data."""
        columns = {name: one.hexdigest()[:16] for name, one in self._columns.items()}
        return {"rows": self._rows, "columns": columns, "as_set": f"{self._as_set:016x}"}


def table_fingerprint(table: pa.Table) -> dict[str, Any]:
    """The fingerprint of a whole table."""
    hasher = RowsHasher()
    hasher.add(table)
    return hasher.fingerprint()


def splits_by_labels(fingerprint: Mapping[str, Fingerprint] | None) -> bool:
    """Whether rows of several labels were split by them; an earlier version of this package split them at random."""
    return fingerprint is not None and "split" in fingerprint.get("data", {})


def differences(then: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> str:
    """How the tables of a run differ from what they were; empty if they do not.

    Args:
        then: the fingerprint of each table.
        now: likewise.
    """
    lines = [f"data.{name}_path is new" for name in now if name not in then]
    for name, before in then.items():
        if name not in now:
            lines.append(f"data.{name}_path is gone")
            continue
        # Which columns are read of a table for one split follows from the other table.
        said = _difference(before, now[name], reads_all=name == "data")
        if said:
            lines.append(said if name == "data" else f"in data.{name}_path, {said}")
    return "; ".join(lines)


def _difference(then: Fingerprint, now: Fingerprint, reads_all: bool) -> str:
    before, after = then["columns"], now["columns"]
    parts = []
    if reads_all:
        gone, new = [one for one in before if one not in after], [one for one in after if one not in before]
        parts += [f"without {_named(gone)}"] if gone else []
        parts += [f"with {_named(new)} added"] if new else []
    if then["rows"] != now["rows"]:
        parts.append(f"{counted(now['rows'], 'row')} instead of {then['rows']:,}")
        return ", ".join(parts)
    changed = [name for name in before if name in after and before[name] != after[name]]
    if changed and then["as_set"] == now["as_set"]:
        parts.append("the same rows in another order")
    elif changed:
        parts.append(f"other values in {_named(changed)}")
    if not parts and reads_all and list(before) != list(after):
        parts.append("the same columns in another order")
    if not parts and then.get("split") != now.get("split"):
        parts.append("the same rows, which an earlier version of this package split in another way")
    return ", ".join(parts)


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(map(repr, columns[:_MOST_COLUMNS_NAMED]))
    more = len(columns) - _MOST_COLUMNS_NAMED
    return f"the column{'s' if len(columns) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")


def _words(values: pa.Array) -> Words:
    """64 bits for each value, ``(B,)``; equal for equal values, whatever they are stored as."""
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(len(values), _MISSING)
    if pa.types.is_string(kind):
        return _of_texts(values)
    if pa.types.is_floating(kind):
        numbers_B = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
        words_B, is_missing_B = (numbers_B + 0.0).view(np.uint64), np.isnan(numbers_B)  # -0.0 is 0.0
    else:  # truth values, whole numbers and moments
        integers_B = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        words_B, is_missing_B = integers_B.view(np.uint64), values.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_integer(kind):  # 5 may be 5.0 in another file
            is_exact_B = (integers_B <= _EXACT_INTEGERS) & (integers_B >= -_EXACT_INTEGERS)
            words_B = np.where(is_exact_B, integers_B.astype(np.float64).view(np.uint64), words_B)
    return np.where(is_missing_B, _MISSING, words_B) if is_missing_B.any() else words_B


def _of_texts(texts: pa.Array) -> Words:
    encoded = texts.dictionary_encode()
    values = encoded.dictionary.cast(pa.binary()).to_pylist()
    high, low = (np.fromiter(map(one, values), np.uint64, len(values)) for one in (zlib.crc32, zlib.adler32))
    words = np.append((high << np.uint64(32)) | low, _MISSING)
    return words[encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)]


def _mixed(words_B: Words) -> Words:
    """Every bit depends on all others (the end of splitmix64); a new array."""
    mixed_B = words_B ^ (words_B >> np.uint64(30))
    mixed_B *= np.uint64(0xBF58476D1CE4E5B9)
    mixed_B ^= mixed_B >> np.uint64(27)
    mixed_B *= np.uint64(0x94D049BB133111EB)
    mixed_B ^= mixed_B >> np.uint64(31)
    return mixed_B
