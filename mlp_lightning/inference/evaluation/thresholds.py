"""Thresholds for a wished precision, recall or cost, and what a threshold is worth.

Shapes: ``B`` rows, ``R`` weightings, ``P`` thresholds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlp_lightning.config.inference import ThresholdConfig
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.evaluation.bootstrap import Bootstrap, Intervals, intervals
from mlp_lightning.inference.evaluation.curves import OneAgainstRest
from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.evaluation.weightings import Weightings
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks.base import Floats, Metrics

# Without a threshold a row is of the second class above one half.
_ABOVE_HALF = float(np.nextafter(0.5, 1))
# Rates of the same rows differ by so much through rounding.
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class MeasuredThreshold:
    """From which probability on rows are decided to be of a class, and what that is worth.

    Attributes:
        target: the column.
        positive: its second class.
        value: the threshold.
        is_chosen: whether these rows decided it.
        metrics: of the decisions: see :func:`decisions_of_weightings`.
        intervals: of the metrics, at this threshold: they do not know that rows chose it.
        at_half: the same metrics at one half.
        baseline: of deciding that all rows are of the class.
    """

    target: str
    positive: str
    value: float
    is_chosen: bool
    metrics: Metrics
    intervals: Intervals
    at_half: Metrics
    baseline: Metrics


def measured_thresholds(
    model: TrainedModel, rows: EvaluatedRows, wish: ThresholdConfig, bootstrap: Bootstrap
) -> list[MeasuredThreshold]:
    """The threshold of each target, chosen by the rows or given to the model; none if none is wished.

    Args:
        model: of targets of two classes.
        rows: those that count.
        wish: for the threshold.
        bootstrap: of the intervals.

    Raises:
        ConfigError: no threshold has the wished precision, or all rows have the same class.
    """
    found = []
    if not wish.wished:
        return []
    columns, given_T = model.target.columns, model.thresholds_T
    of_second_BT = rows.predictions_BC[:, -len(columns) :]
    for number, column in enumerate(columns):
        positive_B, score_B = rows.targets_BT[:, number] == 1, of_second_BT[:, number]
        question = OneAgainstRest(column.name, column.class_names[1], positive_B, score_B)
        value = chosen_threshold(question, rows.weights_B, wish) if given_T is None else float(given_T[number])
        metrics, at_half, baseline = (
            decisions_metrics(question, one, rows.weights_B, wish.costs) for one in (value, _ABOVE_HALF, 0.0)
        )
        weightings = decisions_of_weightings(question, value, wish.costs)
        limits = intervals(weightings, metrics, rows, bootstrap)
        facts = column.name, column.class_names[1], value, given_T is None
        found.append(MeasuredThreshold(*facts, metrics, limits, at_half, baseline))
    return found


def chosen_threshold(question: OneAgainstRest, weights_B: Floats | None, wish: ThresholdConfig) -> float:
    """The threshold that fulfils a wish best on these rows: they decide it, so it looks better on them than on others.

    Of those with the wished precision it is that of the highest recall, and the other way round; or that of the lowest
    cost. It lies in the middle between two probabilities that occur, so that rounding cannot move a row.

    Raises:
        ConfigError: no threshold has the wished precision, or all rows have the same class.
    """
    from sklearn import metrics

    positive_B, score_B = question.positive_B, question.score_B
    if positive_B.all() or not positive_B.any():
        rule = f"needs rows of both classes of {question.name!r}, and these have one"
        raise ConfigError([Fault("threshold", wish.wished, rule, "name other rows with data.path or split")])
    false_P, recall_P, score_P = metrics.roc_curve(
        positive_B, score_B, sample_weight=weights_B, drop_intermediate=False
    )
    share = float(np.average(positive_B, weights=weights_B))
    true_P, false_P = recall_P * share, false_P * (1 - share)
    precision_P = np.divide(true_P, true_P + false_P, out=np.zeros_like(true_P), where=true_P + false_P > 0)
    if wish.precision is not None:
        place = _best(recall_P, precision_P, precision_P >= wish.precision - _ROUNDING)
        if place is None:
            best = int(precision_P.argmax())
            rule = f"is reached by no threshold on these rows, for {question.positive!r} of {question.name!r}"
            hint = f"the highest precision is {precision_P[best]:.4g}, at a recall of {recall_P[best]:.4g}"
            raise ConfigError([Fault("threshold.precision", wish.precision, rule, hint)])
    elif wish.recall is not None:
        place = _best(precision_P, recall_P, recall_P >= wish.recall - _ROUNDING)
    else:
        assert wish.false_positive_cost is not None
        assert wish.false_negative_cost is not None
        cost_P = wish.false_positive_cost * false_P + wish.false_negative_cost * (share - true_P)
        place = _best(-cost_P, precision_P, np.ones(len(cost_P), dtype=bool))
    assert place is not None
    return _between(score_P, place)


def decisions_metrics(
    question: OneAgainstRest, threshold: float, weights_B: Floats | None, costs: Mapping[str, float] | None = None
) -> Metrics:
    """What deciding by a threshold is worth: see :func:`decisions_of_weightings`; ``None`` where it is not defined."""
    weights_1B = (np.ones(len(question.score_B)) if weights_B is None else weights_B)[None]
    found = decisions_of_weightings(question, threshold, costs)(weights_1B)
    return {key: None if np.isnan(value[0]) else float(value[0]) for key, value in found.items()}


def decisions_of_weightings(
    question: OneAgainstRest, threshold: float, costs: Mapping[str, float] | None = None
) -> Weightings:
    """Metrics of the decision that rows from a probability on are of the class, under many weightings.

    They are ``precision``, ``recall``, ``f1``, ``false_positive_rate``, ``accuracy``, and, with costs, ``mean_cost``
    of a row.
    """
    decided_B, positive_B = question.score_B >= threshold, question.positive_B
    cells_B4 = np.stack(
        [decided_B & positive_B, decided_B & ~positive_B, ~decided_B & positive_B, ~decided_B & ~positive_B], axis=1
    ).astype(float)

    def metrics(weights_RB: Floats) -> dict[str, Floats]:
        hit_R, false_R, missed_R, rejected_R = (weights_RB @ cells_B4).T
        total_R = weights_RB.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "precision": hit_R / (hit_R + false_R),
                "recall": hit_R / (hit_R + missed_R),
                "f1": 2 * hit_R / (2 * hit_R + false_R + missed_R),
                "false_positive_rate": false_R / (false_R + rejected_R),
                "accuracy": (hit_R + rejected_R) / total_R,
            }
            if costs is not None:
                total_cost_R = costs["false_positive"] * false_R + costs["false_negative"] * missed_R
                found["mean_cost"] = total_cost_R / total_R
        return found

    return metrics


def _best(first_P: Floats, second_P: Floats, allowed_P: Any) -> int | None:
    """Where the first number is highest, of equal ones the second; ``None`` if nothing is allowed."""
    places = np.flatnonzero(allowed_P)
    if not len(places):
        return None
    highest = places[first_P[places] >= first_P[places].max() - _ROUNDING]
    return int(highest[second_P[highest].argmax()])


def _between(score_P: Floats, place: int) -> float:
    """A number between a score and the next lower one; the first score is infinite, which is no row."""
    upper = 1.0 if place == 0 else float(score_P[place])
    lower = float(score_P[place + 1]) if place + 1 < len(score_P) else 0.0
    middle = (upper + lower) / 2
    if place == 0:
        return middle if middle > lower else float(np.nextafter(lower, np.inf))
    return middle if middle > lower else upper
