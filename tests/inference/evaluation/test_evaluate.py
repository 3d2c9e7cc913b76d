"""Evaluation of tables and of a run's own splits, against scikit-learn on the predictions that are written."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from rich.console import Console
from sklearn import metrics
from sklearn.dummy import DummyClassifier
from support.inference_tables import flowers

from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import CheckpointError, ConfigError, DataError
from mlp_lightning.inference.evaluation import evaluate as evaluation
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict
from mlp_lightning.runs.build import build_data


def record(folder: Path) -> dict[str, Any]:
    """The content of ``metrics.json``; NaN and the like would not be JSON."""
    return json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)


def predictions(trained, source: Path, folder: Path) -> pa.Table:
    output = folder / "predictions.parquet"
    predict(trained.checkpoint, str(source), output, overwrite=True)
    return pyarrow.parquet.read_table(output)


def test_classes_of_a_table(kind_model, tmp_path) -> None:
    table = flowers(150, seed=2)
    truth = table["kind"].to_pylist()
    gaps = [None if row % 10 == 3 else kind for row, kind in enumerate(truth)]
    pyarrow.parquet.write_table(table.set_column(6, "kind", pa.array(gaps)), tmp_path / "new.parquet")
    report = evaluate(kind_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    assert (report.rows, report.dropped) == (135, 15)

    predicted = predictions(kind_model, tmp_path / "new.parquet", tmp_path)
    kept = np.array([kind is not None for kind in gaps])
    truth_B, guess_B = np.array(truth)[kept], np.array(predicted["predicted_kind"].to_pylist())[kept]
    probabilities_BC = np.stack([one.to_numpy() for one in predicted.columns[1:]], axis=1)[kept]
    classes = ["blue, light", "red", 'say "so"']
    assert report.metrics["accuracy"] == pytest.approx(metrics.accuracy_score(truth_B, guess_B))
    assert report.metrics["macro_f1"] == pytest.approx(metrics.f1_score(truth_B, guess_B, average="macro"))
    loss = -np.log(probabilities_BC[np.arange(135), [classes.index(one) for one in truth_B]]).mean()
    assert report.metrics["log_loss"] == pytest.approx(loss)
    matrix = metrics.confusion_matrix(truth_B, guess_B, labels=classes).tolist()

    found = record(tmp_path / "out")
    assert found["metrics"] == {name: one for name, one in report.metrics.items() if name != "rows"}
    assert (found["confusion_matrix"], found["classes"], found["task"]) == (matrix, classes, "multiclass")
    assert [one["class"] for one in found["per_class"]] == classes
    assert [one["rows"] for one in found["per_class"]] == [int((truth_B == one).sum()) for one in classes]
    assert (found["rows"], found["dropped"], found["split"], found["weight_column"]) == (135, 15, None, None)
    assert found["checkpoint"] == str(kind_model.checkpoint)
    assert found["data_path"] == str(tmp_path / "new.parquet")
    assert found["seconds"] > 0
    assert "torch" in found["versions"]
    curves = [f"{one}.{ending}" for one in ("roc", "precision_recall", "calibration") for ending in ("png", "csv")]
    assert [file.name for file in report.files] == ["confusion_matrix.png", "per_class.csv", *curves, "metrics.json"]
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(report.files)
    assert report.files[0].read_bytes().startswith(b"\x89PNG")


def test_values_of_a_table(price_model, tmp_path) -> None:
    table = flowers(80, seed=3)
    # A row that lacks one of its targets has no metrics.
    kept = np.arange(80) % 10 != 2
    prices = pa.array(table["price"].to_numpy(), mask=~kept)
    pyarrow.csv.write_csv(table.set_column(table.column_names.index("price"), "price", prices), tmp_path / "new.csv")
    report = evaluate(price_model.checkpoint, tmp_path / "out", str(tmp_path / "new.csv"))
    assert (report.rows, report.dropped) == (72, 8)
    predicted = predictions(price_model, tmp_path / "new.csv", tmp_path)
    truth_BT = np.stack([table[name].to_numpy() for name in ("price", "age")], axis=1)[kept]
    guess_BT = np.stack([one.to_numpy() for one in predicted.columns], axis=1)[kept]
    found = record(tmp_path / "out")
    assert [one["output"] for one in found["per_output"]] == ["price", "age"]
    for one, truth_B, guess_B in zip(found["per_output"], truth_BT.T, guess_BT.T, strict=True):
        assert one["rmse"] == pytest.approx(math.sqrt(metrics.mean_squared_error(truth_B, guess_B)))
        assert one["r2"] == pytest.approx(metrics.r2_score(truth_B, guess_B))
    assert [file.name for file in report.files] == ["residuals.png", "per_output.csv", "metrics.json"]
    assert "confusion_matrix" not in found


def test_the_baseline_of_classes_is_that_of_the_training_rows(kind_model, tmp_path) -> None:
    table = flowers(90, seed=5)
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    report = evaluate(kind_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    data = build_data(load_model(kind_model.checkpoint).config)
    labels = data.splits["train"].targets.numpy()
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(labels), 1)), np.array(data.target.class_names)[labels])
    nothing, truth = np.zeros((90, 1)), table["kind"].to_pylist()
    expected = {
        "accuracy": metrics.accuracy_score(truth, dummy.predict(nothing)),
        "log_loss": metrics.log_loss(truth, dummy.predict_proba(nothing)),
        "roc_auc": 0.5,
        "balanced_accuracy": 1 / 3,
    }
    found = record(tmp_path / "out")["baseline"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert report.baseline is not None
    assert list(report.baseline) == list(report.metrics)
    assert report.lines()[1].split() == ["metric", "value", "95%", "interval", "baseline"]
    assert not any("Warning" in one for one in report.facts())


def test_the_baseline_of_numbers_is_that_of_the_training_rows(price_model, tmp_path) -> None:
    table = flowers(50, seed=6)
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    report = evaluate(price_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    rows = build_data(load_model(price_model.checkpoint).config).row_numbers["train"]
    known_BT, new_BT = (np.stack([one[name].to_numpy() for name in ("price", "age")], 1) for one in (flowers(), table))
    means, medians = (np.broadcast_to(f(known_BT[rows], axis=0), (50, 2)) for f in (np.mean, np.median))
    assert report.baseline is not None
    assert report.baseline["rmse"] == pytest.approx(metrics.root_mean_squared_error(new_BT, means))
    assert report.baseline["r2"] == pytest.approx(metrics.r2_score(new_BT, means))
    assert report.baseline["mae"] == pytest.approx(metrics.mean_absolute_error(new_BT, medians))


def test_a_model_that_is_worse_than_its_baseline(kind_model, tmp_path) -> None:
    table = flowers(90, seed=5)
    shuffled = np.random.default_rng(0).permutation(table["kind"].to_numpy(zero_copy_only=False))
    table = table.set_column(table.column_names.index("kind"), "kind", pa.array(shuffled))
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    report = evaluate(kind_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    (line,) = (one for one in report.facts() if one.startswith("Warning: "))
    assert "does not look at the features" in line
    assert "log loss (" in line


def test_weights(big_model, tmp_path) -> None:
    """The column of the training is used if it is there, another one if it is named, else none."""
    table = flowers(60, seed=4)
    table = table.append_column("other", pa.array(np.arange(60.0)))
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    pyarrow.parquet.write_table(table.drop_columns(["weight"]), tmp_path / "without.parquet")
    guess_B = np.array(predictions(big_model, tmp_path / "new.parquet", tmp_path)["predicted_big"].to_pylist())
    for name, column, used in [
        ("new", None, "weight"),
        ("new", "other", "other"),
        ("without", None, None),
    ]:
        report = evaluate(
            big_model.checkpoint, tmp_path / "out", str(tmp_path / f"{name}.parquet"), weight_column=column
        )
        weights_B = None if used is None else table[used].to_numpy()
        truth_B = np.array(table["big"].to_pylist())
        expected = metrics.accuracy_score(truth_B, guess_B, sample_weight=weights_B)
        assert report.metrics["accuracy"] == pytest.approx(expected)
        assert record(tmp_path / "out")["weight_column"] == used


def test_an_invalid_weight(big_model, tmp_path) -> None:
    table = flowers(30, seed=5)
    weights = [-1.0 if number == 7 else 1.0 for number in range(30)]
    pyarrow.parquet.write_table(table.set_column(5, "weight", pa.array(weights)), tmp_path / "new.parquet")
    with pytest.raises(DataError, match=r"new.parquet, row 8: weight_column 'weight' is -1.0; a weight is"):
        evaluate(big_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    assert not (tmp_path / "out").exists()


# ---- splits of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_of_a_split_have_the_metrics_of_the_training(kind_model, tmp_path, split) -> None:
    report = evaluate(kind_model.checkpoint, tmp_path, split=split)
    assert report.metrics["accuracy"] == pytest.approx(kind_model.result.metrics[split]["accuracy"], abs=1e-7)
    assert report.metrics["log_loss"] == pytest.approx(kind_model.result.metrics[split]["loss"], abs=1e-6)
    assert (record(tmp_path)["split"], record(tmp_path)["data_path"]) == (split, None)
    assert f"{split} rows of {kind_model.path}" in report.lines()[0]


def test_values_of_a_split_have_the_metrics_of_the_training(price_model, tmp_path) -> None:
    report = evaluate(price_model.checkpoint, tmp_path)
    assert report.metrics["mae"] == pytest.approx(price_model.result.metrics["test"]["mae"], rel=1e-5)


def test_rows_of_a_split_with_weights(big_model, tmp_path) -> None:
    """The same as the same rows in a file."""
    data = build_data(load_model(big_model.checkpoint).config)
    assert isinstance(data, TabularDataModule)
    pyarrow.parquet.write_table(flowers().take(pa.array(data.row_numbers["test"])), tmp_path / "test.parquet")
    own = evaluate(big_model.checkpoint, tmp_path / "a")
    file = evaluate(big_model.checkpoint, tmp_path / "b", str(tmp_path / "test.parquet"))
    assert own.metrics == pytest.approx(file.metrics, rel=1e-6)
    assert record(tmp_path / "a")["weight_column"] == "weight"


def test_data_sets_that_are_not_tables(xor_model, iris_model, tmp_path) -> None:
    own = evaluate(xor_model.checkpoint, tmp_path, split="train")
    file = evaluate(xor_model.checkpoint, tmp_path, str(xor_model.path))
    assert own.metrics == pytest.approx(file.metrics)
    assert record(tmp_path)["classes"] == [0, 1]
    iris = evaluate(iris_model.checkpoint, tmp_path)
    assert iris.metrics["accuracy"] == pytest.approx(iris_model.result.metrics["test"]["accuracy"])
    with pytest.raises(
        ConfigError, match=r"split = 'test' is not a split of the run; it has train; or name a table with data\.path"
    ):
        evaluate(xor_model.checkpoint, tmp_path)
    with pytest.raises(DataError, match="iris has no column 'w'"):
        evaluate(iris_model.checkpoint, tmp_path, weight_column="w")


def test_a_table_that_has_changed(kind_model, tmp_path, monkeypatch) -> None:
    """Its training rows would be treated as rows that the model has not seen."""
    path = tmp_path / "flowers.csv"
    model = load_model(kind_model.checkpoint)
    elsewhere = dataclasses.replace(model.config.data, path=str(path))
    changed = dataclasses.replace(model, config=dataclasses.replace(model.config, data=elsewhere))
    monkeypatch.setattr(evaluation, "load_model", lambda *_: changed)
    pyarrow.csv.write_csv(flowers(), path)
    evaluate("", tmp_path / "out")
    pyarrow.csv.write_csv(flowers().slice(10), path)
    with pytest.raises(CheckpointError, match=r"was trained on other rows than .*flowers.csv has now"):
        evaluate("", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# ---- faults and messages -----------------------------------------------------------------------------------------


def test_tables_without_usable_targets(kind_model, tmp_path) -> None:
    table = flowers(9)
    for column, text in [
        (pa.nulls(9, pa.string()), "no row has a value of kind"),
        (
            pa.array(["green"] * 9),
            r"new.parquet, row 1: column 'kind' has the class 'green', which the model does not know",
        ),
    ]:
        pyarrow.parquet.write_table(table.set_column(6, "kind", column), tmp_path / "new.parquet")
        with pytest.raises(DataError, match=text):
            evaluate(kind_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    pyarrow.parquet.write_table(table.drop_columns(["kind"]), tmp_path / "new.parquet")
    with pytest.raises(DataError, match="has no column 'kind'"):
        evaluate(kind_model.checkpoint, tmp_path / "out", str(tmp_path / "new.parquet"))
    assert not (tmp_path / "out").exists()


def test_undefined_metrics_are_null(kind_model, tmp_path) -> None:
    """Of rows of one class."""
    table = flowers(50)
    rows = table.filter(pa.array([kind == "red" for kind in table["kind"].to_pylist()]))
    pyarrow.parquet.write_table(rows, tmp_path / "new.parquet")
    report = evaluate(kind_model.checkpoint, tmp_path, str(tmp_path / "new.parquet"))
    assert report.metrics["roc_auc"] is None
    assert record(tmp_path)["metrics"]["roc_auc"] is None
    assert record(tmp_path)["per_class"][0]["recall"] is None


def test_an_evaluation_that_fails_leaves_no_record(kind_model, tmp_path, monkeypatch) -> None:
    """Nor one of an earlier evaluation next to a picture that may be new."""
    evaluate(kind_model.checkpoint, tmp_path)

    @contextlib.contextmanager
    def full(path: Path):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(evaluation, "atomic_write", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(kind_model.checkpoint, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_lines_tables_and_facts(kind_model, price_model, tmp_path) -> None:
    pyarrow.csv.write_csv(flowers(20).set_column(3, "place", pa.array(["moon"] * 20)), tmp_path / "new.csv")
    report = evaluate(kind_model.checkpoint, tmp_path, str(tmp_path / "new.csv"))
    text = "\n".join(report.lines())
    assert "20 rows of new.csv" in text
    assert "Each class" in text
    assert "place: 20 values that no training row has" in report.facts()[0]
    assert report.facts()[-1] == f"Written: {tmp_path / 'metrics.json'}"
    console = Console(record=True, width=100, file=io.StringIO())
    for table in report.tables():
        console.print(table)
    shown = console.export_text()
    assert "macro F1" in shown
    assert 'say "so"' in shown
    assert "Each output" in "\n".join(evaluate(price_model.checkpoint, tmp_path).lines())
