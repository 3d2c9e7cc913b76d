"""The best is the same in ``best.ckpt``, in ``result.json`` and in the reported metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from support.configurations import ComposeConfig

import mlp_lightning
from mlp_lightning.errors import ConfigError, TrainingError
from mlp_lightning.runs import train_stack

# Iris has 90 training rows: with 30 a batch an epoch has 3 steps.
IRIS = ["data=iris", "data.batch_size=30", "optimizer=adam", "logger.graph=false", "trainer.threads=1"]


def recorded(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def checkpoint(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


class Breaks(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step:
            raise RuntimeError("broken")


@pytest.mark.parametrize(("every", "saved_at"), [(9, 9), (None, None)])
def test_failed_run_names_the_best_that_is_on_the_disk(
    every: int | None, saved_at: int | None, tmp_path: Path, compose_config: ComposeConfig
) -> None:
    case = [*IRIS, "trainer.max_steps=60", "trainer.steps_per_execution=3", "callbacks.checkpoint.every_n_seconds=null"]
    case += [f"callbacks.checkpoint.every_n_steps={'null' if every is None else every}"]
    with pytest.raises(RuntimeError, match="broken"):
        mlp_lightning.train(compose_config(*case), tmp_path / "run", callbacks=[Breaks(15)])
    best = recorded(tmp_path / "run")["best"]
    if saved_at is None:
        assert best is None
        assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    else:  # better ones came after it
        assert best["step"] == saved_at == checkpoint(tmp_path / "run", "best")["global_step"]


@pytest.mark.parametrize(
    "case", [["trainer.max_steps=2"], ["trainer.max_steps=8", "trainer.check_val_every_n_epoch=3"]]
)
def test_best_before_the_first_validation_is_refused(
    case: list[str], tmp_path: Path, compose_config: ComposeConfig
) -> None:
    config = compose_config(*IRIS, *case, "report_weights=best")
    enough = 3 if len(case) == 1 else 9
    with pytest.raises(ConfigError, match=f"set trainer.max_steps={enough} or more"):
        mlp_lightning.train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="report_weights = 'best' needs a validation"):
        train_stack([config] * 2, [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "a").exists()
    longer = compose_config(*IRIS, *case, f"trainer.max_steps={enough}", "report_weights=best")
    assert mlp_lightning.train(longer, tmp_path / "longer").status == "finished"


def test_best_that_is_known_needs_no_further_validation(tmp_path: Path, compose_config: ComposeConfig) -> None:
    mlp_lightning.train(compose_config(*IRIS, "trainer.max_steps=3"), tmp_path / "first")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    case = [*IRIS, "trainer.max_steps=5", "report_weights=best", f"ckpt_path={last}"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "second")
    assert result.best is not None
    assert result.best["step"] == 3
    assert result.best["value"] == pytest.approx(result.metrics["val"]["loss"])
    # By another metric there is no best yet, and the new folder has no best of the old metric.
    case += ["callbacks.checkpoint.monitor=accuracy/val"]
    with pytest.raises(ConfigError, match="report_weights = 'best' needs a validation"):
        mlp_lightning.train(compose_config(*case), tmp_path / "third")
    last_weights = mlp_lightning.train(compose_config(*case, "report_weights=last"), tmp_path / "fourth")
    assert last_weights.best is None
    assert not (tmp_path / "fourth" / "checkpoints" / "best.ckpt").exists()


class Stops(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = True


def test_best_of_a_training_that_a_callback_ends_too_soon(tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config(*IRIS, "trainer.max_steps=9", "trainer.steps_per_execution=1", "report_weights=best")
    with pytest.raises(TrainingError, match="ended after 1 steps, before the first validation"):
        mlp_lightning.train(config, tmp_path / "run", callbacks=[Stops()])
    assert recorded(tmp_path / "run")["metrics"] == {}
    assert checkpoint(tmp_path / "run", "last")["global_step"] == 1
    results = train_stack([config] * 2, [tmp_path / "a", tmp_path / "b"], callbacks=[Stops()])
    assert [one.status for one in results] == ["failed", "failed"]


@pytest.mark.parametrize("every", [3, 4])  # with each validation, and seldom with one
def test_best_by_training_loss_continues_to_the_same_bits(
    every: int, tmp_path: Path, compose_config: ComposeConfig
) -> None:
    """A validation at the same step is part of the best: here it lowers the learning rate."""
    case = [*IRIS, "optimizer.lr=0.05", f"callbacks.checkpoint.every_n_steps={every}"]
    case += ["callbacks.checkpoint.monitor=loss/train", "scheduler=plateau", "scheduler.patience=0"]
    case += ["scheduler.factor=0.5", "trainer.max_steps=60"]
    whole = mlp_lightning.train(compose_config(*case), tmp_path / "whole")
    part = mlp_lightning.train(compose_config(*case, "trainer.max_steps=36"), tmp_path / "part")
    best = part.run_dir / "checkpoints" / "best.ckpt"
    continued = mlp_lightning.train(compose_config(*case, f"ckpt_path={best}"), tmp_path / "continued")
    assert (continued.run_dir / "metrics.csv").read_text() == (whole.run_dir / "metrics.csv").read_text()
    assert continued.best == whole.best
