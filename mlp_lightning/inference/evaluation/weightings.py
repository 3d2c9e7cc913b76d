"""The metrics of the same rows under many weightings at once: what a bootstrap needs.

A resample is a weighting, in which a row counts as often as it was drawn. Every metric here is that of
:mod:`mlp_lightning.networks.tasks.metrics`, for all weightings in one product or one cumulative sum.

Shapes: ``R`` weightings, ``B`` rows, ``C`` classes, ``T`` targets, ``G`` distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.networks.tasks.metrics import CALIBRATION_BINS
from mlp_lightning.tables.targets import Target

#: The value of each metric under each weighting ``(R, B)``, as ``(R,)``; NaN where it is not defined.
Weightings = Callable[[Floats], dict[str, Floats]]


def metrics_of_weightings(target: Target, truths_BT: Floats, predictions_BC: Floats) -> Weightings:
    """The metrics of predictions as a function of the weights of the rows.

    Args:
        target: what is predicted.
        truths_BT: class numbers or values.
        predictions_BC: probabilities or values.
    """
    if not target.columns[0].classes:
        return _of_numbers(truths_BT, predictions_BC)
    labels_BT = truths_BT.astype(np.int64)
    if len(target.columns) == 1:
        return _of_classes(labels_BT[:, 0], predictions_BC)
    each = [
        _of_classes(labels_BT[:, number], np.stack([1 - predictions_BC[:, number], predictions_BC[:, number]], axis=1))
        for number in range(len(target.columns))
    ]
    exact_B = ((predictions_BC > 0.5) == labels_BT).all(axis=1).astype(float)

    def metrics(weights_RB: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore", divide="ignore"):
            of_targets = [one(weights_RB) for one in each]
            for one in of_targets:
                one["macro_f1"] = one.pop("f1_of_second")
            means = {key: np.mean([one[key] for one in of_targets], axis=0) for key in of_targets[0]}
            return {"exact_match": weights_RB @ exact_B / weights_RB.sum(axis=1), **means}

    return metrics


def _of_classes(labels_B: NDArray[np.int64], probabilities_BC: Floats) -> Weightings:
    probabilities_BC = probabilities_BC / probabilities_BC.sum(axis=1, keepdims=True)
    rows, classes = probabilities_BC.shape
    everyone = np.arange(rows)
    predicted_B, confidence_B = probabilities_BC.argmax(axis=1), probabilities_BC.max(axis=1)
    right_B = (predicted_B == labels_B).astype(float)
    of_true_B = np.clip(probabilities_BC[everyone, labels_B], np.finfo(float).eps, 1 - np.finfo(float).eps)
    brier_B = (probabilities_BC**2).sum(axis=1) - 2 * probabilities_BC[everyone, labels_B] + 1
    means_B3 = np.stack([right_B, -np.log(of_true_B), brier_B / (2 if classes == 2 else 1)], axis=1)
    bin_B = np.digitize(confidence_B, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    gaps_BM = _one_hot(bin_B, CALIBRATION_BINS, right_B - confidence_B)
    true_BC, guess_BC, hit_BC = (
        _one_hot(one_B, classes, values)
        for one_B, values in ((labels_B, None), (predicted_B, None), (labels_B, right_B))
    )
    rankings = [
        _ranking(labels_B == number, probabilities_BC[:, number]) for number in (range(classes) if classes > 2 else [1])
    ]

    def metrics(weights_RB: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore", divide="ignore"):
            total_R = weights_RB.sum(axis=1)
            accuracy_R, loss_R, brier_R = (weights_RB @ means_B3 / total_R[:, None]).T
            true_RC, guess_RC, hit_RC = (_product(weights_RB, one) for one in (true_BC, guess_BC, hit_BC))
            f1_RC = 2 * hit_RC / (true_RC + guess_RC)
            areas = [one(weights_RB) for one in rankings]
            found = {
                "accuracy": accuracy_R,
                "balanced_accuracy": _mean_of_defined(hit_RC / true_RC),
                "macro_f1": _mean_of_defined(f1_RC),
                "roc_auc": np.mean([roc_R for roc_R, _ in areas], axis=0),
                "average_precision": np.mean([precision_R for _, precision_R in areas], axis=0),
                "log_loss": loss_R,
                "brier": brier_R,
                "expected_calibration_error": np.abs(_product(weights_RB, gaps_BM)).sum(axis=1) / total_R,
            }
            return found if classes > 2 else {**found, "f1_of_second": f1_RC[:, 1]}

    return metrics


def _ranking(positive_B: NDArray[np.bool_], score_B: Floats) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Areas under the ROC curve and the precision-recall curve, from sums over the rows above each distinct score."""
    order_B = np.argsort(-score_B, kind="stable")
    positive_B, ends_G = positive_B[order_B], np.flatnonzero(np.diff(score_B[order_B], append=np.nan) != 0)

    def areas(weights_RB: Floats) -> tuple[Floats, Floats]:
        weights_RB = weights_RB[:, order_B]
        all_RG = weights_RB.cumsum(axis=1)[:, ends_G]
        true_RG = (weights_RB * positive_B).cumsum(axis=1)[:, ends_G]
        true_R, false_R = true_RG[:, -1], all_RG[:, -1] - true_RG[:, -1]
        gained_RG = np.diff(true_RG, axis=1, prepend=0)
        lost_RG = np.diff(all_RG, axis=1, prepend=0) - gained_RG
        roc_R = (lost_RG * (true_RG - gained_RG / 2)).sum(axis=1) / (true_R * false_R)
        precision_RG = np.divide(true_RG, all_RG, out=np.zeros_like(true_RG), where=all_RG > 0)
        average_R = (gained_RG * precision_RG).sum(axis=1) / true_R
        return roc_R, np.where(false_R > 0, average_R, np.nan)

    return areas


def _of_numbers(truths_BT: Floats, predictions_BT: Floats) -> Weightings:
    errors_BT = np.abs(truths_BT - predictions_BT)
    centred_BT = truths_BT - truths_BT.mean(axis=0)  # so that the variance does not cancel
    sums = [errors_BT**2, errors_BT, centred_BT, centred_BT**2]
    order_BT = errors_BT.argsort(axis=0)

    def metrics(weights_RB: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore", divide="ignore"):
            total_R1 = weights_RB.sum(axis=1, keepdims=True)
            squared_RT, absolute_RT, mean_RT, moment_RT = (weights_RB @ one / total_R1 for one in sums)
            variance_RT = moment_RT - mean_RT**2
            # What rounding leaves of the variance of equal targets is none.
            variance_RT[variance_RT <= 1e-12 * moment_RT] = np.nan
            medians = [
                _weighted_median(errors_B[order_B], weights_RB[:, order_B])
                for errors_B, order_B in zip(errors_BT.T, order_BT.T, strict=True)
            ]
            return {
                "rmse": np.sqrt(squared_RT).mean(axis=1),
                "mae": absolute_RT.mean(axis=1),
                "median_absolute_error": np.mean(medians, axis=0),
                "r2": (1 - squared_RT / variance_RT).mean(axis=1),
            }

    return metrics


def _weighted_median(sorted_B: Floats, weights_RB: Floats) -> Floats:
    """The mean of the lower and the upper median under each weighting."""
    up_to_RB = weights_RB.cumsum(axis=1)
    half_R1 = up_to_RB[:, -1:] / 2
    low_R, high_R = (up_to_RB < half_R1).sum(axis=1), (up_to_RB <= half_R1).sum(axis=1)
    return (sorted_B[low_R] + sorted_B[high_R]) / 2


def _one_hot(number_B: NDArray[np.int64], numbers: int, values_B: Floats | None = None) -> Any:
    """A sparse matrix ``(B, numbers)`` with a value, or 1, in each row."""
    from scipy.sparse import csr_array

    values_B = np.ones(len(number_B)) if values_B is None else values_B
    return csr_array((values_B, (np.arange(len(number_B)), number_B)), (len(number_B), numbers))


def _product(weights_RB: Floats, of_rows: Any) -> Floats:
    return (of_rows.T @ weights_RB.T).T


def _mean_of_defined(values_RC: Floats) -> Floats:
    """The mean over what is not NaN."""
    defined_RC = ~np.isnan(values_RC)
    return np.where(defined_RC, values_RC, 0).sum(axis=1) / defined_RC.sum(axis=1)
