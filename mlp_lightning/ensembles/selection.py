"""Which candidates predict best together, and how sure they are: from predictions of rows that they did not train on.

Shapes: ``N`` candidates, ``B`` rows, ``C`` classes or outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlp_lightning.networks.tasks import Task

_ROUNDS = 40
_TEMPERATURES = (0.3, 5.0)
# Deviation of the logarithm of temperatures before any row is seen; set by judgement, not measured over tables.
_SPREAD = 0.25


def loss_of(task: Task, predictions_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> float:
    """The loss of predictions, as :meth:`Task.predictions` has them; each row counts by its weight."""
    return task.loss(task.logits(predictions_BC), targets, weights_B=weights_B).item()


def greedy_weights(
    task: Task, predictions_NBC: Tensor, targets: Tensor, weights_B: Tensor | None = None, rounds: int = _ROUNDS
) -> list[float]:
    """The weights of candidates in the mean of least loss that a greedy search finds.

    Ensemble selection with replacement (Caruana et al., "Ensemble selection from libraries of models", 2004, section
    2): from the best candidate on, the one is added that gives the mean of least loss; the best of all these means
    counts.

    Args:
        task: of all candidates.
        predictions_NBC: of rows that a candidate's network has not trained on.
        targets: of the same rows.
        weights_B: of the same rows; ``None`` if all count the same.
        rounds: additions.
    """
    counts, total_BC = [0] * len(predictions_NBC), torch.zeros_like(predictions_NBC[0])
    found: list[tuple[float, list[float]]] = []
    for size in range(1, rounds + 1):
        losses = [loss_of(task, (total_BC + one) / size, targets, weights_B) for one in predictions_NBC]
        chosen = losses.index(min(losses))
        counts[chosen] += 1
        total_BC = total_BC + predictions_NBC[chosen]
        found.append((losses[chosen], [count / size for count in counts]))
    return min(found)[1]


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
        of_rows = rows * task.loss(logits_BC / math.exp(log_temperature), targets, weights_B=weights_B).item()
        return of_rows + log_temperature**2 / (2 * _SPREAD**2)

    found = minimize_scalar(loss, bounds=tuple(map(math.log, _TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return math.exp(found.x)
