"""Several labels for a row: scikit-learn's own tests of its classifier, and what is ours."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_score
from support.tolerances import assert_close

from mlp_lightning.errors import ConfigError
from mlp_lightning.estimators import MLPClassifier, fit_many

# Most fits here are too short to learn anything: test_cautions.py is about what is said of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::mlp_lightning.errors.BaselineWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)
X, Y = make_multilabel_classification(n_samples=50, random_state=0, return_indicator=True)
# Trains until every label is right, as scikit-learn's tests have it: without what keeps a model from that.
THOROUGH: dict[str, Any] = {
    "solver": "adam",
    "alpha": 0.0,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "learning_rate": "constant",
    "random_state": 0,
    "accelerator": "cpu",
}


def test_multilabel() -> None:
    """scikit-learn's test_multilabel_classification, whose lbfgs is Adam here."""
    mlp = MLPClassifier(50, "logistic", max_iter=150, learning_rate_init=0.02, **THOROUGH)
    assert mlp.fit(X, Y).score(X, Y) > 0.97
    sgd = {**THOROUGH, "solver": "sgd", "alpha": 1e-5}
    mlp = MLPClassifier(50, "logistic", max_iter=150, learning_rate_init=0.2, **sgd)
    for _ in range(100):
        mlp.partial_fit(X, Y, classes=[0, 1, 2, 3, 4])
    assert mlp.score(X, Y) > 0.9
    predicted = MLPClassifier(early_stopping=True).fit(X, Y).predict(X)
    assert predicted.shape == Y.shape


def test_predict_proba_multilabel() -> None:
    """scikit-learn's test of the same name, whose lbfgs is Adam here."""
    clf = MLPClassifier(30, "relu", max_iter=200, learning_rate_init=0.01, **THOROUGH).fit(X, Y)
    probabilities = clf.predict_proba(X)
    assert probabilities.shape == Y.shape
    np.testing.assert_array_equal(probabilities > 0.5, Y)
    logarithms = clf.predict_log_proba(X)
    assert (probabilities.sum(1) - 1).dot(probabilities.sum(1) - 1) > 1e-10
    np.testing.assert_array_equal(probabilities.argmax(axis=1), logarithms.argmax(axis=1))
    np.testing.assert_allclose(logarithms, np.log(probabilities))


def test_what_a_fitted_classifier_says() -> None:
    mlp = MLPClassifier(8, max_iter=3, random_state=0).fit(X, Y)
    assert (mlp.n_outputs_, mlp.out_activation_, mlp.classes_.tolist()) == (5, "logistic", [0, 1, 2, 3, 4])
    predicted = mlp.predict(X)
    assert predicted.dtype.kind == "i"
    assert set(np.unique(predicted)) <= {0, 1}
    assert mlp.score(X, Y) == accuracy_score(Y, predicted)  # the share of rows whose labels are all right
    assert_close(pickle.loads(pickle.dumps(mlp)).predict_proba(X), mlp.predict_proba(X))


def test_labels_in_other_forms() -> None:
    mlp = MLPClassifier(8, max_iter=3, random_state=0)
    expected = clone(mlp).fit(X, Y).predict_proba(X)
    for given in (Y.astype(bool), Y.astype(float), scipy.sparse.csr_matrix(Y)):
        assert_close(clone(mlp).fit(X, given).predict_proba(X), expected)


def test_a_label_that_no_row_has() -> None:
    labels = np.column_stack([Y, np.zeros(len(Y), dtype=int)])
    predicted = MLPClassifier(8, max_iter=200, learning_rate_init=0.02, random_state=0).fit(X, labels).predict(X)
    assert not predicted[:, 5].any()


def test_several_at_once_are_those_alone() -> None:
    params: list[dict[str, Any]] = [{"hidden_layer_sizes": (4,)}, {"hidden_layer_sizes": (7,)}]
    alone = [MLPClassifier(random_state=0, max_iter=5, **one).fit(X, Y) for one in params]
    together = fit_many(params, X, Y, estimator=MLPClassifier(random_state=0, max_iter=5))
    for one, other in zip(together, alone, strict=True):
        assert_close(one.predict_proba(X), other.predict_proba(X), atol=1e-5)


def test_folds() -> None:
    scores = cross_val_score(MLPClassifier(16, max_iter=10, random_state=0), X, Y, cv=3, scoring="f1_macro")
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("labels", [Y + 1, np.array([["a", "b"]] * 50), np.column_stack([Y[:, 0], np.arange(50)])])
def test_columns_of_other_classes_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="have to be 0 or 1"):
        MLPClassifier().fit(X, labels)


def test_classes_of_several_labels_have_no_weights() -> None:
    for weights in ("balanced", {0: 1.0, 1: 2.0}):
        with pytest.raises(ConfigError, match=r"class_weight.*needs one"):
            MLPClassifier(class_weight=weights).fit(X, Y)


def test_a_fit_that_continues_has_the_same_labels() -> None:
    mlp = MLPClassifier(8, max_iter=2, warm_start=True, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="y has 4 labels, and the classifier knows 5"):
        mlp.fit(X, Y[:, :4])
    with pytest.raises(ValueError, match="poses the task multiclass, and the estimator was fitted to multilabel"):
        mlp.fit(X, Y[:, 0])
    other = MLPClassifier(8, max_iter=2, warm_start=True, random_state=0).fit(X, Y.argmax(1))
    with pytest.raises(ValueError, match="poses the task multilabel, and the estimator was fitted to multiclass"):
        other.fit(X, Y)
