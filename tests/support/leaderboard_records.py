"""Made-up records of runs, for the tests of the leaderboard."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlp_lightning.sweeps.records import RunRecord


def run(number: int, train: float = 0.5, val: float | None = 0.6, sweep: str = "sweep", **swept: Any) -> RunRecord:
    """A finished run; a swept key is written with ``__`` for its dot: ``model__hidden_units=5``."""
    keys = {key.replace("__", "."): value for key, value in swept.items()}
    overrides = ("data=iris", *(f"{key}={json.dumps(value).replace(' ', '')}" for key, value in keys.items()))
    metrics = {"train": {"loss": train, "accuracy": 0.5}}
    if val is not None:
        metrics["val"] = {"loss": val, "accuracy": 0.25}
    config = nested({"name": "iris", "data.name": "iris", "seed": 0, **keys})
    return RunRecord(number, Path(f"/logs/{sweep}/{number}"), "finished", overrides, config, metrics, 100, 1.5)


def above(record: RunRecord, **baseline: float) -> RunRecord:
    """The run with a baseline that has a loss for each split."""
    return dataclasses.replace(record, baseline={split: {"loss": loss} for split, loss in baseline.items()})


def failed(number: int, error: str = "NonFiniteLossError: nan at step 3\nmore", **swept: Any) -> RunRecord:
    done = run(number, **swept)
    return RunRecord(number, done.folder, "failed", done.overrides, done.config, {}, 3, 0.1, error)


def grid() -> list[RunRecord]:
    """Three widths by four seeds with drawn losses, and one run more that failed."""
    draw = random.Random(1)
    records = [
        run(number, draw.random(), draw.random(), model__hidden_units=width, seed=seed)
        for number, (width, seed) in enumerate(itertools.product((5, 100, 1000), range(4)))
    ]
    return [*records, failed(12, model__hidden_units=3, seed=0)]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    whole: dict[str, Any] = {}
    for key, value in flat.items():
        *section_names, name = key.split(".")
        section = whole
        for section_name in section_names:
            section = section.setdefault(section_name, {})
        section[name] = value
    return whole


def write_run(parent: Path, record: RunRecord) -> Path:
    """Write ``record`` as a run folder below ``parent``."""
    folder = parent / record.folder.parent.name / record.folder.name
    (folder / ".hydra").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(record.config), sort_keys=False))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(dict(record.config), sort_keys=False))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(record.overrides)))
    if record.status != "unended":
        names = ("status", "metrics", "steps", "wall_time_s", "error")
        baseline = {"predicts": "the mean", "metrics": record.baseline} if record.baseline else None
        result = {**{name: getattr(record, name) for name in names}, "baseline": baseline}
        (folder / "result.json").write_text(json.dumps(result))
    return folder
