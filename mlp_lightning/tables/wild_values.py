"""Single numbers so far from all others of their column that they outweigh the rest.

Shapes: ``B`` rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FAR = 1000  # quartile ranges from the median; a lognormal column (sigma 1) has no such value in 10^12 rows
_FEWEST_VALUES = 20
_MOST_FOR_QUARTILES = 1_000_000


@dataclasses.dataclass
class WildValues:
    """The values of a column that are more than 1000 quartile ranges from the median of its training rows.

    Attributes:
        name: of the column.
        quartiles: the lower one, the median and the upper one of the training rows.
        advice: what to do.
        farthest: the value that is farthest from the median, of those that were looked at.
        row: its row.
        count: how many of those are so far away.
    """

    name: str
    quartiles: tuple[float, float, float]
    advice: str
    farthest: float = np.nan
    row: int = 0
    count: int = 0

    @classmethod
    def of(cls, name: str, values_B: NDArray[np.float64], advice: str) -> WildValues | None:
        """What is far from these training rows; ``None`` if they are too few, or half of them are equal.

        The quartiles of more than a million values are those of every n-th of them.

        Args:
            name: of the column.
            values_B: its numbers in the training rows; NaN where there is none.
            advice: what to do.
        """
        present_B = values_B[~np.isnan(values_B)]
        if len(present_B) < _FEWEST_VALUES:
            return None
        low, median, high = np.percentile(present_B[:: -(-len(present_B) // _MOST_FOR_QUARTILES)], [25, 50, 75])
        return cls(name, (float(low), float(median), float(high)), advice) if high > low else None

    @classmethod
    def of_model(cls, preprocessing: Mapping[str, Any]) -> dict[str, WildValues]:
        """Those that new rows of a trained model are compared with, by column; none of a model of an earlier version.

        Args:
            preprocessing: of the model, as plain data.
        """
        stored = preprocessing.get("quartiles", {})
        return {name: cls(name, (low, median, high), "check the value") for name, (low, median, high) in stored.items()}

    def unseen(self) -> WildValues:
        """The same for other rows."""
        return WildValues(self.name, self.quartiles, self.advice)

    def look_at(self, values_B: NDArray[np.float64], rows_B: NDArray[np.int64] | None = None) -> WildValues:
        """Look at further values of the column, whose rows have these numbers (by default 0, 1, …). Returns itself."""
        low, median, high = self.quartiles
        with np.errstate(over="ignore"):  # of the largest doubles
            distances_B = np.nan_to_num(np.abs(values_B - median), nan=0.0, posinf=np.inf)
            far_B = distances_B > _FAR * (high - low)
            self.count += int(far_B.sum())
            at = int(distances_B.argmax()) if far_B.any() else 0
            if far_B.any() and not distances_B[at] <= abs(self.farthest - median):
                self.farthest, self.row = float(values_B[at]), at if rows_B is None else int(rows_B[at])
        return self

    def note(self, place: Callable[[int], str], split: str = "") -> str | None:
        """A line on them; ``None`` if there are none.

        Args:
            place: where a row is found.
            split: of the rows; empty for those that train.
        """
        if not self.count:
            return None
        others, harm = "other values", "outweighs them"
        if split:
            others, harm = "training rows", f"outweighs the other {split} rows in their metrics"
        return f"{self._far_from(others, place)}, and {harm}: {self.advice}"

    def note_on_new_rows(self, place: Callable[[int], str]) -> str | None:
        """A line on those among the new rows of a trained model; ``None`` if there are none."""
        if not self.count:
            return None
        return f"{self._far_from('training rows', place)}: do not rely on predictions so far out; {self.advice}"

    def _far_from(self, others: str, place: Callable[[int], str]) -> str:
        more = f" (and {self.count - 1:,} more such rows)" if self.count > 1 else ""
        low, _, high = self.quartiles
        return (
            f"{self.name}: {self.farthest:.10g} in {place(self.row)}{more} is far from the {others}, half of which are"
            f" from {low:.4g} to {high:.4g}"
        )
