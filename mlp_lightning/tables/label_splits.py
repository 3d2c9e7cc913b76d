"""Splitting rows that have several labels, so that each label has its share of every part.

Shapes: ``B`` rows, ``L`` labels, ``P`` parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def parts_by_labels(labels_BL: Integers, sizes: Sequence[int], seed: int) -> Integers:
    """The part of each row ``(B,)``, by iterative stratification.

    Algorithm 1 of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011): the
    label with the fewest rows left is dealt first, each row to the part that lacks most of the label, of those to the
    one with most room, of those to any. Beyond the algorithm, a part that is full takes no more, so sizes are exact.

    Which part is next depends on how many rows the parts have and not on which, so the rows of a label are dealt at
    once.

    Args:
        labels_BL: 0 or 1 for each row and label; the rarer one of a label is dealt.
        sizes: rows of each part, as many as there are together.
        seed: of what is drawn.
    """
    rows, draw = len(labels_BL), np.random.default_rng(seed)
    has_BL = labels_BL == (2 * labels_BL.sum(0) <= rows)
    room_P, part_B = np.array(sizes), np.empty(rows, dtype=np.int64)
    lacking_PL = room_P[:, None] * has_BL.sum(0)  # times the number of rows: whole numbers, so that ties are exact
    left = draw.permutation(rows)
    while len(left):
        counts_L = has_BL[left].sum(0)
        if counts_L.any():
            label = np.where(counts_L > 0, counts_L, rows + 1).argmin()
            is_dealt, lacking_P = has_BL[left, label], lacking_PL[:, label]
        else:
            is_dealt, lacking_P = np.ones(len(left), dtype=bool), room_P * rows
        dealt, left = left[is_dealt], left[~is_dealt]
        part_B[dealt] = _dealt(len(dealt), lacking_P, room_P, rows, draw)
        for part in range(len(sizes)):
            of_part = dealt[part_B[dealt] == part]
            room_P[part] -= len(of_part)
            lacking_PL[part] -= rows * has_BL[of_part].sum(0)
    return part_B


def _dealt(count: int, lacking_P: Integers, room_P: Integers, unit: int, draw: np.random.Generator) -> Integers:
    """The parts of ``count`` rows, one after another, each of which makes a part lack ``unit`` less."""
    taken = np.arange(min(count, room_P.max()))
    room = (room_P[:, None] - taken).ravel()
    lacking = (lacking_P[:, None] - unit * taken).ravel()
    order = np.lexsort((np.repeat(draw.permutation(len(room_P)), len(taken)), -room, -lacking))
    return (order // len(taken))[room[order] > 0][:count]
