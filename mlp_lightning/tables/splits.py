"""Splitting rows into training, validation and test rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.tables.randomness import derived_seed


def stratified_split(
    labels_B: NDArray[np.generic], val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training, validation and test rows, every class in about the same proportion.

    The parts are disjoint and together hold every row; each is in ascending order. A part has its fraction of
    all rows, rounded to a whole number; a fraction of 0 gives an empty part.

    Raises:
        DataError: if a part would be empty, or could not hold a row of every class.
    """
    return _split(len(labels_B), labels_B, val_fraction, test_fraction, seed)


def random_split(
    rows: int, val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The same for ``rows`` rows without classes.

    Raises:
        DataError: if a part would be empty.
    """
    return _split(rows, None, val_fraction, test_fraction, seed)


def _split(
    count: int, labels_B: NDArray[np.generic] | None, val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    kept = np.arange(count)
    parts = {"test": np.empty(0, dtype=np.int64), "val": np.empty(0, dtype=np.int64)}
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if fraction > 0:
            labels = None if labels_B is None else labels_B[kept]
            try:
                kept, parts[name] = _two_parts(kept, labels, round(fraction * count), seed, name)
            except ValueError as error:
                with_classes = " with every class in both parts" if labels_B is not None else ""
                raise DataError(
                    f"data.{name}_fraction: {fraction:g} of {count} rows cannot be split off{with_classes} ({error})."
                    " Use another fraction, or 0 for none."
                ) from error
    return np.sort(kept), np.sort(parts["val"]), np.sort(parts["test"])


def _two_parts(
    rows: NDArray[np.int64], labels_B: NDArray[np.generic] | None, size: int, seed: int, purpose: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # Imported here: it takes half a second, and a data set without a split does not need it.
    from sklearn.model_selection import train_test_split

    kept, split_off = train_test_split(
        rows, test_size=size, stratify=labels_B, random_state=derived_seed(seed, f"split/{purpose}") % 2**32
    )
    return np.asarray(kept), np.asarray(split_off)
