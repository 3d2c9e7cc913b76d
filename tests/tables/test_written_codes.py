"""Digits with zeros before them, all of one width, are categories: zip codes, and no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.tables import set_up

from mlp_lightning.config import ColumnConfig, CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.encoding import FIRST_CATEGORY, UNKNOWN, Surprises
from mlp_lightning.tables.reading.sources import FileSource


def csv_of(values: list[str], path: Path, rows: int = 60, target: str = "y") -> str:
    lines = [f"{values[row % len(values)]},{row % 7},{'ab'[row % 3 // 2]}" for row in range(rows)]
    path.write_text("\n".join(["x,z,y" if target == "y" else "y,z,x", *lines]) + "\n", encoding="utf-8")
    return str(path)


def codes_of(data: TabularDataModule, path: str) -> list[float]:
    column = next(one for one in data.preprocessor.columns if one.name == "x")
    source = FileSource.open(path, CsvConfig())
    return [one for batch in encoded_batches(source, [column], None, Surprises()) for one in batch.raw_BF[:, 0]]


@pytest.mark.parametrize("values", [["04109", "20095", "00185"], ["07", "11"], ["0000001", "0000002"], ["00", "10"]])
@pytest.mark.parametrize("gaps", [[], ["", "NA"]])
@pytest.mark.parametrize("quote", ["", '"'])
def test_codes_are_categories(values: list[str], gaps: list[str], quote: str, tmp_path: Path) -> None:
    path = csv_of([f"{quote}{one}{quote}" for one in values] + gaps, tmp_path / "t.csv")
    data = set_up(path=path)
    lines = data.describe()
    column = next(one for one in data.preprocessor.columns if one.name == "x")
    assert (column.kind, column.vocabulary, column.missing) == ("categorical", tuple(sorted(values)), bool(gaps))
    shown = next(one for one in values if one.startswith("0"))
    line = f"x: digits with zeros before them ({shown}) are categories; data.columns.x.kind=numeric if they count"
    assert line in lines
    assert not any("kept as a text" in one for one in lines)
    # New rows of the same codes, in another order and of others: 4109 is none of them.
    new = csv_of([*values[::-1], "4109", *gaps], tmp_path / "new.csv")
    order = [FIRST_CATEGORY + sorted(values).index(one) for one in values[::-1]]
    assert codes_of(data, new)[: len(values) + 1 + len(gaps)] == [*order, UNKNOWN, *[0.0] * len(gaps)]
    numeric = set_up(path=path, columns={"x": ColumnConfig("numeric")})
    assert "numeric: " in " ".join(numeric.describe())
    assert line not in numeric.describe()


@pytest.mark.parametrize("values", [["5", "10", "50"], ["0", "1"], ["100", "999"], ["0.5", "1.5"], ["-1", "01"]])
def test_other_numbers(values: list[str], tmp_path: Path) -> None:
    data = set_up(path=csv_of(values, tmp_path / "t.csv"))
    assert "numeric: x, z" in data.describe()
    if values[1] != "01":
        assert not any("zeros before them" in line for line in data.describe())


def test_different_widths_are_numbers_with_a_line(tmp_path: Path) -> None:
    lines = set_up(path=csv_of(["0171", "089", "4930"], tmp_path / "t.csv")).describe()
    assert "numeric: x, z" in lines
    assert (
        "x: digits with zeros before them (0171) are numbers; data.columns.x.kind=categorical if they are codes"
        in lines
    )


@pytest.mark.parametrize("first", ["10115", "01067"])
def test_codes_behind_the_sample(first: str, tmp_path: Path) -> None:
    """The first 64 Ki characters may all be without a zero, or with one and of another width than what follows."""
    rows = [f"{first},{row % 7},{'ab'[row % 3 // 2]}" for row in range(12_000)]
    other = {"10115": "00501", "01067": "123456"}[first]
    rows += [f"{other},{row % 7},{'ab'[row % 2]}" for row in range(50)]
    (tmp_path / "t.csv").write_text("\n".join(["x,z,y", *rows]) + "\n")
    data = set_up(path=str(tmp_path / "t.csv"), val_fraction=0.0)
    expected = "categorical: x (2)" if first == "10115" else "numeric: x, z"
    assert expected in data.describe()


def test_files_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    csv_of(["10115", "20095"], folder / "a.csv")
    csv_of(["01067", "20095"], folder / "b.csv")
    data = set_up(path=str(folder))
    assert "categorical: x (3)" in data.describe()
    csv_of(["101155", "200955"], folder / "a.csv")
    assert "numeric: x, z" in set_up(path=str(folder)).describe()


def test_targets(tmp_path: Path) -> None:
    path = csv_of(["007", "010", "100"], tmp_path / "t.csv", target="x")
    data = set_up(path=path)
    assert data.target.class_names == ("007", "010", "100")
    many = csv_of([f"{row:03}" for row in range(60)], tmp_path / "many.csv", 120, target="x")
    assert set_up(path=many).task == "regression"
    numbers: dict[str, Any] = {"columns": {"y": ColumnConfig("numeric")}}
    assert set_up(path=path, **numbers).task == "regression"
    assert set_up(path=path, task="regression").task == "regression"


def test_test_rows_of_their_own_file(tmp_path: Path) -> None:
    path = csv_of(["04109", "20095", "00185"], tmp_path / "t.csv")
    test = csv_of(["00185", "04109"], tmp_path / "test.csv")
    data = set_up(path=path, test_path=test, val_fraction=0.0)
    assert not data.rows.surprises["test"].lines()


def test_stored_numbers_stay_numbers() -> None:
    table = pa.table({"x": [4109, 20095, 185] * 20, "y": ["a", "b", "a"] * 20})
    assert "numeric: x" in set_up(table).describe()
