"""How estimators are fitted: parameters, weights, continuing, early stopping, and files."""

from __future__ import annotations

import copy
import json
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn.neural_network
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.estimator_rows import FAST, numbers

from mlp_lightning.errors import ConfigError
from mlp_lightning.estimators import MLPClassifier, MLPRegressor, fit_many
from mlp_lightning.estimators.messages import in_parameters
from mlp_lightning.runs.module import MLPModule

# Most fits here are too short to learn anything: test_cautions.py is about what is said of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::mlp_lightning.errors.BaselineWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)
# Keys of the configuration, which a user of an estimator does not have.
KEYS = re.compile(r"\b(data|model|optimizer|scheduler|trainer|callbacks)\.[a-z_]+")
# Full batch, without randomness: two trainings on the same sums are equal except for rounding.
FULL: dict[str, Any] = {**FAST, "batch_size": 10_000, "max_iter": 20, "precision": "64"}


# ---- instead of scikit-learn's ---------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
def test_swapping_the_import_of_a_classifier(load) -> None:
    X, y = load(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y)
    parameters: dict[str, Any] = {
        "hidden_layer_sizes": (32,),
        "activation": "relu",
        "solver": "adam",
        "alpha": 1e-4,
        "batch_size": "auto",
        "learning_rate": "constant",
        "learning_rate_init": 0.01,
        "max_iter": 60,
        "random_state": 1,
        "shuffle": True,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "n_iter_no_change": 100,
    }
    theirs = make_pipeline(StandardScaler(), sklearn.neural_network.MLPClassifier(**parameters))
    with pytest.warns(Warning, match="Maximum iterations"):
        theirs.fit(X, y)
    ours = make_pipeline(StandardScaler(), MLPClassifier(**parameters)).fit(X, y)
    assert ours.score(X_test, y_test) == pytest.approx(theirs.score(X_test, y_test), abs=0.05)
    assert ours[-1].n_iter_ == len(ours[-1].loss_curve_) == 60
    assert ours[-1].out_activation_ == theirs[-1].out_activation_


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("targets", [1, 3])
def test_one_and_the_same_training_as_scikit_learn(solver, activation, targets) -> None:
    """Started with the same weights, both make the same steps, including momentum."""
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), np.stack([y, X[:, 0], X[:, 3]][:targets], axis=1)
    y = StandardScaler().fit_transform(y) if targets > 1 else StandardScaler().fit_transform(y)[:, 0]
    parameters: dict[str, Any] = {
        **{"hidden_layer_sizes": (5, 4), "activation": activation, "solver": solver, "alpha": 0.0, "tol": 0.0},
        **{"batch_size": len(y), "learning_rate": "constant", "learning_rate_init": 0.01, "random_state": 0},
        **{"warm_start": True, "n_iter_no_change": 1000, "shuffle": False, "epsilon": 1e-12, "beta_2": 0.999},
    }
    ours = MLPRegressor(**parameters, scaling="none", dropout=0.0, precision="64", max_iter=1).fit(X, y)
    theirs = sklearn.neural_network.MLPRegressor(**parameters, max_iter=1)
    with pytest.warns(Warning, match="Maximum iterations"):
        theirs.fit(X, y)
    theirs.coefs_, theirs.intercepts_ = ([one.copy() for one in of] for of in (ours.coefs_, ours.intercepts_))
    with pytest.warns(Warning, match="Maximum iterations"):
        theirs.set_params(max_iter=20).fit(X, y)
    ours.set_params(max_iter=20).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-7)


def test_in_a_pipeline_a_search_and_a_cross_validation() -> None:
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), MLPClassifier(**{**FAST, "max_iter": 40, "learning_rate_init": 0.05}))
    assert cross_val_score(model, X, y, cv=3).mean() > 0.85
    search = GridSearchCV(model, {"mlpclassifier__alpha": [0.0, 0.1]}, cv=2).fit(X, y)
    assert search.score(X, y) > 0.85


def test_parameters_are_only_stored_by_the_constructor() -> None:
    sizes = [3, np.int64(4)]
    estimator = MLPClassifier(hidden_layer_sizes=sizes, alpha="nonsense")
    assert estimator.get_params()["hidden_layer_sizes"] is sizes
    assert clone(estimator).get_params() == estimator.get_params()


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"solver": "lbfgs"}, ["solver", "scikit-learn"]),
        ({"learning_rate": "invscaling", "solver": "sgd", "power_t": -0.5}, ["power_t"]),
        ({"learning_rate": "linear"}, ["learning_rate", "invscaling"]),
        ({"activation": "step"}, ["activation"]),
        ({"hidden_layer_sizes": (4, 0)}, ["hidden_layer_sizes"]),
        ({"batch_size": 0}, ["batch_size"]),
        ({"batch_size": "all"}, ["batch_size"]),
        ({"max_iter": 0, "alpha": -1, "dropout": 1.5}, ["max_iter", "alpha", "dropout"]),
        ({"scaling": "minmax", "precision": "16"}, ["scaling", "precision"]),
        ({"learning_rate_init": -1.0, "beta_1": 1.5, "epsilon": -1.0}, ["learning_rate_init", "beta_1", "epsilon"]),
        ({"early_stopping": True, "validation_fraction": 1.5}, ["validation_fraction"]),
        ({"early_stopping": True, "tol": -1.0, "n_iter_no_change": 0}, ["tol", "n_iter_no_change"]),
        ({"class_weight": "equal"}, ["class_weight"]),
        ({"label_smoothing": 2.0}, ["label_smoothing"]),
    ],
)
def test_wrong_parameters_are_named_as_the_user_named_them(parameters, names) -> None:
    with pytest.raises(ConfigError) as raised:
        MLPClassifier(**{**FAST, **parameters}).fit(*numbers())
    for name in names:
        assert name in str(raised.value)


def test_numbers_of_numpy_are_numbers() -> None:
    parameters = {"hidden_layer_sizes": np.array([4, 3]), "alpha": np.float64(0.1), "max_iter": np.int64(2)}
    assert MLPClassifier(**{**FAST, **parameters}, batch_size=np.int32(7)).fit(*numbers()).n_layers_ == 4


def test_a_linear_model() -> None:
    X, y = numbers(gaps=False)
    fitted = MLPClassifier(hidden_layer_sizes=(), scaling="standard", max_iter=100, learning_rate_init=0.1).fit(X, y)
    assert fitted.n_layers_ == 2
    assert fitted.score(X, y) > 0.9


@pytest.mark.parametrize("learning_rate", ["constant", "cosine", "one_cycle", "adaptive"])
def test_every_learning_rate(learning_rate) -> None:
    fitted = MLPClassifier(**{**FAST, "max_iter": 10}, learning_rate=learning_rate).fit(*numbers())
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert fitted.best_loss_ == min(fitted.loss_curve_)
    assert fitted.validation_scores_ is None


# ---- randomness ------------------------------------------------------------------------------------------


def test_random_state() -> None:
    X, y = numbers()

    def predicted(random_state: Any) -> Any:
        return MLPClassifier(**{**FAST, "random_state": random_state, "dropout": 0.2}).fit(X, y).predict_proba(X)

    assert np.array_equal(predicted(3), predicted(3))
    assert not np.array_equal(predicted(3), predicted(4))
    assert np.array_equal(predicted(np.random.RandomState(3)), predicted(np.random.RandomState(3)))
    np.random.seed(5)
    first = predicted(None)
    assert not np.array_equal(first, predicted(None))
    np.random.seed(5)
    assert np.array_equal(first, predicted(None))


def test_fits_in_threads_are_as_in_turn() -> None:
    X, y = numbers()
    model = MLPClassifier(**{**FAST, "dropout": 0.3})
    expected = clone(model).fit(X, y).predict_proba(X)
    fitted = [clone(model) for _ in range(4)]
    threads = [threading.Thread(target=one.fit, args=(X, y)) for one in fitted]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(np.array_equal(one.predict_proba(X), expected) for one in fitted)


# ---- weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MLPClassifier(**FULL), MLPRegressor(**FULL)])
@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile", "none"])
def test_a_weight_is_a_number_of_equal_rows(model, scaling) -> None:
    X, y = numbers()
    weights = np.arange(len(y)) % 3
    X[:, 1] /= 1e4
    weighted = clone(model).set_params(scaling=scaling).fit(X, y, sample_weight=weights)
    repeated = clone(model).set_params(scaling=scaling).fit(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-9)


def test_rows_of_weight_zero_are_as_if_they_were_not_there() -> None:
    X, y = numbers()
    weights = (np.arange(len(y)) % 4 > 0).astype(float)
    parameters = {**FAST, "batch_size": 8, "dropout": 0.2}
    X[weights == 0] = 1e9
    left_out = MLPClassifier(**parameters).fit(X, y, weights)
    removed = MLPClassifier(**parameters).fit(X[weights > 0], y[weights > 0])
    np.testing.assert_allclose(left_out.predict_proba(X), removed.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("weights", [np.zeros(40), -np.ones(40), np.full(40, np.nan), np.ones(3)])
def test_invalid_weights(weights) -> None:
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        MLPClassifier(**FAST).fit(*numbers(), sample_weight=weights)


def test_class_weights_are_weights_of_their_rows() -> None:
    X, y = numbers()
    y = np.where(np.arange(len(y)) % 5 == 0, "rare", "usual")
    balanced = MLPClassifier(**FULL, class_weight="balanced").fit(X, y)
    usual, rare = (y == "usual").sum(), (y == "rare").sum()
    by_hand = MLPClassifier(**FULL, class_weight={"usual": 1.0 / usual, "rare": 1.0 / rare}).fit(X, y)
    by_rows = MLPClassifier(**FULL).fit(X, y, np.where(y == "usual", 1.0 / usual, 1.0 / rare))
    np.testing.assert_allclose(by_hand.predict_proba(X), by_rows.predict_proba(X), rtol=1e-9)
    # Features are scaled by the unweighted rows.
    np.testing.assert_allclose(balanced.predict_proba(X), by_rows.predict_proba(X), atol=0.05)
    plain = MLPClassifier(**FULL).fit(X, y)
    assert balanced.predict_proba(X)[:, 0].mean() > plain.predict_proba(X)[:, 0].mean()


# ---- files and copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_fit_leaves_no_files_output_or_settings(tmp_path, monkeypatch, capfd, early_stopping) -> None:
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    state, threads = np.random.get_state()[1].copy(), torch.get_num_threads()
    X, y = numbers()
    MLPClassifier(**FAST, early_stopping=early_stopping).fit(X, y).predict(X)
    with pytest.raises(ConfigError):
        MLPClassifier(**FAST, alpha=-1).fit(X, y)
    assert list(here.iterdir()) == list(temporary.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert np.array_equal(np.random.get_state()[1], state)
    assert torch.get_num_threads() == threads


def test_log_dir_keeps_the_run_folder(tmp_path) -> None:
    X, y = numbers()
    model = MLPClassifier(**FAST, log_dir=tmp_path / "runs")
    model.fit(X, y)
    model.fit(X, y)
    first, second = sorted((tmp_path / "runs").iterdir())
    for folder in (first, second):
        assert json.loads((folder / "result.json").read_text())["status"] == "finished"
        assert {"metrics.csv", "train.log", "config.yaml", "checkpoints"} <= {one.name for one in folder.iterdir()}
    module = MLPModule.load_from_checkpoint(second / "checkpoints" / "last.ckpt", weights_only=True)
    rows = torch.from_numpy(X)
    torch.testing.assert_close(
        module.eval().predict(rows).double(), torch.from_numpy(model.predict_proba(X)), rtol=0, atol=1e-6
    )


def test_verbose_prints(capfd) -> None:
    MLPClassifier(**FAST, verbose=True).fit(*numbers())
    shown = capfd.readouterr().out
    assert "loss" in shown
    assert "Run folder" not in shown  # it is gone by now
    assert "TensorBoard" not in shown
    assert not KEYS.search(shown)


def test_verbose_names_the_run_folder_that_is_kept(tmp_path, capfd) -> None:
    MLPClassifier(**FAST, verbose=True, log_dir=tmp_path).fit(*numbers())
    assert str(next(tmp_path.iterdir())) in capfd.readouterr().out


@pytest.mark.parametrize(
    ("model", "theirs"),
    [
        (MLPClassifier, sklearn.neural_network.MLPClassifier()),
        (MLPRegressor, sklearn.neural_network.MLPRegressor()),
        (MLPClassifier, sklearn.neural_network.MLPClassifier(learning_rate="invscaling", power_t=0.3, max_fun=9)),
    ],
)
def test_takes_all_parameters_of_scikit_learn(model, theirs) -> None:
    """Its Adam ignores learning_rate, so that a schedule of its SGD changes nothing."""
    given = {**theirs.get_params(), "max_iter": 3, "random_state": 0}
    X, y = numbers()
    fitted = model(**given).fit(X, y)
    assert np.array_equal(fitted.predict(X), model(**{**given, "learning_rate": "constant"}).fit(X, y).predict(X))
    assert len(fitted.loss_curve_) == 3


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        (MLPRegressor, {"loss": "poisson"}, "loss = 'poisson' must be 'squared_error'"),
        (MLPClassifier, {"solver": "lbfgs"}, "solver = 'lbfgs' must be one of"),
    ],
)
def test_what_would_train_another_model_is_refused(model, options, named) -> None:
    with pytest.raises(ConfigError, match=named):
        model(**FAST, **options).fit(*numbers())


# ---- in the words of the caller --------------------------------------------------------------------------


def frame_and_labels() -> tuple[Any, Any]:
    pandas = pytest.importorskip("pandas")
    X, _ = numbers(gaps=False)
    return pandas.DataFrame(X, columns=["height", "mass", "share", "count"]), np.where(X[:, 0] > 0, "high", "low")


@pytest.mark.parametrize(
    ("options", "change", "labels", "named"),
    [
        ({"early_stopping": True}, {}, {7: "odd"}, ["'odd'", "row 8", "early_stopping=False"]),
        ({}, {"city": ["x", 3] * 20}, {}, ["city"]),
        ({}, {"city": ["x", "y"] * 20, "mass": [np.inf] + [0.0] * 39}, {}, ["'mass'", "inf"]),
        ({}, {"city": [[1], [2]] * 20}, {}, ["'city'"]),
        ({"solver": "sgd", "learning_rate_init": 1e25, "learning_rate": "constant"}, {}, {}, ["learning_rate_init"]),
        ({"learning_rate_init": 0.0, "alpha": 0.0}, {}, {}, ["learning_rate_init"]),
        ({"accelerator": "gpu"}, {}, {}, ["accelerator"]),
    ],
)
def test_messages_name_what_the_caller_has(options, change, labels, named) -> None:
    if options.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is one")
    X, y = frame_and_labels()
    y = y.astype(object)
    for row, label in labels.items():
        y[row] = label
    model: Any = MLPRegressor if options.get("solver") == "sgd" else MLPClassifier
    y = X["mass"] if model is MLPRegressor else y
    parameters = {**FAST, "max_iter": 200, **options}
    for fit in (
        lambda: model(**parameters).fit(X.assign(**change), y),
        lambda: fit_many([{}], X.assign(**change), y, estimator=model(**parameters)),
    ):
        with pytest.raises((ValueError, RuntimeError)) as raised:
            fit()
        message = str(raised.value)
        assert all(one in message for one in named), message
        assert not KEYS.search(message), message


def test_a_text_in_a_column_of_numbers_at_prediction() -> None:
    X, y = frame_and_labels()
    fitted = MLPClassifier(**FAST).fit(X.assign(city="x"), y)
    with pytest.raises(ValueError, match="'mass' holds 'heavy'") as raised:
        fitted.predict(X.assign(city="x", mass="heavy"))
    assert not KEYS.search(str(raised.value))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Lower optimizer.lr, set trainer.gradient_clip_val=1, or look.", "Lower learning_rate_init, or look."),
        ("All are zero: choose another model.activation or model.init.", "All are zero: choose another activation."),
        ("Wrong. Leave it out with data.columns.a.kind=ignored. Or not.", "Wrong. Or not."),
        ("Keep it: report_weights=best data.val_fraction=0.2, or go.", "Keep it: early_stopping=True, or go."),
        ("Nothing to do with model or data.", "Nothing to do with model or data."),
    ],
)
def test_advice_that_an_estimator_cannot_follow_is_left_out(message, said) -> None:
    assert in_parameters(message) == said


@pytest.mark.parametrize("model", [MLPClassifier(**FAST), MLPRegressor(**FAST)])
def test_copies_predict_the_same_bits(tmp_path: Path, model) -> None:
    X, y = numbers()
    model = clone(model).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(tmp_path / "model.joblib")]
    for one in copies:
        assert np.array_equal(one.predict(X), model.predict(X))
    # No rows, no Trainer.
    assert len(pickle.dumps(model)) < 60_000
    assert not hasattr(clone(model), "module_")
