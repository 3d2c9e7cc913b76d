"""What the step loop records: metrics and histograms of logged steps, also in mixed precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from support.step_loops import (
    CLASSES,
    FEATURES,
    by_hand,
    first_batches,
    network,
    rows,
    sgd,
    step_loop,
)
from support.tolerances import assert_close, assert_same_bits, assert_same_weights
from torch import nn

from mlp_lightning.config.schedules import StepSchedule
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks.optimizers import build_schedule
from mlp_lightning.networks.tasks import make_task

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

# ---- what is logged ----------------------------------------------------------------------------------------


def test_logged_metrics_are_measured_before_the_update() -> None:
    model, reference = network(), network()
    optimizer = sgd(reference)
    schedule_optimizer = sgd(model)
    schedule = build_schedule(
        schedule_optimizer, StepSchedule(step_size=2, gamma=0.5, interval="step"), 12, has_validation=False
    )
    loop = step_loop(model, schedule_optimizer, schedule=schedule, log_interval=4)
    trace = loop.run(Execution(TrainingSteps(rows(), 7), 2, 10))
    assert [one.step for one in trace.logged] == [4, 8]
    for step, (features_BF, labels_B) in enumerate(first_batches(12, 7)[2:], start=2):
        if step in (4, 8):
            logged = trace.logged[step // 4 - 1]
            with torch.no_grad():
                logits_BC = reference(features_BF)
            assert logged.loss == F.cross_entropy(logits_BC, labels_B).item()
            assert logged.metric == (logits_BC.argmax(1) == labels_B).float().mean().item()
            assert logged.lr == 0.1 * 0.5 ** ((step - 2) // 2)
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** ((step - 2) // 2)
        by_hand(reference, optimizer, [(features_BF, labels_B)])


@pytest.mark.parametrize(
    ("first_step", "count", "interval", "logged"),
    [(0, 10, 1, list(range(10))), (0, 10, 3, [0, 3, 6, 9]), (5, 4, 10, []), (10, 1, 10, [10]), (7, 14, 10, [10, 20])],
)
def test_steps_that_are_multiples_of_the_interval_are_logged(
    first_step: int, count: int, interval: int, logged: list[int]
) -> None:
    model = network()
    loop = step_loop(model, sgd(model), log_interval=interval, histogram_interval=interval)
    trace = loop.run(Execution(TrainingSteps(rows(), 7), first_step, count))
    assert [one.step for one in trace.logged] == logged
    assert [one.step for one in trace.histograms] == logged
    assert [one.loss for one in trace.logged] == [float(trace.losses[step - first_step]) for step in logged]


def test_logging_does_not_change_the_training() -> None:
    models = network(), network()
    for model, options in zip(
        models, ({"log_interval": 1, "histogram_interval": 1}, {"log_interval": 999}), strict=True
    ):
        step_loop(model, torch.optim.Adam(model.parameters()), **options).run(
            Execution(TrainingSteps(rows(), 7), 1, 20)
        )
    assert_same_weights(*models)


def test_histograms_hold_weights_before_the_update_and_its_gradients() -> None:
    model, reference = network(), network()
    loop = step_loop(model, sgd(model), histogram_interval=3)
    trace = loop.run(Execution(TrainingSteps(rows(), 7), 0, 7))
    assert [one.step for one in trace.histograms] == [0, 3, 6]
    optimizer = sgd(reference)
    for step, batch in enumerate(first_batches(7, 7)):
        before = {name: one.detach().clone() for name, one in reference.named_parameters()}
        by_hand(reference, optimizer, [batch])
        if step % 3 == 0:
            histogram = trace.histograms[step // 3]
            assert histogram.weights.keys() == histogram.gradients.keys() == before.keys()
            for name, parameter in reference.named_parameters():
                assert_same_bits(histogram.weights[name], before[name])
                assert_same_bits(histogram.gradients[name], parameter.grad)


def test_without_an_interval_there_are_no_histograms() -> None:
    model = network()
    assert step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows()), 0, 5)).histograms == []


# ---- mixed precision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_step_under_autocast_sees_the_weights_that_the_last_one_made(accumulate: int) -> None:
    steps = TrainingSteps(rows(), 7, accumulate)
    at_once, one_by_one = network(), network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = step_loop(at_once, sgd(at_once)).run(Execution(steps, 0, 20))
    loop = step_loop(one_by_one, sgd(one_by_one))
    losses = []
    for step in range(20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses += loop.run(Execution(steps, step, 1)).losses
    assert_same_bits(trace.losses_S(), torch.stack(losses))
    assert_same_weights(at_once, one_by_one)


def test_autocast_is_that_of_a_plain_loop() -> None:
    model, reference = network(), network()
    optimizer, losses = sgd(reference), []
    for features_BF, labels_B in first_batches(20, 7):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits_BC = reference(features_BF)
            assert logits_BC.dtype == torch.bfloat16
            loss = F.cross_entropy(logits_BC, labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows(), 7), 0, 20))
    assert_same_bits(trace.losses_S(), torch.stack(losses))
    assert_same_weights(model, reference)
    exact = network()
    exact_losses = by_hand(exact, sgd(exact), first_batches(20, 7))
    assert_close(trace.losses_S(), exact_losses, atol=0.02)


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel", "regression"])
def test_every_task_can_be_logged_under_autocast(name: str) -> None:
    columns = CLASSES if name == "multiclass" else 1
    model = nn.Linear(FEATURES, columns)
    table = rows()
    if name != "multiclass":
        table = dataclasses.replace(table, targets=(table.targets > 0).float().unsqueeze(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = StepLoop(model, make_task(name, columns), sgd(model)).run(Execution(TrainingSteps(table, 7), 0, 5))
    assert all(math.isfinite(one.loss) and math.isfinite(one.metric) for one in trace.logged)
