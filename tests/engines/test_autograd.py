"""The step loop against loops written by hand, from the same initial weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
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
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer, lr_scheduler

from mlp_lightning.config import OptimizerConfig
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks.optimizers import Schedule, build_optimizer
from mlp_lightning.networks.tasks import make_task

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

OPTIMIZERS: list[tuple[OptimizerConfig, Callable[[Iterable[nn.Parameter]], Optimizer]]] = [
    (OptimizerConfig("SGD", 0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (
        OptimizerConfig("SGD", 0.05, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    ),
    (OptimizerConfig("Adam", 0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    (
        OptimizerConfig("AdamW", 0.01, {"betas": [0.8, 0.99], "weight_decay": 0.1}),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.1),
    ),
    (OptimizerConfig("RMSprop", 0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
    (OptimizerConfig("Adagrad", 0.1), lambda p: torch.optim.Adagrad(p, lr=0.1)),
    (OptimizerConfig("NAdam", 0.01), lambda p: torch.optim.NAdam(p, lr=0.01)),
]
OPTIMIZER_NAMES = [f"{config.name}-{number}" for number, (config, _) in enumerate(OPTIMIZERS)]


# ---- updates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [7, None])
@pytest.mark.parametrize(("config", "build"), OPTIMIZERS, ids=OPTIMIZER_NAMES)
def test_fifty_steps_are_those_of_a_plain_loop(
    config: OptimizerConfig, build: Callable[[Iterable[nn.Parameter]], Optimizer], batch_size: int | None
) -> None:
    reference, model = network(), network()
    losses = by_hand(reference, build(reference.parameters()), first_batches(50, batch_size))
    steps = TrainingSteps(rows(), batch_size)
    trace = step_loop(model, build_optimizer(model.parameters(), config)).run(Execution(steps, 0, 50))
    assert_same_bits(trace.losses_S(), torch.tensor(losses))
    assert_same_weights(model, reference)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_plain_gradient_descent_by_hand() -> None:
    # y = w·x with w = 0 at first, x = 2, target 1: the loss is (2w - 1)², its gradient 4(2w - 1).
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    steps = TrainingSteps(Rows(torch.tensor([[2.0]]), torch.tensor([[1.0]])))
    loop = StepLoop(model, make_task("regression", 1), sgd(model, lr=0.0625))
    trace = loop.run(Execution(steps, 0, 3))
    # w = 0, 0.25, 0.375, 0.4375: each step halves the distance to 0.5.
    assert [float(one) for one in trace.losses] == [1.0, 0.25, 0.0625]
    assert float(model.weight.detach()) == 0.4375


@pytest.mark.parametrize("counts", [[50], [1] * 50, [7, 13, 30], [49, 1]])
def test_any_cut_into_executions_gives_the_same_bits(counts: list[int]) -> None:
    reference, model = network(), network()
    losses = by_hand(reference, torch.optim.Adam(reference.parameters()), first_batches(50, 7))
    steps, loop = TrainingSteps(rows(), 7), step_loop(model, torch.optim.Adam(model.parameters()))
    found: list[Tensor] = []
    for count in counts:
        trace = loop.run(Execution(steps, len(found), count))
        assert (trace.first_step, trace.steps, trace.next_step) == (len(found), count, len(found) + count)
        found += trace.losses
    assert_same_bits(torch.stack(found), torch.tensor(losses))
    assert_same_weights(model, reference)


def test_existing_gradients_are_ignored() -> None:
    reference, model = network(), network()
    by_hand(reference, sgd(reference), first_batches(5, 7))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows(), 7), 0, 5))
    assert_same_weights(model, reference)


def test_an_execution_without_steps_changes_nothing() -> None:
    model = network()
    trace = step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows(), 7), 4, 0))
    assert (trace.steps, trace.next_step, trace.logged, trace.histograms) == (0, 4, [], [])
    assert_same_weights(model, network())


def test_losses_hold_no_graph() -> None:
    model = network()
    trace = step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows(), 7), 0, 3))
    assert not any(one.requires_grad for one in trace.losses)


def test_dropout_draws_on() -> None:
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))
    reference = copy.deepcopy(model)
    torch.manual_seed(4)
    losses = by_hand(reference, sgd(reference), first_batches(20, 7))
    torch.manual_seed(4)
    trace = step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows(), 7), 0, 20))
    assert_same_bits(trace.losses_S(), torch.tensor(losses))


# ---- clipping ----------------------------------------------------------------------------------------------


def gradients(model: nn.Module) -> Tensor:
    found = [parameter.grad for parameter in model.parameters()]
    return torch.cat([one.flatten() for one in found if one is not None])


@pytest.mark.parametrize(("algorithm", "limit"), [("norm", 0.05), ("norm", 1e3), ("value", 0.01), ("value", 1e3)])
def test_clipping_is_that_of_torch(algorithm: str, limit: float) -> None:
    clips: dict[str, Callable[[Iterable[nn.Parameter]], Any]] = {
        "norm": lambda parameters: clip_grad_norm_(parameters, limit),
        "value": lambda parameters: clip_grad_value_(parameters, limit),
    }
    reference, model = network(), network()
    by_hand(reference, sgd(reference), first_batches(20, 7), clips[algorithm])
    loop = step_loop(model, sgd(model), clip_val=limit, clip_algorithm=algorithm)
    loop.run(Execution(TrainingSteps(rows(), 7), 0, 20))
    assert_same_weights(model, reference)
    unclipped = network()
    by_hand(unclipped, sgd(unclipped), first_batches(20, 7))
    if limit == 1e3:
        assert_same_weights(model, unclipped)
    else:
        # The limit is one that these gradients pass.
        assert not torch.equal(model[0].weight, unclipped[0].weight)


def test_a_clipped_gradient_has_the_norm_or_values_of_the_limit() -> None:
    model = network()
    one_step = Execution(TrainingSteps(rows()), 0, 1)
    step_loop(model, sgd(model), clip_val=0.05).run(one_step)
    assert float(gradients(model).norm()) == pytest.approx(0.05, rel=1e-4)
    model = network()
    step_loop(model, sgd(model), clip_val=0.01, clip_algorithm="value").run(one_step)
    assert float(gradients(model).abs().max()) == pytest.approx(0.01, rel=1e-6)


# ---- accumulation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "rows_of_last_step"),
    [(5, 3, 15), (4, 3, 6), (4, 5, 10), (1, 7, 2), (10, 3, 30), (7, 100, 30), (8, 2, 14)],
)
def test_several_batches_make_the_step_of_one_batch_of_all_their_rows(
    batch_size: int, accumulate: int, rows_of_last_step: int
) -> None:
    accumulating = TrainingSteps(rows(), batch_size, accumulate, shuffle=True, seed=2)
    at_once = TrainingSteps(rows(), batch_size * accumulate, 1, shuffle=True, seed=2)
    count = 3 * at_once.steps_per_epoch
    *_, last_step = accumulating.batches(0, count)
    assert len(last_step[0]) == rows_of_last_step
    models = network(), network()
    traces = [
        step_loop(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)).run(Execution(steps, 0, count))
        for model, steps in zip(models, (accumulating, at_once), strict=True)
    ]
    assert_close(traces[0].losses_S(), traces[1].losses_S())
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert_close(one, other)
    for one, other in zip(traces[0].logged, traces[1].logged, strict=True):
        assert_close([one.loss, one.metric], [other.loss, other.metric])


def test_accumulated_gradients_by_hand() -> None:
    # y = w·x, w = 0, loss (w·x - t)², gradient 2x(w·x - t): -2, -8 and -18 for x = t = 1, 2, 3.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    numbers_B1 = torch.tensor([[1.0], [2.0], [3.0]])
    steps = TrainingSteps(Rows(numbers_B1, numbers_B1), batch_size=2, accumulate_grad_batches=2)
    trace = StepLoop(model, make_task("regression", 1), sgd(model, lr=0.375)).run(Execution(steps, 0, 1))
    # All three rows count alike, although the second batch has only one: the mean gradient is -28/3.
    assert_close(model.weight.detach(), [[3.5]])
    assert_close(trace.losses, [14 / 3])


def test_batches_are_smaller_than_the_step_for_the_model() -> None:
    sizes = []

    class Watched(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            sizes.append(len(input))
            return super().forward(input)

    model = Watched(FEATURES, CLASSES)
    step_loop(model, sgd(model)).run(Execution(TrainingSteps(rows(), 7, 2), 0, 3))
    assert sizes == [7, 7, 7, 7, 2]


# ---- stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [0, 1, 6, 19])
def test_a_requested_stop_ends_the_execution_between_two_steps(made: int) -> None:
    model, reference = network(), network()
    optimizer = sgd(model)
    questions = 0

    def stop_requested() -> bool:
        nonlocal questions
        questions += 1
        return questions > made

    schedule = Schedule(lr_scheduler.StepLR(optimizer, 1, 0.9), "step")
    loop = step_loop(model, optimizer, schedule=schedule, stop_requested=stop_requested)
    trace = loop.run(Execution(TrainingSteps(rows(), 7), 0, 20))
    assert (trace.steps, len(trace.logged), trace.next_step) == (made, made, made)
    reference_optimizer = sgd(reference)
    scheduler = lr_scheduler.StepLR(reference_optimizer, 1, 0.9)
    by_hand(reference, reference_optimizer, first_batches(made, 7), after_step=lambda number, loss: scheduler.step())
    assert_same_weights(model, reference)
    assert optimizer.param_groups[0]["lr"] == reference_optimizer.param_groups[0]["lr"]


# ---- parameter groups --------------------------------------------------------------------------------------


def test_the_optimizer_may_hold_several_groups() -> None:
    model, reference = network(), network()

    def groups(owner: nn.Sequential) -> list[dict[str, Any]]:
        return [{"params": owner[0].parameters(), "lr": 0.1}, {"params": owner[2].parameters(), "lr": 0.01}]

    by_hand(
        reference,
        torch.optim.SGD(groups(reference)),
        first_batches(10, 7),
        clip=lambda parameters: clip_grad_norm_(parameters, 0.1),
    )
    loop = step_loop(model, torch.optim.SGD(groups(model)), clip_val=0.1)
    loop.run(Execution(TrainingSteps(rows(), 7), 0, 10))
    assert_same_weights(model, reference)
