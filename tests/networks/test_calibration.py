"""Temperatures, against a grid of scikit-learn's log loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from mlp_lightning.networks.calibration import best_temperature
from mlp_lightning.networks.tasks import make_task


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


def test_rows_say_as_much_as_their_effective_number() -> None:
    """Against a grid of the posterior; the mean loss is that of rows repeated by their weights."""
    random = np.random.default_rng(4)
    logits_BC = torch.from_numpy(3 * random.normal(size=(60, 3)))
    labels_B, weights_B = torch.from_numpy(random.integers(0, 3, 60)), torch.from_numpy(random.integers(0, 4, 60))
    task, often = make_task("multiclass", 3), torch.arange(60).repeat_interleave(weights_B)
    found = best_temperature(task, logits_BC.softmax(-1), labels_B, weights_B.double())
    rows = weights_B.sum().item() ** 2 / (weights_B**2).sum().item()
    logs = np.linspace(np.log(0.3), np.log(5), 4001)
    tempered = [(logits_BC[often] / np.exp(one)).softmax(-1).numpy() for one in logs]
    losses = [rows * log_loss(labels_B[often].numpy(), one, labels=[0, 1, 2]) for one in tempered]
    assert found == pytest.approx(np.exp(logs[np.argmin(np.array(losses) + logs**2 / (2 * 0.25**2))]), rel=5e-3)
    assert found != pytest.approx(best_temperature(task, logits_BC.softmax(-1), labels_B), rel=2e-3)
