"""Which rows of a table train, validate and test."""

from __future__ import annotations

import datetime
import itertools
import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from support.tables import rows_of, set_up, table_options
from support.tolerances import assert_close

from mlp_lightning.errors import DataError
from mlp_lightning.tables.table_splits import Parts, split_rows

SPLITS = ("train", "val", "test")


def parts_of(
    columns: dict[str, Any], labels: NDArray[np.int64] | None = None, seed: int = 0, rows: int = 0, **options: Any
) -> Parts:
    """The parts of a table, which are checked to be disjoint and in order."""
    table = pa.table({"x": np.arange(rows or len(next(iter(columns.values())))), **columns})
    parts = split_rows(table, labels, table_options(**options), seed, "the table")
    assert list(parts) == list(SPLITS)
    together = np.concatenate(list(parts.values()))
    assert len(set(together.tolist())) == len(together)
    for part in parts.values():
        assert (np.diff(part) > 0).all()
    return parts


def assert_all_rows(parts: Parts, rows: int) -> None:
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(rows))


# ---- at random ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 20), st.sampled_from([0.0, 0.1, 0.25, 0.3]), st.sampled_from([0.0, 0.1, 0.2]), st.booleans())
def test_fractions_of_every_class(seed: int, val: float, test: float, stratified: bool) -> None:
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    np.random.default_rng(seed).shuffle(labels)
    options = {"val_fraction": val, "test_fraction": test}
    parts = parts_of({}, labels if stratified else None, seed, 100, **options)
    assert_all_rows(parts, 100)
    for split, share in (("val", val), ("test", test)):
        assert len(parts[split]) == round(100 * share)
        if stratified:
            counts = np.bincount(labels[parts[split]], minlength=3)
            assert np.abs(counts - np.array([50, 30, 20]) * share).max() <= 1


def test_the_seed_decides_and_nothing_else() -> None:
    labels = np.arange(60) % 3
    options: dict[str, Any] = {"val_fraction": 0.2, "test_fraction": 0.2, "rows": 60}
    first, again, other = (parts_of({}, labels, seed, **options) for seed in (1, 1, 2))
    assert all(first[split].tolist() == again[split].tolist() for split in SPLITS)
    assert first["val"].tolist() != other["val"].tolist()
    assert first["test"].tolist() != other["test"].tolist()
    # Without test rows the others are drawn from all rows, and there are as many of them.
    assert len(parts_of({}, labels, 1, **{**options, "test_fraction": 0.0})["val"]) == 12


def test_a_fraction_too_small_for_every_class() -> None:
    with pytest.raises(DataError, match=r"data\.val_fraction: 0\.1 of 12 rows cannot be split off with every class"):
        parts_of({}, np.arange(12) % 3, rows=12, val_fraction=0.1)


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 0, 1, 2, 2])])
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.5, 0.6, 0.95])
def test_few_rows(labels: Any, split: str, fraction: float) -> None:
    """Refused exactly where scikit-learn cannot split, in our own words."""
    options: dict[str, Any] = {"val_fraction": 0.0, "test_fraction": 0.0, f"{split}_fraction": fraction}
    size = round(fraction * 6)
    fewest = 1 if labels is None else 3
    try:
        train_test_split(np.arange(6), test_size=size, stratify=labels)
        is_possible = True
    except ValueError:
        is_possible = False
    assert is_possible == (fewest <= size <= 6 - fewest)
    if is_possible:
        assert len(parts_of({}, labels, rows=6, **options)[split]) == size
        return
    with pytest.raises(DataError) as caught:
        parts_of({}, labels, rows=6, **options)
    text = str(caught.value)
    assert text.startswith(f"data.{split}_fraction: {fraction:g} of 6 rows cannot be split off")
    assert f"they are {size} row{'' if size == 1 else 's'} and leave" in text
    assert ("3 classes, the smallest of them 2 rows" in text) == (labels is not None)
    assert f"data.{split}_fraction=0 for none" in text
    assert "test_size" not in text


def test_a_class_that_has_one_row_left_after_the_test_rows() -> None:
    labels = np.array([0] * 20 + [1] * 2)
    with pytest.raises(DataError, match=r"data\.val_fraction: 0\.3 of 22 rows .* the smallest of them 1 row\."):
        parts_of({}, labels, rows=22, val_fraction=0.3, test_fraction=0.3)


# ---- by group ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.sampled_from("abcdefghijklm"), min_size=8, max_size=60),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 5),
    st.booleans(),
)
def test_no_group_is_in_two_splits(groups: list[str], val: float, test: float, seed: int, whole: bool) -> None:
    assume(len(set(groups)) >= 3)
    column = [ord(one) for one in groups] if whole else groups
    labels = np.arange(len(groups)) % 2
    try:
        parts = parts_of({"g": column}, labels, seed, group_column="g", val_fraction=val, test_fraction=test)
    except DataError as error:
        # Few large groups may leave none to train on.
        assert "too few for training rows" in str(error)  # noqa: PT017
        return
    assert_all_rows(parts, len(groups))
    found = [{groups[row] for row in part} for part in parts.values()]
    assert sum(map(len, found)) == len(set(groups))
    largest = max(Counter(groups).values())
    for split, share in (("val", val), ("test", test)):
        assert bool(len(parts[split])) == (share > 0)
        assert abs(len(parts[split]) - share * len(groups)) <= largest


def test_groups_are_drawn_by_the_seed() -> None:
    column = {"g": np.arange(100) // 5}
    options: dict[str, Any] = {"group_column": "g", "val_fraction": 0.2, "test_fraction": 0.2}
    found = {tuple(parts_of(column, None, seed, **options)["test"].tolist()) for seed in range(8)}
    assert len(found) > 4
    assert tuple(parts_of(column, None, 3, **options)["test"].tolist()) in found
    assert {len(one) for one in found} == {20}


@pytest.mark.parametrize("groups", [["a"] * 10, ["a", "b"] * 5])
def test_too_few_groups(groups: list[str]) -> None:
    text = f"data.group_column has {len(set(groups))} groups, too few for training rows"
    with pytest.raises(DataError, match=re.escape(text)):
        parts_of({"g": groups}, group_column="g", val_fraction=0.2, test_fraction=0.2)


@pytest.mark.parametrize("role", ["group", "time"])
def test_a_group_or_a_time_is_never_missing(role: str) -> None:
    text = rf"the table: data\.{role}_column 'g' has no value in 2 rows\. Fill it, or leave them out"
    column: dict[str, Any] = {f"{role}_column": "g"}
    with pytest.raises(DataError, match=text):
        parts_of({"g": [1, None, 2, None, 3]}, **column, val_fraction=0.2)


# ---- by time -----------------------------------------------------------------------------------------------


def assert_one_after_the_other(times: Any, parts: Parts) -> None:
    found = [[times[row] for row in part] for part in parts.values() if len(part)]
    for before, after in itertools.pairwise(found):
        assert max(before) < min(after)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 30), min_size=6, max_size=40),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from(["whole", "number", "moment"]),
)
def test_every_split_is_later_than_the_one_before(times: list[int], val: float, test: float, kind: str) -> None:
    epoch = datetime.datetime(2024, 1, 1)
    column: Any = {
        "whole": times,
        "number": [one / 7 for one in times],
        "moment": [epoch + datetime.timedelta(hours=one) for one in times],
    }[kind]
    try:
        parts = parts_of({"t": column}, time_column="t", val_fraction=val, test_fraction=test)
    except DataError as error:
        assert "rows are left" in str(error)  # noqa: PT017
        return
    assert_all_rows(parts, len(times))
    assert_one_after_the_other(times, parts)
    assert [bool(len(parts[split])) for split in SPLITS] == [True, val > 0, test > 0]


@pytest.mark.parametrize("values", [[f"week {one}" for one in range(12)], [True, False] * 6])
def test_times_are_moments_or_numbers(values: list[Any]) -> None:
    text = f"the table: data.time_column 't' has {values[0]!r}, and must hold dates, times or numbers"
    with pytest.raises(DataError, match=re.escape(text)):
        parts_of({"t": values}, time_column="t", val_fraction=0.2)


def test_the_last_rows_are_the_test_rows() -> None:
    parts = parts_of({"t": [5, 1, 9, 3, 7, 0, 8, 2, 6, 4]}, time_column="t", val_fraction=0.3, test_fraction=0.2)
    assert parts["test"].tolist() == [2, 6]
    assert parts["val"].tolist() == [0, 4, 8]
    # Three rows of one moment: all of them train.
    tied = parts_of({"t": [1, 2, 2, 2, 3, 4]}, time_column="t", val_fraction=0.5)
    assert [tied[split].tolist() for split in SPLITS] == [[0, 1, 2, 3], [4, 5], []]


def test_a_single_moment_cannot_be_split() -> None:
    text = r"data\.time_column: no val rows are left of 10 rows with 1 different moments\. Change data\.val_fraction"
    with pytest.raises(DataError, match=text):
        parts_of({"t": [7] * 10}, time_column="t", val_fraction=0.2)


# ---- by a column -------------------------------------------------------------------------------------------


def test_a_split_column_decides() -> None:
    words = ["train", "Val", " TEST ", "training", None, "valid", "", "validation", "train"]
    parts = parts_of({"s": words}, split_column="s", val_fraction=0.5, test_fraction=0.4)
    assert [parts[split].tolist() for split in SPLITS] == [[0, 3, 8], [1, 5, 7], [2]]


def test_a_split_column_with_another_value() -> None:
    with pytest.raises(DataError, match=r"the table: data\.split_column 's' has 'dev'; it must be train, val or test"):
        parts_of({"s": ["train", "dev"]}, split_column="s")
    with pytest.raises(DataError, match=r"data\.split_column 's' marks no row as train"):
        parts_of({"s": ["val", "test"]}, split_column="s")
    with pytest.raises(DataError, match="has '1'; it must be train, val or test"):
        parts_of({"s": [1, 0]}, split_column="s")


# ---- separate files ----------------------------------------------------------------------------------------


def write(path: Any, rows: list[str]) -> str:
    path.write_text("\n".join(["x,colour,y", *rows]) + "\n")
    return str(path)


def test_separate_files_are_the_splits(tmp_path) -> None:
    train = write(tmp_path / "train.csv", [f"{row},{'ab'[row % 2]},{row % 2}" for row in range(10)])
    val = write(tmp_path / "val.csv", ["100,c,1", "0,a,", "1,,0"])
    test = write(tmp_path / "test.csv", ["5,b,0"])
    data = set_up(path=train, val_path=val, test_path=test, val_fraction=0.4, test_fraction=0.4)
    assert {split: rows_of(data, split) for split in SPLITS} == {"train": list(range(10)), "val": [0, 2], "test": [0]}
    assert_close(data.splits["val"].targets[:, 0], [1, 0])
    assert_close(data.splits["val"].features_BF[:, 0], (np.array([100, 1]) - 4.5) / np.arange(10).std(), 1e-5)
    assert data.splits["val"].features_BF[:, 1:].tolist() == [[0, 0], [0, 0]]
    assert any("val: colour: 1 values that no training row has" in line for line in data.describe())
    assert any("val: colour: 1 missing values" in line for line in data.describe())
    # With a file for validation, test rows are still split off.
    both = set_up(path=train, val_path=val, val_fraction=0.4, test_fraction=0.4)
    assert [len(both.splits[split]) for split in SPLITS] == [6, 2, 4]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["1,a,2"], "val.csv, line 2: column 'y' has the class 2, which the model does not know (it knows 0, 1)"),
        (["1,a,", "2,b,"], "val.csv: no row has a value of y"),
        (["1,a,1", "many,b,0"], "val.csv, line 3: column 'x' has numbers in 1 row (such as '1'), but 'many' here"),
        (["inf,a,1"], "val.csv, line 2: column 'x' is infinite"),
    ],
)
def test_a_file_of_validation_rows_that_does_not_fit(tmp_path, rows: list[str], text: str) -> None:
    train = write(tmp_path / "train.csv", [f"{row},{'ab'[row % 2]},{row % 2}" for row in range(10)])
    with pytest.raises(DataError, match=re.escape(text)):
        set_up(path=train, val_path=write(tmp_path / "val.csv", rows))


def test_a_file_of_validation_rows_without_a_column(tmp_path) -> None:
    train = write(tmp_path / "train.csv", [f"{row},{'ab'[row % 2]},{row % 2}" for row in range(10)])
    (tmp_path / "val.csv").write_text("x,color,y\n1,a,0\n")
    with pytest.raises(DataError, match=r"val\.csv has no column 'colour'; did you mean 'color'"):
        set_up(path=train, val_path=str(tmp_path / "val.csv"))


# ---- folds -------------------------------------------------------------------------------------------------


def held_out_of(columns: dict[str, Any], labels: NDArray[np.int64] | None, folds: int, **options: Any) -> list[Any]:
    """The rows that each fold holds out; every fold is checked to have all rows."""
    rows = len(next(iter(columns.values())))
    found = []
    for fold in range(folds):
        parts = parts_of(columns, labels, cv=(folds, fold), **options)
        assert_all_rows(parts, rows)
        found.append(parts["test"].tolist())
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(0, 3), st.sampled_from([0.0, 0.2]), st.integers(30, 60), st.booleans())
def test_every_row_is_held_out_once(folds: int, seed: int, val: float, rows: int, stratified: bool) -> None:
    labels = (np.arange(rows) % 5 == 0).astype(np.int64) if stratified else None
    columns = {"z": np.arange(rows)}
    # The share of test rows has no meaning here.
    held_out = held_out_of(columns, labels, folds, seed=seed, val_fraction=val, test_fraction=0.5)
    assert sorted(itertools.chain(*held_out)) == list(range(rows))
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1
    if labels is not None:
        counts = [int(labels[one].sum()) for one in held_out]
        assert max(counts) - min(counts) <= 1
    assert held_out == held_out_of(columns, labels, folds, seed=seed)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=50), st.integers(2, 4), st.booleans())
def test_a_group_is_held_out_together(groups: list[int], folds: int, stratified: bool) -> None:
    labels = np.arange(len(groups)) % 2 if stratified else None
    assume(len(set(groups)) > folds)
    held_out = held_out_of({"g": groups}, labels, folds, group_column="g")
    assert sorted(itertools.chain(*held_out)) == list(range(len(groups)))
    found = [{groups[row] for row in one} for one in held_out]
    assert sum(map(len, found)) == len(set(groups))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=12, max_size=50), st.integers(2, 4))
def test_of_times_each_fold_is_later_than_what_it_is_trained_on(times: list[int], folds: int) -> None:
    assume(len(set(times)) > folds)
    before: list[int] = []
    for fold in range(folds):
        try:
            parts = parts_of({"t": times}, cv=(folds, fold), time_column="t", val_fraction=0.1)
        except DataError as error:
            assert "no val rows are left" in str(error)  # noqa: PT017
            return
        assert_one_after_the_other(times, parts)
        held_out = parts["test"].tolist()
        assert not before or max(times[row] for row in before) < min(times[row] for row in held_out)
        before = held_out
    assert max(times) in {times[row] for row in before}


@pytest.mark.parametrize(
    ("columns", "labels", "options", "text"),
    [
        ({}, None, {"cv": (13, 0)}, "data.cv.folds = 13 is not possible: the table has 12 rows. Use at most 12 folds."),
        ({}, np.array([0] * 9 + [1] * 3), {"cv": (4, 0)}, "a class has 3 rows, fewer than data.cv.folds = 4"),
        ({}, np.array([0] * 9 + [1] * 3), {"cv": (4, 0)}, "Use at most 3 folds"),
        ({"g": [0, 1, 2] * 4}, None, {"cv": (4, 0), "group_column": "g"}, "data.group_column has 3 groups. Use"),
        ({"g": [0, 1, 2] * 4}, np.arange(12) % 2, {"cv": (4, 0), "group_column": "g"}, "3 groups. Use at most 3 folds"),
        ({"g": [0, 1, 2] * 4}, None, {"cv": (3, 0), "time_column": "g"}, "3 different moments. Use at most 2 folds."),
        ({"g": range(12)}, np.arange(12), {"cv": (2, 0), "group_column": "g"}, "no class has a row for each fold"),
    ],
)
def test_impossible_folds(columns: Any, labels: Any, options: Any, text: str) -> None:
    with pytest.raises(DataError, match=re.escape(text)):
        parts_of(columns, labels, rows=12, **options)


def test_a_fold_that_scikit_learn_leaves_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some versions do for fewer groups than folds, and all of them for some mixtures of groups and classes."""
    from sklearn.model_selection import StratifiedGroupKFold

    empty = [(np.arange(12), np.arange(0)), (np.arange(6), np.arange(6, 12))]
    monkeypatch.setattr(StratifiedGroupKFold, "split", lambda *_: iter(empty))
    for fold in (0, 1):  # the other folds would be measured without their rows
        with pytest.raises(DataError, match=r"leave a fold without rows, .* Use fewer folds"):
            parts_of({"g": [0, 1, 2] * 4}, np.arange(12) % 2, rows=12, cv=(2, fold), group_column="g")


def test_a_class_of_few_rows_in_folds_of_groups() -> None:
    # Fewer rows of a class than folds is what groups may bring: no warning, and no error.
    labels = np.array([0] * 20 + [1] * 2)
    held_out = held_out_of({"g": np.arange(22) // 2}, labels, 4, group_column="g")
    assert sorted(itertools.chain(*held_out)) == list(range(22))
