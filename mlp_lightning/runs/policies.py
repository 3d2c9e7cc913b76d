"""What is decided for every member between two steps: who failed, who stops, whose weights are best, when to save.

Shapes: ``K`` slots of the engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from mlp_lightning.config import Config
from mlp_lightning.config.schema import EarlyStoppingConfig
from mlp_lightning.engines.protocol import Engine, Trace
from mlp_lightning.errors import NonFiniteLossError, NoParameterChangedError
from mlp_lightning.runs.ending import Ending
from mlp_lightning.runs.health import non_finite_message, unchanged_message
from mlp_lightning.runs.milestones import Milestones
from mlp_lightning.runs.rescue import SLOW


class Stopping(NamedTuple):
    """Early stopping of one member, by the rule of Lightning's ``EarlyStopping``.

    Attributes:
        wait: validations (or epochs) without improvement.
        score: the best so far.
        stopped: why it has ended the run; empty if it has not.
        losses: sum of the training losses of the present epoch so far, where they decide.
        steps: how many they are.
    """

    wait: int
    score: float
    stopped: str = ""
    losses: float = 0.0
    steps: int = 0


def stops_by_training_loss(config: Config) -> bool:
    """Whether the training loss decides who stops early."""
    stopping = config.callbacks.early_stopping
    return stopping is not None and stopping.monitor == "loss/train"


def why_stopped(options: EarlyStoppingConfig) -> str:
    """What is said of a run that early stopping has ended."""
    unit = "epochs" if options.monitor == "loss/train" else "validations"
    return f"{options.monitor} did not improve in {options.patience} {unit}"


class Best(NamedTuple):
    """The best of a member so far; its engine has the state.

    Attributes:
        value: of the monitored metric.
        step: when it was measured.
        stopping: state of early stopping then.
    """

    value: float | None = None
    step: int | None = None
    stopping: Stopping | None = None


class Snapshot(NamedTuple):
    """What a validation may change, for all slots: see :meth:`Engine.snapshot`.

    Attributes:
        engine: of the engine.
        stopping: early stopping of every member, by its number.
    """

    engine: Any
    stopping: list[Stopping]


class RunWriter(Protocol):
    """Writes run folders."""

    def save(self, policies: Policies) -> None:
        """Save the state of all members that still train."""
        ...

    def save_before_pruning(self, policies: Policies) -> None:
        """Save the state of a stack whose validation comes next, and may end members."""
        ...

    def keep(self, policies: Policies, validation_pending: bool) -> None:
        """Keep a copy of that state in memory."""

    def members_ended(self, policies: Policies, endings: Sequence[Ending], snapshot: Snapshot) -> None:
        """Write the folders of members that have ended, while their weights are still in the engine."""


class PruningRule(Protocol):
    """Who leaves a training before its end, because others do better."""

    def is_due(self, step: int) -> bool:
        """Whether it looks at the validation after so many steps."""
        ...

    def pruned(self, step: int, losses: Mapping[int, float]) -> Mapping[int, str]:
        """The members that leave, and why, by the validation losses of all that still train."""
        ...


class Policies:
    """Decides for each member separately, and hands those that have ended to a writer.

    Args:
        config: of the training; what its members may differ in is not read.
        monitor: metric of the best checkpoint, such as ``loss/val``.
        milestones: of the training.
        writer: of the run folders.
        count: number of members.
        pruning: ends members by their validation losses.
    """

    def __init__(
        self,
        config: Config,
        monitor: str,
        milestones: Milestones,
        writer: RunWriter,
        count: int,
        pruning: PruningRule | None = None,
    ) -> None:
        self.config = config
        self._pruning = pruning
        self.monitor = monitor
        self.milestones = milestones
        #: The number of the member in each slot of the engine.
        self.present = list(range(count))
        self.best = [Best()] * count
        stopping = config.callbacks.early_stopping
        self._monitors_accuracy = stopping is not None and stopping.monitor.startswith("accuracy")
        self.stopping = [Stopping(0, -math.inf if self._monitors_accuracy else math.inf)] * count
        self._active = [True] * count
        self._writer = writer
        self._engine: Engine | None = None
        self._must_change = True
        #: Optimizer steps made.
        self.step = 0
        self._last: Snapshot | None = None
        self.saved_at = time.monotonic()
        #: Whether the validation of the present step is still to be made.
        self.validation_pending = False
        #: Whether the loss over all training rows may take long: nobody knows before the first time.
        self.measures_slowly = True

    @property
    def engine(self) -> Engine:
        """There once the training has begun."""
        assert self._engine is not None
        return self._engine

    @property
    def active(self) -> list[int]:
        """Numbers of the members that still train."""
        return [member for member in self.present if self._active[member]]

    def is_active(self, member: int) -> bool:
        return self._active[member]

    def start(self, engine: Engine) -> None:
        """Begin, before the first step."""
        self._engine = engine
        if self.milestones.is_snapshot(0):  # what continues takes those that it had
            engine.keep_weights()
        self.saved_at = time.monotonic()

    def restore_member(self, member: int, active: bool, best: Best, stopping: Stopping) -> None:
        """Take over what was saved of a member."""
        self._active[member], self.best[member], self.stopping[member] = active, best, stopping

    def snapshot(self) -> Snapshot:
        """The present state of all slots, but for what is as large as the weights."""
        return Snapshot(self.engine.snapshot(), list(self.stopping))

    # ---- between two steps -------------------------------------------------------------------------------

    def after_steps(self, trace: Trace) -> None:
        """Look at what was trained: members that failed end, and the training loss may be the best."""
        step = self.step = trace.next_step
        if trace.steps and self.milestones.is_snapshot(step):
            self.engine.keep_weights()
        self._end_failed(trace)
        if self._must_change and self.milestones.changes_by(step):
            self._must_change = False
            self._end_unchanged(step)
        stopped = self._stop_by_training_loss(trace)
        if trace.steps and not self.milestones.is_regular_validation(step):
            if self.measures_slowly and self.considers_training_loss(step):
                self.keep()
            self._consider_training_loss(step)
        if not self.milestones.validates(step):
            self._end([self._finished(member, step) for member in stopped])

    def before_validation(self, step: int) -> None:
        """A validation that is not regular comes after the last checkpoint: what it changes is not part of it."""
        if not self.milestones.is_regular_validation(step):
            self._last = self.snapshot()
        elif self._prunes(step):
            self._writer.save_before_pruning(self)

    def after_validation(self, step: int, metrics: Mapping[str, list[float]]) -> None:
        """Early stopping and the best so far, by loss and metric of every slot."""
        options, still_train = self.config.callbacks.early_stopping, self.active
        if options is not None and options.monitor.endswith("/val"):
            self._stop_early(metrics[options.monitor.partition("/")[0]])
        if not self.milestones.is_regular_validation(step):
            return
        if self.monitor.endswith("/val"):
            self._consider(metrics[self.monitor.partition("/")[0]], step, self.active)
        else:  # not before the validation: a run that continues from the best has it behind it
            self._consider_training_loss(step)
        self._end([self._finished(member, step) for member in self.active if self.stopping[member].stopped])
        if self._pruning is not None and self._prunes(step):
            losses = dict(zip(self.present, metrics["loss"], strict=True))
            # Those that have just stopped early are compared, too.
            pruned = self._pruning.pruned(step, {member: losses[member] for member in still_train})
            left = [one for one in self.active if one in pruned]
            self._end([Ending(one, "pruned", step, stopped_by=pruned[one]) for one in left])

    def _prunes(self, step: int) -> bool:
        return self._pruning is not None and step < self.milestones.last_step and self._pruning.is_due(step)

    def between_steps(self, step: int, stop_requested: bool) -> bool:
        """Leave out what has ended, and save what is due; returns whether the training continues."""
        if step >= self.milestones.last_step:
            if self._last is None:
                self._last = self.snapshot()
            return False
        active = self.active
        if active and 2 * len(active) <= len(self.present):
            self._leave_out(active)
        # After the ended ones are left out: what continues from here has the slots that there are now.
        if active and self._is_due(step, stop_requested):
            self._writer.save(self)
            self.saved_at = time.monotonic()
        if stop_requested:
            self._end([Ending(member, "interrupted", step) for member in active])
        return bool(self.active)

    def keep(self, validation_pending: bool = False) -> None:
        """Keep a copy of the state in memory: what comes next may take long."""
        if self.active and self.config.callbacks.checkpoint is not None:
            self._writer.keep(self, validation_pending)

    def reconsider(self) -> None:
        """Begin where a saved state ends, which may be one from before the loss of its step was measured."""
        if self.step and not self.validation_pending:
            self._consider_training_loss(self.step)

    def end_stopped(self) -> bool:
        """End the members that had stopped early when they were saved; returns whether the training continues."""
        self._end([self._finished(member, self.step) for member in self.active if self.stopping[member].stopped])
        return bool(self.active)

    def finish(self, step: int) -> None:
        """The end of the training: all that are left have finished."""
        self._end([self._finished(member, step) for member in self.active])

    def consider_end(self, losses: Sequence[float], step: int, members: Sequence[int]) -> None:
        """Without any better the end is the best, where the training loss is the measure."""
        if self.monitor == "loss/train":
            self._consider(losses, step, [one for one in members if self.best[one].step is None])

    # ---- who has ended -----------------------------------------------------------------------------------

    def _finished(self, member: int, step: int) -> Ending:
        return Ending(member, "finished", step, stopped_by=self.stopping[member].stopped)

    def _end(self, endings: Sequence[Ending]) -> None:
        if not endings:
            return
        self._writer.members_ended(self, endings, self._last or self.snapshot())
        for one in endings:
            self._active[one.member] = False
        ended = {one.member for one in endings}
        self.engine.end([slot for slot, member in enumerate(self.present) if member in ended])

    def _leave_out(self, active: Sequence[int]) -> None:
        kept = set(active)
        self.engine.keep([slot for slot, member in enumerate(self.present) if member in kept])
        self.present = list(active)

    def _end_failed(self, trace: Trace) -> None:
        # The sum is a number only if all are, and is had sooner.
        if not trace.steps or math.isfinite(trace.losses_SK.sum().item()):
            return
        finite_SK = trace.losses_SK.isfinite()
        if finite_SK.all():
            return
        endings = []
        for slot in (~finite_SK.all(0)).nonzero().flatten().tolist():
            member = self.present[slot]
            if self._active[member]:
                position = int((~finite_SK[:, slot]).nonzero()[0])
                step, loss = trace.first_step + position, trace.losses_SK[position, slot].item()
                lr = trace.rates(position)[slot]
                error = NonFiniteLossError(non_finite_message(step, loss, self.config.optimizer.name, lr))
                endings.append(Ending(member, "failed", step, error))
        self._end(endings)

    def _end_unchanged(self, step: int) -> None:
        endings = []
        for one in self.engine.unchanged():
            member = self.present[one.slot]
            if self._active[member]:
                error = NoParameterChangedError(unchanged_message(step, one, self.config.optimizer.name))
                endings.append(Ending(member, "failed", step, error))
        self._end(endings)

    def _stop_by_training_loss(self, trace: Trace) -> list[int]:
        """Add the losses of these steps; at the end of an epoch, the members that stop now."""
        if not self.milestones.at_every_epoch or not trace.steps:
            return []
        before_1K = torch.tensor([[self.stopping[member].losses for member in self.present]], dtype=torch.float64)
        # One after the other, so that it makes no difference where the epoch is cut.
        sums_SK = torch.cat([before_1K, trace.losses_SK.double()]).cumsum(0)
        for member, losses in zip(self.present, sums_SK[-1].tolist(), strict=True):
            one = self.stopping[member]
            self.stopping[member] = one._replace(losses=losses, steps=one.steps + trace.steps)
        if trace.next_step % self.milestones.steps_per_epoch:
            return []
        epochs = [self.stopping[member] for member in self.present]
        return self._stop_early([one.losses / one.steps for one in epochs])

    def _stop_early(self, values: Sequence[float]) -> list[int]:
        """The members that stop now, by the monitored metric of every slot."""
        options = self.config.callbacks.early_stopping
        assert options is not None
        sign = 1 if self._monitors_accuracy else -1
        # In the precision of the training, as Lightning compares.
        kind = np.float64 if self.config.trainer.precision == "64" else np.float32
        stopped = []
        for member, value in zip(self.present, values, strict=True):
            if not self._active[member]:
                continue
            wait, score = self.stopping[member][:2]
            if sign * (kind(value) - kind(sign * options.min_delta)) > sign * kind(score):
                self.stopping[member] = Stopping(0, value)
                continue
            why = ""
            if wait + 1 >= options.patience or not math.isfinite(value):
                why = why_stopped(options)
                stopped.append(member)
            self.stopping[member] = Stopping(wait + 1, score, why)
        return stopped

    # ---- what is kept ------------------------------------------------------------------------------------

    def _is_due(self, step: int, stop_requested: bool) -> bool:
        options = self.config.callbacks.checkpoint
        if options is None:
            return False
        waited = time.monotonic() - self.saved_at
        is_time = options.every_n_seconds is not None and waited >= options.every_n_seconds
        return is_time or stop_requested or self.milestones.is_checkpoint(step)

    def considers_training_loss(self, step: int) -> bool:
        """Whether the loss over all training rows is measured after ``step`` steps, and may be the best."""
        return self.monitor == "loss/train" and self.milestones.is_checkpoint(step) and bool(self.active)

    def _consider_training_loss(self, step: int) -> None:
        if self.considers_training_loss(step):
            began = time.monotonic()
            self._consider(self.engine.evaluate("train")["loss"], step, self.active)
            self.measures_slowly = time.monotonic() - began > SLOW

    def _consider(self, values: Sequence[float], step: int, members: Sequence[int]) -> None:
        """Keep the present state of every one of ``members`` for which it is the best so far."""
        if self.config.callbacks.checkpoint is None:
            return
        sign = 1 if self.monitor.startswith("accuracy") else -1
        improved, considered = [], set(members)
        for slot, (member, value) in enumerate(zip(self.present, values, strict=True)):
            best = self.best[member].value
            # The first value counts even when it is not a number, as nothing can be compared with it.
            if member in considered and (best is None or sign * value > sign * best):
                self.best[member] = Best(value, step, self.stopping[member])
                improved.append(slot)
        if improved:
            self.engine.remember(improved)
