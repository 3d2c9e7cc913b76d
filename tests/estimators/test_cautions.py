"""Python warnings of fits that ended short of what they can be: not converged, or worse than their baseline."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from mlp_lightning.errors import BaselineWarning
from mlp_lightning.estimators import MLPClassifier, MLPRegressor, VectorizedSearchCV, fit_many

KEYS = re.compile(r"\b(data|model|optimizer|scheduler|trainer|callbacks)\.[a-z_]+")
SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "random_state": 0, "accelerator": "cpu"}
CONSTANT: dict[str, Any] = {**SMALL, "learning_rate": "constant", "learning_rate_init": 0.01}


def noise(rows: int = 160) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Labels that do not depend on the features."""
    draw = np.random.default_rng(5)
    return draw.normal(size=(rows, 10)), draw.choice(["down", "up"], size=rows)


# ---- below the baseline ----------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(
    ("model", "load"),
    [
        (MLPClassifier, load_iris),
        (MLPClassifier, load_breast_cancer),
        (MLPClassifier, load_wine),
        (MLPRegressor, load_diabetes),
    ],
)
def test_sound_fits_do_not_warn(model, load, early_stopping) -> None:
    model(hidden_layer_sizes=(32,), random_state=1, early_stopping=early_stopping).fit(*load(return_X_y=True))


def test_nothing_can_be_better_than_a_baseline_without_loss() -> None:
    X, y = noise(40)
    MLPClassifier(**SMALL, max_iter=2).fit(X, np.full(len(y), "up"))
    MLPRegressor(**SMALL, max_iter=2).fit(X, np.full(len(y), 7.5))


def test_labels_that_do_not_depend_on_the_features_are_not_fitted_better_than_their_shares() -> None:
    X, y = noise()
    with pytest.warns(BaselineWarning, match=r"loss \(\d\.\d+\) is (above )?that of the baseline") as found:
        fitted = MLPClassifier(early_stopping=True, validation_fraction=0.4, random_state=0).fit(X, y)
    (one,) = found
    assert one.filename == __file__  # the line of the caller
    assert not KEYS.search(str(one.message))
    # What it says is so for other rows too: their loss is that of guessing.
    others = np.random.default_rng(6).normal(size=X.shape)
    assert log_loss(y == "up", fitted.predict_proba(others)[:, 1]) > 0.99 * np.log(2)


@pytest.mark.parametrize(("model", "targets"), [(MLPClassifier, "classes"), (MLPRegressor, "numbers")])
def test_a_fit_that_is_too_short(model, targets) -> None:
    X, y = make_blobs(90, centers=3, n_features=4, random_state=3)
    y = y if targets == "classes" else X[:, 0] * 9
    short = {**SMALL, "learning_rate_init": 1e-7, "max_iter": 2, "random_state": 4}  # starts above the baseline
    with pytest.warns(BaselineWarning, match=r"training loss .* above .*Train longer.*max_iter=20") as found:
        model(**short).fit(X, y)
    assert found[0].filename == __file__
    assert not KEYS.search(str(found[0].message))
    model(**SMALL, learning_rate_init=0.02).fit(X, y)


def test_of_many_each_warns_and_of_a_search_the_best() -> None:
    X, y = make_blobs(90, centers=3, n_features=4, random_state=3)
    model = MLPClassifier(**{**SMALL, "random_state": 4})
    with pytest.warns(BaselineWarning) as found:
        fit_many([{"learning_rate_init": 1e-7}, {"learning_rate_init": 0.02}], X, y, estimator=model)
    assert [one.filename for one in found] == [__file__]
    # A poor candidate has a poor score.
    search = VectorizedSearchCV(model, {"learning_rate_init": [1e-7, 0.02]}, cv=2).fit(X, y)
    assert search.best_params_ == {"learning_rate_init": 0.02}
    with pytest.warns(BaselineWarning):
        VectorizedSearchCV(model, {"learning_rate_init": [1e-7]}, cv=2).fit(X, y)


# ---- tol, n_iter_no_change and max_iter ------------------------------------------------------------------


def ends_after(losses: list[float], tol: float, epochs: int) -> int | None:
    """The epoch after which the loss has not fallen by ``tol`` for so many epochs."""
    best, waited = np.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        best, waited = (loss, 0) if loss < best - tol else (best, waited + 1)
        if waited == epochs:
            return epoch
    return None


@pytest.mark.parametrize(("tol", "epochs"), [(1e-2, 3), (3e-3, 6), (0.1, 1)])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_fit_ends_when_the_training_loss_no_longer_falls(tol, epochs, solver) -> None:
    X, y = load_iris(return_X_y=True)
    rate = 0.1 if solver == "sgd" else 0.01
    parameters = {**CONSTANT, "solver": solver, "learning_rate_init": rate, "batch_size": 30, "alpha": 1e-3}
    fitted = MLPClassifier(**parameters, tol=tol, n_iter_no_change=epochs, max_iter=400).fit(X, y)
    assert fitted.n_iter_ == len(fitted.loss_curve_) == ends_after(fitted.loss_curve_, tol, epochs)
    (same,) = fit_many([{}], X, y, estimator=MLPClassifier(**fitted.get_params()))
    assert same.n_iter_ == fitted.n_iter_


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"learning_rate": "adaptive"}], ids=str)
@pytest.mark.parametrize("together", [False, True])
def test_a_fit_whose_loss_still_falls_has_not_converged(options, together) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = MLPClassifier(**{**CONSTANT, "learning_rate_init": 1e-3, "max_iter": 6, **options})
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(6\).*tol=0\.0001.*max_iter") as found:
        fitted = fit_many([{}], X, y, estimator=model)[0] if together else model.fit(X, y)
    assert [one.filename for one in found] == [__file__]
    assert fitted.n_iter_ == 6


def test_an_adaptive_learning_rate_has_converged_when_the_loss_has_settled() -> None:
    X, y = make_blobs(120, centers=2, cluster_std=3.0, random_state=1)
    options = {**CONSTANT, "learning_rate": "adaptive", "n_iter_no_change": 3, "tol": 1e-3, "dropout": 0.0}
    fitted = MLPClassifier(**options, max_iter=120).fit(X, y)
    assert fitted.n_iter_ == 120
    assert min(fitted.loss_curve_[:-3]) - min(fitted.loss_curve_[-3:]) <= 1e-3


def test_no_improvement_is_awaited_for_ever() -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="n_iter_no_change=inf"):
        fitted = MLPClassifier(**CONSTANT, tol=1e9, n_iter_no_change=np.inf, max_iter=9).fit(X, y)
    assert fitted.n_iter_ == 9


@pytest.mark.parametrize("learning_rate", ["one_cycle", "cosine"])
def test_a_learning_rate_over_all_epochs_ends_sooner_only_where_tol_is_given(learning_rate) -> None:
    X, y = load_iris(return_X_y=True)
    parameters = {**SMALL, "learning_rate_init": 0.03, "max_iter": 25, "n_iter_no_change": 4, "batch_size": 30}
    model = MLPClassifier(**parameters, learning_rate=learning_rate)
    assert model.fit(X, y).n_iter_ == 25
    model.set_params(tol=0.1).fit(X, y)
    assert model.n_iter_ == ends_after(model.loss_curve_, 0.1, 4)
    assert model.n_iter_ < 25


def test_by_default_tol_is_that_of_scikit_learn() -> None:
    X, y = load_iris(return_X_y=True)
    for options in ({}, {"early_stopping": True}, {"learning_rate": "adaptive"}):
        parameters = {**CONSTANT, "max_iter": 300, "n_iter_no_change": 3, **options}
        plain = MLPClassifier(**parameters).fit(X, y)
        given = MLPClassifier(**parameters, tol=sklearn.neural_network.MLPClassifier().tol).fit(X, y)
        assert given.loss_curve_ == plain.loss_curve_


def test_a_pass_says_nothing() -> None:
    X, y = noise(60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
        MLPClassifier(**SMALL, learning_rate_init=1e-9).partial_fit(X, y, classes=["down", "up"])
