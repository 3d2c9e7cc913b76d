"""Conformal intervals: how far apart predictions and targets were on rows that the model did not train on.

MAPIE has these methods for scikit-learn estimators and keeps them as Python objects, which a checkpoint may not hold;
what is needed here is one order statistic of numbers that it can hold.

Shapes: ``N`` rows that calibrate, ``B`` rows to predict, ``T`` targets, ``G`` folds.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# So many numbers are sorted at once (32 MiB).
_NUMBERS_AT_ONCE = 2**22


def rank(count: int, level: float) -> int:
    """Which of ``count`` residuals in ascending order, from 1, bounds an interval: ``ceil((count + 1) * level)``.

    It is exact: 0.9 means nine tenths. Above ``count`` there are too few residuals for the level.

    >>> rank(9, 0.9), rank(19, 0.95), rank(8, 0.9)
    (9, 19, 9)
    """
    return math.ceil((count + 1) * Fraction(repr(float(level))))


def least_count(level: float) -> int:
    """The least number of residuals that allow a level.

    >>> least_count(0.9), least_count(0.5), least_count(0.95)
    (9, 1, 19)
    """
    exact = Fraction(repr(float(level)))
    return math.ceil(exact / (1 - exact))


def split_half_widths(residuals_NT: Floats, level: float) -> Floats:
    """How far intervals reach to both sides of a prediction, ``(T,)``: split conformal prediction.

    Lei et al., "Distribution-free predictive inference for regression", 2018: a new row that is exchangeable with
    those that calibrate lies inside with a probability of at least ``level``, if these chose nothing.

    Args:
        residuals_NT: absolute differences of predictions and targets; enough of them for the level.
        level: above 0 and below 1.
    """
    place = rank(len(residuals_NT), level) - 1
    return np.partition(residuals_NT, place, axis=0)[place]


def cv_plus(
    predictions_GBT: Floats, residuals_NT: Floats, fold_N: NDArray[np.int64], level: float
) -> tuple[Floats, Floats]:
    """Lower and upper bounds ``(B, T)`` from cross-validation: CV+.

    Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+", 2021: every residual is added to,
    and taken from, what the model of its fold predicts. If the residuals chose nothing, a new row that is exchangeable
    with these lies inside with a probability of at least ``1 - 2 * alpha - sqrt(2 / N)``, ``alpha = 1 - level``.

    Args:
        predictions_GBT: of the model of each fold, for the new rows.
        residuals_NT: of rows by the model of the fold that held them out; enough of them for the level.
        fold_N: that fold.
        level: above 0 and below 1.
    """
    count, place = len(residuals_NT), rank(len(residuals_NT), level) - 1
    rows, targets = predictions_GBT.shape[1:]
    low_BT, high_BT = np.empty((rows, targets)), np.empty((rows, targets))
    part = max(1, _NUMBERS_AT_ONCE // count)
    for target in range(targets):
        for start in range(0, rows, part):
            here = slice(start, start + part)
            predicted_BN, residuals_N = predictions_GBT[:, here, target].T[:, fold_N], residuals_NT[:, target]
            high_BT[here, target] = np.partition(predicted_BN + residuals_N, place)[:, place]
            low_BT[here, target] = np.partition(predicted_BN - residuals_N, count - 1 - place)[:, count - 1 - place]
    return low_BT, high_BT
