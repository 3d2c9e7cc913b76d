"""The rows of a table part by part, as numbers: what evaluation and prediction stream.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import Surprises, encode
from mlp_lightning.tables.new_numbers import number_batches
from mlp_lightning.tables.reading.sources import TableSource
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.written_numbers import Forms

# Rows that are worked on at once: enough for whole-array arithmetic, few enough to take little memory.
ROWS_AT_ONCE = 8_192
# Values that are worked on at once: of wide tables fewer rows.
_VALUES_AT_ONCE = 1 << 21


@dataclasses.dataclass(frozen=True)
class EncodedBatch:
    """Some rows of a source.

    Attributes:
        batch: the rows as they are; of the columns that were asked for.
        raw_BF: the columns that the model sees, as :func:`~mlp_lightning.tables.encoding.encode` has them.
        targets_BT: class numbers or values, NaN where one is missing; ``(B, 0)`` if not asked for.
        first_row: number of the first row in the source.
    """

    batch: pa.RecordBatch
    raw_BF: NDArray[np.float64]
    targets_BT: NDArray[np.float64]
    first_row: int


def encoded_batches(
    source: TableSource,
    columns: Sequence[Column],
    target: Target | None,
    surprises: Surprises,
    further: Sequence[str] | Mapping[str, pa.DataType] = (),
    rows: int = ROWS_AT_ONCE,
    trained: Forms | None = None,
) -> Iterator[EncodedBatch]:
    """The rows of a source in order, in constant memory.

    Args:
        source: has these columns, and those of ``target``.
        columns: what the model sees.
        target: what to predict; ``None`` if the targets are not asked for.
        surprises: counts what no training row had.
        further: columns to pass on unchanged, with their types where they matter; a column that the model sees has
            the type that the model reads.
        rows: most rows at once.
        trained: how the numbers of the training rows are written, where not as programs write them.

    Raises:
        DataError: a column is missing, or a value cannot be read.
    """
    types = dict(further) if isinstance(further, Mapping) else {}
    types |= {one.name: one.read_type for one in columns}
    if target is not None:
        types |= target.arrow_types
    names = list(dict.fromkeys([*types, *further]))
    for name in names:
        if name not in source.column_names:
            raise source.without(name)
    first_row = 0
    rows = max(1, min(rows, _VALUES_AT_ONCE // max(1, len(names))))
    batches = number_batches(source, names, types, rows, trained or {}, surprises.notes)
    for batch in _merged(batches, rows):
        at = first_row

        def place(row: int, at: int = at) -> str:
            return source.place(at + row)

        raw_BF = encode(batch, columns, place, surprises)
        for number, column in enumerate(columns):
            if column.name in surprises.wild:
                rows_B = np.arange(first_row, first_row + batch.num_rows)
                surprises.wild[column.name].look_at(raw_BF[:, number], rows_B)
        numbers_BT = np.empty((batch.num_rows, 0)) if target is None else target.numbers(batch, place)
        yield EncodedBatch(batch, raw_BF, numbers_BT, first_row)
        first_row += batch.num_rows
    notes = (one.note_on_new_rows(source.place) for one in surprises.wild.values())
    surprises.notes += [note for note in notes if note is not None]


def _merged(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of ``rows`` rows or slightly fewer: readers of text give far smaller ones."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if waiting and count + batch.num_rows > rows:
            yield _one(waiting)
            waiting, count = [], 0
        waiting.append(batch)
        count += batch.num_rows
    if waiting:
        yield _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
