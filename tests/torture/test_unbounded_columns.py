"""Small Parquet, Feather and Arrow files that would become many gigabytes: refused with the limit, in little memory."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.tables.reading import columnar, decoding, limits, parquet_plan
from mlp_lightning.tables.reading.sources import FileSource

if sys.platform != "linux":
    pytest.skip("children of limited memory are made as on Linux", allow_module_level=True)
from support.limited_children import outcome

MEBI = 1 << 20
LONG = "x" * MEBI
# Limits so small that the files need not be large; the ratio is the real one.
LEAST_BYTES, MEMORY_BYTES = 64 * MEBI, 400 * MEBI


@pytest.fixture
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (limits, decoding):
        monkeypatch.setattr(module, "COLUMNS_BYTES", LEAST_BYTES)
    monkeypatch.setattr(decoding, "TEXTS_AT_ONCE_BYTES", 4 * MEBI)
    for module in (columnar, parquet_plan):
        monkeypatch.setattr(module, "DECOMPRESSED_BYTES", 16 * MEBI)


def codes_of(text: str, rows: int) -> pa.Array:
    """The same text in all rows, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def parquet(path: Path, texts: Any, **options: Any) -> None:
    options = {"compression": "zstd", "store_schema": False, **options}
    pyarrow.parquet.write_table(pa.table({"a": texts, "y": np.arange(len(texts)) % 2}), path, **options)


def parquet_of_two_kinds_of_pages(path: Path) -> None:
    """Codes in the first pages, and texts themselves in the others."""
    texts = pa.chunked_array([codes_of(LONG[: MEBI // 8], 1000).cast(pa.string()), pa.array(map(str, range(5000)))])
    parquet(path, texts, dictionary_pagesize_limit=MEBI // 8 + 9999, write_batch_size=100, data_page_size=1000)
    pages = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    assert pages.total_uncompressed_size < MEBI


def parquet_that_understates(path: Path) -> None:
    """The sizes that the footer has are those of other pages."""
    parquet(path, codes_of(LONG, 1000))
    content = path.read_bytes()
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    old, new = (varint(2 * size) for size in (chunk.total_uncompressed_size, 1 << 20 | 1))
    footer = content.rindex(old)
    assert len(old) == len(new)
    path.write_bytes(content[:footer] + new + content[footer + len(old) :])
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1 << 20 | 1


def varint(value: int) -> bytes:
    found = []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def stream(path: Path, table: pa.Table, times: int = 1, **options: Any) -> None:
    with pa.OSFile(str(path), "wb") as file:
        writer = pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options))
        for _ in range(times):
            writer.write_table(table)
        writer.close()


def feather_that_repeats_a_batch(path: Path) -> None:
    """One batch in the file, and a footer that has it 1,000 times."""
    rows = pa.table({"a": np.zeros(9000), "y": np.zeros(9000)}).to_batches()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows[0].schema) as writer:
        for batch in [*rows, *[rows[0].slice(0, 1)] * 999]:
            writer.write(batch)
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<i", content, len(content) - 10)
    footer = len(content) - 10 - length
    root = footer + struct.unpack_from("<I", content, footer)[0]
    fields = root - struct.unpack_from("<i", content, root)[0]
    place = root + struct.unpack_from("<H", content, fields + 4 + 2 * 3)[0]
    start = place + struct.unpack_from("<I", content, place)[0]
    (count,) = struct.unpack_from("<I", content, start)
    assert count == 1000
    for one in range(1, count):
        content[start + 4 + 24 * one : start + 28 + 24 * one] = content[start + 4 : start + 28]
    path.write_bytes(content)


def views(count: int) -> pa.Array:
    """Views of one text."""
    one = pa.array([LONG], pa.string_view()).buffers()
    view = one[1].to_pybytes()
    return pa.Array.from_buffers(pa.string_view(), count, [None, pa.py_buffer(view * count), one[2]])


def zeros(rows: int) -> pa.Table:
    return pa.table({"a": np.zeros(rows), "y": np.zeros(rows, np.int64)})


CONTENTS: dict[str, Callable[[Path], object]] = {
    "codes.parquet": lambda path: parquet(path, codes_of(LONG, 1000)),
    "stored_as_codes.parquet": lambda path: parquet(path, codes_of(LONG, 1000), store_schema=True),
    "two_kinds.parquet": parquet_of_two_kinds_of_pages,
    "understates.parquet": parquet_that_understates,
    "beginnings.parquet": lambda path: parquet(
        path,
        pa.chunked_array([codes_of(LONG[: MEBI // 8], 1000).cast(pa.string())]),
        use_dictionary=False,
        column_encoding={"a": "DELTA_BYTE_ARRAY"},
    ),
    "texts.parquet": lambda path: parquet(
        path, pa.chunked_array([codes_of(LONG, 100).cast(pa.string())]), use_dictionary=False
    ),
    "zeros.parquet": lambda path: pyarrow.parquet.write_table(zeros(5 * MEBI), path, row_group_size=5 * MEBI),
    "nulls.parquet": lambda path: parquet(path, pa.nulls(9 * MEBI, pa.string()), row_group_size=9 * MEBI),
    "zeros.feather": lambda path: pyarrow.feather.write_feather(zeros(5 * MEBI), path, compression="zstd"),
    "zeros_stream.arrow": lambda path: stream(path, zeros(MEBI), 6, compression="zstd"),
    "codes.feather": lambda path: pyarrow.feather.write_feather(
        pa.table({"a": codes_of(LONG, 1000), "y": np.arange(1000)}), path, compression="zstd"
    ),
    "repeated.feather": feather_that_repeats_a_batch,
    "views.arrow": lambda path: stream(path, pa.table({"a": views(1000), "y": np.arange(1000)})),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("columns")


def made(folder: Path, name: str) -> Path:
    """The file, which is made in another process: making it may take as much as reading it."""
    path = folder / name
    if not path.exists():
        said = outcome(lambda: str(CONTENTS[name](path)), 1 << 32)
        assert said == "None", said
    assert path.stat().st_size < (MEBI // 2 if "views" not in name else 2 * MEBI)
    return path


def read(path: Path) -> str:
    table = FileSource.open(str(path), CsvConfig()).read()
    return f"{table.num_rows} rows of {table.num_columns}"


def streamed(path: Path) -> str:
    """The rows of the batches, as many as there are until one that is refused."""
    source, rows, columns = FileSource.open(str(path), CsvConfig()), 0, 0
    for batch in source.batches():
        rows, columns = rows + batch.num_rows, batch.num_columns
    return f"{rows} rows of {columns}"


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("name", CONTENTS)
def test_columns_without_bound(name: str, folder: Path) -> None:
    path = made(folder, name)
    found = outcome(lambda: read(path), MEMORY_BYTES)
    most = max(LEAST_BYTES, 250 * path.stat().st_size)
    assert re.search(f"^message: {name} would take .* the limit for its size is {most:,} \\(250 times, at least", found)


def test_the_real_limit(tmp_path: Path) -> None:
    """A file of 2 kB that would take 16 GB."""
    parquet(tmp_path / "codes.parquet", codes_of(LONG * 8, 2000))
    found = outcome(lambda: read(tmp_path / "codes.parquet"))
    assert "would take 16,777,2" in found, found
    assert "the limit for its size is 1,073,741,824 (250 times, at least 1,073,741,824)" in found, found


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("name", CONTENTS)
def test_batches_stay_small(name: str, folder: Path) -> None:
    """Whoever takes them one by one needs little memory; where one is too large, it is refused."""
    found = outcome(lambda: streamed(made(folder, name)), MEMORY_BYTES)
    assert re.fullmatch(r"\d{3,} rows of 2", found) or found.startswith(f"message: {name} would take "), found


WORDS = [f"word {number % 700} of many" for number in range(30_000)]
BELOW: dict[str, Callable[[Path, pa.Table], object]] = {
    "codes.parquet": lambda path, table: pyarrow.parquet.write_table(table, path),
    "groups.parquet": lambda path, table: pyarrow.parquet.write_table(table, path, row_group_size=999),
    "two_kinds.parquet": lambda path, table: pyarrow.parquet.write_table(
        table, path, dictionary_pagesize_limit=300, write_batch_size=100, data_page_size=500
    ),
    "second_version.parquet": lambda path, table: pyarrow.parquet.write_table(
        table, path, data_page_version="2.0", compression="gzip", dictionary_pagesize_limit=300, write_batch_size=50
    ),
    "beginnings.parquet": lambda path, table: pyarrow.parquet.write_table(
        table, path, use_dictionary=False, column_encoding={"word": "DELTA_BYTE_ARRAY"}
    ),
    "lengths.parquet": lambda path, table: pyarrow.parquet.write_table(
        table, path, use_dictionary=False, column_encoding={"word": "DELTA_LENGTH_BYTE_ARRAY"}
    ),
    "plain.parquet": lambda path, table: pyarrow.parquet.write_table(table, path, use_dictionary=False),
    "file.feather": lambda path, table: pyarrow.feather.write_feather(table, path, chunksize=999),
    "plain.feather": lambda path, table: pyarrow.feather.write_feather(table, path, compression="uncompressed"),
    "stream.arrow": lambda path, table: stream(path, table, compression="lz4"),
    "plain.arrow": lambda path, table: stream(path, table),
}


@pytest.mark.parametrize("name", BELOW)
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_what_is_below_the_limits(name: str, kind: pa.DataType, tmp_path: Path) -> None:
    """The values, read at once and in batches."""
    if pa.types.is_dictionary(kind) and name in ("beginnings.parquet", "lengths.parquet"):
        pytest.skip("Arrow's reader has no codes of such pages")
    word = pa.array([None if number % 13 == 5 else word for number, word in enumerate(WORDS)])
    y = np.arange(len(WORDS)) % 5
    table = pa.table({"word": word.cast(kind) if kind != word.type else word, "y": y, "truth": y > 2})
    BELOW[name](tmp_path / name, table)
    source = FileSource.open(str(tmp_path / name), CsvConfig())
    expected = {"word": word.to_pylist(), "y": y.tolist(), "truth": (y > 2).tolist()}
    assert source.read().to_pydict() == expected
    for chosen in (["word"], ["truth", "word"]):
        batches = pa.Table.from_batches(source.batches(chosen, rows=700))
        assert batches.to_pydict() == {one: expected[one] for one in chosen}
    assert source.files[0].count_rows() == len(WORDS)
