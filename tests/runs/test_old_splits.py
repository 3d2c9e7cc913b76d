"""Runs of an earlier version, which split rows of several labels at random: they keep their split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import train_forked

import mlp_lightning
from mlp_lightning.config import parse_config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.errors import CheckpointError, DataError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.tables.splits import random_split

TARGETS = ["rain", "frost"]
EARLIER = "the same rows, which an earlier version of this package split in another way"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Words alone, of which all occur in every part: neither categories nor scales tell one split from another."""
    draw = np.random.default_rng(4)
    lines = [f"{'ab'[row % 2]},{'pq'[row % 3 > 0]},{int(draw.random() < 0.2)},{row % 2}" for row in range(80)]
    file = tmp_path / "days.csv"
    file.write_text("\n".join(["u,v,rain,frost", *lines]) + "\n", encoding="utf-8")
    return file


def config_of(path: Path, steps: int = 4, **data: Any) -> dict[str, Any]:
    return {
        "data": {"name": "table", "path": str(path), "target": TARGETS, **data},
        "model": {"hidden_units": 3, "depth": 1},
        "scheduler": "none",
        "trainer": {"max_steps": steps, "accelerator": "cpu"},
        "logger": {"graph": False},
        "verbosity": 0,
    }


def old_run(path: Path, folder: Path) -> Path:
    """Trains as that version did; returns its checkpoint."""
    config = parse_config(config_of(path))
    data = TabularDataModule.from_config(config, Given(splits_by_labels=False))
    data.setup()
    options = config.data
    expected = random_split(80, options.val_fraction, options.test_fraction, config.seed)
    for split, rows in zip(("train", "val", "test"), expected, strict=True):
        assert data.row_numbers[split].tolist() == rows.tolist()
    assert "split" not in data.fingerprint["data"]
    return mlp_lightning.train(config, folder, data=data).run_dir / "checkpoints" / "last.ckpt"


def test_it_is_continued_and_evaluated_with_its_split(tmp_path: Path, path: Path) -> None:
    last = old_run(path, tmp_path / "old")
    result = json.loads((tmp_path / "old" / "result.json").read_text())
    best = last.with_name("best.ckpt")
    for split in ("train", "val"):
        loss = evaluate(best, tmp_path / "evaluation", split=split).metrics["log_loss"]
        assert loss == pytest.approx(result["metrics"][split]["loss"], rel=1e-5)
    continued = mlp_lightning.train({**config_of(path, steps=5), "ckpt_path": str(last)}, tmp_path / "continued")
    assert continued.steps == 5
    data = mlp_lightning.train(config_of(path, steps=5), tmp_path / "new")
    assert continued.metrics["val"]["loss"] != pytest.approx(data.metrics["val"]["loss"], rel=1e-6)
    # It is still a run of the earlier version, and can be continued once more.
    content = torch.load(continued.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["fingerprint"] == result["fingerprint"]


def test_one_without_a_fingerprint_is_as_old(tmp_path: Path, path: Path) -> None:
    last = old_run(path, tmp_path / "old")
    content = torch.load(last, weights_only=True)
    del content["fingerprint"]
    torch.save(content, last)
    again = {**config_of(path, steps=5), "ckpt_path": str(last)}
    assert mlp_lightning.train(again, tmp_path / "continued").steps == 5


def test_new_runs_are_split_by_their_labels(tmp_path: Path, path: Path) -> None:
    result = mlp_lightning.train(config_of(path), tmp_path / "new")
    assert json.loads((tmp_path / "new" / "result.json").read_text())["fingerprint"]["data"]["split"] == "by labels"
    last = result.run_dir / "checkpoints" / "last.ckpt"
    loss = result.metrics["val"]["loss"]
    again = mlp_lightning.train({**config_of(path, steps=5), "ckpt_path": str(last)}, tmp_path / "continued")
    assert (again.steps, loss > 0) == (5, True)
    evaluate(last, tmp_path / "evaluation", split="val")


def test_rows_that_a_caller_has_split_anew_are_refused(tmp_path: Path, path: Path) -> None:
    last = old_run(path, tmp_path / "old")
    config = {**config_of(path, steps=5), "ckpt_path": str(last)}
    data = TabularDataModule.from_config(parse_config(config))
    data.setup()
    with pytest.raises(CheckpointError, match=EARLIER):
        mlp_lightning.train(config, tmp_path / "refused", data=data)
    rows = json.loads((tmp_path / "old" / "result.json").read_text())["fingerprint"]
    with pytest.raises(DataError, match=EARLIER):
        mlp_lightning.train(config_of(path), tmp_path / "refused", rows=rows)


@pytest.mark.slow
def test_a_sweep_of_that_version_is_not_continued_with_another_split(tmp_path: Path, path: Path) -> None:
    command = ("-m", "data=table", f"data.target=[{','.join(TARGETS)}]", f"data.path={path}", "sweep.name=both")
    command = (*command, "name=t", "trainer.max_steps=4", "logger=none")
    assert train_forked(*command, "seed=3,4", folder=tmp_path).returncode == 0
    for file in tmp_path.glob("lightning_logs/t/both/*/result.json"):
        result = json.loads(file.read_text())
        assert result["fingerprint"]["data"].pop("split") == "by labels"
        file.write_text(json.dumps(result))
    refused = train_forked(*command, "seed=3,4,5", "sweep.resume=true", folder=tmp_path)
    assert (refused.returncode, EARLIER in refused.stderr) == (2, True)
