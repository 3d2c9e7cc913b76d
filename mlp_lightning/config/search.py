"""A sweep that searches: section ``search`` of the configuration, and what contradicts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Union

from mlp_lightning.config.rules import above, at_least, between, one_of, option
from mlp_lightning.errors import Fault

if TYPE_CHECKING:
    from mlp_lightning.config.schema import Config

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


def search_faults(config: Config, validates: bool, explicit: Collection[str]) -> Iterator[Fault]:
    """What contradicts a search, or has no effect on it.

    Args:
        config: of the first run.
        validates: whether rows are validated with.
        explicit: dotted keys that the user set.
    """
    search, default = config.search, SearchConfig()
    if search.name == "none":
        for field in dataclasses.fields(search):
            if (value := getattr(search, field.name)) != getattr(default, field.name):
                rule, hint = "is of a search", "choose search=random, halving or optuna, or leave it out"
                yield Fault(f"search.{field.name}", value, rule, hint)
        return
    yield from _without_validation(config, validates)
    if search.name == "halving":
        rule, hint = "has no effect on search=halving, which compares all trials at once", "leave it out"
        for key in ("batch", "pruner", "time_limit_s"):
            if (value := getattr(search, key)) != getattr(default, key):
                yield Fault(f"search.{key}", value, rule, hint)
        return
    rule = search.rule(validates and config.data.cv.folds is None)
    if rule in ("none", "median") and "search.reduction_factor" in explicit:
        rule = f"has no effect: it is for asha and hyperband, and search.pruner is {rule}"
        yield Fault("search.reduction_factor", search.reduction_factor, rule, "leave it out, or search.pruner=asha")
    if search.time_limit_s is not None and search.batch_size == search.trials:
        rule = f"has no effect: all {search.trials} trials are one batch"
        yield Fault("search.time_limit_s", search.time_limit_s, rule, "set search.batch, or leave it out")


def _without_validation(config: Config, validates: bool) -> Iterator[Fault]:
    """Nobody leaves a search without validation losses of the rows that decide in the end."""
    search = config.search
    asks = search.name == "halving" or search.pruner not in ("auto", "none")
    key, value = ("search.name", "halving") if search.name == "halving" else ("search.pruner", search.pruner)
    instead = "use search=random" if search.name == "halving" else "use search.pruner=none"
    if asks and config.data.cv.folds is not None:
        rule = "ends trials by validation losses, and data.cv.folds compares them by the rows that are held out"
        yield Fault(key, value, rule, f"{instead}, or leave data.cv.folds out")
    elif asks and not validates:
        rule, hint = "ends trials by validation losses, and there are no validation rows", "set data.val_fraction"
        yield Fault(key, value, rule, f"{hint} above 0, or {instead}")
