"""The updates of torch's optimizers, vector by vector.

A rule gives the direction of an update: the weights lose the learning rate times it. What a rule needs of the number of
the step is worked out beforehand, in double precision, as torch does it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlp_lightning.engines.compiled.vectors import Code, Value

Options = Mapping[str, Any]
#: ``(code, options, gradient, states, factors) -> direction, states``
Factors = Callable[[Options, dict[str, Any], int, bool], "list[list[float]]"]
Direction = Callable[[Code, Options, Value, Sequence[Value], Sequence[Value]], "tuple[Value, list[Value]]"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """How an optimizer turns a gradient into an update.

    Attributes:
        direction: of the update, and the states after it.
        states: torch's names of the states that have one number for each weight.
        factors: ``(options, state, count, is_new) -> [[…], …]``: for each of the next ``count`` steps the factors that
            depend on its number; changes what ``state`` has for all weights together.
        common: what a new state has for all weights together, as torch makes it.
    """

    direction: Direction
    states: Callable[[Options], tuple[str, ...]]
    factors: Factors = lambda options, state, count, is_new: []
    common: Callable[[], dict[str, Any]] = lambda: {"step": torch.tensor(0.0)}

    def begin(self, options: Options, state: dict[str, Any], like_N: Tensor) -> bool:
        """Make the state that torch's optimizer would have before its first update; whether there was none.

        Args:
            options: of the optimizer.
            state: to fill; one that is there already stays.
            like_N: the weights.
        """
        if state or not self.states(options):
            return False
        state.update(self.common())
        state.update({name: torch.zeros_like(like_N) for name in self.states(options)})
        return True


def _step_after(state: dict[str, Any], count: int) -> range:
    """The numbers of the next steps, the first of a run being 1."""
    before = int(state["step"])
    state["step"] += count
    return range(before + 1, before + count + 1)


# ---- SGD (with momentum as in Sutskever et al., 2013, in torch's form) -----------------------------------


def _sgd_states(options: Options) -> tuple[str, ...]:
    return ("momentum_buffer",) if options.get("momentum") else ()


def _sgd_factors(options: Options, state: dict[str, Any], count: int, is_new: bool) -> list[list[float]]:
    """The first gradient of a run is not dampened."""
    if not options.get("momentum"):
        return []
    kept = 1.0 - options.get("dampening", 0.0)
    return [[1.0 if is_new and number == 0 else kept] for number in range(count)]


def _sgd(code: Code, options: Options, g: Value, states: Sequence[Value], factors: Sequence[Value]) -> Any:
    if not states:
        return g, []
    momentum = code.number(options["momentum"])
    buffer = code.fma(momentum, states[0], code.multiply(factors[0], g))
    return (code.fma(momentum, buffer, g) if options.get("nesterov") else buffer), [buffer]


# ---- Adam (Kingma and Ba, 2015), AdamW, NAdam (Dozat, 2016) ----------------------------------------------


def _betas(options: Options) -> tuple[float, float]:
    first, second = options.get("betas", (0.9, 0.999))
    return first, second


def _moments(code: Code, options: Options, g: Value, states: Sequence[Value]) -> tuple[Value, Value]:
    first, second = _betas(options)
    mean = code.fma(code.number(1 - first), code.subtract(g, states[0]), states[0])
    scaled = code.multiply(code.number(second), states[1])
    return mean, code.fma(code.multiply(g, code.number(1 - second)), g, scaled)


def _adam_states(options: Options) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if options.get("amsgrad") else ()))


def _adam_factors(options: Options, state: dict[str, Any], count: int, is_new: bool) -> list[list[float]]:
    first, second = _betas(options)
    return [[1 / (1 - first**step), (1 - second**step) ** -0.5] for step in _step_after(state, count)]


def _adam(code: Code, options: Options, g: Value, states: Sequence[Value], factors: Sequence[Value]) -> Any:
    mean, square = _moments(code, options, g, states)
    after = [mean, square]
    if len(states) == 3:
        square = code.at_least(square, states[2])
        after.append(square)
    of_mean, of_root = factors
    size = code.fma(code.sqrt(square), of_root, code.number(options.get("eps", 1e-8)))
    return code.divide(code.multiply(mean, of_mean), size), after


def _nadam_factors(options: Options, state: dict[str, Any], count: int, is_new: bool) -> list[list[float]]:
    first, second = _betas(options)
    decay, factors = options.get("momentum_decay", 4e-3), []
    for step in _step_after(state, count):
        now, next_ = (first * (1 - 0.5 * 0.96 ** (one * decay)) for one in (step, step + 1))
        state["mu_product"] = state["mu_product"] * now
        product = float(state["mu_product"])
        factors.append([(1 - now) / (1 - product), next_ / (1 - product * next_), (1 - second**step) ** -0.5])
    return factors


def _nadam(code: Code, options: Options, g: Value, states: Sequence[Value], factors: Sequence[Value]) -> Any:
    mean, square = _moments(code, options, g, states)
    of_gradient, of_mean, of_root = factors
    size = code.fma(code.sqrt(square), of_root, code.number(options.get("eps", 1e-8)))
    return code.divide(code.fma(of_mean, mean, code.multiply(of_gradient, g)), size), [mean, square]


# ---- RMSprop, Adagrad (Duchi et al., 2011) ---------------------------------------------------------------


def _rmsprop_states(options: Options) -> tuple[str, ...]:
    return ("square_avg", *(("momentum_buffer",) if options.get("momentum") else ()))


def _rmsprop(code: Code, options: Options, g: Value, states: Sequence[Value], factors: Sequence[Value]) -> Any:
    alpha = options.get("alpha", 0.99)
    square = code.fma(code.multiply(g, code.number(1 - alpha)), g, code.multiply(code.number(alpha), states[0]))
    direction = code.divide(g, code.add(code.sqrt(square), code.number(options.get("eps", 1e-8))))
    if len(states) == 1:
        return direction, [square]
    buffer = code.fma(code.number(options["momentum"]), states[1], direction)
    return buffer, [square, buffer]


def _rmsprop_factors(options: Options, state: dict[str, Any], count: int, is_new: bool) -> list[list[float]]:
    _step_after(state, count)
    return []


def _adagrad_factors(options: Options, state: dict[str, Any], count: int, is_new: bool) -> list[list[float]]:
    return [[1 / (1 + (step - 1) * options.get("lr_decay", 0))] for step in _step_after(state, count)]


def _adagrad(code: Code, options: Options, g: Value, states: Sequence[Value], factors: Sequence[Value]) -> Any:
    total = code.fma(g, g, states[0])
    size = code.add(code.sqrt(total), code.number(options.get("eps", 1e-10)))
    return code.divide(code.multiply(g, factors[0]), size), [total]


_ADAM = Rule(_adam, _adam_states, _adam_factors)
#: By the name of torch's class. Learning rates, weight decay and clipping are the kernel's.
RULES: Mapping[str, Rule] = {
    "SGD": Rule(_sgd, _sgd_states, _sgd_factors, dict),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "NAdam": Rule(
        _nadam,
        lambda options: ("exp_avg", "exp_avg_sq"),
        _nadam_factors,
        lambda: {"step": torch.tensor(0.0), "mu_product": torch.ones(())},
    ),
    "RMSprop": Rule(_rmsprop, _rmsprop_states, _rmsprop_factors),
    "Adagrad": Rule(_adagrad, lambda options: ("sum",), _adagrad_factors),
}
