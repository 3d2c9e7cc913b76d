"""Titles above the names of columns, sheets that are not read, and what is alike but for its case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openpyxl
import pytest
from support.tables import set_up

from mlp_lightning.config import CsvConfig
from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.sources import FileSource


def opened(path: Path, **options: Any) -> FileSource:
    return FileSource.open(str(path), CsvConfig(**options))


@pytest.mark.parametrize("title", ["Sales of 2021", "Ventes", "\n\nreport"])
@pytest.mark.parametrize("blank", ["", "\n"])
def test_a_title_above_a_text_table(title: str, blank: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{title}\n{blank}a,b,c\n1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match=rf"t\.csv: the first line has one value \('{title.strip()}'\), and all others"):
        opened(path)
    path.write_text(f"{title.strip()},,\na,b,c\n1,2,3\n")
    with pytest.raises(
        DataError, match=rf"only the first of 3 columns has a name \('{title.strip()}'\)\. If it is a title"
    ):
        opened(path)
    path.write_text(f"{title}\na;b;c\n1;2;3\n4;5;6\n")
    with pytest.raises(DataError, match=r"has no column 'b'.*If its first line is a title, remove it"):
        opened(path).read(["b"])
    with pytest.raises(DataError, match=r"the first line has one value .* and all others have 3\."):
        opened(path, delimiter=";")


@pytest.mark.parametrize("content", ["a\n1\n2\n", "a\nx|y\nu|v\n", 'a\n"1,2"\n"3,4"\n', "a b\n1\n\n2\n"])
def test_tables_of_one_column(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    assert opened(tmp_path / "t.csv").read().shape == (2, 1)


def test_the_column_of_another_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    first, second = book.active, book.create_sheet("Data")
    assert first is not None
    for row in (["about", "by"], ["flowers", "us"]):
        first.append(row)
    for row in (["width", "kind"], [1.5, "u"], [2.5, "v"]):
        second.append(row)
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match=r"no column 'kind' in the sheet that is read.*the sheet 'Data' has one\. Make"):
        set_up(path=str(tmp_path / "t.xlsx"), target="kind")
    with pytest.raises(DataError, match=r"has no column 'other'\. Its columns are: about, by\."):
        set_up(path=str(tmp_path / "t.xlsx"), target="other")
    book.move_sheet("Data", -1)
    book.save(tmp_path / "t.xlsx")
    assert opened(tmp_path / "t.xlsx").read().column_names == ["width", "kind"]


@pytest.mark.parametrize("texts", [["Ja", "nein", "ja"], ["ÖL", "Gas", "Öl"]])
def test_values_that_differ_in_case_only(texts: list[str], tmp_path: Path) -> None:
    rows = [f"{row % 7},{texts[row % 3]},{texts[row // 2 % 3]}" for row in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["x,z,y", *rows]) + "\n", encoding="utf-8")
    lines = set_up(path=str(tmp_path / "t.csv")).describe()
    one, other = sorted((texts[0], texts[2]))
    for name in "zy":
        assert (
            f"{name}: {one!r} and {other!r} differ in case only, and are two; write them alike if they are one" in lines
        )
    (tmp_path / "t.csv").write_text("\n".join(["x,z,y", *rows]).lower() + "\n", encoding="utf-8")
    assert not any("in case only" in line for line in set_up(path=str(tmp_path / "t.csv")).describe())


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_advice_on_a_word_among_numbers_works(ending: str, tmp_path: Path) -> None:
    """A cell of a workbook can be emptied, and cannot be named in an option of text files."""
    rows: list[list[Any]] = [["x", "y"], *([row / 4, "uv"[row % 2]] for row in range(60))]
    rows[7][0] = "broken"
    path = tmp_path / f"t.{ending}"

    def write() -> None:
        if ending == "csv":
            path.write_text("\n".join(",".join("" if one is None else str(one) for one in row) for row in rows) + "\n")
            return
        book = openpyxl.Workbook()
        assert book.active is not None
        for row in rows:
            book.active.append(row)
        book.save(path)

    write()
    with pytest.raises(DataError, match=r"'broken' here.*leave it empty, or \(in text files\) add it to data\.csv"):
        set_up(path=str(path))
    if ending == "csv":
        assert "numeric: x (with gaps)" in set_up(path=str(path), csv=CsvConfig(null_values=["broken"])).describe()
    rows[7][0] = None
    write()
    assert "numeric: x (with gaps)" in set_up(path=str(path)).describe()
