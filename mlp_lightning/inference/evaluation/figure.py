"""Pictures of an evaluation: confusion matrices of classes, predictions and residuals of numbers.

Drawn without pyplot, which keeps state for a whole process; matplotlib is imported when a figure is drawn.
Shapes: ``B`` rows, ``C`` classes, ``T`` targets per row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.runs.drawing import figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlp_lightning.tables.targets import TargetColumn

# Light for few, dark for many; one hue, so that colour-blind readers see the same.
_COLOUR_MAP = "Blues"
_DARK = 0.72  # from here on white has more contrast to the colour than black
_MOST_CLASSES_WITH_NUMBERS = 20
_MOST_CLASS_NAMES = 60
_MOST_OUTPUTS = 4
_MOST_MATRICES = 9
_MOST_POINTS = 20_000
_POINTS, _LINE = "tab:blue", "tab:orange"


def confusion_figure(matrices: Sequence[NDArray[np.int64]], targets: Sequence[TargetColumn], title: str) -> Figure:
    """The confusion matrix of each target, up to nine, as a map: true classes down, predicted ones across.

    The colour is the share of the true class's rows, so that a rare class is as readable as a frequent one. Up to 20
    classes the cells hold their rows; for more the colour grows with the root of the share, so that rare mistakes
    show. A class without rows is grey.

    Args:
        matrices: of each target: rows of class i that were predicted as class j, ``(C, C)``.
        targets: with all their classes; long names are shortened.
        title: the heading.
    """
    shown = min(len(targets), _MOST_MATRICES)
    most = max(len(one.classes) for one in targets[:shown])
    size, across = min(max(3.2, 0.6 * most), 10), math.ceil(math.sqrt(shown))
    down = math.ceil(shown / across)
    if shown < len(targets):
        title = f"{title}\nthe first {shown} of {len(targets)} targets"
    with figure_style():
        figure = empty_figure(size * across + 2.6, size * down + 1.4)
        places: list[Axes] = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, matrix_CC, target in zip(places[:shown], matrices, targets, strict=False):
            _draw_confusion(axes, matrix_CC, target.class_names, colour_bar=axes is places[shown - 1])
            if len(targets) > 1:
                axes.set_title(shortened(target.name, 40), fontsize=10)
        for axes in places[shown:]:
            axes.set_axis_off()
        figure.suptitle(title, fontsize=11)
    return figure


def residual_figure(
    targets_BT: NDArray[np.float64], predictions_BT: NDArray[np.float64], names: Sequence[str], title: str
) -> Figure:
    """For every target, up to four: predictions against true values, and how the residuals are spread.

    Above 20,000 rows the points become a map of their density. Rows whose numbers are not finite are left out.
    The title names what is left out or summarised.

    Args:
        targets_BT: the true values.
        predictions_BT: of the model.
        names: of the targets; long ones are shortened.
        title: the heading.
    """
    assert targets_BT.shape == predictions_BT.shape == (len(targets_BT), len(names)), "a column for every name"
    shown = min(len(names), _MOST_OUTPUTS)
    finite_B = (np.isfinite(targets_BT) & np.isfinite(predictions_BT)).all(axis=1)
    targets_BT, predictions_BT = targets_BT[finite_B], predictions_BT[finite_B]
    about = []
    if len(targets_BT) > _MOST_POINTS:
        about.append(f"density of {len(targets_BT):,} rows")
    if shown < len(names):
        about.append(f"the first {shown} of {len(names)} outputs")
    if left_out := int((~finite_B).sum()):
        about.append(f"{left_out:,} row{'s' if left_out > 1 else ''} without finite numbers left out")
    with figure_style():
        figure = empty_figure(9.6, 0.6 + 4.1 * shown)
        figure.suptitle("\n".join(filter(None, [title, "; ".join(about)])), fontsize=11)
        for output, (left, right) in enumerate(figure.subplots(shown, 2, squeeze=False)):
            left.set_title(shortened(names[output], 50), fontsize=10)
            if len(targets_BT):
                _draw_predictions(left, targets_BT[:, output], predictions_BT[:, output])
                _draw_residuals(right, targets_BT[:, output] - predictions_BT[:, output])
            else:
                left.text(0.5, 0.5, "no row", ha="center", va="center", transform=left.transAxes)
                left.set_axis_off()
                right.set_axis_off()
    return figure


# ---- parts of the pictures -----------------------------------------------------------------------------------


def _draw_confusion(
    axes: Axes, matrix_CC: NDArray[np.int64], class_names: Sequence[str], colour_bar: bool = True
) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(class_names)
    assert matrix_CC.shape == (classes, classes), "a row and a column for every class"
    axes.grid(False)
    axes.set_facecolor("0.9")
    totals_C1 = matrix_CC.sum(axis=1, keepdims=True)
    share_CC = np.divide(matrix_CC, totals_C1, out=np.full(matrix_CC.shape, np.nan), where=totals_C1 > 0)
    with_numbers = classes <= _MOST_CLASSES_WITH_NUMBERS
    # Mistakes spread over many classes are small shares; without numbers they show by their colour or not at all.
    norm = PowerNorm(1 if with_numbers else 0.5, 0, 1)
    image = axes.imshow(share_CC, cmap=_COLOUR_MAP, norm=norm, interpolation="nearest")
    if colour_bar:
        assert isinstance(axes.figure, Figure)
        ticks = [0, 0.2, 0.4, 0.6, 0.8, 1] if with_numbers else [0, 0.01, 0.05, 0.2, 0.5, 1]
        bar = axes.figure.colorbar(image, ax=axes.figure.axes, label="share of the true class", shrink=0.8, aspect=30)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
    if with_numbers:
        _write_counts(axes, matrix_CC, share_CC)
    _name_classes(axes, class_names)
    axes.set(xlabel="predicted class", ylabel="true class")


def _write_counts(axes: Axes, matrix_CC: NDArray[np.int64], share_CC: NDArray[np.float64]) -> None:
    """Write the rows into the cells: black on light, white on dark, nothing for 0."""
    size = 10 if len(matrix_CC) <= 5 else 9 if len(matrix_CC) <= 10 else 7
    for row, column in np.argwhere(matrix_CC):
        count = int(matrix_CC[row, column])
        colour = "white" if share_CC[row, column] > _DARK else "black"
        axes.text(column, row, _count_text(count), ha="center", va="center", color=colour, fontsize=size)


def _count_text(count: int) -> str:
    """A number of rows in at most six characters, e.g. ``12,345`` and ``1.23M``."""
    if count < 100_000:
        return f"{count:,}"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    raise AssertionError(count)


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    classes = len(class_names)
    step = math.ceil(classes / _MOST_CLASS_NAMES)
    positions = range(0, classes, step)
    names = [shortened(class_names[index], 24 if classes <= _MOST_CLASSES_WITH_NUMBERS else 18) for index in positions]
    size = 10 if classes <= 10 else 9 if classes <= _MOST_CLASSES_WITH_NUMBERS else 7
    crowded = classes > _MOST_CLASSES_WITH_NUMBERS or max(map(len, names)) > 6
    slanted = {"rotation": 90 if classes > 10 else 40, "ha": "right", "rotation_mode": "anchor"}
    if classes > 10:
        slanted["va"] = "center"
    axes.set_yticks(positions, names, fontsize=size)
    axes.set_xticks(positions, names, fontsize=size, **(slanted if crowded else {}))


def _draw_predictions(axes: Axes, targets_B: NDArray[np.float64], predictions_B: NDArray[np.float64]) -> None:
    low, high = _limits(np.concatenate([targets_B, predictions_B]))
    axes.axline((low, low), (high, high), color=_LINE, linewidth=1.5, label="predicted = true", zorder=3)
    if len(targets_B) > _MOST_POINTS:
        _draw_density(axes, targets_B, predictions_B, (low, high, low, high))
    else:
        size, alpha = (4, 0.6) if len(targets_B) <= 500 else (2.5, 0.3)
        axes.plot(targets_B, predictions_B, "o", markersize=size, alpha=alpha, markeredgewidth=0, color=_POINTS)
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1, xlabel="true", ylabel="predicted")
    axes.locator_params(nbins=6)
    axes.legend(frameon=False, loc="upper left")


def _draw_density(
    axes: Axes,
    targets_B: NDArray[np.float64],
    predictions_B: NDArray[np.float64],
    extent: tuple[float, float, float, float],
) -> None:
    """The density of the rows, on a logarithmic scale."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    image = axes.hexbin(targets_B, predictions_B, gridsize=60, extent=extent, bins="log", mincnt=1, linewidths=0.2)
    assert isinstance(axes.figure, Figure)
    bar = axes.figure.colorbar(image, ax=axes, label="rows", shrink=0.6, aspect=30)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    bar.ax.minorticks_off()


def _draw_residuals(axes: Axes, residuals_B: NDArray[np.float64]) -> None:
    # An odd number, so that equal residuals are in the middle.
    bins = min(max(math.isqrt(len(residuals_B)), 10), 60) | 1
    axes.hist(residuals_B, bins, range=_limits(residuals_B), color=_POINTS, alpha=0.8)
    axes.axvline(0, color=_LINE, linewidth=1.5)
    axes.set(xlabel="residual (true - predicted)", ylabel="rows")
    axes.locator_params(nbins=6)
    axes.set_title(f"mean {residuals_B.mean():.4g}, sd {residuals_B.std():.4g}", fontsize=10)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Smallest and largest value with a margin, and far enough apart for ticks and bins between them."""
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high))
    margin = 0.03 * (high - low) if high - low > 1e-9 * largest else 0.05 * (largest or 1)
    return low - margin, high + margin


def shortened(name: str, most: int) -> str:
    """A name in one line of at most ``most`` characters: its beginning and its end, which distinguish it."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: (most - 1) // 2]}…{name[-(most // 2) :]}"


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure
