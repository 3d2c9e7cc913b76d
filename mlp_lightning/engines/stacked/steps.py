"""Which rows every optimizer step of every member sees.

Shapes: ``K`` members, ``D`` members with distinct rows (the others share those of one of them), ``B`` rows,
``F`` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import Batch, TrainingSteps


class StackedSteps:
    """Which training rows each optimizer step of each member sees.

    Members that see the same rows in the same order share them, so a sweep over learning rates keeps one copy of
    its data. Members may differ in their number of rows (folds do, by one): they are padded with rows of
    weight 0.

    Args:
        distinct: the training steps that differ, of equally many steps per epoch in equal batches.
        of_member: for each member, the number of its steps in ``distinct``.
    """

    def __init__(self, distinct: Sequence[TrainingSteps], of_member: Sequence[int]) -> None:
        self.distinct, self.of_member = _without_repetition(distinct, of_member)
        first = self.distinct[0]
        sizes = {(one.steps_per_epoch, one.steps_per_epoch == 1 or one.rows_per_step) for one in self.distinct}
        if len(sizes) != 1:
            raise ValueError(
                f"members of one stack have as many steps per epoch and equal batches, not {sorted(sizes)}"
            )
        self.batch_size = max(one.batch_size for one in self.distinct)
        self.rows_per_step = max(one.rows_per_step for one in self.distinct)
        self.steps_per_epoch = first.steps_per_epoch
        self._rows = max(len(one.rows) for one in self.distinct)
        self._index_K = torch.tensor(self.of_member, device=first.rows.features_BF.device)
        self._features_DBF = torch.stack([_padded(one.rows.features_BF, self._rows) for one in self.distinct])
        self._targets_DB = torch.stack([_padded(one.rows.targets, self._rows) for one in self.distinct])
        self._weights_DB: Tensor | None = None
        if any(one.rows.weights_B is not None or len(one.rows) < self._rows for one in self.distinct):
            self._weights_DB = torch.stack([_padded(_weights(one.rows), self._rows) for one in self.distinct])
        self._epoch = -1
        self._epoch_rows = (self._features_DBF, self._targets_DB, self._weights_DB)
        self._full_batch: Batch | None = None

    @property
    def shared(self) -> bool:
        """Whether all members see the same rows; then batches have no member axis."""
        return len(self.distinct) == 1

    @property
    def all_rows(self) -> Batch:
        """Features ``(D, B, F)``, targets ``(D, B, …)`` and weights ``(D, B)`` of all rows."""
        return self._features_DBF, self._targets_DB, self._weights_DB

    def select(self, members: Sequence[int]) -> StackedSteps:
        """The steps of some of the members."""
        return StackedSteps(self.distinct, [self.of_member[one] for one in members])

    def batches(self, first_step: int, count: int) -> Iterator[Batch]:
        """Features, targets and weights of ``count`` steps: ``(K, B, F)``, ``(K, B, …)``, ``(K, B)``.

        Without ``K`` if they are shared; weights are ``None`` where all rows count the same.
        """
        if self.steps_per_epoch == 1:
            if self._full_batch is None:
                self._full_batch = self._for_members(self._features_DBF, self._targets_DB, self._weights_DB)
            for _ in range(count):
                yield self._full_batch
            return
        for step in range(first_step, first_step + count):
            epoch, position = divmod(step, self.steps_per_epoch)
            features_DBF, targets_DB, weights_DB = self._in_order(epoch)
            here = slice(position * self.rows_per_step, (position + 1) * self.rows_per_step)
            yield self._for_members(
                features_DBF[:, here], targets_DB[:, here], None if weights_DB is None else weights_DB[:, here]
            )

    def rows_at(self, step: int) -> int:
        """Number of rows of a step; the last of an epoch may have fewer."""
        position = step % self.steps_per_epoch
        left = self._rows - position * self.rows_per_step
        return min(self.rows_per_step, left)

    def own_rows_at(self, step: int) -> list[int] | None:
        """For each member, how many of the rows of a step are not padding; ``None`` if all are."""
        if all(len(one.rows) == self._rows for one in self.distinct):
            return None
        before = step % self.steps_per_epoch * self.rows_per_step
        own_D = [min(self.rows_per_step, len(one.rows) - before) for one in self.distinct]
        return [own_D[number] for number in self.of_member]

    def _for_members(self, features_DBF: Tensor, targets_DB: Tensor, weights_DB: Tensor | None) -> Batch:
        index = 0 if self.shared else self._index_K
        return features_DBF[index], targets_DB[index], None if weights_DB is None else weights_DB[index]

    def _in_order(self, epoch: int) -> Batch:
        """All rows in the order of an epoch."""
        if not self.distinct[0].shuffle:
            return self._epoch_rows
        if self._epoch != epoch:
            order_DB = self.order(epoch)
            at = (torch.arange(len(self.distinct), device=order_DB.device)[:, None], order_DB)
            self._epoch = epoch
            weights_DB = self._weights_DB
            self._epoch_rows = (
                self._features_DBF[at],
                self._targets_DB[at],
                None if weights_DB is None else weights_DB[at],
            )
        return self._epoch_rows

    def order(self, epoch: int) -> Tensor:
        """The rows of an epoch in order, ``(D, B)``; padding comes last."""
        all_B = torch.arange(self._rows, device=self._index_K.device)
        return torch.stack(
            [
                torch.cat([one.order(epoch) if one.shuffle else all_B[: len(one.rows)], all_B[len(one.rows) :]])
                for one in self.distinct
            ]
        )


def _padded(values: Tensor, rows: int) -> Tensor:
    """Values with zeros for the rows that are missing."""
    return torch.cat([values, values.new_zeros(rows - len(values), *values.shape[1:])])


def _weights(rows: Rows) -> Tensor:
    return rows.features_BF.new_ones(len(rows)) if rows.weights_B is None else rows.weights_B


def _without_repetition(
    distinct: Sequence[TrainingSteps], of_member: Sequence[int]
) -> tuple[list[TrainingSteps], list[int]]:
    """Leave out steps that no member takes, and duplicates."""
    kept: list[TrainingSteps] = []
    position: dict[int, int] = {}
    for number in sorted(set(of_member)):
        one = distinct[number]
        same = next((i for i, other in enumerate(kept) if _are_same(one, other)), None)
        if same is None:
            same = len(kept)
            kept.append(one)
        position[number] = same
    return kept, [position[number] for number in of_member]


def _are_same(one: TrainingSteps, other: TrainingSteps) -> bool:
    ordered = one.steps_per_epoch == 1 or not one.shuffle or one.seed == other.seed
    mine, its = one.rows, other.rows
    if not ordered or (mine.weights_B is None) != (its.weights_B is None):
        return False
    pairs = [(mine.features_BF, its.features_BF), (mine.targets, its.targets)]
    if mine.weights_B is not None and its.weights_B is not None:
        pairs.append((mine.weights_B, its.weights_B))
    return all(torch.equal(a, b) for a, b in pairs)
