"""What one execution leaves behind for the callbacks: the losses, and more at the steps that are logged."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class LoggedStep:
    """A step whose figures are logged; they were measured before the step's update.

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


@dataclasses.dataclass
class StepTrace:
    """The steps of one execution.

    Attributes:
        first_step: number of updates made before the execution.
        losses: the training loss of each step, detached scalars.
        logged: the steps to log.
        histograms: the steps with histograms.
    """

    first_step: int
    losses: list[Tensor] = dataclasses.field(default_factory=list)
    logged: list[LoggedStep] = dataclasses.field(default_factory=list)
    histograms: list[Histogram] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def next_step(self) -> int:
        """Number of updates made after the execution."""
        return self.first_step + len(self.losses)

    def losses_S(self) -> Tensor:
        """All losses as one tensor."""
        return torch.stack(self.losses)
