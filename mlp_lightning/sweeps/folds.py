"""What a sweep adds to the configurations of its runs, and what the folds of a cross-validation say together."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from mlp_lightning.config import Config, DataConfig, EnsembleConfig, PresetConfig, SearchConfig, SweepConfig

_NO_SEARCH = SearchConfig()


def of_fold(config: Config, fold: int) -> Config:
    """The run that trains one of the folds alone."""
    cv = dataclasses.replace(config.data.cv, fold=fold)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, cv=cv))


def of_member(config: Config, member: int) -> Config:
    """The run that trains one of the members of an ensemble alone; all have the same split. A single run is its own."""
    if config.ensemble.members is None and config.preset.name == "default":
        return config
    data = config.data
    if data.split_follows_seed:
        data = dataclasses.replace(data, split_seed=config.seed)
    alone = {"ensemble": EnsembleConfig(), "preset": PresetConfig()}
    return dataclasses.replace(config, seed=config.seed + member, data=data, **alone)


def with_shared_split(config: Config, known: dict[int, tuple[DataConfig, DataConfig]] | None = None) -> Config:
    """A run of a sweep over seeds: a split that ``seed`` would decide is the same for all of them.

    Otherwise the best seed would be the one with the easiest validation rows.

    Args:
        config: of the run.
        known: sections of earlier runs, by identity, so that equal ones are the same object.
    """
    if not config.data.split_follows_seed:
        return config
    known = {} if known is None else known
    if id(config.data) not in known:
        known[id(config.data)] = config.data, dataclasses.replace(config.data, split_seed=0)
    return dataclasses.replace(config, data=known[id(config.data)][1])


def with_keys(config: Config, keys: Collection[str], known: dict[tuple[str, ...], SweepConfig] | None = None) -> Config:
    """A run of a sweep that TensorBoard shows by these keys, unless the user chose others; ``known`` as above.

    The other options of ``sweep``, and ``search``, are the command's: the run has none of them, and can be repeated
    alone.
    """
    chosen = tuple(config.sweep.keys or keys)
    section = ({} if known is None else known).setdefault(chosen, SweepConfig(keys=list(chosen)))
    return dataclasses.replace(config, sweep=section, search=_NO_SEARCH)


def means_of_folds(folds: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """For each metric that is a finite number in every fold its ``mean`` and ``sd`` (with n - 1)."""
    metrics = {}
    for name in folds[0] if folds else ():
        values = [value for one in folds if (value := one.get(name)) is not None and math.isfinite(value)]
        if len(values) == len(folds):
            metrics[name] = {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
    return metrics
