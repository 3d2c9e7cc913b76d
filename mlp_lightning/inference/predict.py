"""Predictions for the rows of a table of any size, into a file.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.inference.intervals import FurtherColumns
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.new_rows import CsvOptions, new_rows
from mlp_lightning.inference.prediction_files import refuse_output, written_table
from mlp_lightning.inference.thresholds import with_thresholds
from mlp_lightning.networks.tasks import task_class
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.batches import ROWS_AT_ONCE, EncodedBatch, encoded_batches
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.idle_csv import given_options
from mlp_lightning.tables.reading.columnar import ColumnarFile
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource, TableSource
from mlp_lightning.tables.reading.types import common_type, readable_type
from mlp_lightning.tables.targets import Target


@dataclasses.dataclass(frozen=True)
class PredictionReport:
    """What was predicted.

    Attributes:
        rows: how many.
        path: the file that was written.
        surprises: lines on values that no training row had; empty if there are none.
        notes: lines on what intervals rest on; empty without.
        seconds: from the loading of the model to the finished file.
    """

    rows: int
    path: Path
    surprises: list[str]
    notes: list[str]
    seconds: float


def predict(
    ckpt_path: str | Path,
    data_path: str | None = None,
    output: str | Path | None = None,
    csv: CsvOptions | None = None,
    id_columns: Sequence[str] = (),
    device: str = "cpu",
    rows_at_once: int = ROWS_AT_ONCE,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    allow_targets: Sequence[str] = (),
    frame: Any = None,
    *,
    interval: float | None = None,
    member_quantiles: Sequence[float] | None = None,
    threshold: float | str | Path | None = None,
) -> PredictionReport:
    """Write the predictions of a trained model for every row of a table, in their order and in constant memory.

    The columns are, in this order, ``id_columns``; ``predicted_<target>`` (a class with its type: text, whole number or
    truth value; a value in its units); of a classification, ``probability_<class>``, of several targets of two classes
    each ``probability_<target>_<class>`` for the second class; of an ensemble ``std_<target>``: the standard deviation
    between its members of the value, or of the probability of the predicted class; and the further ones asked for.

    Args:
        ckpt_path: of the model.
        data_path: a file, a folder of files, or a pattern with ``*``; needs no target column.
        output: the file to write; its ending decides the format: ``.csv``, ``.tsv`` (both also with ``.gz``),
            ``.parquet``, ``.feather`` or ``.arrow``. It appears only when it is complete.
        csv: how text files are read; ``None``, and what a ``CsvAsTrained`` leaves out: as in the training.
        id_columns: columns to copy.
        device: where to compute.
        rows_at_once: most rows in memory.
        overwrite: whether to replace an existing file.
        allow_targets: as for :func:`~mlp_lightning.inference.loading.load_model`.
        progress: called after some rows, and at the end, with their number.
        frame: the table, instead of ``data_path``: a data frame of pandas, polars or pyarrow.
        interval: as for :class:`~mlp_lightning.inference.intervals.FurtherColumns`.
        member_quantiles: likewise.
        threshold: as for :func:`~mlp_lightning.inference.thresholds.with_thresholds`.

    Raises:
        CheckpointError, ConfigError: the model cannot be loaded or have such columns, or ``output`` is refused.
        DataError: a column is missing, or a value cannot be read or has no prediction.
        OSError: the output cannot be written; no partial file is left.
    """
    started = time.monotonic()
    refuse_two_tables(data_path, frame, csv)
    path = _output_path(output, data_path, frame)
    refuse_output(path, str(output), [], overwrite)
    model = with_thresholds(load_model(ckpt_path, device, allow_targets), threshold, "threshold")
    ids = list(dict.fromkeys(id_columns))
    further = FurtherColumns(model, interval, member_quantiles)
    source, surprises = _source(model, data_path, csv, frame, ids), model.surprises()
    refuse_output(path, str(output), [file.path for file in source.files], overwrite)
    _refuse_path_in_table(path, str(output), data_path)
    _refuse_names(ids, [*output_names(model.target, model.is_ensemble), *further.names])
    with cpu_threads(model.threads):
        rows = _written(path, predicted_rows(model, source, ids, surprises, rows_at_once, further), progress)
    return PredictionReport(rows, path, surprises.lines(), further.notes(), time.monotonic() - started)


def _output_path(output: str | Path | None, data_path: str | None, frame: Any) -> Path:
    given = {"output": output, "data.path": data_path if frame is None else ""}
    if missing := [Fault(key, None, "is missing", "name a file") for key, value in given.items() if value is None]:
        raise ConfigError(missing)
    return Path(str(output)).expanduser().absolute()


def _written(path: Path, parts: Iterator[pa.Table], progress: Callable[[int], None] | None) -> int:
    """Write a table part by part; returns the number of its rows."""
    rows = 0
    with written_table(path) as writer:
        for part in parts:
            writer.write(part)
            rows += part.num_rows
            if progress is not None:
                progress(rows)
    return rows


def _source(
    model: TrainedModel, data_path: str | None, csv: CsvOptions | None, frame: Any, ids: Sequence[str]
) -> TableSource:
    if data_path is not None:
        return new_rows(data_path, csv, model.config.data.csv)
    return MemorySource.of_frame(frame, [*(one.name for one in model.columns), *ids])


def refuse_two_tables(data_path: object, frame: object, csv: CsvOptions | None) -> None:
    """Refuse what has no effect beside a data frame.

    Raises:
        ConfigError: naming it.
    """
    rule = "contradicts frame, which has the rows"
    faults = [
        Fault(key, value, rule, "leave one of them out")
        for key, value in {"data.path": data_path, **given_options(csv)}.items()
        if frame is not None and value is not None
    ]
    if faults:
        raise ConfigError(faults)


def output_names(target: Target, is_ensemble: bool = False) -> list[str]:
    """The names of the columns of predictions."""
    names = task_class(target.task).prediction_names(target)
    spread = [f"std_{name}" for name in target.names] if is_ensemble else []
    return list(dict.fromkeys([*(f"predicted_{name}" for name in target.names), *names, *spread]))


def predicted_rows(
    model: TrainedModel,
    source: TableSource,
    ids: Sequence[str],
    surprises: Surprises,
    rows_at_once: int,
    further: FurtherColumns,
) -> Iterator[pa.Table]:
    """Predictions, with the columns ``ids`` before them, for all rows in order.

    Args:
        model: to predict with.
        source: has the columns that the model sees, and ``ids``.
        ids: columns to copy.
        surprises: counts what no training row had.
        rows_at_once: most rows of one part.
        further: columns that come last.

    Raises:
        DataError: a column is missing, or a value cannot be read or has no prediction.
    """
    seen = {column.name for column in model.columns}
    along = {name: stored_type(source, name) for name in ids if name not in seen}
    # A column that the model sees has the model's type: the text 007 would be copied as the number 7.
    apart = {name: stored_type(source, name) for name in ids if name in seen}
    others = _RowsInOrder(source.batches(list(apart), apart, rows_at_once)) if apart else None
    forms = model.number_forms
    for batch in encoded_batches(source, model.columns, None, surprises, along, rows_at_once, forms):
        predictions_BC, spread_BT, further_BX = finite_predictions(model, batch, source, further)
        columns = {name: batch.batch.column(name) for name in along}
        if others is not None:
            columns |= others.take(batch.batch.num_rows)
        columns = {name: columns[name] for name in ids}
        columns |= output_columns(model, predictions_BC, spread_BT)
        columns |= {name: np.ascontiguousarray(one) for name, one in zip(further.names, further_BX.T, strict=True)}
        yield pa.table(columns)


def stored_type(source: TableSource, name: str) -> pa.DataType:
    """The type of a column in its table; text files have texts, with every character kept.

    Raises:
        DataError: there is no such column, or it holds lists, bytes and the like.
    """
    if name not in source.column_names:
        raise source.without(name)
    if isinstance(source, MemorySource):
        stored_as = source.table.schema.field(name).type
        readable_type(stored_as, name, source.name)
        return stored_as.value_type if pa.types.is_dictionary(stored_as) else stored_as
    assert isinstance(source, FileSource)
    if name in source.partitions:
        return source.partitions[name].type
    files = [file for file in source.files if isinstance(file, ColumnarFile)]
    stored = {file.schema.field(name).type for file in files}
    readable = common_type([readable_type(file.schema.field(name).type, name, file.name) for file in files])
    if not files or len(stored) > 1 or readable == pa.string():
        return readable if files else pa.string()
    (only,) = stored
    return only.value_type if pa.types.is_dictionary(only) else only


def finite_predictions(
    model: TrainedModel, batch: EncodedBatch, source: TableSource, further: FurtherColumns | None = None
) -> tuple[Floats, Floats | None, Floats]:
    """What :meth:`TrainedModel.predict_with` gives for some rows.

    Raises:
        DataError: a prediction is not a finite number.
    """
    predictions_BC, spread_BT, further_BX = model.predict_with(batch.raw_BF, further or FurtherColumns(model))
    finite_B = np.isfinite(predictions_BC).all(axis=1)
    if not finite_B.all():
        row = int(finite_B.argmin())
        raise DataError(
            f"{source.place(batch.first_row + row)}: the model's prediction is not a finite number. Check whether the"
            " row has values far from those of the training rows, or whether the training diverged."
        )
    return predictions_BC, spread_BT, further_BX


def output_columns(model: TrainedModel, predictions_BC: Floats, spread_BT: Floats | None = None) -> dict[str, pa.Array]:
    """The columns of :func:`output_names` for some rows."""
    values = [pa.array(np.ascontiguousarray(one)) for one in predictions_BC.T]
    decisions_BT = model.decisions(torch.from_numpy(predictions_BC))
    if decisions_BT is not None:
        decided = zip(model.target.columns, decisions_BT.T, strict=True)
        values = [*(one.values(numbers_B.numpy()) for one, numbers_B in decided), *values]
    if spread_BT is not None:
        values += [pa.array(np.ascontiguousarray(one)) for one in spread_BT.T]
    return dict(zip(output_names(model.target, spread_BT is not None), values, strict=True))


class _RowsInOrder:
    """Rows of batches, as many at once as asked for."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: pa.RecordBatch | None = None

    def take(self, count: int) -> dict[str, pa.ChunkedArray]:
        parts = []
        while count:
            batch = next(self._batches) if self._left is None else self._left
            parts.append(batch.slice(0, count))
            self._left = batch.slice(count) if batch.num_rows > count else None
            count -= parts[-1].num_rows
        table = pa.Table.from_batches(parts)
        return dict(zip(table.column_names, table.columns, strict=True))


def _refuse_names(ids: Sequence[str], outputs: Sequence[str]) -> None:
    """Two columns of a table cannot have the same name."""
    for name in ids:
        if name in outputs:
            raise ConfigError(
                [Fault("id_columns", name, "is the name of a column of predictions", "rename it in the table")]
            )


def _refuse_path_in_table(path: Path, given: str, data_path: str | None) -> None:
    """Predictions inside a folder of files would be rows of the table in the next call."""
    folder = Path(data_path or "").expanduser()
    if data_path is not None and folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            [Fault("output", given, f"is inside {data_path}, the table itself", "write it to another folder")]
        )
