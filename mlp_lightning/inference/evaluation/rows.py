"""Rows with their targets and what a model predicts for them.

Shapes: ``B`` rows, ``C`` classes or outputs, ``T`` targets.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow
from numpy.typing import NDArray

from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, DataError, Fault, counted
from mlp_lightning.inference.labelled_rows import (
    column_of_weights,
    labelled_batches,
    opened_split,
    refuse_no_rows,
    source_of_split,
    split_batches,
    split_weights,
)
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.inference.predict import finite_predictions
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.reading.sources import TableSource


@dataclasses.dataclass(frozen=True)
class EvaluatedRows:
    """Rows with what a model predicts for them.

    Attributes:
        title: which rows these are.
        targets_BT: class numbers, or values in their own units.
        predictions_BC: as :meth:`Task.predictions` has them.
        weights_B: how much each row counts; ``None`` if all the same.
        weight_column: column of the weights; ``None`` without.
        dropped: rows of the table without a target, which are not among them.
        surprises: lines on values that no training row had.
        numbers_B: of the rows of a split, in their table; ``None`` for all rows of a table.
        group_column: has the groups; ``None`` without.
        units_B: the group of each row, from 0; ``None``: every row by itself.
    """

    title: str
    targets_BT: Floats
    predictions_BC: Floats
    weights_B: Floats | None
    weight_column: str | None
    dropped: int
    surprises: list[str]
    numbers_B: NDArray[np.int64] | None = None
    group_column: str | None = None
    units_B: NDArray[np.int64] | None = None

    def that_count(self) -> EvaluatedRows:
        """Without rows of weight 0, which count as if they were not there; their groups are numbered without gaps."""
        if self.weights_B is None or self.weights_B.all():
            return self
        some_B = self.weights_B > 0
        arrays = {
            name: one[some_B]
            for name in ("targets_BT", "predictions_BC", "weights_B", "numbers_B", "units_B")
            if (one := getattr(self, name)) is not None
        }
        if "units_B" in arrays:
            arrays["units_B"] = np.unique(arrays["units_B"], return_inverse=True)[1]
        return dataclasses.replace(self, **arrays)


def evaluated_table(
    model: TrainedModel, source: TableSource, weight_column: str | None, group_column: str | None = None
) -> EvaluatedRows:
    """All rows of a table that have a target.

    Raises:
        DataError: a column is missing, a value cannot be read, or no row has a target.
    """
    weight_column = column_of_weights(model, source, weight_column)
    surprises, dropped = model.surprises(), 0
    targets, predictions, weights, kept = [], [], [], []
    for batch, kept_B, weights_B in labelled_batches(model, source, weight_column, surprises):
        targets.append(batch.targets_BT[kept_B])
        kept.append(kept_B)
        dropped += int((~kept_B).sum())
        if weights_B is not None:
            weights.append(weights_B)
        # Of all rows, so that a message names the right row.
        predictions.append(finite_predictions(model, batch, source)[0][kept_B])
    targets_BT = np.concatenate(targets)
    refuse_no_rows(model, source, len(targets_BT))
    of_training = model.config.data.group_column
    group_column = of_training if group_column is None and of_training in source.column_names else group_column
    return EvaluatedRows(
        f"{counted(len(targets_BT), 'row')} of {source.name}",
        targets_BT,
        np.concatenate(predictions),
        np.concatenate(weights) if weights else None,
        weight_column,
        dropped,
        surprises.lines(),
        None,
        group_column,
        _units(source, group_column, np.flatnonzero(np.concatenate(kept))),
    )


def evaluated_split(
    model: TrainedModel, split: str, weight_column: str | None, group_column: str | None = None
) -> EvaluatedRows:
    """The rows of a split of the model's data, which are read and split as for the training.

    Raises:
        CheckpointError: the table has changed.
        ConfigError: there is no such split.
    """
    data, source = opened_split(model, split)
    if split not in data.splits:
        has = ", ".join(data.splits)
        raise ConfigError(
            [Fault("split", split, "is not a split of the run", f"it has {has}; or name a table with data.path")]
        )
    targets_BT, predictions_BC = _predicted(model, data, split, source)
    column, weights_B = weight_column or model.config.data.weight_column, None
    if column is not None:
        weights_B = split_weights(data, split, column, source)
    title = f"{counted(len(targets_BT), f'{split} row')} of {model.config.data.title}"
    numbers_B, group_column = data.row_numbers[split], group_column or model.config.data.group_column
    units_B = _units(source_of_split(data, split, source), group_column, numbers_B)
    facts = column, 0, [], numbers_B, group_column, units_B
    return EvaluatedRows(title, targets_BT, predictions_BC, weights_B, *facts)


def _predicted(model: TrainedModel, data: TabularDataModule, split: str, source: TableSource) -> tuple[Floats, Floats]:
    """The targets of the rows of a split and what the model predicts of them, in the order of the split."""
    rows, targets, predictions = [], [], []
    for rows_B, raw_BF, targets_BT in split_batches(model, data, split, source):
        rows.append(rows_B)
        targets.append(targets_BT)
        predictions.append(model.predict(raw_BF))
    places_B = np.argsort(np.concatenate(rows))
    return np.concatenate(targets)[places_B], np.concatenate(predictions)[places_B]


def _units(source: TableSource, column: str | None, numbers_B: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The group of each of these rows, numbered from 0 without gaps; ``None`` without a column.

    Raises:
        DataError: there is no such column, or a row has no group.
    """
    if column is None:
        return None
    if column not in source.column_names:
        raise source.without(column)
    values = source.read([column]).column(column).combine_chunks().take(pyarrow.array(numbers_B))
    if values.null_count:
        row = int(numbers_B[np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]])
        raise DataError(f"{source.place(row)}: group_column {column!r} has no value. Fill it, or leave the row out.")
    return values.dictionary_encode().indices.to_numpy().astype(np.int64)
