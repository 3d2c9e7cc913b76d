"""Several targets of two classes each: what they are, their metrics, and what is predicted."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from sklearn.utils.class_weight import compute_sample_weight
from support.tables import set_up
from support.tolerances import assert_close

from mlp_lightning.errors import DataError
from mlp_lightning.networks.tasks import infer_target, make_task, task_class
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target

ORIGIN = Origin("the table", lambda row: f"line {row + 2}")
TABLE = pa.table(
    {
        "rain": ["yes", "no", "yes", "no"] * 2,
        "wind": [True, True, False, False] * 2,
        "frost": [0, 1, 1, 0] * 2,
        "level": [0.5, -0.5] * 4,
        "degrees": [1.5, 2.0, 2.5, 3.0] * 2,
        "sky": ["clear", "grey", "black", "grey"] * 2,
        "same": ["x"] * 8,
    }
)


def inferred(*names: str, task: str = "auto") -> Target:
    return infer_target(TABLE, names, task, ORIGIN)


def test_targets_of_two_classes_each() -> None:
    target = inferred("rain", "frost", "wind")
    assert (target.task, target.names) == ("multilabel", ("rain", "frost", "wind"))
    assert [one.classes for one in target.columns] == [("no", "yes"), (0, 1), (False, True)]
    assert [one.type for one in target.columns] == ["string", "int64", "bool"]
    assert task_class("multilabel").out_features(target) == 3
    assert Target.from_dict(json.loads(json.dumps(target.to_dict()))) == target
    assert target.numbers(TABLE.slice(0, 2), str).tolist() == [[1, 0, 1], [0, 1, 1]]
    names = task_class("multilabel").prediction_names(target)
    assert names == ["probability_rain_yes", "probability_frost_1", "probability_wind_True"]


@pytest.mark.parametrize(("names", "task"), [(("degrees", "frost"), "regression"), (("frost",), "binary")])
def test_other_targets_pose_other_tasks(names: tuple[str, ...], task: str) -> None:
    assert inferred(*names).task == task


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_two_numbers_in_each_target_are_classes_or_values_as_you_say(task: str) -> None:
    assert inferred("frost", "level", task=task).task == task
    assert inferred("frost", "level").task == "regression"  # -0.5 and 0.5 are not names of classes


@pytest.mark.parametrize(
    ("names", "task", "text"),
    [
        (["rain"], "multilabel", "needs several targets, and data.target has one. Name them all, as in 'data.target=["),
        (["rain", "sky"], "multilabel", "needs two classes in every target, and 'sky' has 3. Leave it out"),
        (["rain", "same"], "auto", "the target 'same' has one class only ('x')"),
        (["rain", "sky"], "auto", "the targets rain, sky pose no task together"),
        (["rain", "wind"], "multiclass", "task=multiclass takes one target, and data.target names 2 (rain, wind)"),
    ],
)
def test_targets_that_do_not_fit(names: list[str], task: str, text: str) -> None:
    with pytest.raises(DataError, match=re.escape(text)):
        inferred(*names, task=task)


def test_predictions_of_two_targets_never_share_a_name() -> None:
    table = pa.table({"a_b": ["c", "d"], "a": ["b", "b_d"], "x": [1, 2]})
    with pytest.raises(DataError, match="two targets would both be predicted as 'probability_a_b_d'"):
        infer_target(table, ["a_b", "a"], "multilabel", ORIGIN)


def rows(count: int = 40, **options: Any) -> Any:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 2))
    columns: dict[str, Any] = {"x": x[:, 0], "z": x[:, 1], "a": np.where(x[:, 0] > 0, "yes", "no"), "b": x[:, 1] > 1}
    return set_up(pa.table(columns), target=["a", "b"], **options)


def test_rows_of_several_targets() -> None:
    data = rows(val_fraction=0.25)
    assert (data.task, data.out_features) == ("multilabel", 2)
    assert [data.splits[one].targets.shape for one in ("train", "val")] == [(30, 2), (10, 2)]
    assert data.splits["train"].targets.unique().tolist() == [0, 1]
    yes = int(sum(one.targets[:, 0].sum() for one in data.splits.values()))
    assert data.describe()[0].startswith(f"40 rows; predicts a, b (multilabel: a yes {yes}, b True ")


def test_classes_of_several_targets_are_balanced_as_in_scikit_learn() -> None:
    draw = np.random.default_rng(2)
    labels_BT = (draw.random((60, 3)) < [0.2, 0.5, 0.7]).astype(int)
    given_B = draw.uniform(0.5, 2, 60)
    columns = {name: pa.array(labels_BT[:, at]) for at, name in enumerate("abc")}
    table = pa.table({"x": draw.normal(size=60), "w": given_B, **columns})
    expected_B = compute_sample_weight("balanced", labels_BT)
    data = set_up(table, target=["a", "b", "c"], class_weight="balanced", kinds={"w": "ignored"})
    assert_close(data.splits["train"].weights_B, torch.tensor(expected_B / expected_B.mean(), dtype=torch.float32))
    weighted = set_up(table, target=["a", "b", "c"], class_weight="balanced", weight_column="w")
    assert (weighted.splits["train"].weights_B > 0).all()
    # Where the given weights are what balances, each class of a single target has the same sum.
    single_B = set_up(table, target="a", class_weight="balanced", weight_column="w").splits["train"].weights_B
    sums = [float(single_B[labels_BT[:, 0] == label].sum()) for label in (0, 1)]
    assert sums[0] == pytest.approx(sums[1])


def test_labels_that_no_training_row_has_are_named() -> None:
    split = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    rain = ["no"] * 13 + ["yes", "no", "yes"] + ["yes", "no"] * 2
    table = pa.table({"x": np.arange(20) % 7 * 0.5, "s": split, "rain": rain, "wind": ["calm", "storm"] * 10})
    said = set_up(table, target=["rain", "wind"], split_column="s").describe()
    assert (
        "no training row has the class 'yes' of 'rain', so the model never predicts it (2 val and 2 test rows have it)"
        in said
    )
    assert not any("'wind'" in line for line in said)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(weighted: bool) -> None:
    generator = np.random.default_rng(3)
    truths_BT = generator.integers(0, 2, (200, 3)).astype(float)
    probabilities_BT = np.clip(0.6 * truths_BT + 0.5 * generator.random((200, 3)), 0.01, 0.99)
    weights_B = generator.uniform(0.5, 2, 200) if weighted else None
    task, target = make_task("multilabel", 3), inferred("rain", "wind", "frost")
    found, of_each, parts, confusion = task.evaluation(target, truths_BT, probabilities_BT, weights_B)
    predicted_BT, given = probabilities_BT > 0.5, {"sample_weight": weights_B}
    assert found["rows"] == 200
    assert_close(found["exact_match"], sklearn_metrics.accuracy_score(truths_BT, predicted_BT, **given))
    assert_close(found["macro_f1"], sklearn_metrics.f1_score(truths_BT, predicted_BT, average="macro", **given))
    assert_close(found["roc_auc"], sklearn_metrics.roc_auc_score(truths_BT, probabilities_BT, **given))
    assert_close(found["brier"], np.average((probabilities_BT - truths_BT) ** 2, 0, weights_B).mean())
    assert_close(found["accuracy"], 1 - sklearn_metrics.hamming_loss(truths_BT, predicted_BT, **given))
    losses = [sklearn_metrics.log_loss(truths_BT[:, one], probabilities_BT[:, one], **given) for one in range(3)]
    assert_close(found["log_loss"], np.mean(losses))
    assert (of_each, [one["label"] for one in parts]) == ("label", ["rain", "wind", "frost"])
    assert [(one["class"], one["rows"]) for one in parts] == [
        (name, int(column_B.sum())) for name, column_B in zip(("yes", "True", "1"), truths_BT.T, strict=True)
    ]
    recalls = sklearn_metrics.recall_score(truths_BT, predicted_BT, average=None, **given)
    assert_close([one["recall"] for one in parts], recalls)
    matrices = sklearn_metrics.multilabel_confusion_matrix(truths_BT, predicted_BT)
    assert [one.tolist() for one in confusion] == matrices.tolist()


def test_a_metric_that_one_target_does_not_define() -> None:
    truths_BT = np.array([[0.0, 1.0], [1.0, 1.0]])
    task = make_task("multilabel", 2)
    found = task.evaluation(inferred("rain", "wind"), truths_BT, np.array([[0.2, 0.9], [0.7, 0.4]]))
    assert found.metrics["roc_auc"] is None
    assert [one["roc_auc"] for one in found.parts] == [1.0, None]
    assert found.metrics["exact_match"] == 0.5
