"""Checkpoints of an ``MLPModule``, and runs that continue from them bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from support.module_training import (
    EXECUTIONS,
    MakeTrainer,
    Traces,
    fitted,
    module_for,
    reported_metrics,
)
from support.tolerances import assert_same_bits, assert_same_state, assert_same_weights

from mlp_lightning.config import ModelConfig, OptimizerConfig
from mlp_lightning.config.schedules import CosineSchedule, PlateauSchedule
from mlp_lightning.data import IrisDataModule
from mlp_lightning.runs.module import MLPModule

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small


def test_a_checkpoint_has_all_it_takes(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = IrisDataModule(batch_size=30, scaling="standard", val_fraction=0.2, steps_per_execution=7)
    module = module_for(
        data,
        model=ModelConfig(hidden_units=[8, 5], activation="gelu", norm="batch", dropout=0.2),
        optimizer=OptimizerConfig("AdamW", 0.01, {"betas": [0.8, 0.99]}),
        scheduler=CosineSchedule(eta_min=1e-4),
        gradient_clip_val=0.5,
        histograms_every_n_steps=10,
    )
    trainer = fitted(make_trainer, data, module, max_steps=20)
    path = tmp_path / "some.ckpt"
    trainer.save_checkpoint(path)
    loaded = MLPModule.load_from_checkpoint(path, weights_only=True)
    assert_same_state(loaded.state_dict(), module.state_dict())
    assert dict(loaded.hparams) == dict(module.hparams)
    assert (loaded.config.optimizer, loaded.config.scheduler) == (module.config.optimizer, module.config.scheduler)
    rows = data.splits["val"]
    with torch.no_grad():
        assert_same_bits(loaded.eval()(rows.features_BF), module.eval()(rows.features_BF))


def test_loading_does_not_depend_on_the_global_generator(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = IrisDataModule()
    module = module_for(data)
    fitted(make_trainer, data, module, max_steps=3).save_checkpoint(tmp_path / "some.ckpt")
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    MLPModule.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    assert_same_bits(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
@pytest.mark.parametrize("stopped_at", [3, 8, 17])
def test_a_run_that_continues_from_a_checkpoint_ends_in_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path, stopped_at: int, steps_per_execution: int
) -> None:
    def data() -> IrisDataModule:
        return IrisDataModule(batch_size=40, val_fraction=0.2, seed=2, steps_per_execution=steps_per_execution)

    options: dict[str, Any] = {
        "optimizer": OptimizerConfig("Adam", 0.01),
        "scheduler": PlateauSchedule(monitor="loss/train", factor=0.5, patience=0, threshold=0.05),
    }
    whole, part, resumed = (module_for(data(), **options) for _ in range(3))
    whole_trainer = fitted(make_trainer, data(), whole, max_steps=30)
    fitted(make_trainer, data(), part, max_steps=stopped_at).save_checkpoint(tmp_path / "part.ckpt")
    traces = Traces()
    trainer = fitted(make_trainer, data(), resumed, tmp_path / "part.ckpt", max_steps=30, callbacks=[traces])
    assert len(traces.losses) == 30 - stopped_at
    assert traces.counters[-1] == (30, 9)
    assert (trainer.global_step, trainer.current_epoch) == (whole_trainer.global_step, whole_trainer.current_epoch)
    assert_same_weights(resumed, whole)
    learning_rates = [one.optimizers[0].param_groups[0]["lr"] for one in (trainer, whole_trainer)]
    assert learning_rates[0] == learning_rates[1] < 0.01


class SaveAt(pl.Callback):
    """Saves a checkpoint after the execution that ends at ``step``."""

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("after", EXECUTIONS)
@pytest.mark.parametrize("before", EXECUTIONS)
@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
def test_a_run_may_continue_with_other_executions(
    make_trainer: MakeTrainer, tmp_path: Path, val_fraction: float, before: int, after: int
) -> None:
    def data(steps_per_execution: int, steps_between_checkpoints: int | None = None) -> IrisDataModule:
        return IrisDataModule(
            batch_size=10,
            val_fraction=val_fraction,
            steps_per_execution=steps_per_execution,
            steps_between_checkpoints=steps_between_checkpoints,
        )

    # In the middle of an epoch, and of what Lightning treats as one.
    path = tmp_path / "middle.ckpt"
    whole, resumed = module_for(data(before)), module_for(data(after))
    whole_trainer = fitted(make_trainer, data(before, 17), whole, max_epochs=5, callbacks=[SaveAt(17, path)])
    traces = Traces()
    trainer = fitted(make_trainer, data(after), resumed, path, max_epochs=5, callbacks=[traces])
    assert len(traces.losses) == whole_trainer.global_step - 17
    assert (trainer.global_step, trainer.current_epoch) == (whole_trainer.global_step, whole_trainer.current_epoch)
    assert_same_weights(resumed, whole)
    if val_fraction:
        assert reported_metrics(trainer, "val") == reported_metrics(whole_trainer, "val")


class SaveAtValidation(pl.Callback):
    """Saves a checkpoint at the end of the validation after ``step``; counts validations."""

    def __init__(self, step: int | None, path: Path) -> None:
        self.step = step
        self.path = path
        self.validated_at: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated_at.append(trainer.global_step)
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("after", EXECUTIONS)
@pytest.mark.parametrize("before", EXECUTIONS)
def test_a_run_that_continues_after_a_validation_does_not_repeat_it(
    make_trainer: MakeTrainer, tmp_path: Path, before: int, after: int
) -> None:
    path = tmp_path / "validated.ckpt"

    def run(steps_per_execution: int, save_at: int | None) -> tuple[MLPModule, list[int], float]:
        data = IrisDataModule(batch_size=40, val_fraction=0.2, steps_per_execution=steps_per_execution)
        module = module_for(data, scheduler=PlateauSchedule(factor=0.5, patience=0, threshold=10.0))
        seen = SaveAtValidation(save_at, path)
        settings: dict[str, Any] = {"max_epochs": 8, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
        start = None if save_at is not None else path
        trainer = fitted(make_trainer, data, module, start, callbacks=[seen], **settings)
        return module, seen.validated_at, trainer.optimizers[0].param_groups[0]["lr"]

    whole, validated_at, rate = run(before, save_at=12)
    assert validated_at == [6, 12, 18, 24]
    resumed, validated_afterwards, rate_afterwards = run(after, save_at=None)
    assert validated_afterwards == [18, 24]
    assert rate_afterwards == rate
    assert_same_weights(resumed, whole)
