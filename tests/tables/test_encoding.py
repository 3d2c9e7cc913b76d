"""Raw numbers of columns, by hand."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from support.tables import finite_tables
from support.tolerances import assert_same_bits

from mlp_lightning.config import ColumnConfig
from mlp_lightning.errors import DataError
from mlp_lightning.tables.columns import Column, Origin, infer_columns
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN, Surprises, encode

NAN = math.nan
COLOURS = Column("x", "categorical", "string", vocabulary=("", "blue", "grün"))
NUMBER = Column("x", "numeric", "float64")
MOMENT = Column("x", "datetime", "timestamp")


def place(row: int) -> str:
    return f"line {row + 2}"


def encoded(values: Any, column: Column, surprises: Surprises | None = None) -> np.ndarray:
    table = pa.table({"beside": [0] * len(values), "x": values})
    raw_B = encode(table, [column], place, surprises)[:, 0]
    assert_same_bits(encode(table.to_batches()[0], [column], place)[:, 0], raw_B)
    return raw_B


@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ([1.5, None, float("nan"), -0.0, 1e308], NUMBER, [1.5, NAN, NAN, -0.0, 1e308]),
        ([1, None, 3], NUMBER, [1, NAN, 3]),
        ([2**60 + 1, -(2**63)], NUMBER, [2.0**60, -(2.0**63)]),
        ([True, None, False], Column("x", "boolean", "bool"), [1, NAN, 0]),
        ([1, None, 0], Column("x", "boolean", "bool"), [1, NAN, 0]),
        (["blue", "", None, "red", "grün", "Blue"], COLOURS, [3, 2, 0, 1, 4, 1]),
        ([5, None, 7], Column("x", "categorical", "int64", vocabulary=(3, 5)), [3, 0, 1]),
        ([True, False, None], Column("x", "categorical", "bool", vocabulary=(False, True)), [3, 2, 0]),
        ([None, "a"], Column("x", "categorical", "string"), [0, 1]),
        (pa.nulls(2), NUMBER, [NAN, NAN]),
        (pa.nulls(2), COLOURS, [0, 0]),
        (pa.nulls(2), MOMENT, [NAN, NAN]),
        (pa.array(["blue", None, "red"]).dictionary_encode(), COLOURS, [3, 0, 1]),
    ],
)
def test_codes_by_hand(values: Any, column: Column, expected: list[float]) -> None:
    assert (MISSING, UNKNOWN, FIRST_CATEGORY) == (0, 1, 2)
    assert_same_bits(encoded(values, column), np.array(expected, dtype=np.float64))


@pytest.mark.parametrize(
    "moment",
    [
        datetime.datetime(1970, 1, 1),
        datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999),
        datetime.datetime(1, 1, 1),
        datetime.datetime(9999, 12, 31, 23, 59, 59),
    ],
)
def test_a_moment_is_its_seconds_since_1970(moment: datetime.datetime) -> None:
    seconds = (moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1)
    assert encoded([moment, None], MOMENT)[0] == pytest.approx(seconds, abs=1e-6)
    assert encoded(pa.array([moment, None], pa.timestamp("us", "UTC")), MOMENT)[0] == pytest.approx(seconds, abs=1e-6)


def test_columns_come_in_the_order_that_is_asked_for() -> None:
    table = pa.table({"a": [1.0], "b": [2.0], "c": [3.0]})
    columns = [Column(name, "numeric", "float64") for name in "cab"]
    assert encode(table, columns, place).tolist() == [[3.0, 1.0, 2.0]]
    assert encode(table, [], place).shape == (1, 0)


def test_columns_of_several_chunks() -> None:
    table = pa.concat_tables(
        [pa.table({"x": ["blue"]}), pa.table({"x": [None, "red"]}, schema=pa.schema({"x": "string"}))]
    )
    assert encode(table, [COLOURS], place)[:, 0].tolist() == [3, 0, 1]


@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_an_infinite_number_is_refused(infinity: float) -> None:
    with pytest.raises(DataError, match=r"line 4: column 'x' is infinite \(-?inf\). Correct or remove the value."):
        encoded([1.0, None, infinity, infinity], NUMBER)


@pytest.mark.parametrize(
    ("values", "column", "text"),
    [
        (["1", "many"], NUMBER, "line 3: column 'x' has 'many', which is not a number"),
        (["2024-01-01", "soon"], MOMENT, "line 3: column 'x' has 'soon'"),
        ([1, 2], Column("x", "boolean", "bool"), "line 3: column 'x' has 2"),
        (["1", "one"], Column("x", "categorical", "int64", vocabulary=(1,)), "line 3: column 'x' has 'one'"),
    ],
)
def test_a_value_of_another_type_is_refused(values: Any, column: Column, text: str) -> None:
    with pytest.raises(DataError, match=text):
        encoded(values, column)


def test_surprises_are_counted_over_all_that_is_encoded() -> None:
    surprises = Surprises()
    for _ in range(2):
        encoded(["blue", "red", None, None, "black"], COLOURS, surprises)
        encoded([1.0, None], NUMBER, surprises)
    assert surprises.unknown == {"x": 4}
    assert surprises.missing == {"x": 6}
    assert [line.split(" (")[0] for line in surprises.lines()] == [
        "x: 4 values that no training row has",
        "x: 6 missing values, where no training row has one",
    ]


def test_what_training_rows_had_is_no_surprise() -> None:
    surprises = Surprises()
    encoded(["blue", None], Column("x", "categorical", "string", True, ("blue",)), surprises)
    encoded([1.0, None], Column("x", "numeric", "float64", True), surprises)
    encoded([True, False], Column("x", "boolean", "bool"), surprises)
    assert surprises.lines() == []


@settings(deadline=None, max_examples=80)
@given(finite_tables())
def test_every_category_of_the_training_rows_has_its_code(table: pa.Table) -> None:
    names = [name for name in table.column_names if name != "y"]
    kinds = {name: ColumnConfig("categorical") for name in names}
    columns = infer_columns(table, names, np.arange(table.num_rows), kinds, (9, 1000), Origin("", place)).columns
    raw_BF = encode(table, columns, place)
    for column, raw_B in zip(columns, raw_BF.T, strict=True):
        values = table.column(column.name)
        if pa.types.is_floating(values.type) or pa.types.is_timestamp(values.type):
            assert_same_bits(raw_B == MISSING, values.is_null().to_numpy())
            continue
        expected = [
            MISSING
            if value is None
            else FIRST_CATEGORY + column.vocabulary.index(value.strip() if isinstance(value, str) else value)
            for value in values.to_pylist()
        ]
        assert raw_B.tolist() == expected
    assert not (raw_BF == UNKNOWN).any()
