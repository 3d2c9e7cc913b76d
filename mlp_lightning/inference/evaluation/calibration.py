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

_FOLDS = 5
_METRICS = ("log_loss", "brier", "expected_calibration_error")
# One number is fitted: more rows would cost time and change nothing.
_MOST_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Probabilities as the model has them, and with their logits divided by a temperature.

    Attributes:
        temperature: fitted to all rows (to 100,000 of more).
        folds: parts of the rows: those of a part are rescaled by the temperature of the other parts, so that no row is
            measured with a temperature that it decided.
        before: log-loss, Brier score and expected calibration error of the model.
        after: of the rescaled probabilities.
        reliability: of the model.
        reliability_after: of the rescaled probabilities.
    """

    temperature: float
    folds: int
    before: Metrics
    after: Metrics
    reliability: list[Reliability]
    reliability_after: list[Reliability]


def calibration(model: TrainedModel, rows: EvaluatedRows) -> Calibration | None:
    """The calibration on the rows that count; ``None`` of numbers, and of a single row or group."""
    truths_BT, predictions_BC, weights_B = rows.targets_BT, rows.predictions_BC, rows.weights_B
    count = len(truths_BT)
    units_B = np.arange(count) if rows.units_B is None else rows.units_B
    units = int(units_B.max()) + 1
    if not model.task.has_classes or units < 2:
        return None
    random, folds = np.random.default_rng(0), min(_FOLDS, units)
    fold_B = random.permutation(np.arange(units) % folds)[units_B]
    used_B = np.zeros(count, dtype=bool)
    used_B[random.permutation(count)[:_MOST_ROWS]] = True

    def fitted(chosen_B: NDArray[np.bool_]) -> float:
        targets = model.task.as_learnt(model.target, truths_BT[chosen_B], torch.float64)
        weights = None if weights_B is None else torch.from_numpy(weights_B[chosen_B])
        return best_temperature(model.task, torch.from_numpy(predictions_BC[chosen_B]), targets, weights)

    rescaled_BC = np.empty_like(predictions_BC)
    for fold in range(folds):
        held_B = fold_B == fold
        rescaled_BC[held_B] = rescaled(model, predictions_BC[held_B], fitted(used_B & ~held_B))
    before, after = (
        model.task.evaluation(model.target, truths_BT, one, weights_B).metrics for one in (predictions_BC, rescaled_BC)
    )
    return Calibration(
        fitted(used_B),
        folds,
        {key: before[key] for key in _METRICS if key in before},
        {key: after[key] for key in _METRICS if key in after},
        reliabilities(model.target, truths_BT, predictions_BC, weights_B),
        reliabilities(model.target, truths_BT, rescaled_BC, weights_B),
    )


def rescaled(model: TrainedModel, predictions_BC: Floats, temperature: float) -> Floats:
    """Predictions with their logits divided by a temperature."""
    logits = model.task.logits(torch.from_numpy(predictions_BC)) / temperature
    return model.task.predictions(logits).numpy()
