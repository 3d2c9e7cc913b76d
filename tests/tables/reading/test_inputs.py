"""Folders that are columns, workbooks, JSON lines, addresses and standard input, compared with the libraries' own."""

from __future__ import annotations

import datetime
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.tables.reading import paths
from mlp_lightning.tables.reading.frames import arrow_table
from mlp_lightning.tables.reading.sources import FileSource

ROWS = pa.table(
    {
        "width": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5],
        "site": ["Ålesund", "a b/c", "Ålesund", None, "x=y", "a b/c"],
        "year": pa.array([2019, 2020, 2020, 2019, 2019, 2019], pa.int64()),
        "code": ["007", "12", "007", "007", "12", "12"],
    }
)


def opened(path: Path | str) -> FileSource:
    return FileSource.open(str(path), CsvConfig())


def rows_of(table: pa.Table) -> set[tuple[Any, ...]]:
    return {tuple(row.values()) for row in table.select(["width", "site", "year", "code"]).to_pylist()}


@pytest.mark.parametrize("ending", ["parquet", "feather", "csv"])
def test_folders_are_columns(tmp_path: Path, ending: str) -> None:
    keys = pa.schema([("site", pa.string()), ("year", pa.int64()), ("code", pa.string())])
    pyarrow.dataset.write_dataset(
        ROWS,
        tmp_path / "t",
        format=ending,
        partitioning=pyarrow.dataset.partitioning(keys, flavor="hive"),
        basename_template=f"part-{{i}}.{ending}",
    )
    source = opened(tmp_path / "t")
    assert source.column_names == ["width", "site", "year", "code"]
    assert rows_of(source.read()) == rows_of(ROWS)
    assert source.read().schema.types == [pa.float64(), pa.string(), pa.int64(), pa.string()]
    for columns in (["year", "width"], ["site"], ["width"]):
        whole = source.read(columns)
        assert whole.column_names == columns
        assert pa.Table.from_batches(source.batches(columns, {}, 1)) == whole
    typed = source.read(["year"], {"year": pa.string()})
    assert set(typed["year"].to_pylist()) == {"2019", "2020"}
    # A part of the folder has the same columns.
    part = opened(next((tmp_path / "t").glob("site=a*")))
    assert set(part.read()["site"].to_pylist()) == {"a b/c"}


def test_a_partition_column_is_read_as_polars_reads_it(tmp_path: Path) -> None:
    pyarrow.parquet.write_to_dataset(ROWS.select(["width", "year"]), tmp_path / "t", partition_cols=["year"])
    expected = pl.read_parquet(tmp_path / "t/**/*.parquet", hive_partitioning=True).sort("width")
    for path in (tmp_path / "t", tmp_path / "t/*/*.parquet"):
        found = pl.DataFrame(opened(path).read(["width", "year"])).sort("width")
        assert found.rows() == expected.select(["width", "year"]).rows()


def test_a_column_of_the_file_goes_before_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "year=2020"
    folder.mkdir()
    (folder / "t.csv").write_text("year,x\n2020.5,1\n")
    assert opened(tmp_path).read().to_pydict() == {"year": [2020.5], "x": [1]}


def test_folders_of_some_files_only(tmp_path: Path) -> None:
    for name in ("year=2020", "rest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match="Some files of the table lie in folders year=…"):
        opened(tmp_path)


# ---- JSON lines and workbooks ----------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "size": [1.5, None, 3.0],
        "count": [1, 2, 3],
        "word": ["ä", None, "x,\ny"],
        "flag": [True, False, True],
        "when": pd.to_datetime(["2020-05-01", "2021-06-02 10:30", "2022-01-03"], format="mixed"),
    }
)
EXPECTED = {
    "size": [1.5, None, 3.0],
    "count": [1, 2, 3],
    "word": ["ä", None, "x,\ny"],
    "flag": [True, False, True],
    "when": [datetime.datetime(2020, 5, 1), datetime.datetime(2021, 6, 2, 10, 30), datetime.datetime(2022, 1, 3)],
}


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.json", "t.jsonl.gz", "t.ndjson.bz2"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    FRAME.to_json(tmp_path / name, orient="records", lines=True, date_format="iso", date_unit="s")
    source = opened(tmp_path / name)
    assert source.read().to_pydict() == EXPECTED
    assert pa.Table.from_batches(source.batches(["word", "count"], {}, 2)) == source.read(["word", "count"])
    assert source.place(1) == f"{name}, row 2"


@pytest.mark.parametrize("text", ['[{"a": 1}]', '{"a": 1}\n{"a": ', '{"a": 1}\n{"a": "x"}\n'])
def test_what_is_not_json_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"t\.json cannot be read as JSON lines \(an object on each line\)"):
        opened(tmp_path / "t.json")


def test_a_workbook(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    with pd.ExcelWriter(tmp_path / "t.xlsx") as file:
        pd.DataFrame().to_excel(file, sheet_name="about", index=False)
        FRAME.to_excel(file, sheet_name="rows", index=False)
        FRAME.to_excel(file, sheet_name="more", index=False)
    source = opened(tmp_path / "t.xlsx")
    assert source.read().to_pydict() == EXPECTED
    assert source.notes == ["t.xlsx: the sheet 'rows' is read, and not 'about', 'more'"]
    assert source.read(["count"], {"count": pa.string()}).to_pydict() == {"count": ["1", "2", "3"]}


def test_cells_of_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    cells = [["a", 2020, "t", "u"], [1, "x", datetime.time(8, 15), 3], [2.5, "#N/A", None, "m"], [None] * 4]
    for row in cells:
        workbook.active.append(row)
    workbook.save(tmp_path / "t.xlsx")
    expected = {"a": [1.0, 2.5], "2020": ["x", None], "t": ["08:15:00.000000", None], "u": ["3", "m"]}
    assert opened(tmp_path / "t.xlsx").read().to_pydict() == expected


@pytest.mark.parametrize(("header", "bad"), [(1, 2), (1, 7), (3, 4), (4, 9)])
def test_messages_number_rows_as_excel_does(tmp_path: Path, header: int, bad: int) -> None:
    """Whatever stands between them: the header, rows without a value, rows that the file leaves out."""
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    rows = [one for one in range(header + 1, 12) if one not in {header + 2, header + 4} or one == bad]
    for row in [header, *rows]:
        values = ("a", "b") if row == header else (row, "wrong" if row == bad else str(row))
        for column, value in enumerate(values, start=1):
            workbook.active.cell(row, column, value)
    workbook.active.cell(header + 2 if header + 2 != bad else header + 4, 1, None)
    workbook.save(tmp_path / "t.xlsx")
    source = opened(tmp_path / "t.xlsx")
    assert [source.place(at) for at in range(len(rows))] == [f"t.xlsx, row {row}" for row in rows]
    text = rf"t\.xlsx, row {bad}: .*'wrong'"
    with pytest.raises(DataError, match=text):
        source.read(["b"], {"b": pa.float64()})
    with pytest.raises(DataError, match=text):
        list(source.batches(["b"], {"b": pa.float64()}, 2))


def test_what_is_not_a_workbook(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    (tmp_path / "t.xlsx").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"t\.xlsx cannot be read as an Excel workbook"):
        opened(tmp_path / "t.xlsx")


def test_a_workbook_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"pip install 'mlp-lightning\[excel\]'"):
        opened(tmp_path / "t.xlsx")


# ---- addresses, standard input, frames -------------------------------------------------------------------


@pytest.fixture
def bucket() -> Any:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


def test_what_an_address_has(tmp_path: Path, bucket: Any) -> None:
    bucket.pipe("/in/one.csv", b"a,b\n1,x\n")
    bucket.pipe("/in/two/three.csv", b"a,b\n2,y\n")
    assert opened("memory://in/one.csv").read().to_pydict() == {"a": [1], "b": ["x"]}
    assert opened("memory://in").read().to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    assert opened("memory://in/one.csv").place(0) == "one.csv, line 2"
    (tmp_path / "t.csv").write_text("a\n7\n")
    assert opened((tmp_path / "t.csv").as_uri()).read().to_pydict() == {"a": [7]}


@pytest.mark.parametrize("address", ["memory://nothing.csv", "nosuch://a/b.csv"])
def test_addresses_that_have_nothing(address: str, bucket: Any) -> None:
    with pytest.raises(DataError, match=f"{address} cannot be read"):
        opened(address)


def contents() -> dict[str, bytes]:
    table = pa.table({"p": [1.5, 2.5], "q": ["u", "v"]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, parquet)
    pyarrow.feather.write_feather(table, arrow)
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "gzip") as file:
        file.write(b"p,q\n1.5,u\n2.5,v\n")
    return {
        "csv": b"p;q\n1,5;u\n2,5;v\n",
        "gz": packed.getvalue().to_pybytes(),
        "jsonl": lines.encode(),
        "parquet": parquet.getvalue(),
        "feather": arrow.getvalue(),
    }


@pytest.mark.parametrize("kind", contents())
def test_standard_input(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(contents()[kind]), encoding="utf-8"))
    paths._standard_input.cache_clear()
    try:
        for _ in range(2):  # it can be read once only, and a run reads its table several times
            assert opened("-").read().to_pydict() == {"p": [1.5, 2.5], "q": ["u", "v"]}
    finally:
        paths._standard_input.cache_clear()


def test_empty_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n"), encoding="utf-8"))
    with pytest.raises(DataError, match=r"data\.path = - is standard input, and it is empty"):
        opened("-")


@pytest.mark.parametrize("frame", [FRAME, pl.DataFrame({"a": np.arange(9)}), pa.table({"a": [1]})])
def test_a_frame_in_the_place_of_a_path(frame: Any) -> None:
    with pytest.raises(ConfigError, match=r"frame=…") as caught:
        FileSource.open(frame, CsvConfig())
    assert caught.value.faults[0].key == "data.path"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["odd", 3])
def test_a_column_of_a_frame_that_is_not_read(name: Any) -> None:
    frame = pd.DataFrame({"a": [1, 2], name: [object(), "x"]})
    with pytest.raises(
        DataError,
        match=r"frame: column .* has <object object .* \(of the type object\) in row 1, but 'x' \(a text\) in row 2",
    ):
        arrow_table(frame, "frame")
    table = arrow_table(frame, "frame", [str(name)])
    assert (table.column_names, table["a"].to_pylist()) == (["a", str(name)], [1, 2])
    assert frame[name][1] == "x"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None, 2.5, "u"], r"has 2\.5 \(a number\) in row 2, but 'u' \(a text\) in row 3"),
        ([float("nan"), datetime.date(2021, 3, 4), False], r"in row 2, but False \(a truth value\) in row 3"),
        ([pd.Timestamp(2021, 3, 4), 7], r"has .* \(a date\) in row 1, but 7 \(a number\) in row 2"),
        ([3, 2**77], r"has 151115727451828646838272 in row 2, which is beyond 64 bits"),
        ([1 + 2j, 3 + 1j], r"has \(1\+2j\) in row 1, which is of the type complex"),
        (["u" * 900, 3], r"has '.{,300}…? \(a text\) in row 1, but 3"),
    ],
)
def test_columns_of_a_frame_that_are_no_columns(values: list[Any], words: str) -> None:
    """In our words, not in Arrow's; also of one among columns of the same name."""
    for names in (["x", "odd"], ["odd", "odd"]):
        frame = pd.DataFrame([[row, value] for row, value in enumerate(values)], dtype=object)
        frame.columns = names
        with pytest.raises(DataError, match=rf"^frame: column 'odd' .*{words}") as caught:
            arrow_table(frame, "frame")
        assert not re.search("pyarrow|Expected|object type|dtype", str(caught.value))
