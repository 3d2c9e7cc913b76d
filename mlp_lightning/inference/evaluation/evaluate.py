"""How good a trained model is on the rows of a table, or on a split of its data: metrics, pictures and a record.

Shapes: ``B`` rows, ``C`` classes or outputs, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table

from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given, open_source
from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import CheckpointError, ConfigError, DataError, Fault
from mlp_lightning.inference.evaluation.figure import confusion_figure, residual_figure, write_png
from mlp_lightning.inference.evaluation.table import (
    below_baseline,
    evaluation_lines,
    evaluation_table,
    parts_lines,
    parts_table,
)
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.new_rows import CsvOptions, new_rows
from mlp_lightning.inference.predict import finite_predictions, refuse_two_tables
from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.tasks.base import Evaluation, Floats, Metrics
from mlp_lightning.runs.build import build_data
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.run_folder import versions
from mlp_lightning.sweeps.folds import of_fold, of_member
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.columns import Place, converted
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.fingerprint import splits_by_labels
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource, TableSource
from mlp_lightning.tables.written_numbers import read_numbers


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """The results of an evaluation.

    Attributes:
        evaluation: all metrics, as :meth:`Task.evaluation` has them.
        files: what was written, ``metrics.json`` last.
        rows: how many were evaluated.
        surprises: lines on values that no training row had; empty if there are none.
        dropped: rows without a target, which are left out.
        title: which rows these are.
        baseline: the same metrics of a prediction that does not look at the features; ``None`` where the checkpoint
            does not say what that is.
    """

    evaluation: Evaluation
    files: list[Path]
    rows: int
    surprises: list[str]
    dropped: int
    title: str
    baseline: Metrics | None = None

    def tables(self) -> list[Table]:
        """The metrics, to show in a terminal."""
        tables = [evaluation_table(self.metrics, self.title, self.baseline)]
        return [*tables, parts_table(self._shown, self._parts_title)] if self._shown else tables

    def lines(self) -> list[str]:
        """The metrics as plain lines."""
        lines = evaluation_lines(self.metrics, self.title, self.baseline)
        return [*lines, *parts_lines(self._shown, self._parts_title)] if self._shown else lines

    def facts(self) -> list[str]:
        """Further lines to show after the metrics."""
        lines = [f"{self.dropped:,} rows without a target are left out"] if self.dropped else []
        return [
            *lines,
            *self.surprises,
            *below_baseline(self.metrics, self.baseline),
            *(f"Written: {file}" for file in self.files),
        ]

    @property
    def metrics(self) -> dict[str, float | None]:
        """Of all rows and targets."""
        return self.evaluation.metrics

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The metrics of each class, label or output."""
        return self.evaluation.parts

    @property
    def _shown(self) -> list[dict[str, Any]]:
        """A single output has the metrics of all of them."""
        return self.parts if len(self.parts) > 1 else []

    @property
    def _parts_title(self) -> str:
        return f"Each {self.evaluation.of_each}"


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
    """

    title: str
    targets_BT: Floats
    predictions_BC: Floats
    weights_B: Floats | None
    weight_column: str | None
    dropped: int
    surprises: list[str]


def evaluate(
    ckpt_path: str | Path,
    output_dir: str | Path,
    data_path: str | None = None,
    csv: CsvOptions | None = None,
    split: str = "test",
    weight_column: str | None = None,
    device: str = "cpu",
    allow_targets: Sequence[str] = (),
    frame: Any = None,
) -> EvaluationReport:
    """Measure a trained model, and write ``metrics.json`` and a picture into a folder.

    The picture is ``confusion_matrix.png`` of classes and ``residuals.png`` of numbers. ``metrics.json``
    is written last: if it is there, the evaluation is complete.

    Args:
        ckpt_path: of the model.
        output_dir: the folder; made if it does not exist. An earlier evaluation in it is replaced.
        data_path: a table with the columns that the model sees and its targets; rows without a target are left out.
            ``None``: a split of the data that the model was trained on, which are read and split again.
        csv: how its text files are read; ``None``, and what a ``CsvAsTrained`` leaves out: as in the training.
        split: which split, if there is no ``data_path``.
        weight_column: has the weight of each row; ``None``: that of the training if the table has it, else all count
            the same.
        device: where to compute.
        allow_targets: as for :func:`~mlp_lightning.inference.loading.load_model`.
        frame: instead of ``data_path``, a data frame of pandas, polars or pyarrow.

    Raises:
        CheckpointError: the model cannot be loaded, or the table that it was trained on has changed.
        ConfigError: the run has no such split, or both ``data_path`` and ``frame`` are given.
        DataError: a column is missing, a value cannot be read, or no row has a target.
    """
    started = time.monotonic()
    refuse_two_tables(data_path, frame, csv)
    model = load_model(ckpt_path, device, allow_targets)
    with cpu_threads(model.threads):
        if data_path is None and frame is None:
            rows = evaluated_split(model, split, weight_column)
        else:
            rows = evaluated_table(model, _source(model, data_path, csv, frame, weight_column), weight_column)
    evaluation = model.task.evaluation(model.target, rows.targets_BT, rows.predictions_BC, rows.weights_B)
    baseline = baseline_metrics(model, rows)
    record = _new_record(Path(output_dir).expanduser().absolute())
    files = [_write_picture(model, rows, evaluation, record.parent), record]
    content = {
        **_described(model, rows, evaluation, baseline),
        "data_path": None if data_path is None else str(data_path),
        "split": split if data_path is None and frame is None else None,
        "device": device,
        "seconds": time.monotonic() - started,
        "evaluated_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "versions": versions(),
    }
    with atomic_write(record) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    facts = (len(rows.targets_BT), rows.surprises, rows.dropped, rows.title)
    return EvaluationReport(evaluation, files, *facts, baseline)


def _new_record(folder: Path) -> Path:
    """The file of the metrics in a folder, which is made, without that of an earlier evaluation."""
    record = folder / "metrics.json"
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    return record


def _source(
    model: TrainedModel, data_path: str | None, csv: CsvOptions | None, frame: Any, weight_column: str | None
) -> TableSource:
    """Files, or a data frame, of which columns that are not evaluated with may hold what cannot be read."""
    if data_path is not None:
        return new_rows(str(data_path), csv, model.config.data.csv)
    seen = [*(one.name for one in model.columns), *model.target.names, weight_column, model.config.data.weight_column]
    return MemorySource.of_frame(frame, [one for one in seen if one is not None])


def evaluated_table(model: TrainedModel, source: TableSource, weight_column: str | None) -> EvaluatedRows:
    """All rows of a table that have a target.

    Raises:
        DataError: a column is missing, a value cannot be read, or no row has a target.
    """
    if weight_column is None and model.config.data.weight_column in source.column_names:
        weight_column = model.config.data.weight_column
    further = {} if weight_column is None else {weight_column: pa.float64()}
    surprises, dropped = Surprises(), 0
    targets, predictions, weights = [], [], []
    forms = model.number_forms
    for batch in encoded_batches(source, model.columns, model.target, surprises, further, trained=forms):
        kept_B = ~np.asarray(np.isnan(batch.targets_BT).any(axis=1))
        dropped += int((~kept_B).sum())
        if weight_column is not None:
            values = pa.chunked_array([batch.batch.column(weight_column)])
            at = batch.first_row
            weights.append(_weights(values, weight_column, kept_B, lambda row, at=at: source.place(at + row))[kept_B])
        targets.append(batch.targets_BT[kept_B])
        # Of all rows, so that a message names the right row.
        predictions.append(finite_predictions(model, batch, source)[0][kept_B])
    targets_BT = np.concatenate(targets)
    if not len(targets_BT):
        names = ", ".join(model.target.names)
        raise DataError(
            f"{source.name}: no row has a value of {names}, so there is nothing to compare predictions with."
        )
    return EvaluatedRows(
        f"{len(targets_BT):,} rows of {source.name}",
        targets_BT,
        np.concatenate(predictions),
        np.concatenate(weights) if weights else None,
        weight_column,
        dropped,
        surprises.lines(),
    )


def evaluated_split(model: TrainedModel, split: str, weight_column: str | None) -> EvaluatedRows:
    """The rows of a split of the model's data, which are read and split as for the training.

    Raises:
        CheckpointError: the table has changed.
        ConfigError: there is no such split.
    """
    config = of_member(model.config, 0)  # all members have the same rows
    if config.data.cv.trains_all and config.data.cv.validates and split == "test":
        config = of_fold(config, 0)
    elif config.data.cv.trains_all:
        rule, hint = "is of no single split: every row was held out by one fold", "name other rows with data.path"
        raise ConfigError([Fault("split", split, rule, f"out_of_fold.csv has predictions of all; or {hint}")])
    source = open_source(model.config.data, model.config.allow_targets)
    given = Given(source, splits_by_labels=splits_by_labels(model.fingerprint))
    data = build_data(config, given)
    if split not in data.splits:
        has = ", ".join(data.splits)
        raise ConfigError(
            [Fault("split", split, "is not a split of the run", f"it has {has}; or name a table with data.path")]
        )
    _refuse_changed(model, data)
    targets_BT, predictions_BC = _predicted(model, data, split, source)
    column, weights_B = weight_column or model.config.data.weight_column, None
    if column is not None:
        weights_B = _split_weights(data, split, column, source)
    title = f"{len(targets_BT):,} {split} rows of {model.config.data.title}"
    return EvaluatedRows(title, targets_BT, predictions_BC, weights_B, column, 0, [])


def _predicted(model: TrainedModel, data: TabularDataModule, split: str, source: TableSource) -> tuple[Floats, Floats]:
    """The targets of the rows of a split and what the model predicts of them, in the order of the split."""
    source = source_of_split(data, split, source)
    numbers_B = data.row_numbers[split]
    order_B = np.argsort(numbers_B)
    targets, predictions = [], []
    for batch in encoded_batches(source, model.columns, model.target, Surprises(), trained=model.number_forms):
        first, last = np.searchsorted(numbers_B[order_B], [batch.first_row, batch.first_row + len(batch.raw_BF)])
        chosen = numbers_B[order_B[first:last]] - batch.first_row
        targets.append(batch.targets_BT[chosen])
        predictions.append(model.predict(batch.raw_BF[chosen]))
    places_B = np.argsort(order_B)
    return np.concatenate(targets)[places_B], np.concatenate(predictions)[places_B]


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


def _split_weights(data: TabularDataModule, split: str, column: str, source: TableSource) -> Floats:
    """The weights of the rows of a split, from the table that they are in."""
    source = source_of_split(data, split, source)
    numbers_B = data.row_numbers[split]
    table = read_numbers(source.read([column]), source, {column: "numeric"}, trained=data.rows.forms).table
    values = table.column(column).take(pa.array(numbers_B))
    everyone = np.ones(len(numbers_B), dtype=bool)
    return _weights(values, column, everyone, lambda row: source.place(int(numbers_B[row])))


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


def _described(
    model: TrainedModel, rows: EvaluatedRows, evaluation: Evaluation, baseline: Metrics | None
) -> dict[str, Any]:
    """What ``metrics.json`` has about the model and its rows."""
    more: dict[str, Any] = {f"per_{evaluation.of_each}": evaluation.parts}
    if evaluation.confusion:
        by_name, columns = model.target.by_name, model.target.columns
        more["classes"] = by_name([list(one.classes) for one in columns])
        more["confusion_matrix"] = by_name([one.tolist() for one in evaluation.confusion])
    return {
        "task": model.target.task,
        "target": list(model.target.names),
        "checkpoint": str(model.path),
        "weight_column": rows.weight_column,
        "rows": len(rows.targets_BT),
        "dropped": rows.dropped,
        "metrics": _without_rows(evaluation.metrics),
        "baseline": None if baseline is None else _without_rows(baseline),
        **more,
        "surprises": rows.surprises,
    }


def baseline_metrics(model: TrainedModel, rows: EvaluatedRows) -> Metrics | None:
    """The metrics of a prediction that does not look at the features; ``None`` where the checkpoint has none.

    The metric that the training logs and its kind are those of the constant that is best for it (the most frequent
    class, the median), the others those of the constant of least loss (the shares of the classes, the mean).
    """
    plain = model.preprocessing.get("baseline")
    if plain is None:
        return None
    return Baseline.from_dict(plain).evaluation(model.task, model.target, rows.targets_BT, rows.weights_B)


def _without_rows(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if name != "rows"}


def _write_picture(model: TrainedModel, rows: EvaluatedRows, evaluation: Evaluation, folder: Path) -> Path:
    target = model.target
    if not evaluation.confusion:
        figure = residual_figure(rows.targets_BT, rows.predictions_BC, target.names, rows.title)
        return write_png(figure, folder / "residuals.png")
    figure = confusion_figure(evaluation.confusion, target.columns, rows.title)
    return write_png(figure, folder / "confusion_matrix.png")
