"""What a prediction that does not look at the features is worth: a model is compared with it.

It is taken from the training rows, and measured on the rows of the metric that it is compared with.

Shapes: ``B`` rows, ``C`` classes, ``T`` target columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.networks.tasks import Task

# A class that no training row has is still not impossible: its log-loss stays finite, as scikit-learn's does.
_LEAST_SHARE = float(np.finfo(np.float64).eps)
_ROWS_AT_ONCE = 65_536


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The constants that are predicted.

    Attributes:
        shares: of a classification: share of the training rows of each class, or of each label where a row may have
            several.
        mean: of a regression: of each target in the training rows, ``(T,)``, as the model learns it.
        median: likewise.
    """

    shares: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    median: tuple[float, ...] = ()

    @classmethod
    def of(cls, targets: Tensor, task: str, classes: int) -> Baseline:
        """The baseline of these training targets.

        Args:
            targets: ``(B,)`` class numbers, or ``(B, T)`` as the model learns them.
            task: that they pose.
            classes: how many there are; 0 for a regression.
        """
        values = targets.double().cpu().numpy()
        if task == "regression":
            return cls(mean=tuple(values.mean(0).tolist()), median=tuple(np.median(values, axis=0).tolist()))
        if values.ndim == 1:
            values = np.bincount(values.astype(np.int64), minlength=classes) / len(values)
            return cls(shares=tuple(values.tolist()))
        shares = values.mean(0).tolist()
        return cls(shares=(1 - shares[0], shares[0]) if task == "binary" else tuple(shares))

    def to_dict(self) -> dict[str, list[float]]:
        """As plain data, for a checkpoint."""
        return {name: list(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Baseline:
        return cls(**{name: tuple(value) for name, value in plain.items()})

    @property
    def majority(self) -> int:
        """The most frequent class (of equal ones the first)."""
        return int(np.argmax(self.shares))

    def metrics(self, task: Task, targets: Tensor) -> dict[str, float]:
        """Loss and metric of the task, of the best constants for each.

        The loss of a classification is that of the shares, its accuracy that of the majority; the squared error of a
        regression is that of the mean, its absolute error that of the median.

        Args:
            task: of the model.
            targets: of the rows, as the model learns them.
        """
        found = {"loss": 0.0, task.metric_name: 0.0}
        for part in targets.cpu().split(_ROWS_AT_ONCE):
            values = part.double() if part.is_floating_point() else part
            share = len(part) / len(targets)
            found["loss"] += task.loss(self._logits(task.name, self.mean, len(part)), values).item() * share
            logits = self._logits(task.name, self.median, len(part))
            found[task.metric_name] += task.metric(logits, values).item() * share
        return found

    def values(self, task: Task) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and median of a regression in the units of the targets, ``(T,)`` each."""
        both_2T = task.predictions(torch.tensor([self.mean, self.median], dtype=torch.float64))
        mean_T, median_T = both_2T.cpu().numpy()
        return mean_T, median_T

    def _logits(self, task: str, constants: tuple[float, ...], rows: int) -> Tensor:
        if task == "regression":
            return torch.tensor(constants, dtype=torch.float64).expand(rows, -1)
        shares = torch.tensor(self.shares, dtype=torch.float64).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        if task == "multiclass":
            return shares.log().expand(rows, -1)
        return torch.logit(shares[1:] if task == "binary" else shares).expand(rows, -1)

    def predictions(self, rows: int) -> NDArray[np.float64]:
        """The shares as the probabilities of all classes, ``(B, C)``."""
        return np.broadcast_to(np.array(self.shares), (rows, len(self.shares)))
