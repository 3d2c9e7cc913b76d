"""Dropout masks of a stack: the masks that each member would draw in a single run.

A single run draws from the process's generator, seeded for the run; here each member has its own generator with the
same seed, used in the same order. On the CPU the numbers are the same, so a run in a stack and the single run drop
the same units. Members that would draw the same masks share them.

Shapes: ``K`` members, ``B`` rows, ``H`` hidden units of the widest member.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from mlp_lightning.engines.stacked.stack import Stack


@dataclasses.dataclass
class _Source:
    """One stream of masks and the members that use it."""

    generator: torch.Generator
    units: tuple[int, ...]
    probability: float
    members: list[int]


class StackedDropout:
    """Draws the masks of every dropout layer, step after step.

    Args:
        model: the stack, whose ``dropout`` gives the probabilities.
        seeds: of each member's generator.
        rows: number of training rows of each member; ``None`` if all have as many.
    """

    def __init__(self, model: Stack, seeds: Sequence[int], rows: Sequence[int] | None = None) -> None:
        self._model = model
        sources: dict[tuple[int, tuple[int, ...], float, int], _Source] = {}
        for member, seed in enumerate(seeds):
            rows_of_member = 0 if rows is None else rows[member]
            key = (seed, tuple(model.dropped_units[member]), model.dropout[member], rows_of_member)
            if key not in sources:
                generator = torch.Generator(model.flat_N.device).manual_seed(seed)
                sources[key] = _Source(generator, key[1], key[2], [])
            sources[key].members.append(member)
        self._sources = list(sources.values())

    def masks(self, rows: int, batch_size: int, own_rows: Sequence[int] | None = None) -> list[Tensor]:
        """For each dropout layer the factors of the numbers that it sees, ``(K, B, H)``: 0, or 1 / (1 - probability).

        Args:
            rows: B.
            batch_size: rows that go through the network at once; a larger number of rows goes in parts.
            own_rows: of each member, how many of the rows it would have in a single run; ``None``: all.
        """
        like = self._model.flat_N
        masks = [
            torch.ones(self._model.members, rows, max(units), dtype=like.dtype, device=like.device)
            for units in zip(*self._model.dropped_units, strict=True)
        ]
        for source in self._sources:
            if source.probability == 0:
                continue
            keep = 1 - source.probability
            own = rows if own_rows is None else own_rows[source.members[0]]
            for start in range(0, own, batch_size):
                part = min(batch_size, own - start)
                for mask_KBH, width in zip(masks, source.units, strict=True):
                    drawn = torch.empty(part, width, dtype=like.dtype, device=like.device)
                    drawn.bernoulli_(keep, generator=source.generator).div_(keep)
                    mask_KBH[source.members, start : start + part, :width] = drawn
        return masks

    def states(self) -> list[Tensor]:
        """The state of each member's generator."""
        states: list[Tensor] = [torch.empty(0)] * self._model.members
        for source in self._sources:
            state = source.generator.get_state()
            for member in source.members:
                states[member] = state
        return states

    def load_states(self, states: Sequence[Tensor]) -> None:
        """Restore what :meth:`states` gave for the same members."""
        for source in self._sources:
            source.generator.set_state(states[source.members[0]])

    def select(self, members: Sequence[int], chosen: Stack) -> None:
        """Keep only some of the members, which are now those of ``chosen``."""
        slots = {member: slot for slot, member in enumerate(members)}
        self._model = chosen
        for source in self._sources:
            source.members = [slots[one] for one in source.members if one in slots]
        self._sources = [source for source in self._sources if source.members]
