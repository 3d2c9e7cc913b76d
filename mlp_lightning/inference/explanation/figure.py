"""Pictures of an explanation: the importance of columns, and what is predicted over the values of one.

Drawn without pyplot, which keeps state for a whole process; matplotlib is imported when a figure is drawn.
Shapes: ``N`` columns of a table, ``R`` repeats, ``G`` values of a grid, ``I`` rows, ``C`` outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_lightning.inference.evaluation.figure import empty_figure, shortened
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.runs.drawing import figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLUMNS = 30
_MOST_OUTPUTS = 4
# Numbers above 0 over so many orders are drawn by their logarithms; the small ones would lie on each other.
_RANGE_OF_LOGARITHMS = 100
_POINTS, _LINE = "tab:blue", "tab:orange"


@dataclasses.dataclass(frozen=True)
class Curve:
    """What is predicted over the values of one column.

    Attributes:
        name: of the column.
        kind: ``categorical`` and ``boolean``: one point per label; ``numeric``; ``datetime``: seconds since 1970.
        grid_G: the values of numbers and moments; NaN, at the end, for a missing one.
        labels: the values as texts; ``None`` for a missing one.
        mean_GC: of all rows.
        curves_IGC: of single rows.
    """

    name: str
    kind: str
    grid_G: Floats
    labels: Sequence[str | None]
    mean_GC: Floats
    curves_IGC: Floats


def importance_figure(
    names: Sequence[str], scores: Sequence[tuple[str, Floats]], title: str, most: int = _MOST_COLUMNS
) -> Figure:
    """The importance of each column, from the top: the mean of its repeats as a bar, each repeat as a dot.

    Args:
        names: of the columns; long ones are shortened.
        scores: what is measured, and its values of every column and repeat, ``(N, R)``: one panel for each.
        title: the heading.
        most: columns to show, the first ones.
    """
    shown = min(len(names), most)
    if shown < len(names):
        title = f"{title}\nthe first {shown} of {len(names)} columns"
    with figure_style():
        figure = empty_figure(2.2 + 3.7 * len(scores), 1.5 + 0.3 * shown)
        panels: list[Axes] = list(figure.subplots(1, len(scores), squeeze=False, sharey=True).flat)
        for axes, (label, values_NR) in zip(panels, scores, strict=True):
            assert len(values_NR) == len(names), "a row for every column"
            places = np.arange(shown)
            axes.barh(places, values_NR[:shown].mean(axis=1), color=_POINTS, alpha=0.35, height=0.7)
            dots_NR = np.broadcast_to(places[:, None], values_NR[:shown].shape)
            axes.plot(values_NR[:shown].ravel(), dots_NR.ravel(), "o", markersize=2.5, color=_POINTS, alpha=0.7)
            axes.axvline(0, color="0.3", linewidth=0.8)
            axes.set_xlabel(label)
            axes.locator_params(axis="x", nbins=5)
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(np.arange(shown), [shortened(one, 40) for one in names[:shown]])
        panels[0].set_ylim(shown - 0.4, -0.6)
        figure.suptitle(title, fontsize=11)
    return figure


def partial_dependence_figure(curves: Sequence[Curve], outputs: Sequence[tuple[int, str]], title: str) -> Figure:
    """A panel for every column and output, up to four outputs: the mean in front of the curves of single rows.

    All panels of an output have the same scale, so that its columns can be compared.

    Args:
        curves: of each column.
        outputs: the numbers of the outputs to show, and their names.
        title: the heading.
    """
    shown = outputs[:_MOST_OUTPUTS]
    if len(shown) < len(outputs):
        title = f"{title}\nthe first {len(shown)} of {len(outputs)} outputs"
    columns = len(shown) if len(shown) > 1 else min(3, len(curves))
    rows = -(-len(curves) * len(shown) // columns)
    with figure_style():
        figure = empty_figure(max(3.3 * columns, 5), 0.7 + 2.9 * rows)
        panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
        pairs = [(curve, output, name) for curve in curves for output, name in shown]
        for axes, (curve, output, name) in zip(panels, pairs, strict=False):
            _draw_curve(axes, curve, output)
            axes.set_xlabel(shortened(curve.name, 40))
            axes.set_ylabel(shortened(name, 30))
            axes.set_ylim(*_range(curves, output))
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
        figure.suptitle(title, fontsize=11)
    return figure


def _range(curves: Sequence[Curve], output: int) -> tuple[float, float]:
    """From the lowest to the highest prediction, with a margin."""
    found = np.concatenate([one.curves_IGC[..., output].ravel() for one in curves])
    found = np.concatenate([found, *(one.mean_GC[:, output] for one in curves)])
    low, high = float(found.min()), float(found.max())
    margin = 0.04 * (high - low) if high - low > 1e-9 * max(abs(low), abs(high)) else 0.05 * (abs(high) or 1)
    return low - margin, high + margin


def _draw_curve(axes: Axes, curve: Curve, output: int) -> None:
    mean_G, curves_IG = curve.mean_GC[:, output], curve.curves_IGC[..., output]
    if curve.kind in ("categorical", "boolean"):
        _draw_points(axes, mean_G, curves_IG, ["missing" if one is None else one for one in curve.labels])
        return
    known_G = ~np.isnan(curve.grid_G)
    numbers_G = curve.grid_G[known_G]
    across: Any = numbers_G
    if curve.kind == "datetime":
        across = np.round(numbers_G * 1e6).astype("datetime64[us]")
    if len(numbers_G):
        axes.plot(across, curves_IG[:, known_G].T, color=_POINTS, alpha=0.2, linewidth=0.7)
        axes.plot(across, mean_G[known_G], color=_LINE, linewidth=2.2, marker="o" if len(numbers_G) < 3 else None)
        # Where the rows are: the values of the grid are quantiles.
        axes.plot(across, np.zeros(len(numbers_G)), "|", color="0.3", transform=axes.get_xaxis_transform(), zorder=3)
    if not known_G.all():
        axes.axhline(mean_G[~known_G][0], color=_LINE, linewidth=1.2, linestyle=":", label="missing")
        axes.legend(frameon=False, fontsize=8, loc="best")
    if curve.kind == "datetime":
        axes.tick_params(axis="x", rotation=30, labelsize=8)
    elif len(numbers_G) and 0 < _RANGE_OF_LOGARITHMS * numbers_G[0] < numbers_G[-1]:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=5)


def _draw_points(axes: Axes, mean_G: Floats, curves_IG: Floats, labels: Sequence[str]) -> None:
    places_G = np.arange(len(labels))
    # Beside each other, so that rows with equal predictions show.
    apart_I = np.linspace(-0.2, 0.2, len(curves_IG)) if len(curves_IG) > 1 else np.zeros(len(curves_IG))
    across_IG = places_G + apart_I[:, None]
    axes.plot(across_IG.ravel(), curves_IG.ravel(), "o", markersize=2, alpha=0.3, color=_POINTS, markeredgewidth=0)
    axes.plot(places_G, mean_G, "D", color=_LINE, markersize=6 if len(labels) <= 12 else 4)
    rotation = 90 if len(labels) > 6 else 60 if len(labels) > 4 or max(map(len, labels)) > 8 else 0
    size = 8 if len(labels) <= 12 else 5.5
    axes.set_xticks(places_G, [shortened(one, 16) for one in labels], fontsize=size, rotation=rotation)
    axes.set_xlim(-0.5, len(labels) - 0.5)
