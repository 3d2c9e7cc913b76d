"""Losses, gradients and metrics of rows that count differently.

Shapes: ``K`` members, ``B`` rows, ``C`` outputs.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tables import generator
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor

from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.tasks import RegressionTask, Task, make_task

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

TASKS = ("binary", "multiclass", "multilabel", "regression")
OUTPUTS = {"binary": 1, "multiclass": 4, "multilabel": 3, "regression": 2}
MEMBERS, ROWS = 3, 11
# How a stack is given targets and weights: of each member, of all, or both.
OF_MEMBERS = [(True, True), (True, False), (False, True), (False, False)]


def example(name: str, members: int | None, seed: int = 0, rows: int = ROWS) -> tuple[Task, Tensor, Tensor, Tensor]:
    """A task with logits, targets and weights, of ``members`` or without that axis."""
    draw, lead, outputs = generator(seed), () if members is None else (members,), OUTPUTS[name]
    logits = 3 * torch.randn(*lead, rows, outputs, generator=draw, dtype=torch.float64)
    if name == "multiclass":
        targets = torch.randint(0, outputs, (*lead, rows), generator=draw)
    else:
        targets = torch.randn(*lead, rows, outputs, generator=draw, dtype=torch.float64)
        targets = (targets > 0).double() if name in ("binary", "multilabel") else targets
    weights = torch.rand(*lead, rows, generator=draw, dtype=torch.float64)
    weights[..., ::4] = 0.0
    return make_task(name, outputs), logits, targets, weights


def losses_of_rows(name: str, logits_BC: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    if name in ("binary", "multilabel"):
        between = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits_BC, between, reduction="none").mean(1)
    if name == "multiclass":
        return F.cross_entropy(logits_BC, targets, reduction="none", label_smoothing=smoothing)
    return F.mse_loss(logits_BC, targets, reduction="none").mean(1)


def metrics_of_rows(name: str, logits_BC: Tensor, targets: Tensor) -> Tensor:
    if name in ("binary", "multilabel"):
        return ((logits_BC > 0) == (targets == 1)).double().mean(1)
    if name == "multiclass":
        return (logits_BC.argmax(1) == targets).double()
    return (logits_BC - targets).abs().mean(1)


def weighted_mean(values_B: Tensor, weights_B: Tensor) -> Tensor:
    return (values_B * weights_B).sum() / weights_B.sum()


@pytest.mark.parametrize("smoothing", [None, 0.2])
@pytest.mark.parametrize("name", TASKS)
def test_the_mean_is_weighted(name: str, smoothing: float | None) -> None:
    task, logits_BC, targets, weights_B = example(name, None)
    smoothed = 0.0 if smoothing is None or name == "regression" else smoothing
    expected = weighted_mean(losses_of_rows(name, logits_BC, targets, smoothed), weights_B)
    assert_close(task.loss(logits_BC, targets, smoothing, weights_B), expected, atol=1e-12)
    metric = task.metric(logits_BC, targets, weights_B)
    assert_close(metric, weighted_mean(metrics_of_rows(name, logits_BC, targets), weights_B), atol=1e-6)


@pytest.mark.parametrize("smoothing", [None, 0.2])
@pytest.mark.parametrize(("own_targets", "own_weights"), OF_MEMBERS)
@pytest.mark.parametrize("name", TASKS)
def test_of_a_stack_each_member_has_its_own_mean(
    name: str, own_targets: bool, own_weights: bool, smoothing: float | None
) -> None:
    task, logits_KBC, targets_K, weights_KB = example(name, MEMBERS)
    targets = targets_K if own_targets else targets_K[0]
    weights = weights_KB if own_weights else weights_KB[0]
    factor = None if smoothing is None else torch.full((MEMBERS, 1, 1), smoothing, dtype=torch.float64)
    losses = task.loss(logits_KBC, targets, factor, weights)
    metrics = task.metric(logits_KBC, targets, weights)
    assert losses.shape == metrics.shape == (MEMBERS,)
    for member in range(MEMBERS):
        mine = (targets[member] if own_targets else targets, weights[member] if own_weights else weights)
        assert_close(losses[member], task.loss(logits_KBC[member], mine[0], smoothing, mine[1]), atol=1e-12)
        assert_close(metrics[member], task.metric(logits_KBC[member], *mine))


@pytest.mark.parametrize("smoothing", [None, 0.2])
@pytest.mark.parametrize(("own_targets", "own_weights"), OF_MEMBERS)
@pytest.mark.parametrize("members", [None, MEMBERS])
@pytest.mark.parametrize("name", TASKS)
def test_the_gradient_is_that_of_autograd(
    name: str, members: int | None, own_targets: bool, own_weights: bool, smoothing: float | None
) -> None:
    task, logits, targets, weights = example(name, members)
    if members is not None:
        targets = targets if own_targets else targets[0]
        weights = weights if own_weights else weights[0]
    factor = None if smoothing is None else torch.tensor(smoothing, dtype=torch.float64).expand(*([1] * logits.dim()))
    if factor is not None and members is not None:
        factor = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)[:, None, None]
    for weighted in (weights, None):
        leaf = logits.clone().requires_grad_()
        task.loss(leaf, targets, factor, weighted).sum().backward()
        before = logits.clone()
        gradient = task.loss_gradient(logits, targets, factor, weighted)
        assert gradient.shape == logits.shape
        assert_close(gradient, leaf.grad, atol=1e-12)
        assert_same_bits(logits, before)


@pytest.mark.parametrize("name", TASKS)
def test_equal_weights_are_none(name: str) -> None:
    for members in (None, MEMBERS):
        task, logits, targets, weights = example(name, members)
        equal = torch.full_like(weights, 0.3)
        assert_close(task.loss(logits, targets, weights_B=equal), task.loss(logits, targets), atol=1e-12)
        assert_close(task.metric(logits, targets, equal), task.metric(logits, targets))
        assert_close(
            task.loss_gradient(logits, targets, weights_B=equal), task.loss_gradient(logits, targets), atol=1e-12
        )


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(TASKS), st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_a_row_of_weight_n_is_n_rows(name: str, seed: int, times: list[int]) -> None:
    task, logits_BC, targets, _ = example(name, None, seed, len(times))
    weights_B = torch.tensor(times, dtype=torch.float64)
    repeated = weights_B.long()
    if not any(times):
        return
    many = (logits_BC.repeat_interleave(repeated, 0), targets.repeat_interleave(repeated, 0))
    assert_close(task.loss(logits_BC, targets, weights_B=weights_B), task.loss(*many), atol=1e-12)
    assert_close(task.metric(logits_BC, targets, weights_B), task.metric(*many))


@pytest.mark.parametrize("name", TASKS)
def test_zero_weights_give_a_loss_and_gradient_of_zero(name: str) -> None:
    task, logits_BC, targets, weights_B = example(name, None)
    nothing_B = torch.zeros_like(weights_B)
    assert float(task.loss(logits_BC, targets, weights_B=nothing_B)) == 0
    assert float(task.metric(logits_BC, targets, nothing_B)) == 0
    assert not task.loss_gradient(logits_BC, targets, weights_B=nothing_B).any()
    task, logits_KBC, targets_K, weights_KB = example(name, MEMBERS)
    weights_KB[1] = 0
    losses = task.loss(logits_KBC, targets_K, weights_B=weights_KB)
    assert float(losses[1]) == 0
    assert losses[[0, 2]].all()
    gradient_KBC = task.loss_gradient(logits_KBC, targets_K, weights_B=weights_KB)
    assert not gradient_KBC[1].any()
    assert gradient_KBC.isfinite().all()


@pytest.mark.parametrize("name", TASKS)
def test_what_a_row_of_weight_zero_holds_makes_no_difference(name: str) -> None:
    task, logits_BC, targets, weights_B = example(name, None)
    other_BC = torch.where(weights_B[:, None] == 0, 7.0 - logits_BC, logits_BC)
    for one in ("loss", "loss_gradient", "metric"):
        measure = getattr(task, one)
        assert_same_bits(
            measure(other_BC, targets, weights_B=weights_B), measure(logits_BC, targets, weights_B=weights_B)
        )


def test_a_weighted_error_of_standardised_targets_is_in_their_units() -> None:
    mean_KT = torch.tensor([[[5.0, -1.0]], [[100.0, 0.0]]], dtype=torch.float64)
    scale_KT = torch.tensor([[[2.0, 10.0]], [[1.0, 0.5]]], dtype=torch.float64)
    _, logits_KBC, targets_KB, weights_KB = example("regression", 2)
    stacked = RegressionTask(mean_KT, scale_KT)
    found_K = stacked.metric(logits_KBC, targets_KB, weights_KB)
    for member in range(2):
        in_units = [one[member] * scale_KT[member] + mean_KT[member] for one in (logits_KBC, targets_KB)]
        errors_B = (in_units[0] - in_units[1]).abs().mean(1)
        assert_close(found_K[member], weighted_mean(errors_B, weights_KB[member]), atol=1e-9)
        alone = stacked.select([member])
        assert_close(alone.metric(logits_KBC[[member]], targets_KB[[member]], weights_KB[[member]]), found_K[[member]])
        assert_close(stacked.predictions(logits_KBC)[member], in_units[0], atol=1e-9)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(None, 1), (4, 1), (3, 2)])
@pytest.mark.parametrize("name", TASKS)
def test_the_step_loop_weights_loss_and_metric(name: str, batch_size: int | None, accumulate: int) -> None:
    task, _, targets, weights_B = example(name, None)
    features_BF = torch.randn(ROWS, 3, generator=generator(5), dtype=torch.float64)
    torch.manual_seed(0)
    model = MLP(3, OUTPUTS[name], [4], "tanh").double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = TrainingSteps(Rows(features_BF, targets, weights_B), batch_size, accumulate, seed=2)
    again = MLP(3, OUTPUTS[name], [4], "tanh").double()
    again.load_state_dict(model.state_dict())
    trace = StepLoop(model, task, optimizer).run(Execution(steps, 0, 8))
    for logged, (features, wanted, counts) in zip(trace.logged, steps.batches(0, 8), strict=True):
        assert counts is not None
        logits_BC = again(features)
        loss = weighted_mean(losses_of_rows(name, logits_BC, wanted), counts)
        metric = weighted_mean(metrics_of_rows(name, logits_BC, wanted), counts)
        assert logged.loss == pytest.approx(float(loss.detach()), abs=1e-9)
        assert logged.metric == pytest.approx(float(metric.detach()), abs=1e-6)
        again.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in again.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert_close(one, other, atol=1e-9)
