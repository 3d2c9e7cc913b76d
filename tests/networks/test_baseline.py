"""What a prediction without features is worth, against scikit-learn's dummies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error

from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.tasks import make_task
from mlp_lightning.tables.targets import Target, TargetColumn

DRAW = np.random.default_rng(4)


@pytest.mark.parametrize("classes", [2, 4])
def test_of_classes(classes) -> None:
    train_B, rows_B = DRAW.integers(0, classes, 70) // 2 * 2 % classes, DRAW.integers(0, classes, 90)
    rows_B = np.where(np.isin(rows_B, train_B), rows_B, train_B[0])
    targets = [torch.from_numpy(one) for one in (train_B, rows_B)]
    if classes == 2:
        targets = [one[:, None].float() for one in targets]
    task = make_task("binary" if classes == 2 else "multiclass", 1 if classes == 2 else classes)
    found = Baseline.of(targets[0], task).metrics(task, targets[1])
    nothing, known = np.zeros((70, 1)), np.unique(train_B)
    dummy = DummyClassifier(strategy="prior").fit(nothing, train_B)
    assert found["accuracy"] == pytest.approx(accuracy_score(rows_B, dummy.predict(np.zeros((90, 1)))))
    if len(known) > 1:
        expected = log_loss(rows_B, dummy.predict_proba(np.zeros((90, 1))), labels=known)
        assert found["loss"] == pytest.approx(expected)


def test_of_a_class_without_training_rows_stays_finite() -> None:
    task = make_task("multiclass", 3)
    found = Baseline.of(torch.tensor([0, 0, 1]), task).metrics(task, torch.tensor([2, 0]))
    assert np.isfinite(found["loss"])
    task = make_task("binary", 1)
    binary = Baseline.of(torch.zeros(3, 1), task).metrics(task, torch.tensor([[1.0], [0.0]]))
    assert np.isfinite(binary["loss"])
    assert binary["accuracy"] == 0.5


def test_of_numbers() -> None:
    train_BT, rows_BT = DRAW.exponential(size=(50, 2)), DRAW.exponential(size=(80, 2))
    mean, scale = np.array([3.0, -1.0]), np.array([10.0, 0.5])
    task = make_task("regression", 2, mean, scale)
    baseline = Baseline.of(torch.from_numpy(train_BT), task)
    found = baseline.metrics(task, torch.from_numpy(rows_BT))
    nothing, rows = np.zeros((50, 1)), np.zeros((80, 1))
    by_mean = DummyRegressor(strategy="mean").fit(nothing, train_BT).predict(rows)
    by_median = DummyRegressor(strategy="median").fit(nothing, train_BT).predict(rows)
    assert found["loss"] == pytest.approx(mean_squared_error(rows_BT, by_mean))
    assert found["mae"] == pytest.approx(mean_absolute_error(rows_BT * scale, by_median * scale))
    columns = (TargetColumn("a", "float64", (), 3.0, 10.0), TargetColumn("b", "float64", (), -1.0, 0.5))
    metrics = baseline.evaluation(task, Target("regression", columns), rows_BT * scale + mean, None)
    errors_BT = (rows_BT - by_mean) * scale
    assert metrics["rmse"] == pytest.approx(np.sqrt((errors_BT**2).mean(0)).mean())
    assert metrics["mae"] == pytest.approx(mean_absolute_error(rows_BT * scale, by_median * scale))
    assert Baseline.from_dict(baseline.to_dict()) == baseline


def test_rows_are_taken_in_parts(monkeypatch) -> None:
    rows = torch.from_numpy(DRAW.integers(0, 3, 100))
    task = make_task("multiclass", 3)
    baseline = Baseline.of(rows[:60], task)
    whole = baseline.metrics(task, rows)
    monkeypatch.setattr("mlp_lightning.networks.baseline._ROWS_AT_ONCE", 7)
    assert baseline.metrics(task, rows) == pytest.approx(whole)


def test_of_several_labels() -> None:
    train_BT, rows_BT = (DRAW.random((count, 3)) < [0.2, 0.5, 0.9] for count in (60, 80))
    task = make_task("multilabel", 3)
    baseline = Baseline.of(torch.from_numpy(train_BT).float(), task)
    np.testing.assert_allclose(baseline.shares(task), train_BT.mean(0))
    found = baseline.metrics(task, torch.from_numpy(rows_BT).float())
    nothing, rows = np.zeros((60, 1)), np.zeros((80, 1))
    dummy = DummyClassifier(strategy="prior").fit(nothing, train_BT)
    assert found["accuracy"] == pytest.approx((dummy.predict(rows) == rows_BT).mean())
    losses = [log_loss(rows_BT[:, one], dummy.predict_proba(rows)[one]) for one in range(3)]
    assert found["loss"] == pytest.approx(np.mean(losses))
