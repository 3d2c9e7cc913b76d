"""The rows of all members of a training as one LightningDataModule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightning.pytorch as pl
import torch

from mlp_lightning.data.datamodule import TabularDataModule
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import TrainingSteps


class Steps(NamedTuple):
    """Consecutive optimizer steps: what Lightning takes for a batch.

    Attributes:
        first: number of the first.
        end: number of the one after the last.
    """

    first: int
    end: int


class TrainingDataModule(pl.LightningDataModule):
    """The rows of K runs, and the cut of their steps into executions.

    Executions end at multiples of ``steps_per_execution`` wherever a run began, so that one that continues is cut as it
    would have been.

    Args:
        distinct: set-up data modules that differ (in their seed, say).
        of_member: for each member, the number of its data module in ``distinct``.
        last_step: number of steps of the whole training.
        steps_per_execution: most steps inside one ``training_step``.
    """

    def __init__(
        self, distinct: Sequence[TabularDataModule], of_member: Sequence[int], last_step: int, steps_per_execution: int
    ) -> None:
        super().__init__()
        self.distinct = list(distinct)
        self.of_member = list(of_member)
        self.last_step = last_step
        self.steps_per_execution = steps_per_execution

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have rows."""
        return tuple(self.distinct[0].splits)

    @property
    def steps_per_epoch(self) -> int:
        return self.distinct[0].steps_per_epoch

    def setup(self, stage: str | None = None) -> None:
        """Let the rows follow the Trainer's device."""
        for one in self.distinct:
            one.trainer = self.trainer

    def stacked_training_steps(self) -> StackedSteps:
        """Which training rows each optimizer step of each member sees."""
        return StackedSteps([one.training_steps for one in self.distinct], self.of_member)

    def stacked_rows(self, split: str) -> StackedSteps:
        """All rows of a split in their order, each counting the same, as one step."""
        rows = [dataclasses.replace(one.rows_on_device(split), weights_B=None) for one in self.distinct]
        return StackedSteps([TrainingSteps(one, shuffle=False) for one in rows], self.of_member)

    def train_dataloader(self) -> _Executions:
        assert self.trainer is not None
        return _Executions(self.trainer.global_step, self.last_step, self.steps_per_execution)

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> object:
        """Nothing to do: the rows are on the device already."""
        return batch


class _Executions:
    """What Lightning takes for a data loader: the executions of one training, in one pass."""

    def __init__(self, first_step: int, last_step: int, at_once: int) -> None:
        self._steps = (first_step, last_step, at_once)

    def __iter__(self) -> Iterator[Steps]:
        step, last_step, at_once = self._steps
        while step < last_step:
            end = min((step // at_once + 1) * at_once, last_step)
            yield Steps(step, end)
            step = end
