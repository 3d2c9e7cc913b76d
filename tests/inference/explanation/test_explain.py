"""Explanations against scikit-learn, plain loops and formulas."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.inspection import partial_dependence as sklearn_dependence
from sklearn.inspection import permutation_importance as sklearn_importance
from support.export_runs import table_of_all_kinds
from support.export_runs import trained as trained_on_all_kinds
from support.inference_tables import flowers

from mlp_lightning import train
from mlp_lightning.inference.explanation import importance as importance_module
from mlp_lightning.inference.explanation.dependence import grid, label, partial_dependence, quantiles
from mlp_lightning.inference.explanation.explain import explained
from mlp_lightning.inference.explanation.importance import donors, permutation_importances
from mlp_lightning.inference.explanation.rows import ExplainedRows, rows_of_table
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import encode


class Classes(ClassifierMixin, BaseEstimator):
    """A trained model as scikit-learn sees one: of raw numbers, so that a column is one column."""

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        self.classes_ = np.arange(len(model.target.class_names))

    def fit(self, X: Any, y: Any) -> Classes:
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.model.predict(np.array(X, dtype=float))

    def predict(self, X: Any) -> Any:
        return self.predict_proba(X).argmax(1)


class Numbers(RegressorMixin, BaseEstimator):
    def __init__(self, model: TrainedModel) -> None:
        self.model, self.fitted_ = model, True

    def fit(self, X: Any, y: Any) -> Numbers:
        return self

    def predict(self, X: Any) -> Any:
        return self.model.predict(np.array(X, dtype=float))[:, 0]


def rows_of(trained: Any, rows: int = 200, seed: int = 2, most: int = 10_000) -> tuple[TrainedModel, ExplainedRows]:
    model = load_model(trained.checkpoint)
    return model, rows_of_table(model, None, None, flowers(rows, seed), None, most, 0)


# ---- permutation importance -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kind_model", "big_model"])
def test_importances_of_classes_are_those_of_a_plain_loop(name: str, request: pytest.FixtureRequest) -> None:
    model, rows = rows_of(request.getfixturevalue(name))
    found = permutation_importances(model, rows, 3, seed=5)
    labels, classes = rows.targets_BT[:, 0].astype(int), np.arange(len(model.target.class_names))
    weights_B = rows.weights_B

    def scores(raw_BF: Any) -> tuple[float, float]:
        predictions_BC = model.predict(raw_BF)
        loss = metrics.log_loss(labels, predictions_BC, labels=classes, sample_weight=weights_B)
        return loss, metrics.accuracy_score(labels, predictions_BC.argmax(1), sample_weight=weights_B)

    loss, accuracy = scores(rows.raw_BF)
    assert (found.loss, found.metric) == pytest.approx((loss, accuracy))
    assert {one.column.name for one in found.columns} == {"length", "width", "place", "wild"}
    assert all(one.means[0] >= other.means[0] for one, other in zip(found.columns, found.columns[1:], strict=False))
    for one in found.columns:
        number = model.columns.index(one.column)
        for repeat, donors_B in enumerate(donors(len(labels), weights_B, 3, 5)):
            raw_BF = rows.raw_BF.copy()
            raw_BF[:, number] = raw_BF[donors_B, number]
            worse_loss, worse_accuracy = scores(raw_BF)
            assert one.loss_R[repeat] == pytest.approx(worse_loss - loss, abs=1e-12)
            assert one.metric_R[repeat] == pytest.approx(accuracy - worse_accuracy, abs=1e-12)
        assert one.deviations == pytest.approx((np.std(one.loss_R, ddof=1), np.std(one.metric_R, ddof=1)))


@pytest.mark.parametrize("score", ["neg_log_loss", "accuracy"])
def test_importances_agree_with_those_of_scikit_learn(kind_model, score: str) -> None:
    """Other permutations of the same rows: the means differ by no more than their standard errors allow."""
    model, rows = rows_of(kind_model)
    settings: dict[str, Any] = {"scoring": score, "n_repeats": 40, "random_state": 1}
    theirs = sklearn_importance(Classes(model), rows.raw_BF, rows.targets_BT[:, 0].astype(int), **settings)
    for one in permutation_importances(model, rows, 40, 0).columns:
        number = model.columns.index(one.column)
        values_R = one.metric_R if score == "accuracy" else one.loss_R
        error = np.hypot(values_R.std(ddof=1), theirs["importances"][number].std(ddof=1)) / np.sqrt(40)
        assert abs(values_R.mean() - theirs["importances_mean"][number]) < 4 * error + 1e-12


def test_numbers_of_two_targets(price_model) -> None:
    """The loss is in units of the targets' deviations, the mean absolute error in the units of the targets."""
    model, rows = rows_of(price_model, 150, 7)
    found = permutation_importances(model, rows, 2, 9)
    scale = np.array([one.scale for one in model.target.columns])
    errors_BT = model.predict(rows.raw_BF) - rows.targets_BT
    assert found.loss == pytest.approx(np.square(errors_BT / scale).mean())
    assert found.metric == pytest.approx(np.abs(errors_BT).mean())
    width = next(one for one in found.columns if one.column.name == "width")
    raw_BF, number = rows.raw_BF.copy(), model.columns.index(width.column)
    raw_BF[:, number] = raw_BF[donors(150, None, 2, 9)[1], number]
    worse_BT = model.predict(raw_BF) - rows.targets_BT
    assert width.metric_R[1] == pytest.approx(np.abs(worse_BT).mean() - np.abs(errors_BT).mean())


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, pa.Table]:
    """A network without a hidden layer that is 2 + 3 a - 4 (town = k) + 0 z, in units of a raw target."""
    random = np.random.default_rng(0)
    towns = np.array(["b", "k"])[random.integers(0, 2, 90)]
    a, z = random.normal(size=90), random.normal(size=90)
    table = pa.table({"a": a, "town": towns, "z": z, "y": 2 + 3 * a - 4 * (towns == "k") + random.normal(size=90)})
    config = {
        "data": {"name": "frame", "target": "y", "scaling": "none", "val_fraction": 0.0, "test_fraction": 0.3},
        "model": {"hidden_units": None, "depth": 0, "dropout": 0.0},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "precision": "64"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    folder = tmp_path_factory.mktemp("linear") / "run"
    train(config, folder, frame=table)
    model = load_model(folder / "checkpoints" / "last.ckpt")
    assert not model.is_ensemble
    (only,) = model.target.columns
    layer = next(one for one in model.module.modules() if isinstance(one, torch.nn.Linear))
    assert only.mean is not None
    assert only.scale is not None
    with torch.no_grad():
        weights = {"a": 3.0, "z": 0.0, "town = b": 0.0, "town = k": -4.0}
        numbers = [[weights[name] / only.scale for name in model.preprocessors[0].feature_names]]
        layer.weight[:] = torch.tensor(numbers, dtype=torch.float64)
        layer.bias[:] = (2 - only.mean) / only.scale
    return model, table


def test_a_known_function(linear: tuple[TrainedModel, pa.Table]) -> None:
    model, table = linear
    rows = rows_of_table(model, None, None, table, None, 1000, 0)
    found = explained(model, rows, 2, 3, 0)
    by_name = {one.column.name: one for one in found.importances.columns}
    assert set(by_name) == {"a", "town", "z"}
    assert by_name["z"].loss_R.tolist() == by_name["z"].metric_R.tolist() == [0.0, 0.0]
    y, a, in_k = table["y"].to_numpy(), table["a"].to_numpy(), np.array(table["town"].to_pylist()) == "k"
    right = 2 + 3 * a - 4 * in_k
    scale = model.target.columns[0].scale
    for repeat, donors_B in enumerate(donors(90, None, 2, 0)):
        for name, wrong in (("a", 2 + 3 * a[donors_B] - 4 * in_k), ("town", 2 + 3 * a - 4 * in_k[donors_B])):
            expected = np.square((wrong - y) / scale).mean() - np.square((right - y) / scale).mean()
            assert by_name[name].loss_R[repeat] == pytest.approx(expected)
            expected = np.abs(wrong - y).mean() - np.abs(right - y).mean()
            assert by_name[name].metric_R[repeat] == pytest.approx(expected)
    a_curve, town, z_curve = (
        next(one for one in found.dependences if one.column.name == name) for name in ("a", "town", "z")
    )
    assert len(a_curve.grid_G) == 21
    np.testing.assert_allclose(a_curve.mean_GC[:, 0], 2 + 3 * a_curve.grid_G - 4 * in_k.mean())
    np.testing.assert_allclose(
        a_curve.curves_IGC[..., 0], 2 + 3 * a_curve.grid_G - 4 * in_k[a_curve.rows_I, None], atol=1e-12
    )
    assert town.labels == ["b", "k"]
    np.testing.assert_allclose(town.mean_GC[:, 0], [2 + 3 * a.mean(), -2 + 3 * a.mean()])
    tenth = np.quantile(2 + 3 * a, 0.1, method="inverted_cdf"), np.quantile(2 + 3 * a, 0.9, method="inverted_cdf")
    np.testing.assert_allclose((town.low_GC[0, 0], town.high_GC[0, 0]), tenth)
    np.testing.assert_allclose(z_curve.mean_GC, np.full((21, 1), right.mean()))


def test_donors_of_weighted_rows() -> None:
    """A row of weight 3 gives its value as often as three rows would; equal weights are none."""
    np.testing.assert_array_equal(np.sort(donors(7, None, 4, 1), axis=1), np.tile(np.arange(7), (4, 1)))
    np.testing.assert_array_equal(donors(7, np.full(7, 0.3), 4, 1), donors(7, None, 4, 1))
    assert (donors(7, None, 4, 1) != donors(7, None, 4, 2)).any()
    weights = np.array([1.0, 3.0, 0.5, 0.5])
    given = donors(4, weights, 4_000, 0)
    counts = np.stack([np.bincount(one, minlength=4) for one in given])
    exact = weights / weights.sum() * 4
    assert (counts >= np.floor(exact)).all()
    assert (counts <= np.ceil(exact)).all()
    np.testing.assert_allclose(counts.mean(0), exact, atol=0.04)
    # Every row gets every value in the same proportion.
    shares = np.stack([(given == one).mean(0) for one in range(4)], axis=1)
    np.testing.assert_allclose(shares, np.tile(exact / 4, (4, 1)), atol=0.04)


def test_weights_count_as_repeated_rows(big_model) -> None:
    """Scores and partial dependence to rounding; importances, whose permutations differ, on average."""
    model, rows = rows_of(big_model, 60)
    assert rows.weight_column == "weight"
    assert rows.weights_B is not None
    assert rows.weights_B.min() == 1  # those of weight 0 are left out
    assert rows.dropped == 60 - len(rows.raw_BF)
    repeated = np.repeat(np.arange(len(rows.raw_BF)), rows.weights_B.astype(int))
    parts = {"raw_BF": rows.raw_BF[repeated], "targets_BT": rows.targets_BT[repeated]}
    several = dataclasses.replace(rows, **parts, weights_B=None, numbers_B=rows.numbers_B[repeated])
    weighted, plain = (permutation_importances(model, one, 200, 0) for one in (rows, several))
    assert (weighted.loss, weighted.metric) == pytest.approx((plain.loss, plain.metric))
    expected = {one.column.name: one for one in plain.columns}
    for one in weighted.columns:
        other = expected[one.column.name]
        error = np.hypot(one.deviations[0], other.deviations[0]) / np.sqrt(200)
        # A row keeps its own value more often among few rows than among many.
        assert one.means[0] == pytest.approx(other.means[0], abs=4 * error + 0.03 * abs(other.means[0]))
    for name in ("width", "place", "length"):
        one, other = (partial_dependence(model, part, name, 0) for part in (rows, several))
        assert one.labels == other.labels
        for left, right in ((one.mean_GC, other.mean_GC), (one.low_GC, other.low_GC), (one.high_GC, other.high_GC)):
            np.testing.assert_allclose(left, right, rtol=1e-5)


def test_parts_of_the_work_change_nothing(kind_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = rows_of(kind_model, 50)
    whole = explained(model, rows, 3, 4, 0)
    monkeypatch.setattr(importance_module, "_ROWS_AT_ONCE", 7)
    parts = explained(model, rows, 3, 4, 0)
    for one, other in zip(whole.importances.columns, parts.importances.columns, strict=True):
        np.testing.assert_allclose(one.loss_R, other.loss_R, atol=1e-6)
    for one, other in zip(whole.dependences, parts.dependences, strict=True):
        np.testing.assert_allclose(one.mean_GC, other.mean_GC, atol=1e-6)
        np.testing.assert_allclose(one.curves_IGC, other.curves_IGC, atol=1e-6)


# ---- partial dependence ---------------------------------------------------------------------------------------------


def test_partial_dependence_is_that_of_scikit_learn(kind_model, big_model, price_model) -> None:
    for trained, wrapper in ((kind_model, Classes), (big_model, Classes), (price_model, Numbers)):
        model, rows = rows_of(trained)
        for number, column in enumerate(model.columns):
            found = partial_dependence(model, rows, column.name, 0)
            settings: dict[str, Any] = {"method": "brute", "kind": "both", "custom_values": {number: found.grid_G}}
            if wrapper is Classes:
                settings["response_method"] = "predict_proba"
            theirs = sklearn_dependence(wrapper(model), rows.raw_BF, [number], **settings)
            theirs = theirs["individual"]  # of every class, or of the second of two
            outputs = found.mean_GC.shape[1]
            chosen = [1] if len(theirs) == 1 and outputs == 2 and wrapper is Classes else [*range(len(theirs))]
            mean_GC = np.average(theirs, axis=1, weights=rows.weights_B).T
            np.testing.assert_allclose(found.mean_GC[:, chosen], mean_GC, rtol=1e-5)
            kept = np.flatnonzero(np.isin(rows.numbers_B, found.rows_I))
            np.testing.assert_allclose(found.curves_IGC[..., chosen], theirs[:, kept].transpose(1, 2, 0), rtol=1e-5)


def test_columns_of_every_kind_are_changed_as_in_the_table(tmp_path: Path) -> None:
    """Each value is written into the table itself, which is then read and predicted as any other."""
    model, table = load_model(trained_on_all_kinds(tmp_path, "three")), table_of_all_kinds()
    rows = rows_of_table(model, None, None, table, None, 1000, 0)
    assert {one.kind for one in model.columns} == {"numeric", "boolean", "datetime", "categorical"}
    assert {one.encoding for one in model.columns} == {"", "one_hot", "embedding"}
    for column in model.columns:
        found = partial_dependence(model, rows, column.name, 0)
        place, kind = table.column_names.index(column.name), table.schema.field(column.name).type
        assert (None in found.labels) == (column.missing or table.column(place).null_count > 0)
        for text, mean_C in zip(found.labels, found.mean_GC, strict=True):
            values = pa.array([None if text is None else text.lower() if pa.types.is_boolean(kind) else text])
            same = pa.concat_arrays([values.cast(pa.string())] * table.num_rows).cast(kind)
            changed = table.set_column(place, column.name, same)
            raw_BF = encode(changed, model.columns, lambda row: f"row {row}")
            np.testing.assert_allclose(mean_C, model.predict(raw_BF).mean(0), rtol=1e-6)


def test_values_of_every_kind() -> None:
    nan = np.nan
    number = Column("x", "numeric", "float64")
    np.testing.assert_array_equal(grid(number, np.array([3.5, 1, 1, 2])), [1, 2, 3.5])
    np.testing.assert_array_equal(grid(number, np.array([3.5, nan])), [3.5, nan])
    np.testing.assert_array_equal(grid(dataclasses.replace(number, missing=True), np.array([1.0])), [1, nan])
    np.testing.assert_array_equal(grid(number, np.array([nan, nan])), [nan])
    values = np.append(np.arange(1000.0), 1e9)
    many = grid(number, np.append(values, nan))
    expected = np.quantile(values, np.linspace(0.01, 0.99, 21), method="inverted_cdf")
    np.testing.assert_array_equal(many[:-1], expected)
    assert np.isnan(many[-1])
    assert [label(number, one) for one in (0.1, 3.0, -2.5, nan)] == ["0.1", "3", "-2.5", None]
    flag = Column("f", "boolean", "bool", missing=True)
    np.testing.assert_array_equal(grid(flag, np.array([1.0, 1.0])), [0, 1, nan])
    assert [label(flag, one) for one in (0.0, 1.0, nan)] == ["False", "True", None]
    when = Column("d", "datetime", "timestamp")
    moments = np.array(["2020-03-01", "2021-05-06T07:08:09.5"], dtype="datetime64[us]").astype(np.int64) / 1e6
    np.testing.assert_array_equal(grid(when, moments), moments)
    assert [label(when, one) for one in moments] == ["2020-03-01", "2021-05-06T07:08:09.500000"]
    town = Column("t", "categorical", "int64", vocabulary=(7, 9, 11))
    np.testing.assert_array_equal(grid(town, np.array([3.0, 3, 1])), [2, 3, 4])
    assert [label(town, one) for one in (0.0, 1.0, 2.0, 4.0)] == [None, "(other)", "7", "11"]
    np.testing.assert_array_equal(grid(town, np.array([0.0])), [2, 3, 4, 0])
    np.testing.assert_array_equal(grid(dataclasses.replace(town, is_capped=True), np.array([2.0])), [2, 3, 4, 1])
    wide = dataclasses.replace(town, vocabulary=tuple(range(100)))
    frequent = np.repeat(np.arange(40, 70), 2) + 2.0
    np.testing.assert_array_equal(grid(wide, np.append(frequent, [2, 3, 4])), np.arange(42, 72))
    heavy = np.append(np.ones(60), [5, 0.5, 0.5])
    np.testing.assert_array_equal(grid(wide, np.append(frequent, [2, 3, 4]), heavy), [2, *np.arange(42, 71)])


def test_quantiles_of_weighted_values_are_those_of_repeated_ones() -> None:
    random = np.random.default_rng(3)
    values_BC, weights_B = random.normal(size=(30, 2)), random.integers(1, 5, 30)
    shares = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    expected = np.quantile(np.repeat(values_BC, weights_B, axis=0), shares, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(quantiles(values_BC, weights_B.astype(float), shares), expected)
    expected = np.quantile(values_BC, shares, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(quantiles(values_BC, None, shares), expected)
