"""Rows that have their targets, for what compares a trained model's predictions with them.

They are rows of a table, of a data frame, or of a split of the data that a model was trained on.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``T`` targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given, open_source
from mlp_lightning.errors import CheckpointError, ConfigError, DataError, Fault
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.inference.new_rows import CsvOptions, new_rows
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.runs.build import build_data
from mlp_lightning.sweeps.folds import of_fold, of_member
from mlp_lightning.tables.batches import EncodedBatch, encoded_batches
from mlp_lightning.tables.columns import Place, converted
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.fingerprint import splits_by_labels
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource, TableSource
from mlp_lightning.tables.written_numbers import read_numbers


def source_of_rows(
    model: TrainedModel, data_path: str | None, csv: CsvOptions | None, frame: Any, *further: str | None
) -> TableSource:
    """Files, or a data frame, of which columns that are not evaluated with may hold what cannot be read."""
    if data_path is not None:
        return new_rows(str(data_path), csv, model.config.data.csv)
    of_training = model.config.data.weight_column, model.config.data.group_column
    seen = [*(one.name for one in model.columns), *model.target.names, *further, *of_training]
    return MemorySource.of_frame(frame, [one for one in seen if one is not None])


def column_of_weights(model: TrainedModel, source: TableSource, wanted: str | None) -> str | None:
    """The column of the weights of a table: the wanted one, or that of the training if the table has it."""
    of_training = model.config.data.weight_column
    return of_training if wanted is None and of_training in source.column_names else wanted


def labelled_batches(
    model: TrainedModel, source: TableSource, weight_column: str | None, surprises: Surprises
) -> Iterator[tuple[EncodedBatch, NDArray[np.bool_], Floats | None]]:
    """The rows of a table, which of them have all targets, and the weights of these.

    Raises:
        DataError: a column is missing, or a value cannot be read.
    """
    further = {} if weight_column is None else {weight_column: pa.float64()}
    forms = model.number_forms
    for batch in encoded_batches(source, model.columns, model.target, surprises, further, trained=forms):
        kept_B, weights_B = ~np.asarray(np.isnan(batch.targets_BT).any(axis=1)), None
        if weight_column is not None:
            values = pa.chunked_array([batch.batch.column(weight_column)])
            at = batch.first_row
            weights_B = _weights(values, weight_column, kept_B, lambda row, at=at: source.place(at + row))[kept_B]
        yield batch, kept_B, weights_B


def refuse_no_rows(model: TrainedModel, source: TableSource, rows: int) -> None:
    """Refuse a table without a row that has a target.

    Raises:
        DataError: it has none.
    """
    if not rows:
        names = ", ".join(model.target.names)
        raise DataError(
            f"{source.name}: no row has a value of {names}, so there is nothing to compare predictions with."
        )


def opened_split(model: TrainedModel, split: str) -> tuple[TabularDataModule, TableSource]:
    """The data of a model, split as for the training, and the table that they are from.

    Raises:
        CheckpointError: the table has changed.
        ConfigError: the model is of all folds, and the split of one.
    """
    config = of_member(model.config, 0)  # all members have the same rows
    if config.data.cv.trains_all and config.data.cv.validates and split == "test":
        config = of_fold(config, 0)
    elif config.data.cv.trains_all:
        rule, hint = "is of no single split: every row was held out by one fold", "name other rows with data.path"
        if model.config.preset.name == "default":
            hint = f"out_of_fold.csv has predictions of all; or {hint}"
        raise ConfigError([Fault("split", split, rule, hint)])
    source = open_source(model.config.data, model.config.allow_targets)
    given = Given(source, splits_by_labels=splits_by_labels(model.fingerprint), is_trained=True)
    data = build_data(config, given)
    _refuse_changed(model, data)
    return data, source


def split_batches(
    model: TrainedModel, data: TabularDataModule, split: str, source: TableSource
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    """The rows of a split in the order of their table: their places in the split, raw columns and targets."""
    source = source_of_split(data, split, source)
    numbers_B = data.row_numbers[split]
    order_B = np.argsort(numbers_B)
    for batch in encoded_batches(source, model.columns, model.target, Surprises(), trained=model.number_forms):
        first, last = np.searchsorted(numbers_B[order_B], [batch.first_row, batch.first_row + len(batch.raw_BF)])
        chosen = numbers_B[order_B[first:last]] - batch.first_row
        yield order_B[first:last], batch.raw_BF[chosen], batch.targets_BT[chosen]


def split_weights(data: TabularDataModule, split: str, column: str, source: TableSource) -> Floats:
    """The weights of the rows of a split, from the table that they are in."""
    source = source_of_split(data, split, source)
    numbers_B = data.row_numbers[split]
    table = read_numbers(source.read([column]), source, {column: "numeric"}, trained=data.rows.forms).table
    values = table.column(column).take(pa.array(numbers_B))
    everyone = np.ones(len(numbers_B), dtype=bool)
    return _weights(values, column, everyone, lambda row: source.place(int(numbers_B[row])))


def source_of_split(data: TabularDataModule, split: str, source: TableSource) -> TableSource:
    """The table that a split comes from."""
    path = {"val": data.options.val_path, "test": data.options.test_path}.get(split)
    return source if path is None else FileSource.open(path, data.options.csv)


def _refuse_changed(model: TrainedModel, data: TabularDataModule) -> None:
    """Rows of a changed table would be split differently: training rows would be treated as new ones."""
    state = model.preprocessors[0].state_dict()
    if changes := data.changes_since(model.fingerprint, model.preprocessing, state):
        raise CheckpointError(
            f"ckpt_path: {model.path} was trained on other rows than {data.table_name} has now, so its splits are no"
            f" longer known: {changes}. Bring the table back as it was, or name rows that the model has not seen with"
            " data.path."
        )


def _weights(values: pa.ChunkedArray, column: str, kept_B: NDArray[np.bool_], place: Place) -> Floats:
    """Weights as numbers; those of rows that are not kept are not checked."""
    numbers_B = np.asarray(converted(column, values, pa.float64(), place).to_numpy(), dtype=np.float64)
    bad_B = kept_B & ~(np.isfinite(numbers_B) & (numbers_B >= 0))
    if bad_B.any():
        row = int(bad_B.argmax())
        raise DataError(
            f"{place(row)}: weight_column {column!r} is {values[row].as_py()!r}; a weight is a number of at least 0."
        )
    return numbers_B
