"""The three tasks: what a model's logits mean, the loss, and the metrics.

Shapes: ``B`` rows, ``C`` classes or outputs, ``T`` targets per row. Losses and metrics reduce over the trailing
axes (rows and outputs) only: logits ``(B, C)`` give a scalar, logits of a stack ``(K, B, C)`` one figure for each
of its K members, and so on for further leading axes.
"""

from __future__ import annotations

import abc

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
    def loss(self, logits_BC: Tensor, targets: Tensor, smoothing: float | Tensor | None = None) -> Tensor:
        """Mean loss over the rows.

        Args:
            logits_BC: of the model.
            targets: of the same rows.
            smoothing: share of every label that is spread evenly over all classes (Szegedy et al., 2016); for a
                stack one for each member, ``(K, 1, 1)``. ``None`` for none; a regression has none.
        """

    @abc.abstractmethod
    def loss_gradient(self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        """The gradient of the mean loss over the rows with respect to the logits; of the logits' shape."""

    @abc.abstractmethod
    def metric(self, logits_BC: Tensor, targets: Tensor) -> Tensor:
        """The metric over the rows: what :meth:`torchmetric` computes, of one batch."""

    @abc.abstractmethod
    def predictions(self, logits_BC: Tensor) -> Tensor:
        """Logits as probabilities ``(B, C)``, or as predicted values for a regression."""

    @abc.abstractmethod
    def torchmetric(self) -> Metric:
        """A fresh torchmetrics object for the metric, to be updated with :meth:`predictions` and targets."""


class BinaryTask(Task):
    """One logit; class 1 when its probability is above one half. Loss: binary cross-entropy."""

    name = "binary"
    metric_name = "accuracy"

    def loss(self, logits_BC: Tensor, targets: Tensor, smoothing: float | Tensor | None = None) -> Tensor:
        if smoothing is not None:
            targets = _between(targets, smoothing)
        if logits_BC.dim() == 2:  # one operation instead of two, in the loop over the steps of one model
            return F.binary_cross_entropy_with_logits(logits_BC, targets)
        targets = targets.expand_as(logits_BC)
        return F.binary_cross_entropy_with_logits(logits_BC, targets, reduction="none").mean((-2, -1))

    def loss_gradient(self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        if smoothing is not None:
            targets = _between(targets, smoothing)
        return torch.sigmoid(logits_BC).sub_(targets).div_(_numbers(logits_BC))

    def metric(self, logits_BC: Tensor, targets: Tensor) -> Tensor:
        return ((logits_BC > 0) == (targets > 0.5)).float().mean((-2, -1))

    def predictions(self, logits_BC: Tensor) -> Tensor:
        # torchmetrics would take logits that all happen to lie in [0, 1] for probabilities.
        return torch.sigmoid(logits_BC)

    def torchmetric(self) -> Metric:
        return BinaryAccuracy(validate_args=False)


class MulticlassTask(Task):
    """One logit per class; the class with the largest one. Loss: cross-entropy."""

    name = "multiclass"
    metric_name = "accuracy"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def loss(self, logits_BC: Tensor, targets: Tensor, smoothing: float | Tensor | None = None) -> Tensor:
        if logits_BC.dim() == 2 and not torch.is_tensor(smoothing):
            return F.cross_entropy(logits_BC, targets, label_smoothing=smoothing or 0.0)
        index_B1 = targets.expand(logits_BC.shape[:-1]).unsqueeze(-1)
        log_probabilities_BC = logits_BC.log_softmax(-1)
        of_labels_B1 = log_probabilities_BC.gather(-1, index_B1)
        if smoothing is not None:
            of_labels_B1 = torch.lerp(of_labels_B1, log_probabilities_BC.mean(-1, keepdim=True), smoothing)
        return -of_labels_B1.mean((-2, -1))

    def loss_gradient(self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        index_B1 = targets.expand(logits_BC.shape[:-1]).unsqueeze(-1)
        gradient_BC = logits_BC.softmax(-1)
        share_B1 = torch.full_like(gradient_BC[..., :1], -1.0)
        if smoothing is not None:
            share_B1 += smoothing
            gradient_BC -= smoothing / self.classes
        gradient_BC.scatter_add_(-1, index_B1, share_B1)
        return gradient_BC.div_(logits_BC.shape[-2])

    def metric(self, logits_BC: Tensor, targets: Tensor) -> Tensor:
        return (logits_BC.argmax(-1) == targets).float().mean(-1)

    def predictions(self, logits_BC: Tensor) -> Tensor:
        return logits_BC.softmax(-1)

    def torchmetric(self) -> Metric:
        return MulticlassAccuracy(self.classes, average="micro", validate_args=False)


class RegressionTask(Task):
    """One output per target. Loss: mean squared error."""

    name = "regression"
    metric_name = "mae"

    def loss(self, logits_BC: Tensor, targets: Tensor, smoothing: float | Tensor | None = None) -> Tensor:
        if logits_BC.dim() == 2:
            return F.mse_loss(logits_BC, targets)
        return (logits_BC - targets).square_().mean((-2, -1))

    def loss_gradient(self, logits_BC: Tensor, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        return (logits_BC - targets).mul_(2 / _numbers(logits_BC))

    def metric(self, logits_BC: Tensor, targets: Tensor) -> Tensor:
        return (logits_BC - targets).abs().mean((-2, -1))

    def predictions(self, logits_BC: Tensor) -> Tensor:
        return logits_BC

    def torchmetric(self) -> Metric:
        return MeanAbsoluteError()


def _between(targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Targets of 0 and 1, moved towards one half."""
    return targets * (1 - smoothing) + smoothing / 2


def _numbers(logits_BC: Tensor) -> int:
    """How many numbers a mean over rows and outputs is taken of."""
    return logits_BC.shape[-2] * logits_BC.shape[-1]


def make_task(name: str, out_features: int) -> Task:
    """The task called ``name`` for a model with ``out_features`` logits."""
    if name == "binary":
        return BinaryTask()
    if name == "multiclass":
        return MulticlassTask(out_features)
    if name == "regression":
        return RegressionTask()
    raise ValueError(f"task = {name!r} must be one of binary, multiclass, regression")
