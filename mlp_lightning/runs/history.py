"""The metrics of all members of a training, step by step.

Shapes: ``K`` members, ``M`` members asked for, ``S`` logged steps.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.engines.protocol import Trace


@dataclasses.dataclass(frozen=True)
class Series:
    """Metrics of some members over the same steps.

    Attributes:
        steps: ``(S,)``.
        wall_times: ``(S,)``, seconds since 1970 when they were measured.
        values: ``(M, S, metrics)``: loss and metric, and for training steps the learning rate.
    """

    steps: NDArray[np.int64]
    wall_times: NDArray[np.float64]
    values: NDArray[np.float64]

    def of(self, index: int, until_failure: bool = False) -> Series:
        """The metrics of one member, up to the first that is not finite if it failed."""
        values = self.values[index : index + 1]
        count = len(self.steps)
        if until_failure:
            finite_S = np.isfinite(values[0]).all(-1)
            count = count if finite_S.all() else int((~finite_S).argmax())
        return Series(self.steps[:count], self.wall_times[:count], values[:, :count])


@dataclasses.dataclass
class _Block:
    slots: Mapping[int, int]  # number of a member -> its slot
    steps: list[int]
    times: list[float]  # of every step, seconds since 1970
    measure: Callable[[], Tensor]

    @property
    def values(self) -> Tensor:
        """``(S, K, metrics)``; worked out when they are asked for, not between two steps."""
        return self.measure()


class MetricsHistory:
    """Keeps what was measured, until the members that it belongs to have ended."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[_Block]] = {"train": [], "val": []}
        self._forgotten = {"train": 0, "val": 0}
        self._slots: Mapping[int, int] = {}
        self._members: Sequence[int] = ()

    def add_training(self, trace: Trace, members: Sequence[int]) -> None:
        """Keep the logged steps of a trace; ``members`` are the numbers of those in its slots."""
        if trace.logged_steps:
            self._add("train", trace.logged_steps, trace.measure, members)

    def add_validation(self, step: int, metrics: Sequence[Sequence[float]], members: Sequence[int]) -> None:
        """Keep loss and metric of a validation after ``step`` steps, each one value per slot."""
        if len(members) == 1:  # a tensor takes longer to make than a validation of a few rows
            self._add("val", [step], lambda: _validation(metrics), members)
        else:  # and a list of numbers more memory
            values = _validation(metrics)
            self._add("val", [step], lambda: values, members)

    def rows(self, split: str) -> int:
        """How many steps have been measured so far."""
        return self._forgotten[split] + sum(len(one.steps) for one in self._blocks[split])

    def series(self, split: str, members: Sequence[int], start: int = 0) -> Series:
        """Metrics from row ``start`` on, of members that have been there since then."""
        width = 3 if split == "train" else 2
        start -= self._forgotten[split]
        blocks = []
        for one in self._blocks[split]:
            if start < len(one.steps):
                skip = max(start, 0)
                blocks.append(_Block(one.slots, one.steps[skip:], one.times[skip:], _after(one, skip)))
            start -= len(one.steps)
        steps = np.array([step for one in blocks for step in one.steps], dtype=np.int64)
        times = np.array([moment for one in blocks for moment in one.times], dtype=np.float64)
        if not blocks:
            return Series(steps, times, np.empty((len(members), 0, width)))
        parts = [one.values[:, [one.slots[member] for member in members]] for one in blocks]
        return Series(steps, times, torch.cat(parts).transpose(0, 1).contiguous().numpy())

    def forget(self) -> None:
        """Drop what was measured so far: it has been written."""
        for split in self._blocks:
            self._forgotten[split] = self.rows(split)
            self._blocks[split] = []

    def state(self, members: Sequence[int], repeated: int | None = None) -> dict[str, dict[str, Any]]:
        """All that was measured of the members that are left, as plain data, in their order.

        What was kept of the others is dropped: it was written when they ended.

        Args:
            members: their numbers.
            repeated: a step whose validation is left out.
        """
        state = {}
        for split, blocks in self._blocks.items():
            if not blocks:
                continue
            values = torch.cat([one.values[:, [one.slots[member] for member in members]] for one in blocks])
            merged = _merged(blocks, members, values)
            # One block, so that the next time is no longer than this one.
            self._blocks[split] = [merged]
            steps, times = torch.tensor(merged.steps), torch.tensor(merged.times, dtype=torch.float64)
            kept = slice(None) if repeated is None or split != "val" else steps != repeated
            state[split] = {"steps": steps[kept], "times": times[kept], "values": values[kept]}
        return state

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what :meth:`state` gave."""
        for split, one in state.items():
            slots = dict(enumerate(range(one["values"].shape[1])))
            values = one["values"]
            block = _Block(slots, one["steps"].tolist(), one["times"].tolist(), lambda values=values: values)
            self._blocks[split] = [block]

    def _add(self, split: str, steps: list[int], measure: Callable[[], Tensor], members: Sequence[int]) -> None:
        if self._members is not members:  # one list as long as no member is left out
            self._members = members
            self._slots = {member: slot for slot, member in enumerate(members)}
        self._blocks[split].append(_Block(self._slots, steps, [time.time()] * len(steps), measure))


def _validation(metrics: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(metrics, dtype=torch.float64).transpose(0, 1)[None]


def _after(block: _Block, skip: int) -> Callable[[], Tensor]:
    return block.measure if skip == 0 else lambda: block.values[skip:]


def _merged(blocks: Sequence[_Block], members: Sequence[int], values: Tensor) -> _Block:
    steps = [step for one in blocks for step in one.steps]
    times = [moment for one in blocks for moment in one.times]
    return _Block({member: slot for slot, member in enumerate(members)}, steps, times, lambda: values)
