"""Permutation importance: how much worse a model predicts when one column belongs to other rows.

Breiman, "Random forests", 2001, section 10, for forests; Fisher, Rudin and Dominici, "All models are wrong, but many
are useful", 2019, for any model ("model reliance", of which this is the difference). A column is permuted as it is in
the table: a category at once and not its one-hot features one by one.

Shapes: ``B`` rows, ``F`` columns, ``C`` outputs, ``R`` repeats, ``V`` values per row, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.inference.explanation.rows import ExplainedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks import task_class
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.randomness import derived_seed

# Rows that are predicted at once: their hidden layers stay in a processor's cache.
_ROWS_AT_ONCE = 2_048


@dataclasses.dataclass(frozen=True)
class Importance:
    """How much worse a model is without one column.

    Attributes:
        column: as the table has it.
        loss_R: increase of the loss in every repeat.
        metric_R: how much worse the metric is: the decrease of an accuracy, the increase of an error.
    """

    column: Column
    loss_R: Floats
    metric_R: Floats

    @property
    def means(self) -> tuple[float, float]:
        """Of the loss and of the metric."""
        return float(self.loss_R.mean()), float(self.metric_R.mean())

    @property
    def deviations(self) -> tuple[float, float]:
        """Their standard deviations between repeats (with n - 1)."""
        return float(self.loss_R.std(ddof=1)), float(self.metric_R.std(ddof=1))


@dataclasses.dataclass(frozen=True)
class Importances:
    """The importance of every column.

    Attributes:
        loss: of the rows as they are.
        metric: likewise.
        columns: the importance of each column, in descending order of the loss's mean increase.
    """

    loss: float
    metric: float
    columns: list[Importance]


def permutation_importances(model: TrainedModel, rows: ExplainedRows, repeats: int, seed: int) -> Importances:
    """The importance of every column that the model sees.

    Args:
        model: to explain.
        rows: to measure it on.
        repeats: R, how often each column is permuted; all columns with the same permutations.
        seed: decides the permutations.

    Raises:
        DataError: a prediction is not a finite number.
    """
    scores = _Scores(model, rows)
    predictions_BC = predicted(model, rows.raw_BF)
    if not np.isfinite(predictions_BC).all():
        row = int(rows.numbers_B[int((~np.isfinite(predictions_BC)).any(axis=1).argmax())])
        raise DataError(
            f"{rows.title}: the model's prediction of row {row + 1} is not a finite number. Check whether it has values"
            " far from those of the training rows, or whether the training diverged."
        )
    loss, metric = scores.of(predictions_BC)
    donors_RB = donors(len(rows.raw_BF), rows.weights_B, repeats, seed)
    worse = -1 if model.task.has_classes else 1  # an accuracy falls, an error rises
    found = []
    for number, column in enumerate(model.columns):
        repeats_R = predicted_with(model, rows.raw_BF, number, rows.raw_BF[donors_RB, number])
        loss_R, metric_R = np.array([scores.of(one_BC) for one_BC in repeats_R]).T
        found.append(Importance(column, loss_R - loss, worse * (metric_R - metric)))
    return Importances(loss, metric, sorted(found, key=lambda one: -one.means[0]))


def donors(rows: int, weights_B: Floats | None, repeats: int, seed: int) -> NDArray[np.int64]:
    """For each repeat and row the row whose value it gets, ``(R, B)``.

    Every repeat is a permutation. Of weighted rows each gives its value in proportion to its weight: as often as that
    row would be there, rounded up or down by chance (systematic sampling; Madow, 1949).
    """
    random = np.random.default_rng(derived_seed(seed, "permutation importance"))
    given_RB = np.tile(np.arange(rows), (repeats, 1))
    if weights_B is not None and weights_B.min() < weights_B.max():
        bounds_B = weights_B.cumsum() / weights_B.sum() * rows
        places_RB = np.arange(rows) + random.random((repeats, 1))
        given_RB = np.minimum(np.searchsorted(bounds_B, places_RB, side="right"), rows - 1)
    return random.permuted(given_RB, axis=1)


class _Scores:
    """Loss and metric of predictions of some rows, in double precision."""

    def __init__(self, model: TrainedModel, rows: ExplainedRows) -> None:
        self._task = model.task
        self._title = rows.title
        targets = task_class(model.target.task).as_learnt(model.target, rows.targets_BT, torch.float64)
        weights_B = np.ones(len(rows.raw_BF)) if rows.weights_B is None else rows.weights_B
        self._measured = targets, torch.from_numpy(weights_B)

    def of(self, predictions_BC: Floats) -> tuple[float, float]:
        """Loss and metric.

        Raises:
            DataError: the loss is not a finite number.
        """
        logits_BC, targets, weights_B = self._task.logits(torch.from_numpy(predictions_BC)), *self._measured
        metric = float(self._task.metric(logits_BC, targets, weights_B))
        loss = float(self._task.loss(logits_BC, targets, weights_B=weights_B))
        if not np.isfinite(loss):
            raise DataError(
                f"{self._title}: the loss of the model's predictions is {loss}. Check the rows for values far from"
                " those of the training rows."
            )
        return loss, metric


def predicted(model: TrainedModel, raw_BF: Floats) -> Floats:
    """What the model predicts, ``(B, C)``; part by part."""
    parts = range(0, len(raw_BF), _ROWS_AT_ONCE)
    return np.concatenate([model.predict(raw_BF[start : start + _ROWS_AT_ONCE]) for start in parts])


def predicted_with(model: TrainedModel, raw_BF: Floats, column: int, values: Iterable[Any]) -> Iterator[Floats]:
    """What the model predicts of rows with other values in one column.

    Rows are predicted in the same parts as without them, so that a column without effect has none to the last bit.

    Args:
        model: to predict with.
        raw_BF: the rows.
        column: number of the column.
        values: for each prediction the value of every row, ``(B,)``, or one for all.

    Yields:
        Predictions, ``(B, C)``.
    """
    changed_BF = raw_BF.copy()
    for one in values:
        changed_BF[:, column] = one
        yield predicted(model, changed_BF)
