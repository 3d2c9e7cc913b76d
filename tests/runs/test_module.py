"""What an ``MLPModule`` consists of: initial weights, statistics of the features, hyperparameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_iris
from support.module_training import (
    MODEL,
    MakeTrainer,
    fitted,
    hand_written,
    module_for,
)
from support.tolerances import assert_close, assert_same_bits, assert_same_weights

from mlp_lightning.config import ModelConfig, OptimizerConfig
from mlp_lightning.config.schedules import CosineSchedule
from mlp_lightning.data import IrisDataModule, TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.networks import MLP
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.tables.reading.memory import MemorySource

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small


def test_the_seed_gives_the_weights_of_the_hand_written_network_and_moves_no_generator() -> None:
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    module = MLPModule(4, 3, "multiclass", MODEL, seed=3)
    assert_same_bits(torch.random.get_rng_state(), state)
    assert_same_weights(module, hand_written())


def test_forward_takes_raw_rows() -> None:
    data = IrisDataModule(scaling="standard")
    module = module_for(data)
    raw_BF = load_iris().data
    standardised_BF = torch.from_numpy((raw_BF - raw_BF.mean(0)) / raw_BF.std(0)).float()
    assert_close(module(torch.from_numpy(raw_BF)), hand_written()(standardised_BF), atol=1e-5)
    assert_close(module(torch.from_numpy(raw_BF).float()), hand_written()(standardised_BF), atol=1e-5)


def test_hyperparameters_are_plain_data() -> None:
    module = MLPModule(4, 3, "multiclass", MODEL, OptimizerConfig("Adam", 0.01), CosineSchedule(), seed=0)
    plain = {type(one) for one in module.hparams.values()}
    assert plain <= {int, str, dict, float, type(None)}
    again = MLPModule(**dict(module.hparams))
    assert_same_weights(again, module)
    assert again.config.optimizer == OptimizerConfig("Adam", 0.01)
    assert again.config.scheduler == CosineSchedule()


def test_all_but_the_sizes_and_the_task_has_a_default() -> None:
    module = MLPModule(4, 3, "multiclass")
    torch.manual_seed(0)
    assert_same_weights(module, MLP(4, 3, ModelConfig().layer_widths))
    assert module.config.optimizer == OptimizerConfig()


def test_raw_rows_are_prepared_as_the_data_module_prepared_its_rows(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(scaling="standard", val_fraction=0.2)
    module = MLPModule(4, 3, "multiclass")
    fitted(make_trainer, data, module, max_steps=1)
    raw_BF = torch.from_numpy(load_iris().data)
    train_BF = raw_BF[data.row_numbers["train"]]
    expected_BF = (raw_BF - train_BF.mean(0)) / train_BF.std(0, correction=0)
    with torch.no_grad():
        assert_close(module(raw_BF), module.mlp(expected_BF.float()), 1e-6)
    # What is trained on other rows takes their scales: it learns from rows that were prepared with them.
    other = IrisDataModule(scaling="standard", seed=5, val_fraction=0.5)
    fitted(make_trainer, other, module, max_steps=1)
    assert_same_bits(module.preprocessor.center_N, other.preprocessor.center_N)


def test_a_checkpoint_is_tested_with_a_new_module(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = IrisDataModule(scaling="standard", val_fraction=0.2, test_fraction=0.2)
    module = MLPModule(4, 3, "multiclass", MODEL)
    trainer = fitted(make_trainer, data, module, max_steps=20)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    expected = trainer.test(module, datamodule=data, verbose=False)
    again = make_trainer()
    new = MLPModule(4, 3, "multiclass", MODEL)
    path = tmp_path / "a.ckpt"
    assert again.test(new, datamodule=data, ckpt_path=path, verbose=False, weights_only=True) == expected


def test_a_network_without_the_embeddings_that_its_rows_need_is_refused(make_trainer: MakeTrainer) -> None:
    table = pa.table({"c": [f"{number % 12}" for number in range(48)], "x": np.arange(48.0), "y": [*"ab"] * 24})
    data = TabularDataModule(given=Given(MemorySource(table, "t")), target="y")
    data.setup()
    module = MLPModule(data.in_features, data.out_features, data.task, MODEL)
    with pytest.raises(ValueError, match=r"preprocessing=datamodule\.preprocessing"):
        fitted(make_trainer, data, module, max_steps=1)
    knowing = MLPModule(data.in_features, data.out_features, data.task, MODEL, preprocessing=data.preprocessing)
    fitted(make_trainer, data, knowing, max_steps=1)


def test_rows_of_other_sizes_are_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match=r"MLPModule\(4, 2, 'multiclass'\), and the rows.* need MLPModule\(4, 3, "):
        fitted(make_trainer, IrisDataModule(), MLPModule(4, 2, "multiclass"), max_steps=1)
