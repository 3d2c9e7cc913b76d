"""The training rows as a stream of optimizer steps, cut into executions.

An *execution* is a run of consecutive optimizer steps that the training loop makes inside one call of its
body, so that the Trainer's bookkeeping is paid once per execution instead of once per step. An execution
only names its steps: which rows a step sees is a pure function of (seed, epoch, position in the epoch), so
any cut of the same run into executions, and a run resumed at any step, gives the same numbers.

What Lightning counts as one epoch of its loop is called a *span* here: whole epochs, as many as fit into an
execution, never across a validation. A span may begin in the middle of an epoch (a resumed run does).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mlp_lightning.engines.rows import Rows
from mlp_lightning.tables.randomness import generator

#: Features, targets and weights of the rows of a step; weights are ``None`` where all rows count the same.
Batch = tuple[Tensor, Tensor, "Tensor | None"]


class TrainingSteps:
    """Which training rows each optimizer step sees.

    Args:
        rows: the training rows, on the device that trains.
        batch_size: rows per batch; ``None`` for all at once.
        accumulate_grad_batches: batches whose gradients make one optimizer step.
        shuffle: whether to draw a new order in every epoch; a full batch is never reordered.
        seed: seed of the run.
        batches_per_epoch: an epoch ends after so many batches; ``None``: after all rows.

    Raises:
        ValueError: for a number of rows or batches below 1.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int | None = None,
        accumulate_grad_batches: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        batches_per_epoch: int | None = None,
    ) -> None:
        counts = {
            "batch_size": batch_size,
            "accumulate_grad_batches": accumulate_grad_batches,
            "batches_per_epoch": batches_per_epoch,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} = {count} must be at least 1")
        self.rows = rows
        self.batch_size = len(rows) if batch_size is None else min(batch_size, len(rows))
        limit = len(rows) if batches_per_epoch is None else batches_per_epoch * self.batch_size
        self.rows_per_epoch = min(limit, len(rows))
        self.rows_per_step = min(self.batch_size * accumulate_grad_batches, self.rows_per_epoch)
        self.steps_per_epoch = -(-self.rows_per_epoch // self.rows_per_step)
        self.shuffle = shuffle
        self.seed = seed
        self._last_order: tuple[int, Tensor] | None = None

    def order(self, epoch: int) -> Tensor:
        """Row numbers in the order in which ``epoch`` visits them; shape ``(B,)``."""
        if self._last_order is None or self._last_order[0] != epoch:
            drawn = torch.randperm(len(self.rows), generator=generator(self.seed, "shuffle", epoch))
            self._last_order = (epoch, drawn.to(self.rows.features_BF.device))
        return self._last_order[1]

    def batches(self, first_step: int, count: int) -> Iterator[Batch]:
        """Features, targets and weights of ``count`` steps from ``first_step`` on."""
        if self.rows_per_step == len(self.rows):
            yield from itertools.repeat((self.rows.features_BF, self.rows.targets, self.rows.weights_B), count)
            return
        while count > 0:
            epoch, position = divmod(first_step, self.steps_per_epoch)
            steps = min(count, self.steps_per_epoch - position)
            end = min((position + steps) * self.rows_per_step, self.rows_per_epoch)
            here = slice(position * self.rows_per_step, end)
            part = self.rows[self.order(epoch)[here] if self.shuffle else here]
            weights = itertools.repeat(None) if part.weights_B is None else part.weights_B.split(self.rows_per_step)
            # The features end the iteration: without weights, repeat() does not.
            yield from zip(  # noqa: B905  # strict=True would raise at repeat()
                part.features_BF.split(self.rows_per_step), part.targets.split(self.rows_per_step), weights
            )
            first_step += steps
            count -= steps


class Execution:
    """Consecutive optimizer steps ``first_step … first_step + count - 1``: what Lightning treats as a batch.

    Not a dataclass: Lightning searches dataclasses for tensors to convert, and would copy all rows at every
    execution.
    """

    def __init__(self, training_steps: TrainingSteps, first_step: int, count: int) -> None:
        self.training_steps = training_steps
        self.first_step = first_step
        self.count = count

    def batches(self) -> Iterator[Batch]:
        return self.training_steps.batches(self.first_step, self.count)


@dataclasses.dataclass(frozen=True)
class ExecutionLimits:
    """Where executions and spans have to end.

    Attributes:
        steps_per_execution: most steps in one execution.
        epochs_between_validations: a span never crosses a multiple of it; ``None``: no validation.
        steps_between_checkpoints: an execution never crosses a multiple of it; ``None``: no such limit.
        last_step: number of steps of the whole run; ``None``: no limit.
    """

    steps_per_execution: int = 1
    epochs_between_validations: int | None = None
    steps_between_checkpoints: int | None = None
    last_step: int | None = None


def span_end(step: int, steps_per_epoch: int, limits: ExecutionLimits) -> int:
    """The step at which the span that begins at ``step`` ends."""
    epoch = step // steps_per_epoch
    epochs = max(1, limits.steps_per_execution // steps_per_epoch)
    if limits.epochs_between_validations is not None:
        epochs = min(epochs, limits.epochs_between_validations - epoch % limits.epochs_between_validations)
    end = (epoch + epochs) * steps_per_epoch
    return end if limits.last_step is None else min(end, limits.last_step)


def cut(step: int, end: int, limits: ExecutionLimits) -> Iterator[tuple[int, int]]:
    """Cut the steps ``step … end - 1`` into executions, as pairs (first step, count)."""
    while step < end:
        stop = min(end, step + limits.steps_per_execution)
        if limits.steps_between_checkpoints is not None:
            interval = limits.steps_between_checkpoints
            stop = min(stop, (step // interval + 1) * interval)
        yield step, stop - step
        step = stop


class ExecutionLoader:
    """What Lightning uses as the training data loader: each pass over it is one span of executions.

    It has no length, since spans differ in length.

    Args:
        training_steps: which rows each step sees.
        limits: called at the start of each pass; where executions have to end.
        current_step: called at the start of each pass; the number of optimizer steps made so far.
    """

    def __init__(
        self,
        training_steps: TrainingSteps,
        limits: Callable[[], ExecutionLimits],
        current_step: Callable[[], int],
    ) -> None:
        self.training_steps = training_steps
        self._limits = limits
        self._current_step = current_step

    def __iter__(self) -> Iterator[Execution]:
        limits, step = self._limits(), self._current_step()
        end = span_end(step, self.training_steps.steps_per_epoch, limits)
        for first_step, count in cut(step, end, limits):
            yield Execution(self.training_steps, first_step, count)
