from __future__ import annotations

import datetime
import decimal
import doctest
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading import paths as reading_paths
from mlp_lightning.tables.reading import types as reading_types
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.types import (
    CastError,
    common_type,
    converted,
    first_failure,
    is_row_label,
    normalised,
)

TIMESTAMP = pa.timestamp("us")
NOON = datetime.datetime(2020, 1, 1, 12)
DAY = datetime.datetime(2020, 1, 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None], pa.int8()), pa.array([1, None], pa.int64())),
        (pa.array([2**63 - 1], pa.uint64()), pa.array([2**63 - 1], pa.int64())),
        (pa.array([2**64 - 1, None], pa.uint64()), pa.array([2.0**64, None])),
        (pa.array([1.5, None], pa.float32()), pa.array([1.5, None])),
        (pa.array([1.5], pa.float16()), pa.array([1.5])),
        (pa.array([decimal.Decimal("1.25"), None]), pa.array([1.25, None])),
        (pa.array(["a", None], pa.large_string()), pa.array(["a", None])),
        (pa.array(["a", None], pa.string_view()), pa.array(["a", None])),
        (pa.array(["a", "b", "a", None]).dictionary_encode(), pa.array(["a", "b", "a", None])),
        (pa.array([3, 1, None], pa.int16()).dictionary_encode(), pa.array([3, 1, None], pa.int64())),
        (pa.array([DAY.date()], pa.date32()), pa.array([DAY], TIMESTAMP)),
        (pa.array([DAY.date()], pa.date64()), pa.array([DAY], TIMESTAMP)),
        (pa.array([NOON], pa.timestamp("s")), pa.array([NOON], TIMESTAMP)),
        (pa.array([1_577_880_000_000_000_999], pa.timestamp("ns", "Europe/Berlin")), pa.array([NOON], TIMESTAMP)),
        (pa.array([datetime.time(10, 30)], pa.time32("s")), pa.array(["10:30:00"])),
        (pa.nulls(2), pa.nulls(2)),
        (pa.array([True, None]), pa.array([True, None])),
    ],
)
def test_types_that_are_read(values, expected) -> None:
    table = normalised(pa.table({"a": values}), "rows")
    assert table["a"].type == expected.type
    assert table["a"].combine_chunks().equals(expected)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (pa.array([1, 2**53 + 1]), pa.float64(), [1.0, 2.0**53]),
        (pa.array([2.0, None, math.nan]), pa.int64(), [2, None, None]),
        (pa.array([True, False]), pa.int64(), [1, 0]),
        (pa.array([True, False]), pa.float64(), [1.0, 0.0]),
        (pa.array([1, 0, None]), pa.bool_(), [True, False, None]),
        (pa.array([1.0, 0.0]), pa.bool_(), [True, False]),
        (pa.array([" True", "FALSE", "1"]), pa.bool_(), [True, False, True]),
        (pa.array([1.0, 2.5, math.nan, None, 123456789.0]), pa.string(), ["1", "2.5", None, None, "123456789"]),
        (pa.array([7, None]), pa.string(), ["7", None]),
        (pa.array([decimal.Decimal("7.0")]), pa.string(), ["7"]),
        (pa.array(["1e3", " 2.0 "]), pa.int64(), [1000, 2]),
        (pa.array(["1e400", "-inf", " 2.5"]), pa.float64(), [math.inf, -math.inf, 2.5]),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string(), ["a", "b"]),
        (pa.array(["1", "2"]).dictionary_encode(), pa.float64(), [1.0, 2.0]),
        (pa.array(["1"], pa.large_string()), pa.int64(), [1]),
        (pa.array(["2020-01-01T14:00:00+02:00"]), TIMESTAMP, [NOON]),
        (pa.array(["2020-01-01 "]), TIMESTAMP, [DAY]),
        (pa.nulls(1), pa.string(), [None]),
        (pa.array([1, 2]), pa.float32(), [1.0, 2.0]),
    ],
)
def test_casts(values, type_, expected) -> None:
    table = MemorySource(pa.table({"a": values}), "rows").read(types={"a": type_})
    assert table["a"].type == type_
    assert table["a"].to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "type_", "row"),
    [
        (pa.array([1.0, 2.5]), pa.int64(), 2),
        (pa.array([0, 1, 2]), pa.bool_(), 3),
        (pa.array(["1", "x"]), pa.float64(), 2),
        (pa.array([1, 2]), TIMESTAMP, 1),
        (pa.array([DAY], TIMESTAMP), pa.float64(), 1),
        (pa.array([True]), TIMESTAMP, 1),
        (pa.array([None, 1.0]), pa.null(), 2),
    ],
)
def test_casts_that_lose(values, type_, row) -> None:
    with pytest.raises(DataError, match=f"rows, row {row}: column 'a' holds"):
        MemorySource(pa.table({"a": values}), "rows").read(types={"a": type_})


@given(st.lists(st.lists(st.sampled_from(["1", "2.5", None, "x"])), min_size=1))
def test_the_first_failure(chunks) -> None:
    values = pa.chunked_array(chunks, pa.string())
    flat = values.to_pylist()
    if "x" in flat:
        assert first_failure(values, pa.float64()) == flat.index("x")
        with pytest.raises(CastError):
            converted(values, pa.float64())
    else:
        assert converted(values, pa.float64()).to_pylist() == [None if one is None else float(one) for one in flat]


def test_common_types() -> None:
    assert common_type([pa.int64(), pa.null(), pa.float64()]) == pa.float64()
    assert common_type([pa.null()]) == pa.null()
    assert common_type([pa.bool_(), pa.bool_()]) == pa.bool_()
    assert common_type([pa.bool_(), pa.int64()]) == pa.string()
    assert common_type([TIMESTAMP, pa.float64()]) == pa.string()


def test_labels_of_pandas_are_no_columns() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    assert MemorySource(pa.Table.from_pandas(frame), "rows").column_names == ["a"]
    assert not is_row_label("index")


@pytest.mark.parametrize("module", [reading_paths, reading_types])
def test_examples(module) -> None:
    done = doctest.testmod(module)
    assert (done.failed, done.attempted > 0) == (0, True)
