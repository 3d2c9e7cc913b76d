"""The best is the same in ``best.ckpt``, in ``result.json`` and in the reported metrics."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from support.configurations import ComposeConfig
from support.tables import set_up

import mlp_lightning
from mlp_lightning.config import parse_config
from mlp_lightning.errors import ConfigError, TrainingError
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.report import report_lines
from mlp_lightning.tables.reading.memory import MemorySource

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
    with pytest.raises(TrainingError, match="ended after 1 step, before the first validation"):
        mlp_lightning.train(config, tmp_path / "run", callbacks=[Stops()])
    assert recorded(tmp_path / "run")["metrics"] == {}
    assert checkpoint(tmp_path / "run", "last")["global_step"] == 1
    results = train_stack([config] * 2, [tmp_path / "a", tmp_path / "b"], callbacks=[Stops()])
    assert [one.status for one in results] == ["failed", "failed"]


def noisy(rows: int = 60) -> pa.Table:
    """One column decides, five are noise, and a network of 64 units overfits."""
    draw = np.random.default_rng(2)
    x = draw.normal(size=(rows, 6))
    y = np.where(x[:, 0] + draw.normal(size=rows) > 0, "up", "down")
    return pa.table({**{f"x{number}": x[:, number] for number in range(6)}, "y": y})


def on_noise(**changes: Any) -> dict[str, Any]:
    sections: dict[str, Any] = {
        "data": {"name": "table", "target": "y", "val_fraction": 0.3, "test_fraction": 0, "batch_size": 10},
        "model": {"hidden_units": 64, "depth": 1},
        "optimizer": {"option": "adam", "lr": 0.02},
        "trainer": {"max_epochs": 30, "accelerator": "cpu"},
        "scheduler": "none",
        "logger": {"graph": False},
        "verbosity": 0,
    }
    for key, value in changes.items():
        sections[key] = {**sections[key], **value} if isinstance(sections.get(key), dict) else value
    return sections


def test_weights_of_a_table_are_those_of_its_best_validation(tmp_path: Path) -> None:
    by_default = mlp_lightning.train(on_noise(), tmp_path / "default", frame=noisy())
    last = mlp_lightning.train(on_noise(report_weights="last"), tmp_path / "last", frame=noisy())
    best = mlp_lightning.train(on_noise(report_weights="best"), tmp_path / "best", frame=noisy())
    assert (by_default.weights, last.weights, best.weights) == ("best", "last", "best")
    assert by_default.metrics == best.metrics
    found = by_default.validation
    assert found is not None
    assert found == last.validation == recorded(tmp_path / "default")["validation"]
    assert found["best"]["step"] < found["last"]["step"] == by_default.steps
    assert found["best"]["loss"] == by_default.metrics["val"]["loss"] == pytest.approx(by_default.best["value"])
    assert found["last"]["loss"] == last.metrics["val"]["loss"] > 1.5 * found["best"]["loss"]
    # The module that is returned is the one that was measured.
    data = set_up(noisy(), val_fraction=0.3)
    rows = data.splits["val"]
    module = by_default.module.eval()
    loss = module.task.loss(module.mlp(rows.features_BF), rows.targets)
    assert loss.item() == pytest.approx(by_default.metrics["val"]["loss"], rel=1e-5)


def test_what_is_shown_of_overfitting(tmp_path: Path) -> None:
    result = mlp_lightning.train(on_noise(), tmp_path / "run", frame=noisy())
    title, _, *rows, _, overfitting, _, _, _ = report_lines(result, "")
    best, last = result.validation["best"], result.validation["last"]
    assert title == f"Final metrics (best weights, of step {best['step']})"
    assert [row.split("  ")[1] for row in rows] == ["training", "validation", "validation, last weights (step 150)"]
    loss, _, accuracy, _ = rows[2].split()[-4:]  # each with its baseline
    assert (loss, accuracy) == (f"{last['loss']:.6g}", f"{last['accuracy']:.6g}")
    assert overfitting.startswith(f"Overfitting: the validation loss was {best['loss']:.4g} after {best['step']} steps")
    assert f"ends at {last['loss']:.4g}" in overfitting
    last_weights = dataclasses.replace(result, weights="last", validation={"best": last, "last": last})
    assert "Overfitting" not in "".join(report_lines(last_weights, ""))
    assert report_lines(last_weights, "")[0] == "Final metrics (last weights)"


def test_a_stack_reports_the_best_of_each_member(tmp_path: Path) -> None:
    configs = [
        parse_config({**on_noise(), "data": {**on_noise()["data"], "name": "frame"}, "seed": seed}) for seed in range(2)
    ]
    source = MemorySource(noisy(), "frame")
    stacked = train_stack(configs, [tmp_path / "0", tmp_path / "1"], source=source)
    for seed, one in enumerate(stacked):
        alone = mlp_lightning.train(configs[seed], tmp_path / f"alone{seed}", frame=source)
        assert (one.weights, one.best["step"]) == ("best", alone.best["step"])
        assert one.metrics["val"] == pytest.approx(alone.metrics["val"], rel=1e-4)
        for which in ("best", "last"):
            assert one.validation[which] == pytest.approx(alone.validation[which], rel=1e-4)


LAST_BY_DEFAULT: dict[str, dict[str, Any]] = {
    "no validation rows": {"data": {"val_fraction": 0}},
    "no checkpoints": {"callbacks": {"checkpoint": None}},
    "the best by the training loss": {"callbacks": {"checkpoint": {"monitor": "loss/train"}}},
    "no validation before the end": {"trainer": {"max_epochs": None, "max_steps": 3}},
}


@pytest.mark.parametrize("case", LAST_BY_DEFAULT)
def test_without_a_best_validation_the_last_weights_are_reported(case: str, tmp_path: Path) -> None:
    result = mlp_lightning.train(on_noise(**LAST_BY_DEFAULT[case]), tmp_path / "run", frame=noisy())
    assert (result.status, result.weights, result.validation) == ("finished", "last", None)
    last = mlp_lightning.train(on_noise(**LAST_BY_DEFAULT[case], report_weights="last"), tmp_path / "b", frame=noisy())
    assert result.metrics == last.metrics


def test_a_callback_that_ends_a_training_before_its_first_validation(tmp_path: Path) -> None:
    config = on_noise(trainer={"steps_per_execution": 1})
    result = mlp_lightning.train(config, tmp_path / "run", callbacks=[Stops()], frame=noisy())
    assert (result.status, result.steps, result.weights) == ("finished", 1, "last")


def test_iris_as_published_reports_its_last_weights(tmp_path: Path, compose_config: ComposeConfig) -> None:
    result = mlp_lightning.train(compose_config(*IRIS, "trainer.max_epochs=3"), tmp_path / "run")
    assert result.weights == "last"


def test_folds_predict_with_the_weights_that_they_report(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(noisy(), tmp_path / "rows.csv")
    section = {**on_noise()["data"], "path": str(tmp_path / "rows.csv"), "cv": {"folds": 2}}
    result = mlp_lightning.cross_validate({**on_noise(), "data": section}, tmp_path / "folds")
    for fold, metrics in enumerate(result.folds):
        own = recorded(tmp_path / "folds" / f"fold-{fold}")
        assert own["weights"] == "best"
        assert metrics["log_loss"] == pytest.approx(own["metrics"]["test"]["loss"], rel=1e-4)


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
