"""How well probabilities agree with what happens, as they are and at a temperature.

Shapes: ``B`` rows, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from mlp_lightning.inference.evaluation.curves import Reliability, reliabilities
from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.calibration import best_temperature
from mlp_lightning.networks.tasks.base import Floats, Metrics

_PARTS = 5
_METRICS = ("log_loss", "brier", "expected_calibration_error")
# One number is fitted: more rows would cost time and change nothing.
_MOST_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Probabilities as the model has them, and with their logits divided by a temperature.

    Attributes:
        before: log-loss, Brier score and expected calibration error of the model.
        reliability: of the model.
        temperature: fitted to these rows (to 100,000 of more); ``None`` of a single row or group.
        parts: of the rows: each is rescaled by the temperature of the others, so that no row is measured with a
            temperature that it decided.
        after: the metrics of the rescaled probabilities; ``None`` without a temperature.
        reliability_after: likewise.
    """

    before: Metrics
    reliability: list[Reliability]
    temperature: float | None = None
    parts: int = 0
    after: Metrics | None = None
    reliability_after: list[Reliability] = dataclasses.field(default_factory=list)


def calibration(model: TrainedModel, rows: EvaluatedRows) -> Calibration | None:
    """The calibration on the rows that count; ``None`` of numbers. Groups of rows stay in one part."""
    if not model.task.has_classes:
        return None
    count = len(rows.targets_BT)
    units_B = np.arange(count) if rows.units_B is None else rows.units_B
    units = int(units_B.max()) + 1
    before = _measured(model, rows, rows.predictions_BC)
    if units < 2:
        return Calibration(*before)
    random, parts = np.random.default_rng(0), min(_PARTS, units)
    part_B = random.permutation(np.arange(units) % parts)[units_B]

    def fitted(places: NDArray[np.int64]) -> float:
        places = random.permutation(places)[:_MOST_ROWS]
        targets = model.task.as_learnt(model.target, rows.targets_BT[places], torch.float64)
        weights = None if rows.weights_B is None else torch.from_numpy(rows.weights_B[places])
        return best_temperature(model.task, torch.from_numpy(rows.predictions_BC[places]), targets, weights)

    rescaled_BC = np.empty_like(rows.predictions_BC)
    for part in range(parts):
        held_B = part_B == part
        rescaled_BC[held_B] = rescaled(model, rows.predictions_BC[held_B], fitted(np.flatnonzero(~held_B)))
    return Calibration(*before, fitted(np.arange(count)), parts, *_measured(model, rows, rescaled_BC))


def rescaled(model: TrainedModel, predictions_BC: Floats, temperature: float) -> Floats:
    """Predictions with their logits divided by a temperature."""
    logits = model.task.logits(torch.from_numpy(predictions_BC)) / temperature
    return model.task.predictions(logits).numpy()


def _measured(model: TrainedModel, rows: EvaluatedRows, predictions_BC: Floats) -> tuple[Metrics, list[Reliability]]:
    facts = model.target, rows.targets_BT, predictions_BC, rows.weights_B
    metrics = model.task.evaluation(*facts).metrics
    return {key: metrics[key] for key in _METRICS if key in metrics}, reliabilities(*facts)
