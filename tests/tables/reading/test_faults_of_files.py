from __future__ import annotations

import bz2
import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.tables.reading import faults as reading_faults
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource

MANY = "1,2\n" * 40_000


def source(path: Path | str, **options: object) -> FileSource:
    return FileSource.open(str(path), CsvConfig(**options))  # pyright: ignore[reportArgumentType]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def assert_refused(path: Path, words: str, **options: object) -> None:
    """Reading whole and in batches both end with the same DataError."""
    for read in (lambda one: one.read(), lambda one: list(one.batches())):
        with pytest.raises(DataError, match=words):
            read(source(path, **options))


def test_a_path_that_is_not_there(tmp_path) -> None:
    written(tmp_path / "penguins.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"there is no 'pinguins.csv' in .*; did you mean '.*[/\\]penguins.csv'\?"):
        source(tmp_path / "pinguins.csv")
    with pytest.raises(DataError, match=r"there is no 'nowhere' in .*"):
        source(tmp_path / "nowhere" / "a" / "penguins.csv")
    with pytest.raises(DataError, match="no file matches this pattern"):
        source(tmp_path / "*.parquet")


def test_endings(tmp_path) -> None:
    with pytest.raises(
        DataError, match=r"t.xls: files with this ending are not supported; supported are \.csv .*\.parquet"
    ):
        source(written(tmp_path / "t.xls", b"PK"))
    with pytest.raises(DataError, match="files with this ending are not supported"):
        source(written(tmp_path / "t.parquet.gz", b""))
    with pytest.raises(DataError, match="files with this ending are not supported"):
        source(written(tmp_path / "t", b""))


def test_folders_without_one_table(tmp_path) -> None:
    with pytest.raises(DataError, match="no tables here, only nothing"):
        source(tmp_path)
    written(tmp_path / "notes.md", "")
    with pytest.raises(DataError, match=r"no tables here, only notes.md; endings of tables are .csv"):
        source(tmp_path)
    with pytest.raises(DataError, match="no tables here"):
        source(tmp_path / "*.md")
    written(tmp_path / "1.csv", "a,b\n1,2\n")
    pyarrow.parquet.write_table(pa.table({"a": [1]}), tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"tables of several formats: text \(1.csv\), Parquet \(2.parquet\)"):
        source(tmp_path)
    assert source(tmp_path / "*.csv").files[0].name == "1.csv"


def test_files_with_other_columns(tmp_path) -> None:
    written(tmp_path / "1.csv", "a,b,c\n1,2,3\n")
    written(tmp_path / "2.csv", "a,B,d,c\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"compared with 1.csv, 2.csv lacks 'b' and also has 'B', 'd'"):
        source(tmp_path)


@pytest.mark.parametrize("content", ["a,b\n", "a,b", "a,b\n\n\n"])
def test_no_rows(tmp_path, content) -> None:
    assert_refused(written(tmp_path / "t.csv", content), "t.csv has columns but no rows")
    pyarrow.parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    assert_refused(tmp_path / "t.parquet", "no rows")
    # One file of several may be empty, as those are that Spark writes.
    written(tmp_path / "u.csv", "b,a\n1,2\n")
    assert source(tmp_path / "*.csv").read().to_pydict() == {"a": [2], "b": [1]}
    assert len(list(source(tmp_path / "*.csv").batches())) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3\n", "t.csv, line 3 has 1 value, but the header has 2 columns; the delimiter is taken to be ','"),
        ("a,b\n1,2\n\n3,4,5\n", "t.csv, line 4 has 3 values, but the header has 2 columns; a value that holds"),
        ('a,b\n"1\n1",2\n3,4,\n', "t.csv, line 4 has 3 values"),
        ("a,b,c\n1,2,3\n1,2\n", "line 3 has 2 values, but the header has 3 columns; every row needs"),
        ("a\n1\n2,3\n", "line 3 has 2 values, but the header has 1 column"),
        ("a,b\n" + MANY + "1\n" + MANY, "t.csv, line 40002 has 1 value"),
        ('a,b\n1,x\n2,"y\n3,z\n', "t.csv, line 3: a quotation mark opens a value in this row and no mark closes it"),
        ('a,b\n1,x\n"2,y\n3,z\n', "t.csv, line 3: a quotation mark opens"),
        ('a,b\n1,x\n2,"y\n' + MANY, "t.csv, line 3: a quotation mark opens"),
        ('a,b\n1,x\n2,"y', None),
    ],
)
def test_lines_that_are_wrong(tmp_path, content, words) -> None:
    path = written(tmp_path / "t.csv", content)
    if words is None:  # a mark that is missing at the very end changes nothing
        assert source(path).read()["b"].to_pylist() == ["x", "y"]
        return
    assert_refused(path, words)
    for table_source in (source(path), source(path)):  # also when the column that shows it is not asked for
        with pytest.raises(DataError, match=words):
            table_source.read(["a"])
        with pytest.raises(DataError, match=words):
            list(table_source.batches(["a"]))


@pytest.mark.parametrize("offset", [0, *range(8_185, 8_195)])
def test_wrong_encodings(tmp_path, monkeypatch, offset) -> None:
    monkeypatch.setattr(reading_faults, "BLOCK_BYTES", 4096)
    lines = ("1,x\n" * (offset // 4 + 1))[:offset].rpartition("\n")[0]
    before = f"a,b\n{lines}\n".encode()
    bad = before + "2,é\n".encode("latin-1") + b"3,z\n"
    path = written(tmp_path / "t.csv", bad)
    line, byte = before.count(b"\n") + 1, len(before) + 2
    if not lines:
        line, byte = 3, 7
    words = rf"t.csv, line {line}: byte {byte} of the file \(e9 .*\) is not text in the encoding utf-8; .*=latin-1"
    assert_refused(path, words)
    with pytest.raises(DataError, match=words):
        source(path).read(types={"a": pa.float64(), "b": pa.float64()})
    assert source(path, encoding="latin-1").read()["b"].to_pylist()[-2:] == ["é", "z"]
    assert_refused(path, rf"line {line}: byte {byte} .*encoding ascii; set data.csv.encoding", encoding="ascii")


def test_wrong_encodings_in_the_header_and_elsewhere(tmp_path) -> None:
    path = written(tmp_path / "t.csv", "größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t.csv, line 1: byte 2 .*latin-1"):
        source(path)
    with pytest.raises(DataError, match="is not text in the encoding utf-16"):
        source(written(tmp_path / "u.csv", b"a,b\n1,2\n3"), encoding="utf-16").read()
    with pytest.raises(ConfigError, match="is not an encoding of text"):
        source(path, encoding="klingon")


@given(st.text(max_size=30), st.integers(0, 200), st.sampled_from([b"\xff", b"\xe4", b"\xf0\x9f", b"\xc3\x28"]))
@settings(max_examples=50, deadline=None)
def test_the_byte_of_a_wrong_encoding(tmp_path_factory, text, cut, bad) -> None:
    """An independent reference: Python decodes all bytes at once."""
    content = b"a,b\n1,2\n" + text.encode(errors="ignore")[:cut] + bad + b"\nx,y\n"
    path = written(tmp_path_factory.mktemp("bytes") / "t.csv", content)
    try:
        content.decode()
        raise AssertionError("the bytes are wrong")
    except UnicodeDecodeError as error:
        expected = error.start
    line = content[:expected].count(b"\n") + 1
    with pytest.raises(DataError, match=rf"t.csv, line {line}: byte {expected} of the file"):
        reading_faults.raise_encoding_fault(path, "t.csv", "utf-8")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.parquet", b"x" * 100),
        ("t.parquet", b""),
        ("t.feather", b"x" * 100),
        ("t.arrow", b"ARROW1" + b"x" * 100),
        ("t.ipc", b""),
        ("t.csv.gz", b"a,b\n1,2\n"),
        ("t.csv.gz", gzip.compress(MANY.encode(), mtime=0)[:-100]),
        ("t.csv.bz2", bz2.compress(("a,b\n" + MANY).encode())[:-30]),
        ("t.csv.zst", pa.Codec("zstd").compress(("a,b\n" + MANY).encode(), asbytes=True)[:-5]),
    ],
)
def test_damaged_files(tmp_path, name, content) -> None:
    with pytest.raises(DataError, match=rf"{name} (cannot be read as a .* It is damaged|is empty)"):
        source(written(tmp_path / name, content)).read()


def test_a_parquet_file_damaged_inside(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"a": [str(number) for number in range(10_000)]}), path)
    content = bytearray(path.read_bytes())
    content[100:2_000] = bytes(1_900)
    path.write_bytes(content)
    assert_refused(path, "t.parquet cannot be read as a Parquet file: .*damaged")


def test_a_file_that_goes_away(tmp_path) -> None:
    read = source(written(tmp_path / "t.csv", "a,b\n1,2\n"))
    (tmp_path / "t.csv").unlink()
    with pytest.raises(DataError, match=r"t.csv disappeared; it must stay"):
        read.read()


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder that others may read, while the effective user is not root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was_root = os.geteuid() == 0
    yield folder
    if was_root:
        os.seteuid(0)
    shutil.rmtree(folder)


@pytest.mark.posix
@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.feather"])
def test_no_permission(ordinary_user, name) -> None:
    path = written(ordinary_user / name, "a,b\n1,2\n")
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65_534)
    with pytest.raises(DataError, match=rf"{name}: no permission to read this file"):
        source(path)


@pytest.mark.posix
def test_no_permission_for_a_folder(ordinary_user) -> None:
    path = written(ordinary_user / "inside" / "t.csv", "a,b\n1,2\n")
    path.parent.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        with pytest.raises(DataError, match="no permission"):
            source(path)
        with pytest.raises(DataError, match="no permission"):
            source(path.parent)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        path.parent.chmod(0o755)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (pa.int64(), "2.5", "a whole number"),
        (pa.float64(), "12,5", "a number"),
        (pa.float64(), "x" * 200, "a number"),
        (pa.bool_(), "maybe", "true or false"),
        (pa.timestamp("us"), "31/05/2024", "a date or a time stamp"),
        (pa.null(), "1", "missing, as every"),
    ],
)
def test_values_of_another_type(tmp_path, type_, value, expected) -> None:
    path = written(tmp_path / "t.csv", f'ok,v\n"a\nb",\nc,\nd,"{value}"\ne,\n')
    words = (
        rf"t.csv, line 5: column 'v' holds '{value[:70]}.*, which is not {expected}.*; correct it, or list it in data"
    )
    for read in (lambda one: one.read(types={"v": type_}), lambda one: list(one.batches(types={"v": type_}))):
        with pytest.raises(DataError, match=words) as caught:
            read(source(path))
        assert len(str(caught.value)) < 300
    memory = MemorySource(pa.table({"v": [None, value]}), "rows")
    with pytest.raises(DataError, match="rows, row 2: column 'v' holds"):
        memory.read(types={"v": type_})


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1.0, 2.0]]),
        pa.array([{"a": 1}]),
        pa.array([b"bytes"]),
        pa.array([b"ab"], pa.binary(2)),
    ],
)
def test_types_that_cannot_be_read(tmp_path, values) -> None:
    table = pa.table({"good": [1], "bad": values})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    words = "column 'bad' holds values of the type .*data.columns.bad.kind=ignored"
    assert_refused(tmp_path / "t.parquet", words)
    assert source(tmp_path / "t.parquet").read(["good"]).num_rows == 1
    with pytest.raises(DataError, match=words):
        MemorySource(table, "rows").read()


def test_names_of_columns_in_other_formats(tmp_path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet: more than one column is called 'a'"):
        source(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="rows: more than one column"):
        MemorySource(twice, "rows")
