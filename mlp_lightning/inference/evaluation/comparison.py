"""Two models on the same rows: how much their metrics differ, and whether that may be chance.

Shapes: ``B`` rows, ``R`` resamples, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.evaluation.bootstrap import Bootstrap, Intervals, difference_intervals, reproduced
from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.evaluation.table import metric_name
from mlp_lightning.inference.evaluation.weightings import metrics_of_weightings
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks.base import Metrics

# Below so many rows that only one of the models has right, the test is exact (as in statsmodels' documentation).
_EXACT_BELOW = 25


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether two classifiers are wrong equally often (McNemar, 1947; Dietterich, 1998).

    Attributes:
        only_this: rows that only the evaluated model has right.
        only_other: rows that only the other one has right.
        p_value: of such a difference or a larger one if both were wrong equally often.
        method: ``exact`` (binomial), or ``chi-squared`` with continuity correction from 25 such rows on.
    """

    only_this: int
    only_other: int
    p_value: float
    method: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Another model on the same rows.

    Attributes:
        other: its checkpoint.
        metrics: its metrics.
        differences: of each metric, that of the evaluated model minus that of the other.
        intervals: of the differences, over the same resamples for both.
        mcnemar: of classes; ``None`` of numbers, and of rows with weights or groups, for which it does not hold.
    """

    other: str
    metrics: Metrics
    differences: Metrics
    intervals: Intervals
    mcnemar: McNemar | None

    def rows(self, metrics: Metrics, baseline: Metrics | None) -> list[dict[str, Any]]:
        """A row for each metric, to show."""
        known = baseline or {}
        return [
            {
                "metric": metric_name(key),
                "this": metrics[key],
                "other": self.metrics[key],
                "difference": difference,
                "low": (self.intervals.get(key) or (None, None))[0],
                "high": (self.intervals.get(key) or (None, None))[1],
                **({"baseline": known[key]} if key in known else {}),
            }
            for key, difference in self.differences.items()
        ]


def compared(
    model: TrainedModel, rows: EvaluatedRows, other: TrainedModel, found: EvaluatedRows, bootstrap: Bootstrap
) -> Comparison:
    """Compare two models on the same rows.

    Args:
        model: the evaluated one.
        rows: with its predictions.
        other: the other one.
        found: with the predictions of the other.
        bootstrap: of the intervals.

    Raises:
        ConfigError: the rows are not the same.
    """
    found = dataclasses.replace(same_rows(model, rows, other, found), weights_B=rows.weights_B, units_B=None)
    rows, found = rows.that_count(), found.that_count()
    both = [
        one.task.evaluation(model.target, rows.targets_BT, two.predictions_BC, rows.weights_B).metrics
        for one, two in ((model, rows), (other, found))
    ]
    differences = {
        key: None if value is None or (other_value := both[1][key]) is None else value - other_value
        for key, value in both[0].items()
        if key != "rows"
    }
    this, that = (metrics_of_weightings(model.target, rows.targets_BT, one.predictions_BC) for one in (rows, found))
    known = [set(reproduced(this, both[0], rows)), set(reproduced(that, both[1], rows))]
    keys = [key for key in differences if all(key in one for one in known)]
    limits = difference_intervals(this, that, keys, rows, bootstrap)
    test, right_B, other_right_B = None, right_rows(model, rows), right_rows(other, found)
    if right_B is not None and other_right_B is not None and rows.weights_B is None and rows.units_B is None:
        test = mcnemar(int((right_B & ~other_right_B).sum()), int((~right_B & other_right_B).sum()))
    return Comparison(str(other.path), both[1], differences, {key: limits.get(key) for key in differences}, test)


def mcnemar(only_this: int, only_other: int) -> McNemar:
    """The test from the rows that only one of the models has right."""
    from scipy.stats import binomtest, chi2

    rows = only_this + only_other
    if rows < _EXACT_BELOW:
        p = binomtest(only_this, rows).pvalue if rows else 1.0
        return McNemar(only_this, only_other, float(p), "exact")
    statistic = max(abs(only_this - only_other) - 1, 0) ** 2 / rows
    return McNemar(only_this, only_other, float(chi2.sf(statistic, 1)), "chi-squared")


def right_rows(model: TrainedModel, rows: EvaluatedRows) -> NDArray[np.bool_] | None:
    """Which rows have all their targets decided rightly; ``None`` of numbers."""
    decisions_BT = model.task.decisions(torch.from_numpy(rows.predictions_BC))
    return None if decisions_BT is None else (decisions_BT.numpy() == rows.targets_BT).all(axis=1)


def refuse_other_target(model: TrainedModel, other: TrainedModel) -> None:
    """Refuse a model that predicts something else.

    Raises:
        ConfigError: saying what.
    """
    this, that = ([(one.name, one.type, one.classes) for one in two.target.columns] for two in (model, other))
    if (this, model.target.task) != (that, other.target.task):
        names = ", ".join(other.target.names)
        rule = f"is a model of {names} (task {other.target.task})"
        if model.target.names == other.target.names:
            rule = f"is a model of the same target with other classes, or of another task ({other.target.task})"
        expected = f"compare with one of {', '.join(model.target.names)} (task {model.target.task}, the same classes)"
        raise ConfigError([Fault("compare", str(other.path), rule, expected)])


def same_rows(model: TrainedModel, rows: EvaluatedRows, other: TrainedModel, found: EvaluatedRows) -> EvaluatedRows:
    """The rows of the other model in the order of the evaluated one's.

    Raises:
        ConfigError: they are not the same rows.
    """
    if rows.numbers_B is not None and found.numbers_B is not None:
        order_B, found_order_B = np.argsort(rows.numbers_B), np.argsort(found.numbers_B)
        same = np.array_equal(rows.numbers_B[order_B], found.numbers_B[found_order_B]) and _same_tables(model, other)
        if same:
            place_B = np.empty_like(found_order_B)
            place_B[order_B] = found_order_B
            found = dataclasses.replace(
                found, targets_BT=found.targets_BT[place_B], predictions_BC=found.predictions_BC[place_B]
            )
    else:
        same = True  # all rows of one table
    if not same or not np.array_equal(rows.targets_BT, found.targets_BT):
        rule = "was trained on another table, or with another split: its rows are not those of this model"
        raise ConfigError(
            [Fault("compare", str(other.path), rule, "name rows that neither has trained on with data.path")]
        )
    return found


def _same_tables(model: TrainedModel, other: TrainedModel) -> bool:
    """Whether both were trained on the same tables, as far as both looked at them."""
    this, that = model.fingerprint, other.fingerprint
    if this is None or that is None:
        return model.config.data == other.config.data
    if set(this) != set(that):
        return False
    for name, table in this.items():
        columns, others = table["columns"], that[name]["columns"]
        shared = set(columns) & set(others)
        if table["rows"] != that[name]["rows"] or any(columns[one] != others[one] for one in shared):
            return False
    return True
