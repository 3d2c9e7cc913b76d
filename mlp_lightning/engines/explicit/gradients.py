"""Forward and backward pass of one MLP without autograd, into buffers that are made once.

Shapes: ``B`` rows, ``F`` input features, ``C`` outputs (logits).
"""

from __future__ import annotations

from torch import Tensor

from mlp_lightning.engines.explicit.embeddings import EmbeddingPart
from mlp_lightning.engines.explicit.parts import LinearPart, make_parts
from mlp_lightning.networks.mlp import MLP


class ExplicitGradients:
    """Logits of a batch and the gradient of a loss of them, for one number of rows.

    Args:
        mlp: whose parameters stay the same tensors, and have their ``grad`` where the gradient goes.
        rows: B.
    """

    def __init__(self, mlp: MLP, rows: int) -> None:
        embedded = mlp.embedding is not None
        like_BF = next(mlp.parameters()).detach().new_empty(rows, 0)
        parts = make_parts(mlp.layers, like_BF, needs_delta=embedded, by_columns=embedded)
        output = parts.pop()
        assert isinstance(output, LinearPart)
        if mlp.embedding is not None:
            parts.insert(0, EmbeddingPart(mlp.embedding, rows))
        self._output = output
        self._forward = [part.forward for part in parts]
        self._backward = [part.backward for part in reversed(parts)]

    def forward(self, features_BF: Tensor, logits_BC: Tensor) -> None:
        """Write the logits of a batch into ``logits_BC``."""
        x = features_BF
        for forward in self._forward:
            x = forward(x)
        self._output.forward_into(x, logits_BC)

    def backward(self, delta_BC: Tensor) -> None:
        """Write the gradients of the parameters, given that of the logits, for the batch of the last ``forward``."""
        delta = self._output.backward(delta_BC)
        for backward in self._backward:
            delta = backward(delta)
