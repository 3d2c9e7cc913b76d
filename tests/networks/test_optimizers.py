from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from mlp_lightning.config import OptimizerConfig
from mlp_lightning.config.names import TORCH_OPTIMIZERS
from mlp_lightning.config.schedules import (
    SCHEDULES,
    ConstantSchedule,
    CosineSchedule,
    InverseTimeSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    ScheduleConfig,
    StepSchedule,
)
from mlp_lightning.errors import ConfigError
from mlp_lightning.networks.optimizers import build_optimizer, build_schedule

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

# Values that differ from the defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "ASGD": {"lambd": 1e-3, "alpha": 0.7, "t0": 1e5, "weight_decay": 0.01},
    "Adadelta": {"rho": 0.8, "eps": 1e-5, "weight_decay": 0.01},
    "Adafactor": {"beta2_decay": -0.7, "d": 1.5, "weight_decay": 0.01},
    "Adagrad": {"lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-8},
    "Adam": {"betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 0.01, "amsgrad": True},
    "AdamW": {"betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 0.02, "amsgrad": True},
    "Adamax": {"betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 0.01},
    "NAdam": {"betas": [0.8, 0.99], "momentum_decay": 0.01, "decoupled_weight_decay": True},
    "RAdam": {"betas": [0.8, 0.99], "eps": 1e-7, "decoupled_weight_decay": True},
    "RMSprop": {"alpha": 0.9, "momentum": 0.5, "centered": True},
    "Rprop": {"etas": [0.4, 1.3], "step_sizes": [1e-5, 10]},
    "SGD": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2))]


def sgd(lr: float = 0.1) -> Optimizer:
    return torch.optim.SGD(parameters(), lr=lr)


# ---- optimizers --------------------------------------------------------------------------------------------


def test_every_optimizer_has_options_here() -> None:
    assert OPTIONS.keys() == set(TORCH_OPTIMIZERS)


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_learning_rate_and_every_option_reach_torch(name: str) -> None:
    optimizer = build_optimizer(parameters(), OptimizerConfig(name, 0.123, OPTIONS[name]))
    assert type(optimizer) is getattr(torch.optim, name)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.123
    defaults = inspect.signature(type(optimizer)).parameters
    for option, value in OPTIONS[name].items():
        assert value != defaults[option].default
        assert group[option] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_every_optimizer_moves_every_parameter(name: str) -> None:
    owned = parameters()
    optimizer = build_optimizer(iter(owned), OptimizerConfig(name, 0.01))
    for _ in range(2):
        for parameter in owned:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert all(bool((parameter < 1).all()) for parameter in owned)


def test_a_learning_rate_of_zero_is_zero() -> None:
    assert build_optimizer(parameters(), OptimizerConfig("SGD", 0.0)).param_groups[0]["lr"] == 0.0


def test_an_optimizer_that_torch_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        build_optimizer(parameters(), OptimizerConfig("Adamn"))
    (fault,) = caught.value.faults
    assert (fault.key, fault.value) == ("optimizer.name", "Adamn")
    assert torch.__version__ in str(caught.value)


@pytest.mark.parametrize(
    ("config", "mentioned"),
    [
        (OptimizerConfig("SGD", 0.1, {"betas": [0.9, 0.99]}), "betas"),
        (OptimizerConfig("SGD", 0.1, {"nesterov": True}), "momentum"),
        (OptimizerConfig("Adam", 0.1, {"betas": [0.9, 1.5]}), "1.5"),
        (OptimizerConfig("Adam", -1.0), "-1.0"),
    ],
)
def test_an_argument_that_torch_refuses_is_a_fault_of_the_configuration(
    config: OptimizerConfig, mentioned: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_optimizer(parameters(), config)
    (fault,) = caught.value.faults
    assert fault.key == "optimizer"
    assert fault.value["lr"] == config.lr
    assert "was refused by torch" in fault.rule
    assert mentioned in fault.rule
    assert caught.value.__cause__ is not None


# ---- schedules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "has_validation", "kind", "moment"),
    [
        (CosineSchedule(), False, lr_scheduler.CosineAnnealingLR, "step"),
        (OneCycleSchedule(), False, lr_scheduler.OneCycleLR, "step"),
        (StepSchedule(), False, lr_scheduler.StepLR, "epoch"),
        (StepSchedule(interval="step"), False, lr_scheduler.StepLR, "step"),
        (InverseTimeSchedule(), False, lr_scheduler.LambdaLR, "epoch"),
        (InverseTimeSchedule(interval="step"), False, lr_scheduler.LambdaLR, "step"),
        (PlateauSchedule(), False, lr_scheduler.ReduceLROnPlateau, "epoch_loss"),
        (PlateauSchedule(), True, lr_scheduler.ReduceLROnPlateau, "validation"),
        (PlateauSchedule(monitor="loss/train"), True, lr_scheduler.ReduceLROnPlateau, "epoch_loss"),
        (PlateauSchedule(monitor="loss/val"), True, lr_scheduler.ReduceLROnPlateau, "validation"),
    ],
)
def test_kind_and_moment(config: ScheduleConfig, has_validation: bool, kind: type, moment: str) -> None:
    optimizer = sgd()
    schedule = build_schedule(optimizer, config, 100, has_validation)
    assert schedule is not None
    assert type(schedule.scheduler) is kind
    assert schedule.moment == moment
    assert schedule.scheduler.optimizer is optimizer


def test_a_constant_learning_rate_needs_no_scheduler() -> None:
    assert build_schedule(sgd(), ConstantSchedule(), 100, has_validation=True) is None


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_lasts_as_long_as_the_run(name: str) -> None:
    for total_steps in (1, 2, 10):
        optimizer = sgd()
        schedule = build_schedule(optimizer, SCHEDULES[name](), total_steps, has_validation=False)
        for _ in range(total_steps):
            optimizer.step()
            if schedule is not None and schedule.moment != "epoch_loss":
                schedule.scheduler.step()
        assert 0 <= optimizer.param_groups[0]["lr"] <= 0.1


def learning_rates(config: ScheduleConfig, total_steps: int, lr: float = 0.1) -> list[float]:
    """The learning rate before each step, and after the last."""
    optimizer = sgd(lr)
    schedule = build_schedule(optimizer, config, total_steps, has_validation=False)
    assert schedule is not None
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(total_steps):
        optimizer.step()
        schedule.scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_cosine_ends_at_its_minimum() -> None:
    found = learning_rates(CosineSchedule(eta_min=0.02), 10)
    assert found[0] == 0.1
    assert found[5] == pytest.approx(0.06)
    assert found[10] == pytest.approx(0.02)


def test_one_cycle_by_hand() -> None:
    config = OneCycleSchedule(max_lr=1.0, pct_start=0.5, div_factor=10.0, final_div_factor=100.0)
    found = learning_rates(config, 20)
    assert found[0] == pytest.approx(0.1)
    assert max(found) > 0.99
    assert found[20] == pytest.approx(0.001)


def test_one_cycle_peaks_at_the_learning_rate_of_the_optimizer_by_default() -> None:
    assert max(learning_rates(OneCycleSchedule(), 1000, lr=0.03)) == pytest.approx(0.03, rel=1e-4)
    assert max(learning_rates(OneCycleSchedule(max_lr=0.5), 1000, lr=0.03)) == pytest.approx(0.5, rel=1e-4)


def test_step_schedule_by_hand() -> None:
    assert learning_rates(StepSchedule(step_size=2, gamma=0.5, interval="step"), 5) == [
        0.1,
        0.1,
        0.05,
        0.05,
        0.025,
        0.025,
    ]


def test_inverse_time_by_hand() -> None:
    """Keras's InverseTimeDecay is the power 1: its rate of 0.2 per step halves the learning rate in five steps."""
    keras = learning_rates(InverseTimeSchedule(decay_rate=0.2, power=1.0, interval="step"), 10)
    assert keras == pytest.approx([0.1 / (1 + 0.2 * step) for step in range(11)])
    assert keras[5] == pytest.approx(0.05)
    root = learning_rates(InverseTimeSchedule(decay_rate=3.0, interval="step"), 5)
    assert root[::5] == pytest.approx([0.1, 0.025])


def test_every_option_of_a_plateau_reaches_torch() -> None:
    config = PlateauSchedule(factor=0.3, patience=4, threshold=0.02, min_lr=1e-3)
    schedule = build_schedule(sgd(), config, 100, has_validation=True)
    assert schedule is not None
    plateau: Any = schedule.scheduler
    assert (plateau.factor, plateau.patience, plateau.threshold, plateau.min_lrs) == (0.3, 4, 0.02, [1e-3])
    assert plateau.mode == "min"


@pytest.mark.parametrize("config", [CosineSchedule(), OneCycleSchedule()])
def test_a_schedule_over_the_whole_run_needs_a_run_of_known_length(config: ScheduleConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        build_schedule(sgd(), config, None, has_validation=False)
    (fault,) = caught.value.faults
    assert (fault.key, fault.value) == ("scheduler.name", config.name)


@pytest.mark.parametrize("config", [ConstantSchedule(), StepSchedule(), InverseTimeSchedule(), PlateauSchedule()])
def test_other_schedules_do_not(config: ScheduleConfig) -> None:
    build_schedule(sgd(), config, None, has_validation=False)
