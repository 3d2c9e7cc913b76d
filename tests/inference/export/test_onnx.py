"""Export as ONNX: fed with values as a user has them, it predicts as the checkpoint does."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.export_runs import trained, trained_on

from mlp_lightning.errors import DataError, ExportError
from mlp_lightning.inference.export import check as export_check
from mlp_lightning.inference.export.formats import export_model
from mlp_lightning.inference.loading import TrainedModel, load_model

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

RUNS: dict[str, Any] = {
    "binary": {"target": "two"},
    "multiclass": {
        "target": "numbers",
        "scaling": "standard",
        "precision": "64",
        "activation": "gelu",
        "norm": "layer",
    },
    "multilabel": {"target": ["two", "cold"], "scaling": "standard"},
    "regression": {"target": ["far", "near"], "scaling": "quantile", "numeric_embedding": "piecewise_linear"},
}
KINDS = ["binary", "multiclass", "multilabel", "regression", "iris"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    made = {name: trained(folder / name, **options) for name, options in RUNS.items()}
    return {**made, "iris": trained_on(folder / "iris", "iris")}


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory) -> dict[str, tuple[TrainedModel, Any]]:
    """The model of each checkpoint with the report of its export."""
    folder = tmp_path_factory.mktemp("onnx")
    return {name: (load_model(path), export_model(path, "onnx", folder / name)) for name, path in checkpoints.items()}


def session(path: Path) -> Any:
    return ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", KINDS)
def test_checked(exported, kind) -> None:
    _, report = exported[kind]
    assert report.path.name == f"{kind}.onnx"
    assert report.files == (report.path,)
    assert report.checked_rows == 1008
    assert 0 <= report.largest_difference <= 1e-6
    onnx.checker.check_model(onnx.load(report.path), full_check=True)


# Values as a user has them, and beside each what the model takes: written down by hand, not by the package's encoder.
DAY = 86_400.0
ROWS: dict[str, tuple[str, list[tuple[Any, float]]]] = {
    "bill length (mm)": ("float64", [(2001.5, 2001.5), (float("nan"), float("nan")), (-1e9, -1e9)]),
    "bill_length__mm_": ("float64", [(0.25, 0.25), (-3.0, -3.0), (1e12, 1e12)]),
    "label": ("float64", [(1.5, 1.5), (0.0, 0.0), (73.5, 73.5)]),
    "network/raw_bf": ("float64", [(1.0, 1.0), (2.0, 2.0), (float("nan"), float("nan"))]),
    "flag": ("float64", [(1.0, 1.0), (0.0, 0.0), (float("nan"), float("nan"))]),
    "truth": ("float64", [(0.0, 2.0), (1.0, 3.0), (float("nan"), 0.0)]),
    "sure": ("bool", [(False, 2.0), (True, 3.0), (True, 3.0)]),
    "when": ("float64", [(18_300 * DAY, 18_300 * DAY), (float("nan"), float("nan")), (0.0, 0.0)]),
    # blau, grün, red
    "colour": ("object", [("red", 4.0), ("", 0.0), ("rosa", 1.0)]),
    # t0, t1, t10, t11, …
    "town": ("object", [("t0", 2.0), ("t10", 4.0), ("T0", 1.0)]),
    # -7, 1, 2**40 + 1
    "zip": ("int64", [(2**40 + 1, 4.0), (-7, 2.0), (2, 1.0)]),
    # 0, 7, 14, …
    "many": ("int64", [(14, 4.0), (-(2**63), 0.0), (15, 1.0)]),
}


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("rows", [[0], [1], [2], [0, 1, 2, 1]])
def test_values_as_they_are(exported, kind, rows) -> None:
    model, report = exported[kind]
    assert [one.name for one in model.columns] == list(ROWS)
    feed = {
        name: np.array([[values[row][0]] for row in rows], dtype=object if type_name == "object" else type_name)
        for name, (type_name, values) in ROWS.items()
    }
    raw_BF = np.array([[values[row][1] for _, values in ROWS.values()] for row in rows])
    expected_BC = model.predict(raw_BF)
    predicted_BC, *labels = session(report.path).run(None, feed)
    assert predicted_BC.shape == expected_BC.shape
    scale = np.array(model.target.scale or [1.0])
    assert (
        np.abs((predicted_BC - expected_BC) / np.maximum(scale, np.abs(expected_BC - (model.target.mean or 0)))).max()
        <= 1e-6
    )
    if kind == "multilabel":
        classes = [["no", "yes"], [4, 9]]
        assert [one.tolist() for one in labels] == [
            [classes[target][int(one > 0.5)] for one in expected_BC[:, target]] for target in range(2)
        ]
    elif kind != "regression":
        classes = {"binary": ["no", "yes"], "multiclass": [3, 4, 5]}[kind]
        assert labels[0].tolist() == [classes[number] for number in expected_BC.argmax(1)]


def test_names_and_types(exported) -> None:
    """Outputs avoid the names of columns: here one is called ``label``."""
    one = session(exported["binary"][1].path)
    types = {"float64": "tensor(double)", "bool": "tensor(bool)", "object": "tensor(string)", "int64": "tensor(int64)"}
    assert [(given.name, given.type, given.shape) for given in one.get_inputs()] == [
        (name, types[type_name], ["batch", 1]) for name, (type_name, _) in ROWS.items()
    ]
    assert [(given.name, given.type) for given in one.get_outputs()] == [
        ("probabilities", "tensor(double)"),
        ("label_", "tensor(string)"),
    ]
    assert [given.name for given in session(exported["regression"][1].path).get_outputs()] == ["prediction"]
    several = [given.name for given in session(exported["multilabel"][1].path).get_outputs()]
    assert several == ["probabilities", "label_two", "label_cold"]
    assert [given.name for given in session(exported["iris"][1].path).get_outputs()] == ["probabilities", "label"]


def test_metadata(exported) -> None:
    model, report = exported["multiclass"]
    properties = {one.key: one.value for one in onnx.load(report.path).metadata_props}
    assert properties["task"] == "multiclass"
    assert json.loads(properties["class_names"]) == ["3", "4", "5"]
    assert [one["kind"] for one in json.loads(properties["columns"])] == [column.kind for column in model.columns]
    assert {one["name"]: one["missing"] for one in json.loads(properties["inputs"])} | {"colour": ""} == {
        name: {"float64": "nan", "object": "", "int64": -(2**63), "bool": None}[type_name]
        for name, (type_name, _) in ROWS.items()
    }
    assert json.loads(properties["versions"])["torch"] == importlib.metadata.version("torch")


def test_quiet_and_the_same_every_time(checkpoints, exported, tmp_path, capfd) -> None:
    again = export_model(checkpoints["iris"], "onnx", tmp_path / "again").path.read_bytes()
    assert capfd.readouterr() == ("", "")
    assert again == exported["iris"][1].path.read_bytes()
    for folder in (Path(export_check.__file__).parents[3], Path(torch.__file__).parents[1]):
        assert str(folder).encode() not in again


def test_a_boolean_cannot_be_missing(exported) -> None:
    from mlp_lightning.inference.export.onnx import feeds

    sure = [one for one in exported["binary"][0].columns if one.name == "sure"]
    with pytest.raises(DataError, match=r"'sure' has no value in 1 row\."):
        feeds(pa.table({"sure": pa.array([True, None])}), sure)


def test_a_wrong_model_is_not_written(checkpoints, tmp_path, monkeypatch) -> None:
    """The check finds errors of the export: here, unknown categories are treated as the first known one."""
    from mlp_lightning.inference.export import onnx as export_onnx

    monkeypatch.setattr(export_onnx, "UNKNOWN", 2)
    with pytest.raises(ExportError, match=r"does not predict as .* does"):
        export_model(checkpoints["binary"], "onnx", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra(checkpoints, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "mlp_lightning.inference.export.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ExportError, match=r"needs onnx, onnxscript and onnxruntime: pip install 'mlp-lightning\[onnx\]'"
    ):
        export_model(checkpoints["iris"], "onnx")
