"""The steps of a training after which something happens beside it."""

from __future__ import annotations

import bisect
import dataclasses

# After this many steps, or at the end of a shorter run, some parameter must have changed.
_STEPS_TO_CHANGE = 100


@dataclasses.dataclass(frozen=True)
class Milestones:
    """The steps after which something happens beside training, whatever the cut into executions.

    Attributes:
        last_step: number of steps of the whole run.
        steps_per_epoch: of the training rows.
        validation_interval: steps between two regular validations; ``None`` without validation rows.
        checkpoint_interval: ``callbacks.checkpoint.every_n_steps``.
        at_every_epoch: whether the training loss decides after each epoch who stops.
        snapshots: steps after which weights are kept, in order.
    """

    last_step: int
    steps_per_epoch: int
    validation_interval: int | None
    checkpoint_interval: int | None
    at_every_epoch: bool = False
    snapshots: tuple[int, ...] = ()

    def next_after(self, step: int) -> int:
        """The first of these steps behind ``step``."""
        epoch = self.steps_per_epoch if self.at_every_epoch else None
        intervals = (self.validation_interval, self.checkpoint_interval, epoch)
        ends = [(step // one + 1) * one for one in intervals if one]
        if step < _STEPS_TO_CHANGE:
            ends.append(_STEPS_TO_CHANGE)
        ends += self.snapshots[bisect.bisect_right(self.snapshots, step) :][:1]
        return min([self.last_step, *ends])

    def changes_by(self, step: int) -> bool:
        """Whether some parameter must have changed."""
        return step >= min(_STEPS_TO_CHANGE, self.last_step)

    def is_snapshot(self, step: int) -> bool:
        """Whether weights are kept after ``step`` steps."""
        return step in self.snapshots

    def is_regular_validation(self, step: int) -> bool:
        """Whether a validation after ``step`` steps belongs to the end of an epoch."""
        return self.validation_interval is not None and step % self.validation_interval == 0

    def validates(self, step: int) -> bool:
        """Whether there is a validation; a run that ends within an epoch is validated once more."""
        if self.validation_interval is None or self.is_regular_validation(step):
            return self.validation_interval is not None
        return step >= self.last_step and step % self.steps_per_epoch != 0

    def is_checkpoint(self, step: int) -> bool:
        return self.checkpoint_interval is not None and step % self.checkpoint_interval == 0
