"""Forward and backward pass of a stack without autograd: the hot path of a sweep.

A step of a stack of small networks is bound by the number of operations, and recording them for autograd costs
as much again. The chain is short (linear, activation, dropout), so its gradient is written out here, with
torch's own derivative of each activation, into buffers that are made once.
``tests/models/test_stacked_gradients.py`` holds it against autograd.

Shapes: ``K`` members, ``B`` rows, ``F`` input features, ``H`` hidden units, ``C`` outputs, ``N`` numbers in the
flat parameter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from mlp_lightning.models.stacked_mlp import StackedMLP

_aten = torch.ops.aten
# torch multiplies batches of matrices this small (rows times inner size times columns) one number at a time.
_SMALL_PRODUCT = 400


@dataclasses.dataclass(frozen=True)
class _Activation:
    """An activation and its derivative, both in place.

    Attributes:
        forward: ``(z, out) -> None``.
        backward: ``(gradient, kept) -> None`` turns the gradient of the output into that of the input.
        keeps_input: whether the derivative is worked out from the input; otherwise from the output.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    keeps_input: bool = False


_ACTIVATIONS: dict[str, _Activation] = {
    "sigmoid": _Activation(
        lambda z, out: torch.sigmoid(z, out=out),
        lambda g, a: _aten.sigmoid_backward.grad_input(g, a, grad_input=g),
    ),
    "tanh": _Activation(
        lambda z, out: torch.tanh(z, out=out),
        lambda g, a: _aten.tanh_backward.grad_input(g, a, grad_input=g),
    ),
    "relu": _Activation(
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda g, a: _aten.threshold_backward.grad_input(g, a, 0, grad_input=g),
    ),
    "leaky_relu": _Activation(
        lambda z, out: _aten.leaky_relu.out(z, 0.01, out=out),
        lambda g, a: _aten.leaky_relu_backward.grad_input(g, a, 0.01, True, grad_input=g),
    ),
    "elu": _Activation(
        lambda z, out: _aten.elu.out(z, 1.0, 1.0, 1.0, out=out),
        lambda g, a: _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, a, grad_input=g),
    ),
    "gelu": _Activation(
        lambda z, out: _aten.gelu.out(z, out=out),
        lambda g, z: _aten.gelu_backward.grad_input(g, z, grad_input=g),
        keeps_input=True,
    ),
    "silu": _Activation(
        lambda z, out: _aten.silu.out(z, out=out),
        lambda g, z: _aten.silu_backward.grad_input(g, z, grad_input=g),
        keeps_input=True,
    ),
}


class StackedGradients:
    """Logits of a batch and the gradient of a loss of them, for one number of rows.

    Args:
        model: the stack. Its parameter must stay the tensor that it is.
        gradient_N: where the gradient goes; laid out like the parameter.
        rows: B.
        shared: whether all members see the same features, ``(B, F)`` instead of ``(K, B, F)``.
        with_dropout: whether masks will be given.
    """

    def __init__(
        self, model: StackedMLP, gradient_N: Tensor, rows: int, shared: bool, with_dropout: bool = False
    ) -> None:
        self.model = model
        self.shared = shared
        flat_N = model.flat_N.detach()
        self._weights = [layer.weight(flat_N) for layer in model.layers]
        self._weights_t = [weight.transpose(1, 2) for weight in self._weights]
        self._biases = [layer.bias(flat_N) for layer in model.layers]
        self._weight_gradients = [layer.weight(gradient_N) for layer in model.layers]
        self._bias_gradients = [layer.bias(gradient_N) for layer in model.layers]
        self._activation = _ACTIVATIONS[model.activation]
        # The first hidden layer of a stack with shared rows is one plain product for all members; it has the
        # rows before the members.
        self._rows_first = shared and model.depth > 0
        shapes = [(model.members, rows, layer.outputs) for layer in model.layers[:-1]]
        self._inputs = [self._buffer(number, shape) for number, shape in enumerate(shapes)]
        keep = self._activation.keeps_input
        self._outputs = [torch.empty_like(one) for one in self._inputs] if keep else self._inputs
        self._dropped = [torch.empty_like(one) for one in self._inputs] if with_dropout else self._outputs
        self._deltas = [torch.empty_like(one) for one in self._inputs]
        # Products come out with the members first.
        self._product = torch.empty(shapes[0], dtype=flat_N.dtype, device=flat_N.device) if shapes else None
        self._masks = [model.mask(i).expand(shape).contiguous() for i, shape in enumerate(shapes)]
        if self._rows_first:
            self._masks[0] = self._masks[0].transpose(0, 1).contiguous()
        if not model.needs_mask:
            self._masks = []
        self._first_weight_gradient = torch.empty_like(self._weight_gradients[0].contiguous())

    def _buffer(self, number: int, shape: tuple[int, int, int]) -> Tensor:
        members, rows, width = shape
        like = self.model.flat_N
        order = (rows, members, width) if number == 0 and self._rows_first else shape
        return torch.empty(order, dtype=like.dtype, device=like.device)

    def _members_first(self, number: int, values: Tensor) -> Tensor:
        return values.transpose(0, 1) if number == 0 and self._rows_first else values

    def forward(self, features: Tensor, logits_KBC: Tensor, dropout: list[Tensor] | None = None) -> None:
        """Write the logits of a batch into ``logits_KBC``.

        Args:
            features: ``(B, F)`` if they are shared, else ``(K, B, F)``.
            logits_KBC: where to write.
            dropout: for each hidden layer, the factors ``(K, B, H)`` of its units: 0 or 1 / (1 - probability).
        """
        depth, x = self.model.depth, features
        for number in range(depth):
            z, a = self._inputs[number], self._outputs[number]
            if number == 0 and self._rows_first:
                self._shared_product(features, z)
            else:
                _linear(x, self._weights[number], self._biases[number], z)
            self._activation.forward(z, a)
            if self._masks:
                a.mul_(self._masks[number])
            if dropout is not None:
                torch.mul(
                    self._members_first(number, a),
                    dropout[number],
                    out=self._members_first(number, self._dropped[number]),
                )
                a = self._dropped[number]
            x = self._members_first(number, a)
        if depth == 0 and self.shared:
            x = features.expand(self.model.members, *features.shape)
        _linear(x, self._weights[-1], self._biases[-1], logits_KBC)

    def backward(self, features: Tensor, delta_KBC: Tensor, dropout: list[Tensor] | None = None) -> None:
        """Write the gradient of the parameters, given that of the logits, for the batch of the last ``forward``."""
        depth, delta = self.model.depth, delta_KBC
        for number in range(depth, -1, -1):
            if number == 0:
                self._first_gradients(features, delta)
                break
            x = self._members_first(number - 1, self._dropped[number - 1])
            _weight_gradient(x, delta, self._weight_gradients[number])
            self._bias_gradient(number, delta)
            before = self._deltas[number - 1]
            if number == 1 and self._rows_first:
                assert self._product is not None
                _input_gradient(delta, self._weights_t[1], self._product)
                before.copy_(self._product.transpose(0, 1))
            else:
                _input_gradient(delta, self._weights_t[number], before)
            if dropout is not None:
                self._members_first(number - 1, before).mul_(dropout[number - 1])
            kept = self._inputs if self._activation.keeps_input else self._outputs
            self._activation.backward(before, kept[number - 1])
            delta = before

    def _shared_product(self, features_BF: Tensor, out_BKH: Tensor) -> None:
        rows, members, width = out_BKH.shape
        weight_FL = self._weights[0].transpose(0, 1).reshape(features_BF.shape[1], members * width)
        out, bias = out_BKH.view(rows, members * width), self._biases[0]
        if bias is None:
            torch.mm(features_BF, weight_FL, out=out)
        else:
            torch.addmm(bias.view(members * width), features_BF, weight_FL, out=out)

    def _first_gradients(self, features: Tensor, delta: Tensor) -> None:
        gradient = self._weight_gradients[0]
        if self._rows_first:
            rows, members, width = delta.shape
            target = gradient.transpose(0, 1).view(features.shape[1], members * width)
            torch.mm(features.t(), delta.view(rows, members * width), out=target)
            if (bias := self._bias_gradients[0]) is not None:
                torch.sum(delta, 0, out=bias.view(members, width))
            return
        x = features.expand(self.model.members, *features.shape) if self.shared else features
        # A batched product into a tensor that is not contiguous is made matrix by matrix.
        _weight_gradient(x, delta, self._first_weight_gradient)
        gradient.copy_(self._first_weight_gradient)
        self._bias_gradient(0, delta)

    def _bias_gradient(self, number: int, delta_KBO: Tensor) -> None:
        gradient = self._bias_gradients[number]
        if gradient is not None:
            torch.sum(delta_KBO, 1, keepdim=True, out=gradient)


def _linear(x_KBI: Tensor, weight_KIO: Tensor, bias_K1O: Tensor | None, out_KBO: Tensor) -> None:
    if bias_K1O is None:
        torch.bmm(x_KBI, weight_KIO, out=out_KBO)
    else:
        torch.baddbmm(bias_K1O, x_KBI, weight_KIO, out=out_KBO)


def _weight_gradient(x_KBI: Tensor, delta_KBO: Tensor, out_KIO: Tensor) -> None:
    _, rows, inputs = x_KBI.shape
    if delta_KBO.shape[2] == 1 and rows * inputs < _SMALL_PRODUCT:
        torch.sum(x_KBI * delta_KBO, 1, out=out_KIO.squeeze(2))
    else:
        torch.bmm(x_KBI.transpose(1, 2), delta_KBO, out=out_KIO)


def _input_gradient(delta_KBO: Tensor, weight_KOI: Tensor, out_KBI: Tensor) -> None:
    if delta_KBO.shape[2] == 1:
        torch.mul(delta_KBO, weight_KOI, out=out_KBI)
    else:
        torch.bmm(delta_KBO, weight_KOI, out=out_KBI)
