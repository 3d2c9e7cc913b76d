"""The rows of several runs as one LightningDataModule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning.pytorch as pl
import torch

from mlp_lightning.data.datamodule import TabularDataModule
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import ExecutionLoader, TrainingSteps


class StackedDataModule(pl.LightningDataModule):
    """The rows of K runs as one LightningDataModule, features standardised for each run as it asks.

    Args:
        distinct: set-up data modules that differ (in their seed).
        of_member: for each member, the number of its data module in ``distinct``.
    """

    def __init__(self, distinct: Sequence[TabularDataModule], of_member: Sequence[int]) -> None:
        super().__init__()
        self.distinct = list(distinct)
        self.of_member = list(of_member)
        self.steps_per_execution = 1

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

    def training_steps(self) -> StackedSteps:
        """Which training rows each optimizer step of each member sees."""
        ready = []
        for one in self.distinct:
            steps = one.training_steps
            ready.append(steps.with_features(one.prepared(steps.rows.features_BF)))
        return StackedSteps(ready, self.of_member)

    def evaluation_steps(self, split: str) -> StackedSteps:
        """All rows of a split in their order, as one step."""
        ready = []
        for one in self.distinct:
            rows = one.rows_on_device(split)
            ready.append(TrainingSteps(Rows(one.prepared(rows.features_BF), rows.targets), shuffle=False))
        return StackedSteps(ready, self.of_member)

    def train_dataloader(self) -> ExecutionLoader:
        trainer, first = self.trainer, self.distinct[0]
        assert trainer is not None
        first.steps_per_execution = self.steps_per_execution
        return ExecutionLoader(first.training_steps, lambda: first.limits(trainer), lambda: trainer.global_step)

    def val_dataloader(self) -> list[str] | _OnePass:
        return _OnePass("val") if "val" in self.splits else []

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> object:
        """Nothing to do: the rows are on the device already."""
        return batch


class _OnePass:
    """A loader whose one batch is the name of a split: the module looks its rows up."""

    def __init__(self, split: str) -> None:
        self._split = split

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        yield self._split
