"""Runs to group into stacks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.config.schedules import SCHEDULES
from mlp_lightning.config.schema import EarlyStoppingConfig
from mlp_lightning.sweeps.grouping import Grouping, Sizes, group_runs

PLENTY = 2**40
# Enough rows that the arithmetic of every matrix product counts.
SIZES = Sizes(in_features=4, out_features=3, rows_per_step=1000, rows=1500, steps=100)


def with_value(config: Any, key: str, value: Any) -> Any:
    """The configuration with another value at a dotted key."""
    first, _, rest = key.partition(".")
    if isinstance(config, dict):
        return {**config, first: value}
    return dataclasses.replace(config, **{first: with_value(getattr(config, first), rest, value) if rest else value})


def base(schedule: type = SCHEDULES["none"]) -> Config:
    """A run that can be stacked, in which no section is null."""
    config = with_value(Config(), "callbacks.early_stopping", EarlyStoppingConfig())
    options = {"weight_decay": 0.0, "momentum": 0.9, "nesterov": False}
    return with_value(with_value(config, "optimizer.options", options), "scheduler", schedule())


def runs(widths: Sequence[Any], **model: Any) -> list[Config]:
    start = with_value(base(), "model", dataclasses.replace(base().model, **model))
    return [with_value(start, "model.hidden_units", one) for one in widths]


def grouped(configs: Sequence[Config], memory: int = PLENTY, stacks_at_least: int = 1) -> Grouping:
    return group_runs(configs, lambda _: SIZES, memory, stacks_at_least)


def assert_complete(grouping: Grouping, count: int) -> None:
    """Every run occurs once, stacks have several runs, and everything is sorted."""
    indices = [*itertools.chain(*grouping.stacks), *(index for index, _ in grouping.alone)]
    assert sorted(indices) == list(range(count))
    assert all(len(stack) > 1 for stack in grouping.stacks)
    assert grouping.stacks == sorted(sorted(stack) for stack in grouping.stacks)
    assert grouping.alone == sorted(grouping.alone)
    assert all(reason for _, reason in grouping.alone)
