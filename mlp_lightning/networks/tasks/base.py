"""What a task is: what it learns of a target, its loss, its metrics, and what it predicts.

Shapes: ``B`` rows, ``C`` logits, ``T`` target columns. Losses and metrics reduce over the trailing axes (rows and
outputs) only: logits ``(B, C)`` give a scalar, logits of a stack ``(K, B, C)`` one value for each of its K members, and
likewise for further leading axes.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target

if TYPE_CHECKING:
    from typing_extensions import Self

Floats = NDArray[np.float64]
#: A metric that the rows do not define is ``None``.
Metrics = dict[str, "float | None"]


class Evaluation(NamedTuple):
    """All metrics of predictions.

    Attributes:
        metrics: of all rows and targets.
        of_each: what ``parts`` has one of: ``class``, ``label`` or ``output``.
        parts: the metrics of each.
        confusion: of each target that has classes: how many rows of class i were predicted as class j, ``(C, C)``.
    """

    metrics: Metrics
    of_each: str
    parts: list[dict[str, Any]]
    confusion: list[NDArray[np.int64]]


class Task(abc.ABC):
    """What to learn from the targets. A new task is a class like this in its own file, and an entry in ``TASKS``.

    The class says what is needed before a network is built; an object has what belongs to the logits of one.
    """

    #: What ``task=`` takes.
    name: ClassVar[str]
    #: Name of the metric beside the loss, e.g. ``accuracy``.
    metric_name: ClassVar[str]
    #: Whether targets are classes, so that labels can be smoothed and the metric is a share of them.
    has_classes: ClassVar[bool] = True
    #: Metrics of an evaluation that the same constant is best for as for :attr:`metric_name`.
    like_its_metric: ClassVar[tuple[str, ...]] = ()
    #: What :meth:`predictions` applies to logits, as scikit-learn names it.
    output_activation: ClassVar[str]

    # ---- targets of a table ------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def poses(cls, columns: Sequence[pa.ChunkedArray]) -> bool:
        """Whether target columns like these pose this task where nobody says which."""

    @classmethod
    @abc.abstractmethod
    def target(cls, table: pa.Table, names: Sequence[str], origin: Origin) -> Target:
        """What these columns are as a target of this task.

        Args:
            table: rows, all of which have a target.
            names: target columns.
            origin: of the table, for messages.

        Raises:
            DataError: the columns do not fit the task.
        """

    @classmethod
    @abc.abstractmethod
    def out_features(cls, target: Target) -> int:
        """Number of logits, C."""

    @classmethod
    def labels(cls, numbers_BT: Floats) -> NDArray[np.int64] | None:
        """What rows are split by: the class of each ``(B,)``, or 0 and 1 for several targets ``(B, T)``; or nothing."""
        return None

    @classmethod
    def as_learnt(cls, target: Target, numbers_BT: Floats, dtype: torch.dtype) -> Tensor:
        """Targets as the loss takes them, from those that :meth:`Target.numbers` reads."""
        return torch.from_numpy(numbers_BT).to(dtype)

    # ---- learning ----------------------------------------------------------------------------------------

    @classmethod
    def make(cls, out_features: int, mean: Sequence[float] = (), scale: Sequence[float] = ()) -> Self:
        """The task of a model with ``out_features`` logits.

        Args:
            out_features: C.
            mean: of each target, where targets are standardised.
            scale: likewise.
        """
        return cls()

    @classmethod
    def stack(cls, alone: Sequence[Any]) -> Self:
        """The task of the members of a stack, each of which has its own."""
        return alone[0]

    def select(self, members: Sequence[int]) -> Self:
        """The task of some of the members of a stack."""
        return self

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

    def soft_targets(self, targets: Tensor, smoothing: Tensor | None = None) -> Tensor:
        """Targets that :meth:`loss_gradient` takes instead of ``targets`` and ``smoothing``, to work on them once.

        Returns:
            In the shape of the targets, or of the logits.
        """
        assert smoothing is None, "a task with labels to smooth says how"
        return targets

    @abc.abstractmethod
    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        """The metric, as a mean over the rows."""

    @abc.abstractmethod
    def baseline(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The constant logits ``(C,)`` of the least loss on these rows, and those of the best metric."""

    # ---- predicting --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def predictions(self, logits_BC: Tensor) -> Tensor:
        """Logits as probabilities or values, each of which :meth:`prediction_names` names."""

    @abc.abstractmethod
    def logits(self, predictions_BC: Tensor) -> Tensor:
        """Logits of which :meth:`predictions` makes these, in double precision; finite where a probability is 0."""

    def decisions(self, predictions_BC: Tensor) -> Tensor | None:
        """Predictions as the class number of each target ``(B, T)``; ``None`` if targets have no classes."""
        return None

    def truths(self, targets: Tensor) -> Tensor:
        """Targets as class numbers or as values in their own units, ``(B, T)``."""
        return targets

    @classmethod
    @abc.abstractmethod
    def prediction_names(cls, target: Target) -> list[str]:
        """The columns of a table of predictions that :meth:`predictions` fill."""

    @abc.abstractmethod
    def evaluation(
        self, target: Target, truths_BT: Floats, predictions_BC: Floats, weights_B: Floats | None = None
    ) -> Evaluation:
        """All metrics of predictions.

        Args:
            target: what is predicted.
            truths_BT: as :meth:`truths` has them.
            predictions_BC: as :meth:`predictions` has them.
            weights_B: of the rows, not negative; ``None`` if all count the same.

        Raises:
            DataError: no rows, a number that is not finite, or invalid weights.
        """


def logit(shares: Tensor) -> Tensor:
    """Logits of probabilities; of what never occurs they are finite, as is scikit-learn's log-loss."""
    least = torch.finfo(torch.float64).eps
    return torch.logit(shares.clamp(least, 1 - least))


def mean(of_rows_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """The mean over the rows, each counting by its weight."""
    if weights_B is None:
        return of_rows_B.mean(-1)
    return (of_rows_B * weights_B).sum(-1) / _total(weights_B)


def _total(weights_B: Tensor) -> Tensor:
    """The sum of the weights; 1 where it is 0, so that a quotient stays 0."""
    total = weights_B.sum(-1)
    return torch.where(total > 0, total, 1.0)


def shared_out(gradient_BC: Tensor, weights_B: Tensor | None, outputs: int | None = None) -> Tensor:
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
