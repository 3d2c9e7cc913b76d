"""The fingerprint of a table: the same for the same values however they are stored, and another for any other rows."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.tables.fingerprint import RowsHasher, differences, table_fingerprint
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource, TableSource


def shop() -> pa.Table:
    """One column of every type, with gaps."""
    return pa.table(
        {
            "price": [1.5, None, -0.25, 7.0],
            "pieces": [3, 2**60, None, -4],
            "sold": [True, False, None, True],
            "colour": ["teal", "", None, "ochre"],
            "day": pa.array([datetime.datetime(2021, 3, day) for day in (1, 2, 3)] + [None], pa.timestamp("us")),
            "empty": pa.nulls(4),
        }
    )


def said(then: pa.Table, now: pa.Table) -> str:
    return differences({"data": table_fingerprint(then)}, {"data": table_fingerprint(now)})


def test_it_is_plain_data() -> None:
    one = table_fingerprint(shop())
    assert json.loads(json.dumps(one)) == one
    assert one["rows"] == 4
    assert list(one["columns"]) == shop().column_names
    assert len(set(one["columns"].values())) == 6


def test_a_format_does_not_matter(tmp_path: Path) -> None:
    table = shop().set_column(3, "colour", pa.array(["teal", "sand", None, "ochre"]))  # CSV has no empty texts
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    pyarrow.feather.write_feather(table, str(tmp_path / "a.feather"))
    sources: list[TableSource] = [FileSource.open(str(file), CsvConfig()) for file in sorted(tmp_path.iterdir())]
    sources.append(MemorySource(table.set_column(3, "colour", table["colour"].dictionary_encode()), "frame"))
    first, *others = [table_fingerprint(one.read()) for one in sources]
    assert all(one == first for one in others)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1, 2, None]), pa.array([1.0, 2.0, None])),
        (pa.array([1.0, None, 2.0]), pa.array([1.0, float("nan"), 2.0])),
        (pa.array([0.0, 1.0]), pa.array([-0.0, 1.0])),
        (pa.nulls(3), pa.array([None, None, None], pa.string())),
        (pa.nulls(3), pa.array([float("nan")] * 3)),
    ],
)
def test_equal_values(one: pa.Array, other: pa.Array) -> None:
    assert said(pa.table({"a": one}), pa.table({"a": other})) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([2**60]), pa.array([2**60 + 1])),  # the same as doubles
        (pa.array([1.0]), pa.array([np.nextafter(1.0, 2.0)])),
        (pa.array([0, None]), pa.array([0, 0])),
        (pa.array(["", None]), pa.array([None, ""])),
        (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
        (pa.array([True, False]), pa.array([True, True])),
        (pa.array(["1"]), pa.array([1])),
    ],
)
def test_other_values(one: pa.Array, other: pa.Array) -> None:
    assert said(pa.table({"a": one}), pa.table({"a": other})) != ""


def test_what_differs_is_said() -> None:
    table = shop()
    grown = pa.concat_tables([table, table.slice(1, 2)])
    swapped = table.set_column(0, "price", pa.array([7.0, None, -0.25, 1.5]))
    assert said(table, table) == ""
    assert said(table, grown) == "6 rows instead of 4"
    assert said(table, table.take([3, 1, 2, 0])) == "the same rows in another order"
    # One column alone in another order makes other rows.
    assert said(table, swapped) == "other values in the column 'price'"
    assert said(table, swapped.set_column(2, "sold", pa.array([True] * 4))) == (
        "other values in the columns 'price', 'sold'"
    )
    assert said(table, table.drop_columns(["sold"])) == "without the column 'sold'"
    assert said(table.drop_columns(["sold", "day"]), table) == "with the columns 'sold', 'day' added"
    assert said(table, table.select(table.column_names[::-1])) == "the same columns in another order"
    wide, other = (pa.table({f"x{number}": [value] for number in range(9)}) for value in (0, 1))
    assert said(wide, other) == "other values in the columns 'x0', 'x1', 'x2', 'x3', 'x4' and 4 more"


def test_values_that_change_places_between_columns() -> None:
    one, other = pa.table({"a": [1, 2], "b": [2, 1]}), pa.table({"a": [2, 1], "b": [1, 2]})
    assert said(one, other) == "the same rows in another order"
    assert said(pa.table({"a": [1, 2], "b": [3, 4]}), pa.table({"a": [3, 4], "b": [1, 2]})) == (
        "other values in the columns 'a', 'b'"
    )


def test_tables_for_one_split() -> None:
    one, grown = table_fingerprint(shop()), table_fingerprint(pa.concat_tables([shop(), shop()]))
    assert differences({"data": one, "val": one}, {"data": one, "val": grown}) == (
        "in data.val_path, 8 rows instead of 4"
    )
    assert differences({"data": one, "val": one}, {"data": one}) == "data.val_path is gone"
    assert differences({"data": one}, {"data": one, "test": one}) == "data.test_path is new"
    # Which columns are read of them depends on the training rows.
    fewer = table_fingerprint(shop().drop_columns(["sold"]))
    assert differences({"data": one, "val": one}, {"data": one, "val": fewer}) == ""


@given(st.lists(st.sampled_from(["x", "y", None, "long text"]), min_size=1, max_size=50), st.data())
def test_parts_do_not_matter(values: list[Any], data: st.DataObject) -> None:
    numbers = [None if one is None else len(one) / 3 for one in values]
    table = pa.table({"a": pa.array(values, pa.string()), "b": pa.array(numbers, pa.float64())})
    at = data.draw(st.integers(0, len(values)))
    hasher = RowsHasher()
    for part in (table.slice(0, at), table.slice(at)):
        hasher.add(part)
    assert hasher.fingerprint()["columns"] == table_fingerprint(table)["columns"]
    assert hasher.fingerprint() == table_fingerprint(table)


def test_more_rows_than_are_worked_on_at_once() -> None:
    numbers = np.random.default_rng(0).normal(size=150_000)
    table = pa.table({"a": numbers, "b": pa.array([f"{one:.2f}" for one in numbers])})
    order = np.random.default_rng(1).permutation(len(numbers))
    assert said(table, table.take(order)) == "the same rows in another order"
    other = numbers + np.eye(1, len(numbers), len(numbers) - 1)[0]
    assert said(table, table.set_column(0, "a", pa.array(other))) == "other values in the column 'a'"
