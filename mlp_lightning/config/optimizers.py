"""Optimizers: section ``optimizer`` of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mlp_lightning.config import names
from mlp_lightning.config.rules import at_least, one_of, option


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """One of torch's optimizers.

    Every further key is an argument of its class in ``torch.optim``; its file lists them with torch's own defaults.
    """

    name: str = option(
        "SGD",
        one_of(names.TORCH_OPTIMIZERS),
        meaning="class in torch.optim; optimizer=adam chooses it with its arguments",
    )
    lr: float = option(0.1, at_least(0), meaning="learning rate at the start")
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OwnOptimizerConfig(OptimizerConfig):
    """An optimizer of the user's own; ``name`` is that of its class."""

    _target_: str = option("", meaning="import path of a torch.optim.Optimizer, made with the parameters and lr")
