"""Residual blocks: the ResNet of "Revisiting Deep Learning Models for Tabular Data" (Gorishniy et al., 2021).

Section 3.2 there::

    ResNet(x)      = Prediction(ResNetBlock(… ResNetBlock(Linear(x))))
    ResNetBlock(x) = x + Dropout(Linear(Dropout(ReLU(Linear(BatchNorm(x))))))
    Prediction(x)  = Linear(ReLU(BatchNorm(x)))

Here activation, norm and dropout are options, and a block is as wide inside as outside.

Shapes: ``B`` rows, ``H`` hidden units.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from mlp_lightning.networks.dropout import Dropout


class ResidualBlock(nn.Module):
    """``x + Dropout(Linear(Dropout(activation(Linear(norm(x))))))``.

    Args:
        units: H.
        make_activation: makes the activation.
        make_norm: makes the normalisation of H units; ``None`` for none.
        dropout: probability of zeroing a number, after either linear layer.
        bias: whether the linear layers have a bias.
    """

    def __init__(
        self,
        units: int,
        make_activation: Callable[[], nn.Module],
        make_norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if make_norm is not None:
            parts["norm"] = make_norm(units)
        parts["linear"] = nn.Linear(units, units, bias=bias)
        parts["activation"] = make_activation()
        if dropout > 0:
            parts["dropout"] = Dropout(dropout, units)
        parts["output"] = nn.Linear(units, units, bias=bias)
        if dropout > 0:
            parts["output_dropout"] = Dropout(dropout, units)
        self.layers = nn.Sequential(parts)

    def forward(self, x_BH: Tensor) -> Tensor:
        return x_BH + self.layers(x_BH)
