"""Which rows of a table train, validate and test: by chance, by class, by group, by time, by a column, or in folds.

Shapes: ``B`` rows, ``L`` labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.config import DataConfig
from mlp_lightning.config.free_names import column_option
from mlp_lightning.errors import DataError, counted
from mlp_lightning.tables.categories import tidied
from mlp_lightning.tables.label_splits import parts_by_labels
from mlp_lightning.tables.randomness import derived_seed
from mlp_lightning.tables.splits import random_split, stratified_split

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute

Parts = dict[str, NDArray[np.int64]]
_NAMES_OF_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def split_rows(table: pa.Table, labels: NDArray[np.generic] | None, options: DataConfig, seed: int, name: str) -> Parts:
    """Row numbers of the splits ``train``, ``val`` and ``test``, each in ascending order; a split may be empty.

    Args:
        table: the rows that have a target.
        labels: class of each row ``(B,)``, or 0 and 1 for several labels ``(B, L)``; ``None`` for a regression.
        options: fractions, columns and folds.
        seed: of the random splits.
        name: of the table, for messages.

    Raises:
        DataError: the rows cannot be split like that.
    """
    if options.split_column is not None:
        return _by_column(table.column(options.split_column), options.split_column, name)
    rows = np.arange(table.num_rows)
    groups_B = None if options.group_column is None else _ranks(table, "group_column", options.group_column, name)
    times_B = None if options.time_column is None else _ranks(table, "time_column", options.time_column, name)
    # A split with its own file takes no fraction of these rows.
    val = 0.0 if options.val_path is not None else options.val_fraction
    test = 0.0 if options.test_path is not None else options.test_fraction
    if options.cv.fold is None:
        return _in_three(rows, labels, groups_B, times_B, val, test, seed)
    assert options.cv.folds is not None
    folds = options.cv.folds, options.cv.fold, seed, name

    def of(some: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        return tuple(None if one is None else one[some] for one in (labels, groups_B, times_B))  # type: ignore[return-value]  # three

    if options.cv.validates:
        parts = _in_three(rows, labels, groups_B, times_B, 0.0, test, seed)
        train, held_out = _fold(*of(parts["train"]), len(parts["train"]), *folds)
        return {**parts, "train": parts["train"][train], "val": parts["train"][held_out]}
    rest, held_out = _fold(labels, groups_B, times_B, len(rows), *folds)
    return {**_in_three(rest, *of(rest), val, 0.0, seed), "test": held_out}


def _in_three(
    rows: NDArray[np.int64],
    labels: NDArray[np.generic] | None,
    groups_B: NDArray[np.int64] | None,
    times_B: NDArray[np.int64] | None,
    val: float,
    test: float,
    seed: int,
) -> Parts:
    if times_B is not None:
        parts = _by_time(times_B, val, test)
    elif groups_B is not None:
        parts = _by_group(groups_B, val, test, seed)
    elif labels is None:
        parts = random_split(len(rows), val, test, seed)
    else:
        parts = stratified_split(labels, val, test, seed)
    return {split: np.sort(rows[part]) for split, part in zip(("train", "val", "test"), parts, strict=True)}


def _by_column(values: pa.ChunkedArray, column: str, name: str) -> Parts:
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string()))).to_numpy(zero_copy_only=False)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for row, text in enumerate(texts):
        if text is None or text == "":
            continue
        if text not in _NAMES_OF_SPLITS:
            raise DataError(f"{name}: data.split_column {column!r} has {text!r}; it must be train, val or test.")
        parts[_NAMES_OF_SPLITS[text]].append(row)
    if not parts["train"]:
        raise DataError(f"{name}: data.split_column {column!r} marks no row as train.")
    return {split: np.array(rows, dtype=np.int64) for split, rows in parts.items()}


def _ranks(table: pa.Table, option: str, column: str, name: str) -> NDArray[np.int64]:
    """The rank of each row's value among the different values of a column, from 1."""
    values = table.column(column)
    if values.null_count:
        raise DataError(
            f"{name}: data.{option} {column!r} has no value in {counted(values.null_count, 'row')}."
            " Fill it, or leave them out."
        )
    kinds = pa.types
    is_ordered = kinds.is_timestamp(values.type) or kinds.is_integer(values.type) or kinds.is_floating(values.type)
    if option == "time_column" and not is_ordered:
        raise DataError(
            f"{name}: data.time_column {column!r} has {values[0].as_py()!r}, and must hold dates, times or numbers: the"
            " order of other values is not that of time. If it is a date or a time, say how it is written with"
            f" {column_option(column, 'format', '%d/%m/%Y')}, for example."
        )
    return pc.rank(tidied(values), tiebreaker="dense").to_numpy().astype(np.int64)


def _by_time(times_B: NDArray[np.int64], val: float, test: float) -> tuple[NDArray[np.int64], ...]:
    """The last rows are test rows, those before them validation rows. Rows of one moment stay together."""
    order = np.argsort(times_B, kind="stable")
    count = len(order)
    borders = []
    for share in (1 - val - test, 1 - test):
        at = min(round(share * count), count)
        while 0 < at < count and times_B[order[at]] == times_B[order[at - 1]]:
            at += 1  # the later split gets only rows that are later than all of the earlier one
        borders.append(at)
    parts = tuple(np.split(order, borders))
    for part, share, split in zip(parts, (1.0, val, test), ("train", "val", "test"), strict=True):
        if share > 0 and not len(part):
            raise DataError(
                f"data.time_column: no {split} rows are left of {count} rows with {len(np.unique(times_B))} different"
                " moments. Change data.val_fraction or data.test_fraction."
            )
    return parts


def _by_group(groups_B: NDArray[np.int64], val: float, test: float, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Whole groups, drawn until a split has its share of the rows."""
    groups, sizes = np.unique(groups_B, return_counts=True)
    order = np.random.default_rng(derived_seed(seed, "split/groups")).permutation(len(groups))
    count, chosen = len(groups_B), {"test": [], "val": []}
    at = 0
    for split, share in (("test", test), ("val", val)):
        taken = 0
        while share > 0 and at < len(order) and (taken == 0 or taken + sizes[order[at]] / 2 <= share * count):
            chosen[split].append(groups[order[at]])
            taken += sizes[order[at]]
            at += 1
    if at >= len(order):
        raise DataError(
            f"data.group_column has {len(groups)} groups, too few for training rows beside data.val_fraction = {val:g}"
            f" and data.test_fraction = {test:g}. Lower them, or set one to 0."
        )
    in_split = {split: np.isin(groups_B, names) for split, names in chosen.items()}
    train = ~(in_split["test"] | in_split["val"])
    return np.flatnonzero(train), np.flatnonzero(in_split["val"]), np.flatnonzero(in_split["test"])


def _fold(
    labels: NDArray[np.generic] | None,
    groups_B: NDArray[np.int64] | None,
    times_B: NDArray[np.int64] | None,
    count: int,
    folds: int,
    fold: int,
    seed: int,
    name: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows outside and inside a fold."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit

    state: Mapping[str, Any] = {"shuffle": True, "random_state": derived_seed(seed, "split/folds") % 2**32}
    rows, splits = np.arange(count), []
    several, labels_B = (labels, None) if labels is not None and labels.ndim == 2 else (None, labels)
    try:
        if times_B is not None:
            moments = np.unique(times_B)  # rows of one moment stay together
            _refuse_more_folds(folds, len(moments) - 1, f"data.time_column has {len(moments)} different moments", name)
            before, inside = list(TimeSeriesSplit(folds).split(moments))[fold]
            return np.flatnonzero(np.isin(times_B, moments[before])), np.flatnonzero(np.isin(times_B, moments[inside]))
        if several is not None and groups_B is None and folds <= count:
            sizes = [count // folds + (one < count % folds) for one in range(folds)]
            is_inside = parts_by_labels(several.astype(np.int64), sizes, derived_seed(seed, "split/folds")) == fold
            return rows[~is_inside], rows[is_inside]
        if groups_B is not None:
            splitter: Any = GroupKFold(folds, **state) if labels_B is None else StratifiedGroupKFold(folds, **state)
        else:
            splitter = KFold(folds, **state) if labels_B is None else StratifiedKFold(folds, **state)
        if groups_B is not None:
            groups = len(np.unique(groups_B))
            _refuse_more_folds(folds, groups, f"data.group_column has {groups} groups", name)
        _refuse_rare_classes(labels_B if groups_B is None else None, folds, name)
        _refuse_more_folds(folds, count, f"the table has {count} rows", name)
        with warnings.catch_warnings():
            # Of whole groups, not every fold may have rows of every class.
            warnings.filterwarnings("ignore", message="The least populated class")
            splits = list(splitter.split(rows, labels_B, groups_B))
        are_empty = not all(len(inside) for _, inside in splits)
    except DataError:
        raise
    except ValueError:  # of classes that have fewer rows than there are folds
        are_empty = True
    if are_empty:  # not every version of scikit-learn refuses that
        raise DataError(
            f"{name}: data.cv.folds = {folds} of {count} rows is not possible: whole groups of data.group_column leave"
            " a fold without rows, or no class has a row for each fold. Use fewer folds."
        )
    return splits[fold]


def _refuse_more_folds(folds: int, most: int, what: str, name: str) -> None:
    if folds > most:
        advice = f"Use at most {most} folds" if most > 1 else "Add rows, or train without data.cv.folds"
        raise DataError(f"{name}: data.cv.folds = {folds} is not possible: {what}. {advice}.")


def _refuse_rare_classes(labels_B: NDArray[np.generic] | None, folds: int, name: str) -> None:
    if labels_B is None:
        return
    rarest = int(np.unique(labels_B, return_counts=True)[1].min())
    if rarest < folds:
        raise DataError(
            f"{name}: a class has {counted(rarest, 'row')}, fewer than data.cv.folds = {folds}, so not every fold can"
            " have one."
            f" Use at most {max(rarest, 2)} folds, or merge or remove the class."
        )
