"""Reads the folders of sweeps, for the tests of real sweeps."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

# Entries of result.json that differ between equal runs.
_VARYING_KEYS = ("run_dir", "wall_time_s", "fit_time_s", "started_at", "ended_at", "stack", "engine")


def numbers(sweep: Path) -> list[str]:
    """The run folders of a sweep."""
    return sorted(one.name for one in sweep.iterdir() if one.is_dir() and one.name not in ("superseded", "stacks"))


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def statuses(sweep: Path) -> list[str]:
    return [result(sweep / number)["status"] for number in numbers(sweep)]


def leaderboard(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def leaderboard_without_times(sweep: Path) -> bytes:
    """``leaderboard.csv`` without the column of times."""
    with (sweep / "leaderboard.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    time = head.index("wall_time_s")
    return "\n".join(repr(row[:time] + row[time + 1 :]) for row in [head, *rows]).encode()


def times_of_change(folder: Path) -> dict[str, int]:
    """Of all files in the folder of a sweep except its lock, which every sweep opens."""
    files = [file for file in sorted(folder.rglob("*")) if file.name != ".lock"]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def assert_same_runs(sweep: Path, other: Path) -> None:
    """Two sweeps have the same run folders; numbers agree to 1e-5."""
    assert numbers(sweep) == numbers(other)
    for number in numbers(sweep):
        _assert_same_run(sweep / number, other / number)


def _assert_same_run(run: Path, other: Path) -> None:
    assert _files(run) == _files(other)
    assert (run / "config.yaml").read_text() == (other / "config.yaml").read_text().replace(
        f"name: {other.parent.name}\n", f"name: {run.parent.name}\n"
    )
    assert_same_tables(run / "metrics.csv", other / "metrics.csv")
    one, two = ({key: value for key, value in result(it).items() if key not in _VARYING_KEYS} for it in (run, other))
    assert one == _approximately(two)
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
        assert _hydra(run, name) == _hydra(other, name)


def assert_same_tables(path: Path, other: Path, ignored: tuple[str, ...] = ()) -> None:
    """Two CSV files have the same columns and rows; numbers agree to 1e-5."""
    tables = []
    for one in (path, other):
        with one.open(newline="") as file:
            rows = list(csv.DictReader(file))
        tables.append([{key: _number(text) for key, text in row.items() if key not in ignored} for row in rows])
    assert tables[0] == _approximately(tables[1])
    assert tables[0]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _approximately(value: Any) -> Any:
    """An object that equals nested values whose numbers agree to 1e-5."""
    if isinstance(value, dict):
        return {key: _approximately(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_approximately(one) for one in value]
    if isinstance(value, float) and math.isfinite(value):
        return pytest.approx(value, rel=1e-5, abs=1e-5)
    return value


def _files(run: Path) -> list[str]:
    names = sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file())
    events = [name for name in names if "events.out.tfevents." in name]
    assert len(events) == 1
    return [name for name in names if name not in events]


def _hydra(run: Path, name: str) -> Any:
    """The content of a file in ``.hydra``, without what differs between sweeps."""
    content = yaml.safe_load((run / ".hydra" / name).read_text())
    if name == "overrides.yaml":
        return [one for one in content if not one.startswith("sweep.name=")]
    if name == "config.yaml":
        del content["sweep"]["name"]
        return content
    hydra = content["hydra"]
    for section, keys in (
        (hydra, ("launcher", "overrides")),
        # joblib's launcher sets other ids; its sweeper has the same effect.
        (hydra["job"], ("override_dirname", "id")),
        (hydra["runtime"], ("output_dir", "choices")),
        (hydra["sweep"], ("dir",)),
    ):
        for key in keys:
            del section[key]
    return content
