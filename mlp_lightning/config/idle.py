"""Options that were set and have no effect beside the others.

Only what the user set counts: a value of ``conf/`` gives way to what makes it idle, and so does a default.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mlp_lightning.config import schema
from mlp_lightning.errors import Fault


@dataclasses.dataclass(frozen=True)
class _Idle:
    """When an option has no effect.

    Attributes:
        reason: why it has none in a configuration; empty if it has one.
        hint: what to do.
        harmless: values that say what is the case anyway.
    """

    reason: Callable[[schema.Config], str]
    hint: str
    harmless: tuple[Any, ...] = ()


def _where(holds: Callable[[schema.Config], Any], reason: str) -> Callable[[schema.Config], str]:
    return lambda config: reason if holds(config) else ""


def has_validation_rows(data: schema.DataConfig) -> bool:
    """Whether rows are validated with."""
    chosen = data.val_path is not None or data.split_column is not None
    return chosen or data.val_fraction > 0 or data.cv.validates


def _highest_rate(config: schema.Config) -> str:
    """Of a schedule that has a learning rate beside that of the optimizer."""
    highest = getattr(config.scheduler, "max_lr", None)
    if highest is None or highest == config.optimizer.lr:
        return ""
    return f"scheduler.max_lr = {highest} is the highest learning rate, and the others follow from it"


def _without_embedding(kinds: Collection[str]) -> Callable[[schema.Config], str]:
    def reason(config: schema.Config) -> str:
        kind = config.model.numeric_embedding
        return "" if kind in kinds else f"it is for {' and '.join(kinds)}, and model.numeric_embedding = {kind!r}"

    return reason


def _lacks(argument: str) -> Callable[[schema.Config], bool]:
    """Whether an argument of one of torch's optimizers is 0, or not set."""
    return lambda config: (
        not isinstance(config.optimizer, schema.OwnOptimizerConfig) and not config.optimizer.options.get(argument)
    )


_FULL_BATCH = _where(
    lambda config: config.data.batch_size is None, "data.batch_size = None makes one batch of all rows"
)
_IDLE: dict[str, _Idle] = {
    "model.activation": _Idle(
        _where(
            lambda config: not isinstance(config.model, schema.OwnModelConfig) and not config.model.layer_widths,
            "there are no hidden layers",
        ),
        "leave it out, or choose another model",
    ),
    "model.embedding_frequencies": _Idle(
        _without_embedding(("periodic", "piecewise_linear")), "set model.numeric_embedding, or leave it out"
    ),
    "model.embedding_sigma": _Idle(_without_embedding(("periodic",)), "use periodic, or leave it out"),
    "data.shuffle": _Idle(_FULL_BATCH, "set data.batch_size, or leave it out", (True,)),
    "trainer.accumulate_grad_batches": _Idle(_FULL_BATCH, "set data.batch_size, or leave it out", (1,)),
    "trainer.gradient_clip_algorithm": _Idle(
        _where(
            lambda config: config.trainer.gradient_clip_val is None, "trainer.gradient_clip_val = None clips nothing"
        ),
        "set trainer.gradient_clip_val, for example 1.0",
        ("norm",),
    ),
    "trainer.check_val_every_n_epoch": _Idle(
        _where(lambda config: not has_validation_rows(config.data), "there are no validation rows"),
        "set data.val_fraction above 0, or leave it out",
        (1,),
    ),
    "optimizer.lr": _Idle(_highest_rate, "leave one of them out"),
    "optimizer.dampening": _Idle(
        _where(_lacks("momentum"), "it dampens optimizer.momentum, which is 0"),
        "set optimizer.momentum, for example 0.9, or leave it out",
        (0, 0.0),
    ),
    "optimizer.decoupled_weight_decay": _Idle(
        _where(_lacks("weight_decay"), "optimizer.weight_decay is 0"),
        "set optimizer.weight_decay, for example 0.01, or leave it out",
        (False,),
    ),
    "logger.graph": _Idle(
        _where(
            lambda config: not config.logger.tensorboard, "the graph is for TensorBoard, and logger.tensorboard = False"
        ),
        "leave one of them out",
        (False,),
    ),
}


def idle_options(config: schema.Config, explicit: Collection[str]) -> Iterator[Fault]:
    """The options that have no effect, of those that were set.

    Args:
        config: the configuration.
        explicit: dotted keys that the user set.
    """
    for key in sorted(_IDLE.keys() & set(explicit)):
        idle, value = _IDLE[key], _value(config, key)
        reason = idle.reason(config)
        if reason and value is not None and value not in idle.harmless:  # None: it was deleted
            yield Fault(key, value, f"has no effect: {reason}", idle.hint)
    yield from _idle_suggestions(config, explicit)


def _idle_suggestions(config: schema.Config, explicit: Collection[str]) -> Iterator[Fault]:
    """Suggested learning rates, where another rate is taken: one that was set, or that of another optimizer."""
    suggested = {key: _value(config, key) for key in sorted(explicit) if key.startswith("data.suggested_lr")}
    rates = [rate for one in suggested.values() for rate in (one.values() if isinstance(one, dict) else [one])]
    lr = config.optimizer.lr
    if "optimizer.lr" in explicit:
        reason, hint = f"optimizer.lr = {lr} is set", "leave one of them out"
    else:
        reason = f"optimizer.lr = {lr} is that of another optimizer than these"
        hint = "name the optimizer group that is chosen, or leave it out"
    if suggested and ("optimizer.lr" in explicit or (any(rates) and lr not in rates)):
        key = next(iter(suggested))
        yield Fault(key, suggested[key], f"has no effect: {reason}", hint)


def _value(config: schema.Config, key: str) -> Any:
    def inner(node: Any, name: str) -> Any:
        if isinstance(node, dict):
            return node.get(name)
        return getattr(node, name) if hasattr(node, name) else node.options.get(name)

    return functools.reduce(inner, key.split("."), config)
