"""The loop over the optimizer steps of one module: the hot path of a single run, free of Lightning.

Shapes: ``B`` rows, ``C`` outputs (logits).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from mlp_lightning.engines.dropout import ModuleDropout
from mlp_lightning.engines.steps import Execution
from mlp_lightning.engines.trace import Histogram, StepTrace, ToLog, measure
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.optimizers import Schedule
from mlp_lightning.networks.tasks import Task


@dataclasses.dataclass
class StepLoop:
    """Runs executions: forward, backward, clipping, update and schedule of each of their steps.

    Attributes:
        model: takes the features of a batch, returns logits.
        task: the loss.
        optimizer: torch's, over the parameters of ``model``.
        schedule: the learning-rate schedule; ``None`` for a constant learning rate.
        log_interval: a step whose number is a multiple of it is logged; ``None``: no step.
        histogram_interval: likewise for histograms; ``None`` for none.
        clip_val: largest norm, or value, of the gradient; ``None`` for no limit.
        clip_algorithm: ``norm`` or ``value``.
        stop_requested: called before every step; the loop ends when it returns true.
        label_smoothing: share of every label that the loss spreads over all classes.
        epoch_loss: sum of the losses of the current epoch so far; kept only for a schedule that reads it.
        seed: of the run, for the masks of dropout.
    """

    model: nn.Module
    task: Task
    optimizer: Optimizer
    schedule: Schedule | None = None
    log_interval: int | None = 1
    histogram_interval: int | None = None
    clip_val: float | None = None
    clip_algorithm: str = "norm"
    stop_requested: Callable[[], bool] = lambda: False
    epoch_loss: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._hooks = _hooks_of(self.model)
        self._direct = _direct_forward(self.model)
        self._dropout = ModuleDropout.of(self.model, self.seed)

    def run(self, execution: Execution) -> StepTrace:
        """Make the optimizer steps of an execution, up to a requested stop, and measure those to log."""
        trace = self.make_steps(execution)
        trace.logged = measure(self.task, trace.to_log)
        trace.to_log = []
        return trace

    def make_steps(self, execution: Execution) -> StepTrace:
        """The same without measuring."""
        try:
            return self._make_steps(execution)
        finally:
            if self._dropout is not None:
                self._dropout.end()

    def _make_steps(self, execution: Execution) -> StepTrace:
        steps = execution.training_steps
        optimizer = self.optimizer
        gradients = self._gradients_of(steps.batch_size, steps.rows_per_step)
        mixed_precision = torch.is_autocast_enabled(steps.rows.features_BF.device.type)
        moment = self.schedule.moment if self.schedule is not None else None
        trace = StepTrace(execution.first_step)
        step = execution.first_step
        for features_BF, targets, weights_B in execution.batches():
            if self.stop_requested():
                break
            self._clear_gradients()
            if self._dropout is not None:
                self._dropout.begin(step, features_BF.shape[0])
            loss, logits_BC = gradients(features_BF, targets, weights_B)
            if self.clip_val is not None:
                self._clip(self.clip_val)
            trace.losses.append(loss)
            lr = optimizer.param_groups[0]["lr"]
            trace.rates.append(lr)
            if self.log_interval is not None and step % self.log_interval == 0:
                trace.to_log.append(ToLog(step, loss, logits_BC, targets, weights_B, lr))
            if self.histogram_interval is not None and step % self.histogram_interval == 0:
                trace.histograms.append(self._histogram(step))
            self._update()
            step += 1
            if mixed_precision:
                # Autocast keeps the bf16 copies of the weights until its context is left, which is after
                # the execution: without this, every step would use the weights of the first.
                torch.clear_autocast_cache()
            if moment is not None:
                self._step_schedule(moment, loss, step, steps.steps_per_epoch)
        return trace

    def _clear_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _update(self) -> None:
        self.optimizer.step()

    def _gradients_of(
        self, batch_size: int, rows_per_step: int
    ) -> Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]:
        """The function that computes loss, logits and gradients of one step."""
        model, loss_of = self.forward_function(), self.task.loss
        smoothing = self.label_smoothing or None

        def one_batch(features_BF: Tensor, targets: Tensor, weights_B: Tensor | None) -> tuple[Tensor, Tensor]:
            logits_BC = model(features_BF)
            loss = loss_of(logits_BC, targets, smoothing, weights_B)
            loss.backward()
            return loss.detach(), logits_BC.detach()

        def several_batches(features_BF: Tensor, targets: Tensor, weights_B: Tensor | None) -> tuple[Tensor, Tensor]:
            # Each batch counts by its rows, so the sum is the gradient of the mean over all of them.
            rows = features_BF.shape[0]
            losses, logits = [], []
            total = 1.0 if weights_B is None else weights_B.sum().clamp(min=torch.finfo(weights_B.dtype).tiny)
            for start in range(0, rows, batch_size):
                here = slice(start, start + batch_size)
                part_BF, part = features_BF[here], targets[here]
                if self._dropout is not None:
                    self._dropout.show(here)
                logits_BC = model(part_BF)
                if weights_B is None:
                    loss = loss_of(logits_BC, part, smoothing) * (part_BF.shape[0] / rows)
                else:
                    part_weights_B = weights_B[here]
                    loss = loss_of(logits_BC, part, smoothing, part_weights_B) * (part_weights_B.sum() / total)
                loss.backward()
                losses.append(loss.detach())
                logits.append(logits_BC.detach())
            return torch.stack(losses).sum(), torch.cat(logits)

        return one_batch if batch_size == rows_per_step else several_batches

    def _clip(self, limit: float) -> None:
        if self.clip_algorithm == "norm":
            clip_grad_norm_(self._parameters, limit)
        else:
            clip_grad_value_(self._parameters, limit)

    def _step_schedule(self, moment: str, loss: Tensor, step: int, steps_per_epoch: int) -> None:
        """Step the schedule after update number ``step``, if it is due."""
        assert self.schedule is not None
        epoch_ends = step % steps_per_epoch == 0
        if moment == "step" or (moment == "epoch" and epoch_ends):
            self.schedule.scheduler.step()
        elif moment == "epoch_loss":
            self.epoch_loss += loss.item()
            if epoch_ends:
                mean = self.epoch_loss / steps_per_epoch
                self.schedule.scheduler.step(mean)  # type: ignore[arg-type]  # a plateau scheduler takes the loss
                self.epoch_loss = 0.0

    def _histogram(self, step: int) -> Histogram:
        named = dict(self.model.named_parameters())
        return Histogram(
            step,
            {name: one.detach().clone() for name, one in named.items()},
            {name: one.grad.detach().clone() for name, one in named.items() if one.grad is not None},
        )

    def forward_function(self) -> Callable[[Tensor], Tensor]:
        """The function from features to logits.

        For an MLP without hooks it goes straight from layer to layer: ``Module.__call__`` looks for hooks at every
        layer of every step, which is a tenth of the time of a small network.
        """
        return self.model if self._direct is None or any(self._hooks) else self._direct


def _direct_forward(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The layers of an MLP one after another, past their hooks; ``None`` for any other module."""
    if not isinstance(model, MLP) or type(model).forward is not MLP.forward:
        return None
    forwards = [layer.forward for layer in model.layers]
    if model.embedding is not None:
        forwards.insert(0, model.embedding.forward)

    def forward(features_BF: Tensor) -> Tensor:
        for layer in forwards:
            features_BF = layer(features_BF)
        return features_BF

    return forward


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hooks_of(model: nn.Module) -> list[Mapping[Any, Any]]:
    """The dictionaries in which the modules of a model, and torch for all modules, keep hooks."""
    of_all = [getattr(nn.modules.module, f"_global{kind}") for kind in _HOOKS]
    return [*of_all, *(getattr(module, kind) for module in model.modules() for kind in _HOOKS)]
