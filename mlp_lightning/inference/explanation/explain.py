"""What a trained model makes of its columns: importance and partial dependence, into tables, pictures and a record.

Shapes: ``G`` values of a grid, ``C`` outputs, ``I`` rows, ``R`` repeats.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.evaluation.table import metric_name, parts_lines, parts_table
from mlp_lightning.inference.explanation.dependence import Dependence, partial_dependence
from mlp_lightning.inference.explanation.figure import Curve, importance_figure, partial_dependence_figure
from mlp_lightning.inference.explanation.importance import Importances, permutation_importances
from mlp_lightning.inference.explanation.rows import ExplainedRows, rows_of_split, rows_of_table
from mlp_lightning.inference.explanation.shapley import ShapleyValues, shapley_values
from mlp_lightning.inference.explanation.shapley_files import (
    SHAPLEY_FILES,
    shapley_figure,
    shapley_record,
    summary_table,
    values_table,
)
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.new_rows import CsvOptions
from mlp_lightning.inference.predict import refuse_two_tables
from mlp_lightning.inference.prediction_files import csv_bytes
from mlp_lightning.networks.tasks import task_class
from mlp_lightning.runs.drawing import png_bytes
from mlp_lightning.runs.files import complete_writes, write_all
from mlp_lightning.runs.run_folder import versions
from mlp_lightning.tables.idle_csv import given_options

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a model makes of its columns.

    Attributes:
        rows: what it was measured on.
        importances: of all columns, the most important first.
        dependences: of the most important columns.
        metric_name: of the metric beside the loss.
        metric_falls: whether a worse metric is a lower one.
        files: what was written.
        shapley: what columns add to single predictions; ``None`` if it was not asked for.
    """

    rows: ExplainedRows
    importances: Importances
    dependences: list[Dependence]
    metric_name: str
    metric_falls: bool
    files: list[Path]
    shapley: ShapleyValues | None = None

    def table(self) -> Table:
        """The importances, to show in a terminal."""
        return parts_table(self.table_rows(), self._title)

    def lines(self) -> list[str]:
        """The same as plain lines."""
        return parts_lines(self.table_rows(), self._title)

    def facts(self) -> list[str]:
        """Further lines to show after them."""
        rows = self.rows
        left_out = "rows without a target" if rows.weight_column is None else "rows without a target or of weight 0"
        lines = [f"{rows.dropped:,} {left_out} are left out"] if rows.dropped else []
        if len(rows.raw_BF) < rows.drawn_from:
            lines.append(f"{len(rows.raw_BF):,} of {rows.drawn_from:,} rows were drawn by the seed (rows=… for more)")
        return [*lines, *rows.surprises, *(f"Written: {file}" for file in self.files)]

    @property
    def worse(self) -> str:
        """What a worse metric does: ``decrease`` or ``increase``."""
        return "decrease" if self.metric_falls else "increase"

    @property
    def _title(self) -> str:
        name, scores = metric_name(self.metric_name), self.importances
        return f"Permutation importance: {self.rows.title} (loss {scores.loss:.5g}, {name} {scores.metric:.5g})"

    def table_rows(self) -> list[dict[str, Any]]:
        """For each column the means over the repeats, and their standard deviations."""
        return [
            {
                "column": one.column.name,
                "kind": one.column.kind,
                "loss_increase": one.means[0],
                "loss_sd": one.deviations[0],
                f"{self.metric_name}_{self.worse}": one.means[1],
                f"{self.metric_name}_sd": one.deviations[1],
            }
            for one in self.importances.columns
        ]


def explain(
    ckpt_path: str | Path,
    output_dir: str | Path | None = None,
    data_path: str | None = None,
    csv: CsvOptions | None = None,
    split: str | None = None,
    weight_column: str | None = None,
    device: str = "cpu",
    allow_targets: Sequence[str] = (),
    frame: Any = None,
    *,
    repeats: int = 10,
    top: int = 6,
    rows: int = 2_000,
    seed: int = 0,
    shapley_rows: int | Sequence[int] = 200,
    shapley_samples: int = 50,
) -> Explanation:
    """Measure how much a trained model needs each column, and how its predictions follow from them.

    Writes tables, pictures and ``explanation.json`` into a folder: all or none. The same call writes the same.

    Args:
        ckpt_path: of the model.
        output_dir: the folder; made if it does not exist. An earlier explanation in it is replaced. ``None``:
            ``explanation/<split>``, ``explanation/table-<name>`` or ``explanation/frame`` in the run's folder.
        data_path: a table with the model's columns and targets; ``None``: a split of the data that it was trained on.
        csv: how its text files are read; ``None``, and what a ``CsvAsTrained`` leaves out: as in the training.
        split: which split, if there is no table; ``None``: the test rows, without them the validation rows.
        weight_column: has the weight of each row; ``None``: that of the training if the table has it.
        device: where to compute.
        allow_targets: as for :func:`~mlp_lightning.inference.loading.load_model`.
        frame: instead of ``data_path``, a data frame of pandas, polars or pyarrow.
        repeats: how often each column is permuted, at least 2.
        top: of how many columns the partial dependence is worked out.
        rows: most rows to use; of more, so many are drawn.
        seed: decides the permutations, and which rows are drawn.
        shapley_rows: how many rows get Shapley values, 0: none; or which, by their numbers in the table from 1.
        shapley_samples: how many rows each is compared with, at least 2.

    Raises:
        CheckpointError: the model cannot be loaded, or the table that it was trained on has changed.
        ConfigError: the run has no such split, or both ``data_path`` and ``frame`` are given, or a number is too small.
        DataError: a column is missing, a value cannot be read, no row has a target, or a prediction is not finite.
        OSError: the folder cannot be written to.
    """
    started = time.monotonic()
    of_split = data_path is None and frame is None
    numbers = {"repeats": (repeats, 2), "top": (top, 1), "rows": (rows, 1), "seed": (seed, 0)}
    numbers["shapley_samples"] = shapley_samples, 2
    _refuse_options(output_dir, numbers, given_options(csv) if of_split else {"split": split})
    refuse_two_tables(data_path, frame, csv)
    model, most = load_model(ckpt_path, device, allow_targets), (weight_column, rows, seed)
    with cpu_threads(model.threads):
        used = rows_of_split(model, split, *most) if of_split else rows_of_table(model, data_path, csv, frame, *most)
        measured = explained(model, used, repeats, top, seed)
        values = shapley_values(model, used, shapley_rows, shapley_samples, seed) if shapley_rows else None
    asked = {"data_path": None if data_path is None else str(data_path), "seed": seed, "device": device}
    return _finished(model, dataclasses.replace(measured, shapley=values), output_dir, asked, started)


def explained(model: TrainedModel, rows: ExplainedRows, repeats: int, top: int, seed: int) -> Explanation:
    """Measure importances and partial dependence on these rows; writes nothing."""
    importances = permutation_importances(model, rows, repeats, seed)
    names = [one.column.name for one in importances.columns[:top]]
    dependences = [partial_dependence(model, rows, name, seed) for name in names]
    return Explanation(rows, importances, dependences, model.task.metric_name, model.task.has_classes, [])


def _finished(
    model: TrainedModel, measured: Explanation, output_dir: str | Path | None, asked: dict[str, Any], started: float
) -> Explanation:
    """The explanation with its files, which are written."""
    record = {**_described(model, measured), **asked, "seconds": time.monotonic() - started}
    folder = _folder(model, measured.rows, asked["data_path"])
    folder = folder if output_dir is None else Path(output_dir).expanduser().absolute()
    return dataclasses.replace(measured, files=_written(folder, _contents(model, measured, record)))


def _folder(model: TrainedModel, rows: ExplainedRows, data_path: str | None) -> Path:
    """Where an explanation goes that is to go nowhere else."""
    # With a prefix, because a table may have the name of a split.
    of_table = "frame" if data_path is None else f"table-{Path(data_path).stem}"
    return model.run_dir / "explanation" / (rows.split or of_table)


def _refuse_options(output: str | Path | None, numbers: dict[str, tuple[int, int]], idle: dict[str, Any]) -> None:
    """Refuse what can be seen to be wrong before the model is loaded.

    Raises:
        ConfigError: naming all of it.
    """
    faults = [
        Fault(name, value, f"must be at least {least}") for name, (value, least) in numbers.items() if value < least
    ]
    for name, value in idle.items():
        if value is not None:
            rule = "has no effect " + ("beside another table" if name == "split" else "without a table to read")
            faults.append(Fault(name, value, rule, "leave it out"))
    if output is not None and Path(output).expanduser().is_file():
        faults.append(Fault("output", str(output), "is a file", "name a folder for the explanation"))
    if faults:
        raise ConfigError(faults)


def _written(folder: Path, by_name: dict[str, bytes]) -> list[Path]:
    contents, is_new = {folder / name: content for name, content in by_name.items()}, not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        complete_writes(folder, "explanation-*")  # and not those of runs that train in there
        write_all(contents, folder / f".explanation-{os.getpid()}-{time.time_ns()}.journal")
        for name in set(SHAPLEY_FILES) - set(by_name):  # of an earlier explanation
            (folder / name).unlink(missing_ok=True)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # somebody else's files are in it
                folder.rmdir()
        raise
    return [*contents]


def _described(model: TrainedModel, measured: Explanation) -> dict[str, Any]:
    """What ``explanation.json`` has about the model, its rows, and what was found."""
    rows, scores = measured.rows, measured.importances
    keys = "loss_increase", f"{measured.metric_name}_{measured.worse}"
    return {
        "task": model.target.task,
        "target": list(model.target.names),
        "checkpoint": str(model.path),
        "split": rows.split,
        "weight_column": rows.weight_column,
        "rows": len(rows.raw_BF),
        "drawn_from": rows.drawn_from,
        "dropped": rows.dropped,
        "repeats": len(scores.columns[0].loss_R),
        "metrics": {"loss": scores.loss, measured.metric_name: scores.metric},
        "importance": [
            {
                "column": one.column.name,
                "kind": one.column.kind,
                **{
                    key: {"mean": mean, "sd": sd, "repeats": values_R.tolist()}
                    for key, mean, sd, values_R in zip(
                        keys, one.means, one.deviations, (one.loss_R, one.metric_R), strict=True
                    )
                },
            }
            for one in scores.columns
        ],
        "outputs": _outputs(model),
        "partial_dependence": [
            {"column": one.column.name, "kind": one.column.kind, "values": one.labels, "mean": one.mean_GC.tolist()}
            for one in measured.dependences
        ],
        **({} if measured.shapley is None else {"shapley": shapley_record(measured.shapley, _outputs(model))}),
        "surprises": rows.surprises,
        "explained_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "versions": versions(),
    }


def _outputs(model: TrainedModel) -> list[str]:
    return task_class(model.target.task).prediction_names(model.target)


def _contents(model: TrainedModel, measured: Explanation, record: dict[str, Any]) -> dict[str, bytes]:
    """The files by their names."""
    columns, outputs, title = measured.importances.columns, _outputs(model), measured.rows.title
    scores = [
        ("increase of the loss", np.stack([one.loss_R for one in columns])),
        (f"{measured.worse} of the {metric_name(measured.metric_name)}", np.stack([one.metric_R for one in columns])),
    ]
    names = [one.column.name for one in columns]
    curves = [
        Curve(one.column.name, one.column.kind, one.grid_G, one.labels, one.mean_GC, one.curves_IGC)
        for one in measured.dependences
    ]
    # The probabilities of two classes mirror each other.
    shown = [*enumerate(outputs)][1:] if model.target.task == "binary" else [*enumerate(outputs)]
    repeats = len(columns[0].loss_R)
    importance = importance_figure(names, scores, f"Permutation importance, {repeats} repeats: {title}")
    dependence = partial_dependence_figure(curves, shown, f"Partial dependence and single rows: {title}")
    of_shapley: dict[str, bytes] = {}
    if (values := measured.shapley) is not None:
        picture = shapley_figure(values, shown, f"Shapley values of {len(values.raw_BF):,} of {title}")
        content = (
            csv_bytes(summary_table(values, outputs)),
            csv_bytes(values_table(values, outputs)),
            png_bytes(picture),
        )
        of_shapley = dict(zip(SHAPLEY_FILES, content, strict=True))
    return {
        **of_shapley,
        "importance.csv": csv_bytes(pa.Table.from_pylist(measured.table_rows())),
        "partial_dependence.csv": csv_bytes(_dependence_table(measured.dependences, outputs)),
        "ice.csv": csv_bytes(_curves_table(measured.dependences, outputs)),
        "importance.png": png_bytes(importance),
        "partial_dependence.png": png_bytes(dependence),
        "explanation.json": (json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }


def _dependence_table(dependences: Sequence[Dependence], outputs: Sequence[str]) -> pa.Table:
    """A row for every value and output of every column."""
    rows = [
        (one.column.name, label, output, *(float(of[g, c]) for of in (one.mean_GC, one.low_GC, one.high_GC)))
        for one in dependences
        for g, label in enumerate(one.labels)
        for c, output in enumerate(outputs)
    ]
    names = ["column", "value", "output", "mean", "p10", "p90"]
    return pa.table(dict(zip(names, map(_array, zip(*rows, strict=True)), strict=True)))


def _curves_table(dependences: Sequence[Dependence], outputs: Sequence[str]) -> pa.Table:
    """A row for every row of the table whose curves are kept, value and output of every column."""
    rows = [
        (one.column.name, label, output, int(number) + 1, float(one.curves_IGC[i, g, c]))
        for one in dependences
        for i, number in enumerate(one.rows_I)
        for g, label in enumerate(one.labels)
        for c, output in enumerate(outputs)
    ]
    names = ["column", "value", "output", "row", "prediction"]
    return pa.table(dict(zip(names, map(_array, zip(*rows, strict=True)), strict=True)))


def _array(values: Sequence[Any]) -> pa.Array:
    texts = all(one is None or isinstance(one, str) for one in values)
    return pa.array(values, pa.string() if texts else None)
