"""The curves of a run, from its ``metrics.csv``, and what can be measured on them.

Shapes: ``S`` logged steps.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.packed.reading import PackedRun, read_row

#: Of a ``metrics.csv`` that is read: five million steps take less.
MOST_BYTES = 1 << 28
#: Of a series that a page shows; of more, the least and the greatest of each of half as many groups.
MOST_POINTS = 400
SPLITS = ("train", "val", "test")
_LR = "learning_rate"
# As near to the baseline's as this is a plateau, if it lasts for so many logged steps and this share of the training.
_NEAR, _LEAST_POINTS, _LEAST_SHARE = 0.01, 5, 0.05

Floats = NDArray[np.float64]


class Line(NamedTuple):
    """One metric of one split.

    Attributes:
        steps_S: optimizer steps made before each value.
        values_S: may be NaN or infinite.
    """

    steps_S: Floats
    values_S: Floats


class Plateau(NamedTuple):
    """The longest stretch over which the training loss is that of the baseline.

    Attributes:
        first: step.
        last: step.
        baseline: the loss of the prediction that does not look at the features.
        loss: the mean over the stretch.
    """

    first: int
    last: int
    baseline: float
    loss: float


@dataclasses.dataclass(frozen=True)
class RunCurves:
    """All curves of a run.

    Attributes:
        metric_name: of the metric beside the loss; empty without one.
        lines: by their names in the file, such as ``loss/train``.
    """

    metric_name: str
    lines: Mapping[str, Line]

    def line(self, metric: str, split: str) -> Line | None:
        """A line that has a value."""
        found = self.lines.get(f"{metric}/{split}")
        return found if found is not None and len(found.steps_S) else None

    @property
    def rate(self) -> Line | None:
        """The learning rate."""
        found = self.lines.get(_LR)
        return found if found is not None and len(found.steps_S) else None

    def plain(self) -> dict[str, Any]:
        """For the charts of a page; a test split has one value only, which is in the table of metrics."""
        charts = []
        for metric in dict.fromkeys(one for one in ("loss", self.metric_name) if one):
            lines = {split: self.line(metric, split) for split in SPLITS[:2]}
            series = [{"split": split, **thinned(line)} for split, line in lines.items() if line is not None]
            charts.append({"metric": metric, "series": series})
        if self.rate is not None:
            charts.append({"metric": _LR, "series": [{"split": "", **thinned(self.rate)}]})
        return {"charts": [one for one in charts if one["series"]]}

    def plateau(self, baseline: float | None) -> Plateau | None:
        """The longest stretch on which the logged training losses are within 1 % of the baseline's, if it is long."""
        line = self.line("loss", "train")
        if line is None or baseline is None or not baseline > 0:
            return None
        near_S = np.abs(line.values_S - baseline) <= _NEAR * baseline
        edges = np.flatnonzero(np.diff(np.concatenate([[0], near_S.astype(int), [0]])))
        stretches = edges.reshape(-1, 2)
        if not len(stretches):
            return None
        first, end = max(stretches.tolist(), key=lambda one: line.steps_S[one[1] - 1] - line.steps_S[one[0]])
        lasts = line.steps_S[end - 1] - line.steps_S[first]
        if end - first < _LEAST_POINTS or lasts < _LEAST_SHARE * line.steps_S[-1]:
            return None
        loss = float(line.values_S[first:end].mean())
        return Plateau(int(line.steps_S[first]), int(line.steps_S[end - 1]), baseline, loss)

    def first_not_finite(self) -> int | None:
        """The step at which the training loss was logged as no number, or an infinite one."""
        line = self.line("loss", "train")
        bad = [] if line is None else line.steps_S[~np.isfinite(line.values_S)]
        return int(bad[0]) if len(bad) else None


def thinned(line: Line) -> dict[str, Any]:
    """Steps and values for a chart, at most 400, in six digits; what is not finite is ``None``."""
    steps_S, values_S = line
    chosen = np.arange(len(steps_S))
    if len(chosen) > MOST_POINTS:
        groups = np.array_split(chosen, MOST_POINTS // 2)
        numbers_S = np.where(np.isfinite(values_S), values_S, np.inf)  # what is no number is kept, too
        both = [(one[np.argmin(numbers_S[one])], one[np.argmax(numbers_S[one])]) for one in groups]
        chosen = np.unique([0, *np.ravel(both), len(steps_S) - 1])
    values = [float(f"{one:.6g}") if np.isfinite(one) else None for one in values_S[chosen].tolist()]
    return {"steps": steps_S[chosen].astype(int).tolist(), "values": values, "of": len(steps_S)}


def read_curves(folder: Path) -> RunCurves:
    """The curves of a run folder.

    Raises:
        RunFolderError: the file is damaged or too large.
        FileNotFoundError: it has none.
    """
    path = folder / "metrics.csv"
    if (size := path.stat().st_size) > MOST_BYTES:
        raise RunFolderError(f"{path} has {size:,} bytes, and the limit for a page is {MOST_BYTES:,}.")
    return parsed(path.read_bytes(), str(path))


def packed_curves(run: PackedRun) -> RunCurves:
    """The curves of a packed run.

    Raises:
        RunFolderError: its file is damaged.
    """
    if run.end is None:
        return RunCurves("", {})
    content, facts = read_row(run.end)
    lines, metric = {}, facts.get("metric", "")
    try:
        for split, prefix in (("train", "training"), ("val", "validation")):
            steps_S = np.asarray(content[f"{prefix}_steps"], dtype=np.float64)
            for name in ("loss", metric):
                lines[f"{name}/{split}"] = Line(steps_S, np.asarray(content[f"{name}/{split}"], dtype=np.float64))
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{run.end.file} is damaged ({type(error).__name__}: {error}).") from None
    return RunCurves(metric, lines)


def parsed(content: bytes, name: str) -> RunCurves:
    """The curves of the content of a ``metrics.csv``.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        head = content[: content.index(b"\n")].decode().split(",")
        types = dict.fromkeys(head, pa.float64())
        table = csv.read_csv(io.BytesIO(content), convert_options=csv.ConvertOptions(column_types=types))
        steps = table.column("step").to_numpy()
        columns = {one: table.column(one) for one in table.column_names if one != "step"}
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise RunFolderError(f"{name} is damaged ({' '.join(str(error).split())[:200]}).") from None
    if np.isnan(steps).any() or len(set(head)) < len(head):
        raise RunFolderError(f"{name} is damaged: a line has no step, or a column is there twice.")
    lines = {}
    for one, values in columns.items():
        present_S = np.asarray(values.is_valid())
        lines[one] = Line(steps[present_S], values.to_numpy()[present_S])
    metrics = [one.removesuffix("/train") for one in lines if one.endswith("/train") and one != "loss/train"]
    return RunCurves(metrics[0] if metrics else "", lines)
