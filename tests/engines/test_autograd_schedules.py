"""Schedules of the learning rate in the step loop, against torch's in a loop written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.step_loops import (
    by_hand,
    first_batches,
    learning_rates,
    network,
    rows,
    sgd,
    step_loop,
)
from support.tolerances import assert_close, assert_same_weights
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from mlp_lightning.config.schedules import CosineSchedule, OneCycleSchedule, PlateauSchedule, StepSchedule
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks.optimizers import build_schedule

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

# Batches of 7 out of 30 rows: five steps per epoch.
STEPS_PER_EPOCH = 5


def scheduled(
    config: Any, total_steps: int, counts: Sequence[int], has_validation: bool = False, lr: float = 0.1
) -> tuple[nn.Module, list[float], Optimizer]:
    """The model, the learning rate of each step, and the optimizer, after executions of ``counts`` steps."""
    model = network()
    optimizer = sgd(model, lr)
    schedule = build_schedule(optimizer, config, total_steps, has_validation)
    loop = step_loop(model, optimizer, schedule=schedule)
    lrs: list[float] = []
    for count in counts:
        lrs += learning_rates(loop.run(Execution(TrainingSteps(rows(), 7), len(lrs), count)))
    return model, lrs, optimizer


@pytest.mark.parametrize("counts", [[40], [1] * 40, [13, 27]])
def test_step_schedule_counting_steps(counts: list[int]) -> None:
    model, lrs, _ = scheduled(StepSchedule(step_size=15, gamma=0.5, interval="step"), 40, counts)
    reference = network()
    optimizer = sgd(reference)
    scheduler = lr_scheduler.StepLR(optimizer, 15, 0.5)
    by_hand(reference, optimizer, first_batches(40, 7), after_step=lambda number, loss: scheduler.step())
    assert lrs == [0.1] * 15 + [0.05] * 15 + [0.025] * 10
    assert_same_weights(model, reference)


@pytest.mark.parametrize("counts", [[40], [1] * 40, [13, 27], [5] * 8])
def test_step_schedule_counting_epochs(counts: list[int]) -> None:
    model, lrs, _ = scheduled(StepSchedule(step_size=3, gamma=0.5), 40, counts)
    reference = network()
    optimizer = sgd(reference)
    scheduler = lr_scheduler.StepLR(optimizer, 3, 0.5)

    def after_step(number: int, loss: float) -> None:
        if number % STEPS_PER_EPOCH == 0:
            scheduler.step()

    by_hand(reference, optimizer, first_batches(40, 7), after_step=after_step)
    assert lrs == [0.1] * 15 + [0.05] * 15 + [0.025] * 10
    assert_same_weights(model, reference)


@pytest.mark.parametrize("counts", [[40], [13, 27]])
def test_cosine_schedule(counts: list[int]) -> None:
    model, lrs, optimizer = scheduled(CosineSchedule(eta_min=0.01), 40, counts)
    reference = network()
    reference_optimizer = sgd(reference)
    scheduler = lr_scheduler.CosineAnnealingLR(reference_optimizer, T_max=40, eta_min=0.01)
    by_hand(reference, reference_optimizer, first_batches(40, 7), after_step=lambda number, loss: scheduler.step())
    assert_same_weights(model, reference)
    assert_close(lrs, [0.01 + 0.045 * (1 + math.cos(math.pi * step / 40)) for step in range(40)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("counts", [[40], [13, 27]])
def test_one_cycle_schedule(counts: list[int]) -> None:
    config = OneCycleSchedule(max_lr=0.4, pct_start=0.25, div_factor=4.0, final_div_factor=10.0)
    model, lrs, optimizer = scheduled(config, 40, counts)
    reference = network()
    reference_optimizer = sgd(reference)
    # 40 updates have 41 learning rates: the first, and one after each update.
    scheduler = lr_scheduler.OneCycleLR(
        reference_optimizer,
        max_lr=0.4,
        total_steps=41,
        pct_start=0.25,
        div_factor=4.0,
        final_div_factor=10.0,
        cycle_momentum=False,
    )
    by_hand(reference, reference_optimizer, first_batches(40, 7), after_step=lambda number, loss: scheduler.step())
    assert_same_weights(model, reference)
    highest = lrs.index(max(lrs))
    assert lrs[0] == pytest.approx(0.1)
    assert 0.39 < lrs[highest] <= 0.4 + 1e-9
    assert highest in (9, 10)
    assert lrs[: highest + 1] == sorted(lrs[: highest + 1])
    assert lrs[highest:] == sorted(lrs[highest:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("counts", [[60], [1] * 60, [13, 1, 46]])
def test_plateau_schedule_follows_the_mean_loss_of_each_epoch(counts: list[int]) -> None:
    config = PlateauSchedule(monitor="loss/train", factor=0.5, patience=1, threshold=0.2, min_lr=0.02)
    model, lrs, _ = scheduled(config, 60, counts)
    reference = network()
    optimizer = sgd(reference)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.2, min_lr=0.02)
    epoch: list[float] = []
    expected_lrs = [0.1]

    def after_step(number: int, loss: float) -> None:
        epoch.append(loss)
        if number % STEPS_PER_EPOCH == 0:
            scheduler.step(sum(epoch) / len(epoch))
            epoch.clear()
        expected_lrs.append(optimizer.param_groups[0]["lr"])

    by_hand(reference, optimizer, first_batches(60, 7), after_step=after_step)
    assert lrs == expected_lrs[:60]
    assert len(set(lrs)) >= 3
    assert min(lrs) == 0.02
    assert_same_weights(model, reference)


def test_the_loss_of_an_unfinished_epoch_is_kept() -> None:
    config = PlateauSchedule(monitor="loss/train", factor=0.5, patience=0, threshold=10.0)

    def fresh(epoch_loss: float) -> tuple[nn.Module, StepLoop]:
        model = network()
        optimizer = sgd(model)
        schedule = build_schedule(optimizer, config, 10, has_validation=False)
        return model, step_loop(model, optimizer, schedule=schedule, epoch_loss=epoch_loss)

    steps = TrainingSteps(rows(), 7)
    model, whole = fresh(0.0)
    losses = [float(one) for one in whole.run(Execution(steps, 0, 3)).losses]
    assert whole.epoch_loss == pytest.approx(sum(losses))
    _, resumed = fresh(whole.epoch_loss)
    resumed.model.load_state_dict(model.state_dict())
    for loop in (whole, resumed):
        loop.run(Execution(steps, 3, 2))
        assert loop.epoch_loss == 0.0
    assert whole.schedule is not None
    assert resumed.schedule is not None
    best = [loop.schedule.scheduler.best for loop in (whole, resumed)]
    assert best[0] == best[1]


def test_a_plateau_of_the_validation_loss_is_not_stepped_here() -> None:
    config = PlateauSchedule(monitor="loss/val", factor=0.5, patience=0, threshold=10.0)
    _, lrs, _ = scheduled(config, 40, [40], has_validation=True)
    assert lrs == [0.1] * 40


def test_one_cycle_does_not_change_the_momentum() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.7)
    schedule = build_schedule(optimizer, OneCycleSchedule(), 10, has_validation=False)
    step_loop(model, optimizer, schedule=schedule).run(Execution(TrainingSteps(rows()), 0, 10))
    assert optimizer.param_groups[0]["momentum"] == 0.7
