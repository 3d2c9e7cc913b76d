from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mlp_lightning.errors import DataError, MLPLightningError
from mlp_lightning.tables.splits import random_split, stratified_split

LABELS_B = np.repeat([0, 1, 2], 50)


def uneven_labels() -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [300, 90, 30]))


@pytest.mark.parametrize(
    ("val_fraction", "test_fraction"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.3), (0.2, 0.2), (0.5, 0.4)]
)
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_parts_are_disjoint_complete_and_ascending(val_fraction: float, test_fraction: float, seed: int) -> None:
    parts = stratified_split(uneven_labels(), val_fraction, test_fraction, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(420))
    for part in parts:
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_share_of_every_part(seed: int) -> None:
    labels_B = uneven_labels()
    train, val, test = stratified_split(labels_B, 0.2, 0.1, seed)
    assert np.bincount(labels_B[test]).tolist() == [30, 9, 3]
    assert np.bincount(labels_B[val]).tolist() == [60, 18, 6]
    assert np.bincount(labels_B[train]).tolist() == [210, 63, 21]


@pytest.mark.parametrize("hundredths", [(5, 5), (10, 10), (10, 20), (20, 10), (15, 15), (30, 30), (10, 40), (33, 33)])
def test_sizes_are_the_fractions_of_all_rows(hundredths: tuple[int, int]) -> None:
    train, val, test = stratified_split(np.repeat([0, 1], 100), hundredths[0] / 100, hundredths[1] / 100, seed=0)
    # With 200 rows every one of these shares is a whole number.
    assert (len(val), len(test)) == (2 * hundredths[0], 2 * hundredths[1])
    assert len(train) == 200 - len(val) - len(test)


def test_a_fraction_of_zero_keeps_no_rows() -> None:
    train, val, test = stratified_split(LABELS_B, 0.0, 0.0, seed=0)
    assert train.tolist() == list(range(150))
    assert len(val) == len(test) == 0


def test_the_split_depends_on_the_seed_alone() -> None:
    expected = [part.tolist() for part in stratified_split(LABELS_B, 0.2, 0.2, seed=1)]
    for disturbance in range(3):
        random.seed(disturbance)
        np.random.seed(disturbance)
        torch.manual_seed(disturbance)
        assert [part.tolist() for part in stratified_split(LABELS_B, 0.2, 0.2, seed=1)] == expected
    others = {tuple(stratified_split(LABELS_B, 0.2, 0.2, seed)[1].tolist()) for seed in range(10)}
    assert len(others) == 10


def test_splitting_leaves_the_global_generators_alone() -> None:
    before = np.random.get_state()[1].copy()
    stratified_split(LABELS_B, 0.2, 0.2, seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_another_val_fraction_leaves_the_test_rows_where_they_are() -> None:
    test_rows = {
        tuple(stratified_split(LABELS_B, val_fraction, 0.2, 0)[2].tolist()) for val_fraction in (0.0, 0.1, 0.4)
    }
    assert len(test_rows) == 1


def test_validation_and_test_rows_are_drawn_independently() -> None:
    # One generator for both would pick the same positions of what is left.
    _, val_alone, _ = stratified_split(LABELS_B, 0.2, 0.0, seed=0)
    _, _, test_alone = stratified_split(LABELS_B, 0.0, 0.2, seed=0)
    assert val_alone.tolist() != test_alone.tolist()


@pytest.mark.parametrize(
    ("val_fraction", "test_fraction", "key"),
    [
        (0.01, 0.0, "data.val_fraction"),
        (0.0, 0.01, "data.test_fraction"),
        (0.99, 0.0, "data.val_fraction"),
        (0.5, 0.5, "data.val_fraction"),
        (0.6, 0.6, "data.val_fraction"),
        (0.2, 1.0, "data.test_fraction"),
    ],
)
def test_an_impossible_fraction_is_named(val_fraction: float, test_fraction: float, key: str) -> None:
    with pytest.raises(DataError) as caught:
        stratified_split(LABELS_B, val_fraction, test_fraction, seed=0)
    assert isinstance(caught.value, MLPLightningError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(key)


def test_the_message_has_the_fraction_and_the_number_of_rows() -> None:
    with pytest.raises(DataError, match=r"data\.val_fraction.*0\.01\b.* 150 rows"):
        stratified_split(LABELS_B, 0.01, 0.0, seed=0)


def test_the_message_has_the_fraction_as_it_was_given_beside_another() -> None:
    with pytest.raises(DataError, match=r"data\.val_fraction.*0\.01\b"):
        stratified_split(LABELS_B, 0.01, 0.2, seed=0)


def test_a_class_with_a_single_row_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"data\.val_fraction"):
        stratified_split(np.array([0] * 10 + [1]), 0.2, 0.0, seed=0)


# ---- rows without classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("val_fraction", "test_fraction"), [(0.0, 0.0), (0.2, 0.0), (0.1, 0.3), (0.5, 0.4)])
def test_a_random_split_is_disjoint_complete_ascending_and_of_exact_size(
    val_fraction: float, test_fraction: float
) -> None:
    train, val, test = random_split(50, val_fraction, test_fraction, seed=0)
    assert sorted([*train.tolist(), *val.tolist(), *test.tolist()]) == list(range(50))
    assert (len(val), len(test)) == (round(50 * val_fraction), round(50 * test_fraction))
    for part in (train, val, test):
        assert (np.diff(part) > 0).all()


def test_a_random_split_depends_on_the_seed_alone() -> None:
    first, again, other = (random_split(50, 0.2, 0.2, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_every_row_is_drawn_about_as_often_as_any_other() -> None:
    counts = np.zeros(20)
    for seed in range(400):
        counts[random_split(20, 0.25, 0.0, seed)[1]] += 1
    # 100 expected of each; the standard deviation is 9.
    assert (np.abs(counts - 100) < 45).all()


def test_an_impossible_random_split_is_named() -> None:
    with pytest.raises(DataError, match=r"data\.val_fraction: 0\.001 of 50 rows"):
        random_split(50, 0.001, 0.0, seed=0)
