"""The LightningModule of every training: an engine, and between its steps the policies of the members."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import nn

from mlp_lightning.data.training import Steps
from mlp_lightning.engines.protocol import Engine, Trace
from mlp_lightning.runs.history import MetricsHistory
from mlp_lightning.runs.metric_files import MetricFiles
from mlp_lightning.runs.policies import Policies
from mlp_lightning.runs.rescue import SLOW
from mlp_lightning.runs.step_count import count_steps, set_epoch

_ALL = 2**62  # steps


@dataclasses.dataclass(frozen=True)
class Validation:
    """The validation after some step.

    Attributes:
        step: optimizer steps made.
        members: their numbers, slot by slot.
        metrics: loss and metric, one value per slot.
    """

    step: int
    members: Sequence[int]
    metrics: dict[str, list[float]]


class Outputs:
    """What one ``training_step`` did: callbacks find it in ``outputs["outputs"]`` of ``on_train_batch_end``.

    Not a dataclass on purpose: Lightning looks into dataclasses for tensors, and would copy it.

    Attributes:
        traces: the steps, with the numbers of the members in their slots.
        validations: those between the steps.
    """

    def __init__(self) -> None:
        self.traces: list[tuple[Trace, Sequence[int]]] = []
        self.validations: list[Validation] = []

    @property
    def steps(self) -> int:
        return sum(trace.steps for trace, _ in self.traces)


class TrainingModule(pl.LightningModule):
    """Trains the members of an engine.

    One ``training_step`` makes all optimizer steps of an execution. Validations, early stopping and checkpoints come
    between two of them, at the same steps however the training is cut into executions; Lightning's own validation
    loop is not used.

    Args:
        model: what the engine trains, for the Trainer to bring to the device.
        make_engine: makes the engine, once the model is there.
        policies: of the members.
        history: where metrics are kept.
        files: where they are written.
        on_start: called once the engine is ready, before the first step.
    """

    def __init__(
        self,
        model: nn.Module,
        make_engine: Callable[[TrainingModule], Engine],
        policies: Policies,
        history: MetricsHistory,
        files: MetricFiles,
        on_start: Callable[[TrainingModule], None],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.policies = policies
        self.stop_requested = False
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._history = history
        self._files = files
        self._on_start = on_start
        self._at_once = 1  # nobody knows how long the first step takes
        self._validates_slowly: bool | None = None
        self._started = time.monotonic()

    @property
    def engine(self) -> Engine:
        """There once the Trainer has set the training up."""
        assert self._engine is not None
        return self._engine

    def configure_optimizers(self) -> Any:
        self._engine = self._make_engine(self)
        return self._engine.optimizer

    def on_train_start(self) -> None:
        self.policies.start(self.engine)
        self._started = time.monotonic()
        self._on_start(self)
        self.policies.reconsider()

    def training_step(self, execution: Steps, batch_idx: int) -> dict[str, Outputs]:
        """Make the optimizer steps of an execution and all that comes between them."""
        outputs, milestones = Outputs(), self.policies.milestones
        # A run that was ended before its result was written has its last step behind it.
        step, end = max(execution.first, self.policies.step), execution.end
        self.engine.begin_execution()
        continues = self.policies.end_stopped()
        is_due = milestones.validates(step) and not milestones.is_regular_validation(step)
        if continues and (self.policies.validation_pending or step == end):
            if self.policies.validation_pending or is_due:
                outputs.validations.append(self._validate(step))
            continues = self.policies.between_steps(step, self.stop_requested)
        while continues and step < end:
            began, count = time.monotonic(), min(milestones.next_after(step), end) - step
            trace = self.engine.run(step, min(count, self._at_once))
            took = time.monotonic() - began
            # A run that is asked to end may have no time for more; steps that are cut differently have the same bits.
            is_slow = took > SLOW
            self._at_once = max(1, int(trace.steps * SLOW / took)) if is_slow else _ALL
            step = trace.next_step
            outputs.traces.append((trace, self.policies.present))
            self._history.add_training(trace, self.policies.present)
            self._files.add_histograms(trace.histograms)
            self.policies.after_steps(trace)
            if trace.steps and self.policies.active and milestones.validates(step):
                outputs.validations.append(self._validate(step, is_slow))
            continues = self.policies.between_steps(step, self.stop_requested)
            if is_slow and not (milestones.validates(step) and not milestones.is_regular_validation(step)):
                self.policies.keep()  # what an irregular validation measured is no part of the state
        count_steps(self.trainer, step - execution.first)
        if outputs.steps:
            set_epoch(self.trainer, (step - 1) // self._steps_per_epoch)
        if not continues:
            self.trainer.should_stop = True
        self._files.write_if_due(self.policies.active)
        return {"outputs": outputs}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After all callbacks, and before Lightning looks whether a SIGTERM has come and ends the training."""
        self.end_if_due()

    def on_train_end(self) -> None:
        """A callback can end the training before its last step: the Trainer's ``should_stop``."""
        self.policies.finish(self.policies.step)

    def end_if_due(self) -> None:
        """End what has reached the last step, or what a stop was asked for since the last step."""
        policies = self.policies
        if policies.step >= policies.milestones.last_step:
            policies.finish(policies.step)
        elif self.stop_requested and policies.active:
            policies.between_steps(policies.step, stop_requested=True)
            self.trainer.should_stop = True

    def _validate(self, step: int, keeps_state: bool = False) -> Validation:
        policies, engine = self.policies, self.engine
        if self._validates_slowly is None:  # the first one after long steps may take long, too
            self._validates_slowly = time.monotonic() - self._started > SLOW
        if (
            self._validates_slowly
            or keeps_state
            or (policies.measures_slowly and policies.considers_training_loss(step))
        ):
            policies.keep(validation_pending=True)
        policies.validation_pending, began = False, time.monotonic()
        policies.before_validation(step)
        metrics = engine.evaluate("val")
        engine.after_validation(metrics["loss"])
        loss, metric = metrics.values()
        self._history.add_validation(step, (loss, metric), policies.present)
        validation = Validation(step, policies.present, metrics)
        policies.after_validation(step, metrics)
        self._validates_slowly = time.monotonic() - began > SLOW
        return validation

    @property
    def _steps_per_epoch(self) -> int:
        return self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]  # the training sets it
