"""The rows that a model is explained on: held-out ones, at most so many.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.inference.labelled_rows import (
    column_of_weights,
    labelled_batches,
    opened_split,
    refuse_no_rows,
    source_of_rows,
    split_batches,
    split_weights,
)
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.inference.new_rows import CsvOptions
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.randomness import derived_seed
from mlp_lightning.tables.reading.sources import TableSource


@dataclasses.dataclass(frozen=True)
class ExplainedRows:
    """Rows with their raw columns and targets, in the order of their table.

    Attributes:
        title: which rows these are.
        raw_BF: as :func:`~mlp_lightning.tables.encoding.encode` has them.
        targets_BT: class numbers, or values in their own units.
        weights_B: how much each row counts, above 0; ``None`` if all the same.
        numbers_B: their numbers in the table, from 0.
        split: which split they are of; ``None`` for those of a table.
        weight_column: column of the weights; ``None`` without.
        drawn_from: of how many rows they were drawn; their own number if all were taken.
        dropped: rows of the table without a target, or of weight 0.
        surprises: lines on values that no training row had.
    """

    title: str
    raw_BF: Floats
    targets_BT: Floats
    weights_B: Floats | None
    numbers_B: NDArray[np.int64]
    split: str | None
    weight_column: str | None
    drawn_from: int
    dropped: int
    surprises: list[str]


class _Draw:
    """At most ``most`` of the rows that come, all sets of so many equally likely: those with the least random keys."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._random = most, np.random.default_rng(derived_seed(seed, "explained rows"))
        self._kept: list[NDArray[Any]] = []
        self.seen = self.dropped = 0

    def add(
        self, numbers_B: NDArray[np.int64], raw_BF: Floats, targets_BT: Floats, weights_B: Floats | None = None
    ) -> None:
        """Rows in the order of their table; those of weight 0 do not count."""
        columns = [numbers_B, raw_BF, targets_BT, np.ones(len(raw_BF)) if weights_B is None else weights_B]
        if weights_B is not None:
            columns = [one[weights_B > 0] for one in columns]
            self.dropped += int((weights_B == 0).sum())
        self.seen += len(columns[0])
        columns = [self._random.random(len(columns[0])), *columns]
        together = zip(self._kept or [one[:0] for one in columns], columns, strict=True)
        self._kept = [np.concatenate(both) for both in together]
        if len(self._kept[0]) > self._most:
            least = np.sort(np.argpartition(self._kept[0], self._most)[: self._most])
            self._kept = [one[least] for one in self._kept]

    def rows(
        self, of: str, split: str | None, weight_column: str | None, dropped: int, surprises: list[str]
    ) -> ExplainedRows:
        """What was drawn.

        Raises:
            DataError: no row counts.
        """
        if not self.seen:
            raise DataError(f"All {of} have the weight 0 in {weight_column!r}, so no row counts. Name other weights.")
        _, numbers_B, raw_BF, targets_BT, weights_B = self._kept
        title = f"{len(raw_BF):,} {of}" if len(raw_BF) == self.seen else f"{len(raw_BF):,} of {self.seen:,} {of}"
        weights = None if weight_column is None else weights_B
        facts = split, weight_column, self.seen, dropped + self.dropped, surprises
        return ExplainedRows(title, raw_BF, targets_BT, weights, numbers_B, *facts)


def rows_of_table(
    model: TrainedModel,
    data_path: str | None,
    csv: CsvOptions | None,
    frame: Any,
    weight_column: str | None,
    most: int,
    seed: int,
) -> ExplainedRows:
    """Rows of a table that have a target, drawn by the seed if there are more than ``most``.

    Raises:
        DataError: a column is missing, a value cannot be read, or no row has a target and a weight above 0.
    """
    source = source_of_rows(model, data_path, csv, frame, weight_column)
    weight_column = column_of_weights(model, source, weight_column)
    draw, surprises, dropped = _Draw(most, seed), model.surprises(), 0
    for batch, kept_B, weights_B in labelled_batches(model, source, weight_column, surprises):
        dropped += int((~kept_B).sum())
        draw.add(batch.first_row + np.flatnonzero(kept_B), batch.raw_BF[kept_B], batch.targets_BT[kept_B], weights_B)
    refuse_no_rows(model, source, draw.seen + draw.dropped)
    return draw.rows(f"rows of {source.name}", None, weight_column, dropped, surprises.lines())


def rows_of_split(
    model: TrainedModel,
    split: str | None,
    weight_column: str | None,
    most: int,
    seed: int,
    opened: tuple[TabularDataModule, TableSource] | None = None,
) -> ExplainedRows:
    """Rows of a split of the model's data, drawn by the seed if there are more than ``most``.

    Args:
        model: of a run, whose table is read and split again.
        split: which; ``None``: the test rows if there are some, else the validation rows.
        weight_column: has their weights; ``None``: that of the training.
        most: rows.
        seed: of the draw.
        opened: what :func:`~mlp_lightning.inference.labelled_rows.opened_split` gave; ``None``: the table is read.

    Raises:
        CheckpointError: the table has changed.
        ConfigError: there is no such split.
        DataError: all weights are 0.
    """
    data, source = opened or opened_split(model, split or "test")
    names = [split] if split is not None else ["test"] if model.config.data.cv.trains_all else ["test", "val"]
    found = next((one for one in names if one in data.splits), None)
    if found is None:
        rule = "is not a split of the run" if split is not None else "finds no held-out rows in the run"
        hint = f"it has {', '.join(data.splits)}: choose one of these, or name a table with data.path"
        raise ConfigError([Fault("split", split, rule, hint)])
    column, weights_B = weight_column or model.config.data.weight_column, None
    if column is not None:
        weights_B = split_weights(data, found, column, source)
    draw = _Draw(most, seed)
    for places_B, raw_BF, targets_BT in split_batches(model, data, found, source):
        here = None if weights_B is None else weights_B[places_B]
        draw.add(data.row_numbers[found][places_B], raw_BF, targets_BT, here)
    return draw.rows(f"{found} rows of {model.config.data.title}", found, column, 0, [])
