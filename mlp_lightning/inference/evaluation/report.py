"""The results of an evaluation, and how they are shown in a terminal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from mlp_lightning.errors import counted
from mlp_lightning.inference.evaluation.bootstrap import Bootstrap, Intervals
from mlp_lightning.inference.evaluation.calibration import Calibration
from mlp_lightning.inference.evaluation.comparison import Comparison
from mlp_lightning.inference.evaluation.curves import PrecisionRecallCurve, RocCurve
from mlp_lightning.inference.evaluation.table import (
    below_baseline,
    evaluation_lines,
    evaluation_table,
    metric_name,
    metric_text,
    parts_lines,
    parts_table,
)
from mlp_lightning.inference.evaluation.thresholds import MeasuredThreshold
from mlp_lightning.networks.tasks.base import Evaluation, Metrics


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
        bootstrap: how the intervals were found.
        intervals: of each metric; ``None`` where too few resamples define it.
        group_column: whose groups were drawn as a whole; ``None``: rows were drawn.
        roc: the ROC curve of each class, of many classes of the most frequent ones.
        precision_recall: likewise.
        calibration: of classes.
        thresholds: of each target, if one is wished.
        comparison: with another model, if one is named.
    """

    evaluation: Evaluation
    files: list[Path]
    rows: int
    surprises: list[str]
    dropped: int
    title: str
    baseline: Metrics | None
    bootstrap: Bootstrap
    intervals: Intervals
    group_column: str | None
    roc: list[RocCurve]
    precision_recall: list[PrecisionRecallCurve]
    calibration: Calibration | None
    thresholds: list[MeasuredThreshold]
    comparison: Comparison | None = None

    def tables(self) -> list[Table]:
        """The metrics, to show in a terminal."""
        shown = self.metrics, self.title, self.baseline, self.intervals, self.bootstrap.confidence
        return [evaluation_table(*shown), *(parts_table(rows, title) for title, rows in self._further())]

    def lines(self) -> list[str]:
        """The metrics as plain lines."""
        shown = self.metrics, self.title, self.baseline, self.intervals, self.bootstrap.confidence
        further = [line for title, rows in self._further() for line in parts_lines(rows, title)]
        return [*evaluation_lines(*shown), *further]

    def facts(self) -> list[str]:
        """Further lines to show after the metrics."""
        lines = []
        if self.dropped:
            are = "is" if self.dropped == 1 else "are"
            lines.append(f"{counted(self.dropped, 'row')} without a target {are} left out")
        return [
            *lines,
            *self.surprises,
            *self._about_intervals(),
            *self._about_calibration(),
            *self._about_thresholds(),
            *self._about_comparison(),
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
    def units(self) -> str:
        """What a resample draws."""
        return "rows" if self.group_column is None else f"groups of {self.group_column}"

    def _further(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Further tables and their titles."""
        tables = []
        if len(self.parts) > 1:  # a single output has the metrics of all of them
            tables.append((f"Each {self.evaluation.of_each}", self.parts))
        if self.thresholds:
            rows = [
                {"decided_by": decided_by, **metrics}
                for one in self.thresholds
                for decided_by, metrics in (
                    (f"P({one.target} = {one.positive}) >= {one.value:.6g}", one.metrics),
                    (f"P({one.target} = {one.positive}) > 0.5", one.at_half),
                    (f"always {one.positive} (baseline)", one.baseline),
                )
            ]
            tables.append(("Thresholds", rows))
        if self.comparison is not None:
            rows = self.comparison.rows(self.metrics, self.baseline)
            tables.append((f"Compared with {self.comparison.other} (low to high: interval of the difference)", rows))
        return tables

    def _about_intervals(self) -> list[str]:
        if not self.bootstrap.resamples:
            return []
        if not any(self.intervals.values()):
            return [f"No intervals: they need more than one of the {self.units}"]
        how = f"{self.bootstrap.resamples:,} resamples of {self.units}, seed {self.bootstrap.seed}"
        return [f"Intervals: {100 * self.bootstrap.confidence:.4g}% of {how}"]

    def _about_calibration(self) -> list[str]:
        one = self.calibration
        if one is None or one.after is None:
            return []
        changes = [
            f"{metric_name(key)} {metric_text(value)} to {metric_text(one.after[key])}"
            for key, value in one.before.items()
        ]
        return [
            f"Calibration: a temperature of {one.temperature:.3g} brings {', '.join(changes)}"
            f" ({one.parts} parts of these rows, each with the temperature of the others)"
        ]

    def _about_thresholds(self) -> list[str]:
        if not any(one.is_chosen for one in self.thresholds):
            return []
        return [
            f"The threshold was chosen by {self.title}, so its metrics on them are optimistic: measure it on other rows"
            " with threshold.value=…/metrics.json"
        ]

    def _about_comparison(self) -> list[str]:
        if self.comparison is None:
            return []
        test = self.comparison.mcnemar
        if test is None:
            return ["McNemar's test is of classes, and of rows without weights or groups: see the intervals"]
        return [
            f"McNemar's test ({test.method}): {test.only_this:,} rows only this model has right, {test.only_other:,}"
            f" only the other, p = {test.p_value:.3g}"
        ]
