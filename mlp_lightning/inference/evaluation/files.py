"""What an evaluation writes: tables, pictures and a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlp_lightning.inference.evaluation.bootstrap import Intervals
from mlp_lightning.inference.evaluation.calibration import Calibration
from mlp_lightning.inference.evaluation.comparison import Comparison
from mlp_lightning.inference.evaluation.curve_figure import precision_recall_figure, reliability_figure, roc_figure
from mlp_lightning.inference.evaluation.curves import Reliability
from mlp_lightning.inference.evaluation.figure import confusion_figure, residual_figure
from mlp_lightning.inference.evaluation.report import EvaluationReport
from mlp_lightning.inference.evaluation.rows import EvaluatedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.inference.prediction_files import csv_bytes
from mlp_lightning.inference.thresholds import SECTION, model_digest
from mlp_lightning.networks.tasks.base import Metrics
from mlp_lightning.runs.drawing import png_bytes

#: All that an evaluation may write beside ``metrics.json``.
FILES = (
    *("confusion_matrix.png", "residuals.png", "roc.png", "precision_recall.png", "calibration.png"),
    *("roc.csv", "precision_recall.csv", "calibration.csv", "per_class.csv", "per_label.csv", "per_output.csv"),
)


def contents(model: TrainedModel, rows: EvaluatedRows, report: EvaluationReport) -> dict[str, bytes]:
    """The pictures and tables by their names."""
    found = {f"per_{report.evaluation.of_each}.csv": csv_bytes(_table(report.parts))}
    if not report.evaluation.confusion:
        figure = residual_figure(rows.targets_BT, rows.predictions_BC, model.target.names, rows.title)
        return {"residuals.png": png_bytes(figure), **found}
    figure = confusion_figure(report.evaluation.confusion, model.target.columns, rows.title)
    found = {"confusion_matrix.png": png_bytes(figure), **found}
    title, classes = rows.title, sum(len(one.classes) for one in model.target.columns)
    if classes > 2 * len(report.roc) > 0:
        title += f"\n{len(report.roc)} of {len(report.parts)}: those with the most rows"
    if report.roc:
        found["roc.png"] = png_bytes(roc_figure(report.roc, title))
        found["roc.csv"] = csv_bytes(_curves_table(report.roc))
        found["precision_recall.png"] = png_bytes(precision_recall_figure(report.precision_recall, title))
        found["precision_recall.csv"] = csv_bytes(_curves_table(report.precision_recall))
    if (one := report.calibration) is not None:
        title = rows.title if one.temperature is None else f"{rows.title}\ntemperature {one.temperature:.3g}"
        found["calibration.png"] = png_bytes(reliability_figure(one.reliability, one.reliability_after, title))
        found["calibration.csv"] = csv_bytes(_reliability_table(one))
    return found


def described(model: TrainedModel, rows: EvaluatedRows, report: EvaluationReport) -> dict[str, Any]:
    """What ``metrics.json`` has about the model, its rows and the results."""
    evaluation = report.evaluation
    more: dict[str, Any] = {f"per_{evaluation.of_each}": evaluation.parts}
    if evaluation.confusion:
        by_name, columns = model.target.by_name, model.target.columns
        more["classes"] = by_name([list(one.classes) for one in columns])
        more["confusion_matrix"] = by_name([one.tolist() for one in evaluation.confusion])
    if report.calibration is not None:
        one = report.calibration
        keys = "temperature", "parts", "before", "after"
        more["calibration"] = {key: getattr(one, key) for key in keys}
    if report.thresholds:
        more[SECTION] = _described_thresholds(model, report)
    if report.comparison is not None:
        more["comparison"] = _described_comparison(report.comparison)
    return {
        "task": model.target.task,
        "target": list(model.target.names),
        "checkpoint": str(model.path),
        "weight_column": rows.weight_column,
        "group_column": rows.group_column,
        "rows": len(rows.targets_BT),
        "dropped": rows.dropped,
        "metrics": _without_rows(evaluation.metrics),
        "baseline": None if report.baseline is None else _without_rows(report.baseline),
        "intervals": {**dataclasses.asdict(report.bootstrap), "of": report.units, "metrics": _lists(report.intervals)},
        **more,
        "surprises": rows.surprises,
    }


def _described_thresholds(model: TrainedModel, report: EvaluationReport) -> dict[str, Any]:
    """As :func:`~mlp_lightning.inference.thresholds.with_thresholds` reads them."""
    chosen_by = report.title if any(one.is_chosen for one in report.thresholds) else None
    return {
        "values": {one.target: one.value for one in report.thresholds},
        "chosen_by": chosen_by,
        "optimistic": chosen_by is not None,
        "model": model_digest(model),
        "per_target": [
            {
                "target": one.target,
                "class": one.positive,
                "threshold": one.value,
                "metrics": one.metrics,
                "intervals": _lists(one.intervals),
                "at_half": one.at_half,
                "baseline": one.baseline,
            }
            for one in report.thresholds
        ],
    }


def _described_comparison(one: Comparison) -> dict[str, Any]:
    return {
        "checkpoint": one.other,
        "metrics": _without_rows(one.metrics),
        "differences": one.differences,
        "intervals": _lists(one.intervals),
        "mcnemar": None if one.mcnemar is None else dataclasses.asdict(one.mcnemar),
    }


def _lists(found: Intervals) -> dict[str, list[float] | None]:
    return {key: None if limits is None else list(limits) for key, limits in found.items()}


def _without_rows(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if name != "rows"}


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A column without a number is one of missing numbers."""
    columns = {key: [one[key] for one in rows] for key in rows[0]}
    return pa.table(
        {key: pa.array(one, None if any(v is not None for v in one) else pa.float64()) for key, one in columns.items()}
    )


def _curves_table(curves: Sequence[Any]) -> pa.Table:
    """A row for every point; the threshold of no row, which is infinite, is missing."""
    fields = [field.name for field in dataclasses.fields(curves[0]) if field.name.endswith("_P")]
    parts = []
    for one in curves:
        arrays = {name.removesuffix("_P"): pa.array(getattr(one, name)) for name in fields}
        threshold_P = one.threshold_P
        arrays["threshold"] = pa.array(threshold_P, mask=~np.isfinite(threshold_P))
        parts.append(pa.table({"class": [one.name] * len(threshold_P), **arrays}))
    return pa.concat_tables(parts)


def _reliability_table(one: Calibration) -> pa.Table:
    """A row for every bin that has rows."""
    parts = []
    for probabilities, curves in (("model", one.reliability), ("temperature", one.reliability_after)):
        parts += [_bins(probabilities, curve) for curve in curves]
    return pa.concat_tables(parts)


def _bins(probabilities: str, curve: Reliability) -> pa.Table:
    count = len(curve.rows_M)
    return pa.table(
        {
            "probabilities": [probabilities] * count,
            "class": [curve.name] * count,
            "rows": curve.rows_M,
            "mean_probability": curve.probability_M,
            "share": curve.share_M,
        }
    )
