"""Several networks as one model: sections ``ensemble`` and ``preset`` of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Union

from mlp_lightning.config.rules import above, between, one_of, option

PRESETS = ("default", "best")


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Several networks whose predictions are averaged."""

    members: Union[int, None] = option(
        None,
        between(2, 10_000, high_included=True),
        meaning="networks of an ensemble, which differ in their seeds: seed, seed + 1, …; null: one network",
    )


@dataclasses.dataclass(frozen=True)
class PresetConfig:
    """How a model is chosen."""

    name: str = option("default", one_of(PRESETS), meaning="default: one network; best: an ensemble of candidates")
    candidates: Union[int, None] = option(
        None, between(1, 10_000, high_included=True), meaning="candidates of best; null: as many as the time allows"
    )
    time_limit_s: float = option(60.0, above(0), meaning="seconds that best may train for, about")
