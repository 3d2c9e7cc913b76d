"""Schedules of the learning rate: section ``scheduler`` of the configuration."""

from __future__ import annotations

import dataclasses
from typing import Union

from mlp_lightning.config.rules import above, at_least, between, one_of, option


@dataclasses.dataclass(frozen=True)
class ConstantSchedule:
    """The learning rate stays constant."""

    name: str = option("none", meaning="which schedule")


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    """From the optimizer's learning rate down to ``eta_min`` along half a cosine, over the whole run."""

    name: str = option("cosine", meaning="which schedule")
    eta_min: float = option(0.0, at_least(0), meaning="learning rate at the end")


@dataclasses.dataclass(frozen=True)
class OneCycleSchedule:
    """Up to ``max_lr`` and down again over the whole run."""

    name: str = option("one_cycle", meaning="which schedule")
    max_lr: Union[float, None] = option(None, above(0), meaning="highest learning rate; null: optimizer.lr")
    pct_start: float = option(0.3, between(0, 1), meaning="share of the run in which the rate rises")
    div_factor: float = option(25.0, above(0), meaning="max_lr / first learning rate")
    final_div_factor: float = option(1e4, above(0), meaning="first learning rate / last learning rate")


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """Times ``gamma`` every ``step_size`` epochs or steps."""

    name: str = option("step", meaning="which schedule")
    step_size: int = option(30, at_least(1), meaning="intervals between two changes")
    gamma: float = option(0.1, above(0), meaning="factor of each change")
    interval: str = option("epoch", one_of(("epoch", "step")), meaning="what step_size counts")


@dataclasses.dataclass(frozen=True)
class InverseTimeSchedule:
    """The optimizer's learning rate over ``(1 + decay_rate * t) ** power``, where ``t`` counts epochs or steps.

    scikit-learn's ``invscaling`` is that of epochs, with the number of training rows as ``decay_rate``.
    """

    name: str = option("inverse_time", meaning="which schedule")
    decay_rate: float = option(1.0, above(0), meaning="how fast the rate falls")
    power: float = option(0.5, at_least(0), meaning="exponent; 0.5: as the square root of the time")
    interval: str = option("epoch", one_of(("epoch", "step")), meaning="what t counts")


@dataclasses.dataclass(frozen=True)
class PlateauSchedule:
    """Times ``factor`` when the monitored loss has not improved for ``patience`` checks.

    ``loss/val`` is checked after each validation, ``loss/train`` (the mean over an epoch) after each epoch.
    """

    name: str = option("plateau", meaning="which schedule")
    monitor: str = option(
        "auto", one_of(("auto", "loss/train", "loss/val")), meaning="auto: loss/val where there is one"
    )
    factor: float = option(0.1, between(0, 1), meaning="factor of each change")
    patience: int = option(10, at_least(0), meaning="checks without improvement before a change")
    threshold: float = option(1e-4, at_least(0), meaning="relative improvement that counts as one")
    min_lr: float = option(0.0, at_least(0), meaning="lowest learning rate")


ScheduleConfig = Union[
    ConstantSchedule, CosineSchedule, OneCycleSchedule, StepSchedule, InverseTimeSchedule, PlateauSchedule
]

#: By the name of the option.
SCHEDULES: dict[str, type] = {
    "none": ConstantSchedule,
    "cosine": CosineSchedule,
    "one_cycle": OneCycleSchedule,
    "step": StepSchedule,
    "inverse_time": InverseTimeSchedule,
    "plateau": PlateauSchedule,
}
