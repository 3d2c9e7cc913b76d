"""Which rows are explained, what is written, and what faults leave."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from rich.console import Console
from sklearn import metrics
from support.commands import ROOT, environment
from support.inference_tables import flowers

from mlp_lightning import explain, train, train_ensemble
from mlp_lightning.config import CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.inference.explanation.explain import Explanation
from mlp_lightning.inference.explanation.importance import donors, permutation_importances
from mlp_lightning.inference.explanation.rows import rows_of_split, rows_of_table
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.runs import files
from mlp_lightning.runs.build import build_data
from mlp_lightning.tables.encoding import encode

FILES = ["ice.csv", "explanation.json", "importance.csv", "importance.png", "partial_dependence.csv"]
FILES = sorted([*FILES, "partial_dependence.png", "shapley.csv", "shapley_values.csv", "shapley.png"])


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_split(kind_model, iris_model, xor_model) -> None:
    """By default the test rows; a run without held-out rows has to be told."""
    for trained, split in ((kind_model, "test"), (kind_model, "val"), (iris_model, "test")):
        model = load_model(trained.checkpoint)
        rows = rows_of_split(model, None if split == "test" else split, None, 1000, 0)
        data = build_data(model.config)
        assert isinstance(data, TabularDataModule)
        assert sorted(rows.numbers_B) == sorted(data.row_numbers[split])
        assert rows.split == split
        with torch.no_grad():
            features_BP = model.preprocessors[0](torch.from_numpy(rows.raw_BF)).float()
        order_B = np.argsort(data.row_numbers[split])
        np.testing.assert_array_equal(features_BP, data.splits[split].features_BF[order_B])
    with pytest.raises(ConfigError, match="split = None finds no held-out rows in the run; it has train: choose one"):
        rows_of_split(load_model(xor_model.checkpoint), None, None, 1000, 0)
    with pytest.raises(ConfigError, match="split = 'val' is not a split of the run"):
        rows_of_split(load_model(xor_model.checkpoint), "val", None, 1000, 0)


def test_rows_of_a_split_have_their_weights(big_model) -> None:
    model, table = load_model(big_model.checkpoint), flowers()
    rows = rows_of_split(model, None, None, 1000, 0)
    assert rows.weight_column == "weight"
    np.testing.assert_array_equal(rows.weights_B, table["weight"].to_numpy()[rows.numbers_B])
    np.testing.assert_array_equal(rows.targets_BT[:, 0], table["big"].to_numpy(False)[rows.numbers_B])
    data = build_data(model.config)
    assert isinstance(data, TabularDataModule)
    assert rows.dropped == int((table["weight"].to_numpy()[data.row_numbers["test"]] == 0).sum()) > 0
    other = rows_of_split(model, "val", "price", 1000, 0)
    np.testing.assert_array_equal(other.weights_B, table["price"].to_numpy()[other.numbers_B])


def test_of_more_rows_a_part_is_drawn_by_the_seed(kind_model) -> None:
    model = load_model(kind_model.checkpoint)
    table = flowers(500, 4)
    raw_BF = encode(table, model.columns, lambda row: f"row {row}")
    drawn = [rows_of_table(model, None, None, table, None, 40, seed) for seed in (0, 0, 1)]
    for rows in drawn:
        assert (len(rows.raw_BF), rows.drawn_from) == (40, 500)
        assert rows.title.startswith("40 of 500 rows")
        assert (np.diff(rows.numbers_B) > 0).all()
        np.testing.assert_array_equal(rows.raw_BF, raw_BF[rows.numbers_B])
    np.testing.assert_array_equal(drawn[0].numbers_B, drawn[1].numbers_B)
    assert drawn[0].numbers_B.tolist() != drawn[2].numbers_B.tolist()
    drawn = [rows_of_table(model, None, None, table, None, 250, seed) for seed in range(60)]
    times = np.bincount(np.concatenate([one.numbers_B for one in drawn]))
    assert len(times) == 500
    assert abs(times[:250].mean() - times[250:].mean()) < 1.5


# ---- the whole ------------------------------------------------------------------------------------------------------


def test_what_is_written(kind_model, tmp_path: Path) -> None:
    report = explain(kind_model.checkpoint, tmp_path / "a", repeats=3, top=2)
    assert sorted(one.name for one in report.files) == sorted(one.name for one in (tmp_path / "a").iterdir()) == FILES
    record = json.loads((tmp_path / "a" / "explanation.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (record["split"], record["rows"], record["drawn_from"], record["repeats"]) == ("test", 60, 60, 3)
    table = table_of(tmp_path / "a" / "importance.csv")
    columns = ["column", "kind", "loss_increase", "loss_sd", "accuracy_decrease", "accuracy_sd"]
    assert list(table[0]) == columns
    for row, one, kept in zip(table, report.importances.columns, record["importance"], strict=True):
        assert (row["column"], row["kind"]) == (one.column.name, one.column.kind) == (kept["column"], kept["kind"])
        assert float(row["loss_increase"]) == one.means[0] == kept["loss_increase"]["mean"]
        assert float(row["accuracy_sd"]) == one.deviations[1] == kept["accuracy_decrease"]["sd"]
        assert kept["accuracy_decrease"]["repeats"] == one.metric_R.tolist()
    assert [one.column.name for one in report.dependences] == [row["column"] for row in table[:2]]
    classes = ["probability_blue, light", "probability_red", 'probability_say "so"']
    curves = table_of(tmp_path / "a" / "partial_dependence.csv")
    assert list(curves[0]) == ["column", "value", "output", "mean", "p10", "p90"]
    for one in report.dependences:
        mine = [row for row in curves if row["column"] == one.column.name]
        assert [row["output"] for row in mine] == classes * len(one.labels)
        assert [row["value"] for row in mine[::3]] == [text or "" for text in one.labels]
        assert [float(row["mean"]) for row in mine] == one.mean_GC.ravel().tolist()
        of_rows = [row for row in table_of(tmp_path / "a" / "ice.csv") if row["column"] == one.column.name]
        assert [float(row["prediction"]) for row in of_rows] == one.curves_IGC.ravel().tolist()
        assert [*dict.fromkeys(row["row"] for row in of_rows)] == [str(number + 1) for number in one.rows_I]
    assert "Permutation importance: 60 test rows of" in report.lines()[0]
    titles = ["column", "kind", "loss", "increase", "loss", "sd", "accuracy", "decrease", "accuracy", "sd"]
    assert report.lines()[1].split() == titles
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    console.print(report.table())
    for one in report.importances.columns:
        assert f"{one.means[0]:.5g}" in console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    # The same again, to the last bit; another seed gives other permutations.
    explain(kind_model.checkpoint, tmp_path / "b", repeats=3, top=2)
    explain(kind_model.checkpoint, tmp_path / "c", repeats=3, top=2, seed=1)
    for name in set(FILES) - {"explanation.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "importance.csv").read_bytes() != (tmp_path / "c" / "importance.csv").read_bytes()


def test_several_labels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 2))
    table = pa.table({"x": x[:, 0], "z": x[:, 1], "rain": x[:, 0] > 0, "wind": x.sum(1) > 0})
    config = {
        "data": {"name": "frame", "target": ["rain", "wind"], "batch_size": 32},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    train(config, tmp_path / "run", frame=table)
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    report = explain(checkpoint, frame=table, repeats=2)
    assert (tmp_path / "run" / "explanation" / "frame" / "explanation.json").is_file()
    model, truths = load_model(checkpoint), np.stack([table["rain"].to_numpy(False), table["wind"].to_numpy(False)], 1)
    raw_BF = encode(table, model.columns, lambda row: f"row {row}")
    right_BT = (model.predict(raw_BF) > 0.5) == truths
    assert report.importances.metric == pytest.approx(right_BT.mean())
    assert report.dependences[0].mean_GC.shape == (21, 2)
    with pytest.raises(ConfigError, match=r"data\.name = 'frame' has its rows in memory"):
        explain(checkpoint, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_ensemble_is_explained_as_one_model(tmp_path: Path) -> None:
    """By its mean prediction; its members are asked through their own checkpoints."""
    path = tmp_path / "flowers.parquet"
    table = flowers(120).drop_columns(["id", "big", "price", "age", "weight"])
    pyarrow.parquet.write_table(table, path)
    config = {
        "data": {"name": "table", "path": str(path), "target": "kind", "test_fraction": 0.25},
        "ensemble": {"members": 2},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    train_ensemble(config, tmp_path / "run")
    report: Explanation = explain(tmp_path / "run" / "checkpoints" / "best.ckpt", repeats=2, top=4)
    assert (tmp_path / "run" / "explanation" / "test" / "explanation.json").is_file()
    members = [load_model(tmp_path / "run" / "members" / one / "checkpoints" / "best.ckpt") for one in "01"]
    rows = report.rows
    labels = rows.targets_BT[:, 0].astype(int)
    for one in report.importances.columns:
        raw_BF = rows.raw_BF.copy()
        number = [column.name for column in members[0].columns].index(one.column.name)
        raw_BF[:, number] = raw_BF[donors(len(labels), None, 2, 0)[1], number]
        before, after = (
            metrics.log_loss(labels, (members[0].predict(part) + members[1].predict(part)) / 2, labels=[0, 1, 2])
            for part in (rows.raw_BF, raw_BF)
        )
        assert one.loss_R[1] == pytest.approx(after - before, abs=1e-6)


def test_faults_leave_nothing(kind_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="repeats = 1 must be at least 2") as caught:
        explain(kind_model.checkpoint, out, repeats=1, top=0, rows=0)
    assert [one.key for one in caught.value.faults] == ["repeats", "top", "rows"]
    with pytest.raises(ConfigError, match="split = 'val' has no effect beside another table"):
        explain(kind_model.checkpoint, out, split="val", frame=flowers(20))
    with pytest.raises(ConfigError, match=r"data\.csv\.delimiter = .* has no effect without a table to read"):
        explain(kind_model.checkpoint, out, csv=CsvConfig(delimiter=";"))
    with pytest.raises(DataError, match="no row has a value of kind"):
        explain(kind_model.checkpoint, out, frame=flowers(20).set_column(6, "kind", pa.nulls(20, pa.string())))
    weightless = flowers(20).append_column("w", pa.array([0.0] * 20))
    with pytest.raises(DataError, match="have the weight 0 in 'w'"):
        explain(kind_model.checkpoint, out, frame=weightless, weight_column="w")
    model = load_model(kind_model.checkpoint)
    infinite = dataclasses.replace(model)
    monkeypatch.setattr(TrainedModel, "predict", lambda *_: np.full((30, 3), np.nan))
    with pytest.raises(DataError, match="prediction of row 1 is not a finite number"):
        permutation_importances(infinite, rows_of_table(model, None, None, flowers(30), None, 100, 0), 2, 0)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output = .*file' is a file"):
        explain(kind_model.checkpoint, tmp_path / "file")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_fault_while_writing_leaves_the_earlier_explanation(kind_model, tmp_path: Path, monkeypatch) -> None:
    explain(kind_model.checkpoint, tmp_path / "old", repeats=2, top=1)
    before = {one.name: one.read_bytes() for one in (tmp_path / "old").iterdir()}
    write, written = Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) % 3 == 0:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    for folder in ("old", "new"):
        with pytest.raises(OSError, match="No space left on device"):
            explain(kind_model.checkpoint, tmp_path / folder, repeats=3, top=1)
    assert {one.name: one.read_bytes() for one in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_what_a_killed_explanation_left_is_completed(kind_model, tmp_path: Path, monkeypatch) -> None:
    """Its journal is there, and half of its files have their names; other journals are none of its business."""
    rename, renamed = files.replace, []

    def killed(source: Path, target: Path) -> None:
        renamed.append(target)
        if len(renamed) == 4:  # the first is the journal
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(files, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        explain(kind_model.checkpoint, tmp_path / "out", repeats=2, top=1)
    monkeypatch.undo()
    assert len([one for one in (tmp_path / "out").iterdir() if one.name.startswith(".")]) == len(FILES) - 1
    other = tmp_path / "out" / ".17-4.journal"
    other.write_text("{}", encoding="utf-8")
    explain(kind_model.checkpoint, tmp_path / "out", repeats=2, top=1, seed=1)
    explain(kind_model.checkpoint, tmp_path / "same", repeats=2, top=1, seed=1)
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [other.name, *FILES]
    for name in set(FILES) - {"explanation.json"}:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


@pytest.mark.slow
def test_the_command(kind_model, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(flowers(80, 9), tmp_path / "new.parquet")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "explain.py"), f"ckpt_path={kind_model.checkpoint}", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8")

    done = run("data.path=new.parquet", "repeats=2", "top=3", "rows=50", "output=out")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("Permutation importance: 50 of 80 rows of", "50 of 80 rows were drawn by the seed", "importance.csv"):
        assert part in done.stdout
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == FILES
    refused = run("weight_column=heavy", "output=other")
    assert refused.returncode == 2
    assert "has no column 'heavy'" in refused.stderr
    refused = run("output=new.parquet")
    assert refused.returncode == 2
    assert "output = 'new.parquet' is a file" in refused.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["new.parquet", "out"]
