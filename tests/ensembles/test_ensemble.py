"""Ensembles: their members are ordinary runs, their predictions are the members' means, and they are one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from support.commands import ROOT, run_forked
from support.export_runs import TYPES, table_of_all_kinds

from mlp_lightning import MLPModule, cross_validate, evaluate, predict, train, train_ensemble
from mlp_lightning.errors import CheckpointError, ConfigError
from mlp_lightning.inference.export.formats import export_model, load_exported
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.networks.ensemble import Ensemble
from mlp_lightning.tables.encoding import encode

TABLE = table_of_all_kinds()
TARGETS = {"two": "two", "three": "three", "far": "far", "several": ["truth", "wild"], "values": ["near", "label"]}
WILD = pa.array(np.random.default_rng(5).random(TABLE.num_rows) < 0.4)


def config(target: Any, *, precision: str = "32", **data: Any) -> dict[str, Any]:
    columns = {name: {"kind": "categorical"} for name in TYPES}
    others = ["two", "three", "numbers", "far", "near", "cold", "wild"]
    wanted = [target] if isinstance(target, str) else target
    columns |= {name: {"kind": "ignored"} for name in others}
    columns = {name: kind for name, kind in columns.items() if name not in wanted}
    return {
        "data": {"name": "frame", "target": target, "columns": columns, "val_fraction": 0.2, "batch_size": 32, **data},
        "model": {"hidden_units": 7},
        "optimizer": {"name": "Adam", "lr": 0.01},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": precision},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }


def script(name: str) -> str:
    return str(ROOT / "scripts" / f"{name}.py")


def rows() -> pa.Table:
    """Folds know other categories of ``rare``, and one does not see that ``mostly`` varies."""
    mostly, rare = np.zeros(120), [f"r{row % 60}" for row in range(120)]
    mostly[17] = 5.0
    return TABLE.append_column("wild", WILD).append_column("mostly", [mostly]).append_column("rare", [rare])


def raw(model: TrainedModel, table: pa.Table) -> np.ndarray:
    return encode(table, model.columns, lambda row: f"row {row}")


@pytest.fixture(scope="module", params=list(TARGETS))
def folds(request, tmp_path_factory) -> Path:
    """A cross-validation, whose folds know different categories and scales."""
    folder = tmp_path_factory.mktemp("folds") / "cv"
    target = TARGETS[request.param]
    cross_validate({**config(target, cv={"folds": 3}, test_fraction=0.0), "seed": 2}, folder, frame=rows())
    return folder


def test_the_model_of_all_folds_is_the_mean_of_its_members(folds: Path) -> None:
    """Each member is asked through its own checkpoint, with its own columns and categories."""
    model = load_model(folds / "checkpoints" / "best.ckpt")
    results = [json.loads((folds / f"fold-{fold}" / "result.json").read_text()) for fold in range(3)]
    files = [folds / f"fold-{n}" / "checkpoints" / f"{one['weights']}.ckpt" for n, one in enumerate(results)]
    members = [load_model(file) for file in files]
    assert len({one.columns for one in members}) == 3
    assert {len(one.columns) for one in members} == {len(model.columns), len(model.columns) - 1}
    expected_KBC = np.stack([one.predict(raw(one, rows())) for one in members])
    predictions_BC, spread_BT = model.predict_with_spread(raw(model, rows()))
    np.testing.assert_allclose(predictions_BC, expected_KBC.mean(0), rtol=1e-6)
    deviation_BC = expected_KBC.std(0)
    if spread_BT is not None and spread_BT.shape != deviation_BC.shape:
        chosen = predictions_BC.argmax(1)
        deviation_BC = deviation_BC[np.arange(len(chosen)), chosen][:, None]
    np.testing.assert_allclose(spread_BT, deviation_BC, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_it_is_exported_as_one_model(folds: Path, format: str, tmp_path: Path) -> None:
    checkpoint = folds / "checkpoints" / "best.ckpt"
    report = export_model(checkpoint, format, tmp_path)
    assert report.largest_difference < 1e-6
    if format == "safetensors":
        model, again = load_model(checkpoint), load_exported(tmp_path / "model")
        np.testing.assert_array_equal(again.predict(raw(again, rows())), model.predict(raw(model, rows())))


def test_its_logits_give_its_predictions(folds: Path) -> None:
    model = load_model(folds / "checkpoints" / "best.ckpt")
    raw_BF = raw(model, rows())
    with torch.no_grad():
        again = model.task.predictions(model.module(torch.from_numpy(raw_BF)))
    np.testing.assert_allclose(again, model.predict(raw_BF), rtol=1e-12, atol=1e-15)


def test_all_folds_have_no_single_split(folds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"split = 'test' is of no single split"):
        evaluate(folds / "checkpoints" / "best.ckpt", tmp_path)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    asked = {**config("three", test_fraction=0.2), "seed": 4, "ensemble": {"members": 3}}
    result = train_ensemble(asked, folder, frame=rows())
    assert result.status == "finished"
    return folder


def test_a_member_is_the_run_that_its_seed_makes_alone(ensemble: Path, tmp_path: Path) -> None:
    asked = {**config("three", test_fraction=0.2, split_seed=4), "seed": 6}
    alone = train(asked, tmp_path / "alone", frame=rows())
    member = json.loads((ensemble / "members" / "2" / "result.json").read_text())
    for split, metrics in alone.metrics.items():
        assert member["metrics"][split] == pytest.approx(metrics, rel=1e-4)
    result = json.loads((ensemble / "result.json").read_text())
    assert [one["seed"] for one in result["members"]] == [4, 5, 6]
    assert result["members"][2]["metrics"] == member["metrics"]


def test_its_metrics_are_those_of_the_mean(ensemble: Path, tmp_path: Path) -> None:
    """Those of the three splits, together, are scikit-learn's of all rows."""
    result = json.loads((ensemble / "result.json").read_text())
    predict(ensemble / "checkpoints" / "best.ckpt", output=tmp_path / "p.parquet", frame=rows())
    predicted = pq.read_table(tmp_path / "p.parquet")
    probabilities = [f"probability_{one}" for one in "abc"]
    assert predicted.column_names == ["predicted_three", *probabilities, "std_three"]
    truth, counts = rows()["three"].to_pylist(), {"train": 72, "val": 24, "test": 24}
    loss, accuracy = (
        sum(result["metrics"][split][name] * count for split, count in counts.items()) / 120
        for name in ("loss", "accuracy")
    )
    probabilities_BC = np.stack([predicted[one].to_numpy() for one in probabilities], 1)
    assert loss == pytest.approx(log_loss(truth, probabilities_BC), rel=1e-6)
    assert accuracy == pytest.approx(accuracy_score(truth, predicted["predicted_three"].to_pylist()))


def test_the_mean_is_no_worse_than_its_members_are_on_average(ensemble: Path) -> None:
    result = json.loads((ensemble / "result.json").read_text())
    for split in ("train", "val", "test"):
        mean = np.mean([one["metrics"][split]["loss"] for one in result["members"]])
        assert result["metrics"][split]["loss"] <= mean


def test_no_training_continues_from_an_ensemble(ensemble: Path, tmp_path: Path) -> None:
    checkpoint = ensemble / "checkpoints" / "best.ckpt"
    with pytest.raises(CheckpointError, match="is an ensemble, and not a checkpoint of an MLPModule"):
        MLPModule.load_from_checkpoint(checkpoint)
    asked = {**config("three", test_fraction=0.2), "ckpt_path": str(checkpoint)}
    with pytest.raises(CheckpointError, match="is an ensemble"):
        train(asked, tmp_path / "next", frame=rows())
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["ensemble"]["weights"].append(0.5), "members and"),
        (lambda content: content["ensemble"]["members"][1].update(preprocessing=7), "has preprocessing 7"),
        (lambda content: content["ensemble"]["members"].clear(), "0 members"),
        (lambda content: content["state_dict"].pop("networks.1.layers.output.bias"), "is missing"),
        (lambda content: content["ensemble"].update(weights=[2.0, 1.0, 1.0]), "the sum 1"),
        (lambda content: content["ensemble"].update(members="x"), "must be list"),
        (lambda content: content["state_dict"].update(x=torch.zeros(1)), "not enough values"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(ensemble: Path, change, said: str, tmp_path: Path) -> None:
    content = torch.load(ensemble / "checkpoints" / "best.ckpt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "changed.ckpt")
    with pytest.raises(CheckpointError, match=said):
        load_model(tmp_path / "changed.ckpt")


@pytest.mark.parametrize("name", ["networks.3.layers.output.bias", "preprocessors.1.center_N", "own.0.weight"])
def test_tensors_of_no_member_are_refused(ensemble: Path, name: str, tmp_path: Path) -> None:
    content = torch.load(ensemble / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"][name] = torch.zeros(1)
    torch.save(content, tmp_path / "changed.ckpt")
    with pytest.raises(CheckpointError, match=rf"tensors of '{name.rsplit('.', name.count('.') - 1)[0]}'"):
        load_model(tmp_path / "changed.ckpt")


def test_members_that_share_their_weights_do_not_make_a_small_file_large(ensemble: Path, tmp_path: Path) -> None:
    content = torch.load(ensemble / "checkpoints" / "best.ckpt", weights_only=True)
    shared = torch.zeros(2**20)
    content["state_dict"] |= {f"networks.{one}.weight": shared for one in range(40)}
    torch.save(content, tmp_path / "small.ckpt")
    assert (tmp_path / "small.ckpt").stat().st_size < 2**23
    with pytest.raises(CheckpointError, match="bytes of tensors that share"):
        load_model(tmp_path / "small.ckpt")


def test_few_rows_at_once_give_the_same(ensemble: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(ensemble / "checkpoints" / "best.ckpt")
    raw_BF = raw(model, rows())
    expected, spread_BT = model.predict_with_spread(raw_BF)
    monkeypatch.setattr("mlp_lightning.inference.loading._MOST_PREDICTIONS", 50)
    found = model.predict_with_spread(raw_BF)
    assert spread_BT is not None
    assert found[1] is not None
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    np.testing.assert_allclose(found[1], spread_BT, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(model.predict(raw_BF), expected, rtol=1e-6)


def test_in_double_precision(tmp_path: Path) -> None:
    asked = {**config("near", precision="64"), "ensemble": {"members": 2}}
    train_ensemble(asked, tmp_path / "run", frame=rows())
    model = load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert next(model.module.parameters()).dtype == torch.float64
    members = [load_model(tmp_path / "run" / "members" / one / "checkpoints" / "best.ckpt") for one in "01"]
    mean = (members[0].predict(raw(members[0], rows())) + members[1].predict(raw(members[1], rows()))) / 2
    np.testing.assert_allclose(model.predict(raw(model, rows())), mean, rtol=1e-14)


def test_members_of_one_split_share_its_preprocessing(ensemble: Path) -> None:
    model = load_model(ensemble / "checkpoints" / "best.ckpt")
    assert isinstance(model.module, Ensemble)
    assert len(model.module.preprocessors) == 1
    assert len(model.module.networks) == 3


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [float("nan"), 1.0], [1.0]])
def test_weights_are_shares(ensemble: Path, weights: list[float]) -> None:
    module = load_model(ensemble / "checkpoints" / "best.ckpt").module
    assert isinstance(module, Ensemble)
    parts = list(module.preprocessors), list(module.networks)[:2], [0, 0], module.tasks[:2]
    with pytest.raises(ValueError, match="weights_K"):
        Ensemble(*parts, weights, {}, {})  # type: ignore[arg-type]  # its parts are modules


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["ensemble.members=1"], "ensemble.members = 1 must be"),
        (["ensemble.members=3", "callbacks.checkpoint=null"], "keeps no members"),
        (["-m", "ensemble.members=2,3"], "sweep over single networks first"),
    ],
)
def test_a_command_that_cannot_be_is_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    done = run_forked(script("train"), "data=xor", *overrides, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_one_command_trains_one_and_others_use_it(tmp_path: Path) -> None:
    small = ["data=iris", "trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=none"]
    done = run_forked(script("train"), *small, "ensemble.members=3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Final metrics (mean prediction of 3 members)" in done.stdout
    assert "test, mean of the members" in done.stdout
    found = run_forked(script("evaluate"), "ckpt_path=best", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    (folder,) = (tmp_path / "lightning_logs" / "iris").iterdir()
    result = json.loads((folder / "result.json").read_text())
    (measured,) = folder.rglob("metrics.json")
    assert json.loads(measured.read_text())["metrics"]["log_loss"] == pytest.approx(result["metrics"]["test"]["loss"])
    board = run_forked(script("leaderboard"), "lightning_logs", folder=tmp_path)
    assert board.returncode == 0, board.stderr
    assert "ensemble.members=3" in board.stdout
