"""The LightningModule around a stack: many runs that train as one.

Shapes: ``K`` members, ``B`` rows, ``F`` input features, ``C`` outputs (logits), ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mlp_lightning.config import OptimizerConfig, ScheduleConfig
from mlp_lightning.data.stacked import StackedDataModule
from mlp_lightning.engines.stacked.dropout import StackedDropout
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.loop import StackedLoop, StackTrace
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer, StackedSchedule
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import Batch, Execution
from mlp_lightning.networks.tasks import Task
from mlp_lightning.runs.step_count import count_steps, set_epoch

# Rows are evaluated in parts, so that no layer's output has more numbers than this.
_EVALUATED_NUMBERS = 2**24


class StackedModule(pl.LightningModule):
    """Trains a :class:`~mlp_lightning.engines.stacked.layout.StackedMLP` on a ``StackedDataModule``.

    One ``training_step`` runs all optimizer steps of one execution for all members. Members that have ended may be
    taken out with :meth:`keep`.

    Args:
        model: the stack.
        task: what to learn.
        optimizers: the optimizer of each member.
        schedule: how their learning rates change.
        dropout_seeds: for each member, the seed of its dropout masks.
        clip_val: largest norm, or value, of a member's gradient; ``None`` for no limit.
        clip_algorithm: ``norm`` or ``value``.
        label_smoothing: of each member; ``None`` without.
    """

    def __init__(
        self,
        model: StackedMLP,
        task: Task,
        optimizers: Sequence[OptimizerConfig],
        schedule: ScheduleConfig,
        dropout_seeds: Sequence[int],
        clip_val: float | None = None,
        clip_algorithm: str = "norm",
        label_smoothing: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.task = task
        #: The number of each member that still trains, as it was when the stack was built.
        self.present = list(range(model.members))
        self.stop_requested = False
        #: Figures ``{"loss": (K,), metric: (K,)}`` of the last validation.
        self.validation: dict[str, Tensor] = {}
        self._optimizers = list(optimizers)
        self._schedule_config = schedule
        self._dropout_seeds = list(dropout_seeds)
        self._clip = (clip_val, clip_algorithm)
        self._label_smoothing = label_smoothing
        self._loop: StackedLoop | None = None
        self._evaluation: dict[str, StackedSteps] = {}

    @property
    def loop(self) -> StackedLoop:
        """The loop over optimizer steps; there once the training has begun."""
        assert self._loop is not None
        return self._loop

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(K, B, C)`` of standardised features, shared ``(B, F)`` or each member's ``(K, B, F)``."""
        return self.model(features)

    def configure_optimizers(self) -> Any:
        model, data = self.model, self._datamodule
        gradient_N = torch.zeros_like(model.flat_N.detach())
        optimizer = StackedOptimizer(model, gradient_N, self._optimizers, *self._clip)
        limits = data.distinct[0].limits(self.trainer)
        rates = [one.lr for one in self._optimizers]
        schedule = StackedSchedule(self._schedule_config, rates, limits.last_step, "val" in data.splits)
        optimizer.set_rates(schedule.rates())
        steps = data.training_steps()
        rows = [len(steps.distinct[number].rows) for number in steps.of_member]
        dropout = StackedDropout(model, self._dropout_seeds, rows) if any(model.dropout) else None
        self._loop = StackedLoop(
            model,
            self.task,
            steps,
            optimizer,
            schedule,
            gradient_N,
            dropout,
            self.trainer.log_every_n_steps,  # type: ignore[attr-defined]  # set by a connector of the Trainer
            lambda: self.stop_requested,
            self._label_smoothing,
        )
        return optimizer.optimizer

    def training_step(self, execution: Execution, batch_idx: int) -> dict[str, StackTrace]:
        """Make all optimizer steps of an execution; the trace of them goes to the callbacks."""
        trace = self.loop.run(execution.first_step, execution.count)
        count_steps(self.trainer, trace.steps)
        if trace.steps:
            set_epoch(self.trainer, (trace.next_step - 1) // self._datamodule.steps_per_epoch)
        if self.stop_requested:
            self.trainer.should_stop = True
        return {"trace": trace}

    def validation_step(self, split: str, batch_idx: int) -> None:
        self.validation = self.evaluate(split)
        self.loop.step_on_validation(self.validation["loss"].tolist())

    @torch.no_grad()
    def evaluate(self, split: str, flat_N: Tensor | None = None) -> dict[str, Tensor]:
        """Loss and metric of every present member over all rows of a split, each ``(K,)``, on the CPU.

        Args:
            split: ``train``, ``val`` or ``test``.
            flat_N: other weights than the present ones, laid out like them.
        """
        features, targets, weights = self._rows(split)
        rows = features.shape[-2]
        # Members with fewer rows than others have rows of weight 0.
        total_weight = rows if weights is None else weights.sum(-1)
        widest = max(layer.outputs for layer in self.model.layers)
        part = max(1, _EVALUATED_NUMBERS // (self.model.members * widest))
        total: dict[str, Tensor] = {}
        for start in range(0, rows, part):
            here = (slice(start, start + part),) if features.dim() == 2 else (slice(None), slice(start, start + part))
            part_weights = None if weights is None else weights[here]
            logits_KBC = self._logits(features[here], flat_N)
            share = (logits_KBC.shape[1] if part_weights is None else part_weights.sum(-1)) / total_weight
            figures = {
                "loss": self.task.loss(logits_KBC, targets[here], weights_B=part_weights),
                self.task.metric_name: self.task.metric(logits_KBC, targets[here], part_weights),
            }
            for name, figure in figures.items():
                figure_K = figure.double() * share
                total[name] = total[name] + figure_K if name in total else figure_K
        return {name: figure_K.to(self.model.flat_N.dtype).cpu() for name, figure_K in total.items()}

    @torch.no_grad()
    def predictions(self, split: str, flat_N: Tensor | None = None) -> Tensor:
        """Probabilities (or values) of every present member for all rows of a split, ``(K, B, C)``.

        A member that has fewer rows than another one has further predictions behind its own, which mean nothing.
        """
        return self.task.predictions(self._logits(self._rows(split)[0], flat_N))

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with the members at these positions alone; the others take no time any more."""
        loop = self.loop
        self.task = self.task.select(positions)
        chosen = self.model.select(positions)
        gradient_N = torch.zeros_like(chosen.flat_N.detach())
        loop.optimizer.select(positions, chosen, gradient_N)
        loop.schedule.select(positions)
        if loop.dropout is not None:
            loop.dropout.select(positions, chosen)
        log_interval, stop_requested = loop.log_interval, loop.stop_requested
        steps, dropout = loop.steps.select(positions), loop.dropout
        smoothing = None if loop.label_smoothing is None else [loop.label_smoothing[one] for one in positions]
        self._loop = StackedLoop(
            chosen,
            self.task,
            steps,
            loop.optimizer,
            loop.schedule,
            gradient_N,
            dropout,
            log_interval,
            stop_requested,
            smoothing,
        )
        self._loop.epoch_loss_K = loop.epoch_loss_K[list(positions)]
        self._evaluation = {split: one.select(positions) for split, one in self._evaluation.items()}
        self.present = [self.present[one] for one in positions]
        self.model = chosen

    def _logits(self, features: Tensor, flat_N: Tensor | None) -> Tensor:
        if flat_N is None:
            return self.model(features)
        return torch.func.functional_call(self.model, {"flat_N": flat_N}, (features,))

    def _rows(self, split: str) -> Batch:
        if split not in self._evaluation:
            everyone = self._datamodule.evaluation_steps(split)
            self._evaluation[split] = everyone.select(self.present)
        return next(self._evaluation[split].batches(0, 1))

    @property
    def _datamodule(self) -> StackedDataModule:
        return self.trainer.datamodule  # type: ignore[attr-defined]  # train sets it
