"""Fitted estimators in files: pickle, joblib, and skops.io, which runs no code that a file brings along."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from support.estimator_rows import FAST, mixed, numbers

from mlp_lightning.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::mlp_lightning.errors.BaselineWarning")


def fitted(name: str) -> tuple[Any, Any, Any]:
    """An estimator and the rows that it was fitted to."""
    X, y = numbers()
    table, labels = mixed()
    texts = np.array([f"k{one % 90}" for one in range(450)])
    many = pa.table({"text": texts, "number": np.sin(np.arange(450.0))})
    rows = {
        "classes": (MLPClassifier(**FAST), X, np.where(y == 1, "yes", "no")),
        "double precision": (MLPRegressor(**{**FAST, "precision": "64"}), X, y * 2.5),
        "two targets": (MLPRegressor(**FAST), X, np.stack([y, -3 * y], axis=1)),
        "a table": (MLPClassifier(**FAST), table, labels),
        "embeddings": (MLPClassifier(**FAST), many, np.arange(450) % 90 < 40),
        "early stopping": (MLPClassifier(**FAST, early_stopping=True), X, y),
        "quantiles": (MLPClassifier(**FAST, scaling="quantile", activation="tanh"), X, y),
    }
    model, features, targets = rows[name]
    return model.fit(features, targets), features, targets


NAMES = ["classes", "double precision", "two targets", "a table", "embeddings", "early stopping", "quantiles"]


def assert_same(copied: Any, model: Any, X: Any) -> None:
    assert type(copied) is type(model)
    assert np.array_equal(copied.predict(X), model.predict(X))
    assert copied.get_params() == model.get_params()
    public = {name for name in vars(model) if name.endswith("_")}
    assert {name for name in vars(copied) if name.endswith("_")} == public
    for name in public - {"module_"}:
        assert np.array_equal(getattr(copied, name), getattr(model, name)), name
    assert all(np.array_equal(one, other) for one, other in zip(copied.coefs_, model.coefs_, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_after_a_file(name, tmp_path: Path) -> None:
    model, X, _ = fitted(name)
    state = torch.random.get_rng_state()
    assert_same(pickle.loads(pickle.dumps(model)), model, X)
    joblib.dump(model, tmp_path / "model.joblib")
    assert_same(joblib.load(tmp_path / "model.joblib", mmap_mode="r"), model, X)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_file_can_be_continued() -> None:
    model, X, y = fitted("classes")
    model.partial_fit(X, y)
    copied = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copied.partial_fit(X, y).predict_proba(X), model.partial_fit(X, y).predict_proba(X))
    copied.set_params(warm_start=True).fit(X, y)


def test_a_file_holds_plain_data_and_arrays() -> None:
    model, X, y = fitted("embeddings")
    model.partial_fit(X, y)

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for one in (*value, *value.values()):
                look(one)
        elif isinstance(value, (list, tuple)):
            for one in value:
                look(one)
        else:
            assert value is None or type(value) in (str, int, float, bool, np.ndarray) or isinstance(value, np.generic)

    look(model.__getstate__())
    look(MLPClassifier().__getstate__())


@pytest.mark.extras
@pytest.mark.parametrize("name", NAMES)
def test_skops_trusts_all_but_the_estimator(name) -> None:
    skops = pytest.importorskip("skops.io")
    model, X, y = fitted(name)
    content = skops.dumps(model)
    (unknown,) = skops.get_untrusted_types(data=content)
    assert unknown.startswith("mlp_lightning.estimators.")
    assert_same(skops.loads(content, trusted=[unknown]), model, X)
    if name == "classes":
        pipeline = make_pipeline(MinMaxScaler(), MLPClassifier(**FAST)).fit(X, y)
        copied = skops.loads(skops.dumps(pipeline), trusted=[unknown])
        assert np.array_equal(copied.predict_proba(X), pipeline.predict_proba(X))
