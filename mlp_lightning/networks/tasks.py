"""The three tasks: what a model's logits mean, the loss, and the metrics.

Shapes: ``B`` rows, ``C`` classes or outputs, ``T`` targets per row. Losses and metrics reduce over the trailing
axes (rows and outputs) only: logits ``(B, C)`` give a scalar, logits of a stack ``(K, B, C)`` one value for each
of its K members, and likewise for further leading axes.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError


class Task(abc.ABC):
    """What to learn from the targets.

    Attributes:
        name: ``binary``, ``multiclass`` or ``regression``.
        metric_name: name of the metric beside the loss, e.g. ``accuracy``.
    """

    name: str
    metric_name: str

    @abc.abstractmethod
    def loss(
        self,
        logits_BC: Tensor,
        targets: Tensor,
        smoothing: float | Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """Mean loss over the rows.

        Args:
            logits_BC: of the model.
            targets: of the same rows.
            smoothing: share of every label that is spread evenly over all classes (Szegedy et al., 2016); for a
                stack one for each member, ``(K, 1, 1)``. ``None`` for none; a regression has none.
            weights_B: how much each row counts: the mean is ``sum(weight * loss) / sum(weight)``, and 0 where no row
                counts. ``None``: all the same.
        """

    @abc.abstractmethod
    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        """The gradient of the mean loss over the rows with respect to the logits; of the logits' shape."""

    @abc.abstractmethod
    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        """The metric over the rows, as :meth:`torchmetric` computes it for one batch."""

    @abc.abstractmethod
    def predictions(self, logits_BC: Tensor) -> Tensor:
        """Logits as probabilities ``(B, C)``, or as predicted values for a regression."""

    def select(self, members: Sequence[int]) -> Task:
        """The task of some of the members of a stack."""
        return self

    def truths(self, targets: Tensor) -> Tensor:
        """Targets in the form that :meth:`predictions` are compared with."""
        return targets

    @abc.abstractmethod
    def torchmetric(self) -> Metric:
        """A fresh torchmetrics object for the metric, to be updated with :meth:`predictions` and targets."""


class BinaryTask(Task):
    """One logit; class 1 when its probability is above one half. Loss: binary cross-entropy."""

    name = "binary"
    metric_name = "accuracy"

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
        return _mean(F.binary_cross_entropy_with_logits(logits_BC, targets, reduction="none").mean(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        if smoothing is not None:
            targets = _between(targets, smoothing)
        return _shared_out(torch.sigmoid(logits_BC).sub_(targets), weights_B)

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        return _mean(((logits_BC > 0) == (targets > 0.5)).float().mean(-1), weights_B)

    def predictions(self, logits_BC: Tensor) -> Tensor:
        # torchmetrics would treat logits that are all in [0, 1] as probabilities.
        return torch.sigmoid(logits_BC)

    def truths(self, targets: Tensor) -> Tensor:
        return targets.long()

    def torchmetric(self) -> Metric:
        return BinaryAccuracy(validate_args=False)


class MulticlassTask(Task):
    """One logit per class; the class with the largest one. Loss: cross-entropy."""

    name = "multiclass"
    metric_name = "accuracy"

    def __init__(self, classes: int) -> None:
        self.classes = classes

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
        log_probabilities_BC = logits_BC.log_softmax(-1)
        of_labels_B1 = log_probabilities_BC.gather(-1, index_B1)
        if smoothing is not None:
            of_labels_B1 = torch.lerp(of_labels_B1, log_probabilities_BC.mean(-1, keepdim=True), smoothing)
        return -_mean(of_labels_B1.squeeze(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        index_B1 = targets.expand(logits_BC.shape[:-1]).unsqueeze(-1)
        gradient_BC = logits_BC.softmax(-1)
        share_B1 = torch.full_like(gradient_BC[..., :1], -1.0)
        if smoothing is not None:
            share_B1 += smoothing
            gradient_BC -= smoothing / self.classes
        gradient_BC.scatter_add_(-1, index_B1, share_B1)
        return _shared_out(gradient_BC, weights_B, outputs=1)

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        return _mean((logits_BC.argmax(-1) == targets).float(), weights_B)

    def predictions(self, logits_BC: Tensor) -> Tensor:
        return logits_BC.softmax(-1)

    def torchmetric(self) -> Metric:
        return MulticlassAccuracy(self.classes, average="micro", validate_args=False)


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

    def __init__(self, mean: Tensor | None = None, scale: Tensor | None = None) -> None:
        self.mean = mean
        self.scale = scale

    def loss(
        self,
        logits_BC: Tensor,
        targets: Tensor,
        smoothing: float | Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        if logits_BC.dim() == 2 and weights_B is None:
            return F.mse_loss(logits_BC, targets)
        return _mean((logits_BC - targets).square_().mean(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None, weights_B: Tensor | None = None
    ) -> Tensor:
        difference_BC = logits_BC - targets
        if weights_B is None:
            return difference_BC.mul_(2 / (difference_BC.shape[-2] * difference_BC.shape[-1]))
        return _shared_out(difference_BC.mul_(2), weights_B)

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        error_BT = (logits_BC - targets).abs()
        if self.scale is not None:
            error_BT = error_BT * self.scale.to(error_BT)
        return _mean(error_BT.mean(-1), weights_B)

    def predictions(self, logits_BC: Tensor) -> Tensor:
        if self.scale is None or self.mean is None:
            return logits_BC
        # In double precision: float32 cannot represent 2,000,000.25.
        return logits_BC.double() * self.scale.to(logits_BC.device) + self.mean.to(logits_BC.device)

    def truths(self, targets: Tensor) -> Tensor:
        return self.predictions(targets)

    def torchmetric(self) -> Metric:
        return MeanAbsoluteError()

    def select(self, members: Sequence[int]) -> RegressionTask:
        if self.mean is None or self.scale is None or self.scale.dim() < 3:
            return self
        return RegressionTask(self.mean[list(members)], self.scale[list(members)])


def _between(targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Targets of 0 and 1, moved towards one half."""
    return targets * (1 - smoothing) + smoothing / 2


def _mean(of_rows_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """The mean over the rows, each counting by its weight."""
    if weights_B is None:
        return of_rows_B.mean(-1)
    return (of_rows_B * weights_B).sum(-1) / _total(weights_B)


def _total(weights_B: Tensor) -> Tensor:
    """The sum of the weights; 1 where it is 0, so that a quotient stays 0."""
    total = weights_B.sum(-1)
    return torch.where(total > 0, total, 1.0)


def _shared_out(gradient_BC: Tensor, weights_B: Tensor | None, outputs: int | None = None) -> Tensor:
    """The gradient of the mean from the gradients of the rows; changes them in place.

    Args:
        gradient_BC: of the loss of each row, of each output.
        weights_B: of the rows.
        outputs: number of outputs over which the loss of a row is a mean; ``None``: all.
    """
    if outputs is None:
        outputs = gradient_BC.shape[-1]
    if weights_B is None:
        return gradient_BC.div_(gradient_BC.shape[-2] * outputs)
    share_B = weights_B / (_total(weights_B) * outputs).unsqueeze(-1)
    return gradient_BC.mul_(share_B.unsqueeze(-1))


def make_task(
    name: str, out_features: int, target_mean: Sequence[float] = (), target_scale: Sequence[float] = ()
) -> Task:
    """The task called ``name`` for a model with ``out_features`` logits.

    Args:
        name: ``binary``, ``multiclass`` or ``regression``.
        out_features: C.
        target_mean: of a regression whose targets are standardised.
        target_scale: likewise.
    """
    if name == "binary":
        return BinaryTask()
    if name == "multiclass":
        return MulticlassTask(out_features)
    if name == "regression":
        if not len(target_scale):
            return RegressionTask()
        return RegressionTask(
            torch.tensor(target_mean, dtype=torch.float64), torch.tensor(target_scale, dtype=torch.float64)
        )
    raise ValueError(f"task = {name!r} must be one of binary, multiclass, regression")
