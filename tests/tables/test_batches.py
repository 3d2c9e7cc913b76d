"""Rows of a source in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.tables import mixed_table, set_up
from support.tolerances import assert_same_bits

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import DataError
from mlp_lightning.tables.batches import EncodedBatch, encoded_batches
from mlp_lightning.tables.encoding import Surprises, encode
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource
from mlp_lightning.tables.targets import Target


@pytest.fixture(scope="module")
def data() -> TabularDataModule:
    return set_up(mixed_table())


def batches_of(
    table: pa.Table, data: TabularDataModule, target: Target | None = None, **options: Any
) -> list[EncodedBatch]:
    surprises = options.pop("surprises", Surprises())
    source = MemorySource(table, "the table")
    return list(encoded_batches(source, data.rows.report.columns, target, surprises, **options))


@pytest.mark.parametrize("rows", [1, 7, 59, 60, 1000])
def test_parts_are_the_whole(data: TabularDataModule, rows: int) -> None:
    found = batches_of(mixed_table(), data, data.target, rows=rows)
    assert_same_bits(
        np.concatenate([one.raw_BF for one in found]), encode(mixed_table(), data.rows.report.columns, str)
    )
    assert_same_bits(np.concatenate([one.targets_BT for one in found]), data.target.numbers(mixed_table(), str))
    sizes = [len(one.raw_BF) for one in found]
    assert max(sizes) <= rows
    assert len(sizes) == -(-60 // rows)
    assert [one.first_row for one in found] == np.cumsum([0, *sizes[:-1]]).tolist()


def test_short_parts_are_put_together(data: TabularDataModule) -> None:
    table = pa.concat_tables([mixed_table().slice(row, 1) for row in range(60)])
    assert [len(one.raw_BF) for one in batches_of(table, data, rows=25)] == [25, 25, 10]


def test_without_a_target_none_is_asked_for(data: TabularDataModule) -> None:
    (found,) = batches_of(mixed_table().drop_columns("y"), data)
    assert found.targets_BT.shape == (60, 0)
    assert "y" not in found.batch.schema.names


def test_further_columns_come_as_they_are(data: TabularDataModule) -> None:
    table = mixed_table().append_column("name", pa.array([f"row {row}" for row in range(60)]))
    found = batches_of(table, data, further=["name", "y", "number"], rows=50)
    assert [row for one in found for row in one.batch.column("name").to_pylist()] == [f"row {row}" for row in range(60)]
    assert found[0].batch.column("y").to_pylist() == table.column("y").to_pylist()[:50]
    typed = batches_of(table, data, further={"y": pa.string(), "whole": pa.string()})
    # A column that the model sees has the model's type.
    assert typed[0].batch.schema.field("whole").type == pa.float64()
    assert_same_bits(typed[0].raw_BF, encode(table, data.rows.report.columns, str))


def test_surprises_of_all_parts_are_counted(data: TabularDataModule) -> None:
    table = mixed_table().set_column(3, "colour", pa.array(["pink", "red"] * 30))
    surprises = Surprises()
    batches_of(table, data, surprises=surprises, rows=7)
    assert surprises.unknown == {"colour": 30}


def test_places_count_over_all_parts(data: TabularDataModule, tmp_path) -> None:
    numbers = mixed_table().column("number").to_pylist()
    numbers[47] = float("inf")
    table = mixed_table().set_column(0, "number", pa.array(numbers))
    with pytest.raises(DataError, match="row 48: column 'number' is infinite"):
        batches_of(table, data, rows=7)
    labels = mixed_table().column("y").to_pylist()
    labels[33] = "maybe"
    with pytest.raises(DataError, match="row 34: column 'y' has the class 'maybe'"):
        batches_of(mixed_table().set_column(6, "y", pa.array(labels)), data, data.target, rows=10)
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "1.5,a\n2.5,b\n" * 30)
    simple = set_up(path=str(path))
    path.write_text("x,y\n" + "1.5,a\n2.5,b\n" * 30 + "-inf,a\n")
    with pytest.raises(DataError, match=r"rows\.csv, line 62: column 'x' is infinite"):
        list(
            encoded_batches(
                FileSource.open(str(path), CsvConfig()), simple.rows.report.columns, None, Surprises(), rows=7
            )
        )


@pytest.mark.parametrize(("name", "target"), [("colour", False), ("y", True)])
def test_a_column_that_is_not_there(data: TabularDataModule, name: str, target: bool) -> None:
    table = mixed_table().rename_columns([one if one != name else f"{name}s" for one in mixed_table().column_names])
    with pytest.raises(DataError, match=f"the table has no column '{name}'; did you mean '{name}s'"):
        batches_of(table, data, data.target if target else None)


def test_wide_tables_come_in_fewer_rows(monkeypatch, data: TabularDataModule) -> None:
    monkeypatch.setattr("mlp_lightning.tables.batches._VALUES_AT_ONCE", 60)
    assert [len(one.raw_BF) for one in batches_of(mixed_table(), data)] == [10] * 6
    monkeypatch.setattr("mlp_lightning.tables.batches._VALUES_AT_ONCE", 1)
    assert [len(one.raw_BF) for one in batches_of(mixed_table(), data)] == [1] * 60
