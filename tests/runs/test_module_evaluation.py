"""Validation and test of an ``MLPModule`` under an ordinary Trainer, against metrics computed by hand."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pytest
import torch
from support.module_training import (
    MakeTrainer,
    fitted,
    metrics_by_hand,
    module_for,
    reported_metrics,
)
from support.tolerances import assert_close
from torch import nn

from mlp_lightning.config import ModelConfig, OptimizerConfig
from mlp_lightning.data import IrisDataModule, TabularDataModule, XORDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.engines.rows import EvaluationBatches
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.tables.reading.memory import MemorySource

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small


def line(target_count: int = 1, **options: Any) -> TabularDataModule:
    """``target_count`` linear functions of three features, with a little noise."""
    draw = np.random.default_rng(0)
    features_BF = draw.normal(size=(50, 3))
    targets_BT = features_BF @ draw.normal(size=(3, target_count)) + 2.0
    targets_BT = targets_BT + draw.normal(0, 0.01, targets_BT.shape)
    names = [f"y{number}" for number in range(target_count)]
    columns = {**dict(zip("abc", features_BF.T, strict=True)), **dict(zip(names, targets_BT.T, strict=True))}
    return TabularDataModule(given=Given(MemorySource(pa.table(columns), "line")), target=names, **options)


@pytest.mark.parametrize("steps_per_execution", [1, 1000])
def test_validation_metrics_by_hand(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    class AtValidation(pl.Callback):
        def __init__(self) -> None:
            self.found: list[tuple[float, float]] = []
            self.expected: list[tuple[float, float]] = []

        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.found.append(reported_metrics(trainer, "val"))
            assert isinstance(pl_module, MLPModule)
            self.expected.append(metrics_by_hand(pl_module, data, "val"))

    data = IrisDataModule(batch_size=30, val_fraction=0.3, scaling="standard", steps_per_execution=steps_per_execution)
    module, seen = module_for(data), AtValidation()
    fitted(
        make_trainer, data, module, max_epochs=6, check_val_every_n_epoch=2, num_sanity_val_steps=0, callbacks=[seen]
    )
    assert len(seen.found) == 3
    assert_close(torch.tensor(seen.found), torch.tensor(seen.expected), atol=1e-5)
    assert len(set(seen.found)) == 3


def test_test_figures_by_hand(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, test_fraction=0.2, scaling="standard")
    module = module_for(data)
    trainer = fitted(make_trainer, data, module, max_epochs=5)
    trainer.test(module, datamodule=data, verbose=False)
    assert_close(reported_metrics(trainer, "test"), metrics_by_hand(module, data, "test"), atol=1e-5)
    loaders = {split: data.evaluation_dataloader(split) for split in data.splits}
    trainer.test(module, dataloaders=loaders, verbose=False)
    for split in ("train", "val", "test"):
        assert_close(reported_metrics(trainer, split), metrics_by_hand(module, data, split), atol=1e-5)


def test_metrics_do_not_depend_on_how_rows_are_batched(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.3)
    module = module_for(data)
    found = []
    for batch_size in (45, 7, 1):
        trainer = make_trainer()
        trainer.validate(module, EvaluationBatches(data.rows_on_device("val"), batch_size), verbose=False)
        found.append(reported_metrics(trainer, "val"))
    assert_close(torch.tensor(found[1:]), torch.tensor([found[0]] * 2))


def test_binary_metrics_of_an_untrained_network(make_trainer: MakeTrainer) -> None:
    data = XORDataModule()
    module = module_for(data, model=ModelConfig(hidden_units=2, init="zeros"))
    trainer = make_trainer()
    trainer.test(module, dataloaders=data.evaluation_dataloader("train"), verbose=False)
    # All logits are 0: every probability is one half, which is class 0.
    assert_close(reported_metrics(trainer, "test"), [math.log(2), 0.5])


def test_validation_is_without_dropout_and_leaves_the_module_training(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2)
    module = module_for(data, model=ModelConfig(hidden_units=[8, 5], activation="tanh", dropout=0.5))
    trainer = fitted(make_trainer, data, module, max_epochs=2)
    assert_close(reported_metrics(trainer, "val"), metrics_by_hand(module, data, "val"), atol=1e-5)
    assert module.mlp.training


def test_a_nan_loss_is_reported_as_nan(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2)
    module = module_for(data)
    trainer = make_trainer()
    nn.init.constant_(module.mlp.layers[0].weight, math.nan)
    trainer.validate(module, EvaluationBatches(data.rows_on_device("val"), 7), verbose=False)
    assert math.isnan(trainer.callback_metrics["loss/val"])


def test_validate_and_test_return_their_metrics(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2, test_fraction=0.2)
    module = module_for(data)
    trainer = make_trainer()
    assert set(trainer.validate(module, datamodule=data, verbose=False)[0]) == {"loss/val", "accuracy/val"}
    assert set(trainer.test(module, datamodule=data, verbose=False)[0]) == {"loss/test", "accuracy/test"}


@pytest.mark.parametrize("target_count", [1, 2])
def test_a_regression_is_learned(make_trainer: MakeTrainer, target_count: int) -> None:
    data = line(target_count, batch_size=10, scaling="standard", steps_per_execution=100)
    module = module_for(data, model=ModelConfig(hidden_units=None), optimizer=OptimizerConfig("SGD", 0.1))
    trainer = fitted(make_trainer, data, module, max_epochs=40)
    rows = data.splits["train"]
    # The best linear model, from the normal equations.
    design_BF = np.column_stack([rows.features_BF.numpy(), np.ones(50)]).astype(np.float64)
    best, *_ = np.linalg.lstsq(design_BF, rows.targets.double().numpy(), rcond=None)
    with torch.no_grad():
        logits_BC = module.mlp(rows.features_BF)
    assert_close(logits_BC, design_BF @ best, atol=0.01)
    trainer.test(module, dataloaders=data.evaluation_dataloader("train"), verbose=False)
    errors = (logits_BC - rows.targets).double().numpy()
    in_units = np.abs(errors) * np.array(data.target.scale)
    assert_close(reported_metrics(trainer, "test", "mae"), [(errors**2).mean(), in_units.mean()])
