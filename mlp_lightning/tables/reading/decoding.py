"""How large columns become that store a text once for many rows, and decoding them within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.limits import (
    COLUMNS_BYTES,
    COLUMNS_TIMES_LARGER,
    TEXTS_AT_ONCE_BYTES,
    most_decoded,
    stored_bytes,
)

# Its functions are made when it is imported, where a type checker does not see them.
pc: Any = pyarrow.compute
#: Bytes that a value takes that is no text.
VALUE_BYTES = 8


def refuse_larger(decoded_bytes: int, file_bytes: int, name: str) -> None:
    """Compare what columns become when they are decoded with the limit for a file of this size.

    Raises:
        DataError: they become larger.
    """
    if decoded_bytes > most_decoded(file_bytes):
        _refuse(name, decoded_bytes, most_decoded(file_bytes))


class TableSize:
    """What the rows of several files become together.

    Args:
        files: all files of the table.
        name: what messages call it.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self._stored_bytes, self._name, self._bytes = stored_bytes(files), name, 0

    def add(self, rows: pa.Table) -> None:
        """Count the rows of a file.

        Raises:
            DataError: all rows together are too large.
        """
        self._bytes += decoded_bytes(rows, most_decoded(self._stored_bytes))
        refuse_larger(self._bytes, self._stored_bytes, self._name)


def _refuse(name: str, decoded_bytes: int, most: int) -> NoReturn:
    raise DataError(
        f"{name} would take {decoded_bytes:,} bytes when it is decoded, and the limit for its size is {most:,}"
        f" ({COLUMNS_TIMES_LARGER:,} times, at least {COLUMNS_BYTES:,}); is it a table? If so, write it as CSV,"
        " which may have any size if it is not compressed."
    )


def decoded_bytes(rows: pa.Table | pa.RecordBatch, most: int) -> int:
    """The bytes that rows take as numbers and texts: exactly if they are more than ``most``, and else at least."""
    columns = [part for one in rows.columns for part in (one.chunks if isinstance(one, pa.ChunkedArray) else [one])]
    total = sum(_at_most(one) for one in columns)
    return total if total <= most else sum(_exactly(one) for one in columns)


def parts_of(rows: pa.RecordBatch, name: str) -> Iterator[pa.RecordBatch]:
    """The rows in parts that can be decoded at once.

    Raises:
        DataError: one row cannot.
    """
    size = decoded_bytes(rows, TEXTS_AT_ONCE_BYTES)
    if size <= TEXTS_AT_ONCE_BYTES:
        yield rows
    elif rows.num_rows == 1:
        raise DataError(f"{name} has a row of {size:,} bytes, and the limit is {TEXTS_AT_ONCE_BYTES:,}; is it a table?")
    else:
        half = rows.num_rows // 2
        yield from parts_of(rows.slice(0, half), name)
        yield from parts_of(rows.slice(half), name)


def is_text(kind: pa.DataType) -> bool:
    kinds = pa.types
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def value_bytes(kind: pa.DataType) -> int:
    """Bytes of a value in memory, beside the characters of a text."""
    return 1 if pa.types.is_boolean(kind) or pa.types.is_null(kind) else VALUE_BYTES


def longest_text(values: pa.Array) -> int:
    """Bytes of the longest text in the dictionary of an array, used or not; 0 if it has none."""
    kind = values.type
    return int(_lengths(values.dictionary).max(initial=0)) if _has_texts(kind) else 0


def _has_texts(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and is_text(kind.value_type)


def _at_most(values: pa.Array) -> int:
    """Quickly: at least the bytes of the decoded values."""
    return len(values) * (VALUE_BYTES + longest_text(values)) if _has_texts(values.type) else _exactly(values)


def _exactly(values: pa.Array) -> int:
    total = len(values) * value_bytes(values.type)
    if _has_texts(values.type):
        codes = values.indices.drop_null().to_numpy(zero_copy_only=False)
        lengths = _lengths(values.dictionary)
        return total + int(np.bincount(codes, minlength=len(lengths)) @ lengths)
    if pa.types.is_string_view(values.type):
        return total + int(_lengths(values).sum())
    return total + values.nbytes if is_text(values.type) else total


def _lengths(texts: pa.Array) -> NDArray[np.float64]:
    """Bytes of every text."""
    if pa.types.is_string_view(texts.type):  # 16 bytes each, which begin with the length; many may be of one place
        views = np.frombuffer(texts.buffers()[1], np.int32).reshape(-1, 4)
        return views[texts.offset : texts.offset + len(texts), 0].astype(np.float64)
    return pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.float64)
