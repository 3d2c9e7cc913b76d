"""New rows with numbers far from all training rows: named by every command, of models that know the quartiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import mlp_lightning
from mlp_lightning.errors import CheckpointError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.explanation.explain import explain
from mlp_lightning.inference.predict import predict

CONFIG: dict[str, Any] = {
    "data": {"name": "table", "target": "y", "val_fraction": 0, "test_fraction": 0},
    "model": {"hidden_units": 4, "depth": 1},
    "scheduler": "none",
    "trainer": {"max_steps": 5, "accelerator": "cpu"},
    "logger": {"graph": False},
    "verbosity": 0,
}


def table(wild: dict[int, float] | None = None, rows: int = 120) -> pa.Table:
    draw = np.random.default_rng(4)
    width, place = draw.normal(30, 4, rows), draw.normal(size=rows)
    for row, value in (wild or {}).items():
        width[row] = value
    return pa.table({"place": place, "width": width, "y": ["low", "high"] * (rows // 2)})


def trained(folder: Path, **options: Any) -> Path:
    config = {**CONFIG, "data": {**CONFIG["data"], **options}}
    return mlp_lightning.train(config, folder, frame=table()).run_dir / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("wild", "said"),
    [({17: -3e7}, "-30000000 in {}row 18"), ({5: 1e6, 9: 4e9}, "4000000000 in {}row 10 (and 1 more such rows)")],
)
@pytest.mark.parametrize("kind", ["frame", "file"])
def test_new_rows(tmp_path: Path, wild: dict[int, float], said: str, kind: str) -> None:
    model, path = trained(tmp_path / "run"), tmp_path / "new.parquet"

    def given(rows: pa.Table) -> dict[str, Any]:
        pq.write_table(rows, path)
        return {"frame": rows} if kind == "frame" else {"data_path": str(path)}

    low, high = np.percentile(table().column("width"), [25, 75])
    place = said.format("" if kind == "frame" else "new.parquet, ")
    line = (
        f"width: {place} is far from the training rows, half of which are from {low:.4g} to {high:.4g}: do not rely on"
        " predictions so far out; check the value"
    )
    for rows, expected in ((table(wild), [line]), (table({3: 45.0}), [])):
        assert predict(model, output=tmp_path / "p.csv", overwrite=True, **given(rows)).surprises == expected
        assert evaluate(model, tmp_path / "e", **given(rows)).surprises == expected
        assert explain(model, tmp_path / "x", repeats=2, **given(rows)).rows.surprises == expected


def test_models_of_an_earlier_version_and_of_other_scales(tmp_path: Path) -> None:
    """Without quartiles a model predicts, continues and is evaluated on its rows as before."""
    model, new = trained(tmp_path / "run", test_fraction=0.25), table({17: 1e9})
    content = torch.load(model, weights_only=True)
    plain = content["hyper_parameters"]["preprocessing"]
    assert plain["quartiles"].keys() == {"place", "width"}
    del plain["quartiles"]
    torch.save(content, model)
    assert predict(model, output=tmp_path / "p.csv", frame=new).surprises == []
    longer = {**CONFIG, "data": {**CONFIG["data"], "test_fraction": 0.25}, "trainer": {"max_steps": 7}}
    continued = mlp_lightning.train({**longer, "ckpt_path": str(model)}, tmp_path / "longer", frame=table())
    assert continued.steps == 7
    model = continued.run_dir / "checkpoints" / "last.ckpt"
    assert len(predict(model, output=tmp_path / "q.csv", frame=new).surprises) == 1
    # What bounds a single value has none to warn of.
    bounded = trained(tmp_path / "quantile", scaling="quantile")
    assert predict(bounded, output=tmp_path / "r.csv", frame=new).surprises == []


@pytest.mark.parametrize("quartiles", [{"width": [1.0, 2.0]}, {"width": "abc"}, {"width": [1.0, None, 2.0]}, [1.0]])
def test_quartiles_that_are_none(tmp_path: Path, quartiles: Any) -> None:
    model = trained(tmp_path / "run")
    content = torch.load(model, weights_only=True)
    content["hyper_parameters"]["preprocessing"]["quartiles"] = quartiles
    torch.save(content, model)
    with pytest.raises(CheckpointError, match=r"quartiles|made by another version"):
        predict(model, output=tmp_path / "p.csv", frame=table())


def test_an_ensemble_of_folds(tmp_path: Path) -> None:
    config = {**CONFIG, "data": {**CONFIG["data"], "cv": {"folds": 3}}}
    ensemble = (
        mlp_lightning.cross_validate(config, tmp_path / "cv", frame=table()).run_dir / "checkpoints" / "best.ckpt"
    )
    (line,) = predict(ensemble, output=tmp_path / "p.csv", frame=table({17: 1e9})).surprises
    assert line.startswith("width: 1000000000 in row 18 is far from the training rows")
