from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from numpy.typing import NDArray
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor

from mlp_lightning.networks.tasks import Task, make_task

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

TASKS = ("binary", "multiclass", "multilabel", "regression")
Numbers = NDArray[np.float64]


def binary_cross_entropy(logits_BC: Numbers, targets: Numbers) -> float:
    # -t·log(p) - (1 - t)·log(1 - p) with p = 1 / (1 + exp(-z)), rearranged so that nothing overflows
    losses = np.maximum(logits_BC, 0) - logits_BC * targets + np.log1p(np.exp(-np.abs(logits_BC)))
    return float(losses.mean())


def cross_entropy(logits_BC: Numbers, labels_B: NDArray[np.int64]) -> float:
    highest_B = logits_BC.max(1)
    log_sum_exp_B = highest_B + np.log(np.exp(logits_BC - highest_B[:, None]).sum(1))
    return float((log_sum_exp_B - logits_BC[np.arange(len(labels_B)), labels_B]).mean())


def mean_squared_error(outputs_BC: Numbers, targets: Numbers) -> float:
    return float(((outputs_BC - targets) ** 2).mean())


LOSSES: dict[str, Any] = {
    "binary": binary_cross_entropy,
    "multiclass": cross_entropy,
    "multilabel": binary_cross_entropy,
    "regression": mean_squared_error,
}


def example(task: str, seed: int = 0, rows: int = 50, scale: float = 3.0) -> tuple[Task, Tensor, Tensor]:
    """A task with random logits and targets."""
    draw = torch.Generator().manual_seed(seed)
    columns = {"binary": 1, "multiclass": 4, "multilabel": 3, "regression": 2}[task]
    logits_BC = scale * torch.randn(rows, columns, generator=draw)
    targets = {
        "binary": torch.randint(0, 2, (rows, 1), generator=draw).float(),
        "multiclass": torch.randint(0, 4, (rows,), generator=draw),
        "multilabel": torch.randint(0, 2, (rows, 3), generator=draw).float(),
        "regression": torch.randn(rows, 2, generator=draw),
    }[task]
    return make_task(task, columns), logits_BC, targets


def as_torchmetrics_takes_them(task: Task, targets: Tensor) -> Tensor:
    return targets.long() if task.has_classes else targets


@pytest.mark.parametrize("scale", [0.01, 3.0, 30.0])
@pytest.mark.parametrize("name", TASKS)
def test_loss_by_formula(name: str, scale: float) -> None:
    task, logits_BC, targets = example(name, scale=scale)
    expected = LOSSES[name](logits_BC.double().numpy(), targets.numpy())
    assert float(task.loss(logits_BC, targets)) == pytest.approx(expected, rel=1e-6)


def test_losses_by_hand() -> None:
    zero = torch.zeros(2, 1)
    assert float(make_task("binary", 1).loss(zero, torch.tensor([[0.0], [1.0]]))) == pytest.approx(math.log(2))
    assert float(make_task("multiclass", 3).loss(torch.zeros(2, 3), torch.tensor([0, 2]))) == pytest.approx(math.log(3))
    targets_BT = torch.tensor([[1.0], [-3.0]])
    assert float(make_task("regression", 1).loss(zero, targets_BT)) == 5.0
    assert float(make_task("regression", 1).metric(zero, targets_BT)) == 2.0


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_a_loss_of_certain_and_wrong_logits_is_finite(name: str) -> None:
    task, logits_BC, targets = example(name, scale=1e4)
    assert float(task.loss(logits_BC, targets)) == pytest.approx(
        LOSSES[name](logits_BC.double().numpy(), targets.numpy()), rel=1e-6
    )
    assert task.predictions(logits_BC).isfinite().all()


@pytest.mark.parametrize("name", TASKS)
def test_a_loss_is_the_mean_over_rows_so_that_batches_can_be_put_together(name: str) -> None:
    task, logits_BC, targets = example(name)
    parts = [task.loss(logits_BC[:20], targets[:20]), task.loss(logits_BC[20:], targets[20:])]
    assert_close(0.4 * parts[0] + 0.6 * parts[1], task.loss(logits_BC, targets), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", TASKS)
def test_metric_by_hand(name: str, seed: int) -> None:
    task, logits_BC, targets = example(name, seed)
    logits, wanted = logits_BC.double().numpy(), targets.numpy()
    if name in ("binary", "multilabel"):
        probabilities = 1 / (1 + np.exp(-logits))
        expected = ((probabilities > 0.5) == (wanted == 1)).mean()
    elif name == "multiclass":
        largest = [row.tolist().index(max(row)) for row in logits]
        expected = np.mean([one == label for one, label in zip(largest, wanted, strict=True)])
    else:
        expected = np.abs(logits - wanted).mean()
    assert float(task.metric(logits_BC, targets)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("binary", torchmetrics.Accuracy(task="binary")),
        ("multiclass", torchmetrics.Accuracy(task="multiclass", num_classes=4)),
        ("multilabel", torchmetrics.Accuracy(task="multilabel", num_labels=3)),
        ("regression", torchmetrics.MeanAbsoluteError()),
    ],
)
def test_metric_is_that_of_torchmetrics(name: str, reference: torchmetrics.Metric, seed: int) -> None:
    task, logits_BC, targets = example(name, seed)
    predictions_BC = task.predictions(logits_BC)
    reference.reset()
    reference.update(
        predictions_BC[:, 1:] if name == "binary" else predictions_BC, as_torchmetrics_takes_them(task, targets)
    )
    assert_close(task.metric(logits_BC, targets), reference.compute())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_the_metric_is_the_share_of_right_decisions(name: str, seed: int) -> None:
    task, logits_BC, targets = example(name, seed)
    decisions_BT = task.decisions(task.predictions(logits_BC))
    assert decisions_BT is not None
    assert decisions_BT.shape == task.truths(targets).shape == (50, 3 if name == "multilabel" else 1)
    assert_close((decisions_BT == task.truths(targets)).double().mean(), task.metric(logits_BC, targets))


def test_logits_between_zero_and_one_are_not_taken_for_probabilities() -> None:
    task = make_task("binary", 1)
    # All of these logits are positive, so they all say class 1.
    logits_BC = torch.tensor([[0.1], [0.3], [0.7], [0.9]])
    targets = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    assert float(torchmetrics.Accuracy(task="binary")(logits_BC, targets.long())) == 0.25  # the trap
    assert float(task.metric(logits_BC, targets)) == 0.75


@pytest.mark.parametrize("name", ["binary", "multilabel"])
def test_a_logit_of_zero_is_the_first_class(name: str) -> None:
    task = make_task(name, 2)
    logits_BC, targets = torch.zeros(3, 1), torch.tensor([[0.0], [0.0], [1.0]])
    assert_close(task.metric(logits_BC, targets), 2 / 3)
    decisions_BT = task.decisions(task.predictions(logits_BC))
    assert decisions_BT is not None
    assert decisions_BT.tolist() == [[0], [0], [0]]


def test_predictions_are_probabilities_or_values() -> None:
    task, logits_BC, _ = example("binary")
    of_second_B1 = 1 / (1 + np.exp(-logits_BC.numpy()))
    assert_close(task.predictions(logits_BC), np.concatenate([1 - of_second_B1, of_second_B1], axis=1))
    task, logits_BC, _ = example("multilabel")
    assert_close(task.predictions(logits_BC), 1 / (1 + np.exp(-logits_BC.numpy())))
    task, logits_BC, _ = example("multiclass")
    exponentials_BC = np.exp(logits_BC.numpy())
    assert_close(task.predictions(logits_BC), exponentials_BC / exponentials_BC.sum(1, keepdims=True))
    task, logits_BC, _ = example("regression")
    assert_same_bits(task.predictions(logits_BC), logits_BC)


@pytest.mark.parametrize(
    ("name", "metric_name"),
    [("binary", "accuracy"), ("multiclass", "accuracy"), ("multilabel", "accuracy"), ("regression", "mae")],
)
def test_names(name: str, metric_name: str) -> None:
    task = make_task(name, 3)
    assert (task.name, task.metric_name) == (name, metric_name)


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'ranking' must be one of binary, multiclass, multilabel, regression"):
        make_task("ranking", 1)


# ---- stacks ------------------------------------------------------------------------------------------------


def leading_examples(name: str, leading: tuple[int, ...], own_targets: bool) -> tuple[Task, Tensor, Tensor]:
    """Logits with leading axes; targets that all share, or with the same leading axes."""
    examples = [example(name, seed, rows=9) for seed in range(math.prod(leading))]
    logits = torch.stack([one for _, one, _ in examples]).view(*leading, 9, -1).double()
    targets = torch.stack([one for _, _, one in examples]).view(*leading, *examples[0][2].shape)
    targets = targets.double() if targets.is_floating_point() else targets
    return examples[0][0], logits, targets if own_targets else targets[(0,) * len(leading)]


@pytest.mark.parametrize("own_targets", [True, False])
@pytest.mark.parametrize("leading", [(1,), (3,), (2, 3)])
@pytest.mark.parametrize("name", TASKS)
def test_leading_axes_give_the_losses_and_metrics_of_each_slice(
    name: str, leading: tuple[int, ...], own_targets: bool
) -> None:
    task, logits, targets = leading_examples(name, leading, own_targets)
    losses, metrics = task.loss(logits, targets), task.metric(logits, targets)
    gradients = task.loss_gradient(logits, targets)
    assert losses.shape == metrics.shape == leading
    assert gradients.shape == logits.shape
    for index in itertools.product(*(range(length) for length in leading)):
        wanted = targets[index] if own_targets else targets
        assert_close(losses[index], task.loss(logits[index], wanted), atol=1e-12)
        assert_close(metrics[index], task.metric(logits[index], wanted))
        assert_close(gradients[index], task.loss_gradient(logits[index], wanted), atol=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_steps_whose_rows_all_members_share(name: str) -> None:
    """Logits ``(S, K, B, C)`` with the targets of each step, ``(S, 1, B, …)``."""
    task, logits, _ = leading_examples(name, (2, 3), own_targets=False)
    targets = torch.stack([example(name, seed, rows=9)[2] for seed in (7, 8)])
    losses, metrics = task.loss(logits, targets.unsqueeze(1)), task.metric(logits, targets.unsqueeze(1))
    for step, member in itertools.product(range(2), range(3)):
        assert_close(losses[step, member], task.loss(logits[step, member], targets[step]), atol=1e-12)
        assert_close(metrics[step, member], task.metric(logits[step, member], targets[step]))


@pytest.mark.parametrize("leading", [(), (3,)])
@pytest.mark.parametrize("scale", [0.01, 3.0, 30.0, 1e4])
@pytest.mark.parametrize("name", TASKS)
def test_loss_gradient_is_that_of_autograd(name: str, scale: float, leading: tuple[int, ...]) -> None:
    task, logits, targets = leading_examples(name, leading or (1,), own_targets=True)
    if not leading:
        logits, targets = logits[0], targets[0]
    logits = (scale * logits).requires_grad_()
    (expected,) = torch.autograd.grad(task.loss(logits, targets).sum(), logits)
    before = logits.detach().clone()
    with torch.no_grad():
        gradient = task.loss_gradient(logits.detach(), targets)
    assert_close(gradient, expected, atol=1e-12 * scale)
    assert_same_bits(logits.detach(), before)
