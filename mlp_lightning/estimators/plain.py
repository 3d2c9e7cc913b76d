"""A trained module as plain data and arrays: what pickles and other files of an estimator hold of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mlp_lightning.runs.module import MLPModule


def plain_module(module: MLPModule) -> dict[str, Any]:
    """Hyperparameters and weights of a module, as :func:`module_of` takes them."""
    return {"hyperparameters": copy.deepcopy(dict(module.hparams)), "weights": as_arrays(module.state_dict())}


def module_of(plain: Mapping[str, Any]) -> MLPModule:
    """The module, in evaluation mode."""
    module, weights = MLPModule(**plain["hyperparameters"]), as_tensors(plain["weights"])
    name, _ = next(module.mlp.named_parameters())
    module = module.to(weights[f"mlp.{name}"].dtype)
    module.load_state_dict(weights)
    return module.eval()


def as_arrays(value: Any) -> Any:
    """Nested dicts and lists with arrays in the place of tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, Mapping):
        return {key: as_arrays(one) for key, one in value.items()}
    return [as_arrays(one) for one in value] if isinstance(value, list) else value


def as_tensors(value: Any) -> Any:
    """Nested dicts and lists with tensors in the place of arrays."""
    if isinstance(value, np.ndarray):
        return torch.tensor(value)  # a copy: a file may be mapped to memory that cannot be written to
    if isinstance(value, Mapping):
        return {key: as_tensors(one) for key, one in value.items()}
    return [as_tensors(one) for one in value] if isinstance(value, list) else value
