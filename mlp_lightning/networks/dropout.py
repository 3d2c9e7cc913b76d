"""Dropout (Srivastava et al., 2014) whose masks can be given.

Shapes: ``B`` rows, ``H`` hidden units.
"""

from __future__ import annotations

from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` of a layer of H units; while an engine trains it, the engine gives the masks.

    Args:
        probability: of zeroing a number in training.
        units: H.

    Attributes:
        factors: 0 or 1 / (1 - probability) for each number of the next batch, ``(B, H)``. ``None``, as in a loop of
            your own: torch's generator draws them, as for ``torch.nn.Dropout``.
    """

    factors: Tensor | None = None

    def __init__(self, probability: float, units: int) -> None:
        super().__init__(probability)
        self.units = units

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        if self.factors is None or not self.training:
            return super().forward(input)
        return input * self.factors.to(input.dtype)
