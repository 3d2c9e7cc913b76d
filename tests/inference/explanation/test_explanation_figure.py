"""The content of the pictures of an explanation, read from matplotlib's objects."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Rectangle

from mlp_lightning.inference.explanation.figure import Curve, importance_figure, partial_dependence_figure
from mlp_lightning.runs.drawing import png_bytes


def ticks(axis) -> list[str]:
    return [one.get_text() for one in axis.get_ticklabels()]


def test_importances() -> None:
    values = np.array([[3.0, 5.0], [1.0, 1.5], [-0.5, 0.5]])
    scores = [("increase of the loss", values), ("decrease of the accuracy", values / 10)]
    figure = importance_figure(["a", "b$x$", "c" * 90], scores, "20 test rows")
    assert png_bytes(figure) == png_bytes(importance_figure(["a", "b$x$", "c" * 90], scores, "20 test rows"))
    left, right = figure.axes
    for axes, (name, of), unit in ((left, scores[0], 1), (right, scores[1], 10)):
        assert axes.get_xlabel() == name
        np.testing.assert_allclose(
            [one.get_bbox().width for one in axes.patches if isinstance(one, Rectangle)], of.mean(1)
        )
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_xdata()), (values / unit).ravel())
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata()), [0, 0, 1, 1, 2, 2])
    assert ticks(left.yaxis)[:2] == ["a", "b$x$"]
    assert len(ticks(left.yaxis)[2]) == 40
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first is at the top


def test_of_many_columns_the_first_are_shown_and_the_title_says_so() -> None:
    figure = importance_figure([f"x{one}" for one in range(50)], [("loss", np.zeros((50, 2)))], "rows")
    assert figure.get_suptitle() == "rows\nthe first 30 of 50 columns"
    assert ticks(figure.axes[0].yaxis) == [f"x{one}" for one in range(30)]


def curve(kind: str, grid, labels, outputs: int = 1) -> Curve:
    random = np.random.default_rng(len(labels))
    curves_IGC = random.normal(size=(5, len(labels), outputs))
    return Curve(f"a {kind}", kind, np.array(grid, dtype=float), labels, curves_IGC.mean(0), curves_IGC)


def test_every_kind_of_column() -> None:
    curves = [
        curve("numeric", [1, 2, 4, np.nan], ["1", "2", "4", None]),
        curve("categorical", [2, 3, 0], ["red", "blue", None]),
        curve("boolean", [0, 1], ["False", "True"]),
        curve("datetime", [0, 86_400 * 900, 86_400 * 2_000], ["1970-01-01", "1972-06-19", "1975-06-24"]),
        curve("numeric", [np.nan], [None]),
    ]
    figure = partial_dependence_figure(curves, [(0, "predicted_y")], "rows")
    assert png_bytes(figure)
    numeric, categorical, boolean, moments, gaps, empty = figure.axes
    assert not empty.axison
    *of_rows, mean, rug, missing = numeric.lines
    np.testing.assert_array_equal(np.array([one.get_ydata() for one in of_rows]), curves[0].curves_IGC[:, :3, 0])
    np.testing.assert_array_equal(mean.get_xydata(), np.stack([[1, 2, 4], curves[0].mean_GC[:3, 0]], 1))
    np.testing.assert_array_equal(rug.get_xdata(), [1, 2, 4])
    assert set(np.asarray(missing.get_ydata())) == {curves[0].mean_GC[3, 0]}
    assert ticks(categorical.xaxis) == ["red", "blue", "missing"]
    assert numeric.get_xscale() == "linear"
    assert ticks(boolean.xaxis) == ["False", "True"]
    np.testing.assert_array_equal(categorical.lines[1].get_ydata(), curves[1].mean_GC[:, 0])
    np.testing.assert_array_equal(np.sort(categorical.lines[0].get_ydata()), np.sort(curves[1].curves_IGC.ravel()))
    assert any(one.startswith("197") for one in ticks(moments.xaxis))
    assert len(gaps.lines) == 1
    assert len({axes.get_ylim() for axes in figure.axes[:-1]}) == 1
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["a numeric", "a categorical"]


def test_numbers_of_many_orders_are_drawn_by_their_logarithms() -> None:
    grids = [[0.1, 3, 50], [0.1, 3, 5], [-1, 3, 500], [0, 3, 500]]
    curves = [curve("numeric", one, ["a", "b", "c"]) for one in grids]
    figure = partial_dependence_figure(curves, [(0, "predicted_y")], "rows")
    assert png_bytes(figure)
    assert [axes.get_xscale() for axes in figure.axes[:4]] == ["log", "linear", "linear", "linear"]


def test_a_panel_for_every_column_and_output() -> None:
    curves = [curve("numeric", [1, 2], ["1", "2"], 6), curve("boolean", [0, 1], ["False", "True"], 6)]
    outputs = [(one, f"probability_{one}") for one in range(6)]
    figure = partial_dependence_figure(curves, outputs, "rows")
    assert figure.get_suptitle() == "rows\nthe first 4 of 6 outputs"
    assert [axes.get_ylabel() for axes in figure.axes] == [f"probability_{one}" for one in range(4)] * 2
    assert [axes.get_xlabel() for axes in figure.axes] == ["a numeric"] * 4 + ["a boolean"] * 4
    mean = figure.axes[2].lines[5]
    np.testing.assert_array_equal(mean.get_ydata(), curves[0].mean_GC[:, 2])
    # Of two classes the second alone.
    only = partial_dependence_figure(curves, outputs[1:2], "rows")
    assert [axes.get_ylabel() for axes in only.axes] == ["probability_1", "probability_1"]
