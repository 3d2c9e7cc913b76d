"""Metrics of many weightings at once, against the metrics of tasks, which are scikit-learn's, one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from mlp_lightning.inference.evaluation.weightings import metrics_of_weightings
from mlp_lightning.networks.tasks import make_task
from mlp_lightning.tables.targets import Target, TargetColumn


def target_of(task: str, names: str, classes: tuple = ()) -> Target:
    kind = "float64" if not classes else "string"
    return Target(task, tuple(TargetColumn(name, kind, classes) for name in names))


def rows_of(task: str, count: int, random: np.random.Generator) -> tuple[Target, np.ndarray, np.ndarray]:
    """Few different numbers, so that many are equal."""
    if task == "regression":
        truths_BT = 1e6 + random.integers(0, 5, (count, 2))
        return target_of(task, "ab"), truths_BT.astype(float), truths_BT + random.integers(-2, 3, (count, 2)) / 4
    if task == "multilabel":
        truths_BT = random.integers(0, 2, (count, 3)).astype(float)
        return target_of(task, "abc", ("no", "yes")), truths_BT, random.integers(0, 9, (count, 3)) / 8
    classes = 2 if task == "binary" else 4
    shares_BC = random.integers(1, 5, (count, classes)).astype(float)
    truths_B1 = random.integers(0, classes, (count, 1)).astype(float)
    return target_of(task, "a", tuple("wxyz"[:classes])), truths_B1, shares_BC / shares_BC.sum(1, keepdims=True)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("count", [1, 2, 7, 80])
def test_every_metric_is_that_of_the_task(task: str, count: int) -> None:
    random = np.random.default_rng(count)
    target, truths_BT, predictions_BC = rows_of(task, count, random)
    of_task = make_task(task, predictions_BC.shape[1] if task != "binary" else 1)
    weights_RB = random.integers(0, 3, (20, count)).astype(float)
    weights_RB[:, 0] += ~weights_RB.any(axis=1)  # some row counts
    weights_RB[10:] *= random.random(count) + 0.1
    found = metrics_of_weightings(target, truths_BT, predictions_BC)(weights_RB)
    for number, weights_B in enumerate(weights_RB):
        expected = of_task.evaluation(target, truths_BT, predictions_BC, weights_B).metrics
        actual = {name: np.nan if value is None else value for name, value in expected.items() if name != "rows"}
        assert {name: found[name][number] for name in actual} == pytest.approx(actual, rel=1e-9, abs=1e-12, nan_ok=True)


def test_a_hundred_classes() -> None:
    """Of which each has two rows: a resample lacks some."""
    random = np.random.default_rng(0)
    labels_B, shares_BC = np.arange(200) % 100, random.dirichlet(np.ones(100), 200)
    target = target_of("multiclass", "a", tuple(f"{one:03d}" for one in range(100)))
    weights_RB = np.stack([np.ones(200), random.integers(0, 2, 200).astype(float)])
    found = metrics_of_weightings(target, labels_B[:, None].astype(float), shares_BC)(weights_RB)
    assert found["roc_auc"][0] == pytest.approx(metrics.roc_auc_score(labels_B, shares_BC, multi_class="ovr"))
    assert np.isnan(found["roc_auc"][1])
    assert found["accuracy"][1] == metrics.accuracy_score(labels_B, shares_BC.argmax(1), sample_weight=weights_RB[1])
