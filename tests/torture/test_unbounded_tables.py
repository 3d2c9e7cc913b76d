"""Tables that would take all memory, or never end: one message with the limit, in little memory and time."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.tables.reading import compressed, limits
from mlp_lightning.tables.reading.sources import FileSource

if sys.platform != "linux":
    pytest.skip("children of limited memory are made as on Linux", allow_module_level=True)
from support.limited_children import outcome


def read(path: Path) -> str:
    table = FileSource.open(str(path), CsvConfig()).read()
    return f"{table.num_rows} rows of {table.num_columns}"


def gzip_of(start: bytes, part: bytes, times: int) -> bytes:
    """What ``gzip`` makes of many repetitions: members can follow each other, so that this takes no time."""
    return gzip.compress(start) + gzip.compress(part) * times


def sheet_with(path: Path, old: bytes, new: bytes) -> None:
    """A workbook whose first sheet was changed."""
    workbook = openpyxl.Workbook()
    for row in (["a", "b"], [1, 2], [3, 4]):
        workbook.worksheets[0].append(row)
    workbook.save(path)
    with zipfile.ZipFile(path) as members:
        contents = {one: members.read(one) for one in members.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert old in contents[sheet]
    contents[sheet] = contents[sheet].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as members:
        for name, content in contents.items():
            members.writestr(name, content)


MEBI = 1 << 20
ROW_WITHOUT_END = r"row of more than 33,554,432 bytes|line of more than 33,554,432 characters"
CONTENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "one_line.csv.gz": (lambda: gzip_of(b"a,b\n", b"x" * (16 * MEBI), 256), ROW_WITHOUT_END),
    "quote.csv.gz": (lambda: gzip_of(b'a,b\n1,"', (b"x" * 1023 + b"\n") * 8192, 256), "is a quotation mark not closed"),
    "header.csv": (lambda: b"x" * (32 * MEBI), "first line of more than 8,388,608 characters"),
    "header.csv.gz": (lambda: gzip_of(b"", b"x" * (16 * MEBI), 256), "first line of more than 8,388,608 characters"),
    "zeros.csv": (lambda: bytes(32 * MEBI), "zero bytes"),
    "zeros.csv.gz": (lambda: gzip_of(b"", bytes(16 * MEBI), 256), "zero bytes"),
    "rows.csv.gz": (lambda: gzip_of(b"a\n", b"1\n" * (8 * MEBI), 64), "larger than 268,435,456 bytes .* decompress it"),
    "rows.csv.bz2": (lambda: bz2.compress(b"a\n" + b"1\n" * MEBI) * 200, "larger than 268,435,456 bytes"),
    "rows.csv.zst": (
        lambda: pa.compress(b"a\n" + b"1\n" * MEBI, codec="zstd", asbytes=True) * 200,
        "larger than 268,435,456 bytes",
    ),
    "rows.jsonl.gz": (lambda: gzip_of(b"", b'{"a": 1}\n' * MEBI, 64), "larger than 268,435,456 bytes"),
    "wide.csv": (lambda: ",".join(f"c{one}" for one in range(150_000)).encode() + b"\n", "150,000 columns, .* 100,000"),
    "lists.json": (lambda: b'{"a": ' + b"[" * MEBI + b"]" * MEBI + b"}\n", "nested more than 100 deep"),
    "open.json": (lambda: b"[" * MEBI, "nested more than 100 deep"),
    "objects.jsonl": (lambda: b'{"a":\n' * 200_000, "nested more than 100 deep"),
    "hidden.jsonl": (lambda: b'{"b": "\\\\", "a":' * 200_000, "nested more than 100 deep"),
    "names.jsonl": (
        lambda: b"".join(b'{"k%d": 1}\n' % one for one in range(20_000)),
        "20,000 different names in 20,001",
    ),
    "all_names.jsonl": (lambda: b"".join(b'{"k%d": 1}\n' % one for one in range(200_000)), "more than 100,000 columns"),
    "many_cells.csv": (lambda: b"a,b\n" + b"1," * 200_000 + b"\n", "line 2 has 200,001 values"),
}


@pytest.mark.posix
@pytest.mark.parametrize("name", CONTENTS)
def test_contents_without_bound(name: str, tmp_path: Path) -> None:
    make, words = CONTENTS[name]
    path = tmp_path / name
    path.write_bytes(make())
    found = outcome(lambda: read(path))
    assert found.startswith("message"), found
    assert re.search(words, found), found
    assert name in found


@pytest.mark.posix
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'ref="A1:B3"', b'ref="A1:XFD1048576"', "2 rows of 2"),
        (b'<row r="3"', b'<row r="4000000000"', "more than 1,048,576 rows"),
        (b"</sheetData>", b"<c/>" * (80 * MEBI) + b"</sheetData>", "when it is unpacked"),
        (b"</row>", b'<c r="XFD1"/></row>' + b'<row><c r="XFD1"/></row>' * 4000, "50,000,000 cells"),
        (b"<sheetData>", b"<sheetData>" * 100_000, "cannot be read as an Excel workbook"),
    ],
)
def test_sheets_without_bound(old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
    sheet_with(tmp_path / "t.xlsx", old, new)
    found = outcome(lambda: read(tmp_path / "t.xlsx"))
    assert words in found, found


@pytest.mark.posix
def test_what_is_no_file(tmp_path: Path) -> None:
    for name, target in (("zero.csv", "/dev/zero"), ("null.csv", "/dev/null"), ("random.parquet", "/dev/urandom")):
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("zero.csv", "null.csv", "random.parquet", "pipe.csv"):
        found = outcome(lambda name=name: read(tmp_path / name), seconds=5)
        assert f"{name} is a pipe, a device or a socket" in found, found
    assert "is a pipe, a device or a socket" in outcome(lambda: read(tmp_path), seconds=5)


@pytest.fixture
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that the files need not be large; the ratios are the real ones."""
    monkeypatch.setattr(limits, "COLUMNS_BYTES", 64 * MEBI)
    for module in (limits, compressed):
        monkeypatch.setattr(module, "DECOMPRESSED_BYTES", 32 * MEBI)


SHORT_ROWS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "two.csv.gz": (b"1,2\n", gzip.compress),
    "nothing.csv.bz2": (b",\n", bz2.compress),
    "old_mac.csv.zst": (b"7,8\r", lambda content: pa.compress(content, codec="zstd", asbytes=True)),
    "windows.csv.gz": (b"1,2\r\n", gzip.compress),
}


@pytest.mark.posix
@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("name", SHORT_ROWS)
def test_short_rows(name: str, tmp_path: Path) -> None:
    """Whose numbers take several times the memory of their text."""
    row, compress = SHORT_ROWS[name]
    (tmp_path / name).write_bytes(compress(b"a,b" + row[-1:]) + compress(row * 5_000_000))
    found = outcome(lambda: read(tmp_path / name))
    assert re.search(rf"^message: {name} would take [\d,]+ bytes when it is decoded, .* 67,108,864 \(250", found), found
    (tmp_path / name).write_bytes(compress(b"a,b" + row[-1:]) + compress(row * 3_000_000))
    assert outcome(lambda: read(tmp_path / name)) == "3000000 rows of 2"


@pytest.mark.slow
@pytest.mark.posix
def test_short_rows_and_the_real_limit(tmp_path: Path) -> None:
    """4 MB that would become 1.7 GB are known before they are kept."""
    (tmp_path / "rows.csv.gz").write_bytes(gzip_of(b"a,b\n", b"1,2\n" * (4 * MEBI), 256))
    found = outcome(lambda: read(tmp_path / "rows.csv.gz"), 900 * MEBI)
    assert re.search(r"^message: rows.csv.gz would take [\d,]+ bytes when .* 1,073,741,824 \(250 times", found), found


def sheet(path: Path) -> None:
    workbook = openpyxl.Workbook(write_only=True)
    rows = workbook.create_sheet()
    rows.append(["a", "b"])
    for _ in range(2000):
        rows.append(["x" * 20_000, 1])
    workbook.save(path)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lines.csv.gz": (
        lambda path: path.write_bytes(gzip.compress(b"a,b\n" + (b"x" * MEBI + b",1\n") * 30)),
        "decompressed",
    ),
    "lines.jsonl.gz": (
        lambda path: path.write_bytes(gzip.compress((b'{"a": "%s", "b": 1}\n' % (b"x" * 9999)) * 3000)),
        "decompressed",
    ),
    "rows.csv.gz": (lambda path: path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * (3 * MEBI))), "decoded"),
    "texts.parquet": (
        lambda path: pyarrow.parquet.write_table(pa.table({"a": ["x" * 20_000] * 2000, "b": [1] * 2000}), path),
        "decoded",
    ),
    "texts.feather": (
        lambda path: pyarrow.feather.write_feather(
            pa.table({"a": ["x" * 20_000] * 2000, "b": [1] * 2000}), path, compression="zstd"
        ),
        "decoded",
    ),
    "texts.xlsx": (sheet, "decoded"),
}


@pytest.mark.posix
@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("name", FOLDERS)
def test_folders_without_bound(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one file may become is for all files of the table together."""
    write, words = FOLDERS[name]
    if name == "texts.xlsx":
        monkeypatch.setattr(limits, "DECOMPRESSED_BYTES", 64 * MEBI)
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / f"0{name}")
    assert "rows of 2" in outcome(lambda: read(folder))
    for number in range(1, 9):
        shutil.copy(folder / f"0{name}", folder / f"{number}{name}")
    found = outcome(lambda: read(folder), 600 * MEBI)
    assert found.startswith("message"), found
    assert f"when it is {words}" in found, found


@pytest.mark.slow
@pytest.mark.posix
def test_standard_input_without_end() -> None:
    code = "from mlp_lightning.tables.reading.paths import find_files; find_files('-')"
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123
        ended = subprocess.run(
            [sys.executable, "-c", code], stdin=zeros, capture_output=True, text=True, timeout=60, check=False
        )
    assert "its first line has more than 8,388,608 bytes" in ended.stderr


@pytest.mark.posix
def test_what_is_below_the_limits(tmp_path: Path) -> None:
    """A long value, a wide table, much repetition, and brackets that are text."""
    (tmp_path / "long.csv").write_bytes(b"a,b\n1," + b"x" * (20 * MEBI) + b"\n2,y\n")
    (tmp_path / "long.jsonl").write_bytes(b'{"a": "' + b"x" * (3 * MEBI) + b'"}\n{"a": "y"}\n')
    (tmp_path / "wide.csv").write_text(",".join(f"c{one}" for one in range(20_000)) + "\n" + "1," * 19_999 + "2\n")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * (2 * MEBI)))
    texts = [b'{"a": "%s", "b": "\\"[\\\\"}\n' % (b"[{" * 500)] * 3000
    (tmp_path / "text.jsonl").write_bytes(b"".join(texts))
    (tmp_path / "lists.jsonl").write_bytes(b'{"a": ' + b"[" * 90 + b"]" * 90 + b', "b": 1}\n')
    assert read(tmp_path / "long.csv") == "2 rows of 2"
    assert read(tmp_path / "long.jsonl") == "2 rows of 1"
    assert read(tmp_path / "wide.csv") == "1 rows of 20000"
    assert read(tmp_path / "rows.csv.gz") == f"{2 * MEBI} rows of 1"
    assert read(tmp_path / "text.jsonl") == "3000 rows of 2"
    only = FileSource.open(str(tmp_path / "lists.jsonl"), CsvConfig()).read(["b"])
    assert only.to_pydict() == {"b": [1]}
