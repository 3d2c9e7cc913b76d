"""The gradients that the explicit engine writes out, against those of autograd."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor

from mlp_lightning.config import OptimizerConfig
from mlp_lightning.engines.dropout import ModuleDropout
from mlp_lightning.engines.explicit.gradients import ExplicitGradients
from mlp_lightning.engines.explicit.optimizer import FlatOptimizer
from mlp_lightning.networks import MLP, make_task
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.embeddings import FeatureEmbedding

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small
ROWS, FEATURES = 13, 5


def features() -> Tensor:
    draw = torch.Generator().manual_seed(3)
    numbers_BN = torch.randn(ROWS, FEATURES - 1, generator=draw, dtype=torch.float64)
    codes_B = torch.randint(0, 4, (ROWS, 1), generator=draw).double()
    return torch.cat([numbers_BN, codes_B], dim=1)


def targets(task: str, outputs: int) -> Tensor:
    draw = torch.Generator().manual_seed(4)
    if task == "multiclass":
        return torch.randint(0, outputs, (ROWS,), generator=draw)
    if task == "regression":
        return torch.randn(ROWS, outputs, generator=draw, dtype=torch.float64)
    return torch.randint(0, 2, (ROWS, outputs), generator=draw).double()


def compare(task: str = "multiclass", smoothing: float = 0.0, weighted: bool = False, **options: Any) -> None:
    """Logits and gradients of two batches, the second of which has other rows."""
    outputs = {"binary": 1, "multiclass": 3, "multilabel": 4, "regression": 2}[task]
    torch.manual_seed(1)
    mlp = MLP(FEATURES, outputs, options.pop("hidden_units", [7, 6]), **options).double()
    flat = FlatOptimizer(list(mlp.parameters()), OptimizerConfig("SGD", 0.1, {}))
    flat.give_gradients()
    chain, learned = ExplicitGradients(mlp, ROWS), make_task(task, outputs, [0.0] * outputs, [1.0] * outputs)
    weights_B = torch.linspace(0, 2, ROWS, dtype=torch.float64) if weighted else None
    truths = targets(task, outputs)
    masks = ModuleDropout.of(mlp, seed=2)
    for step, features_BF in enumerate((features(), features().flip(0))):
        if masks is not None:
            masks.begin(step, ROWS)
        logits_BC = torch.empty(ROWS, outputs, dtype=torch.float64)
        with torch.no_grad():
            chain.forward(features_BF, logits_BC)
            smooth = torch.tensor(smoothing, dtype=torch.float64) if smoothing else None
            chain.backward(learned.loss_gradient(logits_BC, truths, smooth, weights_B))
        written = [one.grad.clone() for one in mlp.parameters() if one.grad is not None]
        expected_BC = mlp(features_BF)
        loss = learned.loss(expected_BC, truths, smoothing or None, weights_B)
        expected = torch.autograd.grad(loss, list(mlp.parameters()))
        assert_close(logits_BC, expected_BC, atol=1e-12)
        for one, other in zip(written, expected, strict=True):
            assert_close(one, other, atol=1e-12)
        assert_same_bits(flat.gradient_N, torch.cat([one.flatten() for one in written]))


def test_several_categories_have_a_table_each() -> None:
    """Their tables are looked up as one; a code of the last is no code of the first."""
    draw = torch.Generator().manual_seed(5)
    codes_BE = torch.stack([torch.randint(0, most, (ROWS,), generator=draw) for most in (3, 9, 4)], dim=1)
    features_BF = torch.cat([torch.randn(ROWS, 2, generator=draw, dtype=torch.float64), codes_BE.double()], dim=1)
    torch.manual_seed(1)
    embedding = FeatureEmbedding(5, 1, [3, 9, 4], "piecewise_linear", size=2, frequencies=3)
    mlp = MLP(5, 2, [4], embedding=embedding).double()
    flat = FlatOptimizer(list(mlp.parameters()), OptimizerConfig("SGD", 0.1, {}))
    flat.give_gradients()
    chain, logits_BC = ExplicitGradients(mlp, ROWS), torch.empty(ROWS, 2, dtype=torch.float64)
    for _ in range(2):  # the gradients of a batch do not add up with those of the one before
        with torch.no_grad():
            chain.forward(features_BF, logits_BC)
            chain.backward(logits_BC.cos())
    expected = torch.autograd.grad(mlp(features_BF).sin().sum(), list(mlp.parameters()))
    assert_close(flat.gradient_N, torch.cat([one.flatten() for one in expected]), atol=1e-12)


def test_running_statistics_of_batch_norm() -> None:
    torch.manual_seed(1)
    mlp = MLP(FEATURES, 2, [4, 3], norm="batch").double()
    alike = copy.deepcopy(mlp)
    flat = FlatOptimizer(list(mlp.parameters()), OptimizerConfig("SGD", 0.1, {}))
    flat.give_gradients()
    chain = ExplicitGradients(mlp, ROWS)
    for features_BF in (features(), features() * 3 + 1):
        with torch.no_grad():
            chain.forward(features_BF, torch.empty(ROWS, 2, dtype=torch.float64))
        alike(features_BF)
    buffers = dict(mlp.named_buffers())
    assert len(buffers) == 6
    for name, expected in alike.named_buffers():
        assert_close(buffers[name], expected, atol=1e-12)


@pytest.mark.parametrize("activation", [name for name, one in ACTIVATIONS.items() if one.written_out is not None])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_every_activation(activation: str, norm: str) -> None:
    compare(activation=activation, norm=norm)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_task(task: str, weighted: bool) -> None:
    compare(task, weighted=weighted)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_smoothed_labels(task: str) -> None:
    compare(task, smoothing=0.15)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_units": []},
        {"hidden_units": [9]},
        {"bias": False},
        {"dropout": 0.4},
        {"dropout": 0.3, "activation": "gelu", "norm": "layer"},
        {"norm": "batch"},
        {"hidden_units": [6, 6], "residual": True},
        {"hidden_units": [6, 6], "residual": True, "norm": "batch", "dropout": 0.2},
        {"embedding": ("none", [5])},
        {"embedding": ("periodic", [5]), "activation": "tanh"},
        {"embedding": ("piecewise_linear", []), "hidden_units": []},
        {"embedding": ("periodic", []), "hidden_units": [6, 6], "residual": True},
    ],
)
def test_every_part(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    options = dict(options)
    if kind_and_codes := options.pop("embedding", None):
        kind, codes = kind_and_codes
        options["embedding"] = FeatureEmbedding(FEATURES, FEATURES - 1, codes, kind, size=3, frequencies=4)
    compare(**options)
