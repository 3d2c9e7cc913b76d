"""The rows of several runs at once.

Shapes: ``K`` members, ``D`` members with rows of their own (the others see the same as one of them), ``B`` rows,
``F`` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor

from mlp_lightning.data.datamodule import TabularDataModule
from mlp_lightning.data.executions import ExecutionLoader, TrainingSteps
from mlp_lightning.data.rows import Rows


class StackedSteps:
    """Which training rows each optimizer step of each member sees.

    Members that see the same rows in the same order share them, so a sweep over learning rates keeps one copy of
    its data.

    Args:
        distinct: the training steps that differ, of equally many rows in equal batches.
        of_member: for each member, the number of its steps in ``distinct``.
    """

    def __init__(self, distinct: Sequence[TrainingSteps], of_member: Sequence[int]) -> None:
        self.distinct, self.of_member = _without_repetition(distinct, of_member)
        first = self.distinct[0]
        sizes = {(len(one.rows), one.rows_per_step) for one in self.distinct}
        if len(sizes) != 1:
            raise ValueError(f"members of one stack have equally many rows and equal batches, not {sorted(sizes)}")
        self.batch_size = first.batch_size
        self.rows_per_step = first.rows_per_step
        self.steps_per_epoch = first.steps_per_epoch
        self._index_K = torch.tensor(self.of_member, device=first.rows.features_BF.device)
        self._features_DBF = torch.stack([one.rows.features_BF for one in self.distinct])
        self._targets_DB = torch.stack([one.rows.targets for one in self.distinct])
        self._epoch = -1
        self._epoch_rows = (self._features_DBF, self._targets_DB)
        self._full_batch: tuple[Tensor, Tensor] | None = None

    @property
    def shared(self) -> bool:
        """Whether all members see the same rows; then batches have no member axis."""
        return len(self.distinct) == 1

    def select(self, members: Sequence[int]) -> StackedSteps:
        """The steps of some of the members."""
        return StackedSteps(self.distinct, [self.of_member[one] for one in members])

    def batches(self, first_step: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and targets of ``count`` steps: ``(K, B, F)`` and ``(K, B, …)``; without ``K`` if shared."""
        if self.steps_per_epoch == 1:
            if self._full_batch is None:
                self._full_batch = self._for_members(self._features_DBF, self._targets_DB)
            for _ in range(count):
                yield self._full_batch
            return
        for step in range(first_step, first_step + count):
            epoch, position = divmod(step, self.steps_per_epoch)
            features_DBF, targets_DB = self._in_order(epoch)
            here = slice(position * self.rows_per_step, (position + 1) * self.rows_per_step)
            yield self._for_members(features_DBF[:, here], targets_DB[:, here])

    def rows_at(self, step: int) -> int:
        """Number of rows of a step; the last of an epoch may have fewer."""
        position = step % self.steps_per_epoch
        left = len(self.distinct[0].rows) - position * self.rows_per_step
        return min(self.rows_per_step, left)

    def _for_members(self, features_DBF: Tensor, targets_DB: Tensor) -> tuple[Tensor, Tensor]:
        if self.shared:
            return features_DBF[0], targets_DB[0]
        return features_DBF[self._index_K], targets_DB[self._index_K]

    def _in_order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """All rows in the order of an epoch."""
        if not self.distinct[0].shuffle:
            return self._epoch_rows
        if self._epoch != epoch:
            order_DB = torch.stack([one.order(epoch) for one in self.distinct])
            number_D1 = torch.arange(len(self.distinct), device=order_DB.device)[:, None]
            self._epoch = epoch
            self._epoch_rows = (self._features_DBF[number_D1, order_DB], self._targets_DB[number_D1, order_DB])
        return self._epoch_rows


def _without_repetition(
    distinct: Sequence[TrainingSteps], of_member: Sequence[int]
) -> tuple[list[TrainingSteps], list[int]]:
    """Leave out steps that no member takes, and those that are the same as others."""
    kept: list[TrainingSteps] = []
    place: dict[int, int] = {}
    for number in sorted(set(of_member)):
        one = distinct[number]
        same = next((i for i, other in enumerate(kept) if _are_same(one, other)), None)
        if same is None:
            same = len(kept)
            kept.append(one)
        place[number] = same
    return kept, [place[number] for number in of_member]


def _are_same(one: TrainingSteps, other: TrainingSteps) -> bool:
    ordered = one.steps_per_epoch == 1 or not one.shuffle or one.seed == other.seed
    return (
        ordered
        and torch.equal(one.rows.features_BF, other.rows.features_BF)
        and torch.equal(one.rows.targets, other.rows.targets)
    )


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
            ready.append(steps.with_features(_standardized(one, steps.rows.features_BF)))
        return StackedSteps(ready, self.of_member)

    def evaluation_steps(self, split: str) -> StackedSteps:
        """All rows of a split in their order, as one step."""
        ready = []
        for one in self.distinct:
            rows = one.rows_on_device(split)
            ready.append(TrainingSteps(Rows(_standardized(one, rows.features_BF), rows.targets), shuffle=False))
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


def _standardized(data: TabularDataModule, features_BF: Tensor) -> Tensor:
    mean_F, scale_F = data.feature_mean_F.to(features_BF), data.feature_scale_F.to(features_BF)
    return (features_BF - mean_F) / scale_F
