"""Ensembles: section ``ensemble`` of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Union

from mlp_lightning.config.rules import between, option


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Several networks whose predictions are averaged."""

    members: Union[int, None] = option(
        None,
        between(2, 10_000, high_included=True),
        meaning="networks of an ensemble, which differ in their seeds: seed, seed + 1, …; null: one network",
    )
