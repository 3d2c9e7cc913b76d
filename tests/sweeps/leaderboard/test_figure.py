"""The content of a sweep's figure, read from matplotlib's objects, and that TensorBoard reads it."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.image import imread
from support.leaderboard_records import above, failed, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlp_lightning.runs.drawing import png_bytes
from mlp_lightning.sweeps.leaderboard.figure import draw_leaderboards, write_image_event
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards

FOLDER = Path("/logs/sweep")


def picture(records):
    figure = draw_leaderboards(build_leaderboards(records, FOLDER))
    png_bytes(figure)  # ticks are made when it is drawn
    return figure


def panels(figure):
    """The axes of a figure, without those that were left empty."""
    return [axes for axes in figure.axes if axes.axison]


def title(figure) -> str:
    (part,) = figure.subfigs
    return part.get_suptitle()


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
    assert not any(isinstance(one, PolyCollection) for one in axes.collections)  # one run per width has no spread


def test_band_reaches_from_the_lowest_run_to_the_highest() -> None:
    records = [
        run(i, loss, 10 * loss, model__depth=depth, seed=i)
        for i, (depth, loss) in enumerate([(1, 1.0), (1, 3.0), (2, 2.0), (2, 2.5)])
    ]
    (axes,) = picture(records).axes
    assert axes.get_xscale() == "linear"
    numpy.testing.assert_allclose(axes.lines[0].get_ydata(), [2, 2.25])
    band = next(one for one in axes.collections if isinstance(one, PolyCollection))
    heights = band.get_paths()[0].vertices
    for depth, low, high in [(1, 1, 3), (2, 2, 2.5)]:
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
    training, validation = axes.lines
    assert (training.get_label(), validation.get_label()) == ("training", "validation")
    assert training.get_linestyle() == "None"
    points = training.get_xydata()
    assert sorted(points[:, 1]) == [1.5, 3.5, 5.5]
    numpy.testing.assert_array_equal(points[:, 0], [0, 1, 2])


def test_numbers_come_before_names() -> None:
    (axes,) = picture(product(trainer__gradient_clip_val=["none", 1.0, 0.5])).axes
    assert ticks(axes.xaxis) == ["0.5", "1", "none"]


def test_two_keys_are_a_map_of_each_loss() -> None:
    records = product(model__hidden_units=[100, 5], model__activation=["relu", "tanh", "gelu"], seed=[0, 1])
    training, validation, bar = picture(records).axes
    # Rows are activations as they came, columns widths by size; validation losses 2 … 13 in pairs.
    expected = numpy.array([[8.5, 2.5], [10.5, 4.5], [12.5, 6.5]])
    for axes, name, loss in ((training, "training loss", expected - 1), (validation, "validation loss", expected)):
        (image,) = axes.images
        numpy.testing.assert_array_equal(image.get_array(), loss)
        assert axes.get_title() == name
        assert image.norm is validation.images[0].norm  # one colour is one loss in both
        assert ticks(axes.xaxis) == ["5", "100"]
        assert {text.get_text() for text in axes.texts} == {f"{one:g}" for one in loss.flat}
        (frame,) = axes.patches
        assert (frame.get_x(), frame.get_y()) == (0.5, -0.5)
    assert (training.get_xlabel(), training.get_ylabel()) == ("model.hidden_units", "model.activation")
    assert ticks(training.yaxis) == ["relu", "tanh", "gelu"]
    assert bar.get_ylabel() == "loss"


def test_cells_without_a_finished_run() -> None:
    records = [*product(model__depth=[1, 2], model__activation=["relu", "tanh"])[:3]]
    records[0] = run(0, val=math.nan, model__depth=1, model__activation="relu")
    figure = picture([*records, failed(3, model__depth=2, model__activation="tanh")])
    axes = figure.axes[1]
    (image,) = axes.images
    numpy.testing.assert_array_equal(numpy.ma.getmaskarray(image.get_array()), [[True, False], [False, True]])
    assert {text.get_text() for text in axes.texts} == {"nan", "3", "4", "failed"}
    (hatched,) = (one for one in axes.patches if one.get_hatch())
    assert (hatched.get_x(), hatched.get_y()) == (0.5, 0.5)
    assert "1 without a finite loss; 1 not finished" in title(figure)


def test_a_value_whose_runs_all_failed_is_at_the_axis() -> None:
    records = [run(0, model__depth=1), run(1, model__depth=2), failed(2, model__depth=3)]
    (axes,) = picture(records).axes
    (failures,) = (line for line in axes.lines if line.get_label() == "failed")
    numpy.testing.assert_array_equal(failures.get_xdata(), [3])
    assert ticks(axes.xaxis) == ["1", "2", "3"]


def test_large_heat_map_has_no_numbers() -> None:
    axes = picture(product(model__hidden_units=list(range(1, 21)), model__depth=list(range(1, 11)))).axes[0]
    assert not axes.texts
    assert len(ticks(axes.xaxis)) <= 16


@pytest.mark.parametrize(
    ("columns", "rows", "validates", "shows"),
    [
        (2, 3, True, True),
        (3, 9, True, True),
        (13, 3, False, True),
        (13, 3, True, False),
        (24, 3, False, False),
        (4, 24, False, False),
    ],
)
def test_numbers_stay_in_their_cells(columns, rows, validates, shows) -> None:
    """Or are not shown. The losses are as long as they get, with the share of the runs that solved it below."""
    keys = enumerate(itertools.product(range(columns), range(rows), range(12)))
    records = []
    for number, (units, depth, seed) in keys:
        values = {"model__hidden_units": units, "model__depth": depth, "seed": seed}
        one = run(number, 1.234e-5 * 1.01**number, 4.321e-5 if validates else None, **values)
        accuracies = {split: {**losses, "accuracy": float(seed > 0)} for split, losses in one.metrics.items()}
        records.append(dataclasses.replace(one, metrics=accuracies))
    figure = picture(records)
    maps = [axes for axes in panels(figure) if axes.images]
    assert [axes.get_xlabel() for axes in maps] == ["model.hidden_units"] * (1 + validates)
    texts = [text for axes in maps for text in axes.texts]
    assert {text.get_text().partition("\n")[2] for text in texts} == {"11 of 12"}
    assert {text.get_visible() for text in texts} == {shows}
    for axes in maps if shows else ():
        width, height = axes.get_window_extent().size / [columns, rows]
        extents = [text.get_window_extent() for text in axes.texts]
        assert all(one.width < width and one.height < height for one in extents)


def test_numbers_that_form_no_grid_are_scattered() -> None:
    records = [run(i, val=1 + i, optimizer__lr=10 ** (-i / 10), model__dropout=i / 40) for i in range(39)]
    records.append(failed(39, optimizer__lr=1e-4, model__dropout=0.99))
    axes = picture(records).axes[1]
    failures, points, ring = axes.collections
    assert len(points.get_offsets()) == 39
    numpy.testing.assert_array_equal(failures.get_offsets(), [[1e-4, 0.99]])
    numpy.testing.assert_array_equal(ring.get_offsets(), [[1.0, 0.0]])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_three_keys_are_a_panel_each() -> None:
    keys = {"model__hidden_units": [5, 100], "model__depth": [1, 2], "model__activation": ["relu", "tanh"]}
    axes = panels(picture(product(**keys)))
    assert [one.get_xlabel() for one in axes] == ["model.hidden_units", "model.depth", "model.activation"]
    assert [one.get_title() for one in axes] == ["best: 5", "best: 1", "best: relu"]
    assert [ticks(one.xaxis) for one in axes] == [["5", "100"], ["1", "2"], ["relu", "tanh"]]
    for one, first, lowest in zip(axes, (5, 1, 0), ([1, 5], [1, 3], [1, 2]), strict=True):
        training, validation = one.lines
        # Lines and points are exactly at the values.
        at = sorted({float(x) for points in one.collections[:2] for x, _ in points.get_offsets()})
        numpy.testing.assert_array_equal(training.get_xdata(), at)
        numpy.testing.assert_array_equal(training.get_ydata(), lowest)
        numpy.testing.assert_array_equal(validation.get_ydata(), [1 + loss for loss in lowest])
        numpy.testing.assert_array_equal(one.collections[-1].get_offsets(), [[first, 2]])  # the ring
        assert len(one.collections[0].get_offsets()) == 8
        assert one.get_ylim() == axes[0].get_ylim()


def test_a_search_over_many_numbers_has_points_without_lines() -> None:
    draws = [{"optimizer__lr": 2.0**-i, "model__dropout": i / 50, "model__hidden_units": 3 + i} for i in range(40)]
    figure = picture([run(i, 1 + i, 2 + i, **one) for i, one in enumerate(draws)])
    for axes in panels(figure):
        assert all(len(line.get_xdata()) == 0 for line in axes.lines)
        assert len(axes.collections[0].get_offsets()) == 40


def test_seeds_alone_are_points() -> None:
    """A bar of ± sd would leave the logarithmic axis."""
    records = [run(i, loss, 10 * loss, seed=i) for i, loss in enumerate((0.001, 0.01, 1.0))]
    (axes,) = picture(records).axes
    assert ticks(axes.xaxis) == ["training: mean 0.337", "validation: mean 3.37"]
    training, validation = axes.lines
    numpy.testing.assert_array_equal(training.get_ydata(), [0.001, 0.01, 1.0])
    numpy.testing.assert_array_equal(validation.get_ydata(), [0.01, 0.1, 10.0])
    assert not axes.containers
    low, high = axes.get_ylim()
    drawn = [y for one in axes.collections for segment in one.get_segments() for _, y in segment]
    assert all(low < y < high for y in drawn)


def test_share_of_the_runs_that_solved_it() -> None:
    """19 of 24 runs classify all rows right: their mean loss describes none of them."""
    right = [seed < 19 for seed in range(24)]

    def solving(number: int, is_right: bool, **keys):
        metrics = {"loss": 0.003, "accuracy": 1.0} if is_right else {"loss": 0.4, "accuracy": 0.75}
        return dataclasses.replace(run(number, **keys), metrics={"train": metrics})

    alone = [solving(seed, one, seed=seed) for seed, one in enumerate(right)]
    assert title(picture(alone)).endswith("19 of 24 solved")
    keyed = [solving(24 * w + s, one or w == 1, seed=s, model__depth=w) for w in (0, 1) for s, one in enumerate(right)]
    assert [text.get_text() for text in picture(keyed).axes[0].texts] == ["19 of 24\nsolved", "24 of 24\nsolved"]
    mapped = [
        solving(48 * a + 24 * w + s, one or w == 1, seed=s, model__depth=w, model__bias=bool(a))
        for a in (0, 1)
        for w in (0, 1)
        for s, one in enumerate(right)
    ]
    texts = {text.get_text().partition("\n")[2] for text in picture(mapped).axes[0].texts}
    assert texts == {"19 of 24", "24 of 24"}
    assert title(picture(mapped)).endswith("86 of 96 solved")
    third = [
        solving(96 * b + number, number % 24 < 19 or b == 1, seed=number, **{**values, "trainer__batch_size": b})
        for b in (1, 2)
        for number, values in enumerate(
            {"model__depth": d, "optimizer__lr": lr} for d in (3, 4) for lr in (0.1, 1.0) for _ in range(24)
        )
    ]
    shares = [[text.get_text() for text in axes.texts] for axes in panels(picture(third))]
    assert shares == [["86 of\n96", "86 of\n96"], ["86 of\n96", "86 of\n96"], ["96 of\n96", "76 of\n96"]]
    assert title(picture(third)).endswith("172 of 192 solved")


def test_baselines_are_lines_of_reference() -> None:
    def dotted(axes) -> list[float]:
        return [float(one.get_ydata()[0]) for one in axes.lines if one.get_linestyle() == ":" and len(one.get_ydata())]

    def legend(axes) -> list[str]:
        return [text.get_text() for text in axes.get_legend().get_texts()]

    one = picture([above(run(i, 0.3 + 0.1 * i, 0.5 + i / 10, model__depth=i), train=0.7, val=0.8) for i in range(3)])
    assert dotted(one.axes[0]) == [0.7, 0.8]
    assert {"training baseline: 0.7", "validation baseline: 0.8"} <= set(legend(one.axes[0]))
    # One that would squeeze the runs is named and not drawn.
    far = picture([above(run(i, 0.3 + i / 100, 0.31, model__depth=i), train=90.0, val=91.0) for i in range(3)]).axes[0]
    assert dotted(far) == []
    assert "training baseline: 90" in legend(far)
    assert far.get_ylim()[1] < 1
    decades = picture([above(run(i, 10.0**-i, 0.9, model__depth=i), train=1.5, val=1.5) for i in range(3)]).axes[0]
    assert dotted(decades) == [1.5, 1.5]
    assert decades.get_ylim()[1] > 1.5
    seeds = picture([above(run(i, 0.3 + i / 10, 0.5, seed=i), train=0.6, val=0.55) for i in range(4)]).axes[0]
    assert dotted(seeds) == [0.6, 0.55]
    two = [above(one, train=0.91, val=0.92) for one in product(model__depth=[1, 2], model__bias=[True, False])]
    assert [axes.get_title() for axes in panels(picture(two))][:2] == [
        *("training loss (baseline 0.91)", "validation loss (baseline 0.92)")
    ]
    three = [
        above(one, train=0.5, val=0.6)
        for one in product(model__depth=[1, 2], optimizer__lr=[1, 2], trainer__batch_size=[8, 16])
    ]
    assert all(dotted(axes) == [0.5, 0.6] for axes in panels(picture(three)))


def test_every_figure_names_data_set_and_sweep() -> None:
    for keys in ({"seed": [0, 1]}, {"model__depth": [1, 2]}, {"model__depth": [1, 2], "model__bias": [True, False]}):
        assert title(picture(product(**keys))).startswith("iris, sweep sweep: ")


def test_two_data_sets_are_drawn_below_each_other() -> None:
    records = [run(i, model__depth=i % 2, data__name=("moons", "circles")[i // 2]) for i in range(4)]
    figure = picture(records)
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert [one.split(",")[0] for one in titles] == ["moons", "circles"]


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
    names = ["model__depth", "model__hidden_units", "model__bias"][:keys]
    picture([run(i, 0.0, 0.0, seed=i, **dict.fromkeys(names, 1 + i // 2)) for i in range(4)])


def test_the_same_bytes_again_and_settings_are_restored(tmp_path) -> None:
    records = product(model__hidden_units=[5, 100], seed=[0, 1])
    with matplotlib.rc_context({"axes.grid": False, "font.size": 20}):
        first = png_bytes(draw_leaderboards(build_leaderboards(records, FOLDER)))
        assert matplotlib.rcParams["font.size"] == 20
    assert first == png_bytes(draw_leaderboards(build_leaderboards(reversed(records), FOLDER)))


def test_drawing_needs_no_pyplot_and_no_torch(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards;"
        "from mlp_lightning.sweeps.leaderboard.figure import *; from mlp_lightning.runs.drawing import png_bytes;"
        "assert 'matplotlib' not in sys.modules;"
        "from mlp_lightning.sweeps.records import RunRecord; one = RunRecord(0, Path('s/0'), 'failed', (), {}, {});"
        "write_image_event(Path(sys.argv[1]), png_bytes(draw_leaderboards(build_leaderboards([one], Path()))));"
        "print([one for one in ('torch', 'lightning', 'tensorflow', 'matplotlib.pyplot') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_tensorboard_reads_the_picture(tmp_path) -> None:
    png = png_bytes(draw_leaderboards(build_leaderboards(product(seed=[0, 1]), FOLDER)))
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
