"""Scales, ticks and colour norms of the leaderboard's figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlp_lightning.sweeps.leaderboard.table import shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Normalize

MAX_TICKS = 16


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def scale_of(values: Sequence[float], evenly: bool = False) -> str:
    """``log`` for positive values over more than a decade, ``symlog`` if 0 is among them, else ``linear``.

    Args:
        values: finite ones.
        evenly: ``linear`` unless ``log`` spreads the values more evenly.
    """
    positive = [value for value in values if value > 0]
    if not positive or min(values) < 0 or max(positive) <= 10 * min(positive):
        return "linear"
    if min(values) == 0:
        return "linear" if evenly else "symlog"
    low, middle, high = min(values), statistics.median(values), max(values)
    in_log = math.log(middle / low) / math.log(high / low)
    in_linear = (middle - low) / (high - low)
    return "linear" if evenly and abs(in_linear - 0.5) < abs(in_log - 0.5) else "log"


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest value, extended if they are equal."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05)


def norm_of(values: Sequence[float]) -> Normalize:
    """Maps the range of the finite ``values`` to 0 … 1."""
    from matplotlib.colors import LogNorm, Normalize

    usable = finite(values)
    return (LogNorm if scale_of(usable) == "log" else Normalize)(*limits(usable))


def set_scale(axes: Axes, which: str, values: Sequence[float], scale: str = "", ticks_at_values: bool = False) -> None:
    """Set the scale of the axis ``which``, x or y (by default from ``values``), with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis: Axis = getattr(axes, f"{which}axis")
    scale, (low, high) = scale or scale_of(values), limits(values)
    options = {"linthresh": min(value for value in values if value > 0)} if scale == "symlog" else {}
    getattr(axes, f"set_{which}scale")(scale, **options)
    if scale == "log":
        # Values below 0, as in a band of ± sd, cannot be shown here and must not decide the limits.
        margin = (high / low) ** 0.06
        axes.set(**{f"{which}lim": (low / margin, high * margin)})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < (1e2 if which == "x" else 1e4) else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    distinct = sorted(set(values))
    if ticks_at_values and len(distinct) <= MAX_TICKS:
        axis.set_ticks(_apart(distinct, scale))


def _apart(values: Sequence[float], scale: str) -> list[float]:
    """Those of the sorted ``values`` whose labels do not overlap; includes the last."""
    heights = [math.log(value) if scale == "log" else value for value in values]
    if scale == "symlog":
        heights = list(map(float, range(len(values))))
    kept = [len(values) - 1]
    for index in reversed(range(len(values) - 1)):
        if heights[kept[-1]] - heights[index] >= 0.07 * (heights[-1] - heights[0]):
            kept.append(index)
    return [values[index] for index in reversed(kept)]


def set_category_ticks(axis: Axis, values: Sequence[Any]) -> None:
    """Label 0, 1, 2, … with the values; of many values only every second, third, …"""
    step = math.ceil(len(values) / MAX_TICKS)
    named = range(0, len(values), step)
    texts = [tick_text(values[index]) for index in named]
    crowded = axis is axis.axes.xaxis and len(texts) * (max(map(len, texts)) + 2) > 80
    axis.set_ticks(
        list(named), texts, **({"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {})
    )


def tick_text(value: Any) -> str:
    """The label of a value at an axis, shortened to at most 24 characters."""
    text = f"{value:.4g}" if isinstance(value, float) else shown_value(value)
    return text if len(text) <= 24 else f"{text[:11]}…{text[-12:]}"
