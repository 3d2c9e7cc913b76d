"""Export as safetensors and as a program of PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.export_runs import table_of_all_kinds, trained, trained_on
from support.tolerances import assert_same_bits, assert_same_state

from mlp_lightning.errors import CheckpointError, ConfigError, ExportError
from mlp_lightning.inference.export import check as export_check
from mlp_lightning.inference.export import torch as export_torch
from mlp_lightning.inference.export.check import BATCH_SIZES, difference, rows_to_check
from mlp_lightning.inference.export.description import missing_integer, missing_text, value_type
from mlp_lightning.inference.export.formats import export_model, load_exported
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.tables.encoding import encode
from mlp_lightning.tables.targets import Target, TargetColumn


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    return {
        "binary": trained(folder / "binary", "two"),
        "double": trained(folder / "double", ["far", "near"], precision="64", numeric_embedding="periodic"),
        "xor": trained_on(folder / "xor", "xor"),
        "iris": trained_on(folder / "iris", "iris"),
    }


KINDS = ["binary", "double", "xor", "iris"]


def raw_rows(model: TrainedModel) -> np.ndarray:
    return encode(rows_to_check(model), model.columns, str)


@pytest.mark.parametrize("kind", KINDS)
def test_safetensors_gives_the_same_model(checkpoints, kind, tmp_path) -> None:
    report = export_model(checkpoints[kind], "safetensors", tmp_path / "exported")
    assert [file.name for file in report.files] == ["exported.safetensors", "exported.json"]
    assert (report.checked_rows, report.largest_difference) == (sum(BATCH_SIZES), 0.0)
    model = load_model(checkpoints[kind])
    for path in (*report.files, tmp_path / "exported"):
        again = load_exported(path)
        assert (again.columns, again.target, again.config) == (model.columns, model.target, model.config)
        assert_same_state(again.module.state_dict(), model.module.state_dict())
    raw_BF = raw_rows(model)
    assert_same_bits(again.predict(raw_BF), model.predict(raw_BF))


def test_precision_64_stays(checkpoints) -> None:
    """A new module is in single precision, to which loading would round."""
    path = checkpoints["double"]
    state = torch.load(path, weights_only=True)["state_dict"]
    assert state["mlp.layers.output.weight"].dtype == torch.float64
    assert_same_state(load_model(path).module.state_dict(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_program_runs_without_this_package(checkpoints, kind, tmp_path, monkeypatch, capfd) -> None:
    report = export_model(checkpoints[kind], "torch", tmp_path / "m")
    assert [file.name for file in report.files] == ["m.pt2", "m.pt2.json"]
    assert report.largest_difference <= 1e-6
    assert capfd.readouterr() == ("", "")
    model = load_model(checkpoints[kind])
    raw_BF = raw_rows(model)[:9]
    for name in [one for one in sys.modules if one.split(".")[0] == "mlp_lightning"]:
        monkeypatch.setitem(sys.modules, name, None)
    program = torch.export.load(report.path).module()
    described = json.loads(report.files[1].read_bytes())["inputs"]
    types = {"int64": torch.int64, "float64": torch.float64}
    for rows in (1, 2, 9):
        inputs = {
            one["name"]: torch.from_numpy(raw_BF[:rows, index].copy()).to(types[one["type"]])
            for index, one in enumerate(described)
        }
        expected_BC = model.predict(raw_BF[:rows])
        np.testing.assert_allclose(program(inputs).numpy(), expected_BC, rtol=1e-6, atol=1e-6)
        assert expected_BC.shape == (rows, 3 if kind == "iris" else 2)


def test_program_treats_an_invalid_code_as_unknown(checkpoints) -> None:
    model = load_model(checkpoints["binary"])
    network = export_torch.ColumnNetwork(model.module, model.columns)
    raw_BF = raw_rows(model)[:5]
    index = next(index for index, one in enumerate(model.columns) if one.name == "town")
    raw_BF[:, index] = 1
    inputs = export_torch.tensors(raw_BF, model.columns)
    expected = network(inputs)
    for code in (-1, 17, 10**9):
        assert_same_bits(network({**inputs, "town": torch.full((5,), code)}), expected)


def test_files_name_no_folder_of_this_machine(checkpoints, tmp_path) -> None:
    content = export_model(checkpoints["xor"], "torch", tmp_path / "m").path.read_bytes()
    for folder in (Path(export_torch.__file__).parents[3], Path(torch.__file__).parents[1]):
        assert str(folder).encode() not in content


def test_paths_of_output(checkpoints, tmp_path) -> None:
    run_dir = checkpoints["xor"].parent.parent
    assert export_model(checkpoints["xor"], "safetensors").files == (
        run_dir / "model.safetensors",
        run_dir / "model.json",
    )
    assert export_model(checkpoints["xor"], "safetensors", tmp_path).path == tmp_path / "model.safetensors"
    for name in ("a", "a.safetensors"):
        assert export_model(checkpoints["xor"], "safetensors", tmp_path / name).path == tmp_path / "a.safetensors"
    assert export_model(checkpoints["xor"], "safetensors", tmp_path / "v1.2").path == tmp_path / "v1.2.safetensors"


def test_unknown_format(checkpoints) -> None:
    with pytest.raises(
        ConfigError, match=r"format = 'onxx' must be one of safetensors, torch, onnx; did you mean onnx\?"
    ):
        export_model(checkpoints["xor"], "onxx")


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_a_failed_check_leaves_what_was_there(checkpoints, format, tmp_path, monkeypatch) -> None:
    report = export_model(checkpoints["xor"], format, tmp_path / "m")
    before = {file: file.read_bytes() for file in report.files}
    monkeypatch.setattr(export_check, "difference", lambda *predictions: float("inf"))
    with pytest.raises(ExportError, match=r"differ by up to inf.*Nothing was written"):
        export_model(checkpoints["iris"], format, tmp_path / "m")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_load_exported_refuses(checkpoints, tmp_path) -> None:
    weights, beside = export_model(checkpoints["xor"], "safetensors", tmp_path / "m").files
    good = beside.read_text()
    for content, message in (
        ("{", "does not describe an exported model"),
        ("[]", "does not describe an exported model"),
        (good.replace('"format_version": 3', '"format_version": 9'), "has format version 9"),
        (good.replace('"in_features": 2', '"in_features": 3'), "m.json is damaged, or was changed"),
    ):
        beside.write_text(content)
        with pytest.raises(CheckpointError, match=message):
            load_exported(weights)
    beside.write_text(good)
    export_model(checkpoints["iris"], "safetensors", tmp_path / "other")
    weights.write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="different exports"):
        load_exported(weights)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no file .*m\.safetensors"):
        load_exported(beside)


def test_rows_to_check_have_everything(checkpoints) -> None:
    model = load_model(checkpoints["binary"])
    raw_BF = raw_rows(model)
    trained_BF = encode(table_of_all_kinds(), model.columns, str)
    for index, column in enumerate(model.columns):
        values_B = raw_BF[:, index]
        if column.kind == "categorical":
            # There is no truth value that no training row had.
            unknown = set() if column.type == "bool" else {1}
            assert set(values_B) == {0, *unknown, *range(2, 2 + len(column.vocabulary))}
            continue
        assert np.isnan(values_B).any()
        if column.kind != "boolean":
            assert np.nanmax(values_B) > np.nanmax(trained_BF[:, index])
            assert np.nanmin(values_B) < np.nanmin(trained_BF[:, index])


def test_difference() -> None:
    classes = Target("binary", (TargetColumn("y", "string", ("a", "b")),))
    assert difference(np.array([[0.2, 0.8]]), np.array([[0.25, 0.75]]), classes) == pytest.approx(0.05)
    # In deviations from the mean: the offset of the target hides nothing.
    values = Target("regression", (TargetColumn("y", "float64", (), 5e6, 1e3),))
    assert difference(np.array([[5e6 + 10]]), np.array([[5e6]]), values) == pytest.approx(0.01)
    assert difference(np.array([[5e6 + 1.01e6]]), np.array([[6e6]]), values) == pytest.approx(0.01)
    assert difference(np.array([[np.nan]]), np.array([[1.0]]), values) == float("inf")
    assert difference(np.zeros((2, 1)), np.zeros((1, 2)), values) == float("inf")


def test_what_stands_for_a_missing_category(checkpoints) -> None:
    columns = {one.name: one for one in load_model(checkpoints["binary"]).columns}
    assert missing_text(columns["colour"]) == ""
    assert missing_integer(columns["zip"]) == -(2**63)
    kinds = {name: value_type(one) for name, one in columns.items()}
    assert kinds["flag"] == kinds["truth"] == kinds["when"] == "double"
    assert (kinds["sure"], kinds["zip"], kinds["town"]) == ("bool", "int64", "string")


def test_missing_values_that_are_categories() -> None:
    from mlp_lightning.tables.columns import Column

    assert missing_text(Column("a", "categorical", "string", vocabulary=("", "x"))) == "<missing>"
    assert missing_text(Column("a", "categorical", "string", vocabulary=("", "<missing>"))) == "<<missing>>"
    assert missing_integer(Column("a", "categorical", "int64", vocabulary=(-(2**63), 3))) == -(2**63) + 1


def test_table_has_what_the_tests_assume() -> None:
    table = table_of_all_kinds()
    assert pa.types.is_boolean(table["sure"].type)
    assert table["sure"].null_count == 0
    assert table["truth"].null_count > 0
