"""Watches over the members of a stack: who fails, who stops early, whose weights are best, who has ended.

What the callbacks of a single run (health, checkpoints, early stopping) decide for one model is decided here for
each member by itself, by the same rules.

Shapes: ``K`` members, ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor

from mlp_lightning.config import Config
from mlp_lightning.engines.stacked.loop import StackTrace
from mlp_lightning.runs.checkpoints import StopRequested
from mlp_lightning.runs.health import STEPS_TO_CHANGE, non_finite_message, unchanged_message, why_unchanged
from mlp_lightning.runs.stack_history import StackHistory
from mlp_lightning.runs.stacked_module import StackedModule


@dataclasses.dataclass(frozen=True)
class Moment:
    """What a checkpoint says besides weights: the state of every member after some step.

    Attributes:
        step: optimizer steps made.
        places: place in the lists below by number of the member.
        schedules: state of the scheduler alone, and entries of the parameter group.
        common: what the optimizer remembers that is the same for all.
        epoch_losses: sum of the epoch's losses so far.
        stopping: wait count and best score of early stopping, and whether it had ended the run.
        generators: states of the members' dropout generators; ``None`` without dropout.
    """

    step: int
    places: dict[int, int]
    schedules: list[tuple[dict[str, Any], dict[str, Any]]]
    common: dict[str, Any]
    epoch_losses: list[float]
    stopping: list[tuple[int, float, bool]]
    generators: list[Tensor] | None

    def of(self, member: int) -> Moment:
        """What this says of one member; the states of the others need not be kept for it."""
        place = self.places[member]
        generators = None if self.generators is None else [self.generators[place]]
        own = ([self.schedules[place]], self.common, [self.epoch_losses[place]], [self.stopping[place]], generators)
        return Moment(self.step, {member: 0}, *own)


@dataclasses.dataclass
class Best:
    """The best state of a member so far: its figure and when it was; the weights are kept for all together."""

    value: float | None = None
    step: int | None = None
    moment: Moment | None = None


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a member ended.

    Attributes:
        member: its number.
        status: ``finished``, ``interrupted`` or ``failed``.
        error: what went wrong, if it failed.
        stopped_by: why it ended before its full length, if it did.
        steps: optimizer steps that it made.
    """

    member: int
    status: str
    steps: int
    error: str = ""
    stopped_by: str = ""


class EndingWriter(Protocol):
    """Who is told of members that have ended, while their weights are still in the stack."""

    def members_ended(self, keeper: StackKeeper, endings: Sequence[Ending], last: Moment) -> None: ...


class StackKeeper(pl.Callback):
    """Decides for every member when it has ended, and hands those that have to a writer.

    Args:
        config: of the group; what members may differ in is not read.
        monitor: metric of the best checkpoint: ``loss/train``, ``loss/val`` or ``accuracy/val``.
        last_step: number of steps of the whole run.
        writer: told of members that have ended.
        on_start: called once the stack is ready to train; it may bring it to a state that was saved.
        save: called between two steps when the state of the stack is to be saved; ``None`` to save nothing.
    """

    def __init__(
        self,
        config: Config,
        monitor: str,
        last_step: int,
        writer: EndingWriter,
        on_start: Callable[[StackKeeper], None] | None = None,
        save: Callable[[StackKeeper], None] | None = None,
    ) -> None:
        self.config = config
        self.monitor = monitor
        self.history = StackHistory()
        self.best: dict[int, Best] = {}
        self.best_tensors: dict[str, Tensor] = {}
        self.module: StackedModule | None = None
        self.trainer: pl.Trainer | None = None
        self._last_step = last_step
        self._writer = writer
        self._on_start = on_start
        self._save = save
        self._saved_at = time.monotonic()
        self.initial_N: Tensor | None = None
        self._last: Moment | None = None
        self._active: dict[int, bool] = {}
        self._wait: dict[int, int] = {}
        self._score: dict[int, float] = {}
        self.stopped: dict[int, str] = {}  # why early stopping has ended a member

    # ---- the Trainer's hooks -----------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: StackedModule) -> None:  # type: ignore[override]  # meets only our module
        self.trainer, self.module = trainer, pl_module
        self.initial_N = pl_module.model.flat_N.detach().clone()
        stopping = self.config.callbacks.early_stopping
        worst = float("-inf") if stopping is not None and stopping.monitor.startswith("accuracy") else float("inf")
        for member in pl_module.present:
            self.best[member], self._active[member] = Best(), True
            self._wait[member], self._score[member] = 0, worst
        if self._on_start is not None:
            self._on_start(self)
        self._saved_at = time.monotonic()

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: StackedModule, outputs: Mapping[str, StackTrace], *_: Any
    ) -> None:
        trace, step = outputs["trace"], trainer.global_step
        self.history.add_training(trace, pl_module.present)
        self._end_failed(pl_module, trace)
        if self.initial_N is not None and step >= min(STEPS_TO_CHANGE, self._last_step):
            self._end_unchanged(pl_module, step)
        if self.monitor == "loss/train" and trace.steps and self._on_lattice(step):
            self._consider(pl_module, pl_module.evaluate("train")["loss"], self.active)
        if not (trace.steps and self._validation_is_regular(step)):
            self._go_on_or_stop(pl_module, step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: StackedModule) -> None:  # type: ignore[override]  # meets only our module
        figures, step = pl_module.validation, trainer.global_step
        metric = pl_module.task.metric_name
        self.history.add_validation(step, figures["loss"], figures[metric], pl_module.present)
        stopped = self._early_stopping(pl_module, figures)
        self.stopped.update(stopped)
        if not self._validation_is_regular(step):
            return  # the one at the end of a run that ends within an epoch
        if self.monitor.endswith("/val"):
            self._consider(pl_module, figures[self.monitor.partition("/")[0]], self.active)
        self._end([self._finished(member, step) for member in stopped])
        self._go_on_or_stop(pl_module, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: StackedModule) -> None:  # type: ignore[override]  # meets only our module
        self._end([self._finished(member, trainer.global_step) for member in self.active])

    def _finished(self, member: int, step: int) -> Ending:
        return Ending(member, "finished", step, stopped_by=self.stopped.get(member, ""))

    # ---- who has ended -----------------------------------------------------------------------------------

    @property
    def active(self) -> list[int]:
        """Numbers of the members that still train."""
        return [member for member, is_active in self._active.items() if is_active]

    def _go_on_or_stop(self, module: StackedModule, step: int) -> None:
        """Between two steps: end what has to end, and leave out of the stack what has ended."""
        assert self.trainer is not None
        if step >= self._last_step:
            # A run that ends within an epoch is validated once more, after the moment of its last checkpoint.
            self._last = self.moment()
            return
        if self.active and 2 * len(self.active) <= len(module.present):
            self._leave_out(module)
        # After the ended ones are left out: a stack that continues from here has the slots that this one has now.
        self._save_if_due(module, step)
        if module.stop_requested:
            self._end([Ending(member, "interrupted", step) for member in self.active])
            raise StopRequested
        if not self.active:
            self.trainer.should_stop = True

    def _save_if_due(self, module: StackedModule, step: int) -> None:
        options = self.config.callbacks.checkpoint
        if self._save is None or options is None or not self.active:
            return
        waited = time.monotonic() - self._saved_at
        is_time = options.every_n_seconds is not None and waited >= options.every_n_seconds
        if is_time or module.stop_requested or self._on_lattice(step):
            self._save(self)
            self._saved_at = time.monotonic()

    def restore_member(self, member: int, active: bool, stopping: tuple[int, float, bool], stopped: str) -> None:
        """Take over from a stack that was saved what is known of a member.

        Args:
            member: its number.
            active: whether it still trains.
            stopping: as a :class:`Moment` has it.
            stopped: why early stopping has ended it; empty if it has not.
        """
        self._active[member] = active
        self._wait[member], self._score[member], _ = stopping
        if stopped:
            self.stopped[member] = stopped

    def _end(self, endings: Sequence[Ending]) -> None:
        if not endings:
            return
        last = self._last if self._last is not None else self.moment()
        self._writer.members_ended(self, endings, last)
        assert self.module is not None
        for one in endings:
            self._active[one.member] = False
            self.module.loop.active[self.module.present.index(one.member)] = False

    def _leave_out(self, module: StackedModule) -> None:
        active = set(self.active)
        places = [place for place, member in enumerate(module.present) if member in active]
        before = module.model
        module.keep(places)
        self.best_tensors = {
            name: before.selected(one, places, module.model) for name, one in self.best_tensors.items()
        }
        if self.initial_N is not None:
            self.initial_N = before.selected(self.initial_N, places, module.model)

    def _end_failed(self, module: StackedModule, trace: StackTrace) -> None:
        finite_SK = trace.losses_SK.isfinite()
        if not trace.steps or finite_SK.all():
            return
        endings = []
        for place in (~finite_SK.all(0)).nonzero().flatten().tolist():
            member = module.present[place]
            if not self._active[member]:
                continue
            position = int((~finite_SK[:, place]).nonzero()[0])
            step, loss = trace.first_step + position, trace.losses_SK[position, place].item()
            lr = module.loop.optimizer.rates[place].item()
            message = non_finite_message(step, loss, self.config.optimizer.name, lr)
            endings.append(Ending(member, "failed", step, f"NonFiniteLossError: {message}"))
        self._end(endings)

    def _end_unchanged(self, module: StackedModule, step: int) -> None:
        assert self.initial_N is not None
        initial_N, self.initial_N = self.initial_N, None
        model, loop = module.model, module.loop
        blocks = zip(model.per_member(initial_N), model.per_member(model.flat_N.detach()), strict=True)
        changed_K = torch.stack([(one != other).flatten(1).any(1) for one, other in blocks]).any(0)
        if changed_K.all():
            return
        gradients = [block.flatten(1).any(1) for block in model.per_member(loop.gradient_N)]
        no_gradient_K = ~torch.stack(gradients).any(0)
        endings = []
        for place in (~changed_K).nonzero().flatten().tolist():
            member = module.present[place]
            if self._active[member]:
                lr, name = loop.optimizer.rates[place].item(), self.config.optimizer.name
                why = why_unchanged(name, lr, bool(no_gradient_K[place]))
                names = [f"mlp.{one}" for one, _ in model.unstack(place).named_parameters()]
                error = f"NoParameterChangedError: {unchanged_message(step, names, why)}"
                endings.append(Ending(member, "failed", step, error))
        self._end(endings)

    def _early_stopping(self, module: StackedModule, figures: Mapping[str, Tensor]) -> dict[int, str]:
        """The members that stop now, each with the reason, by the rule of Lightning's ``EarlyStopping``."""
        options = self.config.callbacks.early_stopping
        if options is None:
            return {}
        sign = 1.0 if options.monitor.startswith("accuracy") else -1.0
        current_K = figures[options.monitor.partition("/")[0]]
        stopped = {}
        for place, member in enumerate(module.present):
            if not self._active[member]:
                continue
            current, score = current_K[place], torch.tensor(self._score[member], dtype=current_K.dtype)
            if sign * (current - sign * options.min_delta) > sign * score:
                self._wait[member], self._score[member] = 0, current.item()
                continue
            self._wait[member] += 1
            if self._wait[member] >= options.patience or not current.isfinite():
                stopped[member] = f"{options.monitor} did not improve in {options.patience} validations"
        return stopped

    # ---- states ------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """The state of every member now, but for what is as large as the weights."""
        assert self.module is not None
        assert self.trainer is not None
        module, loop = self.module, self.module.loop
        return Moment(
            self.trainer.global_step,
            {member: place for place, member in enumerate(module.present)},
            loop.schedule.state(),
            loop.optimizer.common_state(),
            loop.epoch_loss_K.tolist(),
            [(self._wait[member], self._score[member], member in self.stopped) for member in module.present],
            None if loop.dropout is None else loop.dropout.states(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The present weights, called ``weights``, and what the optimizer remembers of each of them."""
        assert self.module is not None
        return {"weights": self.module.model.flat_N.detach(), **self.module.loop.optimizer.state_tensors()}

    def consider_end(self, losses_K: Tensor, endings: Sequence[Ending]) -> None:
        """Without any better moment the end is the best, where the training loss is the measure."""
        assert self.module is not None
        if self.monitor == "loss/train":
            ending = [one.member for one in endings if one.status == "finished"]
            self._consider(self.module, losses_K, [one for one in ending if self.best[one].step is None])

    def _consider(self, module: StackedModule, values_K: Tensor, members: Sequence[int]) -> None:
        """Keep the present state of every one of ``members`` for which it is the best so far."""
        if self.config.callbacks.checkpoint is None:
            return
        sign = 1.0 if self.monitor.startswith("accuracy") else -1.0
        improved, values, considered = [], values_K.tolist(), set(members)
        for place, member in enumerate(module.present):
            best = self.best[member].value
            # The first value counts even when it is not a number, as nothing can be compared with it.
            if member in considered and (best is None or sign * values[place] > sign * best):
                improved.append(place)
        if not improved:
            return
        moment = self.moment()
        for place in improved:
            member = module.present[place]
            self.best[member] = Best(values[place], moment.step, moment.of(member))
        index = torch.tensor(improved, device=module.model.flat_N.device)
        for name, present_N in self.tensors().items():
            kept_N = self.best_tensors.get(name)
            if kept_N is None or len(improved) == len(module.present):
                self.best_tensors[name] = present_N.clone()
                continue
            blocks = zip(module.model.per_member(kept_N), module.model.per_member(present_N), strict=True)
            for kept, present in blocks:
                kept[index] = present[index]

    def _on_lattice(self, step: int) -> bool:
        options = self.config.callbacks.checkpoint
        interval = options.every_n_steps if options is not None else None
        return interval is not None and step % interval == 0

    def _validation_is_regular(self, step: int) -> bool:
        """Whether these steps end with a validation that belongs to an epoch's end."""
        assert self.trainer is not None
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # train_stack sets it
        epochs, position = divmod(step, data.steps_per_epoch)
        interval = self.trainer.check_val_every_n_epoch or 1
        return "val" in data.splits and position == 0 and epochs % interval == 0
