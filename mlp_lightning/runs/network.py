"""The network of a module, from its configuration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mlp_lightning.config import ModelConfig, OwnModelConfig
from mlp_lightning.config.targets import is_import_path
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.networks.embeddings import FeatureEmbedding
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.own import OwnNetwork, try_activation
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.runs.module_config import ModuleConfig


def build_mlp(
    config: ModuleConfig,
    preprocessor: Preprocessor | nn.Identity,
    network: Callable[..., nn.Module] | None = None,
    own_activation: Callable[[], nn.Module] | None = None,
) -> MLP | OwnNetwork:
    """The network, with weights drawn from torch's default generator."""
    model = config.model
    activation: str | Callable[[], nn.Module] = model.activation
    is_own = is_import_path(activation) and not isinstance(model, OwnModelConfig)
    if is_own and own_activation is None:
        rule, hint = "is not imported automatically", "give MLPModule its class as activation_class"
        raise ConfigError([Fault("model.activation", activation, rule, hint)])
    if own_activation is not None:
        if not is_own:
            rule = "has no effect: model.activation is no import path"
            raise ConfigError([Fault("activation_class", own_activation, rule, "give both, or neither")])
        with torch.random.fork_rng(devices=[]):  # what it draws is not drawn from what the weights are
            try_activation(model.activation, own_activation, (model.layer_widths or [1])[0])
        activation = own_activation
    if isinstance(model, OwnModelConfig):
        if not callable(network):
            rule, hint = "is not imported automatically", "give MLPModule its class as network"
            raise ConfigError([Fault("model._target_", model._target_, rule, hint)])
        embedding = build_embedding(model, config.in_features, preprocessor)
        features = config.in_features, config.out_features
        return OwnNetwork(*features, network, model._target_, model.options, embedding)
    if network is not None:
        raise ConfigError([Fault("network", network, "has no effect: model has no _target_", "give both, or neither")])
    return MLP(
        config.in_features,
        config.out_features,
        model.layer_widths,
        activation,
        model.dropout,
        model.norm,
        model.bias,
        model.init,
        build_embedding(model, config.in_features, preprocessor),
        model.residual,
    )


def build_embedding(
    model: ModelConfig, in_features: int, preprocessor: Preprocessor | nn.Identity
) -> FeatureEmbedding | None:
    """What features go through before the MLP; ``None`` if they enter it as they are."""
    numbers, cardinalities = in_features, []
    if isinstance(preprocessor, Preprocessor):
        numbers, cardinalities = preprocessor.numeric_features, preprocessor.cardinalities
    if not cardinalities and (model.numeric_embedding == "none" or not numbers):
        return None
    return FeatureEmbedding(
        in_features,
        numbers,
        cardinalities,
        model.numeric_embedding,
        model.embedding_size,
        model.embedding_frequencies,
        model.embedding_sigma,
    )
