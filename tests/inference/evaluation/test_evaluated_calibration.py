"""Calibration before and after a temperature, of which no row is measured with one that it decided."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from support.inference_tables import flowers

from mlp_lightning.inference.evaluation.calibration import calibration, rescaled
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.loading import load_model
from mlp_lightning.networks.calibration import best_temperature


def rows_of(labels_B: np.ndarray, shares_BC: np.ndarray, **more: object) -> EvaluatedRows:
    return EvaluatedRows("rows", labels_B[:, None].astype(float), shares_BC, None, None, 0, [], **more)  # type: ignore[arg-type]


def test_a_temperature_mends_probabilities_that_are_too_sure(kind_model) -> None:
    model, random = load_model(kind_model.checkpoint), np.random.default_rng(0)
    logits_BC = random.normal(size=(4000, 3))
    shares_BC = np.exp(logits_BC) / np.exp(logits_BC).sum(1, keepdims=True)
    labels_B = (shares_BC.cumsum(1) < random.random((4000, 1))).sum(1).clip(max=2)
    sure_BC = rescaled(model, shares_BC, 1 / 3)
    found = calibration(model, rows_of(labels_B, sure_BC))
    assert found is not None
    assert found.after is not None
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.before["log_loss"] == pytest.approx(log_loss(labels_B, sure_BC))
    assert found.after["log_loss"] == pytest.approx(log_loss(labels_B, shares_BC), rel=2e-3)
    assert (found.after["expected_calibration_error"] or 1) < (found.before["expected_calibration_error"] or 0) / 3
    assert [one.name for one in found.reliability_after] == ["predicted class"]


@pytest.mark.parametrize("units", [None, [0, 0, 1, 1]])
def test_no_row_is_measured_with_a_temperature_that_it_decided(kind_model, units: list[int] | None) -> None:
    """Two parts: each has the temperature of the other."""
    model = load_model(kind_model.checkpoint)
    labels_B = np.array([0, 1, 2, 0]) if units else np.array([0, 1])
    shares_BC = np.array([[0.9, 0.06, 0.04], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5]])[: len(labels_B)]
    part_B = np.arange(2) if units is None else np.array(units)
    found = calibration(model, rows_of(labels_B, shares_BC, units_B=None if units is None else part_B))
    expected_BC = np.empty_like(shares_BC)
    for part in range(2):
        others = torch.from_numpy(shares_BC[part_B != part]), torch.from_numpy(labels_B[part_B != part])
        expected_BC[part_B == part] = rescaled(model, shares_BC[part_B == part], best_temperature(model.task, *others))
    assert found is not None
    assert found.after is not None
    assert found.after["log_loss"] == pytest.approx(log_loss(labels_B, expected_BC, labels=[0, 1, 2]), rel=1e-9)


def test_what_has_no_temperature(kind_model, price_model, tmp_path) -> None:
    """A single row is no more than its probabilities, and numbers have none."""
    report = evaluate(kind_model.checkpoint, tmp_path, frame=flowers(1))
    assert report.calibration is not None
    assert (report.calibration.temperature, report.calibration.after) == (None, None)
    assert (tmp_path / "calibration.png").is_file()
    assert not (tmp_path / "roc.png").exists()
    assert "No intervals: they need more than one of the rows" in report.facts()
    assert evaluate(price_model.checkpoint, tmp_path, frame=flowers(30)).calibration is None
    assert not (tmp_path / "calibration.png").exists()  # of the earlier evaluation
