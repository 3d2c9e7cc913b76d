"""Two models on the same rows, against formulas, and rows that are not the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from sklearn import metrics
from support.inference_tables import flowers

from mlp_lightning.errors import ConfigError
from mlp_lightning.inference.evaluation.comparison import mcnemar
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.predict import predict


@pytest.mark.parametrize(("this", "other"), [(0, 0), (1, 7), (5, 5), (12, 12), (20, 3)])
def test_mcnemar_of_few_rows_is_exact(this: int, other: int) -> None:
    rows = this + other
    tail = sum(math.comb(rows, one) for one in range(min(this, other) + 1)) / 2**rows
    found = mcnemar(this, other)
    assert found.p_value == pytest.approx(min(1, 2 * tail))
    assert (found.only_this, found.only_other, found.method) == (this, other, "exact")


@pytest.mark.parametrize(("this", "other"), [(25, 0), (13, 12), (13, 13), (40, 70)])
def test_mcnemar_of_many_rows_is_that_of_chi_squared(this: int, other: int) -> None:
    statistic = max(abs(this - other) - 1, 0) ** 2 / (this + other)
    found = mcnemar(this, other)
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(statistic / 2)))
    assert found.method == "chi-squared"


def probabilities(checkpoint: Path, path: Path, folder: Path) -> np.ndarray:
    predict(checkpoint, str(path), folder / "p.parquet", overwrite=True)
    return pyarrow.parquet.read_table(folder / "p.parquet")["probability_True"].to_numpy()


def test_two_models_on_a_table(big_model, labels_model, other_big_model, tmp_path) -> None:
    path = tmp_path / "new.parquet"
    pyarrow.parquet.write_table(flowers(200, seed=9).drop_columns(["weight"]), path)
    out = tmp_path / "out"
    report = evaluate(big_model.checkpoint, out, str(path), compare=other_big_model.checkpoint, resamples=100, seed=5)
    found, truth_B = report.comparison, flowers(200, seed=9)["big"].to_numpy()
    assert found is not None
    this_B, other_B = (probabilities(one.checkpoint, path, tmp_path) for one in (big_model, other_big_model))
    losses = [metrics.log_loss(truth_B, one) for one in (this_B, other_B)]
    assert found.metrics["log_loss"] == pytest.approx(losses[1])
    assert found.differences["log_loss"] == pytest.approx(losses[0] - losses[1])
    draws = np.random.default_rng(5).integers(0, 200, (100, 200))
    differences = [
        metrics.log_loss(truth_B[one], this_B[one]) - metrics.log_loss(truth_B[one], other_B[one]) for one in draws
    ]
    assert found.intervals["log_loss"] == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    right_B, other_right_B = ((one > 0.5) == truth_B for one in (this_B, other_B))
    assert found.mcnemar is not None
    discordant = (right_B & ~other_right_B).sum(), (~right_B & other_right_B).sum()
    assert (found.mcnemar.only_this, found.mcnemar.only_other) == discordant
    record = json.loads((out / "metrics.json").read_text())["comparison"]
    assert record["checkpoint"] == str(other_big_model.checkpoint)
    assert record["mcnemar"]["p_value"] == found.mcnemar.p_value
    assert any("McNemar's test" in line for line in report.facts())
    assert any(line.startswith("Compared with") for line in report.lines())


def test_numbers_and_weights_have_no_mcnemar(
    price_model, other_price_model, big_model, other_big_model, tmp_path
) -> None:
    weighted = evaluate(
        big_model.checkpoint, tmp_path, frame=flowers(90, 3), compare=other_big_model.checkpoint, resamples=30
    )
    assert weighted.comparison is not None
    assert weighted.comparison.mcnemar is None
    assert weighted.comparison.intervals["accuracy"] is not None
    path = tmp_path / "new.parquet"
    pyarrow.parquet.write_table(flowers(90, 3), path)
    guess_B = probabilities(other_big_model.checkpoint, path, tmp_path) > 0.5
    weights_B = flowers(90, 3)["weight"].to_numpy()
    truth_B = flowers(90, 3)["big"].to_numpy()
    expected = metrics.accuracy_score(truth_B, guess_B, sample_weight=weights_B)
    assert weighted.comparison.metrics["accuracy"] == pytest.approx(expected)
    numbers = evaluate(price_model.checkpoint, tmp_path, compare=other_price_model.checkpoint, resamples=30).comparison
    assert numbers is not None
    assert numbers.mcnemar is None
    assert numbers.differences["rmse"] != 0
    assert numbers.intervals["rmse"] is not None


def test_the_same_split_of_the_same_table(other_big_model, longer_big_model, tmp_path) -> None:
    report = evaluate(other_big_model.checkpoint, tmp_path / "a", compare=longer_big_model.checkpoint, resamples=30)
    alone = evaluate(longer_big_model.checkpoint, tmp_path / "b", resamples=0)
    assert report.comparison is not None
    assert report.comparison.metrics == alone.metrics
    assert report.comparison.metrics != report.metrics


def test_what_cannot_be_compared(big_model, kind_model, other_big_model, split_big_model, tmp_path) -> None:
    out = tmp_path / "out"
    for other, text in [
        (kind_model, r"compare = .* is a model of kind \(task multiclass\)"),
        (other_big_model, r"compare = .* is the evaluated model"),
        (split_big_model, r"compare = .* with another split"),
    ]:
        with pytest.raises(ConfigError, match=text):
            evaluate(other_big_model.checkpoint, out, compare=other.checkpoint)
        assert not out.exists()
