"""The activations: an entry of :data:`ACTIVATIONS` is all that there is to one.

An entry without a written-out gradient trains with torch's autograd; the stacked engine refuses it by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

_aten = torch.ops.aten
_gain = nn.init.calculate_gain


@dataclasses.dataclass(frozen=True)
class WrittenOut:
    """An activation and its gradient, both in place, for engines without autograd.

    Attributes:
        forward: ``(z, out) -> None``; ``z`` and ``out`` are one tensor unless it ``keeps_input``.
        backward: ``(gradient, kept) -> None`` turns the gradient of the output into that of the input.
        keeps_input: whether the gradient is worked out from the input; otherwise from the output.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    keeps_input: bool = False


@dataclasses.dataclass(frozen=True)
class Activation:
    """What a hidden layer does with the output of its linear part, number by number.

    Attributes:
        module: makes it; it does the same in training and in evaluation.
        gain: by which initial weights before it are larger (``torch.nn.init.calculate_gain``), where there is one.
        written_out: how the stacked engine works it out; ``None`` if it cannot.
    """

    module: Callable[[], nn.Module]
    gain: float = 1.0
    written_out: WrittenOut | None = None


# Of Klambauer et al. (2017); torch has the same two numbers inside.
_SELU = (1.6732632423543772, 1.0507009873554805)

ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(nn.Identity, written_out=WrittenOut(lambda z, out: None, lambda g, a: None)),
    "sigmoid": Activation(
        nn.Sigmoid,
        _gain("sigmoid"),
        WrittenOut(
            lambda z, out: torch.sigmoid(z, out=out),
            lambda g, a: _aten.sigmoid_backward.grad_input(g, a, grad_input=g),
        ),
    ),
    "tanh": Activation(
        nn.Tanh,
        _gain("tanh"),
        WrittenOut(
            lambda z, out: torch.tanh(z, out=out),
            lambda g, a: _aten.tanh_backward.grad_input(g, a, grad_input=g),
        ),
    ),
    "relu": Activation(
        nn.ReLU,
        _gain("relu"),
        WrittenOut(
            lambda z, out: torch.clamp_min(z, 0, out=out),
            lambda g, a: _aten.threshold_backward.grad_input(g, a, 0, grad_input=g),
        ),
    ),
    "leaky_relu": Activation(
        nn.LeakyReLU,
        _gain("leaky_relu"),
        WrittenOut(
            lambda z, out: _aten.leaky_relu.out(z, 0.01, out=out),
            lambda g, a: _aten.leaky_relu_backward.grad_input(g, a, 0.01, True, grad_input=g),
        ),
    ),
    "elu": Activation(
        nn.ELU,
        written_out=WrittenOut(
            lambda z, out: _aten.elu.out(z, 1.0, 1.0, 1.0, out=out),
            lambda g, a: _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, a, grad_input=g),
        ),
    ),
    "gelu": Activation(
        nn.GELU,
        written_out=WrittenOut(
            lambda z, out: _aten.gelu.out(z, out=out),
            lambda g, z: _aten.gelu_backward.grad_input(g, z, grad_input=g),
            keeps_input=True,
        ),
    ),
    "silu": Activation(
        nn.SiLU,
        written_out=WrittenOut(
            lambda z, out: _aten.silu.out(z, out=out),
            lambda g, z: _aten.silu_backward.grad_input(g, z, grad_input=g),
            keeps_input=True,
        ),
    ),
    "selu": Activation(
        nn.SELU,
        _gain("selu"),
        WrittenOut(
            lambda z, out: _aten.elu.out(z, *_SELU, 1.0, out=out),
            lambda g, a: _aten.elu_backward.grad_input(g, *_SELU, 1.0, True, a, grad_input=g),
        ),
    ),
    "softplus": Activation(
        nn.Softplus,
        written_out=WrittenOut(
            lambda z, out: _aten.softplus.out(z, 1, 20, out=out),
            lambda g, z: _aten.softplus_backward.grad_input(g, z, 1, 20, grad_input=g),
            keeps_input=True,
        ),
    ),
    # torch has no gradient of it that writes into a buffer.
    "mish": Activation(nn.Mish),
}

_WRITTEN_OUT = {
    type(entry.module()): entry.written_out for name, entry in ACTIVATIONS.items() if entry.written_out is not None
}


def written_out_of(module: nn.Module) -> WrittenOut | None:
    """How an activation is written out; ``None`` for any other module."""
    return _WRITTEN_OUT.get(type(module))
