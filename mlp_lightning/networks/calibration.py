"""How sure a classifier is, and the one number that corrects it.

Shapes: ``B`` rows, ``C`` logits or classes.
"""

from __future__ import annotations

import math

from torch import Tensor

from mlp_lightning.networks.tasks import Task

_TEMPERATURES = (0.3, 5.0)
# Deviation of the logarithm of temperatures before any row is seen; set by judgement, not measured over tables.
_SPREAD = 0.25


def best_temperature(task: Task, predictions_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> float:
    """The most probable temperature (Guo et al., 2017, section 4.2); 1 for numbers.

    Its logarithm is normal around 0 before. Without that, few rows that are all predicted well would ask for the lowest
    temperature, and one row that is predicted wrongly later would cost more than all of them gained. Weighted rows say
    as much as their effective number, ``sum(weight)² / sum(weight²)`` (Kish, "Survey Sampling", 1965).
    """
    if not task.has_classes:
        return 1.0
    from scipy.optimize import minimize_scalar

    logits_BC, rows = task.logits(predictions_BC), float(len(targets))
    if weights_B is not None:
        rows = (weights_B.sum().square() / weights_B.square().sum()).item() if weights_B.any() else 0.0

    def loss(log_temperature: float) -> float:
        of_rows = rows * task.loss(logits_BC / math.exp(log_temperature), targets, None, weights_B).item()
        return of_rows + log_temperature**2 / (2 * _SPREAD**2)

    found = minimize_scalar(loss, bounds=tuple(map(math.log, _TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return math.exp(found.x)
