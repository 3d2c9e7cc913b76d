"""Pictures of curves: arrays in, a figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlp_lightning.inference.evaluation.curves import PrecisionRecallCurve, Reliability, RocCurve
from mlp_lightning.inference.evaluation.figure import empty_figure, shortened
from mlp_lightning.runs.drawing import figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHANCE = {"color": "0.5", "linestyle": "--", "linewidth": 1}


def roc_figure(curves: Sequence[RocCurve], title: str) -> Figure:
    """ROC curves, with the diagonal of a prediction that does not look at the features."""
    with figure_style():
        figure = empty_figure(6.4, 5.6)
        axes = _axes(figure, title, "false positive rate", "true positive rate")
        axes.plot([0, 1], [0, 1], label="baseline (AUC 0.5)", **_CHANCE)
        for one in curves:
            label = f"{shortened(one.name, 30)} (AUC {one.area:.3f})"
            axes.plot(one.false_positive_rate_P, one.true_positive_rate_P, label=label, linewidth=1.5)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def precision_recall_figure(curves: Sequence[PrecisionRecallCurve], title: str) -> Figure:
    """Precision-recall curves, each with the share of its class: a prediction that does not look at the features."""
    with figure_style():
        figure = empty_figure(6.4, 5.6)
        axes = _axes(figure, title, "recall", "precision")
        for one in curves:
            label = f"{shortened(one.name, 30)} (AP {one.average_precision:.3f}, baseline {one.share:.3f})"
            (line,) = axes.plot(one.recall_P, one.precision_P, label=label, linewidth=1.5, drawstyle="steps-post")
            axes.axhline(one.share, color=line.get_color(), linestyle="--", linewidth=1, alpha=0.7)
        if curves:
            axes.legend(frameon=False, loc="best", fontsize=9)
    return figure


def reliability_figure(before: Sequence[Reliability], after: Sequence[Reliability], title: str) -> Figure:
    """Shares of true predictions by their probability, of the model and at its temperature."""
    with figure_style():
        figure = empty_figure(6.4, 5.6)
        axes = _axes(figure, title, "predicted probability", "share of the rows")
        axes.plot([0, 1], [0, 1], label="calibrated", **_CHANCE)
        for number, one in enumerate(before):
            colour = f"C{number % 10}"
            axes.plot(one.probability_M, one.share_M, "o-", color=colour, markersize=4, label=shortened(one.name, 30))
        for number, one in enumerate(after):
            label = "at the temperature" if number == 0 else None
            axes.plot(one.probability_M, one.share_M, "x:", color=f"C{number % 10}", markersize=5, label=label)
        axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def _axes(figure: Figure, title: str, x: str, y: str) -> Axes:
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11)
    return axes
