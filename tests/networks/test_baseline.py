"""What a prediction without features is worth, against scikit-learn's dummies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error

from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.tasks import make_task

DRAW = np.random.default_rng(4)


@pytest.mark.parametrize("classes", [2, 4])
def test_of_classes(classes) -> None:
    train_B, rows_B = DRAW.integers(0, classes, 70) // 2 * 2 % classes, DRAW.integers(0, classes, 90)
    rows_B = np.where(np.isin(rows_B, train_B), rows_B, train_B[0])
    targets = [torch.from_numpy(one) for one in (train_B, rows_B)]
    if classes == 2:
        targets = [one[:, None].float() for one in targets]
    task = make_task("binary" if classes == 2 else "multiclass", 1 if classes == 2 else classes)
    found = Baseline.of(targets[0], task.name, classes).metrics(task, targets[1])
    nothing, known = np.zeros((70, 1)), np.unique(train_B)
    dummy = DummyClassifier(strategy="prior").fit(nothing, train_B)
    assert found["accuracy"] == pytest.approx(accuracy_score(rows_B, dummy.predict(np.zeros((90, 1)))))
    if len(known) > 1:
        expected = log_loss(rows_B, dummy.predict_proba(np.zeros((90, 1))), labels=known)
        assert found["loss"] == pytest.approx(expected)


def test_of_a_class_without_training_rows_stays_finite() -> None:
    task = make_task("multiclass", 3)
    found = Baseline.of(torch.tensor([0, 0, 1]), "multiclass", 3).metrics(task, torch.tensor([2, 0]))
    assert np.isfinite(found["loss"])
    binary = Baseline.of(torch.zeros(3, 1), "binary", 2).metrics(make_task("binary", 1), torch.tensor([[1.0], [0.0]]))
    assert np.isfinite(binary["loss"])
    assert binary["accuracy"] == 0.5


def test_of_numbers() -> None:
    train_BT, rows_BT = DRAW.exponential(size=(50, 2)), DRAW.exponential(size=(80, 2))
    mean, scale = np.array([3.0, -1.0]), np.array([10.0, 0.5])
    task = make_task("regression", 2, mean, scale)
    baseline = Baseline.of(torch.from_numpy(train_BT), "regression", 0)
    found = baseline.metrics(task, torch.from_numpy(rows_BT))
    nothing, rows = np.zeros((50, 1)), np.zeros((80, 1))
    by_mean = DummyRegressor(strategy="mean").fit(nothing, train_BT).predict(rows)
    by_median = DummyRegressor(strategy="median").fit(nothing, train_BT).predict(rows)
    assert found["loss"] == pytest.approx(mean_squared_error(rows_BT, by_mean))
    assert found["mae"] == pytest.approx(mean_absolute_error(rows_BT * scale, by_median * scale))
    np.testing.assert_allclose(baseline.values(task), [by_mean[0] * scale + mean, by_median[0] * scale + mean])
    assert Baseline.from_dict(baseline.to_dict()) == baseline


def test_rows_are_taken_in_parts(monkeypatch) -> None:
    rows = torch.from_numpy(DRAW.integers(0, 3, 100))
    baseline, task = Baseline.of(rows[:60], "multiclass", 3), make_task("multiclass", 3)
    whole = baseline.metrics(task, rows)
    monkeypatch.setattr("mlp_lightning.networks.baseline._ROWS_AT_ONCE", 7)
    assert baseline.metrics(task, rows) == pytest.approx(whole)
