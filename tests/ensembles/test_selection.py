"""Ensemble selection, against plain loops over scikit-learn's metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error

from mlp_lightning.ensembles.selection import greedy_weights, loss_of
from mlp_lightning.networks.tasks import make_task


def probabilities(random: np.random.Generator, labels_B: np.ndarray, classes: int, noise: float) -> np.ndarray:
    logits_BC = np.eye(classes)[labels_B] * 1.5 + random.normal(size=(len(labels_B), classes)) * noise
    shares_BC = np.exp(logits_BC)
    return shares_BC / shares_BC.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_classes_are_weighted_as_a_plain_search_does(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels_B = random.integers(0, classes, 90)
    candidates = [probabilities(random, labels_B, classes, noise) for noise in (0.8, 1.0, 1.6, 2.5)]
    task = make_task("binary" if classes == 2 else "multiclass", 1 if classes == 2 else classes)
    targets = torch.from_numpy(labels_B).double()[:, None] if classes == 2 else torch.from_numpy(labels_B)
    found = greedy_weights(task, torch.from_numpy(np.stack(candidates)), targets)

    chosen: list[int] = []
    best: tuple[float, list[int]] = (np.inf, [])
    while len(chosen) < 40:
        losses = [log_loss(labels_B, np.mean([candidates[n] for n in [*chosen, one]], axis=0)) for one in range(4)]
        chosen.append(int(np.argmin(losses)))
        if min(losses) < best[0]:
            best = min(losses), list(chosen)
    assert found == pytest.approx([best[1].count(one) / len(best[1]) for one in range(4)])
    assert best[0] <= min(log_loss(labels_B, one) for one in candidates)


def test_numbers_are_weighted_by_their_squared_error() -> None:
    random = np.random.default_rng(3)
    values_BT = random.normal(50, 7, (80, 2))
    candidates_NBT = np.stack([values_BT + random.normal(0, noise, (80, 2)) for noise in (3.0, 3.0, 9.0)])
    task = make_task("regression", 2, [50.0, 40.0], [7.0, 2.0])
    targets = (torch.from_numpy(values_BT) - torch.tensor([50.0, 40.0])) / torch.tensor([7.0, 2.0])
    weights_N = greedy_weights(task, torch.from_numpy(candidates_NBT), targets.double())
    assert sum(weights_N) == pytest.approx(1)
    mean_BT = np.tensordot(weights_N, candidates_NBT, 1)
    scale = np.array([7.0, 2.0])
    loss = loss_of(task, torch.from_numpy(mean_BT), targets.double())
    assert loss == pytest.approx(mean_squared_error(values_BT / scale, mean_BT / scale), rel=1e-6)
    assert loss < min(mean_squared_error(values_BT / scale, one / scale) for one in candidates_NBT)


def test_one_candidate_has_all_the_weight() -> None:
    task = make_task("multiclass", 3)
    assert greedy_weights(task, torch.full((1, 5, 3), 1 / 3), torch.zeros(5, dtype=torch.long)) == [1.0]
