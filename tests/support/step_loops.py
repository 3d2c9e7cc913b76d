"""The step loop of the autograd engine and a loop written by hand, from the same initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import TrainingSteps
from mlp_lightning.engines.trace import StepTrace
from mlp_lightning.networks.tasks import make_task

ROWS, FEATURES, CLASSES = 30, 4, 3
Batch = tuple[Tensor, Tensor]


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
