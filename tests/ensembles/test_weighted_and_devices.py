"""Row weights in ``preset=best``, where an ensemble was trained, what continues it, and what its members share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_squared_error
from support.commands import ROOT, run_forked

from mlp_lightning import train, train_best, train_ensemble
from mlp_lightning.errors import CheckpointError
from mlp_lightning.inference.loading import load_model
from mlp_lightning.networks.ensemble import Ensemble
from mlp_lightning.runs.build import build_data
from mlp_lightning.sweeps.folds import of_fold, of_member


def frame(rows: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(3)
    table = pd.DataFrame(random.normal(size=(rows, 2)), columns=["a", "b"])
    table["w"] = random.choice([0.0, 1.0, 40.0], rows, p=[0.1, 0.6, 0.3])
    table["value"] = 5 + table["a"] * 3 + random.normal(size=rows) * np.where(table["w"] > 1, 0.1, 2.0)
    table["label"] = np.where(table["value"] > 8, "high", "low")
    return table


def asked(target: str, **data: Any) -> dict[str, Any]:
    other = {"label": "value", "value": "label"}[target]
    cv = {"folds": 3, "held_out_as": "val"}
    section = {"name": "frame", "target": target, "columns": {other: {"kind": "ignored"}}, "test_fraction": 0.0}
    trainer = {"max_epochs": 3, "accelerator": "cpu"}
    return {"data": {**section, "cv": cv, **data}, "trainer": trainer, "verbosity": 0, "seed": 2}


def given(table: pd.DataFrame) -> Any:
    from mlp_lightning.data.reading import Given
    from mlp_lightning.runs.fit import parsed_with_rows

    return Given(parsed_with_rows({"data": {"name": "table", "target": "label"}}, table)[2])


def test_held_out_rows_count_by_the_weight_column(tmp_path: Path) -> None:
    """The loss of a candidate, against scikit-learn's, from predictions of its checkpoints and the column itself."""
    import pyarrow as pa

    from mlp_lightning.tables.encoding import encode

    table = frame()
    config = {**asked("value", weight_column="w"), "preset": {"name": "best", "candidates": 1}}
    result = train_best(config, tmp_path / "run", frame=table)
    parsed = load_model(tmp_path / "run" / "checkpoints" / "best.ckpt").config
    losses, scale = [], 0.0
    for fold in range(3):
        data = build_data(of_fold(of_member(parsed, 0), fold), given(table))
        scale = scale or (data.target.scale or (1.0,))[0]
        rows = table.iloc[data.row_numbers["val"]]
        folder = tmp_path / "run" / "members" / "0" / f"fold-{fold}"
        weights = json.loads((folder / "result.json").read_text())["weights"]
        model = load_model(folder / "checkpoints" / f"{weights}.ckpt")
        found = model.predict(encode(pa.Table.from_pandas(rows, preserve_index=False), model.columns, str))[:, 0]
        losses.append(mean_squared_error(rows["value"] / scale, found / scale, sample_weight=rows["w"]))
    assert result.members[0]["metrics"]["val"]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(("column", "balance"), [("w", "none"), (None, "balanced"), ("w", "balanced"), (None, "none")])
def test_weights_are_in_one_unit_for_all_folds(column: str | None, balance: str, tmp_path: Path) -> None:
    table = frame()
    config = {**asked("label", weight_column=column, class_weight=balance), "preset": {"name": "best", "candidates": 1}}
    train_best(config, tmp_path / "run", frame=table)
    parsed = load_model(tmp_path / "run" / "checkpoints" / "best.ckpt").config
    for fold in range(3):
        data = build_data(of_fold(of_member(parsed, 0), fold), given(table))
        found, train_rows, rows = data.rows.row_weights, data.row_numbers["train"], data.row_numbers["val"]
        base = np.ones(len(table)) if column is None else table["w"].to_numpy() / table["w"].max()
        if balance == "balanced":
            labels = (table["label"] == "low").to_numpy().astype(int)
            sums = np.bincount(labels[train_rows], base[train_rows])
            base = base * sums.sum() / (2 * sums[labels])
        if column is None and balance == "none":
            assert found == {}
        else:
            np.testing.assert_allclose(found["val"], base[rows], rtol=1e-12)


def test_the_device_is_that_of_its_members(tmp_path: Path) -> None:
    """What a member that has finished says of itself is what the ensemble says."""
    config = {**asked("value", cv={}), "ensemble": {"members": 3}}
    first = train_ensemble(config, tmp_path / "run", frame=frame())
    assert first.device == "cpu"
    file = tmp_path / "run" / "members" / "1" / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "device": "cuda:3"}))
    (tmp_path / "run" / "result.json").unlink()
    again = train_ensemble(config, tmp_path / "run", frame=frame(), continues=True)
    assert again.device == "cpu, cuda:3"
    config = {**asked("value"), "preset": {"name": "best", "candidates": 1}}
    train_best(config, tmp_path / "best", frame=frame())
    for fold in range(3):
        file = tmp_path / "best" / "members" / "0" / f"fold-{fold}" / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "device": "mps:0"}))
    (tmp_path / "best" / "result.json").unlink()
    assert train_best(config, tmp_path / "best", frame=frame(), continues=True).device == "mps:0"


def test_members_share_what_prepares_their_rows(tmp_path: Path) -> None:
    config = {**asked("value"), "preset": {"name": "best", "candidates": 2}}
    train_best(config, tmp_path / "run", frame=frame())
    ensemble = load_model(tmp_path / "run" / "checkpoints" / "best.ckpt").module
    assert isinstance(ensemble, Ensemble)
    assert len(ensemble.preprocessors) == 3 <= len(ensemble.networks)


def test_models_of_one_split_hold_one_preprocessor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlp_lightning.ensembles import ensemble

    kept: list[Any] = []
    write = ensemble.write_ensemble
    monkeypatch.setattr(ensemble, "write_ensemble", lambda *args, **more: kept.extend(args[2]) or write(*args, **more))
    train_ensemble({**asked("value", cv={}), "ensemble": {"members": 4}}, tmp_path / "run", frame=frame())
    assert len(kept) == 4
    assert len({id(one.module.preprocessor) for one in kept}) == 1
    assert len({id(one.module.hparams["preprocessing"]) for one in kept}) == 1
    assert len({id(one.module._hparams_initial["preprocessing"]) for one in kept}) == 1


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize("several", [["data.cv.folds=2"], ["ensemble.members=2"]])
def test_no_checkpoint_of_several_trainings_is_continued(which: str, several: list[str], tmp_path: Path) -> None:
    frame(60).drop(columns="w").to_csv(tmp_path / "t.csv", index=False)
    words = [str(ROOT / "scripts" / "train.py"), "data=table", "data.path=t.csv", "data.target=value"]
    words += ["trainer.max_epochs=1"]
    assert run_forked(*words, folder=tmp_path).returncode == 0
    assert run_forked(*words, *several, folder=tmp_path).returncode == 0
    runs = sorted((tmp_path / "lightning_logs" / "table").iterdir())
    done = run_forked(*words, "trainer.max_epochs=2", f"ckpt_path={which}", folder=tmp_path)
    assert (done.returncode, "is several trainings" in done.stderr) == (2, True), done.stderr
    assert str(runs[-1].relative_to(tmp_path)) in done.stderr
    assert sorted((tmp_path / "lightning_logs" / "table").iterdir()) == runs


def test_python_names_the_folder_that_is_several(tmp_path: Path) -> None:
    config = {**asked("value", cv={}), "ensemble": {"members": 2}}
    train_ensemble(config, tmp_path / "several", frame=frame())
    with pytest.raises(CheckpointError, match=r"several, is several trainings"):
        train({**asked("value", cv={}), "ckpt_path": "last"}, tmp_path / "run", frame=frame())
    assert not (tmp_path / "run").exists()
