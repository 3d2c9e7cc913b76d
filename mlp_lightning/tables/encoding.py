"""From the columns of a table to the matrix of raw numbers that a model takes.

Shapes: ``B`` rows, ``F`` columns that the model sees.

A number is itself, a truth value 0 or 1, a moment its seconds since 1970, each with NaN for a missing value. A category
is its position in the vocabulary plus 2; 1 stands for unknown categories, 0 for a missing value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.tables.categories import positions
from mlp_lightning.tables.columns import Column, Place, converted, to_seconds
from mlp_lightning.tables.reading.moments import converted_moments
from mlp_lightning.tables.wild_values import WildValues

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute

MISSING, UNKNOWN, FIRST_CATEGORY = 0, 1, 2


@dataclasses.dataclass
class Surprises:
    """What rows have that no training row had, counted over all that were encoded.

    Attributes:
        unknown: number of values outside the vocabulary, by column.
        rare: number of values that are rare or new, by column; of columns with more categories than are kept.
        missing: number of missing values in columns whose training rows had none.
        notes: what else to tell the user of the rows, a line each.
        wild: of columns whose new numbers are compared with those of the training rows.
    """

    unknown: dict[str, int] = dataclasses.field(default_factory=dict)
    rare: dict[str, int] = dataclasses.field(default_factory=dict)
    missing: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    wild: dict[str, WildValues] = dataclasses.field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line each, for the user."""
        return [
            *self.notes,
            *(
                f"{name}: {count:,} values that no training row has (taken as unknown)"
                for name, count in self.unknown.items()
            ),
            *(f"{name}: {count:,} values that are rare or new (taken as one)" for name, count in self.rare.items()),
            *(
                f"{name}: {count:,} missing values, where no training row has one (taken as the median, or as unknown)"
                for name, count in self.missing.items()
            ),
        ]


def encode(
    table: pa.Table | pa.RecordBatch,
    columns: Sequence[Column],
    place: Place,
    surprises: Surprises | None = None,
) -> NDArray[np.float64]:
    """The raw numbers of the rows of ``table``, ``(B, F)``.

    Args:
        table: has a column of each name.
        columns: what each is.
        place: the location of the row with a number, for messages.
        surprises: counts what no training row had.

    Raises:
        DataError: a value is infinite or cannot be read as its column's type.
    """
    raw_BF = np.empty((table.num_rows, len(columns)))
    for number, column in enumerate(columns):
        values = table.column(column.name)
        if isinstance(values, pa.Array):
            values = pa.chunked_array([values])
        values = as_typed(values, column, place)
        raw_BF[:, number] = _codes(values, column) if column.kind == "categorical" else _numbers(values, column)
        _refuse_infinite(raw_BF[:, number], column, place)
        if surprises is not None:
            count_surprises(surprises, column, raw_BF[:, number])
    return raw_BF


def as_typed(values: pa.ChunkedArray, column: Column, place: Place) -> pa.ChunkedArray:
    """Values with the type of their column.

    Raises:
        DataError: one cannot be read as it.
    """
    if values.type == column.arrow_type:
        return values
    if column.format and pa.types.is_string(values.type):
        return converted_moments(column.name, values, column.format, place)
    return converted(column.name, values, column.arrow_type, place)


def _numbers(values: pa.ChunkedArray, column: Column) -> NDArray[np.float64]:
    if column.kind == "datetime":
        return to_seconds(values)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    return values.cast(pa.float64()).to_numpy()


def _codes(values: pa.ChunkedArray, column: Column) -> NDArray[np.float64]:
    vocabulary = pa.array(column.vocabulary, type=column.arrow_type)
    found, missing = positions(values, vocabulary)
    codes_B = pc.fill_null(pc.add(found, FIRST_CATEGORY), UNKNOWN).to_numpy()
    return np.where(missing.to_numpy(), MISSING, codes_B)


def _refuse_infinite(values_B: NDArray[np.float64], column: Column, place: Place) -> None:
    if column.kind != "numeric":
        return
    infinite = np.isinf(values_B)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"{place(row)}: column {column.name!r} is infinite ({values_B[row]}). Correct or remove the value."
        )


def count_surprises(surprises: Surprises, column: Column, values_B: NDArray[np.float64]) -> None:
    """Count what some raw numbers of a column, ``(B,)``, have that no training row has."""
    if column.kind == "categorical":
        unknown = int((values_B == UNKNOWN).sum())
        if unknown:
            counts = surprises.rare if column.is_capped else surprises.unknown
            counts[column.name] = counts.get(column.name, 0) + unknown
        missing = 0 if column.missing else int((values_B == MISSING).sum())
    else:
        missing = 0 if column.missing else int(np.isnan(values_B).sum())
    if missing:
        surprises.missing[column.name] = surprises.missing.get(column.name, 0) + missing
