"""The curves of a run: as a data frame, as a picture, as characters."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlp_lightning import TrainingResult, train
from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.curves import chart_lines, charts_of, curve_steps, draw_curves


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    config = {"data": {"name": "iris"}, "trainer": {"max_epochs": 20}, "verbosity": 0}
    return train(config, tmp_path_factory.mktemp("runs") / "iris")


def test_the_history_is_what_was_logged(result) -> None:
    frame = result.history
    assert next(iter(frame.columns)) == "step"
    assert frame["step"].max() == 20
    assert frame["loss/test"].dropna().tolist() == [pytest.approx(result.metrics["test"]["loss"], rel=1e-6)]


def test_the_history_without_pandas_is_a_table_of_arrow(result, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert isinstance(result.history, pa.Table)
    assert result.history.column_names[0] == "step"


def test_the_picture_has_a_chart_for_each_metric_and_a_curve_for_each_split(result) -> None:
    figure = result.plot()
    assert [one.get_title() for one in figure.axes] == ["loss", "accuracy"]
    for axes in figure.axes:
        assert [one.get_label() for one in axes.get_lines()] == ["training", "validation", "test"]
    steps, losses = figure.axes[0].get_lines()[0].get_data()
    frame = result.history.dropna(subset="loss/train")
    assert steps.tolist() == frame["step"].tolist()
    assert losses.tolist() == frame["loss/train"].tolist()


def test_a_notebook_shows_metrics_and_escapes_what_comes_from_outside(result) -> None:
    page = dataclasses.replace(result, warnings=["<script>alert(1)</script>"], run_dir=Path("a<b>"))._repr_html_()
    assert f"<td>{result.metrics['test']['loss']:.6g}</td>" in page
    assert "<td>validation</td>" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a&lt;b&gt;" in page
    failed = dataclasses.replace(result, status="failed", metrics={}, baseline=None, error="the loss is nan")
    assert "the loss is nan" in failed._repr_html_()
    assert "<table>" not in failed._repr_html_()


@pytest.mark.parametrize("how", ["not logged", "gone"])
def test_a_run_without_curves_says_so(how, tmp_path) -> None:
    config = {"trainer": {"max_steps": 5}, "logger": {"csv": how == "gone"}, "verbosity": 0}
    done = train(config, tmp_path / "run")
    if how == "gone":
        (done.run_dir / "metrics.csv").unlink()
    for wanted in (lambda: done.history, done.plot):
        with pytest.raises(RunFolderError, match=r"no metrics\.csv"):
            wanted()


def test_a_cut_line_is_left_out_and_other_bytes_are_refused(tmp_path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("step,loss/train\n0,0.5\n1,0.25\n2,0.")
    assert [one["step"] for one in curve_steps(tmp_path)] == [0, 1, 2]
    file.write_text("step,loss/train\n0,0.5\n1,0.2e")
    assert [one["step"] for one in curve_steps(tmp_path)] == [0]
    file.write_bytes(b"step,loss/train\n0,\xff\n")
    with pytest.raises(RunFolderError, match="not UTF-8"):
        list(curve_steps(tmp_path))


def test_what_is_not_finite_is_no_point() -> None:
    rows = [{"step": step, "loss/train": value} for step, value in enumerate([1.0, math.nan, math.inf, None, 2.0])]
    assert charts_of(rows) == {"loss": {"train": [(0, 1.0), (4, 2.0)]}}
    assert charts_of([{"step": 0, "learning_rate": 0.1}]) == {}


def _characters(curves: dict[str, Any], metric: str = "accuracy") -> list[str]:
    return ["".join(text for _, text in line) for line in chart_lines(metric, curves, 20, 5, unicode=False)]


def test_a_line_goes_from_corner_to_corner() -> None:
    lines = _characters({"train": [(0, 0.0), (10, 1.0)]})
    plot = [one.partition("|")[2] for one in lines[1:-1]]
    assert plot[0].rstrip()[-1] == "t"
    assert len(plot[0].rstrip()) == 20
    assert plot[-1][0] == "t"
    assert all("t" in one for one in plot)
    assert lines[1].startswith("1 |")
    assert lines[-2].startswith("0 |")
    assert lines[-1].endswith("step 10")


@pytest.mark.parametrize("points", [[(3, 0.5)], [(0, 0.7), (5, 0.7)]])
def test_a_point_and_a_constant_are_drawn(points) -> None:
    assert any("v" in one.partition("|")[2] for one in _characters({"val": points}))


def test_braille_shows_two_by_four_dots_a_character() -> None:
    (line,) = chart_lines("accuracy", {"train": [(0, 1.0), (1, 0.0)]}, 1, 1)[1:-1]
    assert line[1] == ("train", "\N{BRAILLE PATTERN DOTS-18}")


def test_losses_of_several_orders_are_logarithmic() -> None:
    curves = {"train": [(0, 100.0), (1, 10.0), (2, 1.0)]}
    assert draw_curves({"loss": curves}).axes[0].get_yscale() == "log"
    assert draw_curves({"r2": curves}).axes[0].get_yscale() == "linear"
    lines = _characters(curves, "loss")
    assert lines[0] == "loss (logarithmic)"
    assert lines[1].startswith("100 |")
    assert "t" in lines[3]  # 10 lies in the middle of 1 and 100
