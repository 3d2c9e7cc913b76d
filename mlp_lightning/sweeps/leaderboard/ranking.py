"""The leaderboard of a sweep: which combinations of the swept keys are best.

Everything here is a pure function of the records and independent of their order. A *line* of the leaderboard is one
combination of the swept keys other than seeds and folds; its metrics are those of its runs. Runs on different data
sets have separate leaderboards.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.sweeps.leaderboard.data_sets import PATHS, DataSet, data_sets
from mlp_lightning.sweeps.leaderboard.keys import (
    FOLD,
    REPETITIONS,
    SEED,
    SPLIT,
    differing_keys,
    value_text,
    values_of_differing_keys,
)
from mlp_lightning.sweeps.records import UNENDED, RunRecord, configured

_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Spread:
    """One metric of a line: the mean over its runs and their sample standard deviation.

    Attributes:
        mean: over the finished runs; not finite if one of them is not.
        sd: with n - 1 in the denominator; ``None`` for a single run, NaN if a run's value is not finite.
        count: number of runs.
    """

    mean: float
    sd: float | None
    count: int


@dataclasses.dataclass(frozen=True)
class Run:
    """One run on the leaderboard.

    Attributes:
        record: of the run.
        label: its job number (and fold), or its folder relative to the leaderboard's if there are several sweeps.
        values: of the keys that differ between any of the runs; see :func:`value_text`.
        metrics: ``{"loss/train": …}``; empty unless it is finished.
        baseline: the same of a prediction that does not look at the features, as far as it is known.
        rank: its position among the finished runs, from 1; ``None`` if it is not finished.
    """

    record: RunRecord
    label: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    rank: int | None

    @property
    def cause(self) -> str:
        """Why the run is not finished, in one line."""
        first_line = next(iter(self.record.error.strip().splitlines()), "")
        if first_line or self.record.status != UNENDED:
            return first_line
        return "it has no result.json: killed, or still running"


@dataclasses.dataclass(frozen=True)
class Line:
    """One combination of the swept keys other than seeds and folds, of runs on the same rows.

    Attributes:
        values: of :attr:`Leaderboard.line_keys`.
        runs: the finished runs of the combination, best first; never empty.
        unfinished: number of its other runs.
        metrics: the spread of each metric, by name.
        baseline: the same of predictions that do not look at the features, as far as it is known.
    """

    values: Mapping[str, Any]
    runs: tuple[Run, ...]
    unfinished: int
    metrics: Mapping[str, Spread]
    baseline: Mapping[str, Spread]

    @property
    def records(self) -> list[RunRecord]:
        """Of its runs, by sweep, job number and fold."""
        return sorted((run.record for run in self.runs), key=lambda record: record.sort_key)


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far the best line is from the next.

    Attributes:
        difference: of their means.
        standard_error: of the difference.
        count: number of folds or seeds that it is computed from.
    """

    difference: float
    standard_error: float
    count: int


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """The runs of one sweep, or of several, on one data set.

    Attributes:
        folder: of its files.
        data: name of the data set.
        has_changed: whether other runs have a table of the same path with other rows.
        keys: the keys that differ between these runs, including seeds and folds.
        metrics: names of the metrics, e.g. ``loss/train``, split by split.
        ranked_by: the metric that decides the ranks, lower is better: ``loss/test`` of folds, which is that of the rows
            held out; ``loss/val`` where there are validation rows; else ``loss/train``.
        finished: the finished runs, best first.
        others: all other runs, by sweep folder and job number.
        lines: best first; those with runs that did not finish follow, as their means are over fewer rows or seeds.
    """

    folder: Path
    data: str
    has_changed: bool
    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    ranked_by: str
    finished: tuple[Run, ...]
    others: tuple[Run, ...]
    lines: tuple[Line, ...]

    @property
    def line_keys(self) -> tuple[str, ...]:
        """The keys that differ, other than seeds and folds."""
        return tuple(key for key in self.keys if key not in REPETITIONS)

    @property
    def repeated_over(self) -> str:
        """What the runs of a line differ in, such as ``folds and seeds``."""
        return " and ".join(name for key, name in REPETITIONS.items() if key in self.keys) or "runs"

    @property
    def sweeps(self) -> str:
        """The names of the sweeps."""
        return ", ".join(sorted({run.record.sweep.name for run in (*self.finished, *self.others)}))

    @property
    def held_out(self) -> bool:
        """Whether the runs are folds, ranked by the rows that they held out."""
        return self.ranked_by == "loss/test"

    @property
    def has_spread(self) -> bool:
        """Whether some line has several runs."""
        return any(len(line.runs) > 1 for line in self.lines)

    @property
    def best(self) -> Line | None:
        """The best line; ``None`` if no line has a finite mean."""
        if not self.lines or not math.isfinite(self.lines[0].metrics[self.ranked_by].mean):
            return None
        return self.lines[0]

    @property
    def gap(self) -> Gap | None:
        """How far the best line is from the next, if several folds or seeds say so.

        Paired where both lines have the same ones, as these decide much of a loss; else Welch's.
        """
        if len(self.lines) < 2 or any(line.unfinished for line in self.lines[:2]):
            return None
        best, after = (_by_repetition(line, self.ranked_by) for line in self.lines[:2])
        if min(len(best), len(after)) < 2 or not all(map(math.isfinite, [*best.values(), *after.values()])):
            return None
        if best.keys() == after.keys():
            differences = [after[key] - best[key] for key in best]
            error = statistics.stdev(differences) / math.sqrt(len(differences))
            return Gap(statistics.mean(differences), error, len(differences))
        error = math.sqrt(sum(statistics.variance(one.values()) / len(one) for one in (best, after)))
        return Gap(statistics.mean(after.values()) - statistics.mean(best.values()), error, min(len(best), len(after)))

    @functools.cached_property
    def baseline(self) -> Mapping[str, Spread]:
        """The metrics of predictions that do not look at the features, over all finished runs."""
        return _baseline(self.finished)

    @property
    def not_above_chance(self) -> list[Line]:
        """The lines whose deciding loss is not below that of their baseline; weighted rows are no measure of that."""
        return [line for line in self.lines if _is_worse(line, self.ranked_by)]

    def solved(self, lines: Sequence[Line]) -> tuple[int, int] | None:
        """How many of how many runs of some lines classify every row right, of those trained on and those that decide.

        ``None`` where this says little: all runs do it or none does, or no line has several runs.
        """
        splits = {"train", self.ranked_by.partition("/")[2]}
        right = [_is_right(run, splits) for run in self.finished]
        if not self.has_spread or all(right) or not any(right):
            return None
        runs = [run for line in lines for run in line.runs]
        return sum(_is_right(run, splits) for run in runs), len(runs) + sum(line.unfinished for line in lines)


def build_leaderboards(records: Iterable[RunRecord], folder: Path) -> list[Leaderboard]:
    """Rank the runs of ``records``: a leaderboard for every data set and way to measure.

    Args:
        records: of one sweep or of several, in any order.
        folder: of the leaderboards; runs of several sweeps are named relative to it.
    """
    in_order = sorted(records, key=lambda record: record.sort_key)
    table = values_of_differing_keys(in_order)
    labels = _labels(in_order, folder)
    runs = [
        Run(*one, _flat(one[0], one[0].metrics), _flat(one[0], one[0].baseline), None)
        for one in zip(in_order, labels, table, strict=True)
    ]
    # A job that could not be composed has no data set.
    composed = [run for run in runs if run.record.config] or runs
    groups: list[tuple[DataSet, bool, list[Run]]] = []
    for data in data_sets(run.record for run in composed):
        members = {id(record) for record in data.records}
        for held_out in (False, True):
            group = [run for run in composed if id(run.record) in members and run.record.held_out == held_out]
            groups += [(data, held_out, group)] if group else []
    if groups:
        groups[0][2].extend(run for run in runs if not run.record.config and composed is not runs)
    return [
        _ranked(part, ranked_by, data, folder)
        for data, held_out, group in groups
        for ranked_by, part in _measured_alike(group, held_out)
    ]


def _measured_alike(runs: Sequence[Run], held_out: bool) -> list[tuple[str, list[Run]]]:
    """Runs with the same metrics, and the one to rank them by; those without any belong to the first."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.record.status == "finished":
            split = "test" if held_out else next((one for one in ("val", "train") if f"loss/{one}" in run.metrics), "")
            names = sorted(name for name in run.metrics if name.endswith(f"/{split}"))
            groups.setdefault((f"loss/{split}", *names), []).append(run)
    others = [run for run in runs if run.record.status != "finished"]
    if not groups:
        return [("loss/test" if held_out else "loss/train", others)]
    parts = [(key[0], some) for key, some in groups.items()]
    parts[0][1].extend(others)
    return parts


def _ranked(runs: Sequence[Run], ranked_by: str, data: DataSet, folder: Path) -> Leaderboard:
    finished = sorted(
        (run for run in runs if run.record.status == "finished"),
        key=lambda run: _lowest_first(run.metrics.get(ranked_by, math.nan)),
    )
    finished = [dataclasses.replace(run, rank=rank) for rank, run in enumerate(finished, start=1)]
    others = [run for run in runs if run.record.status != "finished"]
    # The rows are the same, wherever they are.
    keys = tuple(key for key in differing_keys([run.values for run in runs]) if key not in PATHS)
    line_keys = [key for key in keys if key not in REPETITIONS]
    lines = _lines(finished, others, line_keys, ranked_by)
    metrics = metric_names(run.metrics for run in finished)
    about = (folder, data.name, data.has_changed, keys, metrics, ranked_by)
    return Leaderboard(*about, tuple(finished), tuple(others), tuple(lines))


# ---- ranks and lines -----------------------------------------------------------------------------------------


def _labels(records: Sequence[RunRecord], folder: Path) -> list[str]:
    one_sweep = len({record.sweep for record in records}) <= 1
    return [
        _relative(record.folder, record.sweep if one_sweep and record.number is not None else folder)
        for record in records
    ]


def _relative(path: Path, start: Path) -> str:
    if path.is_relative_to(start):
        return path.relative_to(start).as_posix()
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # on two drives of Windows
        return path.as_posix()


def _flat(record: RunRecord, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    if record.status != "finished":
        return {}
    return {f"{name}/{split}": value for split, of_split in metrics.items() for name, value in of_split.items()}


def metric_names(of_runs: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """Metrics by split (train, val, test); within a split the loss comes first, then by name."""

    def order(metric: str) -> tuple[int, str, bool, str]:
        name, _, split = metric.partition("/")
        return _SPLITS.index(split) if split in _SPLITS else len(_SPLITS), split, name != "loss", name

    return tuple(sorted({name for metrics in of_runs for name in metrics}, key=order))


def _lowest_first(value: float) -> tuple[bool, float]:
    """A sort key that puts values that are not finite last; the sort is stable, so ties keep their order."""
    return (False, value) if math.isfinite(value) else (True, 0.0)


def _lines(finished: Sequence[Run], others: Sequence[Run], keys: Sequence[str], ranked_by: str) -> list[Line]:
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in finished:
        values = [value_text(run.values[key]) for key in keys]
        groups.setdefault(tuple(values), []).append(run)
    unfinished = collections.Counter(tuple(value_text(run.values[key]) for key in keys) for run in others)
    lines = [
        Line(
            {key: runs[0].values[key] for key in keys},
            tuple(runs),
            unfinished[values],
            {name: _spread(runs, name) for name in (ranked_by, *metric_names(run.metrics for run in runs))},
            _baseline(runs),
        )
        for values, runs in groups.items()
    ]
    # Lines with equal means keep the order of their earliest runs.
    lines.sort(key=lambda line: line.records[0].sort_key)
    return sorted(lines, key=lambda line: (line.unfinished > 0, *_lowest_first(line.metrics[ranked_by].mean)))


def _spread(runs: Sequence[Run], name: str) -> Spread:
    return _spread_of([run.metrics.get(name, math.nan) for run in runs])


def _spread_of(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], None, 1)
    if not all(map(math.isfinite, values)):
        return Spread(sum(values) / len(values), math.nan, len(values))
    # In exact arithmetic, so that the result does not depend on the order of the runs or on large values.
    return Spread(statistics.mean(values), statistics.stdev(values), len(values))


def _baseline(runs: Sequence[Run]) -> dict[str, Spread]:
    """Of the metrics whose baseline is known of every run."""
    names = [name for name in (runs[0].baseline if runs else ()) if all(name in run.baseline for run in runs)]
    return {name: _spread_of([run.baseline[name] for run in runs]) for name in names}


def _by_repetition(line: Line, metric: str) -> dict[tuple[Any, ...], float]:
    """The mean of a metric for every fold, over its seeds; for every seed where there are no folds."""
    values: dict[tuple[Any, ...], list[float]] = {}
    for run in line.runs:
        seed, split, fold, sample = (
            configured(run.record.config, key) for key in (SEED, SPLIT, FOLD, "data.sample_seed")
        )
        # Seeds that train on the same rows of a fold do not tell more about other rows.
        key = (seed, split, sample) if fold is None else (seed if split is None else split, fold, sample)
        values.setdefault(key, []).append(run.metrics.get(metric, math.nan))
    return {key: sum(some) / len(some) for key, some in values.items()}


def _is_right(run: Run, splits: Iterable[str]) -> bool:
    return all(run.metrics.get(f"accuracy/{split}") == 1.0 for split in splits)


def _is_worse(line: Line, metric: str) -> bool:
    data = line.runs[0].record.config.get("data", {})
    if data.get("weight_column") is not None or data.get("class_weight", "none") != "none":
        return False
    base = line.baseline.get(metric)
    return base is not None and line.metrics[metric].mean >= base.mean
