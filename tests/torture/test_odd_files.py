"""Odd files as tables: the right values, or one message that names the file and says what is wrong."""

from __future__ import annotations

import gzip
import pickle
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.sources import FileSource

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1, 1, 8, 2, 0, 0, 0) + bytes(60)
TWO = {"a": [1, 2], "b": ["x", "y"]}
AMBIGUOUS = 'a,b\r\n1,x\r\n2,"y\r\nz"\r\n'


def values(path: Path, **options: Any) -> dict[str, list[Any]]:
    """All values, which are the same when they are read in batches."""
    source = FileSource.open(str(path), CsvConfig(**options))
    table = source.read()
    types = {field.name: field.type for field in table.schema}
    found = comparable(table)
    assert comparable(pa.Table.from_batches(source.batches(types=types))) == found
    return found


def comparable(table: pa.Table) -> dict[str, list[Any]]:
    """The values, with a text for NaN, which equals nothing."""
    return {name: [str(one) if one != one else one for one in column] for name, column in table.to_pydict().items()}


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


#: Contents of a file, and the values of it.
READ: dict[str, tuple[str, bytes | str, dict[str, list[Any]]]] = {
    "plain": ("t.csv", "a,b\n1,x\n2,y\n", TWO),
    "no line end at the end": ("t.csv", "a,b\n1,x\n2,y", TWO),
    "line ends of Windows": ("t.csv", "a,b\r\n1,x\r\n2,y\r\n", TWO),
    "line ends of old Macs": ("t.csv", "a,b\r1,x\r2,y\r", TWO),
    "mixed line ends": ("t.csv", "a,b\r\n1,x\n2,y\r", TWO),
    "empty lines": ("t.csv", "\n\na,b\n\n1,x\n\n\n2,y\n\n", TWO),
    "a byte order mark": ("t.csv", b"\xef\xbb\xbfa,b\n1,x\n2,y\n", TWO),
    "a byte order mark before quotes": ("t.csv", b'\xef\xbb\xbf"a","b"\n1,"x"\n2,"y"\n', TWO),
    "a name of a delimiter": ("t.csv", "sep=;\na;b\n1;x\n2;y\n", TWO),
    "tabs": ("t.tsv", "a\tb\n1\tx\n2\ty\n", TWO),
    "bars": ("t.txt", "a|b\n1|x\n2|y\n", TWO),
    "quotes around all": ("t.csv", '"a","b"\n"1","x"\n"2","y"\n', TWO),
    "a line break in quotes": ("t.csv", AMBIGUOUS, {"a": [1, 2], "b": ["x", "y\r\nz"]}),
    "quotes in quotes": ("t.csv", 'a,b\n1,"x ""y"""\n2,""""\n', {"a": [1, 2], "b": ['x "y"', '"']}),
    "blanks around names": ("t.csv", " a , b \n1,x\n2,y\n", TWO),
    "an ending in capitals": ("T.CSV", "a,b\n1,x\n2,y\n", TWO),
    "one column": ("t.csv", "a\n1\n2\n", {"a": [1, 2]}),
    "one row": ("t.csv", "a,b\n1,x\n", {"a": [1], "b": ["x"]}),
    "one value": ("t.csv", "a\n7", {"a": [7]}),
    "only missing values": ("t.csv", "a,b\n1,\n2,NA\n", {"a": [1, 2], "b": [None, None]}),
    "infinities": ("t.csv", "a\n1.5\ninf\n-inf\n", {"a": [1.5, float("inf"), float("-inf")]}),
    "texts of no number": ("t.csv", "a\n1.5\nNaN\nnan\n", {"a": [1.5, None, None]}),
    "large integers": ("t.csv", f"a\n{2**63 - 1}\n{-(2**63)}\n", {"a": [2**63 - 1, -(2**63)]}),
    "larger integers": ("t.csv", f"a\n{2**63}\n1\n", {"a": [float(2**63), 1.0]}),
    "numbers that overflow": ("t.csv", "a\n1e400\n1\n", {"a": [float("inf"), 1.0]}),
    "dates out of range": ("t.csv", "a\n2023-02-30\n9999-99-99\n", {"a": ["2023-02-30", "9999-99-99"]}),
    "emoji": ("t.csv", "🐧,ß\n🧊,1\n", {"🐧": ["🧊"], "ß": [1]}),
    "names that mean something elsewhere": (
        "t.csv",
        "__proto__,<script>alert(1)</script>,${oc.env:HOME},a=b,../../x,;rm\n1,2,3,4,5,6\n",
        {
            "__proto__": [1],
            "<script>alert(1)</script>": [2],
            "${oc.env:HOME}": [3],
            "a=b": [4],
            "../../x": [5],
            ";rm": [6],
        },
    ),
    "formulas": ("t.csv", "a\n=1+1\n@x\n", {"a": ["=1+1", "@x"]}),
    "control characters": ("t.csv", "a\x07,b\n\x1b[31m,1\n", {"a\x07": ["\x1b[31m"], "b": [1]}),
    "writing from right to left": ("t.csv", "שם,\u202eab\nאב,1\n", {"שם": ["אב"], "\u202eab": [1]}),
    "names that differ in case": ("t.csv", "a,A\n1,2\n", {"a": [1], "A": [2]}),
    "names that look the same": ("t.csv", "é,e\u0301\n1,2\n", {"é": [1], "e\u0301": [2]}),
    "a name of 5,000 characters": ("t.csv", "n" * 5000 + ",b\n1,2\n", {"n" * 5000: [1], "b": [2]}),
    "a value of 300,000 characters": ("t.csv", "a,b\n" + "x" * 300_000 + ",2\n", {"a": ["x" * 300_000], "b": [2]}),
    "500 columns": (
        "t.csv",
        ",".join(f"c{n}" for n in range(500)) + "\n" + ",".join("1" * 500),
        {f"c{n}": [1] for n in range(500)},
    ),
    "gzip": ("t.csv.gz", gzip.compress(b"a,b\n1,x\n2,y\n"), TWO),
    "gzip in two parts": ("t.csv.gz", gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n"), TWO),
    "zstd": ("t.csv.zst", pa.compress(b"a,b\n1,x\n2,y\n", codec="zstd", asbytes=True), TWO),
    "JSON lines": ("t.jsonl", '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n', TWO),
    "JSON lines of Windows": ("t.jsonl", '{"a": 1, "b": "x"}\r\n{"b": "y", "a": 2}', TWO),
    "JSON with gaps": ("t.jsonl", '{"a": 1}\n{"b": "y"}\n', {"a": [1, None], "b": [None, "y"]}),
    "JSON with escapes": ("t.jsonl", '{"a\\u0062": "\\"[{"}\n', {"ab": ['"[{']}),
    "Parquet": ("t.parquet", parquet(pa.table(TWO)), TWO),
    "Parquet of a word for NaN": ("t.pq", parquet(pa.table({"a": [1.5, float("nan")]})), {"a": [1.5, "nan"]}),
    "NaN as JSON": ("t.json", '{"a": NaN}\n', {"a": ["nan"]}),
}
OTHER_ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-8-sig"]
#: Contents of a file, and what is said of it.
REFUSED: dict[str, tuple[str, bytes | str, str]] = {
    "nothing": ("t.csv", "", "is empty"),
    "line ends": ("t.csv", "\n\n\r\n", "is empty"),
    "a byte order mark alone": ("t.csv", b"\xef\xbb\xbf", "is empty"),
    "a header": ("t.csv", "a,b\n", "no rows"),
    "a header without line end": ("t.csv", "a,b", "no rows"),
    "UTF-16": ("t.csv", "a,b\n1,x\n".encode("utf-16"), "zero bytes.*utf-16"),
    "UTF-16 without mark": ("t.csv", "a,b\n1,x\n".encode("utf-16-le"), "zero bytes"),
    "UTF-32": ("t.csv", "a,b\n1,x\n".encode("utf-32"), "zero bytes"),
    "zero bytes": ("t.csv", bytes(1000), "zero bytes"),
    "a zero byte": ("t.csv", b"a,b\n1,x\0\n", "zero bytes"),
    "Latin-1": ("t.csv", "a,b\n1,é\n".encode("latin-1"), "line 2.*e9.*latin-1"),
    "Latin-1 in the header": ("t.csv", "é,b\n1,x\n".encode("latin-1"), "line 1.*e9"),
    "a quotation mark alone": ("t.csv", 'a,b\n1,"x\n2,y\n', "line 2: a quotation mark opens"),
    "a quotation mark in the header": ("t.csv", '"a,b\n1,x\n', "t.csv"),
    "too many values": ("t.csv", "a,b\n1,x\n2,y,z\n", "line 3 has 3 values"),
    "too few values": ("t.csv", "a,b\n1,x\n2\n", "line 3 has 1 value"),
    "two names the same": ("t.csv", "a,a\n1,x\n", "more than one column is called 'a'"),
    "names that blanks distinguish": ("t.csv", "a,a \n1,x\n", "more than one column is called 'a'"),
    "a name missing": ("t.csv", "a,,b\n1,2,3\n", "column 2 of 3 has no name"),
    "a delimiter at the end": ("t.csv", "a,b,\n1,2,\n", "column 3 of 3 has no name"),
    "PNG as text": ("t.csv", PNG, "t.csv"),
    "a pickle as text": ("t.csv", pickle.dumps({"a": [1, 2]}, protocol=4), "t.csv"),
    "gzip as text": ("t.csv", gzip.compress(b"a,b\n1,x\n" * 50), "t.csv"),
    "Parquet as text": ("t.csv", parquet(pa.table(TWO)), "zero bytes"),
    "text as gzip": ("t.csv.gz", "a,b\n1,x\n", "cannot be read as a text file"),
    "half of gzip": ("t.csv.gz", gzip.compress(b"".join(b"%d,x\n" % n for n in range(3000)))[:3000], "t.csv.gz"),
    "text as zstd": ("t.csv.zst", "a,b\n1,x\n", "cannot be read"),
    "text as bzip2": ("t.csv.bz2", "a,b\n1,x\n", "cannot be read"),
    "nothing as gzip": ("t.csv.gz", b"", "t.csv.gz"),
    "nothing as JSON": ("t.jsonl", "", "t.jsonl"),
    "a list as JSON": ("t.json", '[{"a": 1}]', "JSON lines"),
    "a number as JSON": ("t.json", "3", "JSON lines"),
    "half of JSON": ("t.json", '{"a": 1}\n{"a": ', "JSON lines"),
    "two types as JSON": ("t.json", '{"a": 1}\n{"a": "x"}\n', "JSON lines"),
    "one name twice as JSON": ("t.json", '{"a": 1, "a": 2}\n', "t.json"),
    "an empty name as JSON": ("t.json", '{"": 1}\n', "has no name"),
    "objects in JSON": ("t.json", '{"a": {"b": 1}}\n', "column 'a'"),
    "lists in JSON": ("t.json", '{"a": [1, 2]}\n', "column 'a'"),
    "CSV as JSON": ("t.jsonl", "a,b\n1,x\n", "JSON lines"),
    "nothing as Parquet": ("t.parquet", b"", "Parquet"),
    "CSV as Parquet": ("t.parquet", "a,b\n1,x\n", "Parquet"),
    "half of Parquet": ("t.parquet", parquet(pa.table(TWO))[:200], "Parquet"),
    "Parquet without rows": ("t.parquet", parquet(pa.table(TWO).slice(0, 0)), "no rows"),
    "Parquet without columns": ("t.parquet", parquet(pa.table({})), "t.parquet"),
    "Parquet of lists": ("t.parquet", parquet(pa.table({"a": [[1], [2]]})), "column 'a'"),
    "Parquet of bytes": ("t.parquet", parquet(pa.table({"a": [b"x", b"\xff"]})), "column 'a'"),
    "nothing as Feather": ("t.feather", b"", "Feather"),
    "CSV as Feather": ("t.feather", "a,b\n1,x\n", "Feather"),
    "the start of Feather": ("t.feather", b"ARROW1\0\0", "Feather"),
    "Feather version 1": ("t.feather", b"FEA1" + bytes(40) + b"FEA1", "Feather"),
    "nothing as Excel": ("t.xlsx", b"", "Excel"),
    "CSV as Excel": ("t.xlsx", "a,b\n1,x\n", "Excel"),
    "old Excel": ("t.xlsx", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500), "Excel"),
    "an unknown ending": ("t.dat", "a,b\n1,x\n", "ending"),
    "no ending": ("table", "a,b\n1,x\n", "ending"),
    "a database": ("t.db", b"SQLite format 3\0", "ending"),
    "an archive": ("t.zip", b"PK\x05\x06" + bytes(18), "ending"),
}


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("kind", READ)
def test_read(kind: str, tmp_path: Path) -> None:
    name, content, expected = READ[kind]
    assert values(written(tmp_path, name, content)) == expected


@pytest.mark.parametrize("encoding", OTHER_ENCODINGS)
def test_other_encodings(encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "a,b\n1,é\n2,y\n".encode(encoding))
    assert values(path, encoding=encoding) == {"a": [1, 2], "b": ["é", "y"]}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, tmp_path: Path) -> None:
    name, content, words = REFUSED[kind]
    with pytest.raises(DataError, match=f"(?s){words}") as refused:
        values(written(tmp_path, name, content))
    assert name in str(refused.value)
    assert len(str(refused.value)) < 1500


def sqlite(folder: Path) -> Path:
    path = folder / "t.csv"
    with sqlite3.connect(path) as database:
        database.execute("create table t (a, b)")
    database.close()
    return path


def archive(folder: Path) -> Path:
    path = folder / "t.xlsx"
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("xl/workbook.xml", "<workbook/>")
    return path


def entities(folder: Path) -> Path:
    """Entities that would become 10^9 characters."""
    path = folder / "t.xlsx"
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("[Content_Types].xml", f'<!DOCTYPE t [<!ENTITY e0 "x">{levels}]><t>&e9;</t>')
    return path


def linked(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "t.csv"
        path.symlink_to(target)
        return path

    return make


def folder_called(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def without_permission(folder: Path) -> Path:
    path = written(folder, "t.csv", "a,b\n1,x\n")
    path.chmod(0)
    return path


@pytest.mark.posix
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sqlite, r"t\.csv .*zero bytes"),
        (archive, r"t\.xlsx cannot be read as an Excel workbook"),
        (entities, r"t\.xlsx cannot be read as an Excel workbook"),
        (linked("nowhere.csv"), r"t\.csv is a link to 'nowhere\.csv', and there is no such file"),
        (linked("t.csv"), r"t\.csv is a link to 't\.csv', and there is no such file"),
        (linked("/dev/null"), r"t\.csv is a pipe, a device or a socket"),
        (folder_called("t.csv"), r"t\.csv: no tables here"),
        (lambda folder: folder / ("n" * 5000 + ".csv"), "(?i)name too long"),
        (lambda folder: folder / "a\0b.csv", "does not exist"),
        (lambda folder: written(folder, "t.csv", "a\n1\n") / "u.csv", r"t\.csv"),
        (lambda folder: Path("~nobody-of-this-name/t.csv"), "nobody-of-this-name"),
        (lambda folder: folder / "\udcff.csv", "not UTF-8"),
        (lambda folder: folder / "[.csv", "does not exist|no file matches"),
    ],
)
def test_paths(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        values(make(tmp_path))


@pytest.mark.posix
def test_no_permission(tmp_path: Path) -> None:
    path = without_permission(tmp_path)
    try:
        path.read_bytes()
    except PermissionError:
        with pytest.raises(DataError, match=r"t\.csv: no permission to read this"):
            values(path)
    else:
        pytest.skip("this user may read everything")


@pytest.mark.posix
def test_a_dangling_link_in_a_folder(tmp_path: Path) -> None:
    """A part of a table that is not there is not left out without a word."""
    written(tmp_path, "1.csv", "a,b\n1,x\n")
    (tmp_path / "2.csv").symlink_to("moved.csv")
    with pytest.raises(DataError, match=r"2\.csv is a link to 'moved\.csv'"):
        values(tmp_path)


def test_enough_kinds() -> None:
    assert len(READ) + len(OTHER_ENCODINGS) + len(REFUSED) + 13 >= 100
