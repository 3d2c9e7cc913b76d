"""What one execution records for the callbacks: the losses, and more at the logged steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlp_lightning.networks.tasks import Task


@dataclasses.dataclass(frozen=True)
class LoggedStep:
    """A logged step, measured before its update.

    Attributes:
        step: number of updates made before this step.
        loss: training loss of the step's rows.
        metric: the task's metric (accuracy, say) of the step's rows.
        lr: learning rate of the update.
    """

    step: int
    loss: float
    metric: float
    lr: float


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Weights before the update of ``step`` and the gradients of it, by parameter name."""

    step: int
    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]


class ToLog(NamedTuple):
    """The tensors from which a logged step is measured, still on the device."""

    step: int
    loss: Tensor
    logits_BC: Tensor
    targets: Tensor
    weights_B: Tensor | None
    lr: float


def measure(task: Task, steps: Sequence[ToLog]) -> list[LoggedStep]:
    """The metrics of logged steps as numbers, fetched from the device together."""
    if not steps:
        return []
    metrics = torch.stack(_metrics(task, steps))
    losses = torch.stack([one.loss for one in steps])
    return [
        LoggedStep(one.step, loss, metric, one.lr)
        for one, loss, metric in zip(steps, losses.tolist(), metrics.tolist(), strict=True)
    ]


def _metrics(task: Task, steps: Sequence[ToLog]) -> list[Tensor]:
    first = steps[0]
    # Counts of correct rows are exact, so the number of steps measured together makes no difference.
    alike = task.has_classes and all(
        one.weights_B is None and one.logits_BC.shape == first.logits_BC.shape for one in steps
    )
    if not alike or len(steps) == 1:
        return [task.metric(one.logits_BC, one.targets, one.weights_B) for one in steps]
    full_batch = all(one.targets is first.targets for one in steps)
    targets = first.targets if full_batch else torch.stack([one.targets for one in steps])
    return list(task.metric(torch.stack([one.logits_BC for one in steps]), targets))


@dataclasses.dataclass
class StepTrace:
    """The steps of one execution.

    Attributes:
        first_step: number of updates made before the execution.
        losses: the training loss of each step, detached scalars.
        rates: the learning rate of each step.
        to_log: the steps to log, not yet measured.
        histograms: the steps with histograms.
        logged: the steps to log, once they are measured.
    """

    first_step: int
    losses: list[Tensor] = dataclasses.field(default_factory=list)
    rates: list[float] = dataclasses.field(default_factory=list)
    to_log: list[ToLog] = dataclasses.field(default_factory=list)
    histograms: list[Histogram] = dataclasses.field(default_factory=list)
    logged: list[LoggedStep] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def next_step(self) -> int:
        """Number of updates made after the execution."""
        return self.first_step + len(self.losses)

    def losses_S(self) -> Tensor:
        """All losses as one tensor."""
        return torch.stack(self.losses) if len(self.losses) > 1 else self.losses[0][None]
