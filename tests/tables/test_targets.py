"""The task of a target, targets as numbers, and the weights of rows."""

from __future__ import annotations

import datetime
import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from support.tables import set_up
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.networks.tasks import infer_target, task_class
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target

ORIGIN = Origin("the table", lambda row: f"line {row + 2}")


def inferred(values: Any, task: str = "auto") -> Target:
    return infer_target(pa.table({"y": values}), ["y"], task, ORIGIN)


def rows(targets: Any, **options: Any) -> Any:
    """The data module of a target and a column to learn from."""
    return set_up(pa.table({"x": np.arange(len(targets)) ** 2 * 0.5, "y": targets}), **options)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b"], "binary", ("a", "b")),
        (["b", "a", "c", ""], "multiclass", ("", "a", "b", "c")),
        ([f"class {number:02}" for number in range(30)], "multiclass", tuple(f"class {n:02}" for n in range(30))),
        ([True, False, True], "binary", (False, True)),
        ([3, 1, 3, 1], "binary", (1, 3)),
        ([3, 1, 2] * 2, "multiclass", (1, 2, 3)),
        ([1.0, 0.0, 1.0, 0.0], "binary", (0, 1)),
        ([-1.0, 0.0, 1.0] * 2, "multiclass", (-1, 0, 1)),
        ([*range(20)] * 2, "multiclass", tuple(range(20))),
        ([*range(21)] * 2, "regression", ()),
        # Hardly any row has the class of another one: these are counts.
        ([1, 2, 3, 4, 4], "regression", ()),
        ([0.5, 1.5] * 10, "regression", ()),
        ([0.0, 1.0, 0.5] * 10, "regression", ()),
        ([1e300, 2.0] * 10, "binary", None),
    ],
)
def test_task_by_the_values(values: Any, task: str, classes: tuple[Any, ...] | None) -> None:
    if classes is None:  # whole numbers beyond 64 bits cannot be names of classes
        with pytest.raises(DataError):
            inferred(values)
        return
    target = inferred(values)
    assert (target.task, target.columns[0].classes) == (task, classes)
    out_features = {"binary": 1, "multiclass": len(classes), "regression": 1}[task]
    assert task_class(target.task).out_features(target) == out_features
    assert target.class_names == tuple(str(one) for one in classes)
    assert Target.from_dict(json.loads(json.dumps(target.to_dict()))) == target


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["a", "b"], "multiclass", ("a", "b")),
        ([5, 3, 3, 9], "multiclass", (3, 5, 9)),
        ([0.5, 1.5, 0.5], "binary", (0.5, 1.5)),
        ([0, 1, 0, 1], "regression", ()),
        ([True, False], "regression", ()),
        (["1.5", "2"], "regression", ()),
        ([*range(40)], "multiclass", tuple(range(40))),
    ],
)
def test_a_given_task_wins(values: Any, task: str, classes: tuple[Any, ...]) -> None:
    assert (inferred(values, task).task, inferred(values, task).columns[0].classes) == (task, classes)


def test_several_targets_are_a_regression() -> None:
    table = pa.table({"a": [0, 1, 0, 1], "b": [0.5, 1.5, 2.5, 3.5]})
    target = infer_target(table, ["b", "a"], "auto", ORIGIN)
    assert (target.task, target.names, task_class("regression").out_features(target)) == ("regression", ("b", "a"), 2)
    assert target.numbers(table, str).tolist() == [[0.5, 0], [1.5, 1], [2.5, 0], [3.5, 1]]


# ---- numbers -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), max_size=3), min_size=2, max_size=20))
def test_class_numbers_are_indices_in_the_order_of_classes(values: list[str]) -> None:
    if len(set(values)) == 1:
        return
    target = inferred(values)
    classes = target.columns[0].classes
    assert classes == tuple(sorted(set(values)))
    table = pa.table({"y": [*values, None]})
    numbers_BT = target.numbers(table, str)
    assert [classes[int(one)] for one in numbers_BT[:-1, 0]] == values
    assert target.columns[0].values(numbers_BT[:-1, 0]).to_pylist() == values
    assert math.isnan(numbers_BT[-1, 0])
    assert_same_bits(target.numbers(table.combine_chunks().to_batches()[0], str), numbers_BT)


def test_a_class_that_the_model_does_not_know() -> None:
    target = inferred(["a", "b", "c"])
    with pytest.raises(
        DataError, match=r"line 3: column 'y' has the class 'd', which the model does not know \(it knows a, b, c\)"
    ):
        target.numbers(pa.table({"y": ["a", "d"]}), ORIGIN.place)
    many = inferred([f"{number:02}" for number in range(30)])
    with pytest.raises(DataError, match=r"it knows 00, 01, .*, 09, …\)"):
        many.numbers(pa.table({"y": ["x"]}), ORIGIN.place)


def test_whole_numbers_from_another_file_are_the_same_classes() -> None:
    target = inferred([0, 1, 0, 1])
    for values in ([1.0, None, 0.0], ["1", None, " 0"], [True, None, False]):
        assert_same_bits(target.numbers(pa.table({"y": values}), str), np.array([[1.0], [math.nan], [0.0]]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=20))
def test_a_regression_learns_targets_of_mean_0_and_deviation_1(values: list[float]) -> None:
    numbers_BT = np.array(values)[:, None]
    target = inferred(values, "regression").with_statistics(numbers_BT)
    learnt_BT = target.standardized(numbers_BT)
    assert np.isfinite(learnt_BT).all()
    back_BT = learnt_BT * np.array(target.scale) + np.array(target.mean)
    np.testing.assert_allclose(back_BT, numbers_BT, rtol=1e-9, atol=1e-12 * np.abs(numbers_BT).max())
    if np.ptp(numbers_BT) > 1e-6 * np.abs(numbers_BT).max():
        assert_close(learnt_BT, StandardScaler().fit_transform(numbers_BT), atol=1e-6)
    else:
        assert np.abs(learnt_BT).max() <= max(1.0, 1e-12 * np.abs(numbers_BT).max()) * math.sqrt(len(values))


def test_statistics_are_those_of_the_training_rows() -> None:
    values = np.array([1.0, 2, 3, 4, 100, 200]) + 0.5
    split = ["train"] * 4 + ["val", "test"]
    data = set_up(pa.table({"x": [3, 1, 2, 5, 4, 6], "y": values, "s": split}), task="regression", split_column="s")
    assert (data.target.mean, data.target.scale) == ((3.0,), (math.sqrt(1.25),))
    for rows_of, wanted in (("train", values[:4]), ("val", values[4:5]), ("test", values[5:])):
        assert_close(data.splits[rows_of].targets[:, 0], (wanted - 3) / math.sqrt(1.25), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e150, -123456789.3])
def test_a_target_that_is_always_the_same(value: float) -> None:
    target = inferred([value] * 7, "regression").with_statistics(np.full((7, 1), value))
    assert target.scale == (1.0,)
    assert np.isfinite(target.standardized(np.full((7, 1), value))).all()


# ---- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "text"),
    [
        (["a"] * 5, "auto", "the table: the target 'y' has one class only ('a'): there is nothing to learn"),
        ([True] * 5, "auto", "one class only (True)"),
        ([1] * 5, "binary", "one class only (1)"),
        ([*map(str, range(5001)), "0"], "multiclass", "has 5,001 classes ('0', '1', '2', …), and at most 5,000 are"),
        (list(range(1_000_000)), "multiclass", "If these are numbers, set task=regression"),
        (["a", "b", "c"], "binary", "task=binary needs two classes, and 'y' has 3"),
        (["1", "2", "many"], "regression", "line 4: column 'y' has 'many', which is not a number"),
        ([1.0, float("inf")], "regression", "line 3: the target 'y' is inf. Correct or remove the row"),
        ([datetime.datetime(2024, 1, 1)] * 2, "regression", "line 2: column 'y' has datetime"),
    ],
)
def test_invalid_targets(values: Any, task: str, text: str) -> None:
    with pytest.raises(DataError, match=re.escape(text)):
        inferred(values, task)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_several_targets_are_no_classes(task: str) -> None:
    with pytest.raises(DataError, match=rf"task={task} takes one target, and data.target names 2 \(a, b\). Name one"):
        infer_target(pa.table({"a": [0, 1], "b": [1, 0]}), ["a", "b"], task, ORIGIN)


def test_numbers_too_large_to_learn() -> None:
    with pytest.raises(DataError, match="too large to learn"):
        inferred([1e308, -1e308], "regression").with_statistics(np.array([[1e308], [-1e308]]))


@pytest.mark.parametrize("values", [pa.nulls(5), pa.nulls(5, pa.string()), pa.nulls(5, pa.float64())])
def test_a_target_without_values(values: pa.Array) -> None:
    with pytest.raises(DataError, match=r"the target 'y' is missing in all 5 rows\. Choose another data.target"):
        rows(values)
    with pytest.raises(DataError):
        rows([math.nan] * 5)


def test_no_row_with_all_its_targets() -> None:
    table = pa.table({"x": [1.0, 2.0], "a": [1.5, None], "b": [None, 2.5]})
    with pytest.raises(DataError, match="no row has all of its targets a, b"):
        set_up(table, target=["a", "b"])


def test_a_class_of_a_single_row() -> None:
    targets = ["a"] * 6 + [None] + ["b"] + ["a"] * 6
    text = "row 8: the class 'b' of 'y' has this single row, which cannot be a training and a validation row. Add rows,"
    for split in ({"val_fraction": 0.3}, {"test_fraction": 0.3}, {"cv": (2, 0)}):
        with pytest.raises(DataError, match=re.escape(text)) as caught:
            rows(targets, **split)
        assert "data.val_fraction=0 data.test_fraction=0" in str(caught.value)
    assert rows(targets).task == "binary"


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    targets = ["a", None, "b", "a", None, "b"]
    data = rows(targets)
    assert data.row_numbers["train"].tolist() == [0, 2, 3, 5]
    assert_close(data.splits["train"].targets[:, 0], [0, 1, 0, 1])
    assert data.describe()[:2] == ["4 rows; predicts y (binary: a 2, b 2)", "2 rows without a value of y are left out"]
    numbers = rows([0.5, None, 1.5, math.nan, 2.0])
    assert numbers.row_numbers["train"].tolist() == [0, 2, 4]
    several = set_up(pa.table({"x": [5, 1, 2, 9], "a": [1.5, None, 2, 3], "b": [1, 2, None, 7.5]}), target=["a", "b"])
    assert several.row_numbers["train"].tolist() == [0, 3]


def test_a_target_that_is_not_named_or_not_there() -> None:
    table = pa.table({"x": [1, 2], "species": ["a", "b"]})
    with pytest.raises(ConfigError, match="name the column to predict, one of x, species"):
        set_up(table, target=None)
    with pytest.raises(DataError, match="the table has no column 'specie'; did you mean 'species'"):
        set_up(table, target="specie")


# ---- weights of rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_weights_are_those_of_scikit_learn(classes: int) -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 3)[: 15 if classes == 2 else 18]
    weights = compute_class_weight("balanced", classes=np.arange(classes), y=labels)
    data = rows([f"class {label}" for label in labels], class_weight="balanced")
    assert_close(data.splits["train"].weights_B, weights[labels])


def test_balanced_weights_of_weighted_rows_give_every_class_the_same_total() -> None:
    table = pa.table({"x": np.arange(10) ** 2, "w": [1.0, 2, 3, 4, 5, 0, 7, 8, 9, 10], "y": ["a"] * 3 + ["b"] * 7})
    weights_B = set_up(table, weight_column="w", class_weight="balanced").splits["train"].weights_B
    assert weights_B is not None
    assert_close([weights_B[:3].sum(), weights_B[3:].sum()], [5.0, 5.0])
    assert_close(weights_B[:3] / weights_B[0], [1, 2, 3])


def test_balance_is_that_of_the_training_rows() -> None:
    split = ["train"] * 4 + ["val"] * 4
    table = pa.table({"x": np.arange(8) ** 2, "y": ["a", "a", "a", "b"] + ["b"] * 4, "s": split})
    data = set_up(table, split_column="s", class_weight="balanced")
    assert_close(data.splits["train"].weights_B, [2 / 3, 2 / 3, 2 / 3, 2])
    assert data.splits["val"].weights_B is None


def test_weights_are_a_column_of_mean_one_and_no_feature() -> None:
    table = pa.table({"x": [1.0, 5, 2], "w": [1, 0, 3], "y": [0.5, 1.5, 2.0]})
    data = set_up(table, weight_column="w")
    assert_close(data.splits["train"].weights_B, [0.75, 0, 2.25])
    assert [one.name for one in data.rows.report.columns] == ["x"]
    also = set_up(table, weight_column="w", kinds={"w": "numeric"})
    assert [one.name for one in also.rows.report.columns] == ["x", "w"]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1.0, -2.0, 1.0], "row 2: data.weight_column 'w' is -2.0; a weight is a number of at least 0"),
        ([1.0, 2.0, None], "row 3: data.weight_column 'w' is None"),
        ([1.0, float("nan"), 1.0], "row 2: data.weight_column 'w' is nan"),
        ([float("inf"), 1.0, 1.0], "row 1: data.weight_column 'w' is inf"),
        (["1", "much", "2"], "row 2: column 'w' has numbers in 2 rows (such as '1', '2'), but 'much' here"),
        ([0.0, 0.0, 0.0], "data.weight_column 'w' is 0 in all training rows"),
    ],
)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_invalid_weights(weights: Any, text: str, task: str) -> None:
    table = pa.table({"x": [1.0, 5, 2], "w": weights, "y": [0.0, 1.0, 0.0]})
    with pytest.raises(DataError, match=re.escape(text)):
        set_up(table, task=task, weight_column="w")


@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile", "none"])
@pytest.mark.parametrize("unit", [1e-300, 1e308])
def test_only_the_ratio_of_weights_counts(unit: float, scaling: str) -> None:
    table = pa.table({"x": [1.0, 5, 2, 9], "w": [1.0, 0.5, 0.25, 1], "y": [0.5, 1.5, 2.0, 7]})
    expected = set_up(table, weight_column="w", scaling=scaling).splits["train"]
    scaled = table.set_column(1, "w", pa.array(np.array([1.0, 0.5, 0.25, 1]) * unit))
    found = set_up(scaled, weight_column="w", scaling=scaling).splits["train"]
    assert_close(found.weights_B, expected.weights_B)
    assert_close(found.features_BF, expected.features_BF)
    assert_close(found.targets, expected.targets)


def test_a_regression_has_no_classes_to_balance() -> None:
    with pytest.raises(ConfigError, match=r"data\.class_weight.*needs a target that has classes"):
        rows([0.5, 1.5, 2.5], class_weight="balanced")


def test_a_weight_column_that_is_not_there() -> None:
    with pytest.raises(DataError, match="has no column 'w'"):
        rows(["a", "b"], weight_column="w")
