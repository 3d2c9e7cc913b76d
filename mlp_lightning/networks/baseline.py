"""What a prediction that does not look at the features is worth: a model is compared with it.

It is taken from the training rows, and measured on the rows of the metric that it is compared with.

Shapes: ``B`` rows, ``C`` logits, ``T`` target columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlp_lightning.networks.tasks import Task
from mlp_lightning.networks.tasks.base import Floats, Metrics
from mlp_lightning.tables.targets import Target

_ROWS_AT_ONCE = 65_536


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The constant logits that are predicted, as :meth:`Task.baseline` has them.

    Attributes:
        of_loss: those of the least loss on the training rows, ``(C,)``.
        of_metric: those of the best metric.
    """

    of_loss: tuple[float, ...]
    of_metric: tuple[float, ...]

    @classmethod
    def of(cls, targets: Tensor, task: Task) -> Baseline:
        """The baseline of these training targets, which are as the loss of the task takes them."""
        of_loss, of_metric = task.baseline(targets.cpu().double() if targets.is_floating_point() else targets.cpu())
        return cls(tuple(of_loss.tolist()), tuple(of_metric.tolist()))

    def to_dict(self) -> dict[str, list[float]]:
        """As plain data, for a checkpoint."""
        return {name: list(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Baseline:
        return cls(**{name: tuple(value) for name, value in plain.items()})

    def shares(self, task: Task) -> list[float]:
        """The share of the training rows of each class, or of the second class of each of several targets."""
        return task.predictions(_rows_of(self.of_loss, 1))[0].tolist() if task.has_classes else []

    def predictions(self, task: Task, rows: int) -> tuple[Tensor, Tensor]:
        """What is predicted of so many rows, ``(B, C)``: for the loss, and for the metric of the task."""
        of_loss, of_metric = (task.predictions(_rows_of(one, rows)) for one in (self.of_loss, self.of_metric))
        return of_loss, of_metric

    def metrics(self, task: Task, targets: Tensor) -> dict[str, float]:
        """Loss and metric of the task, of the best constants for each.

        Args:
            task: of the model.
            targets: of the rows, as the model learns them.
        """
        found = {"loss": 0.0, task.metric_name: 0.0}
        for part in targets.cpu().split(_ROWS_AT_ONCE):
            values = part.double() if part.is_floating_point() else part
            share = len(part) / len(targets)
            found["loss"] += task.loss(_rows_of(self.of_loss, len(part)), values).item() * share
            found[task.metric_name] += task.metric(_rows_of(self.of_metric, len(part)), values).item() * share
        return found

    def evaluation(self, task: Task, target: Target, truths_BT: Floats, weights_B: Floats | None) -> Metrics:
        """The metrics of an evaluation: of the task's metric and those like it, of the constant that is best for it.

        Args:
            task: of the model.
            target: what it predicts.
            truths_BT: class numbers or values of the rows.
            weights_B: of the rows; ``None`` if all count the same.
        """
        of_loss, of_metric = (
            task.evaluation(
                target, truths_BT, task.predictions(_rows_of(one, len(truths_BT))).numpy(), weights_B
            ).metrics
            for one in (self.of_loss, self.of_metric)
        )
        return {**of_loss, **{name: of_metric[name] for name in task.like_its_metric}}


def _rows_of(logits_C: Sequence[float], rows: int) -> Tensor:
    return torch.tensor(logits_C, dtype=torch.float64).expand(rows, -1)
