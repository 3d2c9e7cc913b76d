"""``leaderboard.png``: a sweep in one figure.

It depends on the number of swept keys other than seeds and folds: none, the runs side by side; one, training and
validation loss against it; two, a map of each of these losses; more, the losses against every key. Drawn without
pyplot, which keeps global state; matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_lightning.runs.drawing import figure_style
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, Line
from mlp_lightning.sweeps.leaderboard.scales import (
    MAX_TICKS,
    finite,
    is_number,
    limits,
    norm_of,
    scale_of,
    set_category_ticks,
    set_scale,
)
from mlp_lightning.sweeps.leaderboard.shown import (
    failed_values,
    is_wide,
    mean_of,
    ordered_values,
    reason_for_no_plot,
    shown_losses,
    split_of,
    title_of,
)
from mlp_lightning.sweeps.leaderboard.table import short_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import FigureBase

PNG_NAME = "leaderboard.png"
EVENT_TAG = "leaderboard"
_EVENT_SUFFIX = ".leaderboard"
_COLOURS = ("tab:blue", "tab:orange")  # of the training loss, and of the one that decides the ranks
_FAILED, _BEST = "tab:red", "tab:red"
_COLOUR_MAP = "viridis"  # dark is low, which is good
_MAX_CELLS_WITH_NUMBERS = 100
_LARGEST_FONT, _SMALLEST_FONT = 10.0, 5.0  # of these numbers, in points
_MAX_POINTS_IN_A_STRIP = 100
_MAX_DATA_SETS = 6
_PANELS_IN_A_ROW = 3


def draw_leaderboards(leaderboards: Sequence[Leaderboard]) -> Any:
    """Draw the leaderboards of one or several data sets, one below the other.

    Metrics that are not finite are omitted or marked, and counted in the title. Without finished runs the figure only
    states that.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = leaderboards[:_MAX_DATA_SETS]
    rows = [max(1, math.ceil(len(one.line_keys) / _PANELS_IN_A_ROW)) for one in shown]
    with figure_style():
        width = 12 if any(is_wide(one) for one in shown) else 8
        heights = [5 if count == 1 else 3.5 * count for count in rows]
        figure = Figure(figsize=(width, sum(heights)), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, one in zip(parts, shown, strict=True):
            _draw(part, one)
        if len(shown) < len(leaderboards):
            parts[-1].supxlabel(f"{len(leaderboards) - len(shown)} more data sets are in leaderboard.csv", fontsize=9)
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


def _draw(figure: FigureBase, leaderboard: Leaderboard) -> None:
    keys = leaderboard.line_keys
    figure.suptitle(title_of(leaderboard), x=0.01, ha="left", fontsize=10)
    if reason := reason_for_no_plot(leaderboard):
        axes = figure.subplots()
        axes.set_axis_off()
        axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=14)
    elif not keys:
        _draw_runs(figure.subplots(), leaderboard)
    elif len(keys) == 1:
        axes = figure.subplots()
        _draw_against(axes, leaderboard, keys[0])
        axes.legend(frameon=False)
    elif len(keys) == 2:
        _draw_maps(figure, leaderboard)
    else:
        _draw_all_keys(figure, leaderboard)


def _draw_runs(axes: Axes, leaderboard: Leaderboard) -> None:
    """The losses of all runs: points, and a line at their mean; for many runs a histogram."""
    names = shown_losses(leaderboard)
    values = {name: finite([run.metrics.get(name, math.nan) for run in leaderboard.finished]) for name in names}
    together = [one for some in values.values() for one in some]
    means = {name: sum(some) / len(some) for name, some in values.items()}
    labels = [f"{split_of(leaderboard, name)}: mean {means[name]:.3g}" for name in names]
    if len(together) == len(names):
        labels = [split_of(leaderboard, name) for name in names]
    if len(leaderboard.finished) > _MAX_POINTS_IN_A_STRIP:
        for name, label, colour in zip(names, labels, _COLOURS, strict=False):
            axes.hist(values[name], 30, range=limits(together), alpha=0.6, color=colour, label=label)
        for name, colour in zip(names, _COLOURS, strict=False):
            _draw_baseline(axes, leaderboard, name, colour, together, is_upright=True)
        axes.set_xlabel("loss")
        axes.set_ylabel("runs")
        axes.legend(frameon=False)
        return
    shown = list(together)
    for position, (name, colour) in enumerate(zip(names, _COLOURS, strict=False)):
        count = len(values[name])
        # Side by side in the order of their ranks, so that equal losses do not overlap.
        around = [position + 0.4 * ((index + 0.5) / count - 0.5) for index in range(count)]
        axes.plot(around, values[name], "o", alpha=0.6, markersize=5, color=colour)
        if count > 1:
            axes.hlines(means[name], position - 0.25, position + 0.25, color="black", linewidth=1)
        shown += _draw_baseline(axes, leaderboard, name, colour, together)
    axes.set_xticks(range(len(names)), labels)
    if leaderboard.baseline:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("loss")
    set_scale(axes, "y", shown)


def _draw_against(axes: Axes, leaderboard: Leaderboard, key: str) -> None:
    """The losses of all runs against a key; the line leads along the means of the best combination at each value.

    For a single key these are all combinations, and the band reaches from the lowest run to the highest.
    """
    values = ordered_values(leaderboard, key)
    numeric = all(map(is_number, values))
    position = {value_text(value): float(value) if numeric else index for index, value in enumerate(values)}
    best: dict[float, Line] = {}
    for line in leaderboard.lines:  # the best first
        if math.isfinite(mean_of(leaderboard, line)):
            best.setdefault(position[value_text(line.values[key])], line)
    losses, drawn = shown_losses(leaderboard), []
    for name, colour in zip(losses, _COLOURS, strict=False):
        at = [position[value_text(line.values[key])] for line in leaderboard.lines for _ in line.runs]
        runs = [run.metrics.get(name, math.nan) for line in leaderboard.lines for run in line.runs]
        axes.scatter(at, runs, s=12, color=colour, alpha=0.35, linewidth=0)
        # Of many values, as in a search, hardly any two runs have the same.
        x = sorted(best) if len(values) <= MAX_TICKS or len(leaderboard.line_keys) == 1 else []
        lines = [best[one] for one in x]
        means = [line.metrics[name].mean for line in lines]
        axes.plot(x, means, "o-" if numeric else "o", color=colour, label=split_of(leaderboard, name), markersize=5)
        if numeric and len(leaderboard.line_keys) == 1 and leaderboard.has_spread:
            of_lines = [finite([run.metrics.get(name, math.nan) for run in line.runs]) for line in lines]
            low, high = ([end(some) for some in of_lines] for end in (min, max))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        drawn += finite(runs)
    baselines = [_draw_baseline(axes, leaderboard, *one, drawn) for one in zip(losses, _COLOURS, strict=False)]
    drawn += [one for some in baselines for one in some]
    failed = [position[value_text(one[key])] for one in failed_values(leaderboard)]
    failed = sorted(set(failed) - {position[value_text(line.values[key])] for line in leaderboard.lines})
    if failed:
        options = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(failed, [0.97] * len(failed), "x", color=_FAILED, label="failed", **options)
    _set_key(axes, key, values, list(position.values()) if numeric else [])
    set_scale(axes, "y", drawn)
    axes.set_ylabel("loss")
    if len(values) <= MAX_TICKS:
        _write_shares(axes, leaderboard, key, position)


def _draw_baseline(
    axes: Axes, leaderboard: Leaderboard, name: str, colour: str, drawn: Sequence[float], is_upright: bool = False
) -> list[float]:
    """A dotted line at the loss of the baseline; one far from all runs, which it would squeeze, is in the legend.

    Returns:
        The loss if there is a line at it.
    """
    if name not in leaderboard.baseline:
        return []
    loss, (low, high) = leaderboard.baseline[name].mean, limits(drawn)
    if scale_of(drawn) == "log" and not is_upright:
        is_near = low / (high / low) ** 0.5 <= loss <= high * (high / low) ** 0.5
    else:
        is_near = low - (high - low) <= loss <= high + (high - low)
    options: dict[str, Any] = {"color": colour, "linestyle": ":"}
    options["label"] = f"{split_of(leaderboard, name)} baseline: {loss:.3g}"
    if not is_near:
        axes.plot([], [], **options)
        return []
    (axes.axvline if is_upright else axes.axhline)(loss, **options)
    return [loss]


def _write_shares(axes: Axes, leaderboard: Leaderboard, key: str, position: Mapping[str, float]) -> None:
    """How many of the runs with each value of a key solved it, above the axes."""
    is_alone = len(leaderboard.line_keys) == 1
    for text, x in position.items():
        share = leaderboard.solved([line for line in leaderboard.lines if value_text(line.values[key]) == text])
        if share is None or not share[1]:
            continue
        said = f"{share[0]} of {share[1]}\nsolved" if is_alone else f"{share[0]} of\n{share[1]}"
        place = {"ha": "center", "va": "bottom", "transform": axes.get_xaxis_transform()}
        axes.text(x, 1.0, said, fontsize=8 if is_alone else 7, **place)


def _set_key(axes: Axes, key: str, values: Sequence[Any], positions: Sequence[float]) -> None:
    """The x axis of a key; without ``positions`` its values are names."""
    axes.set_xlabel(key)
    if positions:
        scale = scale_of(positions, evenly=len(values) > MAX_TICKS)
        set_scale(axes, "x", positions, scale, ticks_at_values=True)
    else:
        set_category_ticks(axes.xaxis, values)
        axes.set_xlim(-0.6, len(values) - 0.4)


def _draw_all_keys(figure: FigureBase, leaderboard: Leaderboard) -> None:
    """The losses against every key, side by side on one scale."""
    keys, best = leaderboard.line_keys, leaderboard.lines[0]
    rows = math.ceil(len(keys) / _PANELS_IN_A_ROW)
    panels = figure.subplots(rows, math.ceil(len(keys) / rows), sharey=True, squeeze=False)
    for axes, key in zip(panels.flat, keys, strict=False):
        _draw_against(axes, leaderboard, key)
        if axes not in panels[:, 0]:
            axes.set_ylabel("")
        # Above the shares.
        pad = 22 if leaderboard.solved(leaderboard.lines) else None
        axes.set_title(f"best: {short_value(best.values[key])}", fontsize=9, color=_BEST, pad=pad)
        values = ordered_values(leaderboard, key)
        names = list(map(value_text, values))
        x = best.values[key] if all(map(is_number, values)) else names.index(value_text(best.values[key]))
        axes.scatter(x, mean_of(leaderboard, best), s=90, facecolors="none", edgecolors=_BEST, linewidths=2, zorder=3)
    for axes in panels.flat[len(keys) :]:
        axes.set_axis_off()
    panels[0, 0].legend(frameon=False, fontsize=8)


def _draw_maps(figure: FigureBase, leaderboard: Leaderboard) -> None:
    """A map of each loss over two keys, on one scale: heat maps, or scatter plots if the values form no grid."""
    names = shown_losses(leaderboard)
    keys = leaderboard.line_keys
    values = [ordered_values(leaderboard, key) for key in keys]
    norm = norm_of([line.metrics[name].mean for line in leaderboard.lines for name in names])
    numeric = all(map(is_number, [one for some in values for one in some]))
    combinations = len(leaderboard.lines) + len(list(failed_values(leaderboard)))
    is_grid = not numeric or combinations >= 0.3 * len(values[0]) * len(values[1])
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    image: Any = None
    for axes, name in zip(panels, names, strict=True):
        image = _heat_map(axes, leaderboard, name, values, norm) if is_grid else _scatter(axes, leaderboard, name, norm)
        base = leaderboard.baseline.get(name)
        axes.set_title(
            f"{split_of(leaderboard, name)} loss" + (f" (baseline {base.mean:.3g})" if base else ""), fontsize=9
        )
        axes.set_xlabel(keys[0])
    panels[0].set_ylabel(keys[1])
    _fit_texts(figure, panels, *map(len, values))
    bar = figure.colorbar(image, ax=list(panels), label="loss")
    if type(norm).__name__ == "LogNorm":
        set_scale(bar.ax, "y", [float(norm.vmin or 0), float(norm.vmax or 0)])
        bar.ax.set_ylim(norm.vmin, norm.vmax)


def _fit_texts(figure: FigureBase, panels: Sequence[Axes], columns: int, rows: int) -> None:
    """Make the texts in the cells of maps as small as the cells; what could not be read is left out."""
    parts = [text.get_text().split("\n") for axes in panels for text in axes.texts]
    longest, most_lines = max(map(len, itertools.chain(*parts)), default=1), max(map(len, parts), default=1)
    # In points, of which margins and the scale take a third; a digit is 0.64 of its size wide, a point half of that.
    width, height = (0.67 * 72 / figure.figure.dpi * one for one in figure.get_window_extent().size)
    size = min(width / (len(panels) * columns * 0.62 * longest), height / (rows * 1.3 * most_lines), _LARGEST_FONT)
    for text in (text for axes in panels for text in axes.texts):
        text.set_fontsize(size)
        text.set_visible(size >= _SMALLEST_FONT)


def _scatter(axes: Axes, leaderboard: Leaderboard, name: str, norm: Normalize) -> Any:
    key_x, key_y = leaderboard.line_keys
    # The best last, so that it is drawn on top.
    lines = [line for line in reversed(leaderboard.lines) if math.isfinite(line.metrics[name].mean)]
    failed = list(failed_values(leaderboard))
    for key, which in ((key_x, "x"), (key_y, "y")):
        drawn = [float(values[key]) for values in (*(line.values for line in lines), *failed)]
        set_scale(axes, which, drawn, scale_of(drawn, evenly=True))
    x, y = ([float(line.values[key]) for line in lines] for key in (key_x, key_y))
    means = [line.metrics[name].mean for line in lines]
    axes.scatter([float(one[key_x]) for one in failed], [float(one[key_y]) for one in failed], marker="x", c=_FAILED)
    image = axes.scatter(x, y, c=means, cmap=_COLOUR_MAP, norm=norm, s=30)
    axes.scatter(x[-1:], y[-1:], s=110, facecolors="none", edgecolors=_BEST, linewidths=2)
    return image


def _heat_map(axes: Axes, leaderboard: Leaderboard, name: str, values: Sequence[Sequence[Any]], norm: Normalize) -> Any:
    import numpy
    from matplotlib.patches import Rectangle

    columns, rows = ({value_text(one): i for i, one in enumerate(some)} for some in values)
    key_x, key_y = leaderboard.line_keys

    def place(of: Mapping[str, Any]) -> tuple[int, int]:
        return columns[value_text(of[key_x])], rows[value_text(of[key_y])]

    table = numpy.full((len(rows), len(columns)), numpy.nan)
    for line in leaderboard.lines:
        column, row = place(line.values)
        mean = line.metrics[name].mean
        table[row, column] = mean if math.isfinite(mean) else numpy.nan
    axes.set_facecolor("0.9")  # combinations that were not made
    axes.grid(False)
    image = axes.imshow(table, aspect="auto", origin="lower", cmap=_COLOUR_MAP, norm=norm, interpolation="nearest")
    has_numbers = table.size <= _MAX_CELLS_WITH_NUMBERS
    for line in leaderboard.lines if has_numbers else ():
        mean, share = line.metrics[name].mean, leaderboard.solved([line])
        dark = math.isfinite(mean) and norm(mean) < 0.6
        text = f"{mean:.3g}"
        if share or line.unfinished:
            text += "\n{} of {}".format(*(share or (len(line.runs), len(line.runs) + line.unfinished)))
        axes.text(*place(line.values), text, ha="center", va="center", color="white" if dark else "black")
    for column, row in {place(one) for one in failed_values(leaderboard)}:
        style = {"fill": False, "hatch": "xxx", "edgecolor": _FAILED, "alpha": 0.4, "linewidth": 0}
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))
        if has_numbers:
            box = {"facecolor": "0.9", "edgecolor": "none", "pad": 1}
            axes.text(column, row, "failed", ha="center", va="center", color=_FAILED, bbox=box)
    column, row = place(leaderboard.lines[0].values)
    style = {"fill": False, "edgecolor": _BEST, "linewidth": 2.5, "zorder": 3, "clip_on": False}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))
    set_category_ticks(axes.xaxis, values[0])
    set_category_ticks(axes.yaxis, values[1])
    return image
