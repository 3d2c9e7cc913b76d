"""Data frames of pandas, polars and Arrow as Arrow tables."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from mlp_lightning.errors import DataError, shown


def is_frame(rows: Any) -> bool:
    """Whether rows have columns with names, as data frames have."""
    if isinstance(rows, (pa.Table, pa.RecordBatch)):
        return True
    # Arrow's interface, that of pandas, and what polars had before it had Arrow's. Asked of the class: a lazy frame
    # of polars would look at its rows to answer.
    return hasattr(type(rows), "columns") and any(
        hasattr(rows, one) for one in ("__arrow_c_stream__", "iloc", "to_arrow")
    )


def arrow_table(frame: Any, name: str, unread: Collection[str] = ()) -> pa.Table:
    """The columns of a data frame; the index of a pandas frame is left out.

    Args:
        frame: of pandas, polars, Arrow, or of another library with Arrow's interface.
        name: what messages call it.
        unread: columns whose values are not asked for, which may be anything; of a pandas frame they come out empty.

    Raises:
        DataError: it is none, or a column has values of several types.
    """
    if not is_frame(frame):
        raise DataError(f"{name} is a {type(frame).__name__}, and must be a data frame: of pandas, polars or pyarrow.")
    try:
        if isinstance(frame, pa.Table):
            return frame
        if isinstance(frame, pa.RecordBatch):
            return pa.Table.from_batches([frame])
        if hasattr(frame, "iloc"):
            empty = [column for column in frame.columns if str(column) in unread]
            if empty:
                frame = frame.copy(deep=False)
                frame[empty] = None
            table = pa.Table.from_pandas(_without_intervals(frame), preserve_index=False)
            return _without_mixed_moments(frame, table, name)
        # By default, polars hands over categories of a type that Arrow cannot look up.
        table = frame.to_arrow() if hasattr(frame, "to_arrow") else pa.table(frame)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        names = list(enumerate(frame.columns)) if hasattr(frame, "iloc") else []
        raise unreadable(name, ((f"column {str(one)!r}", frame.iloc[:, at]) for at, one in names)) from error
    return _with_objects(frame, table, name, unread)


def _with_objects(frame: Any, table: pa.Table, name: str, unread: Collection[str]) -> pa.Table:
    """The table with what columns of Python objects hold, of which polars hands over bytes without a meaning."""
    for at, dtype in enumerate(getattr(frame, "dtypes", ())):
        column = table.column_names[at]
        if str(dtype) != "Object" or column in unread:
            continue
        values = frame[column].to_list()
        refuse_mixed(name, f"column {column!r}", values)
        try:
            table = table.set_column(at, column, pa.array(values))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise unreadable(name, [(f"column {column!r}", values)]) from error
    return table


def without_intervals(values: Any) -> Any:
    """Values with a text for each interval of pandas, which Arrow has no column of."""
    if not _is_interval(_first_value(values)):
        return values
    return [str(one) if _is_interval(one) else one for one in values]


def _first_value(values: Iterable[Any]) -> Any:
    return next((one for one in values if not _is_missing(one)), None)


def _is_interval(value: Any) -> bool:
    return type(value).__name__ == "Interval" and hasattr(value, "closed")


def _without_intervals(frame: Any) -> Any:
    """A pandas frame whose intervals, as ``cut`` makes them, are categories called as pandas shows them."""
    changed = frame
    for number, dtype in enumerate(frame.dtypes):
        held = getattr(getattr(dtype, "categories", None), "dtype", dtype)
        values = frame.iloc[:, number]
        if str(held).startswith("interval") or (str(held) == "object" and _is_interval(_first_value(values))):
            changed = frame.copy(deep=False) if changed is frame else changed
            # Categories and not texts: where all differ, they are not names of rows.
            changed.isetitem(number, values.astype("string").astype("category"))
    return changed


def _without_mixed_moments(frame: Any, table: pa.Table, name: str) -> pa.Table:
    """The table, unless Arrow took numbers among dates for moments, which it does without a word."""
    for number, (field, dtype) in enumerate(zip(table.schema, frame.dtypes, strict=True)):
        if pa.types.is_temporal(field.type) and str(dtype) == "object":
            refuse_mixed(name, f"column {field.name!r}", frame.iloc[:, number])
    return table


def refuse_mixed(name: str, column: str, values: Iterable[Any]) -> None:
    """Refuse a column of Python objects of several types.

    Raises:
        DataError: with two of them.
    """
    if _why_unreadable(values):
        raise unreadable(name, [(column, values)])


def unreadable(name: str, columns: Iterable[tuple[str, Iterable[Any]]]) -> DataError:
    """What is said of a table with a column that Arrow cannot hold.

    Args:
        name: of the table.
        columns: what messages call each column, and its values.
    """
    for column, values in columns:
        if why := _why_unreadable(values):
            return DataError(
                f"{name}: {column} {why}. Make all its values numbers, texts, dates or truth values, for example with"
                " pandas.to_numeric or astype(str), or leave the column out."
            )
    return DataError(
        f"{name} has a column whose values are not all numbers, all texts, all dates or all truth values. Convert it,"
        " or leave it out."
    )


def _why_unreadable(values: Iterable[Any]) -> str:
    """Where the values of a column are of two types, or of one that no column has; empty if they can be read."""
    first: tuple[int, Any, str] | None = None
    for row, value in enumerate(values, start=1):
        what = "" if _is_missing(value) else _type_of(value)
        if what and first is not None and what != first[2]:
            return f"has {shown(first[1])} ({first[2]}) in row {first[0]}, but {shown(value)} ({what}) in row {row}"
        if what and first is None:
            first = row, value, what
        if what == "a number" and isinstance(value, int) and not -(2**63) <= value < 2**64:
            return f"has {shown(value)} in row {row}, which is beyond 64 bits (as a float it is not)"
    if first is None or first[2] in _READABLE:
        return ""
    return f"has {shown(first[1])} in row {first[0]}, which is {first[2]}"


_READABLE = ("a number", "a text", "a truth value", "a date", "a time of day", "a duration")


def _type_of(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        ((bool,), "a truth value"),
        ((int, float, decimal.Decimal), "a number"),
        ((str,), "a text"),
        ((datetime.date,), "a date"),
        ((datetime.time,), "a time of day"),
        ((datetime.timedelta,), "a duration"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), f"of the type {type(value).__name__}")


def _is_missing(value: Any) -> bool:
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")
