from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.config.names import SYNTHETIC_SETS
from mlp_lightning.errors import ConfigError
from mlp_lightning.tables.datasets.synthetic import synthetic_table

CLASSES = {"moons": 2, "circles": 2, "spirals": 2, "blobs": 3}
DRAWN = [*CLASSES, "friedman"]
NAMES = st.sampled_from(SYNTHETIC_SETS)
SEEDS = st.integers(0, 2**32 - 1)


def drawn(name: str, samples: int = 100, noise: float = 0.0, bits: int = 4, seed: int = 0) -> pa.Table:
    return synthetic_table(name, samples, noise, bits, seed)[0]


def arrays(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Features (B, F) and the last column (B,)."""
    *features, target = (column.to_numpy() for column in table.columns)
    return np.column_stack(features), target.copy()  # torch warns of memory that it may not write to


@given(name=NAMES, samples=st.integers(3, 60), noise=st.floats(0, 10), bits=st.integers(1, 6), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_shape_types_and_no_missing_value(name: str, samples: int, noise: float, bits: int, seed: int) -> None:
    table, targets = synthetic_table(name, samples, noise, bits, seed)
    features = {"parity": bits, "friedman": 10}.get(name, 2)
    assert targets == (["y"] if name == "friedman" else ["label"])
    assert table.column_names == [f"x{number}" for number in range(1, features + 1)] + targets
    assert table.num_rows == (2**bits if name == "parity" else samples)
    assert table.schema.types[:-1] == [pa.float64()] * features
    assert table.schema.types[-1] == (pa.float64() if name == "friedman" else pa.int64())
    for column in table.columns:
        assert column.null_count == 0
        assert np.isfinite(column.to_numpy()).all()


@given(name=NAMES, seed=SEEDS, first=st.integers(0, 1000), second=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rows_depend_on_the_arguments_and_not_on_global_state(name: str, seed: int, first: int, second: int) -> None:
    tables = []
    for state in (first, second):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        tables.append(drawn(name, samples=20, noise=0.3, seed=seed))
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("name", SYNTHETIC_SETS)
def test_global_random_states_are_left_alone(name: str) -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), repr(np.random.get_state(legacy=False)), torch.get_rng_state().tolist()

    before = states()
    drawn(name, noise=0.3)
    assert states() == before


@pytest.mark.parametrize("name", DRAWN)
def test_seed_noise_and_samples_each_matter(name: str) -> None:
    table = drawn(name, noise=0.1)
    assert not table.equals(drawn(name, noise=0.1, seed=1))
    assert not table.equals(drawn(name, noise=0.2))
    assert drawn(name, samples=101, noise=0.1).num_rows == 101
    assert table.equals(drawn(name, noise=0.1, bits=7))


@pytest.mark.parametrize("name", CLASSES)
@given(samples=st.integers(3, 200), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_classes_are_balanced(name: str, samples: int, seed: int) -> None:
    _, labels = arrays(drawn(name, samples=samples, noise=0.1, seed=seed))
    counts = np.bincount(labels, minlength=CLASSES[name])
    assert len(counts) == CLASSES[name]
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", CLASSES)
def test_classes_do_not_come_one_after_the_other(name: str) -> None:
    _, labels = arrays(drawn(name))
    for half in (labels[:50], labels[50:]):
        assert set(half) == set(range(CLASSES[name]))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("moons", lambda: datasets.make_moons(30, noise=0.2, random_state=5)),
        ("circles", lambda: datasets.make_circles(30, noise=0.2, random_state=5, factor=0.5)),
        ("friedman", lambda: datasets.make_friedman1(30, n_features=10, noise=0.2, random_state=5)),
    ],
)
def test_rows_are_those_of_scikit_learn(name: str, make) -> None:
    features, target = arrays(drawn(name, samples=30, noise=0.2, seed=5))
    expected_features, expected_target = make()
    assert_same_bits(features, expected_features)
    assert_same_bits(target, expected_target.astype(target.dtype))


def test_moons_without_noise_are_two_half_circles() -> None:
    features, labels = arrays(drawn("moons", samples=201))
    upper, lower = features[labels == 0], features[labels == 1]
    assert_close(np.hypot(upper[:, 0], upper[:, 1]), np.ones(len(upper)))
    assert_close(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), np.ones(len(lower)))
    assert (upper[:, 1] > -1e-9).all()
    assert (lower[:, 1] < 0.5 + 1e-9).all()


def test_circles_without_noise_have_two_radii() -> None:
    features, labels = arrays(drawn("circles", samples=201))
    assert_close(np.hypot(features[:, 0], features[:, 1]), np.where(labels == 0, 1.0, 0.5))


def test_blobs_without_noise_are_three_corners_as_far_from_each_other() -> None:
    features, labels = arrays(drawn("blobs", samples=30))
    corners = []
    for label in range(3):
        assert_same_bits(features[labels == label], np.repeat(features[labels == label][:1], 10, axis=0))
        corners.append(features[labels == label][0])
    distances = [math.dist(corners[one], corners[other]) for one, other in ((0, 1), (0, 2), (1, 2))]
    assert_close(distances, [math.sqrt(3)] * 3)
    assert_close(np.mean(corners, axis=0), [0.0, 0.0])


@pytest.mark.parametrize("name", ["moons", "circles", "spirals", "blobs"])
def test_noise_is_the_deviation_of_both_coordinates(name: str) -> None:
    # The order of the rows may depend on the noise, the centre of all rows does not: compare variances about it.
    samples, noise = 20_000, 2.0
    without, _ = arrays(drawn(name, samples=samples))
    features, _ = arrays(drawn(name, samples=samples, noise=noise, seed=1))
    np.testing.assert_allclose(features.var(axis=0) - without.var(axis=0), noise**2, rtol=0.1)


def test_spirals_are_the_published_points() -> None:
    # Lang and Witbrock's generator: point i of 97 at angle i pi / 16, radius 6.5 (104 - i) / 104; the other class
    # is the same point with both signs changed.
    published = set()
    for i in range(97):
        angle, radius = i * math.pi / 16, 6.5 * (104 - i) / 104
        x, y = radius * math.sin(angle), radius * math.cos(angle)
        published |= {(round(x, 9) + 0.0, round(y, 9) + 0.0, 0), (round(-x, 9) + 0.0, round(-y, 9) + 0.0, 1)}
    table = drawn("spirals", samples=194)
    rows = {
        (round(x, 9) + 0.0, round(y, 9) + 0.0, label) for x, y, label in zip(*table.to_pydict().values(), strict=True)
    }
    assert rows == published


@given(samples=st.integers(2, 300), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_angle_and_radius_of_spirals_belong_together(samples: int, seed: int) -> None:
    features, labels = arrays(drawn("spirals", samples=samples, seed=seed))
    radius = np.hypot(features[:, 0], features[:, 1])
    assert ((radius > 0.5 - 1e-9) & (radius < 6.5 + 1e-9)).all()
    # Inwards by 1 with every half turn; the second spiral is half a turn ahead.
    angle = (6.5 - radius) * math.pi + labels * math.pi
    assert_close(features, radius[:, None] * np.column_stack([np.sin(angle), np.cos(angle)]))


def test_seed_moves_the_rows_of_spirals_without_noise_only_in_their_order() -> None:
    first, second = (drawn("spirals", seed=seed) for seed in (0, 1))
    assert not first.equals(second)
    order = [(name, "ascending") for name in first.column_names]
    assert first.sort_by(order).equals(second.sort_by(order))


@pytest.mark.parametrize("bits", range(1, 9))
def test_parity_by_counting_ones(bits: int) -> None:
    expected = [format(number, f"0{bits}b") for number in range(2**bits)]
    rows = drawn("parity", bits=bits).to_pylist()
    assert ["".join(f"{row[f'x{i}']:.0f}" for i in range(1, bits + 1)) for row in rows] == expected
    assert [row["label"] for row in rows] == [text.count("1") % 2 for text in expected]


def test_parity_needs_nothing_but_bits() -> None:
    assert drawn("parity", samples=2, noise=3.0, seed=1).equals(drawn("parity", samples=99))


def test_parity_of_two_bits_is_xor() -> None:
    features, labels = arrays(drawn("parity", bits=2))
    assert features.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert labels.tolist() == [0, 1, 1, 0]


def test_parity_of_the_most_bits() -> None:
    features, labels = arrays(drawn("parity", bits=16))
    assert len(np.unique(features, axis=0)) == 65_536
    # The sign (-1)^label is the product of the signs of the bits.
    assert_same_bits(1.0 - 2 * labels, (1 - 2 * features).prod(axis=1))


def test_friedman_by_its_formula() -> None:
    features, y = arrays(drawn("friedman", samples=200))
    assert ((features >= 0) & (features < 1)).all()
    x1, x2, x3, x4, x5 = features.T[:5]
    assert_close(y, 10 * np.sin(np.pi * x1 * x2) + 20 * (x3 - 0.5) ** 2 + 10 * x4 + 5 * x5, atol=1e-12)


def test_noise_of_friedman_is_the_deviation_of_y() -> None:
    features, exact = arrays(drawn("friedman", samples=5000))
    same_features, noisy = arrays(drawn("friedman", samples=5000, noise=1.0))
    assert_same_bits(same_features, features)
    # The standard error of the deviation is 1 / sqrt(2 * 5000) = 0.01.
    assert abs((noisy - exact).std() - 1.0) < 0.05


def test_a_mistyped_name_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"data\.name = 'spiral' must be one of moons, .*; did you mean spirals\?"):
        drawn("spiral")


def test_blobs_of_fewer_rows_than_blobs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.samples = 2 must be at least 3 for data\.name = 'blobs'; every blob"):
        drawn("blobs", samples=2)


@pytest.mark.parametrize("name", ["moons", "circles", "spirals", "friedman"])
def test_two_rows_are_enough_for_the_others(name: str) -> None:
    assert drawn(name, samples=2, noise=0.1).num_rows == 2
