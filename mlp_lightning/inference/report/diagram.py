"""The layers of a model in their order, for the drawing of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.ensemble import Ensemble
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.residual import ResidualBlock

_MOST_STAGES = 40


class Stage(NamedTuple):
    """A part of a model.

    Attributes:
        name: what it is.
        detail: its size or kind.
        parameters: how many it learned; 0 where it learns none.
    """

    name: str
    detail: str
    parameters: int


def stages(model: TrainedModel, texts: Mapping[str, str]) -> list[Stage]:
    """From the columns to the predictions; of an ensemble one member, and how many there are."""
    module = model.module
    found = [Stage(texts["stage_columns"], f"{len(model.columns)}", 0)]
    features = model.preprocessors[0].out_features
    found.append(Stage(texts["stage_preprocessing"], f"{model.preprocessors[0].scaling} → {features}", 0))
    network = module.networks[0] if isinstance(module, Ensemble) else module.mlp
    if isinstance(network, MLP):
        if network.embedding is not None:
            size = f"{features} → {network.embedding.out_features}"
            found.append(Stage(texts["stage_embedding"], size, _count(network.embedding)))
        parts = list(_parts(network.layers, texts))
        found += parts[: _MOST_STAGES // 2] + [Stage("…", f"{len(parts) - _MOST_STAGES}", 0)] * (
            len(parts) > _MOST_STAGES
        )
        found += parts[max(_MOST_STAGES // 2, len(parts) - _MOST_STAGES // 2) :]
    else:
        found.append(Stage(type(getattr(network, "network", network)).__name__, "", _count(network)))
    if isinstance(module, Ensemble):
        found.append(Stage(texts["stage_mean"], f"{len(module.networks)}", 0))
    names = ", ".join(model.target.names[:5])
    return [*found, Stage(texts["stage_predictions"], f"{model.task.output_activation}: {names}", 0)]


def _parts(layers: nn.Module, texts: Mapping[str, str]) -> Iterator[Stage]:
    for name, part in layers.named_children():
        if isinstance(part, nn.Linear):
            yield Stage(texts["stage_linear"], f"{part.in_features} → {part.out_features}", _count(part))
        elif isinstance(part, ResidualBlock):
            yield Stage(texts["stage_block"], name.removeprefix("block_"), _count(part))
        elif isinstance(part, nn.Dropout):
            yield Stage(texts["stage_dropout"], f"{part.p:g}", 0)
        else:
            yield Stage(type(part).__name__, "", _count(part))


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
