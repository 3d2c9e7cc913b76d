"""Curves of classes as plain arrays: ROC, precision-recall and reliability, each class against the rest.

Weights of rows are above 0: leave out the rows that do not count.

Shapes: ``B`` rows, ``C`` classes, ``P`` points of a curve, ``M`` bins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.targets import Target

#: Most curves of one picture and file: of many classes those with the most rows.
MOST_CURVES = 10
#: Most points of a curve that are kept; the areas are those of all points.
MOST_POINTS = 1_000
BINS = 15


@dataclasses.dataclass(frozen=True)
class OneAgainstRest:
    """A question with the answers yes and no: whether a row is of a class.

    Attributes:
        name: of the class, or of the target where there are several.
        positive: the class that is yes.
        positive_B: whether a row is of it.
        score_B: its probability.
    """

    name: str
    positive: str
    positive_B: NDArray[np.bool_]
    score_B: Floats


@dataclasses.dataclass(frozen=True)
class RocCurve:
    """Rates at falling thresholds; the first point is that of no row.

    Attributes:
        name: of the class.
        false_positive_rate_P: share of the other rows at or above the threshold.
        true_positive_rate_P: share of the class's rows.
        threshold_P: of the probability; infinite at the first point.
        area: under the curve.
    """

    name: str
    false_positive_rate_P: Floats
    true_positive_rate_P: Floats
    threshold_P: Floats
    area: float


@dataclasses.dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall at rising thresholds; the last point is that of no row.

    Attributes:
        name: of the class.
        recall_P: share of the class's rows at or above the threshold.
        precision_P: share of the rows at or above the threshold that are of the class; 1 where there is no row.
        threshold_P: of the probability; infinite at the last point.
        average_precision: the area as a sum of rectangles.
        share: of the rows that are of the class: the precision of a prediction that does not look at the features.
    """

    name: str
    recall_P: Floats
    precision_P: Floats
    threshold_P: Floats
    average_precision: float
    share: float


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How often what is predicted with a certain probability is so, in 15 bins of equal width.

    Attributes:
        name: of what is predicted.
        rows_M: rows of each bin that has some.
        probability_M: their mean probability.
        share_M: share of them of which the prediction is true.
    """

    name: str
    rows_M: NDArray[np.int64]
    probability_M: Floats
    share_M: Floats


def against_rest(target: Target, truths_BT: Floats, predictions_BC: Floats) -> list[OneAgainstRest]:
    """Every class of a single target, or the second class of each of several; none of numbers."""
    columns = target.columns
    if not columns[0].classes:
        return []
    if len(columns) > 1:
        return [
            OneAgainstRest(one.name, one.class_names[1], truths_BT[:, number] == 1, predictions_BC[:, number])
            for number, one in enumerate(columns)
        ]
    return [
        OneAgainstRest(name, name, truths_BT[:, 0] == number, predictions_BC[:, number])
        for number, name in enumerate(target.class_names)
    ]


def drawn(questions: Sequence[OneAgainstRest]) -> list[OneAgainstRest]:
    """Those that get a curve: both classes of two have the same, and of many those with the most rows, in order."""
    if len(questions) == 2 and questions[0].name == questions[0].positive:
        return [questions[1]]
    rows = [-int(one.positive_B.sum()) for one in questions]
    return [questions[place] for place in sorted(np.argsort(np.array(rows), kind="stable")[:MOST_CURVES])]


def areas(question: OneAgainstRest, weights_B: Floats | None) -> dict[str, float | None]:
    """``roc_auc`` and ``average_precision``; ``None`` where all rows have the same answer."""
    from sklearn import metrics

    positive_B, score_B = question.positive_B, question.score_B
    if positive_B.all() or not positive_B.any():
        return {"roc_auc": None, "average_precision": None}
    return {
        "roc_auc": float(metrics.roc_auc_score(positive_B, score_B, sample_weight=weights_B)),
        "average_precision": float(metrics.average_precision_score(positive_B, score_B, sample_weight=weights_B)),
    }


def roc_curve(question: OneAgainstRest, weights_B: Floats | None) -> RocCurve | None:
    """The ROC curve; ``None`` where all rows have the same answer."""
    from sklearn import metrics

    found = areas(question, weights_B)["roc_auc"]
    if found is None:
        return None
    positive_B, score_B = question.positive_B, question.score_B
    points = metrics.roc_curve(positive_B, score_B, sample_weight=weights_B)
    false_P, true_P, threshold_P = _thinned(np.stack(points))
    return RocCurve(question.name, false_P, true_P, threshold_P, found)


def precision_recall_curve(question: OneAgainstRest, weights_B: Floats | None) -> PrecisionRecallCurve | None:
    """The precision-recall curve; ``None`` where all rows have the same answer."""
    from sklearn import metrics

    found = areas(question, weights_B)["average_precision"]
    if found is None:
        return None
    positive_B, score_B = question.positive_B, question.score_B
    precision_P, recall_P, threshold_P = metrics.precision_recall_curve(positive_B, score_B, sample_weight=weights_B)
    points = _thinned(np.stack([recall_P, precision_P, np.append(threshold_P, np.inf)]))
    share = float(np.average(positive_B, weights=weights_B))
    return PrecisionRecallCurve(question.name, points[0], points[1], points[2], found, share)


def reliabilities(
    target: Target, truths_BT: Floats, predictions_BC: Floats, weights_B: Floats | None
) -> list[Reliability]:
    """Of two classes that of the second one; of more that of the predicted class; of several targets one for each."""
    questions = against_rest(target, truths_BT, predictions_BC)
    if len(target.columns) == 1 and len(questions) > 2:
        predicted_B = predictions_BC.argmax(axis=1)
        right_B = predicted_B == truths_BT[:, 0]
        questions = [OneAgainstRest("predicted class", "", right_B, predictions_BC.max(axis=1))]
    return [_reliability(one, weights_B) for one in drawn(questions)]


def _reliability(question: OneAgainstRest, weights_B: Floats | None) -> Reliability:
    positive_B, score_B = question.positive_B, question.score_B
    weights_B = np.ones(len(score_B)) if weights_B is None else weights_B
    bin_B = np.digitize(score_B, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    rows_M, total_M, probability_M, share_M = (
        np.bincount(bin_B, values, BINS) for values in (None, weights_B, weights_B * score_B, weights_B * positive_B)
    )
    some_M = rows_M > 0
    total_M = total_M[some_M]
    return Reliability(question.name, rows_M[some_M], probability_M[some_M] / total_M, share_M[some_M] / total_M)


def _thinned(columns_3P: Floats) -> Floats:
    """At most so many of the points, evenly spaced, the first and the last among them."""
    points = columns_3P.shape[1]
    kept = np.unique(np.linspace(0, points - 1, min(points, MOST_POINTS)).round().astype(int))
    return columns_3P[:, kept]
