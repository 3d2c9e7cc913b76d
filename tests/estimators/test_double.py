"""Predictions are those of the network in double precision, for any rows at once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.estimator_rows import FAST, numbers

from mlp_lightning.estimators import MLPClassifier, MLPRegressor
from mlp_lightning.networks.activations import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore::mlp_lightning.errors.BaselineWarning")


def expected(model: Any, raw_BF: np.ndarray) -> np.ndarray:
    """The same of a copy of the whole network in double precision."""
    module = model.module_
    with torch.no_grad():
        logits_BC = copy.deepcopy(module.mlp).double()(module.preprocessor(torch.from_numpy(raw_BF)))
        return module.task.predictions(logits_BC).numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation) -> None:
    X, y = numbers()
    model = MLPRegressor(**{**FAST, "dropout": 0.1}, activation=activation).fit(X, y * 2.5)
    assert np.array_equal(model.predict(X)[:, None], expected(model, X))
    assert next(model.module_.mlp.parameters()).dtype == torch.float32  # as it was


@pytest.mark.parametrize(("sizes", "precision"), [((), "32"), (7, "64"), ((5, 4, 3), "bf16-mixed")])
def test_every_depth_and_precision(sizes, precision) -> None:
    X, y = numbers()
    parameters = {**FAST, "hidden_layer_sizes": sizes, "precision": precision}
    model = MLPClassifier(**parameters).fit(X, y)
    assert np.array_equal(model.predict_proba(X), expected(model, X))


def test_learned_embeddings() -> None:
    values = np.arange(600)
    table = pa.table({"text": [f"k{one % 90}" for one in values], "number": np.sin(values * 1.0)})
    model = MLPClassifier(**FAST).fit(table, values % 90 < 40)
    mlp = model.module_.mlp
    assert mlp.embedding is not None
    column = model.module_.preprocessor.columns[0]
    raw_BF = np.stack([[2.0 + column.vocabulary.index(f"k{one % 90}") for one in values], np.sin(values * 1.0)], axis=1)
    assert np.array_equal(model.predict_proba(table), expected(model, raw_BF))


def test_changed_weights_count_at_once() -> None:
    X, y = numbers()
    model = MLPClassifier(**FAST).fit(X, y)
    before = model.predict_proba(X)
    model.module_.mlp.layers[0].weight.data.mul_(2)
    assert not np.array_equal(model.predict_proba(X), before)
    assert np.array_equal(model.predict_proba(X), expected(model, X))


def test_rows_do_not_depend_on_each_other() -> None:
    X, y = numbers(5_000)
    model = MLPRegressor(**{**FAST, "max_iter": 1}).fit(X, y * 2.5)
    together = model.predict(X)
    for rows in (slice(0, 1), slice(2_040, 2_060), slice(4_999, None)):
        np.testing.assert_allclose(model.predict(X[rows]), together[rows], rtol=1e-12)
