"""The content of a sweep's figure, read from matplotlib's objects, and that TensorBoard reads it."""

from __future__ import annotations

import io
import itertools
import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.image import imread
from support.leaderboard_records import failed, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlp_lightning.runs.drawing import png_bytes
from mlp_lightning.sweeps.leaderboard.figure import draw_leaderboard, write_image_event
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboard

FOLDER = Path("/logs/sweep")


def picture(records):
    figure = draw_leaderboard(build_leaderboard(records, FOLDER))
    png_bytes(figure)  # ticks are made when it is drawn
    return figure


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def product(**keys):
    """Finished runs over all combinations of the values of ``keys``; their losses grow with their numbers."""
    return [
        run(number, 1 + number, 2 + number, **dict(zip(keys, values, strict=True)))
        for number, values in enumerate(itertools.product(*keys.values()))
    ]


def test_one_numeric_key() -> None:
    """Training loss falls with the width, validation loss does not: as published."""
    losses = {5: (0.5, 0.30), 100: (0.05, 0.31), 1000: (0.01, 0.32)}
    records = [run(i, *losses[w], model__hidden_units=w) for i, w in enumerate((1000, 5, 100))]
    (axes,) = picture(records).axes
    training, validation = axes.lines
    assert (training.get_label(), validation.get_label()) == ("training", "validation")
    numpy.testing.assert_array_equal(training.get_xdata(), [5, 100, 1000])
    numpy.testing.assert_array_equal(training.get_ydata(), [0.5, 0.05, 0.01])
    numpy.testing.assert_array_equal(validation.get_ydata(), [0.30, 0.31, 0.32])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("model.hidden_units", "loss")
    assert ticks(axes.xaxis) == ["5", "100", "1000"]
    assert not axes.collections  # one run per width has no spread


def test_band_is_the_sample_deviation() -> None:
    records = [
        run(i, loss, 10 * loss, model__depth=depth, seed=i)
        for i, (depth, loss) in enumerate([(1, 1.0), (1, 3.0), (2, 2.0), (2, 2.5)])
    ]
    (axes,) = picture(records).axes
    assert axes.get_xscale() == "linear"
    numpy.testing.assert_allclose(axes.lines[0].get_ydata(), [2, 2.25])
    band = next(one for one in axes.collections if isinstance(one, PolyCollection))
    heights = band.get_paths()[0].vertices
    for depth, low, high in [(1, 2 - math.sqrt(2), 2 + math.sqrt(2)), (2, 2.25 - 0.125**0.5, 2.25 + 0.125**0.5)]:
        at_depth = heights[heights[:, 0] == depth, 1]
        numpy.testing.assert_allclose([at_depth.min(), at_depth.max()], [low, high])
    dots = next(one for one in axes.collections if isinstance(one, PathCollection))
    assert sorted(map(tuple, dots.get_offsets().tolist())) == [(1, 1), (1, 3), (2, 2), (2, 2.5)]


def test_zero_beside_decades_is_drawn() -> None:
    (axes,) = picture(product(optimizer__weight_decay=[0.0, 1e-4, 1e-2])).axes
    assert axes.get_xscale() == "symlog"
    assert ticks(axes.xaxis) == ["0", "0.0001", "0.01"]


def test_many_values_have_ticks_that_can_be_read() -> None:
    (axes,) = picture(product(model__hidden_units=list(range(1, 200)))).axes
    assert 2 <= len(ticks(axes.xaxis)) <= 16


def test_without_validation_there_is_one_line() -> None:
    records = [run(i, 0.1 + i, None, model__hidden_units=w) for i, w in enumerate((2, 3))]
    (axes,) = picture(records).axes
    assert [line.get_label() for line in axes.lines] == ["training"]


@pytest.mark.parametrize("values", [["relu", "tanh", "gelu"], [[32, 16], [8], 5], [None, 1.0, 0.5]])
def test_one_key_of_names_is_points(values) -> None:
    (axes,) = picture(product(model__hidden_units=values, seed=[0, 1])).axes
    assert len(ticks(axes.xaxis)) == 3
    training, validation = axes.containers
    assert (training.get_label(), validation.get_label()) == ("training", "validation")
    assert training.has_yerr
    points = training[0].get_xydata()
    assert sorted(points[:, 1]) == [1.5, 3.5, 5.5]
    numpy.testing.assert_allclose(points[:, 0] + 0.08, [0, 1, 2])


def test_numbers_come_before_names() -> None:
    (axes,) = picture(product(trainer__gradient_clip_val=["none", 1.0, 0.5])).axes
    assert ticks(axes.xaxis) == ["0.5", "1", "none"]


def test_two_keys_are_a_heat_map() -> None:
    records = product(model__hidden_units=[100, 5], model__activation=["relu", "tanh", "gelu"], seed=[0, 1])
    axes, bar = picture(records).axes
    (image,) = axes.images
    # Rows are activations as they came, columns widths by size; validation losses 2 … 13 in pairs.
    numpy.testing.assert_array_equal(image.get_array(), [[8.5, 2.5], [10.5, 4.5], [12.5, 6.5]])
    assert ticks(axes.xaxis) == ["5", "100"]
    assert ticks(axes.yaxis) == ["relu", "tanh", "gelu"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("model.hidden_units", "model.activation")
    assert bar.get_ylabel() == "validation loss"
    assert {text.get_text() for text in axes.texts} == {"8.5", "2.5", "10.5", "4.5", "12.5", "6.5"}
    (frame,) = axes.patches
    assert (frame.get_x(), frame.get_y()) == (0.5, -0.5)


def test_heat_map_with_holes() -> None:
    records = [*product(model__depth=[1, 2], model__activation=["relu", "tanh"])[:3]]
    records[0] = run(0, val=math.nan, model__depth=1, model__activation="relu")
    axes, _ = picture([*records, failed(3, model__depth=2, model__activation="tanh")]).axes
    (image,) = axes.images
    numpy.testing.assert_array_equal(numpy.ma.getmaskarray(image.get_array()), [[True, False], [False, True]])
    assert {text.get_text() for text in axes.texts} == {"nan", "3", "4"}
    assert "1 without a finite loss; 1 not finished" in axes.get_title(loc="left")


def test_large_heat_map_has_no_numbers() -> None:
    axes, _ = picture(product(model__hidden_units=list(range(1, 21)), model__depth=list(range(1, 11)))).axes
    assert not axes.texts
    assert len(ticks(axes.xaxis)) <= 16


def test_numbers_that_form_no_grid_are_scattered() -> None:
    records = [run(i, val=1 + i, optimizer__lr=10 ** (-i / 10), model__dropout=i / 40) for i in range(40)]
    axes, _ = picture(records).axes
    points, ring = axes.collections
    assert len(points.get_offsets()) == 40
    numpy.testing.assert_array_equal(ring.get_offsets(), [[1.0, 0.0]])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_three_keys_are_parallel_coordinates() -> None:
    keys = {"model__hidden_units": [5, 100], "model__depth": [1, 2], "model__activation": ["relu", "tanh"]}
    axes, bar = picture(product(**keys)).axes
    others = next(one for one in axes.collections if isinstance(one, LineCollection) and len(one.get_segments()) == 7)
    _white_edge, best = axes.lines
    assert best.get_linewidth() > 2 * others.get_linewidths()[0]
    numpy.testing.assert_array_equal(best.get_xdata(), [0, 1, 2, 3])
    # The best run has the first value of every key and the lowest metric; the others end higher.
    assert all(height < 0.5 for height in best.get_ydata()[:3])
    assert best.get_ydata()[-1] == 0
    ends = [segment[-1, 1] for segment in others.get_segments()]
    numpy.testing.assert_allclose(sorted(ends), [(i + 1) / 7 for i in range(7)])
    assert ticks(axes.xaxis) == ["model.\nhidden_units", "model.\ndepth", "model.\nactivation"]
    assert {"5", "100", "1", "2", "relu", "tanh"} == {text.get_text() for text in axes.texts}
    assert bar.get_ylabel() == "validation loss"
    colours = {tuple(colour) for colour in others.get_colors().tolist()}
    assert len(colours) == 7


def test_line_without_a_finite_metric_ends_before_the_colour_bar() -> None:
    records = product(model__hidden_units=[5, 100], model__depth=[1, 2], model__activation=["relu", "tanh"])
    records[3] = run(3, val=math.inf, model__hidden_units=5, model__depth=2, model__activation="tanh")
    axes, _ = picture(records).axes
    others = next(one for one in axes.collections if isinstance(one, LineCollection) and len(one.get_segments()) == 7)
    assert sorted(len(segment) for segment in others.get_segments()) == [3, 4, 4, 4, 4, 4, 4]


def test_seeds_alone() -> None:
    (axes,) = picture(product(seed=[0, 1, 2])).axes
    assert ticks(axes.xaxis) == ["training", "validation"]
    training, validation = (line for line in axes.lines if line.get_alpha() == 0.6)
    numpy.testing.assert_array_equal(training.get_ydata(), [1, 2, 3])
    numpy.testing.assert_array_equal(validation.get_ydata(), [2, 3, 4])
    assert len(axes.containers) == 2  # mean ± sd


def test_many_seeds_are_histograms() -> None:
    (axes,) = picture(product(seed=list(range(150)))).axes
    assert [sum(bar.get_height() for bar in bars) for bars in axes.containers] == [150, 150]
    assert axes.get_ylabel() == "runs"


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([failed(0), failed(1)], "None of 2 runs finished."),
        ([run(0, val=math.nan, seed=0), run(1, val=math.inf, seed=1)], "None of 2 runs has a finite validation loss."),
        (
            [run(i, val=(math.nan, 1.0)[i % 2], model__depth=i // 2, data__x=i // 2, seed=i) for i in range(4)],
            "No combination has a finite validation loss for all of its seeds.",
        ),
    ],
)
def test_reason_for_no_plot_is_shown(records, text) -> None:
    (axes,) = picture(records).axes
    assert [one.get_text() for one in axes.texts] == [text]


@pytest.mark.parametrize("values", [["$x_1$", "a_b", "日本"], ["]", "[b]x[/b]", "x" * 80]])
def test_awkward_names(values) -> None:
    picture(product(model__activation=values))
    picture(product(model__activation=values, model__depth=[1, 2], model__norm=["none", "batch"]))


@pytest.mark.parametrize("keys", [1, 2, 3, 0])
def test_all_losses_alike(keys) -> None:
    names = ["model__depth", "model__hidden_units", "model__norm"][:keys]
    picture([run(i, 0.0, 0.0, seed=i, **dict.fromkeys(names, 1 + i // 2)) for i in range(4)])


def test_the_same_bytes_again_and_settings_are_restored(tmp_path) -> None:
    records = product(model__hidden_units=[5, 100], seed=[0, 1])
    with matplotlib.rc_context({"axes.grid": False, "font.size": 20}):
        first = png_bytes(draw_leaderboard(build_leaderboard(records, FOLDER)))
        assert matplotlib.rcParams["font.size"] == 20
    assert first == png_bytes(draw_leaderboard(build_leaderboard(reversed(records), FOLDER)))


def test_drawing_needs_no_pyplot_and_no_torch(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboard;"
        "from mlp_lightning.sweeps.leaderboard.figure import *; from mlp_lightning.runs.drawing import png_bytes;"
        "assert 'matplotlib' not in sys.modules;"
        "write_image_event(Path(sys.argv[1]), png_bytes(draw_leaderboard(build_leaderboard([], Path()))));"
        "print([one for one in ('torch', 'lightning', 'tensorflow', 'matplotlib.pyplot') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_tensorboard_reads_the_picture(tmp_path) -> None:
    png = png_bytes(draw_leaderboard(build_leaderboard(product(seed=[0, 1]), FOLDER)))
    other = tmp_path / "events.out.tfevents.1.host"
    other.write_bytes(b"")
    first = write_image_event(tmp_path, b"\x89PNG" + bytes(20))
    path = write_image_event(tmp_path, png)
    assert sorted(tmp_path.iterdir()) == sorted([other, path])  # the earlier one is gone, others are not
    assert first != path
    reader = EventAccumulator(str(path))
    reader.Reload()
    (image,) = reader.Images("leaderboard")
    assert image.encoded_image_string == png
    assert imread(io.BytesIO(png), format="png").shape[:2] == (image.height, image.width)
