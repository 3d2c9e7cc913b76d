"""Splitting rows into training, validation and test rows.

Shapes: ``B`` rows, ``L`` labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.tables.label_splits import parts_by_labels
from mlp_lightning.tables.randomness import derived_seed


def stratified_split(
    labels: NDArray[np.generic], val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training, validation and test rows, every class in about the same proportion.

    The parts are disjoint and together hold every row; each is in ascending order. A part has its fraction of
    all rows, rounded to a whole number; a fraction of 0 gives an empty part.

    Args:
        labels: the class of each row ``(B,)``, or 0 and 1 for several labels ``(B, L)``.
        val_fraction: share of all rows.
        test_fraction: likewise.
        seed: of what is drawn.

    Raises:
        DataError: if a part would be empty, or could not hold a row of every class.
    """
    return _split(len(labels), labels, val_fraction, test_fraction, seed)


def random_split(
    rows: int, val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The same for ``rows`` rows without classes.

    Raises:
        DataError: if a part would be empty.
    """
    return _split(rows, None, val_fraction, test_fraction, seed)


def _split(
    count: int, labels: NDArray[np.generic] | None, val_fraction: float, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    kept = np.arange(count)
    parts = {"test": np.empty(0, dtype=np.int64), "val": np.empty(0, dtype=np.int64)}
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if fraction > 0:
            of_kept = None if labels is None else labels[kept]
            size = round(fraction * count)
            classes = of_kept if of_kept is not None and of_kept.ndim == 1 else None
            _refuse_parts(f"data.{name}_fraction", f"{fraction:g} of {count:,} rows", size, len(kept) - size, classes)
            kept, parts[name] = _two_parts(kept, of_kept, size, seed, name)
    return np.sort(kept), np.sort(parts["val"]), np.sort(parts["test"])


def _refuse_parts(option: str, share: str, size: int, left: int, labels_B: NDArray[np.generic] | None) -> None:
    """Refuse a part that has no row, or not one of every class, or leaves none.

    Raises:
        DataError: with the sizes, and what helps.
    """
    fewest, classes = 1, ""
    if labels_B is not None:
        counts = np.unique(labels_B, return_counts=True)[1]
        fewest = len(counts) if counts.min() > 1 else size + left
        classes = f", and the rows have {len(counts)} classes, the smallest of them {_rows(int(counts.min()))}"
    if min(size, left) < fewest:
        with_classes = " with every class in both parts" if classes else ""
        raise DataError(
            f"{option}: {share} cannot be split off{with_classes}: they are {_rows(size)} and leave {_rows(left)}"
            f"{classes}. Set another fraction, or {option}=0 for none; or add rows."
        )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _two_parts(
    rows: NDArray[np.int64], labels: NDArray[np.generic] | None, size: int, seed: int, purpose: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    drawn_by = derived_seed(seed, f"split/{purpose}")
    if labels is not None and labels.ndim == 2:
        is_split_off = parts_by_labels(labels.astype(np.int64), [len(rows) - size, size], drawn_by) == 1
        return rows[~is_split_off], rows[is_split_off]
    # Imported here: it takes half a second, and a data set without a split does not need it.
    from sklearn.model_selection import train_test_split

    kept, split_off = train_test_split(rows, test_size=size, stratify=labels, random_state=drawn_by % 2**32)
    return np.asarray(kept), np.asarray(split_off)
