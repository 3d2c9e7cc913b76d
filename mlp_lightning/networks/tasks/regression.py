"""Numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from mlp_lightning.networks.tasks.base import Evaluation, Floats, Task, shared_out
from mlp_lightning.networks.tasks.base import mean as mean_of
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target, numbers_of

if TYPE_CHECKING:
    from typing_extensions import Self


class RegressionTask(Task):
    """One output per target. Loss: mean squared error.

    Args:
        mean: of each target, ``(T,)``, or of each target of each member, ``(K, 1, T)``; ``None``: the model outputs
            unscaled targets.
        scale: likewise. With both, the model outputs ``(target - mean) / scale``, so the loss is in these units;
            predictions and the mean absolute error are in those of the target.
    """

    name = "regression"
    metric_name = "mae"
    like_its_metric = ("mae", "median_absolute_error")
    has_classes = False
    output_activation = "identity"

    def __init__(self, mean: Tensor | None = None, scale: Tensor | None = None) -> None:
        self.mean = mean
        self.scale = scale

    @classmethod
    def poses(cls, columns: Sequence[pa.ChunkedArray]) -> bool:
        return True

    @classmethod
    def target(cls, table: pa.Table, names: Sequence[str], origin: Origin) -> Target:
        return Target(cls.name, tuple(numbers_of(table, name, origin) for name in names))

    @classmethod
    def out_features(cls, target: Target) -> int:
        return len(target.columns)

    @classmethod
    def as_learnt(cls, target: Target, numbers_BT: Floats, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(target.standardized(numbers_BT)).to(dtype)

    @classmethod
    def make(cls, out_features: int, mean: Sequence[float] = (), scale: Sequence[float] = ()) -> Self:
        if not len(scale):
            return cls()
        return cls(torch.tensor(mean, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))

    @classmethod
    def stack(cls, alone: Sequence[Any]) -> Self:
        means = [one.mean for one in alone if one.mean is not None]
        scales = [one.scale for one in alone if one.scale is not None]
        if len(means) < len(alone):
            return alone[0]
        return cls(torch.stack(means)[:, None], torch.stack(scales)[:, None])

    def select(self, members: Sequence[int]) -> Self:
        if self.mean is None or self.scale is None or self.scale.dim() < 3:
            return self
        return type(self)(self.mean[list(members)], self.scale[list(members)])

    def loss(
        self,
        logits_BC: Tensor,
        targets: Tensor,
        smoothing: float | Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        if logits_BC.dim() == 2 and weights_B is None:
            return F.mse_loss(logits_BC, targets)
        return mean_of((logits_BC - targets).square_().mean(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        difference_BC = logits_BC - targets
        if weights_B is None:
            return difference_BC.mul_(2 / (difference_BC.shape[-2] * difference_BC.shape[-1]))
        return shared_out(difference_BC.mul_(2), weights_B)

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        error_BT = (logits_BC - targets).abs()
        if self.scale is not None:
            error_BT = error_BT * self.scale.to(error_BT)
        return mean_of(error_BT.mean(-1), weights_B)

    def baseline(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and median of each target."""
        return targets.mean(0), torch.from_numpy(np.median(targets.numpy(), axis=0))

    def predictions(self, logits_BC: Tensor) -> Tensor:
        """Values in the units of the targets, ``(B, T)``."""
        if self.scale is None or self.mean is None:
            return logits_BC
        # In double precision: float32 cannot represent 2,000,000.25.
        return logits_BC.double() * self.scale.to(logits_BC.device) + self.mean.to(logits_BC.device)

    def logits(self, predictions_BC: Tensor) -> Tensor:
        values_BC = predictions_BC.double()
        if self.scale is None or self.mean is None:
            return values_BC
        return (values_BC - self.mean.to(values_BC.device)) / self.scale.to(values_BC.device)

    def truths(self, targets: Tensor) -> Tensor:
        return self.predictions(targets)

    @classmethod
    def prediction_names(cls, target: Target) -> list[str]:
        return [f"predicted_{one}" for one in target.names]

    def evaluation(
        self, target: Target, truths_BT: Floats, predictions_BC: Floats, weights_B: Floats | None = None
    ) -> Evaluation:
        from mlp_lightning.networks.tasks import metrics  # of scikit-learn, which is slow to import

        of_all = metrics.regression_metrics(truths_BT, predictions_BC, weights_B)
        return Evaluation(of_all, "output", metrics.per_output(truths_BT, predictions_BC, target.names, weights_B), [])
