"""Two classes."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from mlp_lightning.errors import DataError
from mlp_lightning.networks.tasks.base import logit, mean, shared_out
from mlp_lightning.networks.tasks.classes import OneOfClasses
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target, are_classes, classes_of, only_target


class BinaryTask(OneOfClasses):
    """One logit; the second class when its probability is above one half. Loss: binary cross-entropy."""

    name = "binary"
    output_activation = "logistic"

    @classmethod
    def poses(cls, columns: Sequence[pa.ChunkedArray]) -> bool:
        return len(columns) == 1 and are_classes(columns[0]) and len(columns[0].unique()) <= 2

    @classmethod
    def target(cls, table: pa.Table, names: Sequence[str], origin: Origin) -> Target:
        column = classes_of(table, only_target(names, cls.name, origin), origin)
        if len(column.classes) != 2:
            raise DataError(
                f"{origin.name}: task=binary needs two classes, and {column.name!r} has {len(column.classes)}."
            )
        return Target(cls.name, (column,))

    @classmethod
    def out_features(cls, target: Target) -> int:
        return 1

    def loss(
        self,
        logits_BC: Tensor,
        targets: Tensor,
        smoothing: float | Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        if smoothing is not None:
            targets = _between(targets, smoothing)
        if logits_BC.dim() == 2 and weights_B is None:  # one operation instead of two, in the loop over steps
            return F.binary_cross_entropy_with_logits(logits_BC, targets)
        targets = targets.expand_as(logits_BC)
        return mean(F.binary_cross_entropy_with_logits(logits_BC, targets, reduction="none").mean(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        return shared_out(torch.sigmoid(logits_BC).sub_(self.soft_targets(targets, smoothing)), weights_B)

    def soft_targets(self, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        return targets if smoothing is None else _between(targets, smoothing)

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        return mean(((logits_BC > 0) == (targets > 0.5)).float().mean(-1), weights_B)

    def baseline(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the shares of the second class, ``(T,)``."""
        logits_C = logit(targets.mean(0))
        return logits_C, logits_C

    def predictions(self, logits_BC: Tensor) -> Tensor:
        """Probabilities of both classes, ``(B, 2)``."""
        of_second_B1 = torch.sigmoid(logits_BC)
        return torch.cat([1 - of_second_B1, of_second_B1], dim=-1)

    def logits(self, predictions_BC: Tensor) -> Tensor:
        return logit(predictions_BC[..., 1:].double())

    def truths(self, targets: Tensor) -> Tensor:
        return targets.long()


def _between(targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Targets of 0 and 1, moved towards one half."""
    return targets * (1 - smoothing) + smoothing / 2
