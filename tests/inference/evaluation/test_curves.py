"""Curves as arrays, against scikit-learn, and their pictures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from mlp_lightning.inference.evaluation import curves
from mlp_lightning.inference.evaluation.curve_figure import precision_recall_figure, reliability_figure, roc_figure
from mlp_lightning.inference.evaluation.curves import OneAgainstRest, against_rest, drawn, reliabilities
from mlp_lightning.runs.drawing import png_bytes
from mlp_lightning.tables.targets import Target, TargetColumn


def question(count: int, seed: int = 0) -> OneAgainstRest:
    random = np.random.default_rng(seed)
    positive_B = random.random(count) < 0.3
    return OneAgainstRest("yes", "yes", positive_B, random.integers(0, 40, count) / 80 + positive_B * 0.4)


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_are_those_of_scikit_learn(weighted: bool) -> None:
    one, weights_B = question(300), np.random.default_rng(1).random(300) + 0.1 if weighted else None
    roc, precision_recall = curves.roc_curve(one, weights_B), curves.precision_recall_curve(one, weights_B)
    assert roc is not None
    assert precision_recall is not None
    expected = metrics.roc_curve(one.positive_B, one.score_B, sample_weight=weights_B)
    for actual, points in zip(
        (roc.false_positive_rate_P, roc.true_positive_rate_P, roc.threshold_P), expected, strict=True
    ):
        np.testing.assert_array_equal(actual, points)
    assert roc.area == pytest.approx(metrics.auc(expected[0], expected[1]))
    precision_P, recall_P, _ = metrics.precision_recall_curve(one.positive_B, one.score_B, sample_weight=weights_B)
    np.testing.assert_array_equal(precision_recall.precision_P, precision_P)
    np.testing.assert_array_equal(precision_recall.recall_P, recall_P)
    steps = -(np.diff(recall_P) * precision_P[:-1]).sum()
    assert precision_recall.average_precision == pytest.approx(steps)
    assert precision_recall.share == pytest.approx(np.average(one.positive_B, weights=weights_B))


def test_a_curve_of_many_rows_has_few_points() -> None:
    random = np.random.default_rng(0)
    positive_B = random.random(50_000) < 0.5
    one = OneAgainstRest("yes", "yes", positive_B, random.random(50_000) + positive_B)
    roc, precision_recall = curves.roc_curve(one, None), curves.precision_recall_curve(one, None)
    assert roc is not None
    assert precision_recall is not None
    assert len(roc.threshold_P) <= 1000
    assert len(precision_recall.threshold_P) == 1000
    ends = roc.false_positive_rate_P[[0, -1]].tolist(), roc.true_positive_rate_P[[0, -1]].tolist()
    assert ends == ([0, 1], [0, 1])
    assert roc.area == pytest.approx(metrics.roc_auc_score(positive_B, one.score_B), rel=1e-12)
    assert metrics.auc(roc.false_positive_rate_P, roc.true_positive_rate_P) == pytest.approx(roc.area, abs=1e-3)


@pytest.mark.parametrize("answer", [False, True])
def test_rows_of_one_class_have_no_curve(answer: bool) -> None:
    one = OneAgainstRest("yes", "yes", np.full(4, answer), np.arange(4) / 4)
    assert curves.roc_curve(one, None) is None
    assert curves.precision_recall_curve(one, None) is None
    assert curves.areas(one, None) == {"roc_auc": None, "average_precision": None}


def test_of_many_classes_those_with_the_most_rows_are_drawn() -> None:
    names = tuple(f"c{number:04d}" for number in range(1000))
    labels_B = np.concatenate([np.arange(1000), np.repeat([3, 700, 20], 5)])
    shares_BC = np.random.default_rng(0).dirichlet(np.ones(1000), len(labels_B))
    target = Target("multiclass", (TargetColumn("y", "string", names),))
    shown = [one.name for one in drawn(against_rest(target, labels_B[:, None].astype(float), shares_BC))]
    assert shown == [*names[:8], "c0020", "c0700"]


def test_two_classes_have_one_curve_and_labels_one_each() -> None:
    truths_BT, shares_BC = np.array([[0.0], [1]]), np.array([[0.8, 0.2], [0.3, 0.7]])
    binary = Target("binary", (TargetColumn("y", "string", ("no", "yes")),))
    (only,) = drawn(against_rest(binary, truths_BT, shares_BC))
    assert (only.name, only.positive_B.tolist(), only.score_B.tolist()) == ("yes", [False, True], [0.2, 0.7])
    labels = Target("multilabel", tuple(TargetColumn(name, "string", ("no", "yes")) for name in ("rain", "wind")))
    both = drawn(against_rest(labels, np.array([[0.0, 1], [1, 1]]), shares_BC))
    assert [(one.name, one.positive_B.tolist()) for one in both] == [("rain", [False, True]), ("wind", [True, True])]
    assert against_rest(Target("regression", (TargetColumn("y", "float64"),)), truths_BT, truths_BT) == []


def test_reliability_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    second_B = random.random(500)
    labels_B = random.random(500) < second_B**2
    binary = Target("binary", (TargetColumn("y", "string", ("no", "yes")),))
    facts = binary, labels_B[:, None].astype(float), np.stack([1 - second_B, second_B], axis=1)
    share_M, probability_M = calibration_curve(labels_B, second_B, n_bins=15)
    (one,) = reliabilities(*facts, None)
    assert one.share_M == pytest.approx(share_M)
    assert one.probability_M == pytest.approx(probability_M)
    assert one.rows_M.sum() == 500
    weights_B = random.integers(1, 4, 500)
    (weighted,) = reliabilities(*facts, weights_B.astype(float))
    often = np.arange(500).repeat(weights_B)
    share_M, _ = calibration_curve(labels_B[often], second_B[often], n_bins=15)
    assert weighted.share_M == pytest.approx(share_M)


def test_reliability_of_several_classes_is_that_of_the_predicted_one() -> None:
    shares_BC = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.52, 0.38, 0.1]])
    target = Target("multiclass", (TargetColumn("y", "string", ("a", "b", "c")),))
    (one,) = reliabilities(target, np.array([[0.0], [2], [1]]), shares_BC, None)
    assert (one.name, one.rows_M.tolist(), one.share_M.tolist()) == ("predicted class", [2, 1], [0.5, 1])
    assert one.probability_M == pytest.approx([0.51, 0.8])


def test_pictures() -> None:
    """They have every curve by its name, and without curves they can be drawn, too."""
    one = question(50)
    roc, precision_recall = curves.roc_curve(one, None), curves.precision_recall_curve(one, None)
    assert roc is not None
    assert precision_recall is not None
    reliability = curves.Reliability("yes", np.array([3]), np.array([0.4]), np.array([0.5]))
    for figure, lines in [
        (roc_figure([roc], "t"), [[0, 1], roc.false_positive_rate_P.tolist()]),
        (precision_recall_figure([precision_recall], "t"), [precision_recall.recall_P.tolist(), [0, 1]]),
        (reliability_figure([reliability], [reliability], "t"), [[0, 1], [0.4], [0.4]]),
        (roc_figure([], "t"), [[0, 1]]),
        (precision_recall_figure([], "t"), []),
    ]:
        (axes,) = figure.axes
        assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == lines
        assert axes.get_title() == "t"
        assert png_bytes(figure).startswith(b"\x89PNG")
