"""The content of the pictures of an evaluation, read from matplotlib's objects."""

from __future__ import annotations

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.image import imread

from mlp_lightning.inference.evaluation.figure import confusion_figure, residual_figure
from mlp_lightning.runs.drawing import png_bytes
from mlp_lightning.tables.targets import TargetColumn


def confusion(matrix_CC, class_names, title=""):
    """The picture of one target."""
    return confusion_figure([matrix_CC], [TargetColumn("y", "string", tuple(class_names))], title)


def drawn(figure):
    """The axes of the picture, after it was drawn: ticks are made then."""
    png_bytes(figure)
    return figure.axes


def texts(axes) -> dict[tuple[int, int], str]:
    """Row and column of every cell with a text."""
    return {(int(one.get_position()[1]), int(one.get_position()[0])): one.get_text() for one in axes.texts}


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def inside(figure) -> bool:
    """Whether nothing is cut off at the edge of the picture."""
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page[0] and box.y1 <= page[1]


def test_confusion_of_two_classes() -> None:
    figure = confusion(np.array([[90, 10], [0, 123_456]]), ["no", "yes"], "Confusion matrix, test rows")
    axes, bar = drawn(figure)
    assert texts(axes) == {(0, 0): "90", (0, 1): "10", (1, 1): "123k"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [0, 1]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == ["no", "yes"]
    assert bar.get_ylabel() == "share of the true class"
    assert figure.get_suptitle() == "Confusion matrix, test rows"


def test_numbers_can_be_read_on_their_colour() -> None:
    """A ratio of contrast of at least 4.5, as WCAG 2 asks for."""
    matrix_CC = np.zeros((20, 20), dtype=np.int64)
    matrix_CC[:, 0] = np.arange(0, 100, 5)
    matrix_CC[:, 1] = 100 - matrix_CC[:, 0]
    matrix_CC[0, :2] = 71, 29
    matrix_CC[1, :2] = 73, 27
    axes = drawn(confusion(matrix_CC, [str(one) for one in range(20)], ""))[0]
    image = axes.images[0]
    colours = image.to_rgba(image.get_array())

    def luminance(rgb) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb[:3]]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    assert len(axes.texts) > 30
    for text in axes.texts:
        column, row = map(int, text.get_position())
        pair = sorted([luminance(matplotlib.colors.to_rgb(text.get_color())), luminance(colours[row, column])])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_class_without_rows_is_grey() -> None:
    axes = drawn(confusion(np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]]), ["a", "b", "c"], ""))[0]
    assert np.ma.getmaskarray(axes.images[0].get_array())[1].all()
    assert (1, 1) not in texts(axes)


@pytest.mark.parametrize("classes", [3, 10, 20, 21, 50, 150])
def test_many_classes_with_long_names(classes) -> None:
    names = [f"A rather long name of a class, of which the number is {one}" for one in range(classes)]
    figure = confusion(np.eye(classes, dtype=np.int64) * 7, names, "title")
    axes = drawn(figure)[0]
    assert len(axes.texts) == (classes if classes <= 20 else 0)
    shown = ticks(axes.yaxis)
    assert len(shown) == (classes if classes <= 60 else 50)
    assert all(len(one) <= 24 for one in shown)
    assert len(set(shown)) == len(shown)
    assert shown[2].endswith(f" {2 if classes <= 60 else 6}")
    assert inside(figure)
    assert max(figure.get_size_inches()) <= 13
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))


def test_names_are_not_parsed() -> None:
    """No formula for a dollar sign, no line break, and no warning for a letter that the font lacks."""
    figure = confusion(np.eye(3, dtype=np.int64), ["$a_b$", "two\nlines", "\U0001f427"], "5 $ and $x$")
    axes = drawn(figure)[0]
    assert ticks(axes.xaxis) == ["$a_b$", "two lines", "\U0001f427"]


def test_residuals_of_one_output() -> None:
    targets_BT, predictions_BT = np.array([[1.0], [2], [4]]), np.array([[1.5], [2], [3]])
    figure = residual_figure(targets_BT, predictions_BT, ["price"], "Residuals, test rows")
    left, right = drawn(figure)
    assert figure.get_suptitle() == "Residuals, test rows"
    assert left.get_title() == "price"
    assert (left.get_xlabel(), left.get_ylabel()) == ("true", "predicted")
    identity, points = left.lines
    assert len({*identity.get_xy1()}) == len({*identity.get_xy2()}) == 1
    np.testing.assert_array_equal(points.get_xdata(), [1, 2, 4])
    np.testing.assert_array_equal(points.get_ydata(), [1.5, 2, 3])
    assert left.get_xlim() == left.get_ylim()
    assert sum(bar.get_height() for bar in right.patches) == 3
    assert right.get_title() == "mean 0.1667, sd 0.6236"
    assert inside(figure)


def test_outputs_beyond_four_are_named_in_the_title() -> None:
    values_BT = np.random.default_rng(0).normal(size=(2, 30, 6))
    names = [f"An output with a really long name that no axis has room for: {one}" for one in range(6)]
    figure = residual_figure(*values_BT, names, "Residuals")
    axes = drawn(figure)
    assert len(axes) == 8
    assert [one.get_title()[-3:] for one in axes[::2]] == [": 0", ": 1", ": 2", ": 3"]
    assert figure.get_suptitle() == "Residuals\nthe first 4 of 6 outputs"
    assert inside(figure)


def test_many_rows_become_their_density() -> None:
    random = np.random.default_rng(0)
    targets_BT = random.normal(size=(20_002, 1))
    predictions_BT = targets_BT + random.normal(size=(20_002, 1))
    predictions_BT[5] = np.nan
    figure = residual_figure(targets_BT, predictions_BT, ["y"], "Residuals")
    left, right, bar = drawn(figure)
    assert figure.get_suptitle() == "Residuals\ndensity of 20,001 rows; 1 row without finite numbers left out"
    density = next(one for one in left.collections if isinstance(one, PolyCollection))
    assert density.get_array().sum() == sum(patch.get_height() for patch in right.patches) == 20_001
    assert "1" in ticks(bar.yaxis)
    assert "100" in ticks(bar.yaxis)
    few = residual_figure(targets_BT[6:], predictions_BT[6:], ["y"], "Residuals")
    assert few.get_suptitle() == "Residuals"
    assert len(few.axes) == 2


@pytest.mark.parametrize(
    ("targets", "predictions"),
    [
        ([3.0, 3, 3], [3.0, 3, 3]),
        ([0.0], [0.0]),
        ([1e30, -1e30], [1e-30, 0]),
        ([1e17, 1e17], [1e17 + 32, 1e17]),
        ([np.nan], [1.0]),
        ([], []),
    ],
    ids=["constant", "one row", "huge", "hardly different", "not finite", "no row"],
)
@pytest.mark.parametrize("times", [1, 20_001])
def test_unusual_numbers_are_drawn(targets, predictions, times) -> None:
    figure = residual_figure(np.tile(targets, times)[:, None], np.tile(predictions, times)[:, None], ["y"], "")
    drawn(figure)
    assert inside(figure)
    if not np.isfinite(targets).any():
        assert figure.axes[0].texts[0].get_text() == "no row"


def test_png(tmp_path) -> None:
    """Of the figure's size, with the same bytes each time."""
    path = tmp_path / "confusion.png"
    matrix_CC = np.array([[1, 2], [3, 4]])
    path.write_bytes(png_bytes(confusion(matrix_CC, ["a", "b"], "t")))
    height, width, _ = imread(path).shape
    figure = confusion(matrix_CC, ["a", "b"], "t")
    np.testing.assert_allclose([width, height], figure.get_size_inches() * figure.dpi, atol=1)
    assert path.read_bytes() == png_bytes(figure)


def test_settings_of_matplotlib_are_not_used_and_not_changed() -> None:
    first = png_bytes(confusion(np.eye(2, dtype=np.int64), ["a", "b"], "t"))
    with matplotlib.rc_context({"axes.grid": False, "font.size": 20}):
        assert png_bytes(confusion(np.eye(2, dtype=np.int64), ["a", "b"], "t")) == first
        assert matplotlib.rcParams["font.size"] == 20


def test_drawing_needs_no_pyplot_and_no_torch(tmp_path) -> None:
    code = (
        "import sys, numpy; from mlp_lightning.inference.evaluation.figure import *;"
        "from mlp_lightning.runs.drawing import png_bytes;"
        "assert 'matplotlib' not in sys.modules;"
        "from mlp_lightning.tables.targets import TargetColumn;"
        "one, target = numpy.eye(2, dtype=int), TargetColumn('y', 'string', ('a', 'b'));"
        "png_bytes(confusion_figure([one], [target], 't'));"
        "png_bytes(residual_figure(one, one, ['a', 'b'], 't'));"
        "print([one for one in ('torch', 'lightning', 'matplotlib.pyplot') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
