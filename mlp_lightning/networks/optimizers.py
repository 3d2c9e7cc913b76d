"""torch's optimizers and learning-rate schedulers, built from the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from mlp_lightning.config import (
    CosineSchedule,
    InverseTimeSchedule,
    OneCycleSchedule,
    OptimizerConfig,
    OwnOptimizerConfig,
    PlateauSchedule,
    ScheduleConfig,
    StepSchedule,
)
from mlp_lightning.errors import ConfigError, Fault


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig, own: Callable[..., Optimizer] | None = None
) -> Optimizer:
    """An optimizer over ``parameters``: of ``torch.optim``, or the user's own.

    Args:
        parameters: to update.
        config: which one, and its arguments.
        own: makes it, where it is none of torch's.

    Raises:
        ConfigError: if torch has no such class or the class refuses an argument.
    """
    if own is None and isinstance(config, OwnOptimizerConfig):
        rule, hint = "is not imported automatically", "give MLPModule its class as optimizer_class"
        raise ConfigError([Fault("optimizer._target_", config._target_, rule, hint)])
    if own is not None and not isinstance(config, OwnOptimizerConfig):
        rule = "has no effect: optimizer has no _target_"
        raise ConfigError([Fault("optimizer_class", own, rule, "give both, or neither")])
    optimizer_class = own or getattr(torch.optim, config.name, None)
    if optimizer_class is None:
        raise ConfigError([Fault("optimizer.name", config.name, f"is not in torch.optim of torch {torch.__version__}")])
    arguments = {name: tuple(one) if isinstance(one, list) else one for name, one in config.options.items()}
    try:
        return optimizer_class(parameters, lr=config.lr, **arguments)
    except (TypeError, ValueError) as error:
        rule = f"was refused by {'torch' if own is None else config.name}: {error}"
        raise ConfigError([Fault("optimizer", {"lr": config.lr, **arguments}, rule)]) from error


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning-rate scheduler and when to step it.

    Attributes:
        scheduler: torch's.
        moment: ``"step"`` after every optimizer step, ``"epoch"`` after every epoch, ``"epoch_loss"`` after
            every epoch with its mean training loss, ``"validation"`` after every validation with its loss.
    """

    scheduler: LRScheduler
    moment: str


def build_schedule(
    optimizer: Optimizer, config: ScheduleConfig, total_steps: int | None, has_validation: bool
) -> Schedule | None:
    """The scheduler that ``config`` asks for; ``None`` for a constant learning rate.

    Args:
        optimizer: whose learning rate to change.
        config: one of the schedules.
        total_steps: length of the run in optimizer steps; ``None`` for a run without a limit.
        has_validation: whether there are validation rows, whose loss a plateau may follow.

    Raises:
        ConfigError: for a schedule over the whole run when the run has no limit.
    """
    if isinstance(config, (CosineSchedule, OneCycleSchedule)):
        if total_steps is None:
            raise ConfigError(
                [Fault("scheduler.name", config.name, "needs a run of known length", "set max_steps or max_epochs")]
            )
        total_steps = max(1, total_steps)
        if isinstance(config, CosineSchedule):
            return Schedule(lr_scheduler.CosineAnnealingLR(optimizer, total_steps, config.eta_min), "step")
        return Schedule(_one_cycle(optimizer, config, total_steps), "step")
    if isinstance(config, StepSchedule):
        return Schedule(lr_scheduler.StepLR(optimizer, config.step_size, config.gamma), config.interval)
    if isinstance(config, InverseTimeSchedule):

        def factor(time: int) -> float:
            return (1 + config.decay_rate * time) ** -config.power

        return Schedule(lr_scheduler.LambdaLR(optimizer, factor), config.interval)
    if isinstance(config, PlateauSchedule):
        on_validation = has_validation if config.monitor == "auto" else config.monitor == "loss/val"
        plateau = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=config.factor,
            patience=config.patience,
            threshold=config.threshold,
            min_lr=config.min_lr,
        )
        return Schedule(plateau, "validation" if on_validation else "epoch_loss")
    return None


def _one_cycle(optimizer: Optimizer, config: OneCycleSchedule, total_steps: int) -> LRScheduler:
    groups = optimizer.param_groups
    highest = [group["lr"] if config.max_lr is None else config.max_lr for group in groups]
    arguments: dict[str, Any] = {"cycle_momentum": False}
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=highest,
        # One more than the run has: torch's scheduler refuses the step after the last.
        total_steps=total_steps + 1,
        pct_start=config.pct_start,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
        **arguments,
    )
