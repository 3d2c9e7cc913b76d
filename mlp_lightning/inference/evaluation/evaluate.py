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
from rich.table import Table

from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import ConfigError, Fault, counted
from mlp_lightning.inference.evaluation.figure import confusion_figure, residual_figure, write_png
from mlp_lightning.inference.evaluation.table import (
    below_baseline,
    evaluation_lines,
    evaluation_table,
    parts_lines,
    parts_table,
)
from mlp_lightning.inference.labelled_rows import (
    column_of_weights,
    labelled_batches,
    opened_split,
    refuse_no_rows,
    source_of_rows,
    split_batches,
    split_weights,
)
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.new_rows import CsvOptions
from mlp_lightning.inference.predict import finite_predictions, refuse_two_tables
from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.tasks.base import Evaluation, Floats, Metrics
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.run_folder import versions
from mlp_lightning.tables.reading.sources import TableSource


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
        lines = []
        if self.dropped:
            lines.append(
                f"{counted(self.dropped, 'row')} without a target {'is' if self.dropped == 1 else 'are'} left out"
            )
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
            rows = evaluated_table(model, source_of_rows(model, data_path, csv, frame, weight_column), weight_column)
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


def evaluated_table(model: TrainedModel, source: TableSource, weight_column: str | None) -> EvaluatedRows:
    """All rows of a table that have a target.

    Raises:
        DataError: a column is missing, a value cannot be read, or no row has a target.
    """
    weight_column = column_of_weights(model, source, weight_column)
    surprises, dropped = model.surprises(), 0
    targets, predictions, weights = [], [], []
    for batch, kept_B, weights_B in labelled_batches(model, source, weight_column, surprises):
        targets.append(batch.targets_BT[kept_B])
        dropped += int((~kept_B).sum())
        if weights_B is not None:
            weights.append(weights_B)
        # Of all rows, so that a message names the right row.
        predictions.append(finite_predictions(model, batch, source)[0][kept_B])
    targets_BT = np.concatenate(targets)
    refuse_no_rows(model, source, len(targets_BT))
    return EvaluatedRows(
        f"{counted(len(targets_BT), 'row')} of {source.name}",
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
    return EvaluatedRows(title, targets_BT, predictions_BC, weights_B, column, 0, [])


def _predicted(model: TrainedModel, data: TabularDataModule, split: str, source: TableSource) -> tuple[Floats, Floats]:
    """The targets of the rows of a split and what the model predicts of them, in the order of the split."""
    rows, targets, predictions = [], [], []
    for rows_B, raw_BF, targets_BT in split_batches(model, data, split, source):
        rows.append(rows_B)
        targets.append(targets_BT)
        predictions.append(model.predict(raw_BF))
    places_B = np.argsort(np.concatenate(rows))
    return np.concatenate(targets)[places_B], np.concatenate(predictions)[places_B]


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
