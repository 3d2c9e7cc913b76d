"""A sweep as a data frame."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.curves import curve_steps
from mlp_lightning.sweeps.leaderboard.keys import flat_config, value_text
from mlp_lightning.sweeps.records import RunRecord, curves_text, read_records


def load_sweep(
    *paths: str | Path, curves: bool = False, library: Literal["pandas", "polars", "pyarrow"] = "pandas"
) -> Any:
    """The runs of one sweep, or of several, as one data frame.

    Args:
        paths: folders of sweeps or runs, or folders above them.
        curves: one row for every logged step of every run, instead of one for every run.
        library: whose data frame to return; pyarrow is always installed.

    Returns:
        A frame with the columns ``sweep``, ``run`` (the number of its job), ``status``, every option of the
        configuration by its dotted key, such as ``model.hidden_units``, and the metrics: ``loss/train`` and others at
        the end of the run, or with ``curves`` at each ``step``, which are missing where they were not logged. Without
        ``curves`` there are the baselines of the metrics (``baseline/loss/train``), ``steps``, ``wall_time_s``,
        ``error`` and ``folder`` too. Every fold is a run (``data.cv.fold``). An option whose values are of several
        types, or lists, is in the form of an override.

    Raises:
        RunFolderError: there is no run, or a file of one is damaged.
        ImportError: the library is not installed.

    Example:
        >>> import tempfile
        >>> from mlp_lightning import load_sweep, train
        >>> folder = tempfile.mkdtemp()
        >>> for seed in (0, 1):
        ...     _ = train({"seed": seed, "trainer": {"max_steps": 50}, "verbosity": 0}, f"{folder}/{seed}")
        >>> load_sweep(folder, library="pyarrow").select(["run", "seed", "status"]).to_pylist()
        [{'run': 0, 'seed': 0, 'status': 'finished'}, {'run': 1, 'seed': 1, 'status': 'finished'}]
    """
    if library not in ("pandas", "polars", "pyarrow"):
        raise ValueError(f"library = {library!r} must be pandas, polars or pyarrow.")
    records = read_records([Path(one) for one in paths])
    if not records:
        places = ", ".join(map(str, paths))
        raise RunFolderError(f"There is no run (a folder with config.yaml) at or below {places}")
    configurations = _columns([flat_config(record.config) for record in records])
    of_runs = [
        {"sweep": record.sweep.name, "run": record.number, "status": record.status, **configuration}
        for record, configuration in zip(records, configurations, strict=True)
    ]
    if curves:
        rows = [
            {**run, **step}
            for run, record in zip(of_runs, records, strict=True)
            for step in curve_steps(record.folder, curves_text(record))
        ]
    else:
        rows = [{**run, **_end(record)} for run, record in zip(of_runs, records, strict=True)]
    return _frame(rows, library)


def _end(record: RunRecord) -> dict[str, Any]:
    metrics = {
        f"{prefix}{name}/{split}": value
        for prefix, of_splits in (("", record.metrics), ("baseline/", record.baseline))
        for split, some in of_splits.items()
        for name, value in some.items()
    }
    facts = {"steps": record.steps, "wall_time_s": record.wall_time_s, "error": record.error}
    return {**metrics, **facts, "folder": str(record.folder)}


def _columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, every column of one type."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(type(value))
    as_text = {
        name for name, types in kinds.items() if types & {list, dict} or (len(types) > 1 and types != {int, float})
    }
    as_number = {name for name, types in kinds.items() if types == {int, float}}

    def converted(name: str, value: Any) -> Any:
        if value is None:
            return None
        return value_text(value) if name in as_text else float(value) if name in as_number else value

    return [{name: converted(name, value) for name, value in row.items()} for row in rows]


def _frame(rows: list[dict[str, Any]], library: str) -> Any:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    if library == "pyarrow":
        return table
    try:
        module: Any = importlib.import_module(library)
    except ImportError as error:
        hint = f'pip install {library}, or use library="pyarrow"'
        raise ImportError(f"load_sweep returns a frame of {library}, which is not installed: {hint}.") from error
    return table.to_pandas() if library == "pandas" else module.from_arrow(table)
