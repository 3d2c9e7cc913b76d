"""Predictions into files: formats, order, ids, and no partial files."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.inference_tables import flowers
from support.tolerances import assert_same_bits

import mlp_lightning
from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict
from mlp_lightning.inference.prediction_files import text_lines
from mlp_lightning.runs import files as training_files
from mlp_lightning.runs.build import build_data
from mlp_lightning.tables.encoding import encode
from mlp_lightning.tables.reading.sources import FileSource

KINDS = ["blue, light", "red", 'say "so"']
OUTPUTS = ["predicted_kind", *(f"probability_{kind}" for kind in KINDS)]


def read(path: Path) -> pa.Table:
    """A file of predictions, by another reader than the package uses."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)
    if path.suffix in (".feather", ".arrow"):
        return pyarrow.feather.read_table(path)
    options = pyarrow.csv.ParseOptions(delimiter="\t" if ".tsv" in path.suffixes else ",")
    texts = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
    return pyarrow.csv.read_csv(path, parse_options=options, convert_options=texts)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column; of memory that can be written, as torch wants it."""
    return table[name].to_numpy().copy()


def expected(checkpoint: Path, table: pa.Table) -> np.ndarray:
    """Predictions of rows in memory, all at once."""
    model = load_model(checkpoint)
    return model.predict(encode(table, model.columns, str))


# ---- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet", "feather", "arrow"])
def test_every_format_holds_the_same(kind_model, tmp_path, ending) -> None:
    output = tmp_path / "new" / f"out.{ending}"
    report = predict(kind_model.checkpoint, str(kind_model.path), output, id_columns=["id"])
    assert (report.rows, report.path, report.surprises) == (300, output, [])
    assert list(output.parent.iterdir()) == [output]
    table = read(output)
    assert table.column_names == ["id", *OUTPUTS]
    assert table["id"].to_pylist() == flowers()["id"].to_pylist()
    probabilities_BC = np.stack([table[name].to_numpy() for name in OUTPUTS[1:]], axis=1)
    assert_same_bits(probabilities_BC, expected(kind_model.checkpoint, flowers()))
    assert table["predicted_kind"].to_pylist() == [KINDS[one] for one in probabilities_BC.argmax(1)]


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather"])
def test_columns_that_folders_stand_for(tmp_path: Path, ending: str) -> None:
    """Whole numbers, numbers that are texts, dates and texts; as in a file that has them as columns."""
    draw = np.random.default_rng(0)
    rows = pa.table(
        {
            "depth": draw.normal(size=72),
            "year": [1987 + row % 3 for row in range(72)],
            "ph": [("6.5", "7.25")[row % 2] for row in range(72)],
            "day": [("2021-03-04", "2021-11-30")[row // 2 % 2] for row in range(72)],
            "lake": [("Inari", "Saimaa", "Pielinen")[row // 4 % 3] for row in range(72)],
            "clear": ["yes" if value > 0 else "no" for value in draw.normal(size=72)],
        }
    )
    keys = ["year", "ph", "day", "lake"]
    pyarrow.dataset.write_dataset(
        rows, tmp_path / "lakes", format=ending, partitioning=keys, partitioning_flavor="hive", max_partitions=72
    )
    data = {"name": "table", "path": str(tmp_path / "lakes"), "target": "clear"}
    config = {"data": data, "model": {"hidden_units": 4}, "trainer": {"max_steps": 3, "accelerator": "cpu"}}
    trained = mlp_lightning.train({**config, "verbosity": 0}, tmp_path / "run")
    checkpoint = trained.run_dir / "checkpoints" / "last.ckpt"
    flat = FileSource.open(str(tmp_path / "lakes"), CsvConfig()).read()
    pyarrow.parquet.write_table(flat, tmp_path / "flat.parquet")
    found, wanted = tmp_path / "found.parquet", tmp_path / "wanted.parquet"
    predict(checkpoint, str(tmp_path / "lakes"), found, id_columns=["day", "year"])
    predict(checkpoint, str(tmp_path / "flat.parquet"), wanted, id_columns=["day", "year"])
    assert read(found).num_rows == 72
    assert read(found) == read(wanted)
    assert evaluate(checkpoint, tmp_path / "evaluation", data_path=str(tmp_path / "lakes")).rows == 72


def test_text_has_quotes_where_needed(kind_model, tmp_path) -> None:
    output = tmp_path / "out.csv"
    predict(kind_model.checkpoint, str(kind_model.path), output, id_columns=["id", "place"])
    with output.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["id", "place", *OUTPUTS]
    assert len(lines) == 301
    assert output.read_text().startswith('id,place,predicted_kind,"probability_blue, light",probability_red,"prob')
    assert {line[2] for line in lines[1:]} <= set(KINDS)


def test_classes_keep_their_type(big_model, tmp_path) -> None:
    predict(big_model.checkpoint, str(big_model.path), tmp_path / "out.parquet")
    table = read(tmp_path / "out.parquet")
    assert table.schema.field("predicted_big").type == pa.bool_()
    assert table.column_names == ["predicted_big", "probability_False", "probability_True"]
    assert_same_bits(numbers(table, "predicted_big"), numbers(table, "probability_True") > 0.5)


def test_values_in_their_own_units(price_model, tmp_path) -> None:
    predict(price_model.checkpoint, str(price_model.path), tmp_path / "out.parquet")
    table = read(tmp_path / "out.parquet")
    assert table.column_names == ["predicted_price", "predicted_age"]
    values_BT = np.stack([column.to_numpy() for column in table.columns], axis=1)
    assert_same_bits(values_BT, expected(price_model.checkpoint, flowers()))
    # A model trained for 60 steps is not good, but distinguishes prices of millions from ages of tens.
    assert np.abs(values_BT.mean(0) - [4e6, 8]).max() < 5e5
    assert 0 < values_BT[:, 1].mean() < 20


def test_data_sets_that_are_not_tables(xor_model, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("x2,x1\n1,0\n0,0\n")
    predict(xor_model.checkpoint, str(tmp_path / "rows.csv"), tmp_path / "out.csv")
    table = read(tmp_path / "out.csv")
    assert table.column_names == ["predicted_xor", "probability_0", "probability_1"]
    assert table.schema.field("predicted_xor").type == pa.int64()
    module = xor_model.result.module
    with torch.no_grad():
        p_B = torch.sigmoid(module(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).double())[:, 0]
    assert_same_bits(numbers(table, "probability_1"), p_B)


def test_same_bits_as_in_training(kind_model, tmp_path) -> None:
    result = kind_model.result
    data = build_data(load_model(kind_model.checkpoint).config)
    assert isinstance(data, TabularDataModule)
    rows = data.row_numbers["train"]
    pyarrow.parquet.write_table(flowers().take(pa.array(rows)), tmp_path / "train.parquet")
    predict(kind_model.checkpoint, str(tmp_path / "train.parquet"), tmp_path / "out.parquet")
    with torch.no_grad():
        probabilities_BC = result.module.mlp(data.splits["train"].features_BF).double().softmax(-1)
    table = read(tmp_path / "out.parquet")
    assert_same_bits(np.stack([table[name].to_numpy() for name in OUTPUTS[1:]], axis=1), probabilities_BC)


# ---- rows and id columns -----------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 80), at_once=st.integers(1, 90), files=st.integers(1, 3))
def test_order_is_kept(kind_model, tmp_path_factory, rows, at_once, files) -> None:
    folder = tmp_path_factory.mktemp("order")
    (folder / "in").mkdir()
    table = flowers(rows * files, seed=rows)
    for number in range(files):
        pyarrow.parquet.write_table(table.slice(number * rows, rows), folder / "in" / f"{number}.parquet")
    done: list[int] = []
    report = predict(
        kind_model.checkpoint,
        str(folder / "in"),
        folder / "out.parquet",
        id_columns=["id", "length"],
        rows_at_once=at_once,
        progress=done.append,
    )
    assert report.rows == done[-1] == rows * files
    assert done == sorted(done)
    assert max(np.diff([0, *done])) <= at_once
    out = read(folder / "out.parquet")
    assert out.select(["id", "length"]).equals(table.select(["id", "length"]))
    probabilities_BC = np.stack([out[name].to_numpy() for name in OUTPUTS[1:]], axis=1)
    # Sums of other numbers of rows may be rounded otherwise.
    np.testing.assert_allclose(probabilities_BC, expected(kind_model.checkpoint, table), atol=1e-6)


def test_id_columns_of_text_stay_as_they_are_written(kind_model, tmp_path) -> None:
    """Also columns that the model sees as numbers, and a value that no number is behind numbers of many blocks."""
    rows = [f"{number:07d},{number}.50,1,north,true" for number in range(60_000)]
    rows += ["A-1,007.0,1e0,south,FALSE", ",,2,,"]
    (tmp_path / "rows.csv").write_text("\n".join(["id,length,width,place,wild", *rows]) + "\n")
    ids = ["wild", "id", "length", "width"]
    predict(kind_model.checkpoint, str(tmp_path / "rows.csv"), tmp_path / "out.csv", id_columns=ids)
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = [line[:4] for line in csv.reader(file)]
    assert lines[:2] == [ids, ["true", "0000000", "0.50", "1"]]
    assert lines[-2:] == [["FALSE", "A-1", "007.0", "1e0"], ["", "", "", "2"]]
    assert [line[1] for line in lines[1:-2]] == [f"{number:07d}" for number in range(60_000)]


def test_types_of_id_columns_are_kept(kind_model, tmp_path) -> None:
    table = flowers(3)
    ids = {
        "small": pa.array([1, None, 3], pa.int8()),
        "coded": pa.array(["a", "b", None]).dictionary_encode(),
        "exact": pa.array(["1.10", None, "3.30"]).cast(pa.decimal128(6, 2)),
        "day": pa.array([0, 1, None], pa.date32()),
        "moment": pa.array([0, 1, None], pa.timestamp("ns", "UTC")),
        "nothing": pa.nulls(3),
    }
    for name, values in ids.items():
        table = table.append_column(name, values)
    pyarrow.feather.write_feather(table, tmp_path / "in.feather")
    wanted = ["wild", *ids]
    for ending in ("parquet", "csv"):
        output = tmp_path / f"out.{ending}"
        predict(kind_model.checkpoint, str(tmp_path / "in.feather"), output, id_columns=[*wanted, "small"])
    stored = read(tmp_path / "out.parquet").select(wanted)
    assert stored.schema.field("coded").type == pa.string()
    assert stored.drop_columns(["coded"]).equals(table.select(wanted).drop_columns(["coded"]))
    second = (tmp_path / "out.csv").read_text().splitlines()[2]
    assert second.startswith("true,,b,,1970-01-02,1970-01-01 00:00:00.000000001Z,,") or second.startswith("false,,b,,")


@given(
    st.lists(
        st.tuples(st.none() | st.text(st.sampled_from('ab ,\t"\r\n;é')), st.none() | st.integers(-9, 9)), min_size=1
    ),
    st.sampled_from([",", "\t"]),
)
def test_text_is_read_back_as_it_was(rows, delimiter) -> None:
    table = pa.table(
        {"a": pa.array([a for a, _ in rows], pa.string()), "b": pa.array([b for _, b in rows], pa.int64())}
    )
    text = text_lines(table, delimiter).to_pybytes().decode()
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert lines == [["" if value is None else str(value) for value in row] for row in rows]


# ---- missing values ----------------------------------------------------------------------------------------------


def test_surprises_are_counted(kind_model, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text(
        "length,width,place,wild\n1,,north,true\n,2,moon,true\n3,4,mars,\n5,6,west,false\n"
    )
    report = predict(kind_model.checkpoint, str(tmp_path / "rows.csv"), tmp_path / "out.csv", rows_at_once=2)
    unknown, *missing = report.surprises
    assert "place: 2 values that no training row has" in unknown
    assert sorted(line.partition(":")[0] for line in missing) == ["width", "wild"]
    assert all(": 1 missing" in line for line in missing)


def test_a_gap_that_no_training_row_has(xor_model, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("x1,x2\n0,1\n1,\n")
    report = predict(xor_model.checkpoint, str(tmp_path / "rows.csv"), tmp_path / "out.csv")
    assert report.surprises == [
        "x2: 1 missing values, where no training row has one (taken as the median, or as unknown)"
    ]


def test_a_prediction_that_is_not_a_number(xor_model, tmp_path) -> None:
    content = torch.load(xor_model.checkpoint, weights_only=True)
    content["state_dict"]["mlp.layers.output.bias"].fill_(math.nan)
    torch.save(content, tmp_path / "diverged.ckpt")
    (tmp_path / "rows.csv").write_text("x1,x2\n0,1\n1,1\n")
    with pytest.raises(DataError, match=r"rows.csv, line 2: the model's prediction is not a finite number"):
        predict(tmp_path / "diverged.ckpt", str(tmp_path / "rows.csv"), tmp_path / "out.csv")


def test_a_missing_column(kind_model, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("lenght,width,place,wild\n1,2,north,true\n")
    with pytest.raises(DataError, match="has no column 'length'; did you mean 'lenght'"):
        predict(kind_model.checkpoint, str(tmp_path / "rows.csv"), tmp_path / "out.csv")
    with pytest.raises(DataError, match="has no column 'ids'; did you mean 'id'"):
        predict(kind_model.checkpoint, str(kind_model.path), tmp_path / "out.csv", id_columns=["ids"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rows.csv"]


def test_text_options(kind_model, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("length;width;place;wild\n2900,5;2,5;north;true\n", encoding="utf-16")
    csv_options = CsvConfig(delimiter=";", decimal=",", encoding="utf-16")
    predict(kind_model.checkpoint, str(tmp_path / "rows.csv"), tmp_path / "out.csv", csv_options, ["length"])
    row = pa.table({"length": [2900.5], "width": [2.5], "place": ["north"], "wild": [True]})
    assert_same_bits(numbers(read(tmp_path / "out.csv"), "probability_red"), expected(kind_model.checkpoint, row)[:, 1])
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith('"2900,5",')


# ---- where to write ----------------------------------------------------------------------------------------------


def test_refused_outputs(kind_model, tmp_path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    pyarrow.csv.write_csv(flowers(5), source / "rows.csv")
    before = (source / "rows.csv").read_bytes()
    (tmp_path / "there.csv").write_text("precious")
    link = "link.csv" if os.name == "posix" else "in/rows.csv"  # Windows lets few users make links
    if os.name == "posix":
        (tmp_path / link).symlink_to(source / "rows.csv")
    for output, overwrite, text in [
        ("there.csv", False, "already exists; name another file, or set overwrite=true"),
        (link, True, "is a file that the rows are read from"),
        ("in/rows.csv", True, "is a file that the rows are read from"),
        ("in/out.csv", True, "is inside"),
        ("in", False, "has an unknown ending"),
        ("out.xlsx", False, "has an unknown ending; known are"),
        ("out", False, "has an unknown ending"),
    ]:
        with pytest.raises(ConfigError, match=text):
            predict(kind_model.checkpoint, str(source), tmp_path / output, overwrite=overwrite)
    with pytest.raises(ConfigError, match="is the name of a column of predictions"):
        predict(kind_model.checkpoint, str(source), tmp_path / "out.csv", id_columns=["predicted_kind"])
    assert (source / "rows.csv").read_bytes() == before
    assert (tmp_path / "there.csv").read_text() == "precious"
    predict(kind_model.checkpoint, str(source), tmp_path / "there.csv", overwrite=True)
    assert read(tmp_path / "there.csv").num_rows == 5


class FullDisk(io.BytesIO):
    """A file on a full disk."""

    def write(self, content, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet", "feather"])
def test_a_full_disk(kind_model, tmp_path, monkeypatch, ending) -> None:
    def opened(handle: int, mode: str) -> FullDisk:
        os.close(handle)
        return FullDisk()

    output = tmp_path / f"out.{ending}"
    output.write_text("before")
    monkeypatch.setattr(training_files.os, "fdopen", opened)
    with pytest.raises(OSError, match="No space left on device") as caught:
        predict(kind_model.checkpoint, str(kind_model.path), output, overwrite=True)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(output))
    assert [one.name for one in tmp_path.iterdir()] == [output.name]
    assert output.read_text() == "before"


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather"])
def test_an_interrupt_leaves_nothing(kind_model, tmp_path, ending) -> None:
    def interrupt(rows: int) -> None:
        assert len(list(tmp_path.iterdir())) == 1  # what is being written
        if rows > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(
            kind_model.checkpoint, str(kind_model.path), tmp_path / f"out.{ending}", rows_at_once=50, progress=interrupt
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.posix
@pytest.mark.slow
def test_a_kill_leaves_no_output(kind_model, tmp_path) -> None:
    """The file that is left has a hidden name, so a folder of tables ignores it."""
    code = """
import os, signal, sys
from mlp_lightning.inference.predict import predict
def kill(rows):
    if rows >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
predict(sys.argv[1], sys.argv[2], sys.argv[3], rows_at_once=50, progress=kill)
"""
    command = [sys.executable, "-c", code, str(kind_model.checkpoint), str(kind_model.path), str(tmp_path / "out.csv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.csv.")
    assert left.name.endswith(".tmp")
    predict(kind_model.checkpoint, str(kind_model.path), tmp_path / "out.csv")
    assert read(tmp_path / "out.csv").num_rows == 300
