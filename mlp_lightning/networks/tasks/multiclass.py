"""Several classes, of which each row has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from mlp_lightning.networks.tasks.base import Floats, mean, shared_out
from mlp_lightning.networks.tasks.classes import OneOfClasses
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target, are_classes, classes_of, only_target

if TYPE_CHECKING:
    from typing_extensions import Self

_ROWS_BY_COLUMNS, _CLASSES_BY_COLUMNS = 64, 15


class MulticlassTask(OneOfClasses):
    """One logit per class; the class with the largest one. Loss: cross-entropy."""

    name = "multiclass"
    output_activation = "softmax"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @classmethod
    def poses(cls, columns: Sequence[pa.ChunkedArray]) -> bool:
        return len(columns) == 1 and are_classes(columns[0])

    @classmethod
    def target(cls, table: pa.Table, names: Sequence[str], origin: Origin) -> Target:
        return Target(cls.name, (classes_of(table, only_target(names, cls.name, origin), origin),))

    @classmethod
    def out_features(cls, target: Target) -> int:
        return len(target.columns[0].classes)

    @classmethod
    def as_learnt(cls, target: Target, numbers_BT: Floats, dtype: torch.dtype) -> Tensor:
        """Class numbers, ``(B,)``."""
        return torch.from_numpy(numbers_BT[:, 0].astype(np.int64))

    @classmethod
    def make(cls, out_features: int, mean: Sequence[float] = (), scale: Sequence[float] = ()) -> Self:
        return cls(out_features)

    def loss(
        self,
        logits_BC: Tensor,
        targets: Tensor,
        smoothing: float | Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        if logits_BC.dim() == 2 and weights_B is None and not torch.is_tensor(smoothing):
            return F.cross_entropy(logits_BC, targets, label_smoothing=smoothing or 0.0)
        index_B1 = targets.expand(logits_BC.shape[:-1]).unsqueeze(-1)
        log_probabilities_BC = _by_columns(torch.log_softmax, logits_BC)
        of_labels_B1 = log_probabilities_BC.gather(-1, index_B1)
        if smoothing is not None:
            of_labels_B1 = torch.lerp(of_labels_B1, log_probabilities_BC.mean(-1, keepdim=True), smoothing)
        return -mean(of_labels_B1.squeeze(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        if not targets.is_floating_point():
            targets = self.soft_targets(targets, smoothing).to(logits_BC.dtype)
        return shared_out(_by_columns(torch.softmax, logits_BC) - targets, weights_B, outputs=1)

    def soft_targets(self, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        """Probabilities of all classes, ``(B, C)``."""
        dtype = torch.get_default_dtype() if smoothing is None else smoothing.dtype
        one_hot_BC = torch.zeros(*targets.shape, self.classes, dtype=dtype, device=targets.device)
        one_hot_BC.scatter_(-1, targets.unsqueeze(-1), 1.0)
        return one_hot_BC if smoothing is None else one_hot_BC * (1 - smoothing) + smoothing / self.classes

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        return mean((logits_BC.max(-1).indices == targets).float(), weights_B)

    def baseline(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of the shares of the classes."""
        shares_C = targets.bincount(minlength=self.classes).double() / len(targets)
        logits_C = self.logits(shares_C)
        return logits_C, logits_C

    def predictions(self, logits_BC: Tensor) -> Tensor:
        """Probabilities of all classes, ``(B, C)``."""
        return logits_BC.softmax(-1)

    def logits(self, predictions_BC: Tensor) -> Tensor:
        return predictions_BC.double().clamp(torch.finfo(torch.float64).eps).log()

    def truths(self, targets: Tensor) -> Tensor:
        return targets.unsqueeze(-1)


def _by_columns(function: Callable[[Tensor, int], Tensor], logits_BC: Tensor) -> Tensor:
    """Softmax or its logarithm over the classes.

    Torch works out a row at a time, however few its classes are, or many rows at once where classes are columns that
    lie apart: three times as fast for 2 classes of 256 rows, the copy included, and seven times for 4,096.
    """
    rows, classes = logits_BC.shape[-2:]
    if rows < _ROWS_BY_COLUMNS or classes > _CLASSES_BY_COLUMNS:
        return function(logits_BC, -1)
    return function(logits_BC.transpose(-1, -2).contiguous(), -2).transpose(-1, -2)
