from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.rows import EvaluationBatches
from mlp_lightning.engines.steps import Execution
from mlp_lightning.errors import DataError


class TwoClasses(TabularDataModule):
    """40 rows, 4 features of very different scales; the third is constant, 30 rows are of class a."""

    task = "multiclass"
    class_names = ("a", "b")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loads = 0

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.loads += 1
        draw = np.random.default_rng(0)
        features_BF = draw.normal([5.0, -300.0, 0.1, 0.0], [2.0, 40.0, 0.0, 1e-3], size=(40, 4))
        return features_BF.astype(np.float32), np.repeat([0, 1], [30, 10])


class OneTarget(TabularDataModule):
    task = "regression"

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.arange(14, dtype=np.float32).reshape(7, 2), np.arange(7, dtype=np.float32).reshape(7, 1)


class ThreeTargets(TabularDataModule):
    """A regression with three targets per row."""

    task = "regression"

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features_BF = np.arange(14, dtype=np.float32).reshape(7, 2)
        return features_BF, np.arange(21, dtype=np.float32).reshape(7, 3)


class Empty(TabularDataModule):
    task = "regression"

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.empty((0, 2), dtype=np.float32), np.empty((0, 1), dtype=np.float32)


def two_classes(**options: Any) -> TwoClasses:
    data = TwoClasses(**options)
    data.setup()
    return data


def trainer_at(step: int, **settings: Any) -> Any:
    """The attributes of a Trainer that a data module reads."""
    defaults: dict[str, Any] = {"max_steps": -1, "max_epochs": -1, "check_val_every_n_epoch": 1}
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(global_step=step, strategy=strategy, **{**defaults, **settings})


# ---- setup -------------------------------------------------------------------------------------------------


def test_a_second_setup_does_nothing() -> None:
    data = two_classes(val_fraction=0.2)
    splits = dict(data.splits)
    data.setup("fit")
    data.setup("test")
    assert data.loads == 1
    assert all(data.splits[name] is rows for name, rows in splits.items())


@pytest.mark.parametrize(
    ("fractions", "names"),
    [
        ({}, ["train"]),
        ({"val_fraction": 0.2}, ["train", "val"]),
        ({"test_fraction": 0.2}, ["train", "test"]),
        ({"val_fraction": 0.2, "test_fraction": 0.2}, ["train", "val", "test"]),
    ],
)
def test_a_split_without_rows_is_absent(fractions: dict[str, float], names: list[str]) -> None:
    assert list(two_classes(**fractions).splits) == names


def test_every_part_has_every_class_in_proportion() -> None:
    splits = two_classes(val_fraction=0.2, test_fraction=0.2).splits
    assert {name: rows.targets.bincount().tolist() for name, rows in splits.items()} == {
        "train": [18, 6],
        "val": [6, 2],
        "test": [6, 2],
    }


def test_the_order_of_batches_does_not_move_the_split() -> None:
    one = two_classes(val_fraction=0.2, seed=3, batch_size=4, shuffle=True)
    other = two_classes(val_fraction=0.2, seed=3, batch_size=None, shuffle=False, standardize=True)
    assert_same_bits(one.splits["val"].features_BF, other.splits["val"].features_BF)


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="No training rows are left of 0"):
        Empty().setup()


def test_several_targets_per_row() -> None:
    data = ThreeTargets(batch_size=3, shuffle=False)
    data.setup()
    assert (data.in_features, data.out_features, data.steps_per_epoch) == (2, 3, 3)
    assert_same_bits(data.splits["train"].targets, torch.arange(21, dtype=torch.float32).reshape(7, 3))


def test_a_regression_is_split_by_rows_with_any_targets() -> None:
    data = ThreeTargets(val_fraction=2 / 7, test_fraction=1 / 7)
    data.setup()
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 4, "val": 2, "test": 1}
    for rows in data.splits.values():
        # Row i has the features 2i, 2i + 1 and the targets 3i, 3i + 1, 3i + 2.
        assert_same_bits(rows.targets[:, 0] * 2, rows.features_BF[:, 0] * 3)


# ---- standardising -----------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_rows_alone() -> None:
    data = two_classes(val_fraction=0.3, test_fraction=0.3, standardize=True)
    training_BF = data.splits["train"].features_BF.numpy().astype(np.float64)
    scale_F = training_BF.std(0)
    scale_F[2] = 1.0
    torch.testing.assert_close(data.feature_mean_F.double(), torch.from_numpy(training_BF.mean(0)), rtol=1e-6, atol=0)
    torch.testing.assert_close(data.feature_scale_F.double(), torch.from_numpy(scale_F), rtol=1e-6, atol=0)
    everything_BF = data.load()[0].astype(np.float64)
    assert abs(float(data.feature_mean_F[0]) - everything_BF[:, 0].mean()) > 1e-3


def test_standardised_training_rows_have_mean_zero_and_deviation_one() -> None:
    data = two_classes(standardize=True)
    standardised_BF = (data.splits["train"].features_BF.double() - data.feature_mean_F) / data.feature_scale_F
    # -300 ± 40 in float32 has a mean that is off by up to 1.5e-5.
    assert_close(standardised_BF.mean(0), torch.zeros(4), atol=1e-5)
    assert_close(standardised_BF.std(0, correction=0), [1.0, 1.0, 0.0, 1.0], atol=1e-5)


def test_a_constant_feature_has_scale_one_and_becomes_zero() -> None:
    data = two_classes(standardize=True)
    assert float(data.feature_scale_F[2]) == 1.0
    column_B = (data.splits["train"].features_BF - data.feature_mean_F)[:, 2]
    assert_same_bits(column_B, torch.zeros(40))


def test_without_standardising_the_statistics_change_nothing() -> None:
    data = two_classes()
    assert_same_bits(data.feature_mean_F, torch.zeros(4))
    assert_same_bits(data.feature_scale_F, torch.ones(4))


def test_rows_stay_raw() -> None:
    plain, standardised = two_classes(), two_classes(standardize=True)
    assert_same_bits(standardised.rows_on_device("train").features_BF, plain.splits["train"].features_BF)


# ---- rows on the device ------------------------------------------------------------------------------------


def test_rows_are_moved_to_the_device_once() -> None:
    data = two_classes(val_fraction=0.2)
    assert data.rows_on_device("train") is data.rows_on_device("train")
    assert data.rows_on_device("train").features_BF.device == torch.device("cpu")
    assert data.rows_on_device("train") is not data.rows_on_device("val")


def test_rows_follow_the_device_of_the_trainer() -> None:
    data = two_classes()
    on_cpu = data.rows_on_device("train")
    data.trainer = trainer_at(0, max_steps=1)
    data.trainer.strategy.root_device = torch.device("meta")
    assert data.rows_on_device("train").features_BF.device.type == "meta"
    data.trainer.strategy.root_device = torch.device("cpu")
    assert_same_bits(data.rows_on_device("train").features_BF, on_cpu.features_BF)


def test_rows_on_the_device_have_the_type_that_was_asked_for() -> None:
    data = two_classes(dtype=torch.float64)
    rows = data.rows_on_device("train")
    assert rows.features_BF.dtype == torch.float64
    assert rows.targets.dtype == torch.int64
    assert_same_bits(rows.features_BF, data.splits["train"].features_BF.double())
    regression = OneTarget(dtype=torch.float64)
    regression.setup()
    assert regression.rows_on_device("train").targets.dtype == torch.float64


def test_a_batch_is_passed_on_as_it_is() -> None:
    data = two_classes()
    batch = Execution(data.training_steps, 0, 1)
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch


# ---- steps and loaders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "steps_per_epoch"),
    [
        ({}, 1),
        ({"batch_size": 40}, 1),
        ({"batch_size": 7}, 6),
        ({"batch_size": 7, "accumulate_grad_batches": 2}, 3),
        ({"batch_size": 7, "val_fraction": 0.2}, 5),
    ],
)
def test_steps_per_epoch(options: dict[str, Any], steps_per_epoch: int) -> None:
    data = two_classes(**options)
    assert data.steps_per_epoch == data.training_steps.steps_per_epoch == steps_per_epoch


def test_training_steps_have_every_option_of_the_data_module() -> None:
    steps = two_classes(batch_size=7, accumulate_grad_batches=2, shuffle=False, seed=5).training_steps
    assert (steps.batch_size, steps.rows_per_step, steps.shuffle, steps.seed) == (7, 14, False, 5)


def test_the_training_loader_needs_a_trainer() -> None:
    with pytest.raises(RuntimeError, match="needs a Trainer"):
        two_classes().train_dataloader()


@pytest.mark.parametrize(
    ("options", "settings", "step", "executions"),
    [
        # Six steps per epoch; the run ends at whichever limit comes first.
        ({}, {"max_steps": 9}, 0, [(0, 4), (4, 2)]),
        ({}, {"max_steps": 9}, 6, [(6, 3)]),
        ({}, {"max_epochs": 1, "max_steps": 9}, 4, [(4, 2)]),
        ({"steps_per_execution": 100}, {"max_epochs": 2}, 0, [(0, 12)]),
        ({"steps_per_execution": 100}, {"max_epochs": 2, "max_steps": 5}, 0, [(0, 5)]),
        ({"steps_per_execution": 100, "steps_between_checkpoints": 5}, {"max_epochs": 2}, 0, [(0, 5), (5, 5), (10, 2)]),
        ({"steps_per_execution": 30}, {}, 0, [(0, 30)]),
        # No validation rows: the interval between validations limits nothing.
        ({"steps_per_execution": 100}, {"max_epochs": 2, "check_val_every_n_epoch": 1}, 0, [(0, 12)]),
        # With a fifth of the rows kept for it there are five steps per epoch.
        ({"steps_per_execution": 100, "val_fraction": 0.2}, {"max_epochs": 3}, 0, [(0, 5)]),
        (
            {"steps_per_execution": 100, "val_fraction": 0.2},
            {"max_epochs": 3, "check_val_every_n_epoch": 2},
            0,
            [(0, 10)],
        ),
    ],
)
def test_the_training_loader_keeps_to_the_limits_of_the_trainer(
    options: dict[str, Any], settings: dict[str, Any], step: int, executions: list[tuple[int, int]]
) -> None:
    data = two_classes(**{"batch_size": 7, "steps_per_execution": 4, **options})
    data.trainer = trainer_at(step, **settings)
    assert [(one.first_step, one.count) for one in data.train_dataloader()] == executions


def test_evaluation_loaders_hold_their_split() -> None:
    data = two_classes(val_fraction=0.2, test_fraction=0.1)
    for loader, split in ((data.val_dataloader(), "val"), (data.test_dataloader(), "test")):
        assert isinstance(loader, EvaluationBatches)
        ((features_BF, targets),) = loader
        assert_same_bits(features_BF, data.splits[split].features_BF)
        assert_same_bits(targets, data.splits[split].targets)


def test_a_split_without_rows_has_no_loader() -> None:
    data = two_classes()
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []


def test_predictions_are_not_described_unless_a_data_set_says_how() -> None:
    assert two_classes().describe_predictions(np.zeros((40, 2), dtype=np.float32)) == ""
