"""Rows of several labels, split so that each label has its share of every part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.tables import table_options

from mlp_lightning.errors import DataError
from mlp_lightning.tables.label_splits import parts_by_labels
from mlp_lightning.tables.splits import random_split, stratified_split
from mlp_lightning.tables.table_splits import Parts, split_rows

Labels = NDArray[np.int64]


def labels_of(seed: int, rows: int, shares: list[float]) -> Labels:
    """Rows that have each label with its share; the last label only where they have the first."""
    labels_BL = (np.random.default_rng(seed).random((rows, len(shares))) < shares).astype(np.int64)
    labels_BL[:, -1] &= labels_BL[:, 0]
    return labels_BL


def sizes_of_folds(rows: int, folds: int) -> list[int]:
    return [len(one) for one in np.array_split(np.arange(rows), folds)]


def one_by_one(labels_BL: Labels, sizes: list[int], order: NDArray[np.int64], part_B: NDArray[np.int64]) -> None:
    """Deal the rows of one label after another in this order, and check each part against the algorithm's choice."""
    rows, room = len(labels_BL), np.array(sizes, dtype=float)
    lacking = np.outer(sizes, labels_BL.sum(0)) / rows
    waiting = order.tolist()
    while waiting:
        counts = labels_BL[waiting].sum(0)
        label = min((count, number) for number, count in enumerate(counts) if count) if counts.any() else None
        for row in [one for one in waiting if label is None or labels_BL[one, label[1]]]:
            lacks = room if label is None else lacking[:, label[1]]
            keys = [(round(lacks[part], 9), room[part]) if room[part] else (-np.inf, 0) for part in range(len(sizes))]
            assert keys[part_B[row]] == max(keys)
            room[part_B[row]] -= 1
            lacking[part_B[row]] -= labels_BL[row]
            waiting.remove(row)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 99), st.integers(8, 40), st.integers(1, 4), st.integers(2, 4))
def test_every_row_goes_where_the_published_algorithm_puts_it(seed: int, rows: int, labels: int, parts: int) -> None:
    labels_BL = labels_of(seed, rows, [0.4] * labels)
    labels_BL[:, labels_BL.mean(0) > 0.5] ^= 1
    sizes = sizes_of_folds(rows, parts)
    part_B = parts_by_labels(labels_BL, sizes, seed)
    one_by_one(labels_BL, sizes, np.random.default_rng(seed).permutation(rows), part_B)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 99), st.lists(st.integers(0, 30), min_size=2, max_size=6), st.integers(1, 5))
def test_sizes_are_exact_and_a_seed_repeats_its_parts(seed: int, sizes: list[int], labels: int) -> None:
    labels_BL = labels_of(seed, sum(sizes), [0.3] * labels)
    part_B = parts_by_labels(labels_BL, sizes, seed)
    assert np.bincount(part_B, minlength=len(sizes)).tolist() == sizes
    np.random.seed(1)
    np.testing.assert_array_equal(parts_by_labels(labels_BL, sizes, seed), part_B)


def test_another_seed_deals_other_rows() -> None:
    labels_BL = labels_of(0, 60, [0.3, 0.5, 0.2])
    assert len({parts_by_labels(labels_BL, [30, 30], seed).tobytes() for seed in range(10)}) == 10


def test_which_class_of_a_label_is_1_makes_no_difference() -> None:
    labels_BL = labels_of(3, 90, [0.1, 0.3, 0.2])
    np.testing.assert_array_equal(parts_by_labels(labels_BL, [30] * 3, 5), parts_by_labels(1 - labels_BL, [30] * 3, 5))


# ---- of tables ---------------------------------------------------------------------------------------------

SHARES = [0.5, 0.02, 0.3, 0.08, 0.95, 0.4]


def folds_of(labels_BL: Labels, folds: int, held_out_as: str = "test", **options: Any) -> list[Parts]:
    table = pa.table({"x": np.arange(len(labels_BL))})
    return [
        split_rows(table, labels_BL, table_options(cv=(folds, fold, held_out_as), **options), 0, "t")
        for fold in range(folds)
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.1, 0.1), (0.25, 0.3)])
def test_every_label_has_its_share_of_every_split(seed: int, val: float, test: float) -> None:
    labels_BL = labels_of(seed, 400, SHARES)
    parts = stratified_split(labels_BL, val, test, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))
    assert [len(one) for one in parts[1:]] == [round(400 * val), round(400 * test)]
    whole = labels_BL.sum(0)
    for part in parts:
        # At most two rows from the exact share; at random the common labels are off by ten.
        assert np.abs(labels_BL[part].sum(0) - whole * len(part) / 400).max() <= 2


def test_a_random_split_is_not_as_even() -> None:
    labels_BL = labels_of(0, 400, SHARES)
    far = [
        np.abs(labels_BL[random_split(400, 0.25, 0.3, seed)[1]].sum(0) - labels_BL.sum(0) / 4).max()
        for seed in range(8)
    ]
    assert min(far) > 2


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("rows", [100, 211])
def test_every_fold_has_every_label_of_as_many_rows(folds: int, rows: int) -> None:
    labels_BL = labels_of(rows, rows, SHARES)
    parts = folds_of(labels_BL, folds, val_fraction=0.2)
    assert sorted(np.concatenate([one["test"] for one in parts]).tolist()) == list(range(rows))
    for one in parts:
        together = np.concatenate(list(one.values()))
        assert sorted(together.tolist()) == list(range(rows))
        for label_B in labels_BL.T:
            for value in (0, 1):
                if (label_B == value).sum() >= folds:
                    assert (label_B[one["test"]] == value).any()
    counts = np.array([labels_BL[one["test"]].sum(0) for one in parts])
    assert (counts.max(0) - counts.min(0)).max() <= 3


def test_folds_do_not_depend_on_the_fold_that_is_asked_for_and_validation_rows_are_even() -> None:
    labels_BL = labels_of(1, 300, SHARES)
    for one in folds_of(labels_BL, 5, val_fraction=0.25):
        assert len(one["val"]) == 60
        rest = len(one["val"]) + len(one["train"])
        expected = (labels_BL[one["val"]].sum(0) + labels_BL[one["train"]].sum(0)) * 60 / rest
        assert np.abs(labels_BL[one["val"]].sum(0) - expected).max() <= 2


def test_whole_groups_stay_together() -> None:
    labels_BL = labels_of(2, 60, [0.5, 0.2])
    table = pa.table({"g": np.arange(60) // 3})
    held_out = [
        split_rows(table, labels_BL, table_options(cv=(4, fold), group_column="g"), 0, "t")["test"] for fold in range(4)
    ]
    assert sorted(np.concatenate(held_out).tolist()) == list(range(60))
    assert sum(len(set((rows // 3).tolist())) for rows in held_out) == 20


@pytest.mark.parametrize(("val", "test", "key"), [(0.001, 0.0, "val"), (0.6, 0.4, "val"), (0.0, 0.999, "test")])
def test_an_impossible_fraction_is_named(val: float, test: float, key: str) -> None:
    with pytest.raises(
        DataError, match=rf"data\.{key}_fraction: \S+ of 50 rows cannot be split off: they are \d+ rows"
    ):
        stratified_split(labels_of(0, 50, [0.5, 0.2]), val, test, seed=0)


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.cv\.folds = 13 is not possible: the table has 12 rows"):
        folds_of(labels_of(0, 12, [0.5, 0.2]), 13)


@pytest.mark.parametrize("folds", [3, 8])
def test_bagged_folds_have_every_label_too(folds: int) -> None:
    """Test rows are split off before all folds, and each fold validates with its rows."""
    labels_BL = labels_of(6, 240, SHARES)
    parts = folds_of(labels_BL, folds, held_out_as="val", test_fraction=0.2)
    assert len({one["test"].tobytes() for one in parts}) == 1
    assert len(parts[0]["test"]) == 48
    held_out = np.concatenate([one["val"] for one in parts])
    assert sorted([*held_out.tolist(), *parts[0]["test"].tolist()]) == list(range(240))
    for one in [*(part["val"] for part in parts), parts[0]["test"]]:
        assert np.abs(labels_BL[one].sum(0) - labels_BL.sum(0) * len(one) / 240).max() <= 2
