"""Data frames of pandas, polars and Arrow as Arrow tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa

from mlp_lightning.errors import DataError


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
            return pa.Table.from_pandas(_without_intervals(frame), preserve_index=False)
        # By default, polars hands over categories of a type that Arrow cannot look up.
        return frame.to_arrow() if hasattr(frame, "to_arrow") else pa.table(frame)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise unreadable(name, error) from error


def without_intervals(values: Any) -> Any:
    """Values with a text for each interval of pandas, which Arrow has no column of."""
    if not _is_interval(_first_value(values)):
        return values
    return [str(one) if _is_interval(one) else one for one in values]


def _first_value(values: Iterable[Any]) -> Any:
    for one in values:
        is_nan = isinstance(one, float) and one != one
        if one is not None and not is_nan and type(one).__name__ not in ("NAType", "NaTType"):
            return one
    return None


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


def unreadable(name: str, error: Exception) -> DataError:
    """What is said of a frame that is no table."""
    return DataError(
        f"{name} has a column that cannot be read ({error}). Its values must be all numbers, all texts, all dates or"
        " all truth values."
    )
