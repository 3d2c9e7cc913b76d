"""Splitting rows into training, validation and test rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.data.randomness import derived_seed
from mlp_lightning.errors import DataError


def stratified_split(
    labels_B: NDArray[np.generic], val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training, validation and test rows, every class in about the same proportion.

    The parts are disjoint and together hold every row; each is in ascending order. A fraction of 0 gives an
    empty part.

    Raises:
        DataError: if a part would be empty, or could not hold a row of every class.
    """
    training = np.arange(len(labels_B))
    validation = test = np.empty(0, dtype=np.int64)
    if test_fraction > 0:
        training, test = _two_parts(training, labels_B, test_fraction, seed, "test")
    if val_fraction > 0:
        of_the_rest = val_fraction / (1 - test_fraction)
        training, validation = _two_parts(training, labels_B, of_the_rest, seed, "val")
    return np.sort(training), np.sort(validation), np.sort(test)


def _two_parts(
    rows: NDArray[np.int64], labels_B: NDArray[np.generic], fraction: float, seed: int, part: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # Imported here: it takes half a second, and a data set without a split does not need it.
    from sklearn.model_selection import train_test_split

    try:
        kept, split_off = train_test_split(
            rows,
            test_size=fraction,
            stratify=labels_B[rows],
            random_state=derived_seed(seed, f"split/{part}") % 2**32,
        )
    except ValueError as error:
        raise DataError(
            f"data.{part}_fraction: {fraction:.4g} of {len(rows)} rows cannot be split off with every class in it"
            f" ({error}). Use a larger fraction, or 0 for none."
        ) from error
    return np.asarray(kept), np.asarray(split_off)
