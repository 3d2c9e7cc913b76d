"""Estimators that continue a training, and those that stop early."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.metrics import log_loss
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer
from support.estimator_rows import FAST, numbers

from mlp_lightning.errors import ConfigError
from mlp_lightning.estimators import MLPClassifier, MLPRegressor

# Most fits here are too short to learn anything: test_cautions.py is about what is said of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::mlp_lightning.errors.BaselineWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)

# Full batch, without randomness: two trainings on the same sums are equal except for rounding.
FULL: dict[str, Any] = {**FAST, "batch_size": 10_000, "max_iter": 20, "precision": "64"}


# ---- continuing ------------------------------------------------------------------------------------------


def test_warm_start_continues_from_weights_and_scaling() -> None:
    X, y = numbers()
    model = MLPClassifier(**FAST, warm_start=True, learning_rate="constant").fit(X, y)
    loss, center = model.loss_, model.module_.preprocessor.center_N.clone()
    model.set_params(max_iter=30).fit(X * 2, y)
    assert torch.equal(model.module_.preprocessor.center_N, center)
    assert model.loss_curve_[5] < model.loss_curve_[0]
    assert model.loss_ < loss
    assert len(model.loss_curve_) == 35
    assert model.n_iter_ == 30
    model.set_params(warm_start=False, max_iter=5).fit(X, y)
    assert np.array_equal(
        model.predict_proba(X), MLPClassifier(**FAST, learning_rate="constant").fit(X, y).predict_proba(X)
    )


def test_warm_start_refuses_other_classes_and_other_widths() -> None:
    X, y = numbers()
    model = MLPClassifier(**FAST, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="class 7"):
        model.fit(X, np.where(y == 1, 7, 0))
    with pytest.raises(ConfigError, match="hidden_layer_sizes"):
        model.set_params(hidden_layer_sizes=(9,)).fit(X, y)


def test_partial_fit_is_training_pass_by_pass() -> None:
    """Three passes over all rows at once are three epochs of a full batch, including the optimizer."""
    X, y = numbers()
    parts = MLPClassifier(**FULL).set_params(learning_rate="constant")
    for _ in range(3):
        parts.partial_fit(X, y, classes=[0, 1])
    whole = MLPClassifier(**FULL).set_params(learning_rate="constant", max_iter=3).fit(X, y)
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), rtol=1e-9)
    assert parts.n_iter_ == 3
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_)


def test_partial_fit_learns_classes_that_the_first_rows_lack() -> None:
    X, y = load_iris(return_X_y=True)
    model = MLPClassifier(random_state=0, batch_size=32, scaling="standard", accelerator="cpu")
    order = np.random.default_rng(0).permutation(len(y))
    model.partial_fit(X[:60], y[:60], classes=[0, 1, 2])
    for _ in range(40):
        model.partial_fit(X[order], y[order])
    assert model.score(X, y) > 0.9
    with pytest.raises(ValueError, match="class 3"):
        model.partial_fit(X, np.full(len(y), 3))


def test_partial_fit_of_a_regressor() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = MLPRegressor(random_state=0, learning_rate_init=0.01, accelerator="cpu")
    for _ in range(20):
        model.partial_fit(X, y)
    assert model.score(X, y) > 0.4
    with pytest.raises(ValueError, match="2 targets"):
        model.partial_fit(X, np.stack([y, y], axis=1))


def test_partial_fit_continues_after_fit_and_a_pickle() -> None:
    X, y = numbers()
    model = MLPClassifier(**FAST).fit(X, y).partial_fit(X, y)
    copied = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copied.partial_fit(X, y).predict_proba(X), model.partial_fit(X, y).predict_proba(X))


def test_partial_fit_needs_classes_and_no_early_stopping() -> None:
    X, y = numbers()
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier(**FAST).partial_fit(X, y)
    with pytest.raises(ConfigError, match="early_stopping"):
        MLPRegressor(**FAST, early_stopping=True).partial_fit(X, y)


# ---- early stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "load"), [(MLPClassifier, load_breast_cancer), (MLPRegressor, load_diabetes)])
def test_early_stopping_keeps_the_best_weights(model, load) -> None:
    X, y = load(return_X_y=True)
    fitted = model(early_stopping=True, n_iter_no_change=4, random_state=0, max_iter=100, learning_rate_init=0.02)
    fitted.fit(X, y)
    scores = fitted.validation_scores_
    assert fitted.n_iter_ == len(scores) == len(fitted.loss_curve_) < 100
    assert fitted.best_loss_ is None
    assert fitted.best_validation_score_ in scores
    if model is MLPRegressor:
        assert fitted.best_validation_score_ == max(scores)
        assert int(np.argmax(scores)) == len(scores) - 5 or max(scores) - max(scores[:-4]) < fitted.tol
    assert 0.3 < fitted.best_validation_score_ <= 1
    assert fitted.score(X, y) > 0.4


@pytest.mark.parametrize("random_state", range(4))
def test_probabilities_stop_before_they_are_worse_than_the_shares_of_the_classes(random_state) -> None:
    """The accuracy of labels that hardly depend on the features rises while the probabilities become ever worse."""
    draw = np.random.default_rng(random_state)
    X = draw.normal(size=(600, 12))
    y = np.where(draw.random(600) < 0.25 + 0.1 * (X[:, 0] > 0), "b", "a")
    fitted = MLPClassifier(early_stopping=True, validation_fraction=0.3, random_state=random_state, max_iter=60)
    fitted.fit(X[:300], y[:300])
    share = np.mean(y[:300] == "b")
    of_shares = log_loss(y[300:], np.full(300, share))
    assert log_loss(y[300:], fitted.predict_proba(X[300:])[:, 1]) < 1.06 * of_shares
    assert fitted.best_validation_score_ == fitted.validation_scores_[fitted.n_iter_ - 11]


# ---- a learning rate that falls with the rows seen -------------------------------------------------------

INVSCALING: dict[str, Any] = {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.3}


@pytest.mark.parametrize(("power", "validates"), [(0.5, False), (0.8, True), (0.0, False)])
def test_invscaling_has_the_rates_of_scikit_learn(tmp_path: Path, power: float, validates: bool) -> None:
    """Its optimizer is asked itself; it counts the rows of whole passes."""
    X, y = numbers()
    more = {"batch_size": 2, "early_stopping": validates, "validation_fraction": 0.2, "log_dir": str(tmp_path)}
    MLPClassifier(**{**FAST, **INVSCALING, **more, "max_iter": 5, "power_t": power}).fit(X, y)
    (file,) = tmp_path.rglob("metrics.csv")
    with file.open(encoding="utf-8") as rows:
        found = {int(row["step"]): float(row["learning_rate"]) for row in csv.DictReader(rows) if row["learning_rate"]}
    count = 32 if validates else 40
    theirs = SGDOptimizer([], 0.3, "invscaling", power_t=power)
    expected = []
    for epoch in range(5):
        expected += [theirs.learning_rate] * (count // 2)
        theirs.iteration_ends((epoch + 1) * count)
    assert len(found) > 5
    for step, rate in found.items():
        assert rate == pytest.approx(expected[step])


@pytest.mark.parametrize("task", [MLPClassifier, MLPRegressor])
def test_partial_fit_continues_invscaling(task: type) -> None:
    """Full batches without randomness: three passes are one fit of three epochs, and go on from any fit."""
    X, y = numbers()
    options = {**FULL, **INVSCALING, "power_t": 0.3}
    whole = task(**{**options, "max_iter": 3}).fit(X, y)
    parts, more = task(**options), {"classes": [0, 1]} if task is MLPClassifier else {}
    for _ in range(3):
        parts.partial_fit(X, y, **more)
    constant = task(**{**options, "max_iter": 3, "learning_rate": "constant"}).fit(X, y)
    for one, other, apart in zip(parts.coefs_, whole.coefs_, constant.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        assert not np.allclose(one, apart, rtol=1e-3)
