"""Members of a search that leave before their end: what a training asks of who searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from mlp_lightning.runs.member import Member
from mlp_lightning.runs.milestones import Milestones
from mlp_lightning.runs.run_folder import config_hash


class Progress(NamedTuple):
    """How far trials are that can be compared: only those of equal progress are.

    Attributes:
        epochs: passes over the training rows so far.
        of: epochs of the whole training.
        validation: number of the validation, from 1.
        validations: of the whole training.
    """

    epochs: float
    of: float
    validation: int
    validations: int


class Pruner(Protocol):
    """Who leaves a search, by the validation losses of all of its trials."""

    def is_due(self, progress: Progress) -> bool:
        """Whether it looks at this validation."""
        ...

    def pruned(self, progress: Progress, losses: Mapping[str, float]) -> Mapping[str, str]:
        """The trials that leave, and why.

        Args:
            progress: of all of them.
            losses: of those that train together, by the hash of their configuration.
        """
        ...


class PruningOfMembers:
    """Asks the pruner of a search about the members of one training.

    Args:
        pruner: of the search.
        members: of the training.
        milestones: likewise.
    """

    def __init__(self, pruner: Pruner, members: Sequence[Member], milestones: Milestones) -> None:
        self._pruner = pruner
        self._hashes = [config_hash(one.config) for one in members]
        self._milestones = milestones

    def _progress(self, step: int) -> Progress:
        milestones = self._milestones
        interval, last, epoch = milestones.validation_interval, milestones.last_step, milestones.steps_per_epoch
        assert interval is not None, "only validations are looked at"
        return Progress(step / epoch, last / epoch, step // interval, last // interval)

    def is_due(self, step: int) -> bool:
        return self._pruner.is_due(self._progress(step))

    def pruned(self, step: int, losses: Mapping[int, float]) -> Mapping[int, str]:
        found = self._pruner.pruned(self._progress(step), {self._hashes[one]: losses[one] for one in losses})
        return {one: found[self._hashes[one]] for one in losses if self._hashes[one] in found}
