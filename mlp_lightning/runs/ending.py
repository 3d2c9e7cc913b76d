"""How a member of a training ended."""

from __future__ import annotations

import dataclasses

from mlp_lightning.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a member ended.

    Attributes:
        member: its number.
        status: ``finished``, ``interrupted``, ``failed`` or ``pruned``.
        steps: optimizer steps that it made.
        error: what went wrong, if it failed.
        stopped_by: why it ended before its full length, if it did.
    """

    member: int
    status: str
    steps: int
    error: TrainingError | None = None
    stopped_by: str = ""
