"""A candidate of ``preset=best``, and what its networks predict.

Shapes: ``B`` rows, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mlp_lightning.config import Config
from mlp_lightning.runs.folder_names import MEMBERS
from mlp_lightning.sweeps.worker import Outcome


@dataclasses.dataclass
class Candidate:
    """A configuration, and what its networks predict of the rows that their folds held out.

    Attributes:
        number: 0 is the configuration of the run itself.
        config: of one of its networks.
        options: in which it differs from that of the run.
        outcomes: by fold.
        held_out: predictions ``(B, C)``, by fold.
        losses: of these, by fold.
        weight: in the ensemble.
    """

    number: int
    config: Config
    options: Mapping[str, Any]
    outcomes: dict[int, Outcome] = dataclasses.field(default_factory=dict)
    held_out: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    losses: dict[int, float] = dataclasses.field(default_factory=dict)
    weight: float = 0.0

    @property
    def failed(self) -> bool:
        return any(one.status == "failed" for one in self.outcomes.values())

    def mean_loss(self, folds: Sequence[int]) -> float:
        """Over folds; infinite if a network of it failed."""
        return math.inf if self.failed else sum(self.losses[one] for one in folds) / len(folds)

    def plain(self) -> dict[str, Any]:
        """What ``result.json`` says of it."""
        mean = sum(self.losses.values()) / len(self.losses) if self.losses and not self.failed else None
        metrics = {} if mean is None else {"val": {"loss": mean}}
        facts = {"options": dict(self.options), "folds": len(self.losses), "weight": self.weight, "metrics": metrics}
        return {"folder": f"{MEMBERS}/{self.number}", "seed": self.config.seed, **facts}
