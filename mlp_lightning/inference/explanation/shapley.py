"""Shapley values: what each column adds to the prediction of a row, compared with other rows.

The game of a row gives a set of columns the mean prediction of rows that have the row's values in these columns and
those of a background row in all others (Štrumbelj and Kononenko, "Explaining prediction models and individual
predictions with feature contributions", 2014; the interventional values of Lundberg and Lee, 2017). A value is the mean
of what a column changes when the columns change one after another, in a random order and in its reverse. So the values
of a row and the base value add up to its prediction, and they are exact for models without interactions of three or
more columns. A column is changed as it is in the table: a category at once.

The package ``shap`` has this as ``PermutationExplainer``. It compiles with numba in every process, which takes many
times as long as the values of a small table; ``benchmarks/shapley.py`` compares both.

Shapes: ``B`` rows, ``F`` columns, ``C`` outputs, ``M`` background rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.explanation.importance import donors, predicted
from mlp_lightning.inference.explanation.rows import ExplainedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.randomness import derived_seed


@dataclasses.dataclass(frozen=True)
class ShapleyValues:
    """What columns add to the predictions of rows.

    Attributes:
        columns: all that the model sees.
        raw_BF: the explained rows.
        numbers_B: their numbers in the table, from 0.
        weights_B: how much each counts in a mean; ``None`` if all the same.
        values_BFC: in units of the prediction.
        errors_BFC: their standard errors, since orders and background rows were drawn.
        base_C: the mean prediction of the background rows.
    """

    columns: Sequence[Column]
    raw_BF: Floats
    numbers_B: NDArray[np.int64]
    weights_B: Floats | None
    values_BFC: Floats
    errors_BFC: Floats
    base_C: Floats

    def summary(self) -> tuple[Floats, Floats, Floats]:
        """Of the sizes of the values over the rows the mean and the deviation, and the mean error, ``(F, C)``."""
        sizes_BFC, weights_B = np.abs(self.values_BFC), self.weights_B
        means_FC = np.average(sizes_BFC, axis=0, weights=weights_B)
        variances_FC = np.average((sizes_BFC - means_FC) ** 2, axis=0, weights=weights_B)
        return means_FC, np.sqrt(variances_FC), np.average(self.errors_BFC, axis=0, weights=weights_B)

    def order(self) -> NDArray[np.int64]:
        """The columns, that of the largest mean size over all outputs first."""
        return np.argsort(-self.summary()[0].mean(axis=1), kind="stable")


def shapley_values(
    model: TrainedModel, rows: ExplainedRows, chosen: int | Sequence[int], background: int, seed: int
) -> ShapleyValues:
    """The Shapley values of some rows, with others of the same as background.

    Args:
        model: to explain.
        rows: that are explained, and that the background is drawn from, by their weights.
        chosen: how many of the rows, drawn by the seed; or the numbers in their table, from 1.
        background: M, of which each has an order of the columns and its reverse.
        seed: decides what is drawn.

    Raises:
        ConfigError: a number is not that of one of the rows, or less than one is wanted.
    """
    places_B, count = _places(rows, chosen, seed), len(rows.raw_BF)
    random = np.random.default_rng(derived_seed(seed, "Shapley values"))
    repeats = -(-background // count)
    drawn_M = donors(count, rows.weights_B, repeats, derived_seed(seed, "background")).ravel()[:background]
    raw_BF, background_MF = rows.raw_BF[places_B], rows.raw_BF[drawn_M]
    orders_MF = random.permuted(np.tile(np.arange(raw_BF.shape[1]), (background, 1)), axis=1)
    values_BFC, errors_BFC = _of_rows(model, raw_BF, background_MF, orders_MF)
    weights_B = None if rows.weights_B is None else rows.weights_B[places_B]
    base_C = predicted(model, background_MF).mean(axis=0)
    return ShapleyValues(model.columns, raw_BF, rows.numbers_B[places_B], weights_B, values_BFC, errors_BFC, base_C)


def _places(rows: ExplainedRows, chosen: int | Sequence[int], seed: int) -> NDArray[np.int64]:
    """Which of the rows are explained."""
    if not isinstance(chosen, Sequence):
        if chosen < 1:
            raise ConfigError([Fault("shapley_rows", chosen, "must be at least 1", "0 leaves Shapley values out")])
        random = np.random.default_rng(derived_seed(seed, "rows with Shapley values"))
        return np.sort(random.choice(len(rows.raw_BF), min(chosen, len(rows.raw_BF)), replace=False))
    places = {int(number) + 1: place for place, number in enumerate(rows.numbers_B)}
    if unknown := [one for one in chosen if one not in places]:
        rule = f"is none of the rows that are explained ({rows.title}, numbered from 1 as in the table)"
        hint = f"one of them is {min(places)}; rows=… takes more rows, split=… others"
        raise ConfigError([Fault("shapley_rows", unknown[0], rule, hint)])
    return np.array([places[one] for one in chosen])


def _of_rows(
    model: TrainedModel, raw_BF: Floats, background_MF: Floats, orders_MF: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """The values of some rows and their standard errors, ``(B, F, C)``."""
    mean_BFC, squares_BFC = np.float64(0), np.float64(0)
    for number, (other_F, order_F) in enumerate(zip(background_MF, orders_MF, strict=True), start=1):
        both = [_added(model, raw_BF, other_F, one_F) for one_F in (order_F, order_F[::-1])]
        # Welford's way to the variance, which loses no digits to large values.
        apart_BFC = (both[0] + both[1]) / 2 - mean_BFC
        mean_BFC = mean_BFC + apart_BFC / number
        squares_BFC = squares_BFC + apart_BFC**2 * ((number - 1) / number)
    count = len(background_MF)
    return np.asarray(mean_BFC), np.sqrt(squares_BFC / (count - 1) / count)


def _added(model: TrainedModel, raw_BF: Floats, other_F: Floats, order_F: NDArray[np.int64]) -> Floats:
    """What each column changes, ``(B, F, C)``, when they change in an order from those of another row.

    All steps are predicted in the same parts, so that a column without effect has none to the last bit.
    """
    changed_BF = np.tile(other_F, (len(raw_BF), 1))
    before_BC = predicted(model, changed_BF)
    added_BFC = np.empty((*raw_BF.shape, before_BC.shape[1]))
    for column in order_F:
        changed_BF[:, column] = raw_BF[:, column]
        after_BC = predicted(model, changed_BF)
        added_BFC[:, column] = after_BC - before_BC
        before_BC = after_BC
    return added_BFC
