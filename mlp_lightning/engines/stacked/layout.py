"""K multi-layer perceptrons as one model with a leading member axis.

Shapes: ``K`` members, ``B`` rows, ``F`` input features, ``H`` hidden units of the widest member, ``C`` outputs
(logits), ``N`` numbers in the flat parameter. Weights are kept as ``(in, out)``, transposed to
:class:`torch.nn.Linear`, so that a layer is one batched product ``x_KBI @ w_KIO``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mlp_lightning.engines.stacked.stack import Stack, linear
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Layer:
    """The position of one linear layer of the stack in the flat parameter, and its widest sizes.

    The first layer has the input axis before the member axis: with rows that all members share, its product
    is then one ordinary matrix product.
    """

    first: bool
    members: int
    inputs: int
    outputs: int
    weight_at: int
    bias_at: int | None
    end: int

    def weight(self, flat_N: Tensor) -> Tensor:
        """The weights as a view ``(K, in, out)`` of the flat parameter, or of anything laid out like it."""
        block = flat_N[self.weight_at : self.weight_at + self.members * self.inputs * self.outputs]
        if self.first:
            return block.view(self.inputs, self.members, self.outputs).transpose(0, 1)
        return block.view(self.members, self.inputs, self.outputs)

    def bias(self, flat_N: Tensor) -> Tensor | None:
        """The biases as a view ``(K, 1, out)``; ``None`` for a layer without."""
        if self.bias_at is None:
            return None
        return flat_N[self.bias_at : self.end].view(self.members, 1, self.outputs)


def lay_out(members: int, widths: Sequence[int], bias: bool) -> list[Layer]:
    """The layers of a stack of ``members`` with the layer sizes ``widths`` (features, hidden units, outputs)."""
    layers, at = [], 0
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        bias_at = at + members * inputs * outputs
        end = bias_at + members * outputs if bias else bias_at
        layers.append(Layer(number == 0, members, inputs, outputs, at, bias_at if bias else None, end))
        at = end
    return layers


class StackedMLP(Stack):
    """K MLPs of one depth and activation, trained as one.

    Narrower members are padded with zeros. Padding never learns: a padded unit has only zero incoming weights
    and outputs 0, so every gradient into and out of it is exactly 0. All parameters are in one flat tensor,
    layer after layer, so that an optimizer makes one update for any number of layers.

    Args:
        in_features: F, the same for all members.
        out_features: C, the same for all members.
        hidden_units: for each member, the width of each hidden layer; all of one length.
        activation: a name in :data:`~mlp_lightning.networks.activations.ACTIVATIONS`.
        dropout: for each member, the probability of zeroing a hidden unit in training.
        bias: whether the layers have biases.

    Raises:
        ValueError: for no members, or members of different depth.

    Example:
        >>> mlps = [MLP(2, 1, [4, 4], "tanh"), MLP(2, 1, [3, 5], "tanh")]
        >>> stacked = StackedMLP.stack(mlps, activation="tanh")
        >>> stacked(torch.zeros(7, 2)).shape
        torch.Size([2, 7, 1])
        >>> torch.equal(stacked.unstack(1).layers[0].weight, mlps[1].layers[0].weight)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_units: Sequence[Sequence[int]],
        activation: str = "relu",
        dropout: Sequence[float] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len({len(widths) for widths in hidden_units}) != 1:
            raise ValueError(
                f"hidden_units = {[list(one) for one in hidden_units]} must be the widths of at least one member,"
                " and as many for every member"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.hidden_units = [list(widths) for widths in hidden_units]
        self.activation = activation
        self.dropout = [0.0] * len(hidden_units) if dropout is None else list(dropout)
        self.has_bias = bias
        self.members = len(self.hidden_units)
        self.dropped_units = self.hidden_units
        widest = [max(widths) for widths in zip(*self.hidden_units, strict=True)]
        self.layers = lay_out(self.members, [in_features, *widest, out_features], bias)
        self.widest = max(layer.outputs for layer in self.layers)
        self.layer_names = [*(f"linear_{number}" for number in range(1, self.depth + 1)), "output"]
        kinds = ("weight", "bias") if bias else ("weight",)
        self.parameter_names = [f"mlp.layers.{layer}.{kind}" for layer in self.layer_names for kind in kinds]
        self.flat_N = nn.Parameter(torch.zeros(self.layers[-1].end))
        self.activate = ACTIVATIONS[activation].module()
        padded = len({tuple(widths) for widths in self.hidden_units}) > 1
        #: Whether padded units have to be set to 0 after the activation: where that of 0 is not 0, the weights
        #: behind them would learn.
        self.needs_mask = padded and bool(self.activate(torch.zeros(1)) != 0)
        for number, width in enumerate(widest):
            mask_K1H = torch.zeros(self.members, 1, width)
            for member, widths in enumerate(self.hidden_units):
                mask_K1H[member, :, : widths[number]] = 1
            self.register_buffer(f"mask_{number}", mask_K1H, persistent=False)

    @property
    def depth(self) -> int:
        return len(self.layers) - 1

    def mask(self, number: int) -> Tensor:
        """1 for the units of hidden layer ``number`` that a member has, 0 for padding: ``(K, 1, H)``."""
        return getattr(self, f"mask_{number}")

    @classmethod
    def stack(cls, mlps: Sequence[MLP], activation: str, dropout: Sequence[float] | None = None) -> StackedMLP:
        """The stack of ``mlps``, with bit-equal weights.

        Args:
            mlps: of one depth, without normalisation.
            activation: of their hidden layers.
            dropout: of each of them.
        """
        linears = [[part for part in mlp.layers if isinstance(part, nn.Linear)] for mlp in mlps]
        hidden_units = [[one.out_features for one in layers[:-1]] for layers in linears]
        bias = linears[0][0].bias is not None
        stacked = cls(mlps[0].in_features, mlps[0].out_features, hidden_units, activation, dropout, bias)
        stacked.to(linears[0][0].weight.dtype)
        with torch.no_grad():
            for member, layers in enumerate(linears):
                weights = [part for one in layers for part in ((one.weight, one.bias) if bias else (one.weight,))]
                for view, weight in zip(stacked.parts(stacked.flat_N, member), weights, strict=True):
                    view.copy_(weight)
        return stacked

    def unstack(self, member: int) -> MLP:
        """One member as a separate model, with bit-equal weights."""
        mlp = MLP(
            self.in_features,
            self.out_features,
            self.hidden_units[member],
            self.activation,
            self.dropout[member],
            bias=self.has_bias,
            init="zeros",
        ).to(self.flat_N.dtype)
        with torch.no_grad():
            for parameter, part in zip(mlp.parameters(), self.parts(self.flat_N, member), strict=True):
                parameter.copy_(part)
        return mlp

    def parts(self, flat_N: Tensor, member: int) -> Iterator[Tensor]:
        """Views of one member's weights and biases, as an :class:`MLP` has them and in its order."""
        sizes = [self.in_features, *self.hidden_units[member], self.out_features]
        for layer, (inputs, outputs) in zip(self.layers, itertools.pairwise(sizes), strict=True):
            yield layer.weight(flat_N)[member, :inputs, :outputs].t()
            bias = layer.bias(flat_N)
            if bias is not None:
                yield bias[member, 0, :outputs]

    def learned(self, flat_N: Tensor) -> Iterator[Tensor]:
        """The blocks of a tensor laid out like the parameter as views with the member axis first."""
        for layer in self.layers:
            yield layer.weight(flat_N)
            bias = layer.bias(flat_N)
            if bias is not None:
                yield bias

    def select(self, members: Sequence[int]) -> StackedMLP:
        """A stack of some of the members, as wide as the widest of them."""
        chosen = StackedMLP(
            self.in_features,
            self.out_features,
            [self.hidden_units[one] for one in members],
            self.activation,
            [self.dropout[one] for one in members],
            self.has_bias,
        ).to(self.flat_N.device, self.flat_N.dtype)
        with torch.no_grad():
            chosen.flat_N.copy_(self.selected(self.flat_N, members, chosen))
        return chosen

    def layer_outputs(self, features: Tensor) -> Iterator[Tensor]:
        """What each linear layer returns, ``(K, B, out)``, before the activation; the last are the logits."""
        x = features if features.dim() == 3 else features.expand(self.members, *features.shape)
        for number, layer in enumerate(self.layers):
            x = linear(x, layer.weight(self.flat_N), layer.bias(self.flat_N))
            yield x
            if number < self.depth:
                x = self.activate(x)
                if self.needs_mask:
                    x = x * self.mask(number)
