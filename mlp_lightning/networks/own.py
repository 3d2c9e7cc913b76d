"""A network of the user's own in the place of the MLP, and an activation of the user's own inside of it.

Shapes: ``B`` rows, ``F`` input features, ``C`` outputs (logits).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.networks.embeddings import FeatureEmbedding

_ROWS_TO_TRY = 2


class OwnNetwork(nn.Module):
    """A module of the user's own, after the embedding of the features if there is one.

    It is tried on two rows of zeros, in evaluation mode, so that what it returns is known to be logits before anything
    is trained; layers that take their sizes from the first rows are complete then.

    Args:
        in_features: F.
        out_features: C.
        make: makes the module, given ``in_features`` and ``out_features`` and further arguments.
        path: what the module is called in the configuration.
        options: the further arguments.
        embedding: what features go through first; ``None``: nothing.

    Raises:
        ConfigError: it cannot be made, or does not take ``(B, F)`` to ``(B, C)``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        make: Callable[..., Any],
        path: str,
        options: Mapping[str, Any],
        embedding: FeatureEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.embedding = embedding
        width = in_features if embedding is None else embedding.out_features
        given = {"in_features": width, "out_features": out_features, **options}
        try:
            network = make(**given)
        except Exception as error:  # the class is code of the user's own
            rule = f"cannot be made with {given} ({type(error).__name__}: {error})"
            raise _fault(path, rule) from error
        if not isinstance(network, nn.Module):
            raise _fault(path, f"made a {type(network).__name__} and must make a torch.nn.Module")
        self.network = network
        self._try(path, width)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits ``(B, C)`` of features ``(B, F)``."""
        return self.network(features_BF if self.embedding is None else self.embedding(features_BF))

    @torch.no_grad()
    def _try(self, path: str, width: int) -> None:
        self.network.eval()
        try:
            logits = self.network(torch.zeros(_ROWS_TO_TRY, width))
        except Exception as error:  # as above
            rule = f"cannot take features of shape {(_ROWS_TO_TRY, width)} ({type(error).__name__}: {error})"
            raise _fault(path, rule) from error
        self.network.train()
        expected, there = (_ROWS_TO_TRY, self.out_features), getattr(logits, "shape", type(logits).__name__)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            found = tuple(there) if isinstance(logits, Tensor) else there
            rule = f"returned {found} for {_ROWS_TO_TRY} rows and must return logits of shape {expected}"
            raise _fault(path, rule, "one row for each row of features, and out_features logits in it")
        if next(self.network.parameters(), None) is None:
            raise _fault(path, "has no parameters: there is nothing to train")


@torch.no_grad()
def try_activation(path: str, make: Callable[..., Any], width: int) -> None:
    """Try an activation on two rows.

    Args:
        path: what it is called in the configuration.
        make: makes it, without arguments.
        width: H, of a hidden layer.

    Raises:
        ConfigError: it cannot be made, or does not take ``(B, H)`` to ``(B, H)``.
    """
    shape = (_ROWS_TO_TRY, width)
    try:
        activation = make()
        there = activation(torch.zeros(shape))
    except Exception as error:  # the class is code of the user's own
        rule = f"cannot be made and applied to rows of shape {shape} ({type(error).__name__}: {error})"
        raise ConfigError([Fault("model.activation", path, rule, "it is made without arguments")]) from error
    if not isinstance(activation, nn.Module):
        rule = f"made a {type(activation).__name__} and must make a torch.nn.Module"
        raise ConfigError([Fault("model.activation", path, rule)])
    if not isinstance(there, Tensor) or tuple(there.shape) != shape:
        found = tuple(there.shape) if isinstance(there, Tensor) else type(there).__name__
        raise ConfigError([Fault("model.activation", path, f"returned {found} for rows of shape {shape}")])


def _fault(path: str, rule: str, hint: str = "") -> ConfigError:
    return ConfigError([Fault("model._target_", path, rule, hint)])
