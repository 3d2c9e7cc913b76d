"""The curves of a run, as ``metrics.csv`` has them: read, as a picture, and as characters for a terminal."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.console import SPLIT_NAMES
from mlp_lightning.runs.drawing import figure_style
from mlp_lightning.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Points of one curve: steps and values.
Points = Sequence[tuple[float, float]]
# A loss whose greatest value is so many times its least is shown on a logarithmic axis.
_LOGARITHMIC = 30.0
# The dots of a braille character, by column and row (Unicode 16.0, block U+2800).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800


def curve_steps(folder: Path, text: str | None = None) -> Iterator[dict[str, Any]]:
    """What a run has logged: for each step its number, and the metrics by name, ``None`` where there is none.

    Args:
        folder: of the run.
        text: of ``metrics.csv``, of a run without a folder.

    Yields:
        Nothing of a run without ``metrics.csv`` (``logger.csv=false``).
    """
    path = RunFolder(folder).metrics
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RunFolderError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    elif not text:
        return
    with io.StringIO(text, newline="") as file:
        for row in csv.DictReader(file):
            try:
                step = int(row.pop("step"))
                yield {"step": step, **{name: float(text) if text else None for name, text in row.items()}}
            except (TypeError, ValueError):
                continue  # the last line of a killed run may be cut short


def history_of(folder: Path) -> Any:
    """The curves of a run as a data frame: of pandas if it is installed, else of pyarrow.

    Raises:
        RunFolderError: nothing was logged.
    """
    import pyarrow as pa

    rows = list(curve_steps(folder))
    if not rows:
        raise nothing_logged(folder)
    table = pa.table({name: [row.get(name) for row in rows] for name in rows[0]})
    return table if importlib.util.find_spec("pandas") is None else table.to_pandas()


def nothing_logged(folder: Path) -> RunFolderError:
    """The error of a run without curves."""
    return RunFolderError(f"{folder} has no metrics.csv: the run logged none (logger.csv=false), or it is gone.")


def charts_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """The points of each curve, by metric and split; values that are not finite are left out."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            metric, _, split = name.partition("/")
            if split in SPLIT_NAMES and value is not None and math.isfinite(value):
                charts.setdefault(metric, {}).setdefault(split, []).append((row["step"], value))
    return {metric: dict(curves) for metric, curves in charts.items()}


def is_logarithmic(metric: str, curves: Mapping[str, Points]) -> bool:
    """Whether the values of a chart are better seen on a logarithmic axis."""
    values = [value for points in curves.values() for _, value in points]
    return metric == "loss" and min(values) > 0 and max(values) / min(values) > _LOGARITHMIC


def draw_curves(charts: Mapping[str, Mapping[str, Points]], title: str = "") -> Figure:
    """One chart for each metric, with a curve for each split; a single point is drawn as one.

    Args:
        charts: see :func:`charts_of`.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(5 * max(1, len(charts)), 3.2), layout="constrained")
        for number, (metric, curves) in enumerate(charts.items(), start=1):
            axes = figure.add_subplot(1, len(charts), number)
            for split, points in curves.items():
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, label=SPLIT_NAMES[split], marker="o" if len(points) == 1 else "")
            axes.set_yscale("log" if is_logarithmic(metric, curves) else "linear")
            axes.set_xlabel("step")
            axes.set_title(metric)
            axes.legend()
        if title:
            figure.suptitle(title)
    return figure


def chart_lines(
    metric: str, curves: Mapping[str, Points], width: int, height: int, unicode: bool = True
) -> list[list[tuple[str, str]]]:
    """One chart as characters.

    Args:
        metric: its name.
        curves: its points, by split.
        width: of the plot without its axis, in characters.
        height: likewise.
        unicode: whether braille characters can be shown; else every split is drawn with its first letter.

    Returns:
        Lines, each a list of pieces: the split that a piece belongs to (empty for axes) and its text.
    """
    logarithmic = is_logarithmic(metric, curves)
    scaled = {
        split: [(step, math.log10(value) if logarithmic else value) for step, value in points]
        for split, points in curves.items()
    }
    every = [point for points in scaled.values() for point in points]
    left, right = min(step for step, _ in every), max(step for step, _ in every)
    low, high = min(value for _, value in every), max(value for _, value in every)
    cells: dict[tuple[int, int], tuple[str, int]] = {}
    for split, points in scaled.items():
        for step, value in _joined(points, 2 * width):
            column = round((step - left) / ((right - left) or 1) * (2 * width - 1))
            row = round((high - value) / ((high - low) or 1) * (4 * height - 1))
            place = row // 4, column // 2
            before = cells.get(place, ("", 0))[1]
            cells[place] = split, before | _DOTS[column % 2][row % 4]
    ends = [f"{10**value if logarithmic else value:.4g}" for value in (high, low)]
    margin = max(map(len, ends))
    lines: list[list[tuple[str, str]]] = [[("", f"{metric}{' (logarithmic)' * logarithmic}")]]
    for row in range(height):
        label = ends[0] if row == 0 else ends[1] if row == height - 1 else ""
        line = [("", f"{label:>{margin}} |")]
        for column in range(width):
            split, dots = cells.get((row, column), ("", 0))
            line.append((split, " " if not dots else chr(_BRAILLE + dots) if unicode else split[0]))
        lines.append(line)
    first, last = f"{left:g}", f"step {right:g}"
    lines.append([("", " " * (margin + 2) + first + last.rjust(width - len(first)))])
    return lines


def _joined(points: Points, count: int) -> Points:
    """The points, and so many more on the lines between them."""
    steps, values = zip(*sorted(points), strict=True)
    between = np.linspace(steps[0], steps[-1], count)
    return [*points, *zip(between.tolist(), np.interp(between, steps, values).tolist(), strict=True)]
