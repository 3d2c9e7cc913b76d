from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.engines.rows import EvaluationBatches
from mlp_lightning.engines.steps import Execution
from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.memory import MemorySource


def two_classes_table() -> pa.Table:
    """40 rows, 4 features of very different scales; the third is constant, 30 rows are of class a."""
    draw = np.random.default_rng(0)
    features_BF = draw.normal([5.0, -300.0, 0.1, 0.0], [2.0, 40.0, 0.0, 1e-3], size=(40, 4))
    return pa.table({**dict(zip("pqrs", features_BF.T, strict=True)), "y": ["a"] * 30 + ["b"] * 10})


def data_of(table: pa.Table, target: str | list[str] = "y", **options: Any) -> TabularDataModule:
    data = TabularDataModule(given=Given(MemorySource(table, "t")), **{"target": target, "scaling": "none", **options})
    data.setup()
    return data


def two_classes(**options: Any) -> TabularDataModule:
    return data_of(two_classes_table(), task="multiclass", **options)


def one_target(**options: Any) -> TabularDataModule:
    rows = np.arange(14.0).reshape(7, 2)
    return data_of(pa.table({"p": rows[:, 0], "q": rows[:, 1], "y": np.arange(7.0)}), task="regression", **options)


def three_targets(**options: Any) -> TabularDataModule:
    """A regression with three targets per row."""
    rows, targets = np.arange(14.0).reshape(7, 2), np.arange(21.0).reshape(7, 3)
    table = pa.table({"p": rows[:, 0], "q": rows[:, 1], **dict(zip("xyz", targets.T, strict=True))})
    return data_of(table, ["x", "y", "z"], **options)


def trainer_at(step: int, **settings: Any) -> Any:
    """The attributes of a Trainer that a data module reads."""
    defaults: dict[str, Any] = {"max_steps": -1, "max_epochs": -1, "check_val_every_n_epoch": 1}
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    asked = {"limit_train_batches": 1.0, "overfit_batches": 0.0, "callbacks": [], "checkpoint_callbacks": []}
    return SimpleNamespace(global_step=step, strategy=strategy, **{**asked, **defaults, **settings})


# ---- setup -------------------------------------------------------------------------------------------------


def test_a_second_setup_does_nothing() -> None:
    data = two_classes(val_fraction=0.2)
    splits = dict(data.splits)
    data.setup("fit")
    data.setup("test")
    assert all(data.splits[name] is rows for name, rows in splits.items())


def test_before_setup_nothing_is_known() -> None:
    data = TabularDataModule(name="wine")
    assert data.splits == {}
    with pytest.raises(RuntimeError, match="Call setup"):
        _ = data.task


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
    other = two_classes(val_fraction=0.2, seed=3, batch_size=None, shuffle=False)
    assert_same_bits(one.splits["val"].features_BF, other.splits["val"].features_BF)


def test_an_empty_table_is_refused() -> None:
    empty = pa.table({"p": pa.array([], pa.float64()), "y": pa.array([], pa.float64())})
    with pytest.raises(DataError, match="has no rows; there is nothing to learn"):
        data_of(empty)


def test_several_targets_per_row() -> None:
    data = three_targets(batch_size=3, shuffle=False)
    assert (data.in_features, data.out_features, data.steps_per_epoch) == (2, 3, 3)
    targets_BT = torch.arange(21, dtype=torch.float64).reshape(7, 3)
    standardised_BT = (targets_BT - targets_BT.mean(0)) / targets_BT.std(0, correction=0)
    assert_close(data.splits["train"].targets, standardised_BT, 1e-6)


def test_a_regression_is_split_by_rows_with_any_targets() -> None:
    data = three_targets(val_fraction=2 / 7, test_fraction=1 / 7)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 4, "val": 2, "test": 1}
    for rows in data.splits.values():
        # Row i has the features 2i, 2i + 1 and the targets 3i, 3i + 1, 3i + 2.
        targets_B = rows.targets[:, 0].double() * data.target.scale[0] + data.target.mean[0]
        assert_close(targets_B * 2, rows.features_BF[:, 0].double() * 3, 1e-5)


# ---- scaling ---------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_rows_alone() -> None:
    data = two_classes(val_fraction=0.3, test_fraction=0.3, scaling="standard")
    everything_BF = np.stack([two_classes_table()[name].to_numpy() for name in "pqs"], axis=1)
    training_BF = everything_BF[data.row_numbers["train"]]
    assert_close(data.preprocessor.center_N, training_BF.mean(0), 1e-12)
    assert_close(data.preprocessor.scale_N, training_BF.std(0), 1e-12)
    for split, numbers in data.row_numbers.items():
        expected_BF = (everything_BF[numbers] - training_BF.mean(0)) / training_BF.std(0)
        assert_close(data.splits[split].features_BF, expected_BF, 1e-6)


def test_a_constant_feature_is_left_out() -> None:
    data = two_classes()
    assert [one.name for one in data.preprocessor.columns] == ["p", "q", "s"]
    assert data.rows.report.ignored == {"r": "is always 0.1"}


def test_without_scaling_rows_stay_as_they_are() -> None:
    expected_BF = torch.from_numpy(np.stack([two_classes_table()[name].to_numpy() for name in "pqs"], axis=1))
    assert_same_bits(two_classes().splits["train"].features_BF, expected_BF.float())
    assert_same_bits(two_classes(dtype=torch.float64).splits["train"].features_BF, expected_BF)


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
    regression = one_target(dtype=torch.float64)
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
