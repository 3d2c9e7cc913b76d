"""Ensemble selection and temperatures, against plain loops over scikit-learn's metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error

from mlp_lightning.ensembles.selection import best_temperature, greedy_weights, loss_of
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


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.5])
def test_temperatures_undo_what_logits_were_multiplied_by(factor: float) -> None:
    random = np.random.default_rng(1)
    logits_BC = torch.from_numpy(random.normal(size=(20_000, 3)))
    uniform_B1 = torch.from_numpy(random.random((20_000, 1)))
    labels_B = (logits_BC.softmax(-1).cumsum(-1) < uniform_B1).sum(-1).clamp(max=2)
    task = make_task("multiclass", 3)
    found = best_temperature(task, (logits_BC * factor).softmax(-1), labels_B)
    assert found == pytest.approx(factor, rel=0.05)


def test_few_rows_that_are_all_right_change_little() -> None:
    """Against a grid of the same posterior, from scikit-learn's log loss."""
    labels_B = np.arange(30) % 3
    shares_BC = np.full((30, 3), 0.02) + 0.94 * np.eye(3)[labels_B]
    found = best_temperature(make_task("multiclass", 3), torch.from_numpy(shares_BC), torch.from_numpy(labels_B))
    logs = np.linspace(np.log(0.3), np.log(5), 4001)
    tempered = [shares_BC ** (1 / np.exp(one)) for one in logs]
    losses = [30 * log_loss(labels_B, one / one.sum(1, keepdims=True)) for one in tempered]
    assert found == pytest.approx(np.exp(logs[np.argmin(np.array(losses) + logs**2 / (2 * 0.25**2))]), rel=5e-3)
    assert 0.7 < found < 1


def test_temperatures_are_of_classes() -> None:
    assert best_temperature(make_task("regression", 1), torch.rand(5, 1), torch.rand(5, 1).double()) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_rows_count_as_copies_of_them_do(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels_B, copies_B = random.integers(0, 3, 80), random.integers(0, 4, 80)
    shares_NBC = torch.from_numpy(np.stack([probabilities(random, labels_B, 3, noise) for noise in (1.0, 1.0, 1.1)]))
    task, targets, rows = make_task("multiclass", 3), torch.from_numpy(labels_B), np.repeat(np.arange(80), copies_B)
    weights_B = torch.from_numpy(copies_B * 0.7)
    loss = loss_of(task, shares_NBC[0], targets, weights_B)
    assert loss == pytest.approx(log_loss(labels_B, shares_NBC[0].numpy(), sample_weight=copies_B), rel=1e-9)
    found = greedy_weights(task, shares_NBC, targets, weights_B)
    assert found == pytest.approx(greedy_weights(task, shares_NBC[:, rows], targets[rows]))
    assert found != greedy_weights(task, shares_NBC, targets)


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_of_rows_count_in_the_temperature(classes: int) -> None:
    """Half of the rows are overconfident, the others underconfident: the weights say whose temperature it is."""
    random = np.random.default_rng(classes)
    logits_BC = torch.from_numpy(random.normal(size=(8000, classes)))
    labels_B = (logits_BC.softmax(-1).cumsum(-1) < torch.from_numpy(random.random((8000, 1)))).sum(-1)
    labels_B = labels_B.clamp(max=classes - 1)
    factors_B1 = torch.where(torch.arange(8000) < 4000, 0.5, 2.0)[:, None]
    task = make_task("binary" if classes == 2 else "multiclass", 1 if classes == 2 else classes)
    targets = labels_B.double()[:, None] if classes == 2 else labels_B
    for factor in (0.5, 2.0):
        weights_B = (factors_B1[:, 0] == factor).double()
        found = best_temperature(task, (logits_BC * factors_B1).softmax(-1), targets, weights_B)
        assert found == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_temperature_of_weighted_rows_knows_no_unit(scale: float) -> None:
    labels_B, random = np.arange(40) % 2, np.random.default_rng(8)
    shares_BC = torch.from_numpy(probabilities(random, labels_B, 2, 1.0))
    targets, weights_B = torch.from_numpy(labels_B).double()[:, None], torch.from_numpy(random.random(40))
    task = make_task("binary", 1)
    found, again = (best_temperature(task, shares_BC, targets, weights_B * one) for one in (1.0, scale))
    assert found == pytest.approx(again, rel=1e-3)
    assert best_temperature(task, shares_BC, targets, torch.ones(40)) == pytest.approx(
        best_temperature(task, shares_BC, targets), rel=1e-6
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("is_right", [True, False])
def test_a_few_rows_do_not_reach_the_bounds(rows: int, is_right: bool) -> None:
    labels_B = np.arange(rows) % 2
    shares_BC = np.where(np.eye(2)[labels_B] == is_right, 0.999, 0.001)
    targets = torch.from_numpy(labels_B).double()[:, None]
    found = best_temperature(make_task("binary", 1), torch.from_numpy(shares_BC), targets)
    assert 0.31 < found < 4.9
