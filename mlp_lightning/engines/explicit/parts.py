"""Parts of a network with forward and backward pass written out, into buffers that are made once.

Activations have torch's own derivative (:mod:`mlp_lightning.networks.activations`), and so has normalisation.
``tests/engines/explicit/test_gradients.py`` compares all of it with autograd.

Shapes: ``B`` rows, ``I`` inputs and ``O`` outputs of a layer, ``H`` hidden units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlp_lightning.networks.activations import WrittenOut, written_out_of
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.networks.residual import ResidualBlock

_aten = torch.ops.aten


class Part(Protocol):
    """A part of the network, for one number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, in a buffer that the next part may change."""
        ...

    def backward(self, delta: Tensor) -> Tensor:
        """The gradient of the input given that of the output; writes those of parameters.

        An activation changes ``delta`` in place, the others leave it as it is.
        """
        ...


class LinearPart:
    """``x @ weight.T + bias``; the gradients of weight and bias are written over what ``grad`` of each has.

    Args:
        layer: whose weight and bias have a ``grad``.
        rows: B.
        needs_delta: whether what is before it needs the gradient of its input.
        by_columns: whether that gradient has its columns one after another in memory.
    """

    def __init__(self, layer: nn.Linear, rows: int, needs_delta: bool, by_columns: bool = False) -> None:
        self._weight_OI, self._weight_IO = layer.weight.detach(), layer.weight.detach().t()
        assert layer.weight.grad is not None  # torch.mm(out=None) would write the gradient nowhere
        self._weight_gradient = layer.weight.grad
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._bias_gradient = None if layer.bias is None else layer.bias.grad
        self.out_BO = self._weight_OI.new_empty(rows, layer.out_features)
        self._delta_BI: Tensor | None = None
        if needs_delta and by_columns:
            self._delta_BI = self._weight_OI.new_empty(layer.in_features, rows).t()
        elif needs_delta:
            self._delta_BI = self._weight_OI.new_empty(rows, layer.in_features)
        self._x_BI = self.out_BO

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_into(x, self.out_BO)

    def forward_into(self, x_BI: Tensor, out_BO: Tensor) -> Tensor:
        """As :meth:`forward`, with the output written into ``out_BO``."""
        self._x_BI = x_BI
        if self._bias is None:
            return torch.mm(x_BI, self._weight_IO, out=out_BO)
        return torch.addmm(self._bias, x_BI, self._weight_IO, out=out_BO)

    def backward(self, delta: Tensor) -> Tensor:
        torch.mm(delta.t(), self._x_BI, out=self._weight_gradient)
        if self._bias_gradient is not None:
            torch.sum(delta, 0, out=self._bias_gradient)
        if self._delta_BI is None:
            return delta
        return torch.mm(delta, self._weight_OI, out=self._delta_BI)


class ActivationPart:
    """An activation; in place where its input is a buffer that nothing else needs.

    Args:
        activation: and its gradient.
        like: of the shape of its input; ``None``: in place.
    """

    def __init__(self, activation: WrittenOut, like: Tensor | None) -> None:
        self._activate, self._differentiate = activation.forward, activation.backward
        self._keeps_input = activation.keeps_input
        self._out = None if like is None else torch.empty_like(like)
        self._kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        out = x if self._out is None else self._out
        self._activate(x, out)
        self._kept = x if self._keeps_input else out
        return out

    def backward(self, delta: Tensor) -> Tensor:
        assert self._kept is not None
        self._differentiate(delta, self._kept)
        return delta


class IdentityPart:
    """An activation that changes nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, delta: Tensor) -> Tensor:
        return delta


class DropoutPart:
    """Dropout with masks that are given.

    Args:
        layer: whose masks they are.
        like: of the shape of its input.
    """

    def __init__(self, layer: Dropout, like: Tensor) -> None:
        self._layer, self._out = layer, torch.empty_like(like)

    def forward(self, x: Tensor) -> Tensor:
        assert self._layer.factors is not None
        return torch.mul(x, self._layer.factors, out=self._out)

    def backward(self, delta: Tensor) -> Tensor:
        assert self._layer.factors is not None
        return torch.mul(delta, self._layer.factors, out=self._out)  # whose numbers were needed by what comes after it


class _NormPart:
    """Normalisation with its weight and bias.

    Args:
        norm: a module of torch's, whose parameters have a ``grad``.
    """

    def __init__(self, norm: Any) -> None:
        self._norm = norm
        self._weight_H, self._bias_H = norm.weight.detach(), norm.bias.detach()
        self._gradients = norm.weight.grad, norm.bias.grad
        self._kept: tuple[Any, ...] = ()

    def _passed_on(self, found: Iterable[Tensor]) -> Tensor:
        """The gradient of the input; those of weight and bias are written where they belong."""
        delta, *of_parameters = found
        for value, gradient in zip(of_parameters, self._gradients, strict=True):
            gradient.copy_(value)
        return delta


class LayerNormPart(_NormPart):
    """Layer normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        shape, eps = self._norm.normalized_shape, self._norm.eps
        out, *statistics = torch.native_layer_norm(x, shape, self._weight_H, self._bias_H, eps)
        self._kept = x, shape, *statistics
        return out

    def backward(self, delta: Tensor) -> Tensor:
        parameters = self._weight_H, self._bias_H
        return self._passed_on(_aten.native_layer_norm_backward(delta, *self._kept, *parameters, [True] * 3))


class BatchNormPart(_NormPart):
    """Batch normalisation in training; updates the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        norm, weight_H = self._norm, self._weight_H
        norm.num_batches_tracked.add_(1)
        running = norm.running_mean, norm.running_var
        out, *statistics = torch.native_batch_norm(x, weight_H, self._bias_H, *running, True, norm.momentum, norm.eps)
        self._kept = x, weight_H, *running, *statistics
        return out

    def backward(self, delta: Tensor) -> Tensor:
        options = True, self._norm.eps, [True] * 3
        return self._passed_on(_aten.native_batch_norm_backward(delta, *self._kept, *options))


class ResidualPart:
    """What a :class:`~mlp_lightning.networks.residual.ResidualBlock` adds to its input.

    Args:
        block: whose parameters have a ``grad``.
        like: of the shape of its input.
    """

    def __init__(self, block: ResidualBlock, like: Tensor) -> None:
        self._parts = make_parts(block.layers, like, needs_delta=True)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for part in self._parts:
            out = part.forward(out)
        return out.add_(x)

    def backward(self, delta: Tensor) -> Tensor:
        of_branch = delta
        for part in reversed(self._parts):
            of_branch = part.backward(of_branch)
        return of_branch.add_(delta)


def make_parts(modules: Iterable[nn.Module], like: Tensor, needs_delta: bool, by_columns: bool = False) -> list[Part]:
    """The parts of consecutive modules.

    Args:
        modules: linear layers, activations, dropout, normalisation and residual blocks; an activation or dropout is
            not the first.
        like: of the shape of the input, ``(B, I)``.
        needs_delta: whether what is before the first needs the gradient of its input.
        by_columns: whether that gradient has its columns one after another in memory.
    """
    parts: list[Part] = []
    for module in modules:
        activation = written_out_of(module)
        if isinstance(module, nn.Linear):
            is_first = not parts
            linear = LinearPart(module, len(like), needs_delta or not is_first, by_columns and is_first)
            parts.append(linear)
            like = linear.out_BO
        elif isinstance(module, nn.Identity):
            parts.append(IdentityPart())
        elif activation is not None:
            # All but activations and identities make a new output, which their own gradient does not need.
            in_place = not activation.keeps_input and not isinstance(parts[-1], (ActivationPart, IdentityPart))
            parts.append(ActivationPart(activation, None if in_place else like))
        elif isinstance(module, Dropout):
            parts.append(DropoutPart(module, like))
        elif isinstance(module, nn.LayerNorm):
            parts.append(LayerNormPart(module))
        elif isinstance(module, nn.BatchNorm1d):
            parts.append(BatchNormPart(module))
        else:
            assert isinstance(module, ResidualBlock), f"{type(module).__name__} is not written out"
            parts.append(ResidualPart(module, like))
    return parts
