"""The loop over optimizer steps of a stack: the hot path of a sweep, free of Lightning.

Shapes: ``K`` members, ``S`` steps of an execution, ``B`` rows, ``C`` outputs (logits), ``H`` hidden units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlp_lightning.engines.dropout import DropoutMasks
from mlp_lightning.engines.protocol import Trace
from mlp_lightning.engines.stacked.gradients import StackedGradients
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.network import StackedNetwork
from mlp_lightning.engines.stacked.network_gradients import NetworkGradients
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer, StackedSchedule
from mlp_lightning.engines.stacked.stack import Stack
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.networks.tasks import Task

# Logits are kept up to this many numbers before their losses are computed together.
_KEPT_NUMBERS = 2**21


class StackedLoop:
    """Runs executions of a stack: forward, backward, clipping, update and schedule of each of their steps.

    Args:
        model: the stack.
        task: the loss.
        steps: which rows each step sees.
        optimizer: over ``model``; its ``gradient_N`` is where gradients are written.
        schedule: the learning rates.
        dropout: the masks; ``None`` without dropout.
        log_interval: a step whose number is a multiple of it is logged.
        label_smoothing: of each member; ``None`` without.
        stop_requested: called before every step; the loop ends when it returns true.
    """

    def __init__(
        self,
        model: Stack,
        task: Task,
        steps: StackedSteps,
        optimizer: StackedOptimizer,
        schedule: StackedSchedule,
        dropout: DropoutMasks | None = None,
        log_interval: int = 1,
        stop_requested: Callable[[], bool] = lambda: False,
        label_smoothing: Sequence[float] | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.steps = steps
        self.optimizer = optimizer
        self.schedule = schedule
        self.dropout = dropout
        self.log_interval = log_interval
        self.stop_requested = stop_requested
        self.label_smoothing = label_smoothing
        self._smoothing_K11: Tensor | None = None
        if label_smoothing is not None and any(label_smoothing):
            self._smoothing_K11 = model.flat_N.new_tensor(label_smoothing)[:, None, None]
        #: Members that still train; the schedules of the others are stopped.
        self.active = [True] * model.members
        #: Sum of each member's losses of the current epoch so far; kept only for a schedule that reads it.
        self.epoch_loss_K = torch.zeros(model.members, dtype=torch.float64)
        self._chains: dict[int, StackedGradients | NetworkGradients] = {}

    @torch.no_grad()
    def run(self, first_step: int, count: int) -> Trace:
        """Make ``count`` optimizer steps, up to a requested stop."""
        parts: list[Measured] = []
        step, last = first_step, first_step + count
        at_once = self._steps_at_once()
        while step < last and not self.stop_requested():
            # Steps of one number of rows, so that their logits are one tensor.
            rows = self.steps.rows_at(step)
            end = step + 1
            while end < min(last, step + at_once) and self.steps.rows_at(end) == rows:
                end += 1
            measured = self._run_alike(step, end - step, rows)
            parts.append(measured)
            step += measured.losses_SK.shape[0]
        return self._trace(first_step, parts)

    def _steps_at_once(self) -> int:
        """Most steps that are made before their losses are computed."""
        return max(1, _KEPT_NUMBERS // (self.model.members * self.steps.rows_per_step * self.model.out_features))

    def _run_alike(self, first_step: int, count: int, rows: int) -> Measured:
        """Steps that all see ``rows`` rows."""
        model, optimizer, schedule, dropout = self.model, self.optimizer, self.schedule, self.dropout
        chain = self._chain(rows)
        loss_gradient, moment = self.task.loss_gradient, schedule.moment
        size = (count, model.members, rows, model.out_features)
        logits_SKBC = torch.empty(size, dtype=model.flat_N.dtype, device=model.flat_N.device)
        targets_S: list[Tensor] = []
        weights_S: list[Tensor | None] = []
        learning_rates_S: list[Tensor] = []
        step = first_step
        batches = self.steps.batches(first_step, count)
        for (features, targets, weights), logits_KBC in zip(batches, logits_SKBC, strict=True):
            if self.stop_requested():
                break
            if isinstance(chain, NetworkGradients):
                chain.own_rows = self.steps.own_rows_at(step)
            masks = None if dropout is None else dropout.of_step(step, rows)
            chain.forward(features, logits_KBC, masks)
            delta_KBC = loss_gradient(logits_KBC, targets, self._smoothing_K11, weights)
            if optimizer.loss_factor_K11 is not None:
                delta_KBC.mul_(optimizer.loss_factor_K11)
            chain.backward(features, delta_KBC, masks)
            targets_S.append(targets)
            weights_S.append(weights)
            learning_rates_S.append(optimizer.learning_rates)
            optimizer.step()
            step += 1
            if moment is not None:
                self._step_schedule(moment, step, logits_KBC, targets, weights)
        return self._measured(first_step, logits_SKBC[: len(targets_S)], targets_S, weights_S, learning_rates_S)

    def _chain(self, rows: int) -> StackedGradients | NetworkGradients:
        if rows not in self._chains:
            self._chains[rows] = self._new_chain(rows)
        return self._chains[rows]

    def _new_chain(self, rows: int) -> StackedGradients | NetworkGradients:
        model, gradient_N = self.model, self.optimizer.gradient_N
        if isinstance(model, StackedNetwork):
            return NetworkGradients(model, gradient_N)
        assert isinstance(model, StackedMLP)
        return StackedGradients(model, gradient_N, rows, self.steps.shared, self.dropout is not None)

    def _measured(
        self,
        first_step: int,
        logits_SKBC: Tensor,
        targets_S: list[Tensor],
        weights_S: list[Tensor | None],
        learning_rates_S: list[Tensor],
    ) -> Measured:
        """Losses of all steps and the metric of the logged ones, each in one operation."""
        if not targets_S:
            nothing = torch.empty(0, self.model.members)
            return Measured(nothing, [], nothing, nothing, nothing.double(), [])
        targets, weights = self._of_steps(targets_S), None
        if weights_S[0] is not None:
            weights = self._of_steps([one for one in weights_S if one is not None])
        losses_SK = self.task.loss(logits_SKBC, targets, self._smoothing_K11, weights)
        logged = [s for s in range(len(targets_S)) if (first_step + s) % self.log_interval == 0]
        index = torch.tensor(logged, dtype=torch.long, device=logits_SKBC.device)
        alike = targets is targets_S[0]
        metrics = self.task.metric(
            logits_SKBC[index],
            targets if alike else targets[index],
            weights if alike or weights is None else weights[index],
        )
        learning_rates = torch.stack([learning_rates_S[s] for s in logged]) if logged else losses_SK[:0].double().cpu()
        steps = [first_step + s for s in logged]
        return Measured(losses_SK, steps, losses_SK[index], metrics, learning_rates, learning_rates_S)

    def _of_steps(self, values_S: list[Tensor]) -> Tensor:
        """Targets or weights of all steps together; of one step for a full batch, which is always the same."""
        one = values_S[0]
        if all(other is one for other in values_S):
            return one
        values = torch.stack(values_S)
        return values.unsqueeze(1) if self.steps.shared else values

    def _step_schedule(
        self, moment: str, step: int, logits_KBC: Tensor, targets: Tensor, weights: Tensor | None
    ) -> None:
        """Step the schedule after update number ``step``, if it is due."""
        epoch_ends = step % self.steps.steps_per_epoch == 0
        if moment == "step" or (moment == "epoch" and epoch_ends):
            self.schedule.step()
        elif moment == "epoch_loss":
            self.epoch_loss_K += self.task.loss(logits_KBC, targets, self._smoothing_K11, weights).double().cpu()
            if not epoch_ends:
                return
            mean_K = self.epoch_loss_K / self.steps.steps_per_epoch
            self.schedule.step_on(mean_K.tolist(), self.active)
            self.epoch_loss_K.zero_()
        else:
            return
        self.optimizer.set_learning_rates(self.schedule.learning_rates())

    def select(self, members: Sequence[int], chosen: Stack) -> StackedLoop:
        """The loop over some of the members, which are those of ``chosen``."""
        self.optimizer.select(members, chosen, torch.zeros_like(chosen.flat_N.detach()))
        self.schedule.select(members)
        dropout = None
        if self.dropout is not None and any(chosen.dropout):
            dropout = self.dropout.select(members, chosen.widest_dropped)
        smoothing = self.label_smoothing
        loop = type(self)(
            chosen,
            self.task.select(members),
            self.steps.select(members),
            self.optimizer,
            self.schedule,
            dropout,
            self.log_interval,
            self.stop_requested,
            None if smoothing is None else [smoothing[one] for one in members],
        )
        loop.epoch_loss_K = self.epoch_loss_K[list(members)]
        loop.active = [self.active[one] for one in members]
        return loop

    def step_on_validation(self, losses: Sequence[float]) -> None:
        """Step a schedule that follows the validation loss."""
        if self.schedule.moment == "validation":
            self.schedule.step_on(losses, self.active)
            self.optimizer.set_learning_rates(self.schedule.learning_rates())

    def _trace(self, first_step: int, parts: list[Measured]) -> Trace:
        if not parts:
            members = self.model.members
            nothing_SK3 = torch.empty(0, members, 3, dtype=torch.float64)
            return Trace(first_step, torch.empty(0, members), [], lambda: nothing_SK3)
        logged = (
            torch.cat([one.losses for one in parts]).double().cpu(),
            torch.cat([one.metrics for one in parts]).double().cpu(),
            torch.cat([one.learning_rates for one in parts]),
        )
        logged_SK3 = torch.stack(logged, -1)
        rates_S = [rates for one in parts for rates in one.rates_S]
        return Trace(
            first_step,
            torch.cat([one.losses_SK for one in parts]).cpu(),
            [step for one in parts for step in one.steps],
            lambda: logged_SK3,
            rates=lambda position: rates_S[position].tolist(),
        )


@dataclasses.dataclass(frozen=True)
class Measured:
    """Part of a trace, still on the device."""

    losses_SK: Tensor
    steps: list[int]
    losses: Tensor
    metrics: Tensor
    learning_rates: Tensor
    rates_S: list[Tensor]
