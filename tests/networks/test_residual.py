"""Residual blocks against a ResNet written by hand after section 3.2 of Gorishniy et al. (2021)."""

from __future__ import annotations

import math

import pytest
import torch
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor, nn

from mlp_lightning.networks.embeddings import FeatureEmbedding
from mlp_lightning.networks.mlp import MLP

pytestmark = pytest.mark.usefixtures("one_thread")  # matrices as small as these lose by a second


class Block(nn.Module):
    def __init__(self, units: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(units)
        self.first = nn.Linear(units, units)
        self.second = nn.Linear(units, units)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BH: Tensor) -> Tensor:
        return x_BH + self.dropout(self.second(self.dropout(torch.relu(self.first(self.norm(x_BH))))))


class ByHand(nn.Module):
    def __init__(self, in_features: int, out_features: int, units: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(in_features, units)
        self.blocks = nn.ModuleList(Block(units, dropout) for _ in range(depth))
        self.norm = nn.BatchNorm1d(units)
        self.head = nn.Linear(units, out_features)

    def forward(self, x_BF: Tensor) -> Tensor:
        x_BH = self.first(x_BF)
        for block in self.blocks:
            x_BH = block(x_BH)
        return self.head(torch.relu(self.norm(x_BH)))


def pair(depth: int = 3, dropout: float = 0.2) -> tuple[MLP, ByHand]:
    """Ours and the one by hand, after one seed."""
    torch.manual_seed(7)
    ours = MLP(4, 3, [6] * depth, "relu", dropout, "batch", residual=True)
    torch.manual_seed(7)
    return ours, ByHand(4, 3, 6, depth, dropout)


@pytest.mark.parametrize("depth", [1, 3])
def test_parameters_and_initial_weights(depth: int) -> None:
    ours, by_hand = pair(depth)
    assert sum(one.numel() for one in ours.parameters()) == (
        (4 * 6 + 6) + depth * (2 * 6 + 2 * (6 * 6 + 6)) + 2 * 6 + (6 * 3 + 3)
    )
    for one, other in zip(ours.parameters(), by_hand.parameters(), strict=True):
        assert_same_bits(one.detach(), other.detach())


def test_forward_and_gradients() -> None:
    ours, by_hand = pair()
    features_BF = torch.randn(9, 4)
    outputs = []
    for model in (ours, by_hand):
        torch.manual_seed(3)
        in_training_BC = model(features_BF)
        in_training_BC.square().sum().backward()
        outputs.append((in_training_BC.detach(), model.eval()(features_BF).detach()))
    for one, other in zip(*outputs, strict=True):
        assert_same_bits(one, other)
    assert not torch.equal(*outputs[0])  # dropout, and the statistics of the batch
    for one, other in zip(ours.parameters(), by_hand.parameters(), strict=True):
        assert_same_bits(one.grad, other.grad)


def test_without_norm_and_dropout_they_are_not_there() -> None:
    model = MLP(4, 3, [6, 6], "tanh", bias=False, residual=True)
    first, *others = [one for one in model.modules() if isinstance(one, nn.Linear)]
    assert {type(one) for one in model.modules() if not list(one.children())} == {nn.Linear, nn.Tanh}
    x_BF = torch.randn(5, 4)
    x_BH = x_BF @ first.weight.T
    for inner, outer in (others[0:2], others[2:4]):
        x_BH = x_BH + torch.tanh(x_BH @ inner.weight.T) @ outer.weight.T
    assert_close(model(x_BF), torch.tanh(x_BH) @ others[4].weight.T)


def test_gain_is_that_of_the_activation_that_follows() -> None:
    torch.manual_seed(0)
    model = MLP(200, 200, [200], "relu", init="kaiming_normal", residual=True)
    deviations = [
        float(one.weight.detach().std()) * math.sqrt(200) for one in model.modules() if isinstance(one, nn.Linear)
    ]
    assert deviations == pytest.approx([1.0, math.sqrt(2), 1.0, 1.0], rel=0.03)


def test_embedding_comes_first() -> None:
    embedding = FeatureEmbedding(3, 3, [], "periodic", 2, 4, 0.1)
    model = MLP(3, 2, [5], embedding=embedding, residual=True)
    features_BF = torch.randn(4, 3)
    assert_same_bits(model(features_BF), model.layers(embedding(features_BF)))


@pytest.mark.parametrize("widths", [[], [3, 4]])
def test_widths_have_to_be_equal(widths: list[int]) -> None:
    with pytest.raises(ValueError, match="equal widths for residual blocks"):
        MLP(4, 3, widths, residual=True)
