"""What a Trainer of the user's own asks for: counted in true steps and epochs, or refused.

Lightning counts batches, and what it takes for a batch here is an execution of many optimizer steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)

from mlp_lightning.errors import Fault

#: Hooks of callbacks that Lightning calls for steps that it makes itself.
OF_LIGHTNING_STEPS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
# They do something at every batch that is meant for every step.
_FOR_EVERY_STEP = (DeviceStatsMonitor, LearningRateMonitor, StochasticWeightAveraging, WeightAveraging)
# Their epoch hooks only display something, or count what they are given.
_NOT_FOR_EVERY_EPOCH = (ModelCheckpoint, ModelSummary, ProgressBar, Timer)


def overridden_hooks(callback: pl.Callback, names: Sequence[str]) -> list[str]:
    """Which of the hooks with these names a callback has."""
    return [name for name in names if getattr(type(callback), name) is not getattr(pl.Callback, name)]


def batches_per_epoch(trainer: pl.Trainer | None) -> int | None:
    """``limit_train_batches`` or ``overfit_batches`` of a Trainer; ``None`` for all."""
    limit = None if trainer is None else trainer.limit_train_batches
    return limit if isinstance(limit, int) and limit > 0 else None


def overfit_batches(trainer: pl.Trainer) -> int | float:
    """Of a Trainer; 0 if it is to learn, as usual, from all of them."""
    return trainer.overfit_batches  # type: ignore[attr-defined]  # set by a connector of the Trainer


def steps_between_ends(trainer: pl.Trainer, own: int | None) -> int | None:
    """An execution ends at every multiple of it, so that callbacks that count steps see theirs.

    Args:
        trainer: whose callbacks save after so many steps.
        own: what is asked for otherwise.
    """
    checkpoints = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    return _common([own, *(one._every_n_train_steps for one in checkpoints)])


def epochs_between_ends(trainer: pl.Trainer, has_validation: bool) -> int | None:
    """A span ends at every multiple of it: there Lightning validates and calls the hooks of epochs."""
    intervals: list[int | None] = [trainer.check_val_every_n_epoch if has_validation else None]
    for one in _callbacks(trainer):
        if isinstance(one, ModelCheckpoint):
            keeps_the_newest = one._every_n_epochs == 1 and one.monitor is None and one.save_top_k in (0, 1)
            intervals.append(None if keeps_the_newest else one._every_n_epochs)
        elif not isinstance(one, _NOT_FOR_EVERY_EPOCH):
            intervals.append(1 if overridden_hooks(one, ["on_train_epoch_start", "on_train_epoch_end"]) else None)
    return _common(intervals)


def trainer_faults(trainer: pl.Trainer, datamodule: Any, steps_per_execution: int) -> Iterator[Fault]:
    """What a Trainer asks for and cannot have.

    Args:
        trainer: of the user's own.
        datamodule: of the rows.
        steps_per_execution: of the data module.
    """
    if trainer.world_size > 1:
        rule = "is not supported: each process would train the same network on the same rows"
        yield Fault("Trainer.world_size", trainer.world_size, rule, "give Trainer(devices=1, num_nodes=1)")
    module, rows = type(trainer.lightning_module).__name__, type(datamodule).__name__
    if trainer.gradient_clip_val:
        given, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        named = "" if algorithm in (None, "norm") else f", gradient_clip_algorithm={algorithm.value!r}"
        rule = f"clips nothing: {module} makes the optimizer steps itself"
        yield Fault("Trainer.gradient_clip_val", given, rule, f"give {module}(…, gradient_clip_val={given}{named})")
    if trainer.accumulate_grad_batches != 1:
        given, rule = trainer.accumulate_grad_batches, f"accumulates nothing: {module} makes the optimizer steps itself"
        hint = f"give {rows}(…, accumulate_grad_batches={given})"
        yield Fault("Trainer.accumulate_grad_batches", given, rule, hint)
    yield from _precision_faults(trainer, getattr(datamodule, "dtype", None), module, rows)
    yield from _counts(trainer, steps_per_execution, rows)
    yield from _callback_faults(trainer, steps_per_execution, rows)


def _precision_faults(trainer: pl.Trainer, dtype: torch.dtype | None, module: str, rows: str) -> Iterator[Fault]:
    given = trainer.precision
    if given in ("16-mixed", "16-true", "bf16-true"):
        rule = f"needs a scaler of gradients, which {module} has not" if "mixed" in given else "is not supported"
        yield Fault("Trainer.precision", given, rule, 'give Trainer(precision="bf16-mixed")')
    elif dtype is not None and (given == "64-true") != (dtype == torch.float64):
        other = torch.float64 if given == "64-true" else torch.float32
        hint = f'give {rows}(…, dtype={other}), or Trainer(precision="{"32" if given == "64-true" else "64"}-true")'
        yield Fault("Trainer.precision", given, f"does not fit rows of {dtype}", hint)


def _counts(trainer: pl.Trainer, steps_per_execution: int, rows: str) -> Iterator[Fault]:
    shares = {"overfit_batches": overfit_batches(trainer), "limit_train_batches": trainer.limit_train_batches}
    for name, given in shares.items():
        if isinstance(given, float) and given not in (0.0, 1.0):
            rule = "is a share, and must be a number of batches: epochs have no length that Lightning knows"
            yield Fault(f"Trainer.{name}", given, rule, f"for example {name}=10")
            return  # Lightning sets the second to the first
    interval = trainer.val_check_interval
    if isinstance(interval, float) and interval != 1.0:
        rule = "is a share of an epoch, and epochs have no length that Lightning knows"
        yield Fault("Trainer.val_check_interval", interval, rule, "give check_val_every_n_epoch, or a number of steps")
    elif isinstance(interval, int) and steps_per_execution > 1:
        rule = f"would count executions of {steps_per_execution} steps"
        hint = f"give check_val_every_n_epoch, or {rows}(…, steps_per_execution=1)"
        yield Fault("Trainer.val_check_interval", interval, rule, hint)


def _callback_faults(trainer: pl.Trainer, steps_per_execution: int, rows: str) -> Iterator[Fault]:
    for one in _callbacks(trainer):
        name = type(one).__name__
        for hook in overridden_hooks(one, OF_LIGHTNING_STEPS):
            yield Fault("Trainer.callbacks", name, f"has {hook}, which is never called", "use on_train_batch_end")
        if isinstance(one, ModelCheckpoint) and one._train_time_interval is not None:
            rule = "has a train_time_interval, by which Lightning saves nothing of a module that makes its own steps"
            yield Fault("Trainer.callbacks", name, rule, "give it every_n_train_steps or every_n_epochs")
        if isinstance(one, _FOR_EVERY_STEP) and steps_per_execution > 1:
            rule = f"would be called once for {steps_per_execution} steps"
            also = " (the learning rate is logged without it)" if isinstance(one, LearningRateMonitor) else ""
            hint = f"leave it out{also}, or give {rows}(…, steps_per_execution=1)"
            yield Fault("Trainer.callbacks", name, rule, hint)


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]  # set by a connector of the Trainer


def _common(intervals: Sequence[int | None]) -> int | None:
    """The largest number that all intervals are multiples of; without any, ``None``."""
    return math.gcd(*(one for one in intervals if one is not None)) or None
