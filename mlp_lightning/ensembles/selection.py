"""Which candidates predict best together: from predictions of rows that they did not train on.

Shapes: ``N`` candidates, ``B`` rows, ``C`` classes or outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlp_lightning.networks.tasks import Task

_ROUNDS = 40


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
