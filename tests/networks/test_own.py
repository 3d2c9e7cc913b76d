"""A network of the user's own: what it is given, and what it must return."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tolerances import assert_same_bits
from torch import nn

from mlp_lightning.errors import ConfigError
from mlp_lightning.networks.embeddings import FeatureEmbedding
from mlp_lightning.networks.own import OwnNetwork


class Linear(nn.Linear):
    def __init__(self, in_features: int, out_features: int, scale: float = 1.0) -> None:
        super().__init__(in_features, out_features)
        self.scale = scale


class Lazy(nn.Sequential):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(nn.LazyLinear(5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, out_features))


def own(make: Any, **options: Any) -> OwnNetwork:
    return OwnNetwork(4, 3, make, "mine.Net", options)


def test_it_is_what_was_made() -> None:
    network = own(Linear, scale=2.0)
    features_BF = torch.randn(5, 4)
    assert network.network.scale == 2.0
    assert_same_bits(network(features_BF), network.network(features_BF))


def test_trying_it_leaves_it_as_it_was() -> None:
    """Layers know their sizes; statistics, mode and random numbers are those of a network that nobody has tried."""
    torch.manual_seed(3)
    network = own(Lazy)
    after = torch.rand(1)
    torch.manual_seed(3)
    by_hand = nn.Sequential(nn.Linear(4, 5))
    assert all(one.training for one in network.modules())
    assert network.network[0].weight.shape == (5, 4)
    assert not network.network[1].running_mean.any()
    assert network.network[1].num_batches_tracked == 0
    assert by_hand[0].weight.shape == network.network[0].weight.shape
    assert after.shape == (1,)


def test_an_embedding_comes_first() -> None:
    embedding = FeatureEmbedding(4, 4, [], "periodic", 2, 4, 0.1)
    network = OwnNetwork(4, 3, Linear, "mine.Net", {}, embedding)
    assert network.network.in_features == embedding.out_features
    features_BF = torch.randn(5, 4)
    assert_same_bits(network(features_BF), network.network(embedding(features_BF)))


def returning(value: Any) -> type[nn.Module]:
    class Net(nn.Module):
        def __init__(self, in_features: int, out_features: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, features_BF: torch.Tensor) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

    return Net


class NoParameters(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        return features_BF[:, :3]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Linear, {"width": 3}, r"cannot be made with .*'width': 3.* unexpected keyword argument 'width'"),
        (lambda **_: 3, {}, "made a int and must make a torch.nn.Module"),
        (returning(torch.zeros(2)), {}, r"returned \(2,\) for 2 rows and must return logits of shape \(2, 3\)"),
        (returning(torch.zeros(2, 1)), {}, r"returned \(2, 1\) for 2 rows and must return logits of shape \(2, 3\)"),
        (returning(torch.zeros(3, 2)), {}, r"returned \(3, 2\) for 2 rows"),
        (returning((torch.zeros(2, 3), 1)), {}, "returned tuple for 2 rows"),
        (returning(RuntimeError("no")), {}, r"cannot take features of shape \(2, 4\) \(RuntimeError: no\)"),
        (NoParameters, {}, "has no parameters: there is nothing to train"),
    ],
)
def test_what_is_wrong_with_it_is_said(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"model._target_ = 'mine.Net' {message}"):
        own(make, **options)
