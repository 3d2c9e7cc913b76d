"""A model as numbers and names from which the page computes what Python computes.

Shapes: ``F`` raw columns, ``N`` numeric ones among them, ``Q`` knots or frequencies, ``D`` numbers of an embedding.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.networks.embeddings import FeatureEmbedding, PeriodicEmbedding
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.residual import ResidualBlock
from mlp_lightning.runs.module import MLPModule

#: Larger networks make the page too large and slow.
MOST_PARAMETERS = 100_000
_ACTIVATION_NAMES = {type(one.module()): name for name, one in ACTIVATIONS.items()}


class NotLive(Exception):  # noqa: N818  # not an error: the page says why it has no live part
    """Why the page cannot compute a network: the key of a text, and what it is filled with."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(key)
        self.key, self.values = key, values


class _Weights:
    """Collects tensors, in the precision of the network, one after another."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._parts: list[Tensor] = []
        self._next = 0
        self._dtype = dtype
        self.names: list[str] = []

    def add(self, name: str, tensor: Tensor | None) -> int:
        """Where its first number is; -1 for no tensor."""
        if tensor is None:
            return -1
        first, flat = self._next, tensor.detach().to(self._dtype).flatten()
        self._parts.append(flat)
        self.names.append(name)
        self._next += len(flat)
        return first

    def text(self) -> str:
        return encoded(torch.cat(self._parts))


def live_network(model: TrainedModel) -> dict[str, Any]:
    """What the page needs to compute the model, as plain data.

    Raises:
        NotLive: it cannot compute this one exactly, or not fast enough.
    """
    module = model.module
    if not isinstance(module, MLPModule):
        raise NotLive("not_live_ensemble", members=len(module.networks))
    mlp = module.mlp
    if not isinstance(mlp, MLP):
        raise NotLive("not_live_own", name=getattr(model.config.model, "_target_", ""))
    parameters = sum(one.numel() for one in mlp.parameters())
    if parameters > MOST_PARAMETERS:
        raise NotLive("not_live_large", parameters=f"{parameters:,}", most=f"{MOST_PARAMETERS:,}")
    dtype = next(mlp.parameters()).dtype
    if dtype not in (torch.float32, torch.float64):
        raise NotLive("not_live_precision", dtype=str(dtype))
    weights = _Weights(dtype)
    embedding = None if mlp.embedding is None else _embedding(mlp.embedding, weights)
    layers = list(_layers("layers", mlp.layers, weights))
    return {
        "preprocessor": _preprocessor(model.preprocessors[0]),
        "embedding": embedding,
        "layers": layers,
        "task": {"name": model.target.task, "mean": list(model.target.mean), "scale": list(model.target.scale)},
        "double": dtype == torch.float64,
        "weights": weights.text(),
        "tensors": weights.names,
    }


def encoded(numbers: Tensor | np.ndarray) -> str:
    """Numbers as base64 of their little-endian bytes."""
    array = numbers.cpu().numpy() if isinstance(numbers, Tensor) else numbers
    return base64.b64encode(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def encoded_weights(spec: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """The weights of another moment of the same training, in the order of :func:`live_network`."""
    dtype = torch.float64 if spec["double"] else torch.float32
    return encoded(torch.cat([state[name].to(dtype).flatten() for name in spec["tensors"]]))


def _preprocessor(one: Preprocessor) -> dict[str, Any]:
    from mlp_lightning.networks.preprocessor import LIMITS

    statistics = torch.cat([one.median_N, one.center_N, one.scale_N, one.knots_QN.flatten()])
    return {
        "scaling": one.scaling,
        "limit": LIMITS[one.scaling],
        **one.plan(),
        "statistics": encoded(statistics.double()),
    }


def _embedding(one: FeatureEmbedding, weights: _Weights) -> dict[str, Any]:
    plain: dict[str, Any] = {"numbers": one.numeric_features, "categories": one.categories, "inputs": one.in_features}
    if one.numbers is not None:
        named: dict[str, Tensor] = dict(one.numbers.named_parameters())
        is_periodic = isinstance(one.numbers, PeriodicEmbedding)
        if not isinstance(one.numbers, PeriodicEmbedding):
            named["edges_QN"] = one.numbers.edges_QN
        places = {name: weights.add(f"embedding.numbers.{name}", tensor) for name, tensor in named.items()}
        bins, size = one.numbers.weights_NQD.shape[1:]
        plain["of_numbers"] = {"kind": "periodic" if is_periodic else "bins", "bins": bins, "size": size, **places}
    tables = [table for table in one.tables if isinstance(table, nn.Embedding)]
    plain["tables"] = [
        {"size": table.embedding_dim, "w": weights.add(f"embedding.tables.{number}.weight", table.weight)}
        for number, table in enumerate(tables)
    ]
    return plain


def _layers(prefix: str, parts: nn.Sequential, weights: _Weights) -> Iterable[dict[str, Any]]:
    for name, part in parts.named_children():
        path = f"{prefix}.{name}"
        if isinstance(part, ResidualBlock):
            yield {"kind": "begin"}
            yield from _layers(f"{path}.layers", part.layers, weights)
            yield {"kind": "add", "name": name}
        elif isinstance(part, nn.Linear):
            places = {"w": weights.add(f"{path}.weight", part.weight), "b": weights.add(f"{path}.bias", part.bias)}
            yield {"kind": "linear", "name": name, "in": part.in_features, "out": part.out_features, **places}
        elif isinstance(part, nn.BatchNorm1d):
            named = {"mean": "running_mean", "var": "running_var", "w": "weight", "b": "bias"}
            places = {key: weights.add(f"{path}.{one}", getattr(part, one)) for key, one in named.items()}
            yield {"kind": "batch", "eps": part.eps, **places}
        elif isinstance(part, nn.LayerNorm):
            places = {"w": weights.add(f"{path}.weight", part.weight), "b": weights.add(f"{path}.bias", part.bias)}
            yield {"kind": "layer", "eps": part.eps, **places}
        elif type(part) in _ACTIVATION_NAMES:
            yield {"kind": "activation", "name": _ACTIVATION_NAMES[type(part)]}
        elif not isinstance(part, Dropout):  # which does nothing after the training
            raise NotLive("not_live_own", name=type(part).__name__)
