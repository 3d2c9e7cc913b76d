"""Activations and losses of a kernel, vector by vector; the mathematics is that of ``networks``.

``tests/engines/compiled`` compares each with torch's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from mlp_lightning.engines.compiled.vectors import Code, Value


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation and its gradient.

    Attributes:
        forward: ``(code, z) -> a``.
        backward: ``(code, gradient, kept) -> gradient`` turns the gradient of the output into that of the input.
        keeps_input: whether the gradient is worked out from the input; otherwise from the output.
    """

    forward: Callable[[Code, Value], Value]
    backward: Callable[[Code, Value, Value], Value]
    keeps_input: bool = False


def _is_positive(code: Code, x: Value) -> Value:
    return code.is_less(code.number(0), x)


def _leaky(slope: float) -> Activation:
    def scaled(code: Code, value: Value, sign: Value) -> Value:
        return code.choose(_is_positive(code, sign), value, code.multiply(value, code.number(slope)))

    return Activation(lambda code, z: scaled(code, z, z), scaled)


def _relu() -> Activation:
    def backward(code: Code, gradient: Value, a: Value) -> Value:
        return code.choose(_is_positive(code, a), gradient, code.number(0))

    return Activation(lambda code, z: code.at_least(z, code.number(0)), backward)


def _elu(alpha: float = 1.0, scale: float = 1.0) -> Activation:
    def forward(code: Code, z: Value) -> Value:
        below = code.multiply(code.expm1(z), code.number(alpha * scale))
        return code.choose(_is_positive(code, z), code.multiply(z, code.number(scale)), below)

    def backward(code: Code, gradient: Value, a: Value) -> Value:
        slope = code.choose(_is_positive(code, a), code.number(scale), code.add(a, code.number(alpha * scale)))
        return code.multiply(gradient, slope)

    return Activation(forward, backward)


def _sigmoid_backward(code: Code, gradient: Value, a: Value) -> Value:
    return code.multiply(gradient, code.multiply(a, code.subtract(code.number(1), a)))


def _tanh_backward(code: Code, gradient: Value, a: Value) -> Value:
    return code.multiply(gradient, code.fma(code.negative(a), a, code.number(1)))


def _silu_backward(code: Code, gradient: Value, z: Value) -> Value:
    s = code.sigmoid(z)
    slope = code.multiply(s, code.fma(z, code.subtract(code.number(1), s), code.number(1)))
    return code.multiply(gradient, slope)


def _gelu() -> Activation:
    def share(code: Code, z: Value) -> Value:
        half = code.number(0.5)
        return code.fma(half, code.erf(code.multiply(z, code.number(math.sqrt(0.5)))), half)

    def backward(code: Code, gradient: Value, z: Value) -> Value:
        squared = code.multiply(code.multiply(z, z), code.number(-0.5))
        density = code.multiply(code.exp(squared), code.number(1 / math.sqrt(2 * math.pi)))
        return code.multiply(gradient, code.fma(z, density, share(code, z)))

    return Activation(lambda code, z: code.multiply(z, share(code, z)), backward, keeps_input=True)


def softplus(code: Code, z: Value) -> Value:
    """``log(1 + exp(z))``."""
    rest = code.log1p(code.exp(code.negative(code.absolute(z))))
    return code.add(code.at_least(z, code.number(0)), rest)


def _softplus() -> Activation:
    def is_large(code: Code, z: Value) -> Value:
        return code.is_less(code.number(20), z)  # where torch takes it as the identity

    return Activation(
        lambda code, z: code.choose(is_large(code, z), z, softplus(code, z)),
        lambda code, g, z: code.choose(is_large(code, z), g, code.multiply(g, code.sigmoid(z))),
        keeps_input=True,
    )


ACTIVATIONS: Mapping[str, Activation] = {
    "identity": Activation(lambda code, z: z, lambda code, gradient, a: gradient),
    "sigmoid": Activation(Code.sigmoid, _sigmoid_backward),
    "tanh": Activation(Code.tanh, _tanh_backward),
    "relu": _relu(),
    "leaky_relu": _leaky(0.01),
    "elu": _elu(),
    # Klambauer et al. (2017).
    "selu": _elu(1.6732632423543772, 1.0507009873554805),
    "gelu": _gelu(),
    "silu": Activation(lambda code, z: code.multiply(z, code.sigmoid(z)), _silu_backward, keeps_input=True),
    "softplus": _softplus(),
}


def logistic_loss(code: Code, z_C: Value, target: Callable[[Value], Value], share: Value, outputs: Value) -> Value:
    """Binary cross-entropy of each output; see :data:`LOSSES`."""
    total = code.variable()
    code.store(code.number(0), total)
    with code.loop(0, outputs) as k:
        z, t = code.load(z_C, k), target(k)
        one = code.subtract(softplus(code, z), code.multiply(z, t))
        code.store(code.fma(share, one, code.load(total)), total)
        code.store(code.multiply(share, code.subtract(code.sigmoid(z), t)), z_C, k)
    return code.load(total)


def softmax_loss(code: Code, z_C: Value, target: Callable[[Value], Value], share: Value, outputs: Value) -> Value:
    """Cross-entropy of all outputs together; see :data:`LOSSES`."""
    largest, total, product = code.variable(), code.variable(), code.variable()
    code.store(code.load(z_C), largest)
    with code.loop(1, outputs) as k:
        code.store(code.at_least(code.load(z_C, k), code.load(largest)), largest)
    top = code.load(largest)
    code.store(code.number(0), total)
    code.store(code.number(0), product)
    with code.loop(0, outputs) as k:
        z = code.subtract(code.load(z_C, k), top)
        code.store(code.fma(z, target(k), code.load(product)), product)
        power = code.exp(z)
        code.store(code.add(power, code.load(total)), total)
        code.store(power, z_C, k)
    sum_, factor = code.load(total), code.divide(code.number(1), code.load(total))
    with code.loop(0, outputs) as k:
        probability = code.multiply(code.load(z_C, k), factor)
        code.store(code.multiply(share, code.subtract(probability, target(k))), z_C, k)
    # The targets of a row sum to 1.
    return code.multiply(share, code.subtract(code.log(sum_), code.load(product)))


def squared_loss(code: Code, z_C: Value, target: Callable[[Value], Value], share: Value, outputs: Value) -> Value:
    """Squared error of each output; see :data:`LOSSES`."""
    total = code.variable()
    code.store(code.number(0), total)
    with code.loop(0, outputs) as k:
        difference = code.subtract(code.load(z_C, k), target(k))
        of_share = code.multiply(share, difference)
        code.store(code.fma(of_share, difference, code.load(total)), total)
        code.store(code.add(of_share, of_share), z_C, k)
    return code.load(total)


#: By the name of the task: ``(code, z_C, target, share, outputs) -> loss`` of one row times its share of the mean. The
#: logits ``z_C`` become the gradient; ``target(k)`` is that of output ``k``.
LOSSES: Mapping[str, Callable[[Code, Value, Callable[[Value], Value], Value, Value], Value]] = {
    "binary": logistic_loss,
    "multilabel": logistic_loss,
    "multiclass": softmax_loss,
    "regression": squared_loss,
}
