"""From a table to rows that a network takes: read, typed, split, prepared.

Kinds of columns, categories, scales and gaps are taken from the training rows alone.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``P`` features that they become, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.config import ColumnConfig, DataConfig
from mlp_lightning.engines.rows import Rows
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.tables.batches import ROWS_AT_ONCE, encoded_batches
from mlp_lightning.tables.columns import Column, ColumnReport, Origin, infer_columns
from mlp_lightning.tables.datasets import load_dataset
from mlp_lightning.tables.encoding import Surprises, encode
from mlp_lightning.tables.reading.sources import FileSource, MemorySource, TableSource, missing_column
from mlp_lightning.tables.row_weights import given_weights, row_weights
from mlp_lightning.tables.table_splits import split_rows
from mlp_lightning.tables.targets import Target, infer_target


@dataclasses.dataclass(frozen=True)
class Given:
    """What is known of the rows beside the options.

    Attributes:
        source: read instead of what the options name.
        target: what is predicted: all classes, of which the rows may lack some.
        preprocessor: prepares the rows as others were prepared; then ``target`` is taken as it is, too. ``None``:
            fitted to the training rows.
    """

    source: TableSource | None = None
    target: Target | None = None
    preprocessor: Preprocessor | None = None


class Preparation:
    """Prepares the rows of a table, and knows what became of them.

    Args:
        options: where the table is and what its columns are.
        task: ``auto``, ``binary``, ``multiclass`` or ``regression``.
        seed: decides the split, unless ``options.split_seed`` does.
        dtype: floating point type of the prepared rows.
        given: what is known of the rows already.

    Attributes:
        splits: the prepared rows of each split.
        row_numbers: for each split the row numbers in its table, in the order of the split.
        target: what is predicted.
        preprocessor: what prepares raw columns.
        report: which columns a model sees, and which it does not.
        dropped: number of rows without a target.
        surprises: what the rows of a file for one split have that no training row had.

    Raises:
        ConfigError, DataError: the table cannot be used as the options ask.
    """

    target: Target
    preprocessor: Preprocessor
    report: ColumnReport

    def __init__(self, options: DataConfig, task: str, seed: int, dtype: torch.dtype, given: Given) -> None:
        self.options = options
        self.splits: dict[str, Rows] = {}
        self.row_numbers: dict[str, NDArray[np.int64]] = {}
        self.dropped = 0
        self.surprises: dict[str, Surprises] = {}
        self._dtype = dtype
        self._read_all(task, seed, given)
        for split, path in (("val", options.val_path), ("test", options.test_path)):
            if path is not None:
                self._add_split(split, FileSource.open(path, options.csv))

    def _read_all(self, task: str, seed: int, given: Given) -> None:
        """Read, split and prepare in one go: raw rows of all columns are never in memory together."""
        options = self.options
        source = given.source or open_source(options)
        names = _target_names(options, source)
        self._refuse_missing_columns(source, names)
        seen = set(source.column_names) - self._not_seen(names)
        categories = {name: ColumnConfig("categorical") for name in source.categorical if name in seen}
        wanted = {**categories, **options.columns}
        table, numbers = self._labelled(source.read(types=_types(wanted, names)), names, source)
        origin = Origin(source.name, source.place).of(numbers)
        target = given.target or infer_target(table, names, task, origin)
        targets_BT = target.numbers(table, origin.place)
        labels_B = None if target.task == "regression" else targets_BT[:, 0].astype(np.int64)
        self._refuse_single_rows(labels_B, target, origin)
        split_seed = seed if options.split_seed is None else options.split_seed
        parts = split_rows(table, labels_B, options, split_seed, source.name)
        if not len(parts["train"]):
            raise DataError(f"{source.name}: no training rows are left of {table.num_rows:,}.")
        candidates = [one for one in table.column_names if one not in self._not_seen(names)]
        train = parts["train"]
        weights_B = row_weights(table, labels_B, train, options, len(target.classes), origin)
        if given.preprocessor is None:
            counts_B = given_weights(table, options, origin)
            counts_B = None if counts_B is None else counts_B[train]
            self.report = infer_columns(table, candidates, train, wanted, options.max_one_hot, origin)
            self.target = target.with_statistics(targets_BT[train], counts_B)
            self.preprocessor = Preprocessor(self.report.columns, options.scaling)
            self._fit_preprocessor(table, train, counts_B, origin)
        else:
            self.target, self.preprocessor = target, given.preprocessor
            self.report = ColumnReport(list(self.preprocessor.columns), {})
        features_BP = self._prepared_table(table, origin.place)
        del table
        targets = self._as_learnt(targets_BT)
        self.splits = {
            split: _rows(features_BP, targets, rows, weights_B if split == "train" else None)
            for split, rows in parts.items()
            if len(rows)
        }
        self.row_numbers = {split: numbers[rows] for split, rows in parts.items() if len(rows)}

    def _refuse_missing_columns(self, source: TableSource, targets: Sequence[str]) -> None:
        options = self.options
        roles = [options.weight_column, options.group_column, options.time_column, options.split_column]
        for name in [*targets, *(one for one in roles if one is not None), *options.columns]:
            if name not in source.column_names:
                raise missing_column(source.name, name, source.column_names)

    def _not_seen(self, targets: Sequence[str]) -> set[str]:
        """Columns that are no features: targets, and what says how to use the rows (unless given a kind)."""
        options = self.options
        roles = {options.weight_column, options.group_column, options.time_column, options.split_column}
        return {*targets, *(one for one in roles if one is not None and one not in options.columns)}

    def _labelled(
        self, table: pa.Table, targets: Sequence[str], source: TableSource
    ) -> tuple[pa.Table, NDArray[np.int64]]:
        """The rows that have a target, and their numbers in the source."""
        has_target = np.ones(table.num_rows, dtype=bool)
        for name in targets:
            values = table.column(name)
            if values.null_count == len(values):
                raise DataError(
                    f"{source.name}: the target {name!r} is missing in all {len(values):,} rows. Choose another"
                    " data.target."
                )
            if values.null_count or pa.types.is_floating(values.type):
                has_target &= values.is_valid().to_numpy()
                if pa.types.is_floating(values.type):
                    has_target &= ~np.isnan(values.to_numpy())
        kept = np.flatnonzero(has_target)
        self.dropped = table.num_rows - len(kept)
        if not len(kept):
            raise DataError(f"{source.name}: no row has all of its targets {', '.join(targets)}.")
        return (table.filter(pa.array(has_target)) if self.dropped else table), kept

    def _refuse_single_rows(self, labels_B: NDArray[np.int64] | None, target: Target, origin: Origin) -> None:
        options = self.options
        chosen = options.split_column or options.group_column or options.time_column
        splits_off = options.cv.fold is not None or (
            (options.val_fraction > 0 and options.val_path is None)
            or (options.test_fraction > 0 and options.test_path is None)
        )
        if labels_B is None or chosen is not None or not splits_off:
            return
        counts = np.bincount(labels_B, minlength=len(target.classes))
        if counts.min() == 1:
            label = int(counts.argmin())
            raise DataError(
                f"{origin.place(int((labels_B == label).argmax()))}: the class {target.class_names[label]!r} of"
                f" {target.names[0]!r} has this single row, which cannot be a training and a validation row. Add rows,"
                " merge or remove the class, or train on all rows with data.val_fraction=0 data.test_fraction=0."
            )

    def _fit_preprocessor(
        self, table: pa.Table, train: NDArray[np.int64], counts_B: NDArray[np.float64] | None, origin: Origin
    ) -> None:
        """Take the statistics of the training rows, column by column: all together would be the table once more."""
        rows, place = pa.array(train), origin.of(train).place

        def raw_numbers(column: Column) -> NDArray[np.float64]:
            values = table.column(column.name).combine_chunks().take(rows)
            return encode(pa.table({column.name: values}), [column], place)[:, 0]

        self.preprocessor.fit(raw_numbers, counts_B)

    def _prepared_table(self, table: pa.Table, place: Any) -> Tensor:
        features_BP = torch.empty(table.num_rows, self.preprocessor.out_features, dtype=self._dtype)
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            part = table.slice(start, ROWS_AT_ONCE)
            raw_BF = encode(part, self.report.columns, lambda row, start=start: place(start + row))
            features_BP[start : start + part.num_rows] = self.preprocessor(torch.from_numpy(raw_BF))
        return features_BP

    def _as_learnt(self, targets_BT: NDArray[np.float64]) -> Tensor:
        """Targets as :class:`~mlp_lightning.engines.rows.Rows` has them."""
        if self.target.task == "multiclass":
            return torch.from_numpy(targets_BT[:, 0].astype(np.int64))
        if self.target.task == "regression":
            targets_BT = self.target.standardized(targets_BT)
        return torch.from_numpy(targets_BT).to(self._dtype)

    def _add_split(self, split: str, source: TableSource) -> None:
        """Add a split that has its own file."""
        surprises = self.surprises.setdefault(split, Surprises())
        features, targets, rows = [], [], []
        for batch in encoded_batches(source, self.report.columns, self.target, surprises):
            kept = ~np.isnan(batch.targets_BT).any(1)
            features.append(self.preprocessor(torch.from_numpy(batch.raw_BF[kept])).to(self._dtype))
            targets.append(batch.targets_BT[kept])
            rows.append(batch.first_row + np.flatnonzero(kept))
        targets_BT = np.concatenate(targets) if targets else np.empty((0, len(self.target.names)))
        if not len(targets_BT):
            raise DataError(f"{source.name}: no row has a value of {', '.join(self.target.names)}.")
        self.splits[split] = Rows(torch.cat(features), self._as_learnt(targets_BT))
        self.row_numbers[split] = np.concatenate(rows)


def open_source(options: DataConfig) -> TableSource:
    """The table that the options name."""
    if options.name == "frame":
        rule, hint = "has its rows in memory, and they are not here", "hand them over: train(config, run_dir, frame=…)"
        raise ConfigError([Fault("data.name", "frame", rule, hint)])
    if options.name != "table":
        table, targets = load_dataset(options)
        return MemorySource(table, options.name, targets)
    if options.path is None:
        raise ConfigError([Fault("data.path", None, "is missing", "name a CSV, Parquet or Feather file or a folder")])
    return FileSource.open(options.path, options.csv)


def _target_names(options: DataConfig, source: TableSource) -> list[str]:
    wanted = [options.target] if isinstance(options.target, str) else options.target
    names = list(wanted or source.targets)
    if not names:
        columns = ", ".join(source.column_names)
        raise ConfigError([Fault("data.target", None, "is missing", f"name the column to predict, one of {columns}")])
    return names


def _types(columns: Mapping[str, ColumnConfig], targets: Sequence[str]) -> dict[str, pa.DataType]:
    """Types that columns are read as because somebody says what they are: 007 is a category, and not 7."""
    given = {name: one.kind for name, one in columns.items()}
    return {name: pa.string() for name, kind in given.items() if kind == "categorical" and name not in targets}


def _rows(features_BP: Tensor, targets: Tensor, rows: NDArray[np.int64], weights_B: NDArray[np.float64] | None) -> Rows:
    weights = None if weights_B is None else torch.from_numpy(weights_B[rows]).to(features_BP.dtype)
    if len(rows) == len(features_BP):
        return Rows(features_BP, targets, weights)
    chosen = torch.from_numpy(rows)
    return Rows(features_BP[chosen], targets[chosen], weights)
