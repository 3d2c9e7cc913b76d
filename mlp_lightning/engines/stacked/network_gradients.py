"""Forward and backward pass of stacked networks of any parts, by torch's autograd.

Shapes: ``K`` members, ``B`` rows, ``C`` outputs (logits), ``H`` hidden units, ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlp_lightning.engines.stacked.network import Pass, StackedNetwork


class NetworkGradients:
    """Logits of a batch and the gradient of a loss of them, as :class:`StackedGradients` has them.

    Args:
        model: the stack. Its parameter must stay the same tensor.
        gradient_N: where the gradient goes; laid out like the parameter.
    """

    def __init__(self, model: StackedNetwork, gradient_N: Tensor) -> None:
        self._model, self._gradient_N = model, gradient_N
        self._leaves = model.leaves(gradient_N)
        self._tensors = model.tensors(model.flat_N.data, self._leaves)
        self._normalises_rows = model.normalises_rows
        self._counts: tuple[list[int], Tensor] | None = None
        self._logits_KBC = gradient_N
        #: Of each member, how many of the rows of the next batch are its own; ``None``: all.
        self.own_rows: list[int] | None = None

    def forward(self, features: Tensor, logits_KBC: Tensor, dropout: list[Tensor] | None = None) -> None:
        """Write the logits of a batch into ``logits_KBC``."""
        counts_KB1 = self._counts_of(features) if self._normalises_rows else None
        with torch.enable_grad():
            for output in Pass(self._model, self._tensors, dropout, True, counts_KB1).layer_outputs(features):
                self._logits_KBC = output
        logits_KBC.copy_(self._logits_KBC.detach())

    def backward(self, features: Tensor, delta_KBC: Tensor, dropout: list[Tensor] | None = None) -> None:
        """Write the gradient of the parameters, given that of the logits, for the batch of the last ``forward``."""
        self._gradient_N.zero_()
        self._logits_KBC.backward(delta_KBC)

    def _counts_of(self, features: Tensor) -> Tensor | None:
        rows = features.shape[-2]
        if self.own_rows is None or min(self.own_rows) == rows:
            return None
        if self._counts is None or self._counts[0] != self.own_rows:
            own_K1 = torch.tensor(self.own_rows, device=features.device)[:, None]
            counts_KB = torch.arange(rows, device=features.device) < own_K1
            self._counts = (self.own_rows, counts_KB.unsqueeze(-1).to(features.dtype))
        return self._counts[1]
