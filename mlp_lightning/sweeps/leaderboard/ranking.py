"""The leaderboard of a sweep: which keys were swept, and which run and which combination are best.

Everything here is a pure function of the records and independent of their order. A *line* of the leaderboard is one
combination of the swept keys other than ``seed``; its metrics are those of its runs, one per seed.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.runs.files import atomic_write
from mlp_lightning.sweeps.records import UNENDED, RunRecord

CSV_NAME = "leaderboard.csv"
SEED = "seed"
# The name of a run, its output and the checkpoint that it continues from do not define what is trained.
_NEVER_SHOWN = ("ckpt_path", "name", "verbosity")
_NEVER_SHOWN_BELOW = ("hydra", "search", "sweep")
# Keys that differ between configurations because another key was swept.
_NOT_SWEPT_ALONE = ("data.suggested_lr", "logger", "trainer.print_every_n_steps")
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
        label: its job number, or its folder relative to the leaderboard's if there are several sweeps.
        values: of the swept keys, in the order of :attr:`Leaderboard.keys`; see :func:`value_text`.
        metrics: ``{"loss/train": …}``; empty unless it is finished.
        rank: its position among the finished runs, from 1; ``None`` if it is not finished.
    """

    record: RunRecord
    label: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
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
    """One combination of the swept keys other than ``seed``, of runs on the same rows.

    Attributes:
        values: of :attr:`Leaderboard.line_keys`.
        runs: the finished runs of the combination, best first; never empty.
        metrics: the spread of each metric, by name.
    """

    values: Mapping[str, Any]
    runs: tuple[Run, ...]
    metrics: Mapping[str, Spread]


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """All runs of one sweep, or of several.

    Attributes:
        folder: of its files.
        keys: the swept keys, including ``seed`` if it was swept.
        metrics: names of the metrics, e.g. ``loss/train``, split by split.
        ranked_by: the metric that decides the ranks, lower is better: ``loss/val`` if every finished run has one,
            else ``loss/train``.
        finished: the finished runs, best first.
        others: all other runs, by sweep folder and job number.
        lines: best first.
    """

    folder: Path
    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    ranked_by: str
    finished: tuple[Run, ...]
    others: tuple[Run, ...]
    lines: tuple[Line, ...]

    @property
    def line_keys(self) -> tuple[str, ...]:
        """The swept keys other than ``seed``."""
        return tuple(key for key in self.keys if key != SEED)

    @property
    def has_spread(self) -> bool:
        """Whether some line has several runs."""
        return any(len(line.runs) > 1 for line in self.lines)

    @property
    def mixes_rows(self) -> bool:
        """Whether runs of one combination were trained on different rows of a table that has changed."""
        values = [tuple(map(value_text, line.values.values())) for line in self.lines]
        return len(set(values)) < len(values)

    @property
    def best(self) -> Run | None:
        """The best run of the best line; ``None`` if no line has a finite one."""
        if not self.lines or not math.isfinite(self.lines[0].metrics[self.ranked_by].mean):
            return None
        return self.lines[0].runs[0]


def build_leaderboard(records: Iterable[RunRecord], folder: Path) -> Leaderboard:
    """Rank the runs of ``records``.

    Args:
        records: of one sweep or of several, in any order.
        folder: of the leaderboard; runs of several sweeps are named relative to it.
    """
    in_order = sorted(records, key=lambda record: record.sort_key)
    given = [_given_values(record) for record in in_order]
    values = _values_of_swept_keys(in_order, given)
    labels = _labels(in_order, folder)
    finished_records = [record for record in in_order if record.status == "finished"]
    ranked_by = (
        "loss/val"
        if finished_records and all("loss" in r.metrics.get("val", {}) for r in finished_records)
        else "loss/train"
    )
    runs = [
        Run(record, label, chosen, _metrics(record), None)
        for record, label, chosen in zip(in_order, labels, values, strict=True)
    ]
    finished = sorted(
        (run for run in runs if run.record.status == "finished"),
        key=lambda run: _lowest_first(run.metrics.get(ranked_by, math.nan)),
    )
    finished = [dataclasses.replace(run, rank=rank) for rank, run in enumerate(finished, start=1)]
    keys = tuple(values[0]) if values else ()
    return Leaderboard(
        folder=folder,
        keys=keys,
        metrics=_metric_names(finished),
        ranked_by=ranked_by,
        finished=tuple(finished),
        others=tuple(run for run in runs if run.record.status != "finished"),
        lines=_lines(finished, [key for key in keys if key != SEED], ranked_by),
    )


def repeat_command(record: RunRecord, program: str) -> str:
    """The shell command, in one line, that trains the run of ``record`` again.

    Args:
        record: of a run that was started by a command.
        program: the training program, e.g. ``python scripts/train.py``.
    """
    kept = [one for one in record.overrides if _top(_key_of(one)) not in _NEVER_SHOWN_BELOW]
    return " ".join([program, *map(shlex.quote, kept)])


def value_text(value: Any) -> str:
    """A value as written in an override: ``null``, ``true``, ``[32,16]``, ``0.1``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{value_text(one)}' for key, one in value.items())}}}"
    return repr(value) if isinstance(value, float) else str(value)


def write_csv(leaderboard: Leaderboard) -> Path:
    """Write ``leaderboard.csv`` atomically: one row per run, best first, unfinished runs last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["rank", "run", "status", *leaderboard.keys, *leaderboard.metrics, "steps", "wall_time_s", "error"]
    writer.writerow(header)
    for run in (*leaderboard.finished, *leaderboard.others):
        metrics = [repr(run.metrics[name]) if name in run.metrics else "" for name in leaderboard.metrics]
        values = [value_text(run.values[key]) for key in leaderboard.keys]
        rank = "" if run.rank is None else run.rank
        record = run.record
        writer.writerow(
            [rank, run.label, record.status, *values, *metrics, record.steps, repr(record.wall_time_s), run.cause]
        )
    path = leaderboard.folder / CSV_NAME
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
    return path


# ---- swept keys ----------------------------------------------------------------------------------------------


def _values_of_swept_keys(records: Sequence[RunRecord], given: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """For each record the values of the keys that differ between records, in the order of the overrides."""
    if any(record.overrides for record in records):
        keys = [key for key in dict.fromkeys(key for one in given for key in one) if _is_shown(key)]
        table = [{key: _value(record, one, key) for key in keys} for record, one in zip(records, given, strict=True)]
    else:
        table = [dict(_leaves(record.config)) for record in records]
        keys = [key for key in dict.fromkeys(key for row in table for key in row) if _is_shown(key, as_configured=True)]
    swept = [key for key in keys if len({value_text(row.get(key, "")) for row in table}) > 1]
    return [{key: row.get(key, "") for key in swept} for row in table]


def _given_values(record: RunRecord) -> dict[str, str]:
    """``{key: value as written}`` of the overrides, in their order."""
    return {_key_of(one): one.partition("=")[2] for one in record.overrides}


def _key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _top(key: str) -> str:
    return key.replace("/", ".").partition(".")[0]


def _is_shown(key: str, as_configured: bool = False) -> bool:
    if key in _NEVER_SHOWN or _top(key) in _NEVER_SHOWN_BELOW:
        return False
    return not (as_configured and any(key == one or key.startswith(f"{one}.") for one in _NOT_SWEPT_ALONE))


def _value(record: RunRecord, given: Mapping[str, str], key: str) -> Any:
    """The value of a key in the run; for a group the chosen option, empty if none was chosen.

    The configuration has priority: there 1e-3 and 0.001 are equal, and a run without the override has a value too.
    """
    value: Any = record.config
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return given.get(key, "")
        value = value[name]
    return given.get(key, "") if isinstance(value, Mapping) else value


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


# ---- ranks and lines -----------------------------------------------------------------------------------------


def _labels(records: Sequence[RunRecord], folder: Path) -> list[str]:
    one_sweep = len({record.folder.parent for record in records}) <= 1
    return [
        str(record.number) if one_sweep and record.number is not None else _relative(record.folder, folder)
        for record in records
    ]


def _relative(path: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # on two drives of Windows
        return path.as_posix()


def _metrics(record: RunRecord) -> dict[str, float]:
    if record.status != "finished":
        return {}
    return {f"{name}/{split}": value for split, of_split in record.metrics.items() for name, value in of_split.items()}


def _metric_names(finished: Iterable[Run]) -> tuple[str, ...]:
    """Metrics by split (train, val, test); within a split the loss comes first, then by name."""

    def order(metric: str) -> tuple[int, str, bool, str]:
        name, _, split = metric.partition("/")
        return _SPLITS.index(split) if split in _SPLITS else len(_SPLITS), split, name != "loss", name

    return tuple(sorted({name for run in finished for name in run.metrics}, key=order))


def _lowest_first(value: float) -> tuple[bool, float]:
    """A sort key that puts values that are not finite last; the sort is stable, so ties keep their order."""
    return (False, value) if math.isfinite(value) else (True, 0.0)


def _lines(finished: Sequence[Run], keys: Sequence[str], ranked_by: str) -> tuple[Line, ...]:
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in finished:
        values = [value_text(run.values[key]) for key in keys]
        groups.setdefault((*values, _rows_of(run.record)), []).append(run)
    lines = [
        Line(
            {key: runs[0].values[key] for key in keys},
            tuple(runs),
            {name: _spread(runs, name) for name in dict.fromkeys([ranked_by, *_metric_names(runs)])},
        )
        for runs in groups.values()
    ]
    # Lines with equal means keep the order of their earliest runs.
    lines.sort(key=lambda line: min(run.record.sort_key for run in line.runs))
    return tuple(sorted(lines, key=lambda line: _lowest_first(line.metrics[ranked_by].mean)))


def _rows_of(record: RunRecord) -> str:
    """On which rows a run was trained. Of tables for one split the columns that are read depend on the seed."""
    tables = (record.fingerprint or {}).items()
    return json.dumps([(name, one["rows"], one["columns"] if name == "data" else None) for name, one in tables])


def _spread(runs: Sequence[Run], name: str) -> Spread:
    values = [run.metrics.get(name, math.nan) for run in runs]
    if len(values) == 1:
        return Spread(values[0], None, 1)
    if not all(map(math.isfinite, values)):
        return Spread(sum(values) / len(values), math.nan, len(values))
    # In exact arithmetic, so that the result does not depend on the order of the runs or on large values.
    return Spread(statistics.mean(values), statistics.stdev(values), len(values))
