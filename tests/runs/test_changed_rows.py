"""Rows that are not those that a run was trained on, and runs whose rows differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.configurations import ComposeConfig

import mlp_lightning
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs import train_stack
from mlp_lightning.sweeps.grouping import group_runs
from mlp_lightning.sweeps.sizes import SizesOf

FRAME: dict[str, Any] = {
    "data": {"name": "table", "target": "y", "val_fraction": 0, "test_fraction": 0},
    "model": {"hidden_units": 4, "depth": 1},
    "scheduler": "none",
    "trainer": {"max_steps": 6, "accelerator": "cpu"},
    "logger": {"graph": False},
    "verbosity": 0,
}


def rows(scale: float = 1.0) -> pa.Table:
    draw = np.random.default_rng(0)
    return pa.table({"a": draw.normal(size=40) * scale, "y": [*"ab"] * 20})


def test_a_run_does_not_continue_on_rows_of_another_scale(tmp_path: Path) -> None:
    first = mlp_lightning.train(FRAME, tmp_path / "first", frame=rows())
    longer = {**FRAME, "trainer": {**FRAME["trainer"], "max_steps": 9}}
    longer["ckpt_path"] = str(first.run_dir / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match="columns, categories, scales or targets differ"):
        mlp_lightning.train(longer, tmp_path / "second", frame=rows(scale=-1000))
    assert mlp_lightning.train(longer, tmp_path / "third", frame=rows()).steps == 9


def test_runs_with_other_numbers_of_folds_have_other_rows(tmp_path: Path, compose_config: ComposeConfig) -> None:
    case = ["data=iris", "trainer.max_steps=5", "logger.graph=false", "trainer.threads=1", "data.val_fraction=0"]
    configs = [compose_config(*case, f"data.cv.folds={folds}", "data.cv.fold=0") for folds in (3, 10)]
    alone = [mlp_lightning.train(one, tmp_path / f"alone{number}") for number, one in enumerate(configs)]
    stacked = train_stack(configs, [tmp_path / "a", tmp_path / "b"])
    for one, other in zip(stacked, alone, strict=True):
        assert one.metrics["test"]["loss"] == pytest.approx(other.metrics["test"]["loss"], rel=1e-5)
    assert stacked[0].metrics["test"]["loss"] != pytest.approx(stacked[1].metrics["test"]["loss"], rel=1e-3)


def test_runs_with_other_epochs_are_other_stacks(tmp_path: Path, compose_config: ComposeConfig) -> None:
    """Groups of rows stay together, so that splits have other numbers of rows."""
    groups = np.repeat(np.arange(6), [3, 40, 8, 30, 5, 25])
    draw = np.random.default_rng(0)
    text = "".join(f"{draw.normal():.4f},{'ab'[number % 2]},g{group}\n" for number, group in enumerate(groups))
    (tmp_path / "rows.csv").write_text("x,y,g\n" + text)
    case = ["data=table", f"data.path={tmp_path / 'rows.csv'}", "data.target=y", "data.group_column=g"]
    case += ["data.batch_size=16", "trainer.max_steps=6", "model=wide", "data.test_fraction=0"]
    configs = [compose_config(*case, f"seed={seed}") for seed in range(6)]
    grouping = group_runs(configs, SizesOf(), 10**9)
    epochs = {one.steps_per_epoch for one in map(SizesOf(), configs)}
    assert len(epochs) > 1
    assert len(grouping.stacks) + len(grouping.alone) >= len(epochs)
    for number, stack in enumerate(grouping.stacks):
        folders = [tmp_path / f"{number}-{index}" for index in stack]
        assert {one.status for one in train_stack([configs[index] for index in stack], folders)} == {"finished"}
