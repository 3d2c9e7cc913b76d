"""Shapley values as tables, as a picture and in the record of an explanation.

Shapes: ``B`` rows, ``F`` columns, ``C`` outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlp_lightning.inference.evaluation.figure import empty_figure, shortened
from mlp_lightning.inference.explanation.dependence import label
from mlp_lightning.inference.explanation.shapley import ShapleyValues
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.runs.drawing import figure_style
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import MISSING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPLEY_FILES = "shapley.csv", "shapley_values.csv", "shapley.png"
_MOST_COLUMNS, _MOST_OUTPUTS = 20, 4


def summary_rows(values: ShapleyValues, outputs: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each column and output, the column of the largest mean size first."""
    means_FC, deviations_FC, errors_FC = values.summary()
    return [
        {
            "column": values.columns[f].name,
            "kind": values.columns[f].kind,
            "output": output,
            "mean_abs": float(means_FC[f, c]),
            "sd_abs": float(deviations_FC[f, c]),
            "error": float(errors_FC[f, c]),
        }
        for f in values.order()
        for c, output in enumerate(outputs)
    ]


def summary_table(values: ShapleyValues, outputs: Sequence[str]) -> pa.Table:
    """The same as a table."""
    return pa.Table.from_pylist(summary_rows(values, outputs))


def values_table(values: ShapleyValues, outputs: Sequence[str]) -> pa.Table:
    """A row for each explained row, output and column; ``row`` is its number in its table, from 1."""
    order = values.order()
    found = [
        {
            "row": int(values.numbers_B[b]) + 1,
            "output": output,
            "column": values.columns[f].name,
            "value": label(values.columns[f], values.raw_BF[b, f]),
            "shapley": float(values.values_BFC[b, f, c]),
            "error": float(values.errors_BFC[b, f, c]),
        }
        for b in range(len(values.raw_BF))
        for c, output in enumerate(outputs)
        for f in order
    ]
    schema = [("row", pa.int64()), ("output", pa.string()), ("column", pa.string()), ("value", pa.string())]
    return pa.Table.from_pylist(found, pa.schema([*schema, ("shapley", pa.float64()), ("error", pa.float64())]))


def shapley_record(values: ShapleyValues, outputs: Sequence[str]) -> dict[str, Any]:
    """What ``explanation.json`` has of them."""
    return {
        "rows": len(values.raw_BF),
        "base": dict(zip(outputs, values.base_C.tolist(), strict=True)),
        "columns": summary_rows(values, outputs),
    }


def shapley_figure(values: ShapleyValues, outputs: Sequence[tuple[int, str]], title: str) -> Figure:
    """A panel for each output, up to four; in it a line of dots, one per row, for each of the first 20 columns.

    Args:
        values: to draw.
        outputs: the numbers of the outputs to show, and their names.
        title: the heading.
    """
    order, shown = values.order()[:_MOST_COLUMNS], outputs[:_MOST_OUTPUTS]
    if len(order) < len(values.columns):
        title = f"{title}\nthe first {len(order)} of {len(values.columns)} columns"
    if len(shown) < len(outputs):
        title = f"{title}\nthe first {len(shown)} of {len(outputs)} outputs"
    with figure_style():
        figure = empty_figure(2.6 + 3.7 * len(shown), 1.8 + 0.35 * len(order))
        panels = list(figure.subplots(1, len(shown), squeeze=False, sharey=True).flat)
        dots: Any = None
        for axes, (output, name) in zip(panels, shown, strict=True):
            axes.axvline(0, color="0.3", linewidth=0.8)
            for place, f in enumerate(order):
                added_B, heights_B = values.values_BFC[:, f, output], _shares(values.columns[f], values.raw_BF[:, f])
                known_B = ~np.isnan(heights_B)
                apart_B = place + _apart(added_B)
                axes.plot(added_B[~known_B], apart_B[~known_B], "x", color="0.5", markersize=3, zorder=1.5)
                at = added_B[known_B], apart_B[known_B]
                dots = axes.scatter(*at, c=heights_B[known_B], cmap="coolwarm", vmin=0, vmax=1, s=9, linewidths=0)
            axes.set_xlabel(f"added to {shortened(name, 30)}")
            axes.locator_params(axis="x", nbins=5)
        panels[0].set_yticks(np.arange(len(order)), [shortened(values.columns[f].name, 40) for f in order])
        panels[0].set_ylim(len(order) - 0.4, -0.6)
        bar = figure.colorbar(dots, ax=panels[-1], ticks=[0, 1])
        bar.ax.set_yticklabels(["lowest", "highest"])
        bar.set_label("value (x: missing)")
        figure.suptitle(title, fontsize=11)
    return figure


def _shares(column: Column, raw_B: Floats) -> Floats:
    """From 0 for the least value (or first category) to 1, by their ranks; 0.5 if all are the same, NaN if missing."""
    raw_B = np.where(raw_B == MISSING, np.nan, raw_B) if column.kind == "categorical" else raw_B
    found, places_B = np.unique(raw_B[~np.isnan(raw_B)], return_inverse=True)
    shares_B = np.full(len(raw_B), np.nan)
    shares_B[~np.isnan(raw_B)] = places_B / (len(found) - 1) if len(found) > 1 else 0.5
    return shares_B


def _apart(added_B: Floats) -> Floats:
    """How far up or down dots go, so that those with nearly the same place show: a quarter of a line at most."""
    apart_B = np.zeros(len(added_B))
    low, high = added_B.min(), added_B.max()
    bins_B = np.round((added_B - low) / (high - low or 1) * 60).astype(int)
    for one in np.unique(bins_B):
        here = np.flatnonzero(bins_B == one)
        apart_B[here] = (np.arange(len(here)) - (len(here) - 1) / 2) * min(0.06, 0.5 / len(here))
    return apart_B
