"""A sweep that searches: section ``search`` of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Union

from mlp_lightning.config.rules import above, at_least, between, one_of, option

METHODS = ("none", "random", "halving", "optuna")
PRUNERS = ("auto", "none", "asha", "hyperband", "median")
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How a sweep (``--multirun``) searches a space instead of making every combination of the values given."""

    name: str = option(
        "none", one_of(METHODS), meaning="how trials are drawn and compared; none: every combination of the values"
    )
    trials: int = option(64, between(1, 100_000, high_included=True), meaning="points of the space that are trained")
    batch: Union[int, None] = option(
        None, at_least(1), meaning="trials that are drawn, and train, together; null: 32; halving: all of them"
    )
    seed: int = option(0, between(0, 2**63), meaning="decides which points are drawn")
    pruner: str = option(
        "auto",
        one_of(PRUNERS),
        meaning="which trials leave before their end, by their validation losses; auto: asha for optuna, where rows are"
        " validated with and no folds are held out",
    )
    reduction_factor: int = option(
        3, between(2, 100, high_included=True), meaning="asha, hyperband, halving: one of so many trials goes further"
    )
    time_limit_s: Union[float, None] = option(
        None, above(0), meaning="seconds after which no further batch begins; null: no limit"
    )

    @property
    def batch_size(self) -> int:
        """How many trials are drawn together."""
        return self.trials if self.name == "halving" else min(self.trials, self.batch or _BATCH)

    def rule(self, may_prune: bool) -> str:
        """By which rule trials leave: a pruner, or ``none``.

        Args:
            may_prune: whether validation losses are there to decide.
        """
        if self.name == "halving":
            return "asha"  # which is successive halving, where all trials are there
        return ("asha" if self.name == "optuna" and may_prune else "none") if self.pruner == "auto" else self.pruner
