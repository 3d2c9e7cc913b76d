"""From a table to rows that a network takes: read, typed, split, prepared.

Kinds of columns, categories, scales and gaps are taken from the training rows alone.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``P`` features that they become, ``T`` targets.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.config import CsvConfig, DataConfig
from mlp_lightning.data.idle import refuse_idle_options
from mlp_lightning.data.reading import Given, TypedRows, open_source
from mlp_lightning.engines.rows import Rows
from mlp_lightning.errors import DataError
from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import Task, infer_target, make_task, task_class
from mlp_lightning.tables.batches import ROWS_AT_ONCE, encoded_batches
from mlp_lightning.tables.categories import notes_on_case
from mlp_lightning.tables.columns import Column, ColumnReport, Origin, Place, infer_columns
from mlp_lightning.tables.encoding import Surprises, count_surprises, encode
from mlp_lightning.tables.fingerprint import RowsHasher
from mlp_lightning.tables.idle_csv import refuse_idle_csv, refuse_unmatched_csv
from mlp_lightning.tables.reading.numbers import NumberForm
from mlp_lightning.tables.reading.sources import FileSource, TableSource, refuse_mixed_encodings
from mlp_lightning.tables.row_weights import given_weights, row_weights
from mlp_lightning.tables.table_splits import split_rows
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.wild_values import WildValues


class Preparation:
    """Prepares the rows of a table, and knows what became of them.

    Args:
        options: where the table is and what its columns are.
        task: ``auto``, or one of :data:`~mlp_lightning.networks.tasks.TASKS`.
        seed: decides the split, unless ``options.split_seed`` does.
        dtype: floating point type of the prepared rows.
        given: what is known of the rows already.

    Attributes:
        splits: the prepared rows of each split.
        row_numbers: for each split the row numbers in its table, in the order of the split.
        row_weights: for each split of the table how much its rows count, in one unit for all splits and folds; empty if
            all count the same.
        target: what is predicted.
        preprocessor: what prepares raw columns.
        report: which columns a model sees, and which it does not.
        dropped: number of rows without a target.
        fingerprint: of the rows that have a target, as :mod:`mlp_lightning.tables.fingerprint` describes it.
        surprises: what the rows of a file for one split have that no training row had.
        forms: how the numbers of columns are written that are not written as programs do it.
        notes: what else to tell the user of the table, a line each.

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
        self.row_weights: dict[str, NDArray[np.float64]] = {}
        self.dropped = 0
        self.notes: list[str] = []
        self.fingerprint: dict[str, Any] = {}
        self.surprises: dict[str, Surprises] = {}
        self.forms: dict[str, NumberForm] = {}
        self._wild: dict[str, WildValues] = {}  # of the columns and targets that are looked at
        self._dtype = dtype
        source = given.source or open_source(options, given.allow_targets)
        paths = {split: path for split, path in (("val", options.val_path), ("test", options.test_path)) if path}
        of_splits = {split: FileSource.open(path, options.csv) for split, path in paths.items()}
        refuse_idle_csv(options.csv, [source, *of_splits.values()])
        refuse_mixed_encodings([source, *of_splits.values()], options.csv.encoding)
        self._used: tuple[list[str], list[str]] = [], []  # columns, and those with numbers
        self._read_all(source, task, seed, given)
        for split, source_of_split in of_splits.items():
            self._add_split(split, source_of_split)
        if given.preprocessor is None and not given.is_trained and options.csv != CsvConfig():
            self.notes += refuse_unmatched_csv(options.csv, [source, *of_splits.values()], *self._used)

    @functools.cached_property
    def preprocessing(self) -> dict[str, Any]:
        """What a model of these rows needs to take raw rows, as plain data; once they are prepared."""
        forms = {name: form.to_dict() for name, form in self.forms.items()}
        of_numbers: dict[str, Any] = {"number_forms": forms} if forms else {}
        features = {one.name for one in self.preprocessor.columns}
        if quartiles := {name: [*one.quartiles] for name, one in self._wild.items() if name in features}:
            of_numbers["quartiles"] = quartiles
        target, baseline = self.target.to_dict(), self.baseline.to_dict()
        return {**self.preprocessor.to_dict(), "target": target, "baseline": baseline, **of_numbers}

    @functools.cached_property
    def baseline(self) -> Baseline:
        """What would be predicted without looking at the features; from the training rows."""
        return Baseline.of(self.splits["train"].targets, self._task)

    @functools.cached_property
    def shares(self) -> Sequence[float]:
        """The share of the training rows of each class, or of the second class of each of several targets."""
        return self.baseline.shares(self._task)

    @functools.cached_property
    def baseline_metrics(self) -> dict[str, dict[str, float]]:
        """Its loss and metric on the rows of every split."""
        return {split: self.baseline.metrics(self._task, rows.targets) for split, rows in self.splits.items()}

    @property
    def _task(self) -> Task:
        target = self.target
        return make_task(target.task, task_class(target.task).out_features(target), target.mean, target.scale)

    def _read_all(self, source: TableSource, task: str, seed: int, given: Given) -> None:
        """Read, split and prepare in one go: raw rows of all columns are never in memory together."""
        options = self.options
        rows = TypedRows(source, options, task, given)
        table, numbers, origin = rows.table, rows.numbers, rows.origin
        self.dropped, self.forms, self.fingerprint["data"] = rows.dropped, rows.number_forms, rows.fingerprint
        self.notes += rows.notes
        self._used = rows.used
        target = given.target or infer_target(table, rows.targets, rows.task, origin)
        targets_BT = target.numbers(table, origin.place)
        labels = task_class(target.task).labels(targets_BT)
        if labels is not None and labels.ndim == 2:
            labels = labels if given.splits_by_labels else None
            self.fingerprint["data"] |= {"split": "by labels"} if given.splits_by_labels else {}
        else:
            self._refuse_single_rows(labels, target, origin)
        split_seed = seed if options.split_seed is None else options.split_seed
        parts = split_rows(table, labels, options, split_seed, source.name)
        if not len(parts["train"]):
            raise DataError(f"{source.name}: no training rows are left of {table.num_rows:,}.")
        train = parts["train"]
        weights_B = row_weights(table, target, targets_BT, train, options, origin)
        counts_B = given_weights(table, options, origin)
        if weights_B is not None:
            unit = 1.0 if counts_B is None else counts_B[train].mean()  # that of the weight column
            self.row_weights = {split: weights_B[rows] * unit for split, rows in parts.items() if len(rows)}
        if given.preprocessor is None:
            counts_B = None if counts_B is None else counts_B[train]
            most = options.max_one_hot, options.max_categories
            self.report = infer_columns(table, rows.candidates, train, rows.wanted, most, origin, rows.moment_forms)
            self.notes += self.report.notes
            for one in self.report.columns:
                self.notes += notes_on_case(one.name, one.vocabulary)
            if given.target is None and not given.is_trained:  # estimators decide by themselves what they hand over
                refuse_idle_options(options, self.report.columns, table)
            if not options.shuffle and isinstance(options.batch_size, int) and options.batch_size >= len(train):
                self.notes.append(f"data.shuffle=false has no effect: all {len(train):,} training rows are one batch")
            self.target = target.with_statistics(targets_BT[train], counts_B)
            self.preprocessor = Preprocessor(self.report.columns, options.scaling)
            self._fit_preprocessor(table, train, counts_B, origin)
            self._note_wild_targets(targets_BT, parts, origin)
        else:
            self.target, self.preprocessor = target, given.preprocessor
            self.report = ColumnReport(list(self.preprocessor.columns), {})
        if given.target is None:
            self._note_classes_without_rows(targets_BT, parts, source.name)
            for one in target.columns:
                self.notes += notes_on_case(one.name, one.classes)
        features_BP = self._prepared_table(table, origin.place, parts)
        del table, rows
        targets = self._as_learnt(targets_BT)
        self.splits = {
            split: _rows(features_BP, targets, rows, weights_B if split == "train" else None)
            for split, rows in parts.items()
            if len(rows)
        }
        self.row_numbers = {split: numbers[rows] for split, rows in parts.items() if len(rows)}

    def _refuse_single_rows(self, labels_B: NDArray[np.int64] | None, target: Target, origin: Origin) -> None:
        options = self.options
        chosen = options.split_column or options.group_column or options.time_column
        splits_off = options.cv.fold is not None or (
            (options.val_fraction > 0 and options.val_path is None)
            or (options.test_fraction > 0 and options.test_path is None)
        )
        if labels_B is None or chosen is not None or not splits_off:
            return
        (column,) = target.columns
        counts = np.bincount(labels_B, minlength=len(column.classes))
        if counts.min() == 1:
            label = int(counts.argmin())
            raise DataError(
                f"{origin.place(int((labels_B == label).argmax()))}: the class {column.class_names[label]!r} of"
                f" {column.name!r} has this single row, which cannot be a training and a validation row. Add rows,"
                " merge or remove the class, or train on all rows with data.val_fraction=0 data.test_fraction=0."
            )

    def _fit_preprocessor(
        self, table: pa.Table, train: NDArray[np.int64], counts_B: NDArray[np.float64] | None, origin: Origin
    ) -> None:
        """Take the statistics of the training rows, column by column: all together would be the table once more."""
        rows, place = pa.array(train), origin.of(train).place
        advice = "correct it, or set data.scaling=quantile"
        is_checked = self.options.scaling in {"standard", "none"}  # the others bound what one value can do

        def raw_numbers(column: Column) -> NDArray[np.float64]:
            values = table.column(column.name).combine_chunks().take(rows)
            numbers_B = encode(pa.table({column.name: values}), [column], place)[:, 0]
            if is_checked and column.kind == "numeric":
                self._look_for_wild(column.name, numbers_B, advice, place)
            return numbers_B

        self.preprocessor.fit(raw_numbers, counts_B)

    def _look_for_wild(self, name: str, train_B: NDArray[np.float64], advice: str, place: Place) -> None:
        """Name what is far from the other training rows; held-out rows are compared with them later."""
        wild = WildValues.of(name, train_B, advice)
        if wild is not None:
            self._wild[name] = wild
            self._add_note(wild.unseen().look_at(train_B).note(place))

    def _note_wild_targets(
        self, targets_BT: NDArray[np.float64], parts: Mapping[str, NDArray[np.int64]], origin: Origin
    ) -> None:
        train = parts["train"]
        for column, numbers_B in zip(self.target.columns, targets_BT.T, strict=True):
            if not column.classes:
                place = origin.of(train).place
                self._look_for_wild(column.name, numbers_B[train], "correct or remove such rows", place)
            for split in ("val", "test") if column.name in self._wild else ():
                rows = parts[split]
                self._add_note(
                    self._wild[column.name].unseen().look_at(numbers_B[rows], rows).note(origin.place, split)
                )

    def _add_note(self, note: str | None) -> None:
        self.notes += [] if note is None else [note]

    def _note_classes_without_rows(
        self, targets_BT: NDArray[np.float64], parts: Mapping[str, NDArray[np.int64]], name: str
    ) -> None:
        """Say which classes cannot be learned, as no training row has them.

        Raises:
            DataError: only one class of the only target is left to learn.
        """
        columns = self.target.columns
        for column, numbers_B in zip(columns, targets_BT.T, strict=True):
            if not column.classes:
                return
            labels_B, count = numbers_B.astype(np.int64), len(column.classes)
            counts = {split: np.bincount(labels_B[rows], minlength=count) for split, rows in parts.items()}
            learned = [one for one, rows in zip(column.class_names, counts["train"], strict=True) if rows]
            if len(learned) == len(columns) == 1:
                raise DataError(
                    f"{name}: all training rows are of the class {learned[0]!r}: there is nothing to learn. Split the"
                    " rows in another way, or change data.val_fraction, data.test_fraction or the seed."
                )
            of = "" if len(columns) == 1 else f" of {column.name!r}"
            for label, class_name in enumerate(column.class_names):
                held_out = [f"{counts[split][label]:,} {split}" for split in ("val", "test") if counts[split][label]]
                if not counts["train"][label] and held_out:
                    self.notes.append(
                        f"no training row has the class {class_name!r}{of}, so the model never predicts it"
                        f" ({' and '.join(held_out)} rows have it)"
                    )

    def _prepared_table(self, table: pa.Table, place: Any, parts: Mapping[str, NDArray[np.int64]]) -> Tensor:
        held_out = {split: self.surprises.setdefault(split, Surprises()) for split in ("val", "test")}
        wild = {(split, name): one.unseen() for split in held_out for name, one in self._wild.items()}
        split_B = np.zeros(table.num_rows, dtype=np.int8)
        for number, split in enumerate(held_out, start=1):
            split_B[parts[split]] = number
        features_BP = torch.empty(table.num_rows, self.preprocessor.out_features, dtype=self._dtype)
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            part = table.slice(start, ROWS_AT_ONCE)
            raw_BF = encode(part, self.report.columns, lambda row, start=start: place(start + row))
            for number, (split, surprises) in enumerate(held_out.items(), start=1):
                chosen = np.flatnonzero(split_B[start : start + part.num_rows] == number)
                for index, column in enumerate(self.report.columns if len(chosen) else ()):
                    count_surprises(surprises, column, raw_BF[chosen, index])
                    if (split, column.name) in wild:
                        wild[split, column.name].look_at(raw_BF[chosen, index], start + chosen)
            features_BP[start : start + part.num_rows] = self.preprocessor(torch.from_numpy(raw_BF))
        for (split, _), one in wild.items():
            self._add_note(one.note(place, split))
        return features_BP

    def _as_learnt(self, targets_BT: NDArray[np.float64]) -> Tensor:
        """Targets as :class:`~mlp_lightning.engines.rows.Rows` has them."""
        return task_class(self.target.task).as_learnt(self.target, targets_BT, self._dtype)

    def _add_split(self, split: str, source: TableSource) -> None:
        """Add a split that has its own file."""
        surprises = self.surprises.setdefault(split, Surprises())
        wild = {name: one.unseen() for name, one in self._wild.items()}
        features, targets, rows, hasher = [], [], [], RowsHasher()
        for batch in encoded_batches(source, self.report.columns, self.target, surprises, trained=self.forms):
            kept = ~np.isnan(batch.targets_BT).any(1)
            hasher.add(batch.batch.filter(pa.array(kept)))
            features.append(self.preprocessor(torch.from_numpy(batch.raw_BF[kept])).to(self._dtype))
            targets.append(batch.targets_BT[kept])
            rows.append(batch.first_row + np.flatnonzero(kept))
            numbers = {one.name: batch.raw_BF[kept, at] for at, one in enumerate(self.report.columns)}
            numbers |= {name: batch.targets_BT[kept, at] for at, name in enumerate(self.target.names)}
            for name, one in wild.items():
                one.look_at(numbers[name], rows[-1])
        targets_BT = np.concatenate(targets) if targets else np.empty((0, len(self.target.names)))
        if not len(targets_BT):
            raise DataError(f"{source.name}: no row has a value of {', '.join(self.target.names)}.")
        for one in wild.values():
            self._add_note(one.note(source.place, split))
        self.splits[split] = Rows(torch.cat(features), self._as_learnt(targets_BT))
        self.fingerprint[split] = hasher.fingerprint()
        self.row_numbers[split] = np.concatenate(rows)


def _rows(features_BP: Tensor, targets: Tensor, rows: NDArray[np.int64], weights_B: NDArray[np.float64] | None) -> Rows:
    weights = None if weights_B is None else torch.from_numpy(weights_B[rows]).to(features_BP.dtype)
    if len(rows) == len(features_BP):
        return Rows(features_BP, targets, weights)
    chosen = torch.from_numpy(rows)
    return Rows(features_BP[chosen], targets[chosen], weights)
