"""What contradicts a search, or has no effect on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from mlp_lightning.config.schema import Config
from mlp_lightning.config.search import SearchConfig
from mlp_lightning.errors import Fault


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
