"""The metrics of an evaluation as displayed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from mlp_lightning.inference.evaluation.table import (
    evaluation_lines,
    evaluation_table,
    metric_name,
    metric_text,
    parts_lines,
    parts_table,
)
from mlp_lightning.networks.tasks.metrics import classification_metrics, per_class, per_output, regression_metrics

METRICS = {"rows": 123456, "accuracy": 0.123456789, "roc_auc": None}
ROWS = [
    {"class": "[bold]no[/bold]", "rows": 3, "precision": 2 / 3, "recall": 1.0, "f1": 0.8},
    {"class": "yes\nor maybe", "rows": 0, "precision": None, "recall": None, "f1": None},
]


def shown(table, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """The lines of a terminal, without what it has of blanks at their ends."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width, force_terminal=True, color_system=None).print(table)
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()]


def words(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines if set(line) - set("─- ")]


def test_table_and_lines_say_the_same() -> None:
    expected = [
        ["Test", "metrics"],
        ["metric", "value"],
        ["rows", "123456"],
        ["accuracy", "0.12346"],
        ["ROC", "AUC", "undefined"],
    ]
    assert words(shown(evaluation_table(METRICS, "Test metrics"))) == expected
    assert words(evaluation_lines(METRICS, "Test metrics")) == expected


def test_classes() -> None:
    lines = parts_lines(ROWS, "Per class")
    assert lines == [
        "Per class",
        "  class            rows  precision     recall         F1",
        "  [bold]no[/bold]     3    0.66667          1        0.8",
        "  yes or maybe        0  undefined  undefined  undefined",
    ]
    assert words(shown(parts_table(ROWS, "Per class"))) == words(lines)


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (0.5, "0.5"),
        (1e-9, "1e-09"),
        (14686.4321, "14686"),
        (1234567.0, "1.2346e+06"),
        (1234567, "1234567"),
        (None, "undefined"),
    ],
)
def test_metric(metric, text) -> None:
    assert metric_text(metric) == text


def test_every_metric_has_its_name() -> None:
    random = np.random.default_rng(0)
    metrics = classification_metrics(np.array([0, 1]), np.array([[0.2, 0.8], [0.4, 0.6]]))
    metrics |= regression_metrics(*random.normal(size=(2, 5, 1)))
    assert [metric_name(key) for key in metrics] == [
        "rows",
        "accuracy",
        "balanced accuracy",
        "macro F1",
        "ROC AUC",
        "average precision",
        "log loss",
        "Brier score",
        "expected calibration error",
        "RMSE",
        "MAE",
        "median absolute error",
        "R2",
    ]


def test_outputs_of_a_regression() -> None:
    rows = per_output(np.array([[1.0, 5], [2, 5]]), np.array([[1.0, 5], [2, 5]]), ["u", "v"])
    table = words(shown(parts_table(rows, "Per output")))
    assert table[-2:] == [["u", "2", "0", "0", "0", "1"], ["v", "2", "0", "0", "0", "undefined"]]


@pytest.mark.parametrize("classes", [50, 51, 1000])
def test_of_many_classes_the_first(classes) -> None:
    labels = np.arange(classes)
    rows = per_class(labels, labels, [f"class-{one}" for one in range(classes)])
    for lines in (shown(parts_table(rows, "Per class")), parts_lines(rows, "Per class")):
        assert [one for one in words(lines) if one[0] == "class-49"] == [["class-49", "1", "1", "1", "1"]]
        assert not [one for one in words(lines) if one[0] == "class-50"]
        hidden = classes - 50
        assert (words(lines)[-1] == ["...", str(hidden), "more"]) == (hidden > 0)


@pytest.mark.parametrize("width", [40, 60])
def test_nothing_is_cut_off_in_a_narrow_terminal(width) -> None:
    rows = [{**ROWS[0], "class": "a-long-name-" * 5, "precision": 0.98765}]
    lines = shown(parts_table(rows, "Per class"), width)
    assert all(len(line) <= width for line in lines)
    letters = "".join(lines)
    assert "…" not in letters
    assert letters.count("-") >= 10
    assert all(letters.count(digit) for digit in "98765")


def test_a_terminal_that_knows_only_ascii() -> None:
    assert words(shown(evaluation_table(METRICS, "T"), encoding="ascii"))[1] == ["metric", "|", "value"]
    assert "\n".join(evaluation_lines(METRICS, "T")).isascii()
