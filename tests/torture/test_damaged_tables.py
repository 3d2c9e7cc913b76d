"""Damaged tables: a message or the right values, and never a signal, a hang or a traceback."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.tables.reading.sources import FileSource

if sys.platform != "linux":
    pytest.skip("children of limited memory are made as on Linux", allow_module_level=True)
from support.limited_children import outcome

ROWS, TRIALS = 300, 8
START = datetime.datetime(2021, 3, 4)
# Formats that say of every byte whether it is as it was written. The others cannot know that a number has changed.
CHECKED = {"sums.parquet", "gzip.csv.gz", "gzip.jsonl.gz", "bz2.csv.bz2", "sheet.xlsx"}


def rows_of_every_type() -> pa.Table:
    number_B = np.random.default_rng(3).normal(size=ROWS)
    return pa.table(
        {
            "number": number_B,
            "count": pa.array([None if row % 7 == 0 else row for row in range(ROWS)]),
            "text": [f"text {row % 23}" for row in range(ROWS)],
            "grün": [f"grün {row % 5}" for row in range(ROWS)],
            "truth": number_B > 0,
            "when": pa.array([START + datetime.timedelta(hours=row) for row in range(ROWS)], pa.timestamp("us")),
            "colour": pa.array([("red", "green", "blue")[row % 3] for row in range(ROWS)]).dictionary_encode(),
            "long": pa.array([f"t{row}" for row in range(ROWS)], pa.large_string()),
        }
    )


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, 100)


def text_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table.set_column(6, "colour", table["colour"].cast(pa.string())), sink)
    return sink.getvalue().to_pybytes()


def lines_of(table: pa.Table) -> bytes:
    return "\n".join(json.dumps(row, default=str) for row in table.to_pylist()).encode()


def write_sheet(table: pa.Table, path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.worksheets[0].append(table.column_names)
    for row in table.slice(0, 40).to_pylist():
        workbook.worksheets[0].append(list(row.values()))
    workbook.save(path)


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "lz4.feather": lambda table, path: pyarrow.feather.write_feather(table, path, compression="lz4"),
    "zstd.feather": lambda table, path: pyarrow.feather.write_feather(table, path, compression="zstd", chunksize=100),
    "plain.feather": lambda table, path: pyarrow.feather.write_feather(table, path, compression="uncompressed"),
    "stream.arrow": write_stream,
    "snappy.parquet": lambda table, path: pyarrow.parquet.write_table(table, path, row_group_size=100),
    "plain.parquet": lambda table, path: pyarrow.parquet.write_table(
        table, path, compression="none", use_dictionary=False
    ),
    "sums.parquet": lambda table, path: pyarrow.parquet.write_table(table, path, write_page_checksum=True),
    "text.csv": lambda table, path: path.write_bytes(text_of(table)),
    "gzip.csv.gz": lambda table, path: path.write_bytes(gzip.compress(text_of(table))),
    "bz2.csv.bz2": lambda table, path: path.write_bytes(bz2.compress(text_of(table))),
    "zstd.csv.zst": lambda table, path: path.write_bytes(pa.compress(text_of(table), codec="zstd", asbytes=True)),
    "lines.jsonl": lambda table, path: path.write_bytes(lines_of(table)),
    "gzip.jsonl.gz": lambda table, path: path.write_bytes(gzip.compress(lines_of(table))),
    "sheet.xlsx": write_sheet,
}


def values(path: Path) -> str:
    """All values that reading gives, whole and in batches, without making Python's dates of them."""
    source = FileSource.open(str(path), CsvConfig())
    table = source.read()
    assert sum(one.num_rows for one in source.batches()) == table.num_rows
    assert source.place(table.num_rows - 1)
    columns = [one.cast(pa.int64()) if pa.types.is_temporal(one.type) else one for one in table.columns]
    return str(hash(repr([table.column_names, table.schema.types, [one.to_pylist() for one in columns]])))


def damaged(content: bytes, random: random.Random, trial: int) -> bytes:
    """The content with flipped bits, anywhere or where files describe themselves, or cut off."""
    if trial % 4 == 3:
        return content[: random.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 8))):
        at = random.randrange(len(content) if trial % 2 else min(600, len(content)))
        changed[at if random.random() < 0.5 else len(content) - 1 - at] ^= 1 << random.randrange(8)
    return bytes(changed)


@pytest.mark.posix
@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_table(name: str, tmp_path: Path, torture: int) -> None:
    path = tmp_path / name
    WRITERS[name](rows_of_every_type(), path)
    content, right = path.read_bytes(), values(path)
    trials = random.Random(name)
    for trial in range(TRIALS * torture):
        path.write_bytes(damaged(content, trials, trial))
        found = outcome(lambda: "right" if values(path) == right else "changed")
        assert found.startswith(("message", "right", "changed")), (trial, found)
        assert found != "changed" or name not in CHECKED, trial
        if found.startswith("message"):
            assert name in found, (trial, found)


@pytest.mark.posix
def test_codes_beyond_a_vocabulary(tmp_path: Path) -> None:
    """Arrow reads what lies behind the vocabulary in memory, and dies if nothing does."""
    colours = pa.DictionaryArray.from_arrays(pa.array([0, 1, 10**9], pa.int32()), pa.array(["red", "blue"]), safe=False)
    path = tmp_path / "codes.feather"
    pyarrow.feather.write_feather(pa.table({"x": [1.0, 2.0, 3.0], "colour": colours}), path)
    assert "codes.feather cannot be read" in outcome(lambda: values(path))


@pytest.mark.parametrize("ending", ["feather", "parquet"])
def test_texts_that_are_not_utf_8(ending: str, tmp_path: Path) -> None:
    offsets, characters = pa.py_buffer(np.array([0, 1, 3], np.int32).tobytes()), pa.py_buffer(b"a\xff\xfe")
    texts = pa.StringArray.from_buffers(2, offsets, characters)
    path = tmp_path / f"latin.{ending}"
    write = pyarrow.feather.write_feather if ending == "feather" else pyarrow.parquet.write_table
    write(pa.table({"x": [1.0, 2.0], "t": texts}), path)
    assert outcome(lambda: values(path)).startswith(f"message: latin.{ending} cannot be read as a")
