"""Intervals and quantiles of members in predictions: their values, their coverage, what is said, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.commands import ROOT, run_forked

from mlp_lightning import cross_validate, predict, train, train_best, train_ensemble
from mlp_lightning.errors import ConfigError
from mlp_lightning.inference.export.formats import export_model
from mlp_lightning.inference.loading import load_model
from mlp_lightning.networks.conformal import rank
from mlp_lightning.tables.encoding import encode
from mlp_lightning.tables.reading.frames import arrow_table


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(random.normal(size=(rows, 2)), columns=["a", "b"])
    table["y"] = 200 + 30 * table["a"] + 10 * random.standard_t(3, rows)
    table["z"] = np.abs(table["b"]) + random.exponential(size=rows)
    return table


def asked(target: Any = ("y", "z"), **changes: Any) -> dict[str, Any]:
    data = {"name": "table", "target": list(target), "val_fraction": 0.3, **changes.pop("data", {})}
    return {
        "data": data,
        "model": {"hidden_units": 6, "depth": 1, "dropout": 0.0},
        "trainer": {"max_epochs": 4, "accelerator": "cpu"},
        "verbosity": 0,
        **changes,
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of every way to train, by name."""
    folder, table = tmp_path_factory.mktemp("intervals"), frame(150)
    train(asked(report_weights="last"), folder / "single", frame=table)
    train_ensemble(asked(ensemble={"members": 3}), folder / "ensemble", frame=table)
    cross_validate(asked(data={"cv": {"folds": 3}, "val_fraction": 0.0}), folder / "folds", frame=table)
    folds = {"cv": {"folds": 3, "held_out_as": "val"}, "val_fraction": 0.0}
    cross_validate(asked(data=folds, ensemble={"members": 2}), folder / "bagged", frame=table)
    preset = {"name": "best", "candidates": 3}
    train_best(
        asked(["y"], data={**folds, "columns": {"z": {"kind": "ignored"}}}, preset=preset), folder / "best", frame=table
    )
    found = {one.name: one / "checkpoints" / "best.ckpt" for one in folder.iterdir() if one.is_dir()}
    return {**found, "single": found["single"].with_name("last.ckpt")}


def predicted(path: Path, folder: Path, table: pd.DataFrame, **options: Any) -> tuple[pd.DataFrame, list[str]]:
    report = predict(path, output=folder / "out.parquet", frame=table, overwrite=True, **options)
    return pd.read_parquet(report.path), report.notes


def of_members(path: Path, table: pd.DataFrame) -> tuple[np.ndarray, Any]:
    """What every member predicts, ``(K, B, T)``, and the model."""
    import torch

    model = load_model(path)
    raw_BF = encode(arrow_table(table, "frame", []), model.columns, str)
    if not model.is_ensemble:
        return model.predict(raw_BF)[None], model
    with torch.no_grad():
        return model.module.member_predictions(torch.from_numpy(raw_BF)).numpy(), model


@pytest.mark.parametrize("name", ["single", "ensemble"])
def test_split_intervals_reach_to_the_residual_of_the_rank(models, tmp_path, name) -> None:
    new = frame(40, seed=1)
    out, notes = predicted(models[name], tmp_path, new, interval=0.8)
    predictions_KBT, model = of_members(models[name], new)
    assert len(model.calibration.residuals_NT) == 45
    for number, target in enumerate(("y", "z")):
        half = sorted(model.calibration.residuals_NT[:, number])[math.ceil(46 * 0.8) - 1]
        mean_B = predictions_KBT.mean(axis=0)[:, number]
        np.testing.assert_allclose(out[f"predicted_{target}"], mean_B, rtol=1e-9)
        np.testing.assert_allclose(out[f"lower_{target}"], mean_B - half, rtol=1e-9)
        np.testing.assert_allclose(out[f"upper_{target}"], mean_B + half, rtol=1e-9)
    assert list(out)[-4:] == ["lower_y", "lower_z", "upper_y", "upper_z"]
    assert "45 validation rows (split conformal)" in notes[0]


@pytest.mark.parametrize(("name", "targets"), [("folds", "yz"), ("bagged", "yz"), ("best", "y")])
def test_intervals_of_folds_are_made_of_what_each_fold_predicts(models, tmp_path, name, targets) -> None:
    """By the definition of CV+, row by row, with the residuals and weights that the folder says."""
    new = frame(12, seed=2)
    out, _ = predicted(models[name], tmp_path, new, interval=0.9)
    predictions_KBT, model = of_members(models[name], new)
    residuals_NT, fold_N = model.calibration.residuals_NT, model.calibration.fold_N
    fold_of_member, weights_K = np.array(model.calibration.fold_of_member), np.array(model.module.weights_K)
    for number, target in enumerate(targets):
        for row in range(len(new)):
            of_fold = {}
            for fold in range(3):
                here = fold_of_member == fold
                of_fold[fold] = (weights_K * predictions_KBT[:, row, number])[here].sum() / weights_K[here].sum()
            centres_N = np.array([of_fold[int(fold)] for fold in fold_N])
            place = rank(len(fold_N), 0.9) - 1
            high = np.sort(centres_N + residuals_NT[:, number])[place]
            low = np.sort(centres_N - residuals_NT[:, number])[::-1][place]
            assert out[f"upper_{target}"][row] == pytest.approx(high, rel=1e-9)
            assert out[f"lower_{target}"][row] == pytest.approx(low, rel=1e-9)


def test_out_of_fold_residuals_are_those_of_the_predictions_that_are_kept(models) -> None:
    for name in ("folds", "bagged"):
        table = pd.read_csv(models[name].parents[1] / "out_of_fold.csv").sort_values(["fold", "row"])
        kept = load_model(models[name]).calibration
        assert kept is not None
        expected_NT = np.abs(np.stack([table[one] - table[f"predicted_{one}"] for one in "yz"], axis=1))
        order = np.lexsort((kept.residuals_NT[:, 0], kept.fold_N))
        np.testing.assert_allclose(
            kept.residuals_NT[order], expected_NT[np.lexsort((expected_NT[:, 0], table["fold"]))], rtol=1e-6, atol=1e-9
        )
        assert np.array_equal(np.asarray(kept.fold_N)[order], np.sort(table["fold"]))


def test_the_residuals_of_a_preset_have_the_error_that_it_reports(models) -> None:
    kept = load_model(models["best"]).calibration
    result = json.loads((models["best"].parents[1] / "result.json").read_text(encoding="utf-8"))
    assert kept is not None
    assert kept.residuals_NT.mean() == pytest.approx(result["metrics"]["val"]["mae"], rel=1e-6)


def test_the_promised_share_of_new_rows_lies_inside(tmp_path) -> None:
    """Given n residuals, the share of all new rows inside has the distribution Beta(rank, n + 1 - rank)."""
    config = asked(report_weights="last", data={"val_fraction": 0.5})
    train(config, tmp_path / "run", frame=frame(800, seed=3))
    new = frame(20_000, seed=4)
    for level in (0.5, 0.9):
        out, notes = predicted(tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path, new, interval=level)
        place = rank(400, level)
        mean, deviation = place / 401, math.sqrt(place * (401 - place) / 401**2 / 402)
        for target in ("y", "z"):
            inside = new[target].between(out[f"lower_{target}"], out[f"upper_{target}"]).mean()
            assert inside == pytest.approx(mean, abs=4 * deviation + 4 * math.sqrt(level * (1 - level) / 20_000))
        assert f"at least {level:g} is proven" in notes[1]


def test_what_the_rows_were_used_for_is_said(models, tmp_path) -> None:
    new = frame(5, seed=1)
    said = {name: " ".join(predicted(path, tmp_path, new, interval=0.9)[1]) for name, path in models.items()}
    assert "at least 0.9 is proven" in said["single"]
    assert "chose the weights that are reported" in said["ensemble"]
    assert "0.9 is usual" in said["folds"]
    assert f"at least {0.8 - math.sqrt(2 / 150):.3g} is proven" in said["folds"]
    assert "chose the weights that are reported, so" in said["bagged"]
    assert "selected and weighted the candidates" in said["best"]
    assert "proven" not in said["ensemble"] + said["bagged"] + said["best"]


def test_rows_of_another_time_are_not_promised_anything(tmp_path) -> None:
    table = frame(60).assign(day=pd.date_range("2026-01-01", periods=60))
    train(asked(data={"time_column": "day"}), tmp_path / "run", frame=table)
    _, notes = predicted(tmp_path / "run" / "checkpoints" / "best.ckpt", tmp_path, frame(3), interval=0.9)
    assert "data.time_column" in notes[-1]


@pytest.mark.parametrize("name", ["ensemble", "folds", "best"])
def test_quantiles_of_members(models, tmp_path, name) -> None:
    new, shares = frame(20, seed=5), [0.0, 0.25, 0.5, 1.0]
    out, notes = predicted(models[name], tmp_path, new, member_quantiles=shares)
    predictions_KBT, model = of_members(models[name], new)
    assert notes == []
    for row in range(20):
        order = np.argsort(predictions_KBT[:, row, 0])
        up_to = np.cumsum(np.array(model.module.weights_K)[order])
        for share in shares:
            first = next(k for k, weight in zip(order, up_to, strict=True) if weight >= share - 1e-9)
            assert out[f"member_q{share:g}_y"][row] == predictions_KBT[first, row, 0]


def refused(path: Path, folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        predict(path, output=folder / "new" / "out.csv", frame=frame(3), **options)
    assert not (folder / "new").exists()
    return str(error.value)


def test_what_cannot_be_had_is_refused(models, tmp_path) -> None:
    assert "at least 99 rows, and the checkpoint has 45" in refused(models["single"], tmp_path, interval=0.99)
    assert "the highest level with these is 0.978" in refused(models["single"], tmp_path, interval=0.99)
    predicted(models["single"], tmp_path, frame(3), interval=0.978)
    assert "less than 1" in refused(models["single"], tmp_path, interval=1.0)
    assert "single network" in refused(models["single"], tmp_path, member_quantiles=[0.5])
    for wrong in ([], [0.5, 0.1], [0.5, 0.5], [1.5]):
        assert "ascending" in refused(models["folds"], tmp_path, member_quantiles=wrong)
    train(asked(data={"val_fraction": 0.0}), tmp_path / "none", frame=frame(30))
    assert "data.cv.folds=5" in refused(tmp_path / "none" / "checkpoints" / "last.ckpt", tmp_path, interval=0.5)
    table = frame(60).assign(y=lambda one: np.where(one["y"] > 200, "high", "low")).drop(columns="z")
    train_ensemble(asked(["y"], ensemble={"members": 2}), tmp_path / "classes", frame=table)
    of_classes = tmp_path / "classes" / "checkpoints" / "best.ckpt"
    assert "probabilities" in refused(of_classes, tmp_path, interval=0.9)
    assert "std_<target>" in refused(of_classes, tmp_path, member_quantiles=[0.5])


def test_an_id_column_cannot_have_the_name_of_a_bound(models, tmp_path) -> None:
    with pytest.raises(ConfigError, match="is the name of a column of predictions"):
        predict(
            models["single"],
            output=tmp_path / "a.csv",
            frame=frame(3).assign(lower_y=1),
            id_columns=["lower_y"],
            interval=0.5,
        )
    predict(models["single"], output=tmp_path / "a.csv", frame=frame(3).assign(lower_y=1), id_columns=["lower_y"])


def test_an_export_says_what_it_lacks(models, tmp_path) -> None:
    assert "intervals" in export_model(models["single"], "safetensors", tmp_path / "one").not_exported
    assert "std_<target>" in export_model(models["folds"], "safetensors", tmp_path / "two").not_exported


def test_the_command(models, tmp_path) -> None:
    frame(6).to_csv(tmp_path / "new.csv", index=False)
    words = [f"ckpt_path={models['folds']}", f"data.path={tmp_path / 'new.csv'}", f"output={tmp_path / 'out.csv'}"]
    done = run_forked(
        str(ROOT / "scripts" / "predict.py"), *words, "interval=0.9", "member_quantiles=[0.1,0.9]", folder=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "150 rows that folds held out (CV+)" in done.stdout
    assert list(pd.read_csv(tmp_path / "out.csv"))[-4:] == [
        "member_q0.1_y",
        "member_q0.1_z",
        "member_q0.9_y",
        "member_q0.9_z",
    ]
    again = run_forked(
        str(ROOT / "scripts" / "predict.py"), *words, "interval=0.999", "overwrite=true", folder=tmp_path
    )
    assert again.returncode == 2
    assert "interval = 0.999" in again.stderr
    wrong = run_forked(str(ROOT / "scripts" / "predict.py"), *words, "interval=1.2", "overwrite=true", folder=tmp_path)
    assert wrong.returncode == 2
    assert "must be greater than 0 and less than 1" in wrong.stderr
