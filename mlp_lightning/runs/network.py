"""The network of a module, from its configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from mlp_lightning.config import ModelConfig, OwnModelConfig
from mlp_lightning.config.targets import is_import_path
from mlp_lightning.errors import ConfigError, Fault, shown
from mlp_lightning.networks.embeddings import FeatureEmbedding
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.own import OwnNetwork, try_activation
from mlp_lightning.networks.preprocessor import SCALINGS, Preprocessor
from mlp_lightning.runs.module_config import ModuleConfig
from mlp_lightning.tables.targets import Target


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


def refuse_misfit(hyperparameters: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Compare what a file says a module is made of with the tensors that are in it, before any memory is taken.

    Args:
        hyperparameters: arguments of :class:`~mlp_lightning.runs.module.MLPModule`.
        state: its weights and statistics.

    Raises:
        ValueError: they do not belong together.
        KeyError, TypeError: the hyperparameters are none.
    """
    model = hyperparameters["model"]
    layers = model.get("depth"), len(model["hidden_units"]) if isinstance(model.get("hidden_units"), list) else 0
    for number in layers:
        if isinstance(number, int) and number > len(state):
            raise ValueError(f"it asks for {number:,} layers, and has {len(state)} tensors")
    config = ModuleConfig(**hyperparameters)
    preprocessor: Preprocessor | nn.Identity = nn.Identity()
    if config.preprocessing is not None:
        _refuse_columns(config)
        preprocessor = Preprocessor.from_dict(config.preprocessing)
        if preprocessor.out_features != config.in_features:
            raise ValueError(f"in_features = {config.in_features}, and its columns are {preprocessor.out_features}")
    wanted = {f"preprocessor.{name}": one for name, one in preprocessor.state_dict().items()}
    if not isinstance(config.model, OwnModelConfig):
        if is_import_path(config.model.activation):  # the user's own, which may have weights, too
            config.model = dataclasses.replace(config.model, activation="relu")
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            mlp = build_mlp(config, preprocessor)
        wanted |= {f"mlp.{name}": one for name, one in mlp.state_dict().items()}
    for name, one in wanted.items():
        if name not in state:
            raise ValueError(f"{name} {tuple(one.shape)} is missing")
        if state[name].shape != one.shape:
            raise ValueError(
                f"{name} is {tuple(state[name].shape)}, and its hyperparameters ask for {tuple(one.shape)}"
            )
        if state[name].is_floating_point() != one.is_floating_point():
            raise ValueError(f"{name} holds numbers of the type {state[name].dtype}")


def _refuse_columns(config: ModuleConfig) -> None:
    """Refuse columns and targets that no table has, or that are not as many as the network takes and gives."""
    assert config.preprocessing is not None
    if config.preprocessing["scaling"] not in SCALINGS:
        raise ValueError(f"scaling = {shown(config.preprocessing['scaling'])} must be one of {', '.join(SCALINGS)}")
    for column in Preprocessor.from_dict(config.preprocessing).columns:
        pa.array(column.vocabulary, type=column.arrow_type)
    target = Target.from_dict(config.preprocessing["target"])
    for one in target.columns:
        pa.array(one.classes, type=one.arrow_type)
    classes = [len(one.classes) for one in target.columns]
    outputs = {"binary": 1, "multiclass": classes[0] if classes else 0}.get(config.task, len(classes))
    fits = {"binary": classes == [2], "multiclass": len(classes) == 1, "multilabel": set(classes) == {2}}
    if target.task != config.task or outputs != config.out_features or not fits.get(config.task, set(classes) == {0}):
        raise ValueError(f"task = {shown(config.task)} with {config.out_features} outputs does not fit its targets")
