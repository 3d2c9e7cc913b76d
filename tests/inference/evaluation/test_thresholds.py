"""Thresholds: chosen by rows, against all thresholds one after another; measured on others; and in predictions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from support.inference_tables import flowers

from mlp_lightning.config.inference import ThresholdConfig
from mlp_lightning.errors import ConfigError
from mlp_lightning.inference.evaluation.curves import OneAgainstRest
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.evaluation.thresholds import chosen_threshold, decisions_metrics
from mlp_lightning.inference.predict import predict

COSTS = {"false_positive_cost": 2.0, "false_negative_cost": 5.0}


def worth(one: OneAgainstRest, threshold: float, weights_B: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and cost, from scikit-learn's confusion matrix."""
    matrix = metrics.confusion_matrix(
        one.positive_B, one.score_B >= threshold, labels=[False, True], sample_weight=weights_B
    )
    (_, false), (missed, hit) = matrix
    cost = COSTS["false_positive_cost"] * false + COSTS["false_negative_cost"] * missed
    return hit / (hit + false) if hit + false else 0.0, hit / (hit + missed), cost


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.sampled_from([0.3, 0.5, 0.7, 0.9]), st.booleans())
def test_no_other_threshold_fulfils_a_wish_better(seed: int, count: int, wished: float, weighted: bool) -> None:
    random = np.random.default_rng(seed)
    positive_B = random.random(count) < 0.5
    positive_B[:2] = [True, False]
    one = OneAgainstRest("y", "yes", positive_B, random.integers(0, 11, count) / 10)
    weights_B = random.integers(1, 4, count).astype(float) if weighted else np.ones(count)
    candidates = [worth(one, threshold, weights_B) for threshold in [*np.unique(one.score_B), 1.1]]

    reached = [recall for precision, recall, _ in candidates if precision >= wished - 1e-12]
    if reached and max(reached) > 0:
        threshold = chosen_threshold(one, weights_B, ThresholdConfig(precision=wished))
        precision, recall, _ = worth(one, threshold, weights_B)
        assert precision >= wished - 1e-12
        assert recall == pytest.approx(max(reached))
    else:
        with pytest.raises(ConfigError, match=r"threshold.precision = .* is reached by no threshold"):
            chosen_threshold(one, weights_B, ThresholdConfig(precision=wished))

    threshold = chosen_threshold(one, weights_B, ThresholdConfig(recall=wished))
    precision, recall, _ = worth(one, threshold, weights_B)
    assert recall >= wished - 1e-12
    assert precision == pytest.approx(max(p for p, r, _ in candidates if r >= wished - 1e-12))

    threshold = chosen_threshold(one, weights_B, ThresholdConfig(**COSTS))
    assert worth(one, threshold, weights_B)[2] == pytest.approx(min(cost for *_, cost in candidates))


def test_thresholds_lie_between_probabilities() -> None:
    """Half a bit of rounding moves no row; no row at all can be the best."""
    one = OneAgainstRest("y", "yes", np.array([False, True, True]), np.array([0.2, 0.6, 1.0]))
    assert chosen_threshold(one, None, ThresholdConfig(precision=0.9)) == pytest.approx(0.4)
    assert chosen_threshold(one, None, ThresholdConfig(recall=0.5)) == pytest.approx(0.4)
    no_cost = ThresholdConfig(false_positive_cost=1, false_negative_cost=0)
    worst = dataclasses.replace(one, positive_B=~one.positive_B)
    assert chosen_threshold(worst, None, no_cost) > 1
    high = dataclasses.replace(worst, score_B=np.array([0.2, 0.6, 0.8]))
    assert chosen_threshold(high, None, no_cost) == pytest.approx(0.9)


def test_metrics_of_decisions_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    one = OneAgainstRest("y", "yes", random.random(90) < 0.4, random.random(90))
    weights_B = random.random(90)
    found = decisions_metrics(one, 0.6, weights_B, {"false_positive": 2.0, "false_negative": 5.0})
    both = one.positive_B, one.score_B >= 0.6
    weighted: dict[str, Any] = {"sample_weight": weights_B}
    expected = {
        "precision": metrics.precision_score(*both, **weighted),
        "recall": metrics.recall_score(*both, **weighted),
        "f1": metrics.f1_score(*both, **weighted),
        "false_positive_rate": 1 - metrics.recall_score(*both, pos_label=False, **weighted),
        "accuracy": metrics.accuracy_score(*both, **weighted),
        "mean_cost": worth(one, 0.6, weights_B)[2] / weights_B.sum(),
    }
    assert found == pytest.approx(expected)
    assert decisions_metrics(one, 2.0, None)["precision"] is None


# ---- from a table to predictions -------------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, str]:
    """Rows to choose by, and others."""
    for name, seed in [("known", 7), ("new", 8)]:
        pyarrow.parquet.write_table(flowers(120, seed).drop_columns(["weight"]), tmp_path / f"{name}.parquet")
    return str(tmp_path / "known.parquet"), str(tmp_path / "new.parquet")


def predicted(checkpoint: Path, path: str, folder: Path, threshold: float | str | None) -> pa.Table:
    predict(checkpoint, path, folder / "p.parquet", overwrite=True, threshold=threshold)
    return pyarrow.parquet.read_table(folder / "p.parquet")


def test_a_threshold_is_chosen_measured_and_used(big_model, tables, tmp_path) -> None:
    known, new = tables
    report = evaluate(big_model.checkpoint, tmp_path / "known", known, threshold={"recall": 0.95}, resamples=20)
    record = json.loads((tmp_path / "known" / "metrics.json").read_text())["threshold"]
    value = record["values"]["big"]
    assert value != 0.5
    assert (record["optimistic"], record["chosen_by"]) == (True, "120 rows of known.parquet")
    assert any("its metrics on them are optimistic" in line for line in report.facts())
    assert any("P(big = True) >=" in line for line in report.lines())

    table = predicted(big_model.checkpoint, known, tmp_path, str(tmp_path / "known" / "metrics.json"))
    decided_B = table["predicted_big"].to_numpy()
    np.testing.assert_array_equal(decided_B, table["probability_True"].to_numpy() >= value)
    truth_B = flowers(120, 7)["big"].to_numpy()
    (of_target,) = record["per_target"]
    assert of_target["metrics"]["recall"] == pytest.approx(metrics.recall_score(truth_B, decided_B))
    assert of_target["metrics"]["recall"] >= 0.95
    assert of_target["metrics"]["precision"] == pytest.approx(metrics.precision_score(truth_B, decided_B))
    default_B = predicted(big_model.checkpoint, known, tmp_path, None)["predicted_big"].to_numpy()
    assert of_target["at_half"]["f1"] == pytest.approx(metrics.f1_score(truth_B, default_B))
    assert not np.array_equal(default_B, decided_B)
    share = truth_B.mean()
    always = {
        "precision": share,
        "recall": 1,
        "f1": 2 * share / (1 + share),
        "false_positive_rate": 1,
        "accuracy": share,
    }
    assert of_target["baseline"] == pytest.approx(always)

    # The folder of the evaluation, its file, and the number say the same.
    for same in (str(tmp_path / "known"), str(tmp_path / "known" / "metrics.json"), value):
        other = evaluate(big_model.checkpoint, tmp_path / "new", new, threshold={"value": same}, resamples=0)
        (one,) = other.thresholds
        assert (one.value, one.is_chosen) == (value, False)
        decided_B = predicted(big_model.checkpoint, new, tmp_path, value)["predicted_big"].to_numpy()
        assert one.metrics["recall"] == pytest.approx(
            metrics.recall_score(flowers(120, 8)["big"].to_numpy(), decided_B)
        )
        assert not any("optimistic" in line for line in other.facts())
        assert json.loads((tmp_path / "new" / "metrics.json").read_text())["threshold"]["optimistic"] is False


def test_wishes_that_cannot_be_had(big_model, kind_model, price_model, tables, tmp_path) -> None:
    known, _ = tables
    out = tmp_path / "out"
    for model, wish, text in [
        (kind_model, {"recall": 0.9}, r"is for targets of two classes, and 'kind' has 3 classes"),
        (price_model, {"value": 0.4}, r"is for targets of two classes, and 'price' is a number"),
        (big_model, {"value": str(tmp_path / "none.json")}, r"none.json.* cannot be read: No such file"),
        (big_model, {"precision": 0.9, "recall": 0.9}, r"threshold.recall = 0.9 contradicts threshold.precision"),
        (big_model, {"value": 1.5}, r"threshold.value = 1.5 must be a number between 0 and 1"),
        (big_model, {"value": tmp_path / "none.json"}, r"none.json.* cannot be read: No such file"),
        (big_model, {"precison": 0.9}, r"threshold.precison.*did you mean threshold.precision"),
    ]:
        with pytest.raises(ConfigError, match=text):
            evaluate(model.checkpoint, out, known, threshold=wish)
        assert not out.exists()
    only_big = flowers(120, 7).filter(flowers(120, 7)["big"])
    with pytest.raises(ConfigError, match="needs rows of both classes of 'big', and these have one"):
        evaluate(big_model.checkpoint, out, frame=only_big.drop_columns(["weight"]), threshold={"recall": 0.9})
    with pytest.raises(ConfigError, match=r"threshold = 1.5 must be between 0 and 1"):
        predicted(big_model.checkpoint, known, tmp_path, 1.5)
    with pytest.raises(ConfigError, match="is for targets of two classes"):
        predicted(kind_model.checkpoint, known, tmp_path, 0.5)


def test_the_threshold_of_another_model_is_refused(big_model, tables, tmp_path) -> None:
    known, _ = tables
    evaluate(big_model.checkpoint, tmp_path / "a", known, threshold={"recall": 0.95}, resamples=0)
    file = tmp_path / "a" / "metrics.json"
    whole = json.loads(file.read_text())
    for change, text in [
        ({"model": "0" * 64}, "has the thresholds of another model"),
        ({"values": {"small": 0.4}}, "has no thresholds of these targets"),
        ({"values": {"big": "NaN"}}, "has a threshold that is not a finite number"),
    ]:
        file.write_text(json.dumps({**whole, "threshold": {**whole["threshold"], **change}}))
        with pytest.raises(ConfigError, match=text):
            predicted(big_model.checkpoint, known, tmp_path, str(file))
    file.write_text("[]")
    with pytest.raises(ConfigError, match="has no thresholds of these targets"):
        predicted(big_model.checkpoint, known, tmp_path, str(file))


def test_each_of_several_targets_has_a_threshold(labels_model, tables, tmp_path) -> None:
    known, _ = tables
    evaluate(labels_model.checkpoint, tmp_path / "a", known, threshold=COSTS, resamples=0)
    values = json.loads((tmp_path / "a" / "metrics.json").read_text())["threshold"]["values"]
    assert list(values) == ["big", "wild"]
    table = predicted(labels_model.checkpoint, known, tmp_path, str(tmp_path / "a"))
    for name, value in values.items():
        second_B = table[f"probability_{name}_True"].to_numpy()
        np.testing.assert_array_equal(table[f"predicted_{name}"].to_numpy(), second_B >= value)
        one = OneAgainstRest(name, "True", flowers(120, 7)[name].to_numpy(), second_B)
        costs = [worth(one, threshold, np.ones(120))[2] for threshold in [*np.unique(second_B), 1.1]]
        assert worth(one, value, np.ones(120))[2] == min(costs)
