"""Metrics of a trained model's predictions.

Shapes: ``B`` rows, ``C`` classes of the model, ``T`` targets per row. Weights, where given, say how much each row
counts: a row of weight 2 counts as if it were there twice, one of weight 0 as if it were not there.

A metric that the rows do not define, such as the area under a ROC curve where a class is absent, is ``None``: a key
is never left out, and NaN would not be valid JSON.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from mlp_lightning.errors import DataError
from mlp_lightning.networks.tasks.base import Floats, Metrics

Labels = NDArray[np.int64]

CALIBRATION_BINS = 15


@contextlib.contextmanager
def _few_rows_of_many_classes() -> Iterator[None]:
    """Some versions of scikit-learn warn that such labels may be numbers to regress on. Ours are classes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        yield


@_few_rows_of_many_classes()
def classification_metrics(labels_B: Labels, probabilities_BC: Floats, weights_B: Floats | None = None) -> Metrics:
    """Metrics of a classifier over all rows.

    Args:
        labels_B: the true classes, 0 … C-1; not every class needs to occur.
        probabilities_BC: of the model, one column per class (two for a binary task); every row sums to 1.
        weights_B: of the rows, not negative; ``None`` if all count the same.

    Returns:
        - ``rows``: how many there are, regardless of their weights.
        - ``accuracy``: share of the rows whose most probable class (of equal ones the first) is the true one.
        - ``balanced_accuracy``: recall, averaged over the classes that occur.
        - ``macro_f1``: F1, averaged over the classes that occur or are predicted.
        - ``roc_auc``: area under the ROC curve of class 1; for more than two classes each against the rest,
          averaged evenly. ``None`` where a class does not occur.
        - ``average_precision``: area under the precision-recall curve as a sum of rectangles, likewise.
        - ``log_loss``: mean of -ln(probability of the true class), in nats; a probability of 0 counts as 2e-16.
        - ``brier``: two classes: mean of (p - y)² for class 1, from 0 to 1 (Brier's score of 1950, halved, as is
          usual today); more: mean over the rows of the sum of (p - y)² over the classes, from 0 to 2.
        - ``expected_calibration_error``: see :func:`calibration_error`.

    Raises:
        DataError: no rows, a probability that is not finite, or invalid weights.
    """
    check(probabilities_BC, "probability", weights_B)
    classes = range(probabilities_BC.shape[1])
    assert set(np.unique(labels_B)) <= set(classes), "labels beyond the model's classes"
    # A float32 softmax sums to 1 up to 1e-7 only, of which scikit-learn warns.
    probabilities_BC = probabilities_BC / probabilities_BC.sum(axis=1, keepdims=True)
    rows = len(labels_B)
    labels_B, probabilities_BC, weights_B = _that_count(labels_B, probabilities_BC, weights_B)
    predicted_B = probabilities_BC.argmax(axis=1)
    weighted: dict[str, Any] = {"sample_weight": weights_B}
    # NaN leaves a class out of the average.
    averaged: dict[str, Any] = {"average": "macro", "zero_division": np.nan, **weighted}
    found = np.unique(labels_B)
    metrics: Metrics = {
        "accuracy": sklearn_metrics.accuracy_score(labels_B, predicted_B, **weighted),
        # scikit-learn's own balanced_accuracy_score warns of predicted classes that do not occur.
        "balanced_accuracy": sklearn_metrics.recall_score(labels_B, predicted_B, labels=classes, **averaged),
        "macro_f1": sklearn_metrics.f1_score(labels_B, predicted_B, labels=classes, **averaged),
        "roc_auc": _roc_auc(labels_B, probabilities_BC, weights_B) if len(found) == len(classes) else None,
        "average_precision": sklearn_metrics.average_precision_score(
            labels_B, probabilities_BC[:, 1] if len(classes) == 2 else probabilities_BC, **weighted
        )
        if len(found) == len(classes)
        else None,
        "log_loss": sklearn_metrics.log_loss(labels_B, probabilities_BC, labels=classes, **weighted),
        "brier": _brier(labels_B, probabilities_BC, weights_B),
        "expected_calibration_error": calibration_error(labels_B, probabilities_BC, weights_B),
    }
    return {"rows": rows, **_plain(metrics)}


def calibration_error(labels_B: Labels, probabilities_BC: Floats, weights_B: Floats | None = None) -> float:
    """Expected calibration error (Guo et al., 2017, "On calibration of modern neural networks", equation 3).

    The rows fall into 15 bins of equal width, ((m-1)/15, m/15], by the probability of their most probable class.
    It is the mean over the bins, by their rows, of |accuracy - mean probability|: 0 for a model that is right
    in 70 % of the cases in which it predicts 70 %.

    Args:
        labels_B: the true classes.
        probabilities_BC: of the model.
        weights_B: of the rows; ``None`` if all count the same.
    """
    weights_B = np.ones(len(labels_B)) if weights_B is None else weights_B
    correct_B = probabilities_BC.argmax(axis=1) == labels_B
    confidence_B = probabilities_BC.max(axis=1)
    bin_B = np.digitize(confidence_B, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    # rows of a bin * (accuracy - mean probability), as one sum
    gaps = np.bincount(bin_B, weights_B * (correct_B - confidence_B))
    return float(np.abs(gaps).sum() / weights_B.sum())


@_few_rows_of_many_classes()
def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """How many rows of class i (row of the matrix) were predicted as class j (column), ``(C, C)``.

    Args:
        labels: the true classes, ``(B,)``, of at least one row.
        predicted: classes of the same rows.
        classes: number of classes of the model, C.
    """
    return sklearn_metrics.confusion_matrix(labels, predicted, labels=range(classes)).astype(np.int64)


@_few_rows_of_many_classes()
def per_class(
    labels: Labels, predicted: Labels, class_names: Sequence[str], weights: Floats | None = None
) -> list[dict[str, Any]]:
    """Metrics of every class, in the order of the classes.

    Args:
        labels: the true classes, ``(B,)``.
        predicted: classes of the same rows.
        class_names: of all C classes.
        weights: of the rows; ``None`` if all count the same.

    Returns:
        For each class ``class`` (its name), ``rows`` (how many it has, regardless of their weights), ``precision``
        (``None`` if it was never predicted), ``recall`` (``None`` if it does not occur) and ``f1`` (``None`` if
        neither).
    """
    counts = np.bincount(labels, minlength=len(class_names))
    labels, predicted, weights = _that_count(labels, predicted, weights)
    options: dict[str, Any] = {"zero_division": np.nan, "sample_weight": weights}
    by_class: Any = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(len(class_names)), **options
    )
    return [
        {"class": name, "rows": int(rows), **_plain({"precision": precision, "recall": recall, "f1": f1})}
        for name, rows, precision, recall, f1, _ in zip(class_names, counts, *by_class, strict=True)
    ]


def regression_metrics(targets_BT: Floats, predictions_BT: Floats, weights_B: Floats | None = None) -> Metrics:
    """Metrics of a regression, in the units of the targets; for several targets the mean over the targets.

    Args:
        targets_BT: the true values.
        predictions_BT: of the model.
        weights_B: of the rows, not negative; ``None`` if all count the same.

    Returns:
        - ``rows``: how many there are, regardless of their weights.
        - ``rmse``: root of the mean squared error.
        - ``mae``: mean absolute error.
        - ``median_absolute_error``.
        - ``r2``: coefficient of determination, 1 - squared error / variance; ``None`` where a target is constant,
          as it is in a single row.

    Raises:
        DataError: no rows, a target or prediction that is not finite, or invalid weights.
    """
    assert targets_BT.shape == predictions_BT.shape, "a prediction for every target"
    check(targets_BT, "target")
    check(predictions_BT, "prediction", weights_B)
    rows = len(targets_BT)
    targets_BT, predictions_BT, weights_B = _that_count(targets_BT, predictions_BT, weights_B)
    both = (targets_BT, predictions_BT)
    constant = (targets_BT == targets_BT[0]).all(axis=0).any()
    metrics: Metrics = {
        "rmse": sklearn_metrics.root_mean_squared_error(*both, sample_weight=weights_B),
        "mae": sklearn_metrics.mean_absolute_error(*both, sample_weight=weights_B),
        "median_absolute_error": _median_error(*both, weights_B),
        "r2": None if constant else sklearn_metrics.r2_score(*both, sample_weight=weights_B),
    }
    return {"rows": rows, **_plain(metrics)}


def per_output(
    targets: Floats, predictions: Floats, names: Sequence[str], weights: Floats | None = None
) -> list[dict[str, Any]]:
    """The metrics of :func:`regression_metrics` for every target alone, and ``output``, its name.

    Args:
        targets: the true values, ``(B, T)``.
        predictions: of the model, ``(B, T)``.
        names: of the T targets.
        weights: of the rows; ``None`` if all count the same.
    """
    return [
        {"output": name, **regression_metrics(targets[:, one : one + 1], predictions[:, one : one + 1], weights)}
        for one, name in enumerate(names)
    ]


def _roc_auc(labels_B: Labels, probabilities_BC: Floats, weights_B: Floats | None) -> float:
    if probabilities_BC.shape[1] == 2:
        return float(sklearn_metrics.roc_auc_score(labels_B, probabilities_BC[:, 1], sample_weight=weights_B))
    return float(sklearn_metrics.roc_auc_score(labels_B, probabilities_BC, multi_class="ovr", sample_weight=weights_B))


def _brier(labels_B: Labels, probabilities_BC: Floats, weights_B: Floats | None) -> float:
    # scikit-learn's supports more than two classes only from 1.7 on.
    off_BC = probabilities_BC.copy()
    off_BC[np.arange(len(labels_B)), labels_B] -= 1
    score = float(np.average((off_BC**2).sum(axis=1), weights=weights_B))
    return score / 2 if probabilities_BC.shape[1] == 2 else score


def _median_error(targets_BT: Floats, predictions_BT: Floats, weights_B: Floats | None) -> float:
    if weights_B is None:
        return float(sklearn_metrics.median_absolute_error(targets_BT, predictions_BT))
    # Of two middle rows scikit-learn takes the mean, but before 1.8 the lower one where there are weights.
    errors_BT = np.abs(targets_BT - predictions_BT)
    order_BT = errors_BT.argsort(axis=0)
    errors_BT = np.take_along_axis(errors_BT, order_BT, axis=0)
    up_to_BT = weights_B[order_BT].cumsum(axis=0)
    half_T = up_to_BT[-1] / 2
    low_T, high_T = (up_to_BT < half_T).sum(axis=0), (up_to_BT <= half_T).sum(axis=0)
    outputs = range(errors_BT.shape[1])
    return float((errors_BT[low_T, outputs] + errors_BT[high_T, outputs]).mean() / 2)


def _that_count(first: Any, second: Any, weights_B: Floats | None) -> tuple[Any, Any, Floats | None]:
    """The rows whose weight is not 0, so that a class with only such rows counts as absent."""
    if weights_B is None or weights_B.all():
        return first, second, weights_B
    counts_B = weights_B > 0
    return first[counts_B], second[counts_B], weights_B[counts_B]


def check(values: Floats, kind: str, weights_B: Floats | None = None) -> None:
    """Refuse rows that have no metrics.

    Args:
        values: ``(B, …)``.
        kind: name of one of ``values``, for the message.
        weights_B: of the same rows.
    """
    if len(values) == 0:
        raise DataError("There are no rows to evaluate: metrics need at least one; name a table that has rows.")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = tuple(bad[0])
        raise DataError(
            f"The {kind} of row {index[0] + 1} of the rows to evaluate is {values[index]}, and must be finite; check"
            " whether this row has values far from those of the training rows, or whether the training diverged."
        )
    if weights_B is None:
        return
    bad = np.flatnonzero(~(np.isfinite(weights_B) & (weights_B >= 0)))
    if len(bad):
        raise DataError(
            f"The weight of row {bad[0] + 1} of the rows to evaluate is {weights_B[bad[0]]}, and must be finite and not"
            " negative; correct it, or evaluate without weights."
        )
    if not weights_B.any():
        raise DataError(
            "The weights of all rows to evaluate are 0, so no row counts; give at least one row a positive weight,"
            " or evaluate without weights."
        )


def _plain(metrics: Mapping[str, Any]) -> Metrics:
    """Python numbers, and ``None`` for what is not defined."""
    return {name: None if one is None or math.isnan(one) else float(one) for name, one in metrics.items()}
