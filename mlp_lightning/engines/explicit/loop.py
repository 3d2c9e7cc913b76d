"""The loop over the optimizer steps of one MLP with gradients written out.

Shapes: ``S`` steps, ``B`` rows, ``C`` outputs (logits).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.explicit.gradients import ExplicitGradients
from mlp_lightning.engines.explicit.optimizer import FlatOptimizer
from mlp_lightning.engines.steps import Batch, Execution
from mlp_lightning.engines.trace import StepTrace, ToLog
from mlp_lightning.networks.mlp import MLP

# Logits are kept up to this many numbers before their losses are computed together.
_KEPT_NUMBERS = 2**21


@dataclasses.dataclass
class ExplicitLoop(StepLoop):
    """As :class:`~mlp_lightning.engines.autograd.loop.StepLoop`, which has the attributes.

    Attributes:
        flat: the optimizer; ``optimizer`` is torch's inside of it.
    """

    flat: FlatOptimizer = None  # type: ignore[assignment]  # follows fields with defaults; always given

    def __post_init__(self) -> None:
        super().__post_init__()
        self._chains: dict[int, ExplicitGradients] = {}
        self._smoothing = self.flat.flat_N.new_tensor(self.label_smoothing) if self.label_smoothing else None

    def _make_steps(self, execution: Execution) -> StepTrace:
        """Make the optimizer steps of an execution, up to a requested stop; with autograd while there are hooks."""
        if any(self._hooks):
            return super()._make_steps(execution)
        trace = StepTrace(execution.first_step)
        batches = execution.batches()
        at_once = max(1, _KEPT_NUMBERS // (execution.training_steps.rows_per_step * self._mlp.out_features))
        while part := list(itertools.islice(batches, min(at_once, execution.count - trace.steps))):
            made = self._make(part, trace, execution.training_steps.steps_per_epoch)
            if made < len(part):
                break
        return trace

    def _clear_gradients(self) -> None:
        self.flat.gradient_N.zero_()
        self.flat.give_gradients()

    def _update(self) -> None:
        self.flat.step()

    @property
    def _mlp(self) -> MLP:
        assert isinstance(self.model, MLP)
        return self.model

    @torch.no_grad()
    def _make(self, batches: list[Batch], trace: StepTrace, steps_per_epoch: int) -> int:
        """Make the steps of these batches. Returns how many were made before a requested stop."""
        flat, step, first = self.flat, trace.next_step, trace.next_step
        loss_gradient, outputs = self.task.loss_gradient, self._mlp.out_features
        soft_targets = self._soft_targets([one[1] for one in batches])
        moment = self.schedule.moment if self.schedule is not None else None
        logits: list[Tensor] = []
        for (features_BF, targets, weights_B), soft in zip(batches, soft_targets, strict=True):
            if self.stop_requested():
                break
            rows = features_BF.shape[0]
            chain = self._chains.get(rows) or self._chain(rows)
            if self._dropout is not None:
                self._dropout.begin(step, rows)
            logits_BC = flat.flat_N.new_empty(rows, outputs)
            chain.forward(features_BF, logits_BC)
            chain.backward(loss_gradient(logits_BC, soft, None, weights_B))
            if self.clip_val is not None:
                self._clip(self.clip_val)
            logits.append(logits_BC)
            trace.rates.append(flat.learning_rate)
            flat.step()
            step += 1
            if moment is not None:
                follows_loss = moment == "epoch_loss"
                of_step = [(features_BF, targets, weights_B)]
                loss = self._losses([logits_BC], of_step)[0] if follows_loss else logits_BC.new_zeros(())
                self._step_schedule(moment, loss, step, steps_per_epoch)
        done = batches[: len(logits)]
        losses = self._losses(logits, done)
        trace.losses += losses
        if self.log_interval is not None:
            for number in range(-first % self.log_interval, len(done), self.log_interval):
                _, targets, weights_B = done[number]
                rate = trace.rates[first - trace.first_step + number]
                to_log = ToLog(first + number, losses[number], logits[number], targets, weights_B, rate)
                trace.to_log.append(to_log)
        return len(done)

    def _soft_targets(self, targets: list[Tensor]) -> Sequence[Tensor]:
        """Of every step."""
        dtype = self.flat.flat_N.dtype
        if all(one is targets[0] for one in targets):
            return [self.task.soft_targets(targets[0], self._smoothing).to(dtype)] * len(targets)
        soft = self.task.soft_targets(torch.cat(targets), self._smoothing).to(dtype)
        return soft.split([len(one) for one in targets])

    def _chain(self, rows: int) -> ExplicitGradients:
        self.flat.give_gradients()
        self._chains[rows] = ExplicitGradients(self._mlp, rows)
        return self._chains[rows]

    def _losses(self, logits: list[Tensor], batches: list[Batch]) -> list[Tensor]:
        """The training loss of every step, those of equally many rows in one operation."""
        losses: list[Tensor] = [torch.empty(0)] * len(logits)
        for rows in {len(one) for one in logits}:
            here = [number for number, one in enumerate(logits) if len(one) == rows]
            # A single one would be summed in another order than one among several.
            twice = here * 2 if len(here) == 1 else here
            targets, weights = (_together([batches[number][at] for number in twice]) for at in (1, 2))
            assert targets is not None
            together_SBC = torch.stack([logits[number] for number in twice])
            of_steps = self.task.loss(together_SBC, targets, self._smoothing, weights).unbind()
            for number, loss in zip(here, of_steps, strict=False):
                losses[number] = loss
        return losses


def _together(values: list[Tensor | None]) -> Tensor | None:
    """Targets or weights of several steps; of one step for a full batch, which is always the same."""
    first = values[0]
    if first is None or all(one is first for one in values):
        return first
    return torch.stack([one for one in values if one is not None])
