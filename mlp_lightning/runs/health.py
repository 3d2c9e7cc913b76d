"""Notices, early and by name, that a run cannot learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from mlp_lightning.engines.trace import StepTrace
from mlp_lightning.errors import NonFiniteLossError, NoParameterChangedError
from mlp_lightning.runs.module import MLPModule

# After this many steps, or at the end of a shorter run, some parameter must have changed.
STEPS_TO_CHANGE = 100


class TrainingHealth(pl.Callback):
    """Ends a run whose loss is no longer a number, or in which no parameter changes.

    Args:
        last_step: number of steps of the whole run.
    """

    def __init__(self, last_step: int) -> None:
        self._check_at = min(STEPS_TO_CHANGE, last_step)
        self._initial: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that goes on from a checkpoint has changed its parameters before.
        if trainer.global_step == 0:
            self._initial = {name: one.detach().clone() for name, one in pl_module.named_parameters()}

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: MLPModule, outputs: Mapping[str, StepTrace], *_: Any
    ) -> None:
        trace = outputs["trace"]
        if not trace.steps:
            return
        losses_S = trace.losses_S()
        finite_S = losses_S.isfinite()
        if not finite_S.all():
            position = int((~finite_S).nonzero()[0])
            optimizer = trainer.optimizers[0]
            step, lr = trace.first_step + position, optimizer.param_groups[0]["lr"]
            raise NonFiniteLossError(non_finite_message(step, losses_S[position].item(), type(optimizer).__name__, lr))
        if self._initial is not None and trainer.global_step >= self._check_at:
            initial, self._initial = self._initial, None
            self._check_change(trainer, pl_module, initial)

    def _check_change(self, trainer: pl.Trainer, pl_module: MLPModule, initial: Mapping[str, Tensor]) -> None:
        current = dict(pl_module.named_parameters())
        if any(not torch.equal(initial[name], current[name].detach()) for name in initial):
            return
        why = _why_unchanged(trainer.optimizers[0], current)
        raise NoParameterChangedError(unchanged_message(trainer.global_step, initial, why))


def non_finite_message(step: int, loss: float, optimizer: str, lr: float) -> str:
    """What to say of a training loss that is no number any more."""
    return (
        f"The training loss became {loss} at step {step} ({optimizer}, learning rate {lr:g})."
        " Lower optimizer.lr, limit the gradient with trainer.gradient_clip_val=1, or look for"
        " values in the data that are not finite or very large."
    )


def non_finite_figures_message(steps: int, metrics: Mapping[str, Mapping[str, float]], lr: float) -> str:
    """What to say when the final figures are no numbers."""
    return (
        f"The figures after the last step ({steps}) are not finite: {metrics}. Lower optimizer.lr ({lr:g}) or limit the"
        " gradient with trainer.gradient_clip_val=1."
    )


def unchanged_message(steps: int, names: Iterable[str], why: str) -> str:
    """What to say when no parameter has changed in the first ``steps`` steps."""
    return f"No parameter changed in steps 0 to {steps - 1}: {', '.join(names)} are what they were. {why}"


def why_unchanged(optimizer: str, lr: float, gradients_are_zero: bool) -> str:
    """Why the updates of an optimizer change nothing, and what to do."""
    if not lr:
        return f"The learning rate of {optimizer} is {lr:g}: set optimizer.lr above 0."
    if gradients_are_zero:
        return (
            "All their gradients are zero: choose another model.activation or model.init, or standardise the"
            " features (data.standardize=true)."
        )
    return f"The updates of {optimizer} are too small for the number format: raise optimizer.lr ({lr:g})."


def _why_unchanged(optimizer: Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> str:
    name = type(optimizer).__name__
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    if not any(id(one) in held for one in parameters.values()):
        return f"The optimizer {name} holds none of them: it was built for another model."
    gradients = [one.grad for one in parameters.values()]
    no_gradient = not any(one is not None and one.count_nonzero() for one in gradients)
    rates = [group["lr"] for group in optimizer.param_groups]
    return why_unchanged(name, max(rates), no_gradient)
