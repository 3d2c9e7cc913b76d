"""A network in double precision, without copying its modules: that takes longer than the prediction of a few rows.

Shapes: ``B`` rows, ``P`` features, ``C`` outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlp_lightning.networks.mlp import MLP


def in_double(network: nn.Module, features_BP: Tensor) -> Tensor:
    """What ``network.double()(features_BP)`` returns; the network stays as it is.

    Args:
        network: in evaluation mode.
        features_BP: in double precision.
    """
    if isinstance(network, MLP):
        if network.embedding is not None:
            features_BP = in_double(network.embedding, features_BP)
        return in_double(network.layers, features_BP)
    if isinstance(network, nn.Sequential):
        for layer in network:
            features_BP = in_double(layer, features_BP)
        return features_BP
    if isinstance(network, nn.Linear):
        return F.linear(features_BP, network.weight.double(), None if network.bias is None else network.bias.double())
    if not (network._parameters or network._buffers or network._modules):
        return network(features_BP)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weights = {name: one.double() for name, one in tensors.items() if one.is_floating_point()}
    return torch.func.functional_call(network, weights, (features_BP,))
