"""Partial dependence and individual conditional expectation (ICE) of a column.

What the model predicts of a row if one column has another value and all others stay is a curve of that row (ICE:
Goldstein et al., "Peeking inside the black box", 2015). The mean of the curves of all rows is the partial dependence
(Friedman, "Greedy function approximation", 2001, section 8.2).

Shapes: ``B`` rows, ``F`` columns, ``G`` values of the grid, ``C`` outputs, ``I`` rows whose curves are kept, ``Q``
shares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.inference.explanation.importance import predicted_with
from mlp_lightning.inference.explanation.rows import ExplainedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN
from mlp_lightning.tables.randomness import derived_seed

#: Most values of a column to predict at.
GRID = 21
_MOST_CATEGORIES = 30
# Beyond them are the outliers, at which few rows say anything.
_OUTERMOST = 0.01, 0.99
# Between these shares lie the curves of most rows.
_MOST_ROWS = 0.1, 0.9
#: Most rows whose own curves are kept.
CURVES = 50
OTHER = "(other)"


@dataclasses.dataclass(frozen=True)
class Dependence:
    """What a model predicts over the values of one column.

    Attributes:
        column: as the table has it.
        grid_G: its values as raw numbers: ascending, a missing value last; of categories the codes.
        labels: the same as texts; ``None`` for a missing value.
        mean_GC: the partial dependence.
        low_GC: the prediction below which a tenth of the rows are.
        high_GC: that above which a tenth of the rows are.
        curves_IGC: what is predicted of single rows.
        rows_I: their numbers in the table, from 0.
    """

    column: Column
    grid_G: Floats
    labels: list[str | None]
    mean_GC: Floats
    low_GC: Floats
    high_GC: Floats
    curves_IGC: Floats
    rows_I: NDArray[np.int64]


def partial_dependence(model: TrainedModel, rows: ExplainedRows, name: str, seed: int) -> Dependence:
    """The partial dependence of the column ``name``, over the values that it has in the rows.

    Args:
        model: to explain.
        rows: to predict.
        name: of a column that the model sees.
        seed: draws the rows whose own curves are kept.
    """
    number = [one.name for one in model.columns].index(name)
    column = model.columns[number]
    grid_G = grid(column, rows.raw_BF[:, number], rows.weights_B)
    count = len(rows.raw_BF)
    random = np.random.default_rng(derived_seed(seed, "ICE"))
    chosen_I = np.sort(random.choice(count, min(CURVES, count), replace=False))
    means, bounds, curves = [], [], []
    for predictions_BC in predicted_with(model, rows.raw_BF, number, grid_G):
        means.append(np.average(predictions_BC, axis=0, weights=rows.weights_B))
        bounds.append(quantiles(predictions_BC, rows.weights_B, _MOST_ROWS))
        curves.append(predictions_BC[chosen_I])
    low_GC, high_GC = np.stack(bounds, axis=1)
    labels, means_GC, curves_IGC = [label(column, one) for one in grid_G], np.stack(means), np.stack(curves, axis=1)
    return Dependence(column, grid_G, labels, means_GC, low_GC, high_GC, curves_IGC, rows.numbers_B[chosen_I])


def grid(column: Column, values_B: Floats, weights_B: Floats | None = None) -> Floats:
    """The raw numbers at which a column's dependence is predicted, ``(G,)``, a missing value last.

    Of a category these are its values, at most the 30 most frequent of the rows; of a truth value both; of numbers and
    moments the different ones, or, of more than 21, so many quantiles from 1% to 99%.
    """
    if column.kind == "categorical":
        return _categories(column, values_B, weights_B)
    present_B = ~np.isnan(values_B)
    found_G = np.array([0.0, 1.0]) if column.kind == "boolean" else np.unique(values_B[present_B])
    if len(found_G) > GRID:
        weights = None if weights_B is None else weights_B[present_B]
        found_G = np.unique(quantiles(values_B[present_B, None], weights, np.linspace(*_OUTERMOST, GRID)))
    return np.append(found_G, np.nan) if column.missing or not present_B.all() else found_G


def _categories(column: Column, values_B: Floats, weights_B: Floats | None) -> Floats:
    codes_B = values_B.astype(np.int64)
    counts = np.bincount(codes_B, weights_B, FIRST_CATEGORY + len(column.vocabulary))
    known = np.arange(FIRST_CATEGORY, len(counts))
    most_frequent = np.sort(known[np.argsort(-counts[known], kind="stable")[:_MOST_CATEGORIES]])
    unknown = [UNKNOWN] if column.is_capped else []
    missing = [MISSING] if column.missing or counts[MISSING] else []
    return np.array([*most_frequent, *unknown, *missing], dtype=np.float64)


def label(column: Column, value: float) -> str | None:
    """A raw number as the table has it; ``None`` for a missing value."""
    if column.kind == "categorical":
        code = int(value)
        if code < FIRST_CATEGORY:
            return OTHER if code == UNKNOWN else None
        return str(column.vocabulary[code - FIRST_CATEGORY])
    if np.isnan(value):
        return None
    if column.kind == "boolean":
        return str(bool(value))
    if column.kind == "datetime":
        moment = np.datetime64(round(value * 1e6), "us")
        return str(moment).removesuffix(".000000").removesuffix("T00:00:00")
    return repr(float(value)).removesuffix(".0")


def quantiles(values_BC: Floats, weights_B: Floats | None, shares_Q: Sequence[float] | Floats) -> Floats:
    """The least of the values of each column up to which a share of the rows lies, ``(Q, C)``."""
    order_BC = values_BC.argsort(axis=0, kind="stable")
    ordered_BC = np.take_along_axis(values_BC, order_BC, axis=0)
    up_to_BC = (np.ones(len(values_BC)) if weights_B is None else weights_B)[order_BC].cumsum(axis=0)
    up_to_BC /= up_to_BC[-1]
    # Rounding must not move a share off the border of two values.
    places_QC = np.stack([(up_to_BC < share - 1e-12).sum(axis=0) for share in shares_Q])
    return np.take_along_axis(ordered_BC, np.minimum(places_QC, len(values_BC) - 1), axis=0)
