"""What the texts in the columns of a frame or an array are: categories, numbers, durations or moments."""

from __future__ import annotations

import pyarrow as pa

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.durations import UNITS, clocks_of
from mlp_lightning.tables.reading.moments import inferred_form
from mlp_lightning.tables.reading.numbers import (
    Examined,
    NumberForm,
    examine,
    may_be_numbers,
    parsed,
    shown,
    without_words,
)
from mlp_lightning.tables.reading.types import normal_type


def kinds_of_texts(table: pa.Table) -> dict[str, str]:
    """The kind of each column of texts: numbers where all texts are, but for digits alone, which may be codes.

    Raises:
        DataError: a column has numbers and other texts.
    """
    kinds = {}
    for field in table.schema:
        if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            continue
        values = table.column(field.name).cast(pa.string())
        if _are_durations(field.name, values):
            kinds[field.name] = "numeric"
            continue
        found = examine(values) if may_be_numbers(values) else Examined()
        if found.are_faulty_numbers:
            row, text = found.other or (0, found.shown[0])
            what = f"but {shown(text)} here" if found.other else "which are not all written alike"
            raise DataError(
                f"X, row {row + 1}: column {field.name!r} has numbers (such as {', '.join(map(shown, found.shown))}),"
                f" {what}. Correct the values; if they are categories, say so with"
                f" X.astype({{{field.name!r}: 'category'}})."
            )
        kinds[field.name] = "numeric" if found.are_numbers and not found.are_digits else "categorical"
    return kinds


def _are_durations(name: str, values: pa.ChunkedArray) -> bool:
    """Whether texts like 1:02:03 are durations, and no times of day.

    Raises:
        DataError: they may be both, or stand among other texts.
    """
    texts = without_words(values)
    found = clocks_of(texts.drop_null())
    if found is None or not (found.are_durations or found.unit == UNITS[2]):
        return False
    are_all = found.count == len(texts) - texts.null_count
    if found.are_durations and are_all:
        return True
    if not found.are_durations and not are_all:
        return False
    what = f"has durations or times of day (such as {', '.join(map(shown, found.shown))})"
    if not are_all:
        _, row = parsed(values, NumberForm(unit=UNITS[2]))
        assert row is not None
        what = f"has durations (such as {shown(found.shown[0])}), but {shown(values[row].as_py())} in row {row + 1}"
    raise DataError(
        f"X: column {name!r} {what}. Convert it with pandas.to_timedelta for durations, pandas.to_datetime for times"
        " of day, or make it categorical (astype('category'))."
    )


def texts_of_moments(table: pa.Table) -> list[str]:
    """The columns whose texts are dates or times.

    Raises:
        DataError: most of a column's texts are, and one is not, or they can be read in several ways.
    """
    advice = "Convert the column with pandas.to_datetime, or make it categorical (astype('category'))."
    found = []
    for name, values in zip(table.column_names, table.columns, strict=True):
        if not pa.types.is_dictionary(values.type) and normal_type(values.type) == pa.string():
            texts = values.cast(pa.string())
            if inferred_form(name, texts, lambda row: f"X, row {row + 1}", advice) is not None:
                found.append(name)
    return found
