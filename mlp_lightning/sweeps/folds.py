"""The folds of a cross-validation, the split that seeds share, and what folds say together."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from mlp_lightning.config import Config


def of_fold(config: Config, fold: int) -> Config:
    """The run that trains one of the folds alone."""
    cv = dataclasses.replace(config.data.cv, fold=fold)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, cv=cv))


def with_shared_split(config: Config) -> Config:
    """A run of a sweep over seeds: a split that ``seed`` would decide is the same for all of them.

    Otherwise the best seed would be the one with the easiest validation rows.
    """
    if not config.data.split_follows_seed:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, split_seed=0))


def means_of_folds(folds: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """For each metric that is a finite number in every fold its ``mean`` and ``sd`` (with n - 1)."""
    metrics = {}
    for name in folds[0] if folds else ():
        values = [value for one in folds if (value := one.get(name)) is not None and math.isfinite(value)]
        if len(values) == len(folds):
            metrics[name] = {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
    return metrics
