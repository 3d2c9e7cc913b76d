"""Many estimators at once are the same as each alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from support.estimator_rows import FAST, mixed, numbers

from mlp_lightning.errors import ConfigError
from mlp_lightning.estimators import MLPClassifier, MLPRegressor, VectorizedSearchCV, fit_many, fitting
from mlp_lightning.networks.tasks import infer_target
from mlp_lightning.tables.columns import Origin

# Most fits here are too short to learn anything: test_cautions.py is about what is said of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::mlp_lightning.errors.BaselineWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)
QUICK: dict[str, Any] = {"max_iter": 12, "random_state": 0, "batch_size": 32, "accelerator": "cpu"}
GRID: dict[str, Any] = {
    "hidden_layer_sizes": [(8, 8), (12, 4)],
    "learning_rate_init": [0.01, 0.03],
    "alpha": [0.0, 0.1],
}


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.fixture
def stacks(monkeypatch) -> list[int]:
    """Sizes of the stacks that are trained."""
    sizes: list[int] = []
    train_stack = fitting.train_stack

    def counted(configs: Any, *args: Any, **further: Any) -> Any:
        sizes.append(len(configs))
        return train_stack(configs, *args, **further)

    monkeypatch.setattr(fitting, "train_stack", counted)
    return sizes


# ---- fit_many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "load"), [(MLPClassifier, load_iris), (MLPRegressor, load_diabetes)])
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_many_is_many_fits(model, load, weighted, stacks) -> None:
    X, y = load(return_X_y=True)
    weights = np.linspace(0, 2, len(y)) if weighted else None
    params = [
        {"hidden_layer_sizes": (8, 8)},
        {"hidden_layer_sizes": (5, 3), "learning_rate_init": 0.03, "dropout": 0.0},
        {"hidden_layer_sizes": (6, 6), "alpha": 0.5, "random_state": 3},
        {"hidden_layer_sizes": (8,)},
    ]
    fitted = fit_many(params, X, y, weights, estimator=model(**QUICK))
    assert stacks == [3]
    for one, own in zip(fitted, params, strict=True):
        alone = model(**{**QUICK, **own}).fit(X, y, weights)
        close(
            one.predict(X) if model is MLPRegressor else one.predict_proba(X),
            alone.predict(X) if model is MLPRegressor else alone.predict_proba(X),
        )
        close(one.loss_curve_, alone.loss_curve_)
        assert one.get_params() == alone.get_params()
        assert (one.n_features_in_, one.n_iter_, one.n_layers_) == (
            alone.n_features_in_,
            alone.n_iter_,
            alone.n_layers_,
        )


def test_fit_many_stops_early_as_each_alone(stacks) -> None:
    X, y = load_diabetes(return_X_y=True)
    model = MLPRegressor(**{**QUICK, "max_iter": 40}, early_stopping=True, n_iter_no_change=3)
    params = [{"learning_rate_init": 0.05}, {"learning_rate_init": 0.005}]
    for one, own in zip(fit_many(params, X, y, estimator=model), params, strict=True):
        alone = clone(model).set_params(**own).fit(X, y)
        assert one.n_iter_ == alone.n_iter_ == len(one.validation_scores_)
        close(one.validation_scores_, alone.validation_scores_)
        close(one.predict(X) / y.max(), alone.predict(X) / y.max())
    assert stacks == [2]


def test_fit_many_chooses_the_estimator_by_the_targets() -> None:
    X, y = numbers()
    assert isinstance(fit_many([FAST], X, y)[0], MLPClassifier)
    assert isinstance(fit_many([FAST], X, y + 0.5)[0], MLPRegressor)


@pytest.mark.parametrize(
    ("y", "model"),
    [
        (load_diabetes().target, MLPRegressor),  # whole numbers, of which there are 214
        (np.arange(40) % 20, MLPClassifier),
        (np.arange(42) % 21, MLPRegressor),
        (np.arange(40.0) % 3, MLPClassifier),
        (np.arange(6), MLPRegressor),
        (np.array(["b", "a"] * 20, dtype=object), MLPClassifier),
        (np.arange(40) % 2 == 0, MLPClassifier),
        (np.linspace(0, 1, 40), MLPRegressor),
        (np.linspace(0, 1, 80).reshape(40, 2), MLPRegressor),
        (pa.array([f"class {number % 30}" for number in range(60)]), MLPClassifier),
    ],
)
def test_fit_many_reads_targets_as_the_command_does(y, model) -> None:
    X = np.random.default_rng(0).normal(size=(len(y), 3))
    (fitted,) = fit_many([FAST], X, y)
    assert type(fitted) is model
    if np.ndim(y) == 1:
        table = pa.table({"x": X[:, 0], "y": pa.array(y)})
        task = infer_target(table, ["y"], "auto", Origin("y", str)).task
        assert (task == "regression") == (model is MLPRegressor)


def test_fit_many_with_columns_that_are_not_numbers(stacks) -> None:
    table, y = mixed()
    params = [{"alpha": 0.0}, {"alpha": 0.3}]
    for one, own in zip(fit_many(params, table, y, estimator=MLPClassifier(**FAST)), params, strict=True):
        close(one.predict_proba(table), MLPClassifier(**{**FAST, **own}).fit(table, y).predict_proba(table))
    assert stacks == [2]
    cities = pa.table({"city": [f"city {number % 15}" for number in range(60)]})
    fit_many(params, cities, y, estimator=MLPClassifier(**FAST))
    assert stacks == [2, 2]


def test_fit_many_raises_what_fit_would_raise() -> None:
    X, y = numbers()
    with pytest.raises(ConfigError, match="alpha"):
        fit_many([FAST, {**FAST, "alpha": -1.0}], X, y)
    assert fit_many([], X, y) == []


# ---- the search ------------------------------------------------------------------------------------------


def scores(search: Any) -> dict[str, Any]:
    return {name: one for name, one in search.cv_results_.items() if "time" not in name}


def same_search(ours: Any, theirs: Any) -> None:
    ours_of, theirs_of = scores(ours), scores(theirs)
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for name, values in theirs_of.items():
        if name.startswith(("mean", "std", "split")):
            close(ours_of[name], values)
        elif name.startswith("param_"):
            assert ours_of[name].tolist() == values.tolist()
        elif name == "params":
            assert ours_of[name] == values
    assert ours.n_splits_ == theirs.n_splits_
    assert ours.multimetric_ == theirs.multimetric_


@pytest.mark.parametrize("cv", [3, KFold(4, shuffle=True, random_state=0)])
def test_a_search_is_a_grid_search(cv, stacks) -> None:
    X, y = load_iris(return_X_y=True)
    arguments: dict[str, Any] = {"cv": cv, "scoring": "neg_log_loss", "return_train_score": True}
    ours = VectorizedSearchCV(MLPClassifier(**QUICK), GRID, **arguments).fit(X, y)
    assert sum(stacks) == 8 * ours.n_splits_
    theirs = GridSearchCV(MLPClassifier(**QUICK), GRID, **arguments).fit(X, y)
    same_search(ours, theirs)
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_
    close(ours.best_score_, theirs.best_score_)
    assert np.array_equal(ours.predict_proba(X), theirs.predict_proba(X))  # refitted alone
    assert ours.classes_.tolist() == [0, 1, 2]
    assert ours.score(X, y) == theirs.score(X, y)
    assert ours.refit_time_ > 0


def test_a_search_of_a_regression_with_folds_of_unequal_size(stacks) -> None:
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:100], y[:100]  # 66 or 67 training rows: one batch of 200
    grid = {"alpha": [0.0, 0.3], "dropout": [0.0, 0.2]}
    model = MLPRegressor(**{**QUICK, "batch_size": "auto", "max_iter": 30}, hidden_layer_sizes=(8,))
    ours = VectorizedSearchCV(model, grid, cv=3).fit(X, y)
    assert stacks == [12]
    same_search(ours, GridSearchCV(model, grid, cv=3).fit(X, y))


def test_a_search_of_drawn_candidates() -> None:
    X, y = load_iris(return_X_y=True)
    distributions = {"alpha": np.linspace(0, 0.5, 20), "hidden_layer_sizes": [(4,), (8,)]}
    model = MLPClassifier(**QUICK)
    arguments: dict[str, Any] = {"n_iter": 4, "random_state": 1, "cv": 2, "scoring": ["neg_log_loss", "accuracy"]}
    ours = VectorizedSearchCV(model, param_distributions=distributions, refit="accuracy", **arguments).fit(X, y)
    theirs = RandomizedSearchCV(model, distributions, refit="accuracy", **arguments).fit(X, y)
    same_search(ours, theirs)
    assert set(ours.scorer_) == set(theirs.scorer_)


def test_a_search_over_frames_with_weights() -> None:
    table, y = mixed()
    weights = np.linspace(0.5, 2, len(y))
    arguments: dict[str, Any] = {"cv": 2, "scoring": "neg_log_loss", "return_train_score": True}
    ours = VectorizedSearchCV(MLPClassifier(**FAST), {"alpha": [0.0, 0.2]}, **arguments)
    ours.fit(table, y, sample_weight=weights)
    assert ours.feature_names_in_.tolist() == table.column_names
    theirs = GridSearchCV(MLPClassifier(**FAST), {"alpha": [0.0, 0.2]}, **arguments)
    same_search(ours, theirs.fit(table, y, sample_weight=weights))


def test_candidates_that_cannot_be_fitted_are_scored_as_errors() -> None:
    X, y = numbers()
    search = VectorizedSearchCV(MLPClassifier(**FAST), {"alpha": [0.0, -1.0]}, cv=2)
    with pytest.warns(FitFailedWarning, match="2 of 4 fits failed"), pytest.warns(UserWarning, match="non-finite"):
        search.fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert search.best_params_ == {"alpha": 0.0}
    with pytest.raises(ConfigError, match="alpha"):
        search.set_params(error_score="raise").fit(X, y)
    with pytest.raises(ConfigError, match="alpha"):
        search.set_params(error_score=np.nan, param_grid={"alpha": [-1.0]}).fit(X, y)


@pytest.mark.parametrize("scoring", ["one", "several"])
def test_candidates_that_cannot_be_scored_are_scored_as_errors(scoring) -> None:
    def fails_for_large_alpha(model: Any, X: Any, y: Any) -> float:
        if model.alpha > 0:
            raise ValueError("no score for this one")
        return model.score(X, y)

    X, y = numbers()
    scorers: Any = {"one": fails_for_large_alpha, "several": {"a": fails_for_large_alpha, "b": "accuracy"}}
    arguments = {"scoring": scorers[scoring], "refit": False, "cv": 2, "error_score": -3.0}
    found = []
    for search in (VectorizedSearchCV, GridSearchCV):
        with pytest.warns(UserWarning, match="(?s)Scoring failed.*no score for this one"):
            found.append(search(MLPClassifier(**FAST), {"alpha": [0.0, 0.2]}, **arguments).fit(X, y))
    same_search(*found)
    name = "mean_test_score" if scoring == "one" else "mean_test_a"
    assert found[0].cv_results_[name][1] == -3.0
    with pytest.raises(ValueError, match="no score"):
        found[0].set_params(error_score="raise").fit(X, y)


def test_a_search_without_refit() -> None:
    search = VectorizedSearchCV(MLPClassifier(**FAST), {"alpha": [0.0, 0.1]}, cv=2, refit=False).fit(*numbers())
    assert set(search.best_params_) == {"alpha"}
    with pytest.raises(AttributeError):
        search.predict(numbers()[0])


def test_what_a_search_refuses() -> None:
    X, y = numbers()
    for model in (SVC(), make_pipeline(MLPClassifier())):
        with pytest.raises(ConfigError, match="GridSearchCV"):
            VectorizedSearchCV(model, {"C": [1]}).fit(X, y)
    with pytest.raises(ConfigError, match="param_distributions"):
        VectorizedSearchCV(MLPClassifier()).fit(X, y)
    with pytest.raises(ConfigError, match="warm_start"):
        VectorizedSearchCV(MLPClassifier(warm_start=True), {"alpha": [0.0]}, cv=2).fit(X, y)


def test_a_search_leaves_no_files_or_output(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    search = clone(VectorizedSearchCV(MLPClassifier(**FAST), {"alpha": [0.0, 0.1]}, cv=2)).fit(*numbers())
    assert search.n_features_in_ == 4
    assert list(tmp_path.iterdir()) == [tmp_path / "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []
    assert capfd.readouterr() == ("", "")
