"""Confidence intervals by resampling rows, or whole groups of rows (Efron and Tibshirani, 1993, chapters 13 and 8).

Shapes: ``R`` resamples, ``B`` rows, ``N`` units that are drawn: rows or groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.evaluation.weightings import Weightings
from mlp_lightning.networks.tasks.base import Floats, Metrics

_RESAMPLES, _LEAST_RESAMPLES = 1_000, 100
# So many weights are worked out by default, ...
_WORK = 2 * 10**8
# ... and held at once: 32 MiB, and a few copies.
_HELD = 2**22
# An interval is of at least this share of the resamples; those of single classes leave some metrics undefined.
_LEAST_DEFINED = 0.95

#: Lower and upper limit; ``None`` where too few resamples define the metric.
Intervals = dict[str, "tuple[float, float] | None"]


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How intervals are found: by percentiles of the metric over resamples.

    Attributes:
        resamples: how many; 0: no intervals.
        confidence: share of the resamples inside the interval.
        seed: decides which rows are drawn.
    """

    resamples: int
    confidence: float
    seed: int


def default_resamples(rows: int, classes: int) -> int:
    """1,000, fewer where rows times classes are more than 200,000, at least 100."""
    return int(min(_RESAMPLES, max(_LEAST_RESAMPLES, _WORK // (rows * max(1, classes)))))


def intervals(weightings: Weightings, metrics: Metrics, rows: EvaluatedRows, bootstrap: Bootstrap) -> Intervals:
    """The interval of each metric.

    Args:
        weightings: the metrics as a function of the weights of the rows.
        metrics: their values on the rows as they are; a metric that ``weightings`` has otherwise gets no interval.
        rows: those that count.
        bootstrap: how.
    """
    same = reproduced(weightings, metrics, rows)
    found: dict[str, list[Floats]] = {key: [] for key in same}
    for weights_RB in resampled_weights(rows, bootstrap):
        values = weightings(weights_RB)
        for key in same:
            found[key].append(values[key])
    limits = {key: percentile_interval(np.concatenate(parts), bootstrap) for key, parts in found.items() if parts}
    return {key: limits.get(key) for key in metrics if key != "rows"}


def difference_intervals(
    this: Weightings, other: Weightings, keys: Sequence[str], rows: EvaluatedRows, bootstrap: Bootstrap
) -> Intervals:
    """The intervals of the differences of some metrics: a resample has the same rows for both."""
    found: dict[str, list[Floats]] = {key: [] for key in keys}
    for weights_RB in resampled_weights(rows, bootstrap):
        first, second = this(weights_RB), other(weights_RB)
        for key in keys:
            found[key].append(first[key] - second[key])
    return {key: percentile_interval(np.concatenate(parts), bootstrap) for key, parts in found.items() if parts}


def reproduced(weightings: Weightings, metrics: Metrics, rows: EvaluatedRows) -> list[str]:
    """The metrics that ``weightings`` has as they are: a task may define one in another way."""
    whole = weightings((np.ones(len(rows.targets_BT)) if rows.weights_B is None else rows.weights_B)[None])
    return [key for key, value in metrics.items() if key in whole and _is_close(whole[key][0], value)]


def resampled_weights(rows: EvaluatedRows, bootstrap: Bootstrap) -> Iterator[Floats]:
    """The weights of the rows in each resample, ``(R, B)``, some resamples at a time; none of a single unit."""
    count, units_B = len(rows.targets_BT), rows.units_B
    units = count if units_B is None else int(units_B.max()) + 1
    random, at_once = np.random.default_rng(bootstrap.seed), max(1, _HELD // count)
    for first in range(0, bootstrap.resamples if units > 1 else 0, at_once):
        some = min(at_once, bootstrap.resamples - first)
        drawn_RN = random.integers(0, units, (some, units)) + units * np.arange(some)[:, None]
        times_RN = np.bincount(drawn_RN.ravel(), minlength=some * units).reshape(some, units)
        times_RB = (times_RN if units_B is None else times_RN[:, units_B]).astype(float)
        yield times_RB if rows.weights_B is None else times_RB * rows.weights_B


def percentile_interval(values_R: Floats, bootstrap: Bootstrap) -> tuple[float, float] | None:
    """The middle share of the values; ``None`` where too many are NaN."""
    defined_R = values_R[~np.isnan(values_R)]
    if len(defined_R) < max(2, _LEAST_DEFINED * len(values_R)):
        return None
    low, high = np.quantile(defined_R, [(1 - bootstrap.confidence) / 2, (1 + bootstrap.confidence) / 2])
    return float(low), float(high)


def _is_close(value: float, known: float | None) -> bool:
    return known is not None and bool(np.isclose(value, known, rtol=1e-6, atol=1e-9))
