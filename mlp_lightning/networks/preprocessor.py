"""The fixed part of a model of a table: raw numbers of the columns in, features of the network out.

Shapes: ``B`` rows, ``F`` columns, ``N`` numeric columns among them, ``Q`` knots, ``P`` output features.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlp_lightning.tables.columns import CYCLES, Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN

# No scaled number is further from 0 than this, even for rows far from the training rows, so logits stay finite.
LIMITS = {"standard": 1e4, "robust": 3.0, "quantile": 10.0, "none": 1e15}
SCALINGS = tuple(LIMITS)
_KNOTS = 65


class Preprocessor(nn.Module):
    """Scales numbers, fills gaps, and spreads categories and dates over features; it is not trained.

    The features, in this order: scaled numbers (numeric columns, then truth values, then moments), sines and cosines
    of dates, indicators of missing values, one-hot categories, and the codes of the columns with a learned embedding.

    - ``standard``: mean 0 and deviation 1.
    - ``robust``: median 0, quartile range 1, then ``x / sqrt(1 + (x/3)²)``, which no outlier brings above 3 (Holzmüller
      et al., "Better by default", 2024, section 3).
    - ``quantile``: to normal scores, linearly between the quantiles of the training rows.
    - ``none``: unchanged.

    A missing number is replaced by the median; if training rows had missing values, an indicator marks it. Of a column
    whose training rows have one value and gaps, only the indicator counts (unless with ``none``). Everything
    is computed in double precision, which keeps small differences of large numbers (years, coordinates).

    Args:
        columns: what the raw columns are.
        scaling: ``standard``, ``robust``, ``quantile`` or ``none``.
    """

    median_N: Tensor
    center_N: Tensor
    scale_N: Tensor
    knots_QN: Tensor

    def __init__(self, columns: Sequence[Column], scaling: str = "standard") -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.scaling = scaling
        by_index = dict(enumerate(self.columns))
        by_kind = {
            kind: [i for i, one in by_index.items() if one.kind == kind] for kind in ("numeric", "boolean", "datetime")
        }
        self._numbers = [i for of_kind in by_kind.values() for i in of_kind]
        #: How many of the first features are scaled numbers, which can be embedded.
        self.numeric_features = len(self._numbers)
        self._indicators = [n for n, i in enumerate(self._numbers) if columns[i].missing]
        self._cycles = [
            (self._numbers.index(i), 2 * np.pi / CYCLES[part]) for i in by_kind["datetime"] for part in columns[i].parts
        ]
        self._one_hot = [(i, code) for i, one in by_index.items() if one.encoding == "one_hot" for code in _codes(one)]
        self._embedded = [i for i, one in by_index.items() if one.encoding == "embedding"]
        #: Number of codes of each column that gets a learned embedding.
        self.cardinalities = [FIRST_CATEGORY + len(columns[i].vocabulary) for i in self._embedded]
        count = len(self._numbers)
        for name, value in (("median_N", 0.0), ("center_N", 0.0), ("scale_N", 1.0)):
            self.register_buffer(name, torch.full((count,), value, dtype=torch.float64))
        knots = _KNOTS if scaling == "quantile" else 0
        self.register_buffer("knots_QN", torch.zeros(knots, count, dtype=torch.float64))
        self._scores_Q = torch.special.ndtri(torch.linspace(0.001, 0.999, _KNOTS, dtype=torch.float64)).tolist()

    @property
    def in_features(self) -> int:
        """F."""
        return len(self.columns)

    @property
    def out_features(self) -> int:
        """P."""
        return (
            len(self._numbers)
            + 2 * len(self._cycles)
            + len(self._indicators)
            + len(self._one_hot)
            + len(self._embedded)
        )

    @property
    def feature_names(self) -> list[str]:
        """A readable name of each feature."""
        names = [self.columns[i].name for i in self._numbers]
        moments = [one for one in self.columns if one.kind == "datetime"]
        cycles = [f"{one.name} ({part}, {wave})" for wave in ("sin", "cos") for one in moments for part in one.parts]
        gaps = [f"{names[n]} missing" for n in self._indicators]
        values = [_category(self.columns[i], code) for i, code in self._one_hot]
        return [*names, *cycles, *gaps, *values, *(self.columns[i].name for i in self._embedded)]

    def plan(self) -> dict[str, Any]:
        """Which columns become which features, as plain data: what :meth:`forward` does beside scaling."""
        return {
            "numbers": self._numbers,
            "cycles": self._cycles,
            "indicators": self._indicators,
            "one_hot": self._one_hot,
            "embedded": [[i, MISSING if self.columns[i].missing else UNKNOWN] for i in self._embedded],
            "knots": list(self.knots_QN.shape),
            "scores": self._scores_Q if self.scaling == "quantile" else [],
        }

    def forward(self, raw_BF: Tensor) -> Tensor:
        """Features ``(B, P)`` in double precision of raw columns ``(B, F)``, which :mod:`.encoding` describes."""
        raw_BF = raw_BF.to(self.center_N.device, torch.float64)
        numbers_BN = raw_BF[:, self._numbers]
        absent_BN = torch.isnan(numbers_BN)
        filled_BN = torch.where(absent_BN, self.median_N, numbers_BN)
        parts = [self._scaled(filled_BN)]
        if self._cycles:
            moments_BN = numbers_BN[:, [n for n, _ in self._cycles]]
            phases_BN = moments_BN * raw_BF.new_tensor([rate for _, rate in self._cycles])
            # Not nan_to_num: its bounds are doubles that ONNX's exporter does not have.
            for waves_BN in (torch.sin(phases_BN), torch.cos(phases_BN)):
                parts.append(torch.where(torch.isnan(waves_BN), 0.0, waves_BN))
        if self._indicators:
            parts.append(absent_BN[:, self._indicators].double())
        if self._one_hot:
            codes_B = raw_BF[:, [i for i, _ in self._one_hot]]
            parts.append((codes_B == raw_BF.new_tensor([float(code) for _, code in self._one_hot])).double())
        if self._embedded:
            # A gap in a column whose training rows have none is an unknown category: no embedding of it was learned.
            least = raw_BF.new_tensor([MISSING if self.columns[i].missing else UNKNOWN for i in self._embedded])
            parts.append(torch.maximum(raw_BF[:, self._embedded], least))
        return torch.cat(parts, dim=1)

    def _scaled(self, numbers_BN: Tensor) -> Tensor:
        limit = LIMITS[self.scaling]
        if self.scaling == "quantile":
            return self._normal_scores(numbers_BN)
        scaled_BN = (numbers_BN - self.center_N) / self.scale_N
        if self.scaling == "robust":
            scaled_BN = scaled_BN.clamp(-1e15, 1e15)  # whose square is still a number
            return scaled_BN / torch.sqrt(1 + (scaled_BN / limit) ** 2)
        return scaled_BN.clamp(-limit, limit)

    def _normal_scores(self, numbers_BN: Tensor) -> Tensor:
        # Piece by piece and not by a search: pieces take no memory, and every export format supports them.
        # As tensors: ONNX's exporter would round plain numbers to single precision, the least width to 0.
        scores_Q, least = numbers_BN.new_tensor(self._scores_Q), numbers_BN.new_tensor(1e-300)
        scores_BN, steps_Q = scores_Q[0].expand_as(numbers_BN), scores_Q.diff()
        # Halved, so that a difference of huge numbers is finite. Equal knots are a jump.
        halves_BN, halves_QN = numbers_BN / 2, self.knots_QN / 2
        widths_QN = torch.maximum(halves_QN.diff(dim=0), least)
        for q in range(_KNOTS - 1):
            share_BN = ((halves_BN - halves_QN[q]) / widths_QN[q]).clamp(0, 1)
            scores_BN = scores_BN + share_BN * steps_Q[q]
        return scores_BN

    def fit(
        self, raw_numbers: Callable[[Column], NDArray[np.float64]], weights_B: NDArray[np.float64] | None = None
    ) -> None:
        """Take the statistics of the training rows.

        Args:
            raw_numbers: gives the raw numbers of a column in the training rows, ``(B,)``; called column by column.
            weights_B: how much each of these rows counts; a row of weight 2 counts as two rows. ``None``: all the
                same.
        """
        for n, i in enumerate(self._numbers):
            raw_B = raw_numbers(self.columns[i])
            counted_B = ~np.isnan(raw_B) if weights_B is None else ~np.isnan(raw_B) & (weights_B > 0)
            present_B = raw_B[counted_B]
            counts_B = None if weights_B is None else weights_B[counted_B]
            if not len(present_B):
                continue
            median, center, scale = _statistics(present_B, counts_B, self.scaling, self.columns[i].kind)
            self.median_N[n], self.center_N[n], self.scale_N[n] = median, center, scale
            if self.scaling != "none" and self.columns[i].missing and present_B.min() == present_B.max():
                # Only the gaps say something: no weight is learned of equal numbers, and a weight of chance must not
                # decide what another number means.
                self.center_N[n], self.scale_N[n] = median, torch.inf
                if self.scaling == "quantile":
                    self.knots_QN[:, n] = torch.linspace(-1, 1, _KNOTS, dtype=torch.float64) * sys.float_info.max
            elif self.scaling == "quantile":
                self.knots_QN[:, n] = torch.from_numpy(_quantiles(present_B, counts_B, np.linspace(0, 1, _KNOTS))[0])

    def to_dict(self) -> dict[str, Any]:
        """The arguments of :meth:`from_dict`, without the statistics, which are buffers."""
        return {"columns": [one.to_dict() for one in self.columns], "scaling": self.scaling}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Preprocessor:
        return cls([Column.from_dict(one) for one in plain["columns"]], plain["scaling"])

    def _apply(self, fn: Any, recurse: bool = True) -> Preprocessor:
        """Stay in double precision when the model is cast, and off devices without it."""
        moved = fn(torch.zeros((), dtype=torch.float32))
        device = moved.device if moved.device.type != "mps" else torch.device("cpu")
        return super()._apply(lambda one: one.to(device), recurse)


def _codes(column: Column) -> list[int]:
    """The codes of categories with a one-hot feature; an unknown category has none."""
    codes = list(range(FIRST_CATEGORY, FIRST_CATEGORY + len(column.vocabulary)))
    return [MISSING, *codes] if column.missing else codes


def _category(column: Column, code: int) -> str:
    value = "missing" if code == MISSING else column.vocabulary[code - FIRST_CATEGORY]
    return f"{column.name} = {value}"


def _statistics(
    values_B: NDArray[np.float64], weights_B: NDArray[np.float64] | None, scaling: str, kind: str
) -> tuple[float, float, float]:
    """Median, center and scale of the numbers of a column."""
    if kind == "boolean":
        return 0.5, 0.5, 0.5
    # In units of the largest number, so that sums and squares of huge or tiny ones stay finite.
    unit = float(np.abs(values_B).max())
    if unit == 0 or not np.isfinite(1 / unit):
        return 0.0, 0.0, 1.0
    values_B = values_B / unit
    shares = [0.25, 0.5, 0.75] if scaling == "robust" else [0.5, 0.5, 0.5]
    low, median, high = np.mean(_quantiles(values_B, weights_B, np.array(shares)), axis=0).tolist()
    if scaling == "none":
        return median * unit, 0.0, 1.0
    center = float(np.average(values_B, weights=weights_B))
    scale = float(np.sqrt(np.average(np.square(values_B - center), weights=weights_B)))
    if scaling == "robust":
        spread = high - low
        if spread == 0:  # half of the rows are equal
            spread = float(np.ptp(values_B)) / 2
        center, scale = median, spread
    # The deviation of equal numbers may not be exactly 0, because of rounding.
    scale = min(scale * unit, sys.float_info.max) if scale > 1e-14 and scale * unit > 0 else 1.0
    return median * unit, center * unit, scale


def _quantiles(
    values_B: NDArray[np.float64], weights_B: NDArray[np.float64] | None, shares_Q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The least and the greatest number that splits the values at each share, ``(2, Q)``.

    They differ where a share falls between two values. A value of weight 2 counts as two equal values.
    """
    if weights_B is None:
        # Rounding must not move a share off the border of two values.
        wanted_Q, last = shares_Q * len(values_B), len(values_B) - 1
        least_Q = np.clip(np.ceil(wanted_Q - 1e-12 * len(values_B)) - 1, 0, last).astype(np.int64)
        greatest_Q = np.clip(np.floor(wanted_Q + 1e-12 * len(values_B)), 0, last).astype(np.int64)
        indices = np.stack([least_Q, greatest_Q])
        return np.partition(values_B, np.unique(indices))[indices]
    order_B = np.argsort(values_B, kind="stable")
    ordered_B = values_B[order_B]
    below_B = np.cumsum(weights_B[order_B])
    wanted_Q = shares_Q * below_B[-1]
    slack = 1e-12 * below_B[-1]  # the rounding of sums of weights
    last = len(values_B) - 1
    least_Q = np.minimum(np.searchsorted(below_B, wanted_Q - slack, side="left"), last)
    greatest_Q = np.minimum(np.searchsorted(below_B, wanted_Q + slack, side="right"), last)
    return ordered_B[np.stack([least_Q, greatest_Q])]
