"""Forward and backward pass of one MLP without autograd, into buffers that are made once.

Linear layers, activations and dropout are written out, with torch's own derivative of each activation
(:mod:`mlp_lightning.networks.activations`). What stands between them (embeddings, normalisation, residual blocks) is
differentiated by autograd, each part alone. ``tests/engines/explicit/test_gradients.py`` compares all of it with
autograd.

Shapes: ``B`` rows, ``I`` inputs and ``O`` outputs of a layer, ``F`` input features, ``C`` outputs (logits).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from mlp_lightning.networks.activations import WrittenOut, written_out_of
from mlp_lightning.networks.mlp import MLP


class Part(Protocol):
    """A part of the network, for one number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, in a buffer that the next part may change."""
        ...

    def backward(self, delta: Tensor) -> Tensor:
        """The gradient of the input given that of the output, which it may change; writes those of parameters."""
        ...


class LinearPart:
    """``x @ weight.T + bias``; the gradients of weight and bias are written over what ``grad`` of each has.

    Args:
        layer: whose weight and bias have a ``grad``.
        rows: B.
        is_first: whether nothing before it needs the gradient of its input.
    """

    def __init__(self, layer: nn.Linear, rows: int, is_first: bool) -> None:
        self._weight_OI, self._weight_IO = layer.weight.detach(), layer.weight.detach().t()
        assert layer.weight.grad is not None  # torch.mm(out=None) would write the gradient nowhere
        self._weight_gradient = layer.weight.grad
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._bias_gradient = None if layer.bias is None else layer.bias.grad
        self.out_BO = self._weight_OI.new_empty(rows, layer.out_features)
        self._delta_BI = None if is_first else self._weight_OI.new_empty(rows, layer.in_features)
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
    """Dropout with the masks that ``torch.nn.Dropout`` would draw on the CPU, from the same generator.

    Args:
        probability: of zeroing a number.
        like: of the shape of its input.
    """

    def __init__(self, probability: float, like: Tensor) -> None:
        self._keep = 1 - probability
        self._factor, self._out = torch.empty_like(like), torch.empty_like(like)

    def forward(self, x: Tensor) -> Tensor:
        self._factor.bernoulli_(self._keep).div_(self._keep)
        return torch.mul(x, self._factor, out=self._out)

    def backward(self, delta: Tensor) -> Tensor:
        return delta.mul_(self._factor)


class AutogradPart:
    """Any module, differentiated by autograd.

    Args:
        module: whose parameters have a ``grad``.
        is_first: whether nothing before it needs the gradient of its input.
    """

    def __init__(self, module: nn.Module, is_first: bool) -> None:
        self._module, self._is_first = module, is_first
        self._parameters = [(one, one.grad) for one in module.parameters()]
        self._x = self._out = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self._x = x.detach() if self._is_first else x.detach().requires_grad_()
        with torch.enable_grad():
            self._out = self._module(self._x)
        return self._out.detach()

    def backward(self, delta: Tensor) -> Tensor:
        for parameter, own_gradient in self._parameters:
            assert own_gradient is not None
            own_gradient.zero_()
            parameter.grad = own_gradient  # autograd adds to it
        self._out.backward(delta)
        gradient = delta if self._is_first else self._x.grad
        assert gradient is not None
        return gradient


class ExplicitGradients:
    """Logits of a batch and the gradient of a loss of them, for one number of rows.

    Args:
        mlp: whose parameters stay the same tensors, and have their ``grad`` where the gradient goes.
        rows: B.
    """

    def __init__(self, mlp: MLP, rows: int) -> None:
        parts: list[Part] = []
        # Of the shape of the input of the next part, where that is known.
        like = next(mlp.parameters()).detach().new_empty(rows, 0)
        if mlp.embedding is not None:
            parts.append(AutogradPart(mlp.embedding, is_first=True))
        modules = list(mlp.layers)
        for module in modules:
            activation = written_out_of(module)
            if isinstance(module, nn.Linear):
                linear = LinearPart(module, rows, is_first=not parts)
                parts.append(linear)
                like = linear.out_BO
            elif isinstance(module, nn.Identity):
                parts.append(IdentityPart())
            elif activation is not None:
                in_place = isinstance(parts[-1], LinearPart) and not activation.keeps_input
                parts.append(ActivationPart(activation, None if in_place else like))
            elif isinstance(module, nn.Dropout):
                parts.append(DropoutPart(module.p, like))
            else:
                parts.append(AutogradPart(module, is_first=not parts))
        output = parts.pop()
        assert isinstance(output, LinearPart)
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
