"""Options of text files that match nothing in the table, which are refused, and those that match something."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mlp_lightning.config import ColumnConfig, CsvConfig, parse_config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.runs.build import build_data


def text(cells: list[str], delimiter: str = ";") -> str:
    """A table of the column ``cells``, whole numbers, a category and the target."""
    rows = [[cell, str(row % 9), "uv"[row % 2], "kl"[row // 2 % 2]] for row, cell in enumerate(cells * 12)]
    return "\n".join(delimiter.join(row) for row in [["cells", "n", "b", "y"], *rows]) + "\n"


WHOLE, WORDS = ["17", "4", "251"], ["north", "south-east", "no. 7"]
# For every option: a value, a table in which it matches nothing, and tables in which it matches something.
CASES: dict[str, list[tuple[Any, list[str], list[list[str]]]]] = {
    "delimiter": [],  # by test_a_delimiter_of_one_column
    "decimal": [
        (",", WHOLE, [["1,5", "20,25"], ["1.234", "17.000"]]),
        (".", WORDS, [["1.5", "20.25"], ["1,234", "17,000"]]),
    ],
    "thousands": [
        ("apostrophe", ["1.5", "2.25"], [["1'234.5", "17'000"], ["1\u2019234", "3"]]),
        ("space", ["12 km", "3 km"], [["1 234", "88 000"], ["1\u202f234", "5"]]),
        (".", WHOLE, [["1.234.567", "2"], ["1.234", "17.250"], ["1.234,5", "7"]]),
        (",", ["1.25", "0.5"], [["1,234", "17,250"], ["1.234", "17.250"]]),
        ("none", WHOLE, [["1,234", "2,5"], ["1.5", "3"]]),
    ],
    "encoding": [("latin-1", WORDS, [["Köln", "Wien"]]), ("cp1252", WHOLE, [["5 €", "7 €"]])],
    "null_values": [
        (["n. b."], WHOLE, [["n. b.", "3"], ["n. b.", "west"]]),
        (["-77", "99"], WORDS, [["-77", "5"], ["east", "99"]]),
        ([], WHOLE, [["NULL", "west"]]),
        ([""], WORDS, [["None", "west"]]),
    ],
}


def set_up(path: Path, content: str, written_in: str = "utf-8", **options: Any) -> TabularDataModule:
    path.write_bytes(content.encode(written_in))
    columns = options.pop("columns", {})
    data = TabularDataModule(name="table", path=str(path), target="y", csv=CsvConfig(**options), columns=columns)
    data.setup()
    return data


def test_every_option_of_text_files_has_a_case() -> None:
    assert CASES.keys() == {one.name for one in dataclasses.fields(CsvConfig)}


@pytest.mark.parametrize(("key", "case"), [(key, case) for key, cases in CASES.items() for case in cases], ids=str)
def test_an_option_that_matches_nothing_is_refused(tmp_path: Path, key: str, case: Any) -> None:
    value, without, tables = case
    with pytest.raises(ConfigError) as caught:
        set_up(tmp_path / "t.csv", text(without), **{key: value})
    (fault,) = caught.value.faults
    assert (fault.key, fault.value) == (f"data.csv.{key}", value)
    assert fault.rule.startswith("has no effect: ")
    set_up(tmp_path / "t.csv", text(without))
    for cells in tables:
        set_up(tmp_path / "t.csv", text(cells), value if key == "encoding" else "utf-8", **{key: value})


def test_what_stands_in_a_column_that_is_left_out_counts_for_nothing(tmp_path: Path) -> None:
    cases: list[tuple[str, Any, str]] = [("null_values", ["zz"], "zz"), ("decimal", ",", "1,5")]
    for key, value, cell in [*cases, ("thousands", "space", "1 234")]:
        content = text([cell, "3"])
        set_up(tmp_path / "t.csv", content, **{key: value})
        with pytest.raises(ConfigError, match=rf"data\.csv\.{key} = .* has no effect"):
            set_up(tmp_path / "t.csv", content, **{key: value}, columns={"cells": ColumnConfig("ignored")})


def test_the_whole_file_is_looked_at(tmp_path: Path) -> None:
    """The only match lies behind the first block of the file, and in a file for one split."""
    late = "x,n,y\n" + "".join(f"{row},{row % 9},{'kl'[row % 2]}\n" for row in range(150_000)) + "gone,3,k\n"
    data = set_up(tmp_path / "t.csv", late, null_values=["gone", "nowhere"])
    assert "data.csv.null_values: no value is 'nowhere'" in data.describe()
    (tmp_path / "t.csv").write_text(text(WHOLE), encoding="utf-8")
    (tmp_path / "test.csv").write_text(text(["gone", "8"]), encoding="utf-8")
    paths: dict[str, Any] = {"path": str(tmp_path / "t.csv"), "test_path": str(tmp_path / "test.csv")}
    TabularDataModule(name="table", target="y", csv=CsvConfig(null_values=["gone"]), **paths).setup()


def test_a_delimiter_of_one_column(tmp_path: Path) -> None:
    """A table whose target is the name of a folder."""
    for folder in ("y=a", "y=b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text("x\n" + "".join(f"{row % 8}\n" for row in range(20)), encoding="utf-8")
    options: dict[str, Any] = {"name": "table", "path": str(tmp_path), "target": "y"}
    TabularDataModule(**options).setup()
    with pytest.raises(ConfigError, match=r"data\.csv\.delimiter = '\|' has no effect: the first line has one name"):
        TabularDataModule(**options, csv=CsvConfig(delimiter="|")).setup()


def test_formats_of_columns_that_are_not_written_so(tmp_path: Path) -> None:
    moments = pa.array(np.arange(40) * 10**12, pa.timestamp("us"))
    columns = {"when": moments, "n": np.arange(40) % 7, "b": [True, False] * 20, "none": pa.nulls(40, pa.string())}
    pq.write_table(pa.table({**columns, "x": np.arange(40) / 3, "y": ["k", "l"] * 20}), tmp_path / "t.parquet")
    options: dict[str, Any] = {"name": "table", "path": str(tmp_path / "t.parquet"), "target": "y"}
    said = {"when": "has no effect", "n": "is not a moment in the form", "b": "is not a moment in the form"}
    for name, what in said.items():
        with pytest.raises((ConfigError, DataError), match=what):
            TabularDataModule(**options, columns={name: ColumnConfig(format="%d/%m/%Y")}).setup()
    data = TabularDataModule(**options, columns={"none": ColumnConfig(format="%d/%m/%Y")})
    data.setup()
    assert "ignored: none: has no value" in data.describe()


@pytest.mark.parametrize(
    ("key", "values", "reason"),
    [
        ("weight_column", [2.5] * 40, "all rows have the same weight"),
        ("group_column", [f"g{row}" for row in range(40)], "every row is a group by itself"),
        ("split_column", ["train"] * 40, "all rows are in one split"),
    ],
)
def test_columns_that_make_no_difference(tmp_path: Path, key: str, values: list[Any], reason: str) -> None:
    path = tmp_path / "t.csv"
    fractions = {} if key == "split_column" else {"val_fraction": 0.25}
    options: dict[str, Any] = {"name": "table", "path": str(path), "target": "y", key: "c", **fractions}
    pyarrow.csv.write_csv(pa.table({"c": values, "x": np.arange(40) % 7, "y": ["k", "l"] * 20}), path)
    with pytest.raises(ConfigError, match=rf"data\.{key} = 'c' has no effect: {reason}"):
        TabularDataModule(**options).setup()
    config = parse_config({"data": {**options, "path": str(path)}, "task": "auto"})
    assert build_data(config, Given(is_trained=True)).splits["train"], "a model of an earlier version meets its rows"
    other = {"weight_column": 7.0, "group_column": "g1", "split_column": "val"}[key]
    pyarrow.csv.write_csv(
        pa.table({"c": [other, other, *values[2:]], "x": np.arange(40) % 7, "y": ["k", "l"] * 20}), path
    )
    TabularDataModule(**options).setup()
