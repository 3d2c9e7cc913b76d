"""What a page says of the runs of a sweep, or of several: a leaderboard with all that it is sorted and drawn by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlp_lightning.errors import MLPLightningError, RunFolderError
from mlp_lightning.inference.report.curves import RunCurves, packed_curves, read_curves
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, Run, build_leaderboards
from mlp_lightning.sweeps.records import RunRecord, read_records

#: Of each data set: runs in the table, and runs whose curves are drawn.
MOST_RUNS, MOST_CURVES = 2_000, 1_024
# Points of all curves of a data set together, and of one.
_ALL_POINTS, _MOST_POINTS = 40_000, 200
_LONGEST_TEXT = 200


def sweep_section(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the templates and the scripts get of all runs at or below a folder.

    Raises:
        RunFolderError: a file of a run is damaged, or there is no run.
    """
    try:
        records = read_records([folder])
    except RecursionError:
        raise RunFolderError(f"{folder} has a run whose config.yaml or result.json is nested too deeply.") from None
    if not records:
        raise RunFolderError(f"There is no run (a folder with config.yaml) at or below {folder}.")
    boards = build_leaderboards(records, folder)
    content = {"title": folder.name or str(folder), "folder": str(folder), "runs": len(records)}
    content["boards"] = [_facts(one) for one in boards]
    return content, [_board(one) for one in boards]


def _facts(board: Leaderboard) -> dict[str, Any]:
    others = [{"label": one.label, "status": one.record.status, "cause": one.cause} for one in board.others]
    best = board.finished[0] if board.finished else None
    return {
        "data": board.data,
        "finished": len(board.finished),
        "others": others[:MOST_RUNS],
        "keys": list(board.keys),
        "ranked_by": board.ranked_by,
        "best": None if best is None else {"label": best.label, "value": best.metrics.get(board.ranked_by)},
        "shown": min(len(board.finished), MOST_RUNS),
        "baseline": board.baseline[board.ranked_by].mean if board.ranked_by in board.baseline else None,
    }


def _board(board: Leaderboard) -> dict[str, Any]:
    runs = board.finished[:MOST_RUNS]
    curves = {one.label: _curves(one.record) for one in runs[:MOST_CURVES]}
    name = board.ranked_by if board.ranked_by != "loss/test" else "loss/train"
    points = max(10, min(_MOST_POINTS, _ALL_POINTS // max(1, len(curves))))
    steps: list[list[int]] = []
    return {
        "keys": list(board.keys),
        "metrics": list(board.metrics),
        "ranked_by": board.ranked_by,
        "curve": name,
        "steps": steps,
        "runs": [_run(one, board, curves.get(one.label), name, points, steps) for one in runs],
    }


def _run(
    run: Run, board: Leaderboard, curves: RunCurves | None, name: str, points: int, steps: list[list[int]]
) -> dict[str, Any]:
    """A run; ``at`` is the place of its steps among ``steps``, which runs share."""
    plain: dict[str, Any] = {
        "label": run.label,
        "values": [_value(run.values, key) for key in board.keys],
        "metrics": [_six_digits(run.metrics.get(one)) for one in board.metrics],
    }
    line = curves.lines.get(name) if curves is not None else None
    if line is not None and len(line.steps_S):
        chosen = np.unique(np.linspace(0, len(line.steps_S) - 1, min(points, len(line.steps_S))).astype(int))
        of_run = line.steps_S[chosen].astype(int).tolist()
        if of_run not in steps[-20:]:
            steps.append(of_run)
        plain["at"] = len(steps) - 1 - steps[::-1].index(of_run)
        plain["curve"] = [float(f"{one:.4g}") for one in line.values_S[chosen].tolist()]
    return plain


def _value(values: Mapping[str, Any], key: str) -> Any:
    """Numbers as they are, to be drawn along an axis; all else as written."""
    value = values.get(key, "")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return value_text(value)[:_LONGEST_TEXT]


def _six_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _curves(record: RunRecord) -> RunCurves:
    """Those of a run; none where they were not kept, or cannot be read."""
    try:
        return packed_curves(record.packed) if record.packed is not None else read_curves(record.folder)
    except (MLPLightningError, OSError):
        return RunCurves("", {})
