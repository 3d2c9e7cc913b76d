"""What all stacks have in common: one flat parameter for K networks, and where each of them is in it.

Shapes: ``K`` members, ``B`` rows, ``F`` input features, ``C`` outputs (logits), ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Self


class Stack(nn.Module, abc.ABC):
    """K networks of one depth, trained as one; narrower ones are padded with zeros that never learn.

    Attributes:
        flat_N: the parameters of all members and, behind them, what else belongs to their states.
        members: K.
        dropout: of each member.
        dropped_units: of each member, how many numbers each of its dropout layers sees of a row.
        parameter_names: of the parameters of a member's module, in order.
        layer_names: of its linear layers, in order.
        widest: most outputs of a linear layer.
    """

    flat_N: nn.Parameter
    members: int
    out_features: int
    dropout: list[float]
    dropped_units: list[list[int]]
    parameter_names: list[str]
    layer_names: list[str]
    widest: int

    @property
    def widest_dropped(self) -> list[int]:
        """Of each dropout layer, how many numbers it sees of a row, of the widest member."""
        return [max(units) for units in zip(*self.dropped_units, strict=True)]

    @abc.abstractmethod
    def unstack(self, member: int) -> nn.Module:
        """One member as a separate network, with bit-equal weights."""

    @abc.abstractmethod
    def parts(self, flat_N: Tensor, member: int) -> Iterator[Tensor]:
        """Views of one member's parameters, as its network has them and in its order.

        Args:
            flat_N: the parameter, or a tensor laid out like it (a gradient, an optimizer's state).
            member: which one.
        """

    @abc.abstractmethod
    def learned(self, flat_N: Tensor) -> Iterator[Tensor]:
        """The blocks of the parameters in a tensor laid out like ``flat_N``, as views ``(K, ., .)``."""

    def per_member(self, flat_N: Tensor) -> Iterator[Tensor]:
        """All blocks of a tensor laid out like ``flat_N``, likewise."""
        return self.learned(flat_N)

    @abc.abstractmethod
    def select(self, members: Sequence[int]) -> Self:
        """A stack of some of the members, as wide as the widest of them."""

    @abc.abstractmethod
    def layer_outputs(self, features: Tensor) -> Iterator[Tensor]:
        """What each linear layer returns, ``(K, B, out)``, in evaluation; the last are the logits.

        Args:
            features: that all members share, ``(B, F)``, or of each one, ``(K, B, F)``.
        """

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(K, B, C)`` of features that all members share, ``(B, F)``, or of each one's, ``(K, B, F)``.

        Dropout is never applied here: this is the model as it is evaluated.
        """
        logits = features
        for output in self.layer_outputs(features):
            logits = output
        return logits

    def flat_of(self, parts: Sequence[Tensor]) -> Tensor:
        """The parameter of a stack of one member, from the parameters of its module.

        Args:
            parts: the parameters, in their order, or tensors of their shapes.

        Raises:
            ValueError: they are those of another network.
        """
        flat_N = torch.zeros_like(self.flat_N, requires_grad=False)
        self._fill(self.parameter_names, self.parts(flat_N, 0), parts)
        return flat_N

    def flat_of_state(self, state: Mapping[str, Tensor]) -> Tensor:
        """The same from the ``state_dict`` of its module, with what else belongs to its state."""
        return self.flat_of([state[name] for name in self.parameter_names])

    def state_of(self, flat_N: Tensor, member: int) -> dict[str, Tensor]:
        """The ``state_dict`` of the network of one member, with the names of its module; copies."""
        return dict(zip(self.parameter_names, self.copies(flat_N, member), strict=True))

    def copies(self, flat_N: Tensor, member: int) -> Iterator[Tensor]:
        """Copies of :meth:`parts`: a view would be saved with all the numbers of the whole stack."""
        return (part.detach().clone(memory_format=torch.contiguous_format) for part in self.parts(flat_N, member))

    @staticmethod
    def _fill(names: Sequence[str], places: Iterator[Tensor], parts: Sequence[Tensor]) -> None:
        for name, place, part in zip(names, places, parts, strict=True):
            if place.shape != part.shape:
                raise ValueError(f"{name} has the shape {tuple(part.shape)} instead of {tuple(place.shape)}")
            place.copy_(part)

    def spread(self, values_K: Tensor) -> Tensor:
        """One value per member laid out like the parameter, and 0 for what does not learn: ``(N,)``."""
        flat_N = torch.zeros_like(self.flat_N, requires_grad=False)
        for block in self.learned(flat_N):
            block.copy_(values_K[:, None, None].expand_as(block))
        return flat_N

    def selected(self, flat_N: Tensor, members: Sequence[int], chosen: Stack) -> Tensor:
        """The part of ``flat_N`` (laid out like the parameter of this stack) that belongs to ``chosen``."""
        result = torch.zeros_like(chosen.flat_N, requires_grad=False)
        index = torch.as_tensor(members, device=flat_N.device)
        for target, source in zip(chosen.per_member(result), self.per_member(flat_N), strict=True):
            target.copy_(source[index, : target.shape[1], : target.shape[2]])
        return result


def linear(x_KBI: Tensor, weight_KIO: Tensor, bias_K1O: Tensor | None) -> Tensor:
    """``x @ weight + bias`` for every member: ``(K, B, out)``."""
    if bias_K1O is None:
        return torch.bmm(x_KBI, weight_KIO)
    return torch.baddbmm(bias_K1O, x_KBI, weight_KIO)
