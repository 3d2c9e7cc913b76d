"""Forward and backward pass of a stack without autograd: the hot path of a sweep.

A step of a stack of small networks is bound by the number of operations, and recording them for autograd doubles
the cost. The chain is short (linear, activation, dropout), so its gradient is written out here, with torch's own
derivative of each activation (:mod:`mlp_lightning.networks.activations`), into buffers that are made once.
``tests/engines/stacked/test_gradients.py`` compares it with autograd.

Shapes: ``K`` members, ``B`` rows, ``F`` input features, ``H`` hidden units, ``C`` outputs, ``N`` numbers in the
flat parameter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.networks.activations import ACTIVATIONS

# torch multiplies batches of matrices this small (rows times inner size times columns) one number at a time.
_SMALL_PRODUCT = 400
_FEW_ROWS = 4


class _Layer:
    """One layer of the stack with its buffers and every view that a step needs, made once.

    ``h`` is the output of a hidden layer, ``z`` the input of its activation, ``delta`` the gradient of the loss
    with respect to ``z``. A layer that is ``rows_first`` keeps them as ``(B, K, H)``.
    """

    def __init__(self, model: StackedMLP, number: int, gradient_N: Tensor, rows: int, rows_first: bool) -> None:
        layer, flat_N = model.layers[number], model.flat_N.detach()
        self.rows_first = rows_first
        self.weight_KIO, self.bias_K1O = layer.weight(flat_N), layer.bias(flat_N)
        self.weight_KOI = self.weight_KIO.transpose(1, 2)
        self.weight_gradient_KIO, self.bias_gradient_K1O = layer.weight(gradient_N), layer.bias(gradient_N)
        self._shape = (rows, model.members) if rows_first else (model.members, rows)
        self._like = flat_N

    def make_buffers(self, width: int, mask_K1H: Tensor | None, keeps_input: bool, with_dropout: bool) -> None:
        """The buffers of a hidden layer of ``width`` units."""
        self.z, self.delta = self._buffer(width), self._buffer(width)
        self.a = self._buffer(width) if keeps_input else self.z
        self.h = self._buffer(width) if with_dropout else self.a
        self.kept = self.z if keeps_input else self.a
        self.a_KBH, self.h_KBH, self.delta_KBH = (self._members_first(one) for one in (self.a, self.h, self.delta))
        self.h_KHB = self.h_KBH.transpose(1, 2)
        self.mask: Tensor | None = None
        if mask_K1H is not None:
            mask_KBH = mask_K1H.expand_as(self.a_KBH)
            self.mask = (mask_KBH.transpose(0, 1) if self.rows_first else mask_KBH).contiguous()

    def _buffer(self, width: int) -> Tensor:
        return torch.empty((*self._shape, width), dtype=self._like.dtype, device=self._like.device)

    def _members_first(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1) if self.rows_first else values


class StackedGradients:
    """Logits of a batch and the gradient of a loss of them, for one number of rows.

    Args:
        model: the stack. Its parameter must stay the same tensor.
        gradient_N: where the gradient goes; laid out like the parameter.
        rows: B.
        shared: whether all members see the same features, ``(B, F)`` instead of ``(K, B, F)``.
        with_dropout: whether masks will be given.
    """

    def __init__(
        self, model: StackedMLP, gradient_N: Tensor, rows: int, shared: bool, with_dropout: bool = False
    ) -> None:
        self._shared = shared
        self._members = model.members
        activation = ACTIVATIONS[model.activation].written_out
        assert activation is not None, f"{model.activation} is not stacked"
        self._activation = activation
        # The first hidden layer of a stack with shared rows is one plain product for all members; it has the
        # rows before the members.
        self._rows_first = shared and model.depth > 0
        layers = [
            _Layer(model, number, gradient_N, rows, self._rows_first and number == 0)
            for number in range(model.depth + 1)
        ]
        for number, layer in enumerate(layers[:-1]):
            mask_K1H = model.mask(number) if model.needs_mask else None
            layer.make_buffers(model.layers[number].outputs, mask_K1H, self._activation.keeps_input, with_dropout)
        self._hidden, self._output = layers[:-1], layers[-1]
        first = layers[0]
        if self._rows_first:
            wide = (model.in_features, model.members * model.layers[0].outputs)
            self._weight_FL = first.weight_KIO.transpose(0, 1).view(wide)
            self._weight_gradient_FL = first.weight_gradient_KIO.transpose(0, 1).view(wide)
            self._z_BL, self._delta_BL = first.z.view(rows, wide[1]), first.delta.view(rows, wide[1])
            if first.bias_K1O is not None and first.bias_gradient_K1O is not None:
                self._bias_L, self._bias_gradient_L = first.bias_K1O.view(-1), first.bias_gradient_K1O.view(-1)
            # A product with the weights of the second layer comes out with the members first.
            self._product_KBH = torch.empty_like(first.z.transpose(0, 1).contiguous())
            self._product_BKH = self._product_KBH.transpose(0, 1)
        else:
            # A batched product into a tensor that is not contiguous is made matrix by matrix.
            self._first_gradient_KIO = torch.empty_like(first.weight_gradient_KIO.contiguous())

    def forward(self, features: Tensor, logits_KBC: Tensor, dropout: list[Tensor] | None = None) -> None:
        """Write the logits of a batch into ``logits_KBC``.

        Args:
            features: ``(B, F)`` if they are shared, else ``(K, B, F)``.
            logits_KBC: where to write.
            dropout: for each hidden layer, the factors of its units, 0 or 1 / (1 - probability): ``(K, B, H)``, or
                ``(1, B, H)`` for all members.
        """
        activate, x = self._activation.forward, features
        for number, layer in enumerate(self._hidden):
            if layer.rows_first:
                self._shared_product(features, layer)
            else:
                _linear(x, layer, layer.z)
            activate(layer.z, layer.a)
            if layer.mask is not None:
                layer.a.mul_(layer.mask)
            if dropout is not None:
                torch.mul(layer.a_KBH, dropout[number], out=layer.h_KBH)
            x = layer.h_KBH
        if not self._hidden:
            x = self._of_each(features)
        _linear(x, self._output, logits_KBC)

    def backward(self, features: Tensor, delta_KBC: Tensor, dropout: list[Tensor] | None = None) -> None:
        """Write the gradient of the parameters, given that of the logits, for the batch of the last ``forward``."""
        differentiate, above, delta = self._activation.backward, self._output, delta_KBC
        for number in range(len(self._hidden) - 1, -1, -1):
            layer = self._hidden[number]
            _weight_gradient(layer.h_KHB, layer.h_KBH, delta, above.weight_gradient_KIO)
            _bias_gradient(delta, above.bias_gradient_K1O)
            if layer.rows_first:
                _input_gradient(delta, above.weight_KOI, self._product_KBH)
                layer.delta.copy_(self._product_BKH)
            else:
                _input_gradient(delta, above.weight_KOI, layer.delta)
            if dropout is not None:
                layer.delta_KBH.mul_(dropout[number])
            differentiate(layer.delta, layer.kept)
            above, delta = layer, layer.delta
        self._first_gradients(features, above, delta)

    def _shared_product(self, features_BF: Tensor, layer: _Layer) -> None:
        if layer.bias_K1O is None:
            torch.mm(features_BF, self._weight_FL, out=self._z_BL)
        else:
            torch.addmm(self._bias_L, features_BF, self._weight_FL, out=self._z_BL)

    def _first_gradients(self, features: Tensor, first: _Layer, delta: Tensor) -> None:
        if self._rows_first:
            torch.mm(features.t(), self._delta_BL, out=self._weight_gradient_FL)
            if first.bias_K1O is not None:
                torch.sum(self._delta_BL, 0, out=self._bias_gradient_L)
            return
        x_KBF = self._of_each(features)
        _weight_gradient(x_KBF.transpose(1, 2), x_KBF, delta, self._first_gradient_KIO)
        first.weight_gradient_KIO.copy_(self._first_gradient_KIO)
        _bias_gradient(delta, first.bias_gradient_K1O)

    def _of_each(self, features: Tensor) -> Tensor:
        return features.expand(self._members, *features.shape) if self._shared else features


def _linear(x_KBI: Tensor, layer: _Layer, out_KBO: Tensor) -> None:
    if layer.bias_K1O is None:
        torch.bmm(x_KBI, layer.weight_KIO, out=out_KBO)
    else:
        torch.baddbmm(layer.bias_K1O, x_KBI, layer.weight_KIO, out=out_KBO)


def _weight_gradient(x_KIB: Tensor, x_KBI: Tensor, delta_KBO: Tensor, out_KIO: Tensor) -> None:
    _, inputs, rows = x_KIB.shape
    if delta_KBO.shape[2] == 1 and rows * inputs < _SMALL_PRODUCT:
        torch.sum(x_KBI * delta_KBO, 1, out=out_KIO.squeeze(2))
    else:
        torch.bmm(x_KIB, delta_KBO, out=out_KIO)


def _bias_gradient(delta_KBO: Tensor, out_K1O: Tensor | None) -> None:
    if out_K1O is None:
        return
    rows = delta_KBO.shape[1]
    if rows > _FEW_ROWS or rows < 2:
        torch.sum(delta_KBO, 1, keepdim=True, out=out_K1O)
        return
    # A sum over a short axis in the middle takes twice as long as adding up its slices.
    torch.add(delta_KBO[:, 0:1], delta_KBO[:, 1:2], out=out_K1O)
    for row in range(2, rows):
        out_K1O.add_(delta_KBO[:, row : row + 1])


def _input_gradient(delta_KBO: Tensor, weight_KOI: Tensor, out_KBI: Tensor) -> None:
    if delta_KBO.shape[2] == 1:
        torch.mul(delta_KBO, weight_KOI, out=out_KBI)
    else:
        torch.bmm(delta_KBO, weight_KOI, out=out_KBI)
