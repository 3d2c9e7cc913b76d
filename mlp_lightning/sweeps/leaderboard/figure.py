"""``leaderboard.png``: a sweep in one figure.

It depends on the number of swept keys other than ``seed``: none, the runs side by side; one, training and validation
loss against it; two, a map of the ranking metric; more, parallel coordinates. Drawn without pyplot, which keeps
global state; matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_lightning.runs.drawing import figure_style
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, Line
from mlp_lightning.sweeps.leaderboard.scales import (
    MAX_TICKS,
    finite,
    heights_of,
    is_number,
    limits,
    nice_ticks,
    norm_of,
    scale_of,
    set_category_ticks,
    set_scale,
    tick_text,
)
from mlp_lightning.sweeps.leaderboard.table import metric_title, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

PNG_NAME = "leaderboard.png"
EVENT_TAG = "leaderboard"
_EVENT_SUFFIX = ".leaderboard"
_COLOURS = {"loss/train": "tab:blue", "loss/val": "tab:orange"}
_COLOUR_MAP = "viridis"  # dark is low, which is good
_GREY = (0.8, 0.8, 0.8, 1.0)
_MAX_CELLS_WITH_NUMBERS = 100
_MAX_POINTS_IN_A_STRIP = 100


def draw_leaderboard(leaderboard: Leaderboard) -> Figure:
    """Draw a leaderboard; without finished runs the figure only states that.

    Metrics that are not finite are omitted or marked, and counted in the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = leaderboard.line_keys
    with figure_style():
        figure = Figure(figsize=(8 if len(keys) < 5 else min(1.6 * len(keys), 20), 5), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes: Axes = figure.subplots()
        if reason := _reason_for_no_plot(leaderboard):
            axes.set_axis_off()
            axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=14)
            return figure
        if not keys:
            _draw_runs(axes, leaderboard)
        elif len(keys) == 1:
            _draw_against_key(axes, leaderboard)
        elif len(keys) == 2:
            _draw_map(axes, leaderboard)
        else:
            _draw_parallel(axes, leaderboard)
        axes.set_title(_title(leaderboard), loc="left", fontsize=10, pad=10)
    return figure


def write_png(folder: Path, png: bytes) -> Path:
    """Write ``leaderboard.png`` atomically."""
    path = folder / PNG_NAME
    with atomic_write(path) as file:
        file.write(png)
    return path


def write_image_event(folder: Path, png: bytes) -> Path:
    """Add the figure to TensorBoard's Images tab, under the run of ``folder``.

    The event file of an earlier figure is replaced by one with a new name: TensorBoard only reads what is appended to
    a known file, and would not notice that it was replaced.

    Returns:
        The event file, which contains only this image.
    """
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    # protobuf creates its classes at import, so type checkers do not see them.
    events: Any = event_pb2
    summaries: Any = summary_pb2
    # A PNG file starts with a signature and the header of the first chunk, 16 bytes; then width and height.
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    image = summaries.Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    summary = summaries.Summary(value=[summaries.Summary.Value(tag=EVENT_TAG, image=image)])
    now = time.time()
    earlier = list(folder.glob(f"events.out.tfevents.*{_EVENT_SUFFIX}"))
    path = folder / f"events.out.tfevents.{time.time_ns():020d}{_EVENT_SUFFIX}"
    with atomic_write(path) as file:
        writer = RecordWriter(file)
        for content in ({"file_version": "brain.Event:2"}, {"summary": summary}):
            writer.write(events.Event(wall_time=now, **content).SerializeToString())
    for one in earlier:
        one.unlink(missing_ok=True)
    return path


# ---- kinds of figures ----------------------------------------------------------------------------------------


def _draw_runs(axes: Axes, leaderboard: Leaderboard) -> None:
    """Training and validation loss of all runs: points beside their mean ± sd; for many runs a histogram."""
    names = _losses(leaderboard)
    values = {name: finite(_all_values(leaderboard, name)) for name in names}
    together = [one for some in values.values() for one in some]
    if len(leaderboard.finished) > _MAX_POINTS_IN_A_STRIP:
        for name in names:
            spread = leaderboard.lines[0].metrics[name]
            label = f"{_split(name)}: {spread.mean:.3g} ± {spread.sd or 0:.2g}"
            axes.hist(values[name], 30, range=limits(together), alpha=0.6, color=_COLOURS[name], label=label)
        axes.set_xlabel("loss")
        axes.set_ylabel("runs")
        axes.legend(frameon=False)
        return
    for position, name in enumerate(names):
        count = len(values[name])
        # Side by side in the order of their ranks, so that equal losses do not overlap.
        around = [position + 0.4 * ((index + 0.5) / count - 0.5) for index in range(count)]
        axes.plot(around, values[name], "o", alpha=0.6, markersize=5, color=_COLOURS[name])
        spread = leaderboard.lines[0].metrics[name]
        if spread.sd is not None and math.isfinite(spread.sd):
            axes.errorbar(position + 0.3, spread.mean, spread.sd, fmt="D", capsize=4, color="black", markersize=5)
    axes.set_xticks(range(len(names)), [_split(name) for name in names])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("loss")
    set_scale(axes, "y", together)


def _draw_against_key(axes: Axes, leaderboard: Leaderboard) -> None:
    """Training and validation loss against the one key: lines with a band of ± sd, or points with error bars."""
    (key,) = leaderboard.line_keys
    values = _ordered(leaderboard, key)
    numeric = all(map(is_number, values))
    position = {shown_value(value): float(value) if numeric else index for index, value in enumerate(values)}
    lines = sorted(leaderboard.lines, key=lambda line: position[shown_value(line.values[key])])
    x = [position[shown_value(line.values[key])] for line in lines]
    if numeric:
        set_scale(axes, "x", x, ticks_at_values=True)
    else:
        set_category_ticks(axes.xaxis, values)
        axes.set_xlim(-0.6, len(values) - 0.4)
    names = _losses(leaderboard)
    for index, name in enumerate(names):
        beside = 0.0 if numeric else 0.16 * (index - (len(names) - 1) / 2)
        _draw_loss(axes, name, [one + beside for one in x], lines, connected=numeric)
    set_scale(axes, "y", finite([one for name in names for one in _all_values(leaderboard, name)]))
    axes.set_xlabel(key)
    axes.set_ylabel("loss")
    axes.legend(frameon=False)


def _draw_loss(axes: Axes, name: str, x: Sequence[float], lines: Sequence[Line], connected: bool) -> None:
    """The means of one loss at ``x``, with ± sd and a dot for every run if there are several per line."""
    colour, label = _COLOURS[name], _split(name)
    spreads = [line.metrics[name] for line in lines]
    mean = [one.mean if math.isfinite(one.mean) else math.nan for one in spreads]
    sd = [one.sd if one.sd is not None and math.isfinite(one.sd) else 0.0 for one in spreads]
    has_spread = any(one.count > 1 for one in spreads)
    if connected:
        axes.plot(x, mean, "o-", color=colour, label=label, markersize=5)
    else:
        bars = {"yerr": sd, "capsize": 4} if has_spread else {}
        axes.errorbar(x, mean, fmt="o", color=colour, label=label, **bars)
    if not has_spread:
        return
    if connected:
        low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    at = [position for position, line in zip(x, lines, strict=True) for _ in line.runs]
    runs = [run.metrics.get(name, math.nan) for line in lines for run in line.runs]
    axes.scatter(at, runs, s=10, color=colour, alpha=0.35, linewidth=0)


def _draw_map(axes: Axes, leaderboard: Leaderboard) -> None:
    """The ranking metric over two keys: a heat map, or a scatter plot if the values do not form a grid."""
    key_x, key_y = leaderboard.line_keys
    values_x, values_y = _ordered(leaderboard, key_x), _ordered(leaderboard, key_y)
    norm = norm_of([_mean(leaderboard, line) for line in leaderboard.lines])
    numeric = all(map(is_number, [*values_x, *values_y]))
    if numeric and len(leaderboard.lines) < 0.3 * len(values_x) * len(values_y):
        image = _scatter(axes, leaderboard, norm)
    else:
        image = _heat_map(axes, leaderboard, values_x, values_y, norm)
    axes.set_xlabel(key_x)
    axes.set_ylabel(key_y)
    _colour_bar(axes, leaderboard, image, norm)


def _scatter(axes: Axes, leaderboard: Leaderboard, norm: Normalize) -> Any:
    key_x, key_y = leaderboard.line_keys
    # The best last, so that it is drawn on top.
    lines = [line for line in reversed(leaderboard.lines) if math.isfinite(_mean(leaderboard, line))]
    x, y = ([float(line.values[key]) for line in lines] for key in (key_x, key_y))
    means = [_mean(leaderboard, line) for line in lines]
    set_scale(axes, "x", x, scale_of(x, evenly=True))
    set_scale(axes, "y", y, scale_of(y, evenly=True))
    image = axes.scatter(x, y, c=means, cmap=_COLOUR_MAP, norm=norm, s=30)
    axes.scatter(x[-1:], y[-1:], s=110, facecolors="none", edgecolors="tab:red", linewidths=2)
    return image


def _heat_map(
    axes: Axes, leaderboard: Leaderboard, values_x: Sequence[Any], values_y: Sequence[Any], norm: Normalize
) -> Any:
    import numpy
    from matplotlib.patches import Rectangle

    columns, rows = ({shown_value(one): i for i, one in enumerate(values)} for values in (values_x, values_y))
    key_x, key_y = leaderboard.line_keys
    cells = {
        (columns[shown_value(line.values[key_x])], rows[shown_value(line.values[key_y])]): _mean(leaderboard, line)
        for line in leaderboard.lines
    }
    table = numpy.full((len(rows), len(columns)), numpy.nan)
    for (column, row), mean in cells.items():
        table[row, column] = mean if math.isfinite(mean) else numpy.nan
    axes.set_facecolor("0.9")  # combinations without a finite value
    axes.grid(False)
    image = axes.imshow(table, aspect="auto", origin="lower", cmap=_COLOUR_MAP, norm=norm, interpolation="nearest")
    if table.size <= _MAX_CELLS_WITH_NUMBERS:
        for (column, row), mean in cells.items():
            dark = math.isfinite(mean) and norm(mean) < 0.6
            axes.text(column, row, f"{mean:.3g}", ha="center", va="center", color="white" if dark else "black")
    column, row = next(iter(cells))
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="tab:red", linewidth=2.5, zorder=3))
    set_category_ticks(axes.xaxis, values_x)
    set_category_ticks(axes.yaxis, values_y)
    return image


def _draw_parallel(axes: Axes, leaderboard: Leaderboard) -> None:
    """One line per combination across an axis per key; it ends in the colour bar, at its metric."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection

    keys = leaderboard.line_keys
    norm = norm_of([_mean(leaderboard, line) for line in leaderboard.lines])
    image = ScalarMappable(norm, _COLOUR_MAP)
    heights = [_heights(axes, index, _ordered(leaderboard, key)) for index, key in enumerate(keys)]
    ends = heights_of(norm, [_mean(leaderboard, line) for line in leaderboard.lines])
    paths = []
    for line, end in zip(leaderboard.lines, ends, strict=True):
        # Lines through one value are side by side in the order of their metrics, so that they do not overlap.
        beside = 0.5 if math.isnan(end) else end - 0.5
        path = [
            (position, height[shown_value(line.values[key])] + band * beside)
            for position, (key, (height, band)) in enumerate(zip(keys, heights, strict=True))
        ]
        paths.append(path if math.isnan(end) else [*path, (len(keys), end)])
    # A line without a finite metric ends before the colour bar, and has no colour.
    colours = [_GREY if math.isnan(end) else colour for end, colour in zip(ends, image.get_cmap()(ends), strict=True)]
    # The best last, so that it is drawn on top, with a white edge.
    width = 0.8 if len(paths) > 50 else 1.5
    axes.add_collection(LineCollection(paths[:0:-1], colors=colours[:0:-1], linewidths=width, alpha=0.5, clip_on=False))
    for colour, width in (("white", 7.0), (colours[0], 4.0)):
        axes.plot(*zip(*paths[0], strict=True), color=colour, linewidth=width, clip_on=False)
    axes.set(xlim=(0, len(keys)), ylim=(0, 1), yticks=[])
    axes.set_xticks(range(len(keys)), [key.replace(".", ".\n") for key in keys])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.vlines(range(len(keys)), 0, 1, color="0.3", linewidth=1)
    _colour_bar(axes, leaderboard, image, norm, pad=0)


def _heights(axes: Axes, index: int, values: Sequence[Any]) -> tuple[dict[str, float], float]:
    """The height, from 0 to 1, of every value of the key at ``index``; also labels its axis.

    A few values are evenly spaced; many numbers are on a scale.

    Returns:
        The heights, and the height of the band for the lines through one value.
    """
    if len(values) <= MAX_TICKS or not all(map(is_number, values)):
        positions = [(index + 0.5) / len(values) for index in range(len(values))]
        band = min(0.1, 0.5 / len(values))
        step = math.ceil(len(values) / MAX_TICKS)
        texts = {positions[at]: tick_text(values[at]) for at in range(0, len(values), step)}
    else:
        norm = norm_of(values, evenly=True)
        positions, band = heights_of(norm, values), 0.0
        ticks = nice_ticks(norm)
        texts = dict(zip(heights_of(norm, ticks), map(tick_text, ticks), strict=True))
    for height, text in texts.items():
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        axes.annotate(text, (index, height), (5, 0), textcoords="offset points", va="center", bbox=box, zorder=4)
    return {shown_value(value): height for value, height in zip(values, positions, strict=True)}, band


# ---- values and texts ----------------------------------------------------------------------------------------


def _ordered(leaderboard: Leaderboard, key: str) -> list[Any]:
    """The values of a key in the lines: numbers by size, then all others in the order of the sweep."""
    by_run = sorted(leaderboard.lines, key=lambda line: min(run.record.sort_key for run in line.runs))
    values = {shown_value(line.values[key]): line.values[key] for line in by_run}
    return sorted(values.values(), key=lambda value: (not is_number(value), value if is_number(value) else 0))


def _mean(leaderboard: Leaderboard, line: Line) -> float:
    return line.metrics[leaderboard.ranked_by].mean


def _losses(leaderboard: Leaderboard) -> list[str]:
    return [name for name in _COLOURS if all(name in line.metrics for line in leaderboard.lines)]


def _split(name: str) -> str:
    return metric_title(name).split()[0]


def _all_values(leaderboard: Leaderboard, name: str) -> list[float]:
    return [run.metrics.get(name, math.nan) for run in leaderboard.finished]


def _colour_bar(axes: Axes, leaderboard: Leaderboard, image: Any, norm: Normalize, **options: Any) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    assert isinstance(axes.figure, Figure)
    bar = axes.figure.colorbar(image, ax=axes, label=metric_title(leaderboard.ranked_by), **options)
    if isinstance(norm, LogNorm):
        set_scale(bar.ax, "y", finite([_mean(leaderboard, line) for line in leaderboard.lines]))
    bar.ax.set_ylim(norm.vmin, norm.vmax)


def _title(leaderboard: Leaderboard) -> str:
    runs = len(leaderboard.finished)
    text = f"{runs:,} run{'s' if runs != 1 else ''}"
    if leaderboard.has_spread:
        text += ", mean ± sd" if len(leaderboard.line_keys) < 2 else ", means over seeds"
    if len(leaderboard.line_keys) > 2:
        text += ", the best in bold"
    elif len(leaderboard.line_keys) == 2:
        text += ", the best framed"
    diverged = sum(not math.isfinite(one) for one in _all_values(leaderboard, leaderboard.ranked_by))
    text += f"; {diverged:,} without a finite loss" if diverged else ""
    return text + (f"; {len(leaderboard.others):,} not finished" if leaderboard.others else "")


def _reason_for_no_plot(leaderboard: Leaderboard) -> str:
    """Why there is nothing to plot; empty if there is something."""
    total = len(leaderboard.finished) + len(leaderboard.others)
    if not leaderboard.finished:
        return f"None of {total:,} runs finished."
    if not any(map(math.isfinite, _all_values(leaderboard, leaderboard.ranked_by))):
        return f"None of {total:,} runs has a finite {metric_title(leaderboard.ranked_by)}."
    if len(leaderboard.line_keys) > 1 and not any(
        math.isfinite(_mean(leaderboard, line)) for line in leaderboard.lines
    ):
        return f"No combination has a finite {metric_title(leaderboard.ranked_by)} for all of its seeds."
    return ""
