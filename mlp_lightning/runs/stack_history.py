"""The figures of all members of a stack, step by step.

Shapes: ``K`` members, ``M`` members asked for, ``S`` logged steps.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.engines.stacked.loop import StackTrace


@dataclasses.dataclass(frozen=True)
class Series:
    """Figures of some members over the same steps.

    Attributes:
        steps: ``(S,)``.
        wall_times: ``(S,)``, seconds since 1970 when they were measured.
        values: ``(M, S, figures)``: loss and metric, and for training steps the learning rate.
    """

    steps: NDArray[np.int64]
    wall_times: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclasses.dataclass
class _Block:
    present: dict[int, int]  # number of a member -> its place in the block
    steps: list[int]
    times: list[float]  # of every step, seconds since 1970
    figures: Tensor  # (S, K, figures)


class StackHistory:
    """Keeps what was measured, until the members that it belongs to have ended."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[_Block]] = {"train": [], "val": []}

    def add_training(self, trace: StackTrace, present: Sequence[int]) -> None:
        """Keep the logged steps of an execution."""
        if trace.logged_steps:
            figures = (trace.logged_losses.double(), trace.logged_metrics.double(), trace.logged_rates)
            self._add("train", trace.logged_steps, torch.stack(figures, -1), present)

    def add_validation(self, step: int, loss_K: Tensor, metric_K: Tensor, present: Sequence[int]) -> None:
        """Keep the figures of a validation after ``step`` steps."""
        self._add("val", [step], torch.stack((loss_K.double(), metric_K.double()), -1)[None], present)

    def series(self, split: str, members: Sequence[int]) -> Series:
        """All figures of members that have been there from the first step on."""
        blocks = self._blocks[split]
        width = 3 if split == "train" else 2
        steps = np.array([step for one in blocks for step in one.steps], dtype=np.int64)
        times = np.array([moment for one in blocks for moment in one.times], dtype=np.float64)
        if not blocks:
            return Series(steps, times, np.empty((len(members), 0, width)))
        parts = [one.figures[:, [one.present[member] for member in members]] for one in blocks]
        return Series(steps, times, torch.cat(parts).transpose(0, 1).contiguous().numpy())

    def state(self, present: Sequence[int]) -> dict[str, dict[str, Any]]:
        """All that was measured of the members that are left, as plain data, in the order of ``present``.

        What was kept of the others is forgotten: it is written when they end, and they have ended.
        """
        state = {}
        for split, blocks in self._blocks.items():
            if not blocks:
                continue
            merged = _Block(
                {member: place for place, member in enumerate(present)},
                [step for one in blocks for step in one.steps],
                [moment for one in blocks for moment in one.times],
                torch.cat([one.figures[:, [one.present[member] for member in present]] for one in blocks]),
            )
            # One block, so that the next time is no longer than this one.
            self._blocks[split] = [merged]
            steps, times = torch.tensor(merged.steps), torch.tensor(merged.times, dtype=torch.float64)
            state[split] = {"steps": steps, "times": times, "figures": merged.figures}
        return state

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what :meth:`state` gave."""
        for split, one in state.items():
            places = dict(enumerate(range(one["figures"].shape[1])))
            self._blocks[split] = [_Block(places, one["steps"].tolist(), one["times"].tolist(), one["figures"])]

    def _add(self, split: str, steps: list[int], figures: Tensor, present: Sequence[int]) -> None:
        places = {member: place for place, member in enumerate(present)}
        self._blocks[split].append(_Block(places, steps, [time.time()] * len(steps), figures))
