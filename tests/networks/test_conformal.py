"""Conformal intervals against their definitions, and against what they promise."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_lightning.networks.conformal import cv_plus, least_count, rank, split_half_widths

LEVELS = st.integers(1, 999).map(lambda one: one / 1000)


@given(LEVELS, st.integers(1, 3000))
def test_the_rank_is_that_of_exact_arithmetic(level, count) -> None:
    exact = (count + 1) * Fraction(round(level * 1000), 1000)
    assert rank(count, level) == -(-exact.numerator // exact.denominator)
    assert (rank(count, level) <= count) == (count >= least_count(level))


def test_a_rank_that_rounding_would_raise() -> None:
    """In floating point 100 * 0.07 is above 7, and 1000 * 0.001 + … likewise."""
    assert math.ceil(100 * 0.07) == 8
    assert rank(99, 0.07) == rank(99, np.float64(0.07)) == 7


@pytest.mark.parametrize(("count", "level"), [(9, 0.9), (40, 0.5), (57, 0.83), (200, 0.95), (3, 0.2)])
def test_cv_plus_is_its_definition(count, level) -> None:
    """By sorted lists, row by row and target by target."""
    random = np.random.default_rng(count)
    predictions_GBT, residuals_NT = random.normal(size=(4, 7, 2)), random.exponential(size=(count, 2))
    fold_N = random.integers(0, 4, count)
    low_BT, high_BT = cv_plus(predictions_GBT, residuals_NT, fold_N, level)
    place = math.ceil(round((count + 1) * level, 9))
    for row in range(7):
        for target in range(2):
            pairs = [
                (predictions_GBT[fold, row, target], r[target]) for fold, r in zip(fold_N, residuals_NT, strict=True)
            ]
            assert high_BT[row, target] == sorted(mean + r for mean, r in pairs)[place - 1]
            assert low_BT[row, target] == sorted((mean - r for mean, r in pairs), reverse=True)[place - 1]


def test_cv_plus_of_many_rows_is_that_of_each(monkeypatch) -> None:
    random = np.random.default_rng(3)
    of_all = random.normal(size=(3, 50, 1)), random.exponential(size=(30, 1)), random.integers(0, 3, 30), 0.8
    expected = cv_plus(*of_all)
    monkeypatch.setattr("mlp_lightning.networks.conformal._NUMBERS_AT_ONCE", 70)
    assert np.array_equal(cv_plus(*of_all), expected)


def test_folds_that_agree_give_the_split_interval() -> None:
    random = np.random.default_rng(4)
    residuals_NT, mean_BT = random.exponential(size=(60, 2)), random.normal(size=(5, 2))
    low_BT, high_BT = cv_plus(np.stack([mean_BT] * 3), residuals_NT, random.integers(0, 3, 60), 0.9)
    half_T = split_half_widths(residuals_NT, 0.9)
    np.testing.assert_allclose(np.stack([low_BT, high_BT]), np.stack([mean_BT - half_T, mean_BT + half_T]), rtol=1e-12)


@pytest.mark.parametrize(("count", "level"), [(19, 0.9), (30, 0.5), (25, 0.95)])
def test_split_intervals_hold_the_share_that_is_proven(count, level) -> None:
    """Of residuals without ties the share is ``rank / (count + 1)`` exactly; whatever their distribution."""
    random = np.random.default_rng(count)
    trials = 6_000
    draws = random.standard_cauchy((trials, count + 1)).__abs__()
    inside = sum(one[-1] <= split_half_widths(one[:-1, None], level)[0] for one in draws) / trials
    expected = rank(count, level) / (count + 1)
    assert expected >= level
    assert inside == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / trials))


@pytest.mark.parametrize(("features", "most"), [(25, 1.0), (3, 0.86)])
def test_cv_plus_holds_at_least_what_is_proven(features, most) -> None:
    """Of linear regressions; with nearly as many features as rows, leaving a fold out changes a lot."""
    random = np.random.default_rng(9)
    rows, folds, level, inside, trials = 40, 5, 0.8, 0, 600
    fold_N = np.arange(rows) % folds
    for _ in range(trials):
        x_BF = random.normal(size=(rows + 1, features))
        y_B = x_BF @ random.normal(size=features) + random.normal(size=rows + 1)
        predictions_G, residuals_N = np.empty(folds), np.empty(rows)
        for fold in range(folds):
            fitted = fold_N != fold
            slope_F = np.linalg.lstsq(x_BF[:-1][fitted], y_B[:-1][fitted], rcond=None)[0]
            predictions_G[fold] = x_BF[-1] @ slope_F
            residuals_N[~fitted] = np.abs(y_B[:-1] - x_BF[:-1] @ slope_F)[~fitted]
        (low,), (high,) = (one[0] for one in cv_plus(predictions_G[:, None, None], residuals_N[:, None], fold_N, level))
        inside += low <= y_B[-1] <= high
    assert 1 - 2 * (1 - level) <= inside / trials <= most
