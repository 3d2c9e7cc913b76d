"""Several networks as one model: sections ``ensemble`` and ``preset`` of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Union

from mlp_lightning.config.rules import above, between, one_of, option

PRESETS = ("default", "best")
#: What candidates of ``preset=best`` may differ in.
DRAWN = (
    *("model.hidden_units", "model.depth", "model.numeric_embedding", "model.residual", "model.dropout"),
    *("optimizer.lr", "optimizer.weight_decay", "trainer.label_smoothing", "trainer.max_epochs"),
)


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
    fixed: list[str] = option(
        [], one_of(DRAWN), meaning="options that all candidates have as configured; those that you set are added"
    )


def with_fixed(preset: PresetConfig, explicit: Collection[str]) -> PresetConfig:
    """The preset that keeps what the user set: an option, or the group that has it (``model=wide``)."""
    if preset.name != "best":
        return preset
    fixed = {key for key in DRAWN if key in explicit or key.partition(".")[0] in explicit}
    if any(key == "scheduler.max_lr" or key.startswith("data.suggested_lr") for key in explicit):
        fixed.add("optimizer.lr")  # which follows from these
    return dataclasses.replace(preset, fixed=sorted({*preset.fixed, *fixed}))
