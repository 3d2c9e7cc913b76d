"""The few Arrow types that a table is read into, and the casts that lead there.

``bool``, ``int64``, ``float64``, ``string``, ``timestamp("us")`` (without a zone: UTC where one was given) and
``null`` (a column without any value). Durations are numbers of seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.config.free_names import column_option
from mlp_lightning.errors import DataError

# Its functions are made when it is imported, where a type checker does not see them.
pc: Any = pyarrow.compute
TIMESTAMP = pa.timestamp("us")
ZONED = pa.timestamp("us", "UTC")
CastError = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)
_ROWS = 1 << 16  # whose codes are decoded at once
AS_MISSING = "if it stands for a missing value, leave it empty, or (in text files) add it to data.csv.null_values"
LONGEST_VALUE = 80  # characters that a message shows
EXPECTED = {
    pa.null(): "missing, as every value of this column must be",
    pa.bool_(): "true or false",
    pa.int64(): "a whole number of 64 bits",
    pa.float64(): "a number",
    pa.string(): "text",
    TIMESTAMP: "a date or a time stamp like 2024-05-31 or 2024-05-31 13:45:00",
}


def normal_type(given: pa.DataType) -> pa.DataType | None:
    """The type that a column of a stored type is read into; None where there is none (lists, bytes, …)."""
    kinds = pa.types
    if kinds.is_dictionary(given):
        return normal_type(given.value_type)
    if kinds.is_null(given) or kinds.is_boolean(given):
        return given
    if kinds.is_string(given) or kinds.is_large_string(given) or kinds.is_string_view(given) or kinds.is_time(given):
        return pa.string()
    if kinds.is_integer(given):
        return pa.int64()
    if kinds.is_floating(given) or kinds.is_decimal(given) or kinds.is_duration(given):
        return pa.float64()
    if kinds.is_date(given) or kinds.is_timestamp(given):
        return TIMESTAMP
    return None


def readable_type(given: pa.DataType, column: str, name: str) -> pa.DataType:
    """As :func:`normal_type`.

    Raises:
        DataError: a network takes no values of this type.
    """
    normal = normal_type(given)
    if normal is None:
        raise DataError(
            f"{name}: column {column!r} holds values of the type {str(given)[:LONGEST_VALUE]}; a column must hold"
            " numbers, texts, booleans, dates or time stamps. Store it as such, or leave it out with"
            f" {column_option(column, 'kind', 'ignored')}."
        )
    return normal


def common_type(types: Iterable[pa.DataType]) -> pa.DataType:
    """The type that holds the values of all: whole numbers and numbers are numbers, other mixtures are texts."""
    distinct = {one for one in types if one != pa.null()}
    if not distinct:
        return pa.null()
    if len(distinct) == 1:
        return distinct.pop()
    return pa.float64() if distinct == {pa.int64(), pa.float64()} else pa.string()


def cast_column(
    values: pa.ChunkedArray,
    target: pa.DataType,
    column: str,
    place: Callable[[int], str],
    hint: str = "correct it",
    shown: pa.ChunkedArray | None = None,
) -> pa.ChunkedArray:
    """The values as ``target``.

    Args:
        values: all values of the column.
        target: the type that they must have.
        column: its name.
        place: says where a row, counted from 0, comes from.
        hint: what to do about a value that is wrong.
        shown: the values as messages show them; None: as they are.

    Raises:
        DataError: for the first value that is not a ``target``, with its place.
    """
    try:
        return converted(values, target)
    except CastError:
        row = first_failure(values, target)
        value = repr((values if shown is None else shown)[row].as_py())
        value = value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"
        expected = EXPECTED.get(target, f"a value of the type {target}")
        raise DataError(f"{place(row)}: column {column!r} holds {value}, which is not {expected}; {hint}.") from None


def first_failure(values: pa.ChunkedArray, target: pa.DataType) -> int:
    """The first row that cannot be converted, by bisection: fewer than ``2 n`` values are converted for ``n``."""
    low, high = 0, len(values)  # the first failure lies in low … high - 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            converted(values.slice(low, middle - low), target)
            low = middle
        except CastError:
            high = middle
    return low


def converted(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """The values as ``target``, without loss except for digits beyond what 64 bits hold.

    Raises:
        One of CastError: a value is not a ``target``.
    """
    kinds = pa.types
    if kinds.is_dictionary(values.type):
        # Part by part: the texts of an array have at most 2 GiB.
        parts = [chunk.slice(at, _ROWS) for chunk in values.chunks for at in range(0, len(chunk), _ROWS)]
        values = pa.chunked_array([part.cast(values.type.value_type) for part in parts], values.type.value_type)
    source = values.type
    if source == target:
        return values
    if kinds.is_null(source):
        return values.cast(target)
    if kinds.is_large_string(source) or kinds.is_string_view(source):
        values, source = values.cast(pa.string()), pa.string()
    convert = CONVERTERS.get(target)
    if source == target:
        return values
    if convert is None:
        return values.cast(target)
    if kinds.is_duration(source):
        values, source = _seconds(values), pa.float64()
        if target == pa.float64():
            return values
    if target != pa.string() and not kinds.is_string(source) and kinds.is_temporal(source) != (target == TIMESTAMP):
        raise pa.ArrowInvalid(f"{source} is no {target}")  # Arrow would count microseconds since 1970
    return convert(values)


def _seconds(durations: pa.ChunkedArray) -> pa.ChunkedArray:
    of_unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[durations.type.unit]
    return pc.divide(durations.cast(pa.int64()).cast(pa.float64(), safe=False), of_unit)


def to_float(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
    return values.cast(pa.float64(), safe=not pa.types.is_integer(values.type))  # 2**53 + 1 rounds, as in a text


def to_int(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers; ``2.0`` is one, and a float that is NaN is a missing one."""
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
        with contextlib.suppress(*CastError):
            return values.cast(pa.int64())
        values = values.cast(pa.float64())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values.cast(pa.int64())


def to_bool(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return pc.utf8_lower(pc.utf8_trim_whitespace(values)).cast(pa.bool_())
    numbers = to_int(values)
    if not pc.all(pc.is_in(pc.fill_null(numbers, 0), pa.array([0, 1])), min_count=0).as_py():
        raise pa.ArrowInvalid("neither 0 nor 1")
    return numbers.cast(pa.bool_())


def to_string(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts; a number that is whole is written as one, so that ``1.0`` and ``1`` are one category; NaN is missing."""
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values).cast(pa.float64())
    is_whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**53))
    whole = pc.if_else(is_whole, values, 0.0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(is_whole, whole, values.cast(pa.string()))


def to_timestamp(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
        with contextlib.suppress(*CastError):
            return values.cast(TIMESTAMP)
        values = values.cast(ZONED)
    # Nanoseconds are cut; dropping the zone leaves UTC.
    return values.cast(pa.timestamp("us", getattr(values.type, "tz", None)), safe=False).cast(TIMESTAMP)


def to_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if values.null_count < len(values):
        raise pa.ArrowInvalid("a value")
    return pa.chunked_array([pa.nulls(len(values))])


CONVERTERS: dict[pa.DataType, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    pa.float64(): to_float,
    pa.int64(): to_int,
    pa.bool_(): to_bool,
    pa.string(): to_string,
    pa.null(): to_null,
    TIMESTAMP: to_timestamp,
}


def with_points(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers with a decimal comma as numbers with a point; what had a point before is not a number."""
    return pc.replace_substring(pc.replace_substring(texts, ".", "?"), ",", ".")


def sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """The batch in parts of at most ``rows`` rows, without copying."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def normalised(table: pa.Table, name: str, keep: Container[str] = ()) -> pa.Table:
    """The table with every column of one of the types above, except those in ``keep``.

    Raises:
        DataError: a column has a type that cannot be read.
    """
    for index, field in enumerate(table.schema):
        if field.name in keep:
            continue
        target = readable_type(field.type, field.name, name)
        if field.type != target:
            values = table.column(index)
            try:
                values = converted(values, target)
            except CastError:
                values = values.cast(pa.float64(), safe=False)  # unsigned integers beyond 2**63
            table = table.set_column(index, field.name, values)
    return table


def is_row_label(column: str) -> bool:
    """Whether pandas made this column of the labels of its rows.

    >>> is_row_label("__index_level_0__")
    True
    """
    return column.startswith("__index_level_") and column.endswith("__")
