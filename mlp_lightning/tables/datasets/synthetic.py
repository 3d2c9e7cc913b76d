"""Synthetic tables: small tasks with a known answer.

Shapes: ``B`` rows, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.config import DataConfig
from mlp_lightning.config.names import SYNTHETIC_SETS
from mlp_lightning.config.parsing import unknown_name
from mlp_lightning.errors import ConfigError, Fault

# A corner each of an equilateral triangle on the unit circle: any two are sqrt(3) apart.
_BLOB_CENTERS = np.array([[0.0, 1.0], [-np.sqrt(0.75), -0.5], [np.sqrt(0.75), -0.5]])
# scikit-learn's default of 0.8 puts the two circles 0.2 apart, where the default noise of 0.1 mixes them.
_INNER_RADIUS = 0.5
_FRIEDMAN_FEATURES = 10

# Features (B, F) in float64; targets (B,), int64 classes or float64 numbers.
_Drawn = tuple[NDArray[np.float64], NDArray[Any]]


def load(options: DataConfig) -> tuple[pa.Table, list[str]]:
    """The table that ``options`` ask for; see :func:`synthetic_table`."""
    return synthetic_table(options.name, options.samples, options.noise, options.bits, options.sample_seed)


def synthetic_table(name: str, samples: int, noise: float, bits: int, seed: int) -> tuple[pa.Table, list[str]]:
    """A table of :data:`~mlp_lightning.config.names.SYNTHETIC_SETS`.

    ========  ==  ======================================================================================
    name       F  rows, and what ``noise`` is the standard deviation of
    ========  ==  ======================================================================================
    moons      2  two half circles of radius 1 that reach into each other; both coordinates
    circles    2  a circle of radius 1 (label 0) around one of radius 0.5 (label 1); both coordinates
    spirals    2  two spirals of three turns, radius 0.5 to 6.5, next arm 1 away; both coordinates
    parity        all ``2**bits`` rows of ``bits`` zeros and ones, in counting order; label 1: an odd number
                  of ones. ``bits=2`` is XOR. ``samples``, ``noise`` and ``seed`` have no effect
    blobs      2  three Gaussian blobs around corners sqrt(3) apart; both coordinates
    friedman  10  y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 of features uniform in [0, 1], of
                  which the last five have no effect; y (Friedman used 1)
    ========  ==  ======================================================================================

    Sources: spirals: K. J. Lang, M. J. Witbrock, "Learning to tell two spirals apart", 1988 (``samples=194`` and
    ``noise=0`` are their points); friedman: J. H. Friedman, "Multivariate adaptive regression splines", 1991;
    moons, circles, blobs and friedman are drawn by scikit-learn.

    Args:
        name: of the set.
        samples: number of rows, as evenly spread over the classes as it can be; not used by parity.
        noise: standard deviation, see above, at least 0; not used by parity.
        bits: number of features of parity, at least 1; used by no other set.
        seed: decides the rows and their order, in [0, 2**32). The same arguments give the same rows whatever the
            global random states are, and these stay as they are.

    Returns:
        The table, and the names of its target columns. Features are x1, x2, … in float64; the last column is the
        target: label, int64 classes from 0, or, of friedman, y in float64. No value is missing.

    Raises:
        ConfigError: there is no such set, or it cannot have so few rows.

    >>> table, targets = synthetic_table("parity", samples=0, noise=0.0, bits=2, seed=0)
    >>> list(zip(*table.to_pydict().values()))
    [(0.0, 0.0, 0), (0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0)]
    >>> targets
    ['label']
    """
    if name not in SYNTHETIC_SETS:
        rule = "must be one of " + ", ".join(SYNTHETIC_SETS)
        raise ConfigError([unknown_name("data.name", name, rule, SYNTHETIC_SETS)])
    features_BF, targets_B = _parity(bits) if name == "parity" else _DRAW[name](samples, noise, seed)
    columns = {f"x{number}": pa.array(features_B) for number, features_B in enumerate(features_BF.T, start=1)}
    target = "y" if name == "friedman" else "label"
    return pa.table({**columns, target: pa.array(targets_B)}), [target]


# scikit-learn is imported when used, because it takes a second. Its functions and numpy's RandomState are given
# their own seed: they leave the global state alone, and RandomState's numbers stay the same from one numpy
# to the next, which those of numpy's newer generators need not.


def _moons(samples: int, noise: float, seed: int) -> _Drawn:
    from sklearn.datasets import make_moons

    return _labelled(make_moons(samples, noise=noise, random_state=seed))


def _circles(samples: int, noise: float, seed: int) -> _Drawn:
    from sklearn.datasets import make_circles

    return _labelled(make_circles(samples, noise=noise, random_state=seed, factor=_INNER_RADIUS))


def _blobs(samples: int, noise: float, seed: int) -> _Drawn:
    from sklearn.datasets import make_blobs

    if samples < len(_BLOB_CENTERS):
        rule = f"must be at least {len(_BLOB_CENTERS)} for data.name = 'blobs'"
        raise ConfigError([Fault("data.samples", samples, rule, "every blob needs a row")])
    return _labelled(make_blobs(samples, centers=_BLOB_CENTERS, cluster_std=noise, random_state=seed))


def _friedman(samples: int, noise: float, seed: int) -> _Drawn:
    from sklearn.datasets import make_friedman1

    return make_friedman1(samples, n_features=_FRIEDMAN_FEATURES, noise=noise, random_state=seed)


def _spirals(samples: int, noise: float, seed: int) -> _Drawn:
    """Points at equal angles from the outer end inwards; the second spiral is the first one turned by half a turn."""
    counts = (samples // 2, samples - samples // 2)
    arms = []
    for count, sign in zip(counts, (1.0, -1.0), strict=True):
        along = np.linspace(0.0, 1.0, count)
        angle, radius = 6 * np.pi * along, 6.5 - 6 * along
        arms.append(sign * radius[:, None] * np.column_stack([np.sin(angle), np.cos(angle)]))
    random = np.random.RandomState(seed)
    order = random.permutation(samples)
    features_BF, labels_B = np.concatenate(arms)[order], np.repeat((0, 1), counts)[order]
    return _labelled((features_BF + noise * random.standard_normal(features_BF.shape), labels_B))


def _parity(bits: int) -> _Drawn:
    numbers_B = np.arange(2**bits)
    # The first feature is the highest bit, so that the rows count upwards as they are read.
    digits_BF = numbers_B[:, None] >> np.arange(bits)[::-1] & 1
    return _labelled((digits_BF.astype(np.float64), digits_BF.sum(axis=1) % 2))


def _labelled(drawn: tuple[Any, ...]) -> _Drawn:
    """Features and labels, these as int64, which numpy's default integer is not on every machine."""
    features_BF, labels_B = drawn
    return features_BF, labels_B.astype(np.int64)


_DRAW: dict[str, Callable[[int, float, int], _Drawn]] = {
    "moons": _moons,
    "circles": _circles,
    "spirals": _spirals,
    "blobs": _blobs,
    "friedman": _friedman,
}
