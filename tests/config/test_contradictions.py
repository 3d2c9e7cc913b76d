"""Values that are valid alone and contradict each other, with the message that the user sees."""

from __future__ import annotations

from typing import Any

import pytest
from support.configuration_faults import accepted, fault_of, faults_of

from mlp_lightning.errors import Fault

# For contradictions that concern validation rows: a data set that can be split.
SPLIT: dict[str, Any] = {"data": {"name": "iris", "val_fraction": 0.2}}


def test_depth_against_listed_widths() -> None:
    fault = fault_of({"model.hidden_units": [3, 4], "model.depth": 3}, explicit=["model.depth"])
    assert fault == Fault(
        "model.depth",
        3,
        "contradicts model.hidden_units = [3, 4], which lists 2",
        "leave model.depth out when you list the widths",
    )


def test_depth_of_a_file_gives_way_to_listed_widths() -> None:
    composed = {"model.hidden_units": [3, 4], "model.depth": 3}
    assert accepted(composed, explicit=["model.hidden_units"]).model.depth == 2


def test_depth_0_against_a_width() -> None:
    fault = fault_of({"model.hidden_units": 5, "model.depth": 0})
    assert (fault.key, fault.value) == ("model.hidden_units", 5)
    assert fault.rule == "contradicts model.depth = 0: a linear model has no hidden layer"
    assert fault.hint == "choose another model, or set model.depth to 1 or more"


@pytest.mark.parametrize("depth", [1, 3, None])
def test_no_width_needs_depth_0(depth: int | None) -> None:
    fault = fault_of({"model.hidden_units": None, "model.depth": depth})
    assert fault == Fault("model.hidden_units", None, "must be given unless model.depth is 0", "for example 10")


@pytest.mark.parametrize(("key", "value", "idle"), [("dropout", 0.1, "0.0"), ("norm", "layer", "none")])
def test_parts_of_hidden_layers_without_one(key: str, value: Any, idle: str) -> None:
    linear = {"model.hidden_units": None, "model.depth": 0}
    fault = fault_of({**linear, f"model.{key}": value})
    assert fault == Fault(f"model.{key}", value, "has no effect without hidden layers", f"set it to {idle}")
    assert accepted(linear).model.layer_widths == []
    assert getattr(accepted({f"model.{key}": value}).model, key) == value


def test_batch_norm_of_one_row() -> None:
    fault = fault_of({"model.norm": "batch", "data.batch_size": 1})
    assert fault == Fault("data.batch_size", 1, "contradicts model.norm = 'batch', which needs 2 rows", "use 2 or more")
    accepted({"model.norm": "batch", "data.batch_size": 2})
    accepted({"model.norm": "layer", "data.batch_size": 1})


@pytest.mark.parametrize("key", ["data.val_fraction", "data.test_fraction"])
def test_split_of_a_data_set_that_has_none(key: str) -> None:
    fault = fault_of({key: 0.2})
    assert fault == Fault(key, 0.2, "must be 0 for xor, whose rows are all training rows")
    accepted({"data.name": "iris", key: 0.2})


def test_fractions_that_leave_no_training_rows() -> None:
    fault = fault_of({"data.name": "iris", "data.val_fraction": 0.5, "data.test_fraction": 0.5})
    assert fault == Fault(
        "data.val_fraction",
        0.5,
        "and data.test_fraction = 0.5 leave no training rows",
        "their sum must be less than 1",
    )
    accepted({"data.name": "iris", "data.val_fraction": 0.5, "data.test_fraction": 0.4})


@pytest.mark.parametrize("monitor", ["loss/val", "accuracy/val"])
def test_early_stopping_without_validation_rows(monitor: str) -> None:
    stopping = {"callbacks.early_stopping.monitor": monitor}
    assert fault_of(stopping) == Fault(
        "callbacks.early_stopping.monitor",
        monitor,
        "needs validation rows and there are none",
        "set data.val_fraction above 0, or watch loss/train",
    )
    accepted({**SPLIT, **stopping})
    accepted({"callbacks.early_stopping.monitor": "loss/train"})


@pytest.mark.parametrize("monitor", ["loss/val", "accuracy/val"])
def test_checkpoint_monitor_without_validation_rows(monitor: str) -> None:
    watching = {"callbacks.checkpoint.monitor": monitor}
    assert fault_of(watching) == Fault(
        "callbacks.checkpoint.monitor",
        monitor,
        "needs validation rows and there are none",
        "set data.val_fraction above 0, or watch loss/train",
    )
    accepted({**SPLIT, **watching})


def test_plateau_monitor_without_validation_rows() -> None:
    watching = {"scheduler.name": "plateau", "scheduler.monitor": "loss/val"}
    fault = fault_of(watching)
    assert (fault.key, fault.rule) == ("scheduler.monitor", "needs validation rows and there are none")
    accepted({**SPLIT, **watching})


@pytest.mark.parametrize("monitor", ["auto", "loss/train"])
def test_monitors_that_need_no_validation_rows(monitor: str) -> None:
    accepted({"scheduler.name": "plateau", "scheduler.monitor": monitor, "callbacks.checkpoint.monitor": monitor})


def test_run_without_an_end() -> None:
    fault = fault_of({"trainer.max_steps": None})
    assert fault == Fault(
        "trainer.max_steps", None, "and trainer.max_epochs = None give the run no end", "set one of the two"
    )
    accepted({"trainer.max_steps": None, "trainer.max_epochs": 1})


def test_nesterov_without_momentum() -> None:
    fault = fault_of({"optimizer.nesterov": True, "optimizer.momentum": 0.0})
    assert fault == Fault("optimizer.nesterov", True, "needs optimizer.momentum above 0", "for example 0.9")
    accepted({"optimizer.nesterov": True, "optimizer.momentum": 0.9})


def test_nesterov_with_dampening() -> None:
    settings = {"optimizer.nesterov": True, "optimizer.momentum": 0.9, "optimizer.dampening": 0.1}
    assert fault_of(settings) == Fault("optimizer.nesterov", True, "needs optimizer.dampening = 0")
    accepted({**settings, "optimizer.nesterov": False})


def test_best_weights_without_checkpoints() -> None:
    fault = fault_of({"report_weights": "best", "callbacks.checkpoint": None})
    assert fault == Fault("report_weights", "best", "needs callbacks.checkpoint, which is null", "use last")
    accepted({"report_weights": "best"})
    accepted({"report_weights": "last", "callbacks.checkpoint": None})


def test_histograms_without_tensorboard() -> None:
    fault = fault_of({"callbacks.histograms_every_n_steps": 5, "logger.tensorboard": False})
    assert fault == Fault(
        "callbacks.histograms_every_n_steps", 5, "needs logger.tensorboard, which is false", "use null"
    )
    accepted({"callbacks.histograms_every_n_steps": 5})


def test_all_contradictions_at_once() -> None:
    faults = faults_of(
        {
            "model.hidden_units": [3],
            "model.depth": 2,
            "data.val_fraction": 0.2,
            "trainer.max_steps": None,
            "optimizer.nesterov": True,
            "report_weights": "best",
            "callbacks.checkpoint": None,
        },
        explicit=["model.depth"],
    )
    keys = [fault.key for fault in faults]
    assert sorted(keys) == [
        "data.val_fraction",
        "model.depth",
        "optimizer.nesterov",
        "report_weights",
        "trainer.max_steps",
    ]
