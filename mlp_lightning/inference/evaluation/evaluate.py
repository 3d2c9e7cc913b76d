"""How good a trained model is on the rows of a table, or on a split of its data: metrics, curves and a record.

Shapes: ``B`` rows, ``C`` classes or outputs, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.config.inference import EvaluateConfig, ThresholdConfig, evaluation_faults
from mlp_lightning.config.parsing import parse_section
from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.evaluation.bootstrap import Bootstrap, default_resamples, intervals
from mlp_lightning.inference.evaluation.calibration import calibration
from mlp_lightning.inference.evaluation.comparison import compared, refuse_other_target
from mlp_lightning.inference.evaluation.curves import against_rest, areas, drawn, precision_recall_curve, roc_curve
from mlp_lightning.inference.evaluation.files import FILES, contents, described
from mlp_lightning.inference.evaluation.report import EvaluationReport
from mlp_lightning.inference.evaluation.rows import EvaluatedRows, evaluated_split, evaluated_table
from mlp_lightning.inference.evaluation.thresholds import measured_thresholds
from mlp_lightning.inference.evaluation.weightings import metrics_of_weightings
from mlp_lightning.inference.labelled_rows import source_of_rows
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.new_rows import CsvOptions
from mlp_lightning.inference.predict import refuse_two_tables
from mlp_lightning.inference.thresholds import refuse_other_targets, with_thresholds
from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.tasks.base import Metrics
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.run_folder import versions


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
    *,
    group_column: str | None = None,
    resamples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    compare: str | Path | None = None,
    threshold: ThresholdConfig | Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Measure a trained model, and write ``metrics.json`` (last), tables and pictures into a folder.

    Args:
        ckpt_path: of the model.
        output_dir: the folder; made if it does not exist. An earlier evaluation in it is replaced.
        data_path: a table with the columns of the model and its targets; rows without a target are left out. ``None``:
            a split of the data that the model was trained on, which are read and split again.
        csv: how its text files are read; ``None``, and what a ``CsvAsTrained`` leaves out: as in the training.
        split: which split, if there is no ``data_path``.
        weight_column: has the weight of each row; ``None``: that of the training if the table has it.
        device: where to compute.
        allow_targets: as for :func:`~mlp_lightning.inference.loading.load_model`.
        frame: instead of ``data_path``, a data frame of pandas, polars or pyarrow.
        group_column: has the group of each row, which is drawn as a whole; ``None``: as for ``weight_column``.
        resamples: of the bootstrap intervals; 0: no intervals; ``None``: 1,000, fewer of many rows.
        confidence: of the intervals.
        seed: of the resamples.
        compare: the checkpoint of another model, to compare on the same rows.
        threshold: what to decide rows of two classes by: ``{"precision": 0.9}``, ``{"recall": 0.8}``,
            ``{"false_positive_cost": 1, "false_negative_cost": 5}``, or ``{"value": 0.37}``.

    Raises:
        CheckpointError: a model cannot be loaded, or the table that it was trained on has changed.
        ConfigError: an option is wrong or has no effect, no threshold has the precision, or the models cannot compare.
        DataError: a column is missing, a value cannot be read, or no row has a target.
    """
    started = time.monotonic()
    refuse_two_tables(data_path, frame, csv)
    options = _checked(resamples=resamples, confidence=confidence, seed=seed, threshold=_plain(threshold))
    model = _model(load_model(ckpt_path, device, allow_targets), options, group_column)
    other = None if compare is None else _other_model(model, compare, device, allow_targets)
    which = data_path, csv, frame, split
    with cpu_threads(model.threads):
        rows = _rows(model, *which, weight_column, group_column)
        found = None if other is None else _rows(other, *which, rows.weight_column, None)
    report = measured(model, rows, options)
    if other is not None and found is not None:
        report = dataclasses.replace(report, comparison=compared(model, rows, other, found, report.bootstrap))
    source = {"data_path": data_path and str(data_path), "split": None if rows.numbers_B is None else split}
    record = {**described(model, rows, report), **source, **_circumstances(device, started)}
    files = _written(Path(output_dir).expanduser().absolute(), contents(model, rows, report), record)
    return dataclasses.replace(report, files=files)


def _plain(threshold: ThresholdConfig | Mapping[str, Any] | None) -> Any:
    given = threshold.wished if isinstance(threshold, ThresholdConfig) else threshold or {}
    if not isinstance(given, Mapping):
        return given  # which is no section
    return {key: str(one) if isinstance(one, Path) else one for key, one in given.items()}


def _model(model: TrainedModel, options: EvaluateConfig, group_column: str | None) -> TrainedModel:
    """The model with the threshold that is given.

    Raises:
        ConfigError: it has no thresholds, or an option has no effect on it.
    """
    if options.threshold.wished:
        refuse_other_targets(model, options.threshold.wished, "threshold")
    if options.resamples == 0 and group_column is not None and not model.task.has_classes:
        raise ConfigError([Fault("group_column", group_column, "has no effect without resamples", "leave it out")])
    return with_thresholds(model, options.threshold.value, "threshold.value")


def _circumstances(device: str, started: float) -> dict[str, Any]:
    return {
        "device": device,
        "seconds": time.monotonic() - started,
        "evaluated_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "versions": versions(),
    }


def _checked(**given: Any) -> EvaluateConfig:
    """The options that Python hands over, checked as those of the command."""
    options = parse_section(EvaluateConfig, given)
    defaults = EvaluateConfig()
    explicit = [key for key in ("confidence", "seed") if given[key] != getattr(defaults, key)]
    if faults := evaluation_faults(options, explicit):
        raise ConfigError(faults)
    return options


def _other_model(model: TrainedModel, compare: str | Path, device: str, allow_targets: Sequence[str]) -> TrainedModel:
    other = load_model(compare, device, allow_targets)
    if other.path.resolve() == model.path.resolve():
        raise ConfigError([Fault("compare", str(compare), "is the evaluated model", "name another one")])
    refuse_other_target(model, other)
    return other


def _rows(
    model: TrainedModel,
    data_path: str | None,
    csv: CsvOptions | None,
    frame: Any,
    split: str,
    weight_column: str | None,
    group_column: str | None,
) -> EvaluatedRows:
    if data_path is None and frame is None:
        return evaluated_split(model, split, weight_column, group_column)
    source = source_of_rows(model, data_path, csv, frame, weight_column, group_column)
    return evaluated_table(model, source, weight_column, group_column)


def measured(model: TrainedModel, rows: EvaluatedRows, options: EvaluateConfig | None = None) -> EvaluationReport:
    """Measure predictions of these rows; writes nothing.

    Raises:
        ConfigError: no threshold has the wished precision, or all rows have the same class.
    """
    options = EvaluateConfig() if options is None else options
    evaluation = model.task.evaluation(model.target, rows.targets_BT, rows.predictions_BC, rows.weights_B)
    counting = rows.that_count()
    facts = model.target, counting.targets_BT, counting.predictions_BC
    questions = against_rest(*facts)
    resamples = options.resamples
    if resamples is None:
        resamples = default_resamples(len(counting.targets_BT), len(questions))
    bootstrap = Bootstrap(resamples, options.confidence, options.seed)
    shown = drawn(questions)
    roc = [curve for one in shown if (curve := roc_curve(one, counting.weights_B)) is not None]
    precision_recall = [
        curve for one in shown if (curve := precision_recall_curve(one, counting.weights_B)) is not None
    ]
    if len(questions) == len(evaluation.parts):
        of_each = zip(evaluation.parts, questions, strict=True)
        evaluation = evaluation._replace(parts=[{**part, **areas(one, counting.weights_B)} for part, one in of_each])
    return EvaluationReport(
        evaluation,
        files=[],
        rows=len(rows.targets_BT),
        surprises=rows.surprises,
        dropped=rows.dropped,
        title=rows.title,
        baseline=baseline_metrics(model, rows),
        bootstrap=bootstrap,
        intervals=intervals(metrics_of_weightings(*facts), evaluation.metrics, counting, bootstrap),
        group_column=rows.group_column,
        roc=roc,
        precision_recall=precision_recall,
        calibration=calibration(model, counting),
        thresholds=measured_thresholds(model, counting, options.threshold, bootstrap),
    )


def _written(folder: Path, by_name: Mapping[str, bytes], record: Mapping[str, Any]) -> list[Path]:
    """Write the files of an evaluation, ``metrics.json`` last, in the place of those of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", *FILES):
        (folder / name).unlink(missing_ok=True)
    last = (json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    files = {folder / name: content for name, content in {**by_name, "metrics.json": last}.items()}
    for path, content in files.items():
        with atomic_write(path) as file:
            file.write(content)
    return [*files]


def baseline_metrics(model: TrainedModel, rows: EvaluatedRows) -> Metrics | None:
    """The metrics of a prediction that does not look at the features; ``None`` where the checkpoint has none.

    The metric that the training logs and its kind are those of the constant that is best for it (the most frequent
    class, the median), the others those of the constant of least loss (the shares of the classes, the mean).
    """
    plain = model.preprocessing.get("baseline")
    if plain is None:
        return None
    return Baseline.from_dict(plain).evaluation(model.task, model.target, rows.targets_BT, rows.weights_B)
