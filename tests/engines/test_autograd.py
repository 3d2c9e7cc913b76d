"""The step loop against loops written by hand, from the same initial weights."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tolerances import assert_close, assert_same_bits, assert_same_weights
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer, lr_scheduler

from mlp_lightning.config import OptimizerConfig
from mlp_lightning.config.schema import CosineSchedule, OneCycleSchedule, PlateauSchedule, StepSchedule
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.engines.trace import StepTrace
from mlp_lightning.networks.optimizers import Schedule, build_optimizer, build_schedule
from mlp_lightning.networks.tasks import make_task

pytestmark = pytest.mark.usefixtures("one_thread")  # matrices as small as these lose by a second

ROWS, FEATURES, CLASSES = 30, 4, 3
Batch = tuple[Tensor, Tensor]

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


def rows() -> Rows:
    draw = torch.Generator().manual_seed(0)
    features_BF = torch.randn(ROWS, FEATURES, generator=draw)
    return Rows(features_BF, (features_BF @ torch.randn(FEATURES, CLASSES, generator=draw)).argmax(1))


def network() -> nn.Sequential:
    """The same weights at every call."""
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def sgd(model: nn.Module, lr: float = 0.1) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def step_loop(model: nn.Module, optimizer: Optimizer, **options: Any) -> StepLoop:
    return StepLoop(model, make_task("multiclass", CLASSES), optimizer, **options)


def first_batches(count: int, batch_size: int | None = None, seed: int = 0) -> list[Batch]:
    """The batches of the first steps, cut by hand out of each epoch's order."""
    steps, found, table, epoch = TrainingSteps(rows(), batch_size, seed=seed), [], rows(), 0
    while len(found) < count:
        order = steps.order(epoch) if batch_size is not None else torch.arange(ROWS)
        for start in range(0, ROWS, batch_size or ROWS):
            here = order[start : start + (batch_size or ROWS)]
            found.append((table.features_BF[here], table.targets[here]))
        epoch += 1
    return found[:count]


def by_hand(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    clip: Callable[[Iterable[nn.Parameter]], Any] | None = None,
    after_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """A plain loop; returns the losses before each update."""
    losses = []
    for number, (features_BF, labels_B) in enumerate(batches, start=1):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(features_BF), labels_B)
        loss.backward()
        if clip is not None:
            clip(model.parameters())
        optimizer.step()
        losses.append(loss.item())
        if after_step is not None:
            after_step(number, loss.item())
    return losses


def learning_rates(trace: StepTrace) -> list[float]:
    return [one.lr for one in trace.logged]


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


def test_gradients_left_by_someone_else_do_not_count() -> None:
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


# ---- schedules ---------------------------------------------------------------------------------------------

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
    rates: list[float] = []
    for count in counts:
        rates += learning_rates(loop.run(Execution(TrainingSteps(rows(), 7), len(rates), count)))
    return model, rates, optimizer


@pytest.mark.parametrize("counts", [[40], [1] * 40, [13, 27]])
def test_step_schedule_counting_steps(counts: list[int]) -> None:
    model, rates, _ = scheduled(StepSchedule(step_size=15, gamma=0.5, interval="step"), 40, counts)
    reference = network()
    optimizer = sgd(reference)
    scheduler = lr_scheduler.StepLR(optimizer, 15, 0.5)
    by_hand(reference, optimizer, first_batches(40, 7), after_step=lambda number, loss: scheduler.step())
    assert rates == [0.1] * 15 + [0.05] * 15 + [0.025] * 10
    assert_same_weights(model, reference)


@pytest.mark.parametrize("counts", [[40], [1] * 40, [13, 27], [5] * 8])
def test_step_schedule_counting_epochs(counts: list[int]) -> None:
    model, rates, _ = scheduled(StepSchedule(step_size=3, gamma=0.5), 40, counts)
    reference = network()
    optimizer = sgd(reference)
    scheduler = lr_scheduler.StepLR(optimizer, 3, 0.5)

    def after_step(number: int, loss: float) -> None:
        if number % STEPS_PER_EPOCH == 0:
            scheduler.step()

    by_hand(reference, optimizer, first_batches(40, 7), after_step=after_step)
    assert rates == [0.1] * 15 + [0.05] * 15 + [0.025] * 10
    assert_same_weights(model, reference)


@pytest.mark.parametrize("counts", [[40], [13, 27]])
def test_cosine_schedule(counts: list[int]) -> None:
    model, rates, optimizer = scheduled(CosineSchedule(eta_min=0.01), 40, counts)
    reference = network()
    reference_optimizer = sgd(reference)
    scheduler = lr_scheduler.CosineAnnealingLR(reference_optimizer, T_max=40, eta_min=0.01)
    by_hand(reference, reference_optimizer, first_batches(40, 7), after_step=lambda number, loss: scheduler.step())
    assert_same_weights(model, reference)
    assert_close(rates, [0.01 + 0.045 * (1 + math.cos(math.pi * step / 40)) for step in range(40)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("counts", [[40], [13, 27]])
def test_one_cycle_schedule(counts: list[int]) -> None:
    config = OneCycleSchedule(max_lr=0.4, pct_start=0.25, div_factor=4.0, final_div_factor=10.0)
    model, rates, optimizer = scheduled(config, 40, counts)
    reference = network()
    reference_optimizer = sgd(reference)
    # 40 updates have 41 rates: the first, and one after each update.
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
    highest = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.1)
    assert 0.39 < rates[highest] <= 0.4 + 1e-9
    assert highest in (9, 10)
    assert rates[: highest + 1] == sorted(rates[: highest + 1])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("counts", [[60], [1] * 60, [13, 1, 46]])
def test_plateau_schedule_follows_the_mean_loss_of_each_epoch(counts: list[int]) -> None:
    config = PlateauSchedule(monitor="loss/train", factor=0.5, patience=1, threshold=0.2, min_lr=0.02)
    model, rates, _ = scheduled(config, 60, counts)
    reference = network()
    optimizer = sgd(reference)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.2, min_lr=0.02)
    epoch: list[float] = []
    expected_rates = [0.1]

    def after_step(number: int, loss: float) -> None:
        epoch.append(loss)
        if number % STEPS_PER_EPOCH == 0:
            scheduler.step(sum(epoch) / len(epoch))
            epoch.clear()
        expected_rates.append(optimizer.param_groups[0]["lr"])

    by_hand(reference, optimizer, first_batches(60, 7), after_step=after_step)
    assert rates == expected_rates[:60]
    assert len(set(rates)) >= 3
    assert min(rates) == 0.02
    assert_same_weights(model, reference)


def test_the_loss_of_an_unfinished_epoch_is_handed_on() -> None:
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
    _, rates, _ = scheduled(config, 40, [40], has_validation=True)
    assert rates == [0.1] * 40


def test_momentum_stays_what_it_is_in_one_cycle() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.7)
    schedule = build_schedule(optimizer, OneCycleSchedule(), 10, has_validation=False)
    step_loop(model, optimizer, schedule=schedule).run(Execution(TrainingSteps(rows()), 0, 10))
    assert optimizer.param_groups[0]["momentum"] == 0.7


# ---- what is logged ----------------------------------------------------------------------------------------


def test_logged_figures_were_measured_before_the_update() -> None:
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


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression"])
def test_every_task_can_be_logged_under_autocast(name: str) -> None:
    columns = CLASSES if name == "multiclass" else 1
    model = nn.Linear(FEATURES, columns)
    table = rows()
    if name != "multiclass":
        table = dataclasses.replace(table, targets=(table.targets > 0).float().unsqueeze(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = StepLoop(model, make_task(name, columns), sgd(model)).run(Execution(TrainingSteps(table, 7), 0, 5))
    assert all(math.isfinite(one.loss) and math.isfinite(one.metric) for one in trace.logged)


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
