"""The kind that is inferred for a column, and columns without a kind."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from support.tables import finite_tables, set_up

from mlp_lightning.config import ColumnConfig
from mlp_lightning.errors import DataError
from mlp_lightning.tables.columns import Column, ColumnReport, Origin, infer_columns

ORIGIN = Origin("the table", lambda row: f"line {row + 2}")
ROWS = 24
DRAW = np.random.default_rng(0)
DAYS = [datetime.datetime(2024, 1, 1) + datetime.timedelta(days=37 * row) for row in range(ROWS)]
SHUFFLED = DRAW.permutation(1000)[:ROWS].tolist()
FEW = [3, 1, 2] * 8


def report_of(
    table: pa.Table, train: Sequence[int] | None = None, kinds: dict[str, str] | None = None, max_one_hot: int = 9
) -> ColumnReport:
    rows = np.arange(table.num_rows) if train is None else np.array(train)
    wanted = {name: ColumnConfig(kind) for name, kind in (kinds or {}).items()}
    return infer_columns(table, table.column_names, rows, wanted, (max_one_hot, 1000), ORIGIN)


def kind_of(values: Any, name: str = "x", kind: str = "auto") -> str:
    """The kind that a column gets next to one that can be learned from; ``ignored: reason`` if it is ignored."""
    table = pa.table({"beside": DRAW.normal(size=len(values)), name: values})
    report = report_of(table, kinds={name: kind})
    if name in report.ignored:
        return f"ignored: {report.ignored[name]}"
    return next(one.kind for one in report.columns if one.name == name)


ALL_DIFFERENT = "ignored: all values differ, as names of rows do"
NUMBERED = "ignored: numbers the rows"
CASES: dict[str, tuple[Any, str]] = {
    "numbers": (DRAW.normal(size=ROWS), "numeric"),
    "few whole numbers": (FEW, "numeric"),
    "a constant number": ([7] * ROWS, "ignored: is always 7"),
    "a constant text": (["a"] * ROWS, "ignored: is always 'a'"),
    "a constant truth": ([True] * ROWS, "ignored: is always True"),
    "a constant with gaps": ([7.5, None] * 12, "numeric"),
    "a constant with NaN": ([7.5, float("nan")] * 12, "numeric"),
    "nothing": (pa.nulls(ROWS), "ignored: has no value"),
    "no number": (pa.nulls(ROWS, pa.float64()), "ignored: has no value"),
    "NaN alone": ([float("nan")] * ROWS, "ignored: has no value"),
    "truth values": ([True, False] * 12, "boolean"),
    "truth values with gaps": ([True, None, False] * 8, "boolean"),
    "words": (["a", "b", "c"] * 8, "categorical"),
    "words, all different": ([f"name {row}" for row in range(ROWS)], ALL_DIFFERENT),
    "words, all different but for gaps": ([*(f"name {row}" for row in range(ROWS)), None], ALL_DIFFERENT),
    "words, all but one different": ([*(f"name {row}" for row in range(ROWS)), "name 3"], "categorical"),
    "few words, all different": ([f"name {row}" for row in range(19)], "categorical"),
    "row numbers from 0": (list(range(ROWS)), NUMBERED),
    "row numbers from 1": (list(range(1, ROWS + 1)), NUMBERED),
    "row numbers with gaps between": ([2 * row - row % 2 for row in range(ROWS)], NUMBERED),
    "years": (list(range(1990, 1990 + ROWS)), "numeric"),
    "squares": ([row * row for row in range(ROWS)], "numeric"),
    "row numbers from the last": (list(range(ROWS, 0, -1)), "numeric"),
    "numbers of 64 bits": ([-(2**63), *range(ROWS), 2**63 - 1], "numeric"),
    "moments": (DAYS, "datetime"),
    "days": ([day.date() for day in DAYS], "datetime"),
    "words as categories": (pa.array(["a", "b"] * 12).dictionary_encode(), "categorical"),
    "mostly words": (["1", "2", "a", "b", "c", "d"] * 4, "categorical"),
}


@pytest.mark.parametrize("name", CASES)
def test_kind_by_the_values(name: str) -> None:
    values, kind = CASES[name]
    rows = len(values)
    beside, target = DRAW.normal(size=rows), (["a", "b"] * rows)[:rows]
    report = set_up(pa.table({"beside": beside, "x": values, "y": target})).rows.report
    found = {one.name: one.kind for one in report.columns}
    assert found.get("x", f"ignored: {report.ignored.get('x')}") == kind


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "ID",
        "Id",
        "row_id",
        "customer id",
        "PassengerId",
        "userID",
        "uuid",
        "Unnamed: 0",
        "sample.no",
        "Nr",
        "key",
    ],
)
def test_whole_numbers_that_are_called_identifiers(name: str) -> None:
    assert kind_of(SHUFFLED, name) == ALL_DIFFERENT
    # Of values that occur again there is something to learn; and measured numbers name no rows.
    assert kind_of([*SHUFFLED[1:], SHUFFLED[1]], name) == "numeric"
    assert kind_of(DRAW.normal(size=ROWS), name) == "numeric"
    assert kind_of(SHUFFLED, name, "numeric") == "numeric"


@pytest.mark.parametrize("name", ["acid", "paid", "humid", "grid", "number of rooms", "keys", "idle", "PAID", "nose"])
def test_names_that_only_look_like_identifiers(name: str) -> None:
    assert kind_of(SHUFFLED, name) == "numeric"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (FEW, "categorical"),
        (FEW, "numeric"),
        ([1, 0, 1] * 8, "boolean"),
        ([True, False] * 12, "numeric"),
        ([True, False] * 12, "categorical"),
        ([str(day) for day in DAYS], "datetime"),
        ([day.isoformat() for day in DAYS], "datetime"),
        (["true", "false"] * 12, "boolean"),
        (["1.5", "2", None] * 8, "numeric"),
        ([f"name {row}" for row in range(ROWS)], "categorical"),
        (DAYS, "categorical"),
        ([1.5, 2.5] * 12, "categorical"),
    ],
)
def test_a_given_kind_wins(values: Any, kind: str) -> None:
    assert kind_of(values, kind=kind) == kind


@pytest.mark.parametrize("kind", ["ignored", "numeric", "categorical", "boolean", "datetime"])
def test_a_kind_for_a_column_without_values(kind: str) -> None:
    expected = "ignored: as asked" if kind == "ignored" else kind
    assert kind_of(pa.nulls(ROWS), kind=kind) == expected


def test_a_column_can_be_left_out() -> None:
    assert kind_of(FEW, kind="ignored") == "ignored: as asked"


# ---- the description of a column ---------------------------------------------------------------------------


def test_vocabulary_is_that_of_the_training_rows_in_order() -> None:
    table = pa.table({"x": ["b", "é", None, "a", "b", "", "z"]})
    (column,) = report_of(table, range(6)).columns
    assert column == Column("x", "categorical", "string", True, ("", "a", "b", "é"), "one_hot")


@pytest.mark.parametrize(("categories", "encoding"), [(9, "one_hot"), (10, "embedding")])
def test_many_categories_are_embedded(categories: int, encoding: str) -> None:
    table = pa.table({"x": [f"{row % categories}a" for row in range(2 * categories)]})
    assert report_of(table).columns[0].encoding == encoding
    assert report_of(table, max_one_hot=0).columns[0].encoding == "embedding"


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_gap_counts_where_training_rows_have_it(gap: float | None) -> None:
    table = pa.table({"x": pa.array([1.0, 2.0, 3.0, gap], pa.float64())})
    assert report_of(table).columns[0].missing
    assert not report_of(table, [0, 1, 2]).columns[0].missing


@pytest.mark.parametrize(
    ("moments", "parts"),
    [
        (DAYS, ("year", "week")),
        ([datetime.datetime(2024, 1, 1, hour % 24) for hour in range(ROWS)], ("year", "week", "day")),
        ([datetime.datetime(2024, 1, 1) + datetime.timedelta(weeks=row) for row in range(ROWS)], ("year",)),
        ([datetime.datetime(2024, 1, 1, 12), *([None] * 23)], ()),
    ],
)
def test_cycles_in_which_moments_differ(moments: list[Any], parts: tuple[str, ...]) -> None:
    (column,) = report_of(pa.table({"x": pa.array(moments, pa.timestamp("us"))})).columns
    assert column.parts == parts


@settings(deadline=None, max_examples=60)
@given(finite_tables())
def test_columns_survive_a_checkpoint(table: pa.Table) -> None:
    try:
        report = report_of(table)
    except DataError:  # nothing to learn from, or numbers among words
        return
    assert sorted([*(one.name for one in report.columns), *report.ignored]) == sorted(table.column_names)
    for column in report.columns:
        assert Column.from_dict(json.loads(json.dumps(column.to_dict()))) == column


@settings(deadline=None, max_examples=60)
@given(finite_tables())
def test_only_training_rows_say_what_a_column_is(table: pa.Table) -> None:
    rows = table.num_rows
    doubled = pa.concat_tables([table, table.slice(0, 1)])
    reversed_ = pa.concat_tables([table, table.slice(rows - 1, 1)])
    try:
        expected = report_of(doubled, range(rows))
    except DataError:  # nothing to learn from, or numbers among words
        return
    assert report_of(reversed_, range(rows)) == expected


# ---- when nothing else is left -----------------------------------------------------------------------------


def test_identifiers_are_used_if_nothing_else_is_left() -> None:
    table = pa.table(
        {"id": SHUFFLED, "name": [f"n{row}" for row in range(ROWS)], "number": list(range(ROWS)), "c": [1] * ROWS}
    )
    report = report_of(table)
    assert [(one.name, one.kind) for one in report.columns] == [
        ("id", "numeric"),
        ("name", "categorical"),
        ("number", "numeric"),
    ]
    assert list(report.ignored) == ["c"]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match=r"the table has no column to learn from \(a: is always 1; b: has no value\)"):
        report_of(pa.table({"a": [1, 1], "b": pa.nulls(2)}))
    with pytest.raises(DataError, match="there is none beside the target"):
        infer_columns(pa.table({"y": [1, 2]}), [], np.arange(2), {}, (9, 1000), ORIGIN)


# ---- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [1, 5])
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_an_infinite_number_is_refused_with_its_row(infinity: float, row: int) -> None:
    values = [0.5, 1.5, 2.5, None, 4.0, 5.0]
    values[row] = infinity
    with pytest.raises(DataError, match=rf"line {row + 2}: column 'x' is infinite \(-?inf\)"):
        report_of(pa.table({"x": values}), [0, 1, 2, 3])
    assert report_of(pa.table({"x": values, "z": FEW[:6]}), kinds={"x": "ignored"}).ignored == {"x": "as asked"}


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        ("numeric", ["1", "2", "x", "3"], "line 4: column 'x' has 'x', which is not a number"),
        ("datetime", ["2024-01-01", "2024-01-02", "soon", "2024-01-03"], "line 4: column 'x' has 'soon'"),
        ("datetime", [20240101, 20240102, 20240103, 20240104], "line 2: column 'x' has 20240101"),
        ("boolean", [0, 1, 7, 1], "line 4: column 'x' has 7, which is not true or false"),
        ("boolean", ["true", "false", "perhaps", "true"], "line 4: column 'x' has 'perhaps'"),
        ("numeric", [DAYS[0]] * 4, "line 2: column 'x' has datetime.datetime"),
    ],
)
def test_a_kind_that_does_not_fit(kind: str, values: Any, text: str) -> None:
    with pytest.raises(DataError, match=re.escape(text)):
        report_of(pa.table({"x": values}), kinds={"x": kind})
    # Without the first row the row numbers are still those of the table.
    with pytest.raises(DataError, match=r"line \d: column 'x' has"):
        report_of(pa.table({"x": values}), [1, 2, 3], kinds={"x": kind})


def test_row_numbers_are_those_of_the_table_and_not_of_the_training_rows() -> None:
    table = pa.table({"x": ["2024-01-01", "2024-01-02", "2024-01-03", "soon"]})
    with pytest.raises(DataError, match="line 5: column 'x' has 'soon'"):
        report_of(table, [2, 3], kinds={"x": "datetime"})


def test_a_kind_for_a_column_that_is_not_there() -> None:
    table = pa.table({"height": FEW, "y": ["a", "b"] * 12})
    with pytest.raises(DataError, match="the table has no column 'heigth'; did you mean 'height'"):
        set_up(table, kinds={"heigth": "numeric"})


def test_row_numbers_of_some_of_the_rows() -> None:
    some = ORIGIN.of(np.array([5, 0]))
    assert (some.place(0), some.place(1), some.name) == ("line 7", "line 2", "the table")
    assert dataclasses.is_dataclass(some)
