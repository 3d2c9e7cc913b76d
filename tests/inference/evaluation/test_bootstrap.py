"""Bootstrap intervals, against resampled rows one after another, and against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from mlp_lightning.inference.evaluation import bootstrap as module
from mlp_lightning.inference.evaluation.bootstrap import Bootstrap, default_resamples, intervals, resampled_weights
from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.evaluation.weightings import metrics_of_weightings
from mlp_lightning.networks.tasks import make_task
from mlp_lightning.tables.targets import Target, TargetColumn

TARGET = Target("binary", (TargetColumn("y", "bool", (False, True)),))


def classified(count: int, seed: int = 0, **more: object) -> EvaluatedRows:
    random = np.random.default_rng(seed)
    labels_B = random.integers(0, 2, count)
    second_B = 1 / (1 + np.exp(-2 * (labels_B - 0.5) - random.normal(size=count)))
    both_B2 = np.stack([1 - second_B, second_B], axis=1)
    return EvaluatedRows("rows", labels_B[:, None].astype(float), both_B2, None, None, 0, [], **more)  # type: ignore[arg-type]


def found(rows: EvaluatedRows, bootstrap: Bootstrap) -> module.Intervals:
    facts = TARGET, rows.targets_BT, rows.predictions_BC
    known = make_task("binary", 1).evaluation(*facts, rows.weights_B).metrics
    return intervals(metrics_of_weightings(*facts), known, rows, bootstrap)


def test_intervals_are_percentiles_of_resampled_rows() -> None:
    """Resampled one after another and measured by scikit-learn."""
    rows, bootstrap = classified(60), Bootstrap(200, 0.9, 7)
    draws = np.random.default_rng(7).integers(0, 60, (200, 60))
    labels_B, second_B = rows.targets_BT[:, 0], rows.predictions_BC[:, 1]
    scores = {
        "accuracy": lambda one: metrics.accuracy_score(labels_B[one], second_B[one] > 0.5),
        "roc_auc": lambda one: metrics.roc_auc_score(labels_B[one], second_B[one]),
        "average_precision": lambda one: metrics.average_precision_score(labels_B[one], second_B[one]),
        "brier": lambda one: metrics.brier_score_loss(labels_B[one], second_B[one]),
    }
    actual = found(rows, bootstrap)
    for name, score in scores.items():
        assert actual[name] == pytest.approx(tuple(np.quantile([score(one) for one in draws], [0.05, 0.95]))), name


def test_intervals_are_those_of_scipy() -> None:
    rows = classified(400)
    right_B = (rows.predictions_BC.argmax(1) == rows.targets_BT[:, 0]).astype(float)
    expected = stats.bootstrap((right_B,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    actual = found(rows, Bootstrap(4000, 0.95, 0))["accuracy"]
    limits = expected.confidence_interval.low, expected.confidence_interval.high
    assert actual == pytest.approx(limits, abs=0.1 * (limits[1] - limits[0]))


def test_rows_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, bootstrap = classified(40), Bootstrap(50, 0.95, 3)
    at_once = found(rows, bootstrap)
    monkeypatch.setattr(module, "_HELD", 90)
    for name, limits in found(rows, bootstrap).items():
        assert limits == pytest.approx(at_once[name], rel=1e-12)
    assert found(rows, Bootstrap(50, 0.95, 4))["brier"] != pytest.approx(at_once["brier"], rel=1e-6)


def test_groups_are_drawn_as_a_whole() -> None:
    groups_B = np.array([0, 1, 1, 2, 2, 2])
    rows = classified(6, units_B=groups_B)
    (weights_RB,) = resampled_weights(rows, Bootstrap(300, 0.95, 0))
    for group in range(3):
        assert (np.ptp(weights_RB[:, groups_B == group], axis=1) == 0).all()
    of_groups_R3 = weights_RB[:, [0, 1, 3]]
    assert (of_groups_R3.sum(axis=1) == 3).all()
    assert of_groups_R3.mean(axis=0) == pytest.approx(1, abs=0.2)


def test_copies_of_rows_in_groups_do_not_narrow_intervals() -> None:
    """Four copies of every row look like four times as many rows, unless their groups are known."""
    rows, four = classified(50), np.arange(50).repeat(4)
    copied = EvaluatedRows("rows", rows.targets_BT[four], rows.predictions_BC[four], None, None, 0, [])
    grouped = EvaluatedRows("rows", rows.targets_BT[four], rows.predictions_BC[four], None, None, 0, [], units_B=four)
    bootstrap = Bootstrap(400, 0.95, 0)
    assert found(grouped, bootstrap)["brier"] == pytest.approx(found(rows, bootstrap)["brier"])
    width, narrow = (np.ptp(found(one, bootstrap)["brier"] or ()) for one in (rows, copied))
    assert narrow == pytest.approx(width / 2, rel=0.2)


def test_what_has_no_interval() -> None:
    """A single row; a metric that most resamples do not define; another metric of the same name."""
    assert set(found(classified(1), Bootstrap(50, 0.95, 0)).values()) == {None}
    one_of_many = classified(30)
    one_of_many.targets_BT[:] = 0
    one_of_many.targets_BT[4] = 1
    limits = found(one_of_many, Bootstrap(200, 0.95, 0))
    assert limits["roc_auc"] is None  # a third of the resamples lack the row
    assert limits["brier"] is not None
    rows = classified(30)
    weightings = metrics_of_weightings(TARGET, rows.targets_BT, rows.predictions_BC)
    assert intervals(weightings, {"brier": 0.123}, rows, Bootstrap(50, 0.95, 0)) == {"brier": None}


@pytest.mark.parametrize(
    ("rows", "classes", "count"), [(500, 2, 1000), (10**6, 2, 100), (50_000, 8, 500), (9, 0, 1000)]
)
def test_resamples_of_many_rows(rows: int, classes: int, count: int) -> None:
    assert default_resamples(rows, classes) == count
