"""``leaderboard.csv``: every run of a sweep."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mlp_lightning.runs.files import atomic_write
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, metric_names

CSV_NAME = "leaderboard.csv"


def write_csv(leaderboards: Sequence[Leaderboard]) -> Path:
    """Write ``leaderboard.csv`` atomically: one row per run, best first, unfinished runs last.

    The baseline of ``loss/val`` is in ``baseline/loss/val``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    finished = [run for one in leaderboards for run in one.finished]
    runs = [*finished, *(run for one in leaderboards for run in one.others)]
    keys, metrics = tuple(runs[0].values), metric_names(run.metrics for run in finished)
    baselines = metric_names(run.baseline for run in finished)
    columns = [*metrics, *(f"baseline/{name}" for name in baselines)]
    writer.writerow(["rank", "run", "status", *keys, *columns, "steps", "wall_time_s", "error"])
    for run in runs:
        both = [*map(run.metrics.get, metrics), *map(run.baseline.get, baselines)]
        numbers = ["" if value is None else repr(value) for value in both]
        values = [value_text(run.values[key]) for key in keys]
        rank = "" if run.rank is None else run.rank
        record = run.record
        writer.writerow(
            [rank, run.label, record.status, *values, *numbers, record.steps, repr(record.wall_time_s), run.cause]
        )
    path = leaderboards[0].folder / CSV_NAME
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
    return path
