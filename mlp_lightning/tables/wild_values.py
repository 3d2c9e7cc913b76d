"""Single numbers so far from all others of their column that they outweigh the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_FAR = 1000  # quartile ranges from the median; a lognormal column (sigma 1) has no such value in 10^12 rows
_FEWEST_VALUES = 20
_MOST_FOR_QUARTILES = 1_000_000


def wild_value_note(name: str, values_B: NDArray[np.float64], place: Callable[[int], str], advice: str) -> str | None:
    """A line on the value of a column that is more than 1000 quartile ranges from its median; None if there is none.

    The quartiles of more than a million values are those of every n-th of them.

    Args:
        name: of the column.
        values_B: its numbers ``(B,)``; NaN where there is none.
        place: where a row of ``values_B`` is found.
        advice: what to do.
    """
    present_B = values_B[~np.isnan(values_B)]
    if len(present_B) < _FEWEST_VALUES:
        return None
    low, median, high = np.percentile(present_B[:: -(-len(present_B) // _MOST_FOR_QUARTILES)], [25, 50, 75]).tolist()
    with np.errstate(over="ignore"):  # of the largest doubles
        if high - low <= 0 or max(present_B.max() - median, median - present_B.min()) <= _FAR * (high - low):
            return None
        distances_B = np.abs(values_B - median)
        farthest, count = int(np.nanargmax(distances_B)), int((distances_B > _FAR * (high - low)).sum())
    more = f" (and {count - 1:,} more such rows)" if count > 1 else ""
    return (
        f"{name}: {values_B[farthest]:.10g} in {place(farthest)}{more} is far from the other values, half of which are"
        f" from {low:.4g} to {high:.4g}, and outweighs them: {advice}"
    )
