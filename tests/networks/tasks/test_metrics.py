"""The metrics of an evaluation: by hand, against scikit-learn and torchmetrics, and properties for any rows."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from support.tolerances import assert_close
from torchmetrics.classification import MulticlassCalibrationError

from mlp_lightning.errors import DataError
from mlp_lightning.networks.tasks.metrics import (
    calibration_error,
    classification_metrics,
    confusion_matrix,
    per_class,
    per_output,
    regression_metrics,
)

BOUNDS = {
    "accuracy": (0, 1),
    "balanced_accuracy": (0, 1),
    "macro_f1": (0, 1),
    "roc_auc": (0, 1),
    "average_precision": (0, 1),
    "log_loss": (0, -math.log(np.finfo(float).eps)),
    "brier": (0, 2),
    "expected_calibration_error": (0, 1),
}


def assert_same_metrics(actual, expected) -> None:
    """The same keys in the same order, and the same metrics up to rounding, except numbers of rows."""
    assert list(actual) == list(expected)
    for name in actual.keys() - {"rows"}:
        wanted = expected[name] if expected[name] is None else pytest.approx(expected[name], rel=1e-9, abs=1e-9)
        assert actual[name] == wanted, name


def two_columns(p_B):
    return np.stack([1 - np.array(p_B), p_B], axis=1)


@st.composite
def classified(draw):
    """Labels, probabilities and weights; classes may be absent, probabilities equal, 0 or 1."""
    rows, classes, seed = draw(st.integers(1, 25)), draw(st.integers(2, 5)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    occurring = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    parts_BC = random.integers(0, draw(st.sampled_from([1, 3, 10**6])), (rows, classes), endpoint=True)
    parts_BC[parts_BC.sum(axis=1) == 0] = 1
    weights_B = random.integers(0, 3, rows, endpoint=True).astype(float)
    weights_B[draw(st.integers(0, rows - 1))] = 2
    return random.choice(occurring, rows), parts_BC / parts_BC.sum(axis=1, keepdims=True), weights_B


@st.composite
def regressed(draw):
    rows, outputs, seed = draw(st.integers(1, 25)), draw(st.integers(1, 3)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    targets_BT = random.normal(draw(st.sampled_from([0, 50])), draw(st.sampled_from([0, 1, 30])), (rows, outputs))
    weights_B = random.integers(0, 3, rows, endpoint=True).astype(float)
    weights_B[draw(st.integers(0, rows - 1))] = 2
    return targets_BT, targets_BT + random.normal(size=(rows, outputs)), weights_B


# ---- classification ------------------------------------------------------------------------------------------


def test_binary_by_hand() -> None:
    actual = classification_metrics(np.array([0, 0, 1, 1]), two_columns([0.1, 0.6, 0.3, 0.8]))
    assert list(actual) == ["rows", *BOUNDS]
    assert_same_metrics(
        actual,
        {
            "rows": 4,
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,
            "macro_f1": 0.5,
            "roc_auc": 0.75,  # of the pairs only (0.6, 0.3) is in the wrong order
            "average_precision": 0.5 * 1 + 0.5 * 2 / 3,  # at 0.8 and at 0.3
            "log_loss": -(math.log(0.9) + math.log(0.4) + math.log(0.3) + math.log(0.8)) / 4,
            "brier": (0.01 + 0.36 + 0.49 + 0.04) / 4,
            # bins of 0.6, 0.7, 0.8 and 0.9: all different
            "expected_calibration_error": (0.6 + 0.7 + 0.2 + 0.1) / 4,
        },
    )
    assert actual["rows"] == 4


def test_multiclass_by_hand() -> None:
    """The third class neither occurs nor is it predicted; the weights make row 0 count twice."""
    probabilities_BC = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2]])
    actual = classification_metrics(np.array([0, 1, 1]), probabilities_BC, np.array([2.0, 1, 1]))
    assert_same_metrics(
        actual,
        {
            "rows": 3,
            "accuracy": 0.75,
            "balanced_accuracy": (1 + 0.5) / 2,
            "macro_f1": (4 / 5 + 2 / 3) / 2,
            "roc_auc": None,
            "average_precision": None,
            "log_loss": -(2 * math.log(0.7) + math.log(0.3) + math.log(0.6)) / 4,
            "brier": (2 * (0.09 + 0.04 + 0.01) + (0.25 + 0.49 + 0.04) + (0.04 + 0.16 + 0.04)) / 4,
            "expected_calibration_error": (2 * 0.3 + 0.5 + 0.4) / 4,
        },
    )


def test_predicted_class_that_does_not_occur_counts_in_f1_only() -> None:
    probabilities_BC = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    actual = classification_metrics(np.array([0, 1, 1]), probabilities_BC)
    assert actual["balanced_accuracy"] == pytest.approx(0.75)
    assert actual["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert actual["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps) / 3, rel=1e-3)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_against_scikit_learn(classes) -> None:
    random = np.random.default_rng(classes)
    labels_B = random.permutation(np.arange(200) % classes)
    probabilities_BC = random.dirichlet(np.ones(classes), 200)
    weights_B = random.uniform(0.1, 3, 200)
    actual = classification_metrics(labels_B, probabilities_BC, weights_B)
    predicted_B = probabilities_BC.argmax(axis=1)
    balanced = metrics.balanced_accuracy_score(labels_B, predicted_B, sample_weight=weights_B)
    assert actual["balanced_accuracy"] == pytest.approx(balanced)
    if classes == 2:
        brier = metrics.brier_score_loss(labels_B, probabilities_BC[:, 1], sample_weight=weights_B)
    else:  # one task of two classes for every class
        columns = enumerate(probabilities_BC.T)
        brier = sum(metrics.brier_score_loss(labels_B == one, p_B, sample_weight=weights_B) for one, p_B in columns)
    assert actual["brier"] == pytest.approx(brier)


def test_roc_auc_counts_pairs() -> None:
    """The share of the pairs of a row of the class and one of another in which the first has the larger
    probability; the mean over the classes."""
    random = np.random.default_rng(0)
    labels_B = np.arange(30) % 3
    probabilities_BC = random.dirichlet(np.ones(3), 30)
    areas = []
    for one in range(3):
        own, others = probabilities_BC[labels_B == one, one], probabilities_BC[labels_B != one, one]
        areas.append(np.mean([a > b for a, b in itertools.product(own, others)]))
    assert classification_metrics(labels_B, probabilities_BC)["roc_auc"] == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_error_against_torchmetrics(classes) -> None:
    random = np.random.default_rng(classes)
    probabilities_BC = random.dirichlet(np.full(classes, 0.3), 500)
    labels_B = random.integers(0, classes, 500)
    reference = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    expected = reference(torch.as_tensor(probabilities_BC), torch.as_tensor(labels_B))
    assert_close(calibration_error(labels_B, probabilities_BC), expected)


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    """Right in 7 of 10 rows predicted with 0.7, in 9 of 10 predicted with 0.9."""
    labels_B = np.array([1] * 7 + [0] * 3 + [0] * 9 + [1])
    assert calibration_error(labels_B, two_columns([0.7] * 10 + [0.1] * 10)) == pytest.approx(0)
    assert calibration_error(labels_B, two_columns([1.0] * 10 + [0.0] * 10)) == pytest.approx(4 / 20)


def test_upper_edge_belongs_to_its_bin() -> None:
    """0.6 = 9/15 shares a bin with 0.59, where the two gaps cancel, and none with 0.61."""
    labels_B = np.array([1, 0])
    assert calibration_error(labels_B, two_columns([0.6, 0.59])) == pytest.approx(abs(0.4 - 0.59) / 2)
    assert calibration_error(labels_B, two_columns([0.6, 0.61])) == pytest.approx((0.4 + 0.61) / 2)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_one_class_only(labels) -> None:
    actual = classification_metrics(np.array(labels), two_columns([0.2, 0.7]))
    assert actual["roc_auc"] is None
    assert actual["balanced_accuracy"] == 0.5
    json.dumps(actual, allow_nan=False)


def test_float32_probabilities_do_not_warn() -> None:
    logits_BC = torch.randn(1000, 50, generator=torch.Generator().manual_seed(0))
    probabilities_BC = logits_BC.softmax(-1).numpy().astype(np.float64)
    assert abs(probabilities_BC.sum(axis=1) - 1).max() > 1.5e-8
    before = probabilities_BC.copy()
    actual = classification_metrics(np.arange(1000) % 50, probabilities_BC)
    expected = torch.nn.functional.cross_entropy(logits_BC.double(), torch.arange(1000) % 50)
    assert_close(actual["log_loss"], expected)
    np.testing.assert_array_equal(probabilities_BC, before)


@settings(max_examples=60, deadline=None)
@given(classified(), st.randoms(use_true_random=False))
def test_what_holds_for_all_classifications(case, random) -> None:
    labels_B, probabilities_BC, weights_B = case
    actual = classification_metrics(labels_B, probabilities_BC, weights_B)
    for name, (low, high) in BOUNDS.items():
        assert actual[name] is None or low - 1e-9 <= actual[name] <= high + 1e-9, name
    counting = np.unique(labels_B[weights_B > 0])
    assert (actual["roc_auc"] is None) == (len(counting) < probabilities_BC.shape[1])
    json.dumps(actual, allow_nan=False)

    order = random.sample(range(len(labels_B)), len(labels_B))
    assert_same_metrics(classification_metrics(labels_B[order], probabilities_BC[order], weights_B[order]), actual)
    often = np.repeat(np.arange(len(labels_B)), weights_B.astype(int))
    assert_same_metrics(classification_metrics(labels_B[often], probabilities_BC[often]), actual)
    assert_same_metrics(classification_metrics(labels_B, probabilities_BC, 7.5 * weights_B), actual)
    unweighted = classification_metrics(labels_B, probabilities_BC)
    assert_same_metrics(classification_metrics(labels_B, probabilities_BC, np.ones(len(labels_B))), unweighted)


@settings(max_examples=30, deadline=None)
@given(classified())
def test_per_class_agrees_with_matrix_and_means(case) -> None:
    labels_B, probabilities_BC, weights_B = case
    classes = probabilities_BC.shape[1]
    predicted_B = probabilities_BC.argmax(axis=1)
    matrix_CC = confusion_matrix(labels_B, predicted_B, classes)
    assert matrix_CC.dtype == np.int64
    assert matrix_CC.shape == (classes, classes)
    expected_CC = np.zeros_like(matrix_CC)
    np.add.at(expected_CC, (labels_B, predicted_B), 1)
    np.testing.assert_array_equal(matrix_CC, expected_CC)

    names = [f"class {one}" for one in range(classes)]
    rows = per_class(labels_B, predicted_B, names)
    assert [row["class"] for row in rows] == names
    assert [row["rows"] for row in rows] == matrix_CC.sum(axis=1).tolist()
    for one, row in enumerate(rows):
        right, predicted, true = matrix_CC[one, one], matrix_CC[:, one].sum(), matrix_CC[one].sum()
        assert row["precision"] == (pytest.approx(right / predicted) if predicted else None)
        assert row["recall"] == (pytest.approx(right / true) if true else None)
        assert row["f1"] == (pytest.approx(2 * right / (predicted + true)) if predicted + true else None)

    weighted = per_class(labels_B, predicted_B, names, weights_B)
    actual = classification_metrics(labels_B, probabilities_BC, weights_B)
    for mean, name in (("balanced_accuracy", "recall"), ("macro_f1", "f1")):
        assert actual[mean] == pytest.approx(np.mean([row[name] for row in weighted if row[name] is not None]))


# ---- regression ----------------------------------------------------------------------------------------------


def test_regression_by_hand() -> None:
    targets_BT, predictions_BT = np.array([[1.0], [2], [3], [6]]), np.array([[1.0], [4], [3], [5]])
    expected = {"rows": 4, "rmse": math.sqrt(5 / 4), "mae": 0.75, "median_absolute_error": 0.5, "r2": 1 - 5 / 14}
    assert_same_metrics(regression_metrics(targets_BT, predictions_BT), expected)
    assert regression_metrics(targets_BT, targets_BT)["r2"] == 1


def test_several_outputs_are_averaged() -> None:
    random = np.random.default_rng(0)
    targets_BT, predictions_BT = random.normal(size=(2, 50, 3)) * [1, 10, 100]
    weights_B = random.uniform(size=50)
    actual = regression_metrics(targets_BT, predictions_BT, weights_B)
    each = per_output(targets_BT, predictions_BT, ["a", "b", "c"], weights_B)
    assert [one["output"] for one in each] == ["a", "b", "c"]
    assert [one["rows"] for one in each] == [50] * 3
    for name in ("rmse", "mae", "median_absolute_error", "r2"):
        assert actual[name] == pytest.approx(np.mean([one[name] for one in each]))
    expected = np.average((targets_BT[:, 1] - predictions_BT[:, 1]) ** 2, weights=weights_B) ** 0.5
    assert each[1]["rmse"] == pytest.approx(expected)


def test_constant_target_has_no_r2() -> None:
    targets_BT = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    predictions_BT = targets_BT + 1
    assert regression_metrics(targets_BT, predictions_BT)["r2"] is None
    constant, other = per_output(targets_BT, predictions_BT, ["constant", "other"])
    assert constant["r2"] is None
    assert other["r2"] == pytest.approx(1 - 3 / 2)
    assert regression_metrics(targets_BT[:1, 1:], predictions_BT[:1, 1:])["r2"] is None
    assert regression_metrics(targets_BT[:, 1:], predictions_BT[:, 1:], np.array([0.0, 4, 0]))["r2"] is None


def test_weighted_median_by_hand() -> None:
    """Errors 1, 2, 3: with weights 1, 1, 2 half of the weight lies below 2.5; with 1, 1, 3 it reaches into the 3."""
    targets_BT, predictions_BT = np.zeros((3, 2)), np.array([[3.0, 1], [1, -2], [-2, 3]])
    first, second = per_output(targets_BT, predictions_BT, ["first", "second"], np.array([2.0, 1, 1]))
    assert first["median_absolute_error"] == 2.5
    assert second["median_absolute_error"] == 1.5
    actual = regression_metrics(targets_BT, predictions_BT, np.array([3.0, 1, 1]))
    assert actual["median_absolute_error"] == (3 + 1) / 2


@settings(max_examples=60, deadline=None)
@given(regressed(), st.randoms(use_true_random=False))
def test_what_holds_for_all_regressions(case, random) -> None:
    targets_BT, predictions_BT, weights_B = case
    actual = regression_metrics(targets_BT, predictions_BT, weights_B)
    assert 0 <= actual["mae"] <= actual["rmse"] + 1e-9
    assert actual["median_absolute_error"] >= 0
    assert actual["r2"] is None or actual["r2"] <= 1
    json.dumps(actual, allow_nan=False)

    order = random.sample(range(len(targets_BT)), len(targets_BT))
    assert_same_metrics(regression_metrics(targets_BT[order], predictions_BT[order], weights_B[order]), actual)
    often = np.repeat(np.arange(len(targets_BT)), weights_B.astype(int))
    assert_same_metrics(regression_metrics(targets_BT[often], predictions_BT[often]), actual)
    unweighted = regression_metrics(targets_BT, predictions_BT)
    assert_same_metrics(regression_metrics(targets_BT, predictions_BT, np.ones(len(targets_BT))), unweighted)


# ---- faults --------------------------------------------------------------------------------------------------


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no rows to evaluate"):
        classification_metrics(np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    with pytest.raises(DataError, match="no rows to evaluate"):
        regression_metrics(np.zeros((0, 1)), np.zeros((0, 1)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite(value) -> None:
    probabilities_BC = two_columns([0.5, 0.5, 0.5])
    probabilities_BC[1, 0] = value
    with pytest.raises(DataError, match=f"probability of row 2 of the rows to evaluate is {value}"):
        classification_metrics(np.array([0, 1, 1]), probabilities_BC)
    targets_BT, bad_BT = np.ones((3, 2)), np.ones((3, 2))
    bad_BT[2, 1] = value
    with pytest.raises(DataError, match="prediction of row 3"):
        regression_metrics(targets_BT, bad_BT)
    with pytest.raises(DataError, match="target of row 3"):
        regression_metrics(bad_BT, targets_BT)


@pytest.mark.parametrize(
    ("weights", "text"),
    [([1, -2, 1], "weight of row 2 .* is -2.0"), ([1, 1, math.nan], "weight of row 3 .* is nan"), ([0, 0, 0], "all")],
)
def test_invalid_weights(weights, text) -> None:
    weights_B = np.array(weights, dtype=np.float64)
    with pytest.raises(DataError, match=text):
        classification_metrics(np.array([0, 1, 1]), two_columns([0.5, 0.5, 0.5]), weights_B)
    with pytest.raises(DataError, match=text):
        regression_metrics(np.ones((3, 1)), np.ones((3, 1)), weights_B)
