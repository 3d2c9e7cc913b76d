"""Rows that Python hands over: frames and functions, for cross-validation too, and what contradicts them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from torch import nn

from mlp_lightning import cross_validate
from mlp_lightning.errors import ConfigError

TABLE = pa.table(
    {"x": [row / 9 for row in range(45)], "y": [f"{'above' if row > 21 else 'below'}" for row in range(45)]}
)


def rows() -> pa.Table:
    return TABLE


def config(**sections: Any) -> dict[str, Any]:
    data = {"target": "y", "val_fraction": 0.0, "test_fraction": 0.0, **sections.pop("data", {})}
    return {"data": data, "trainer": {"max_epochs": 1, "accelerator": "cpu"}, "verbosity": 0, **sections}


@pytest.mark.parametrize("kind", ["frame", "function"])
def test_folds_of_rows_in_memory(tmp_path: Path, kind: str) -> None:
    given = {"name": "table"} if kind == "frame" else {"_target_": rows}
    more = {"frame": TABLE} if kind == "frame" else {}
    result = cross_validate(config(data={**given, "cv": {"folds": 3}}), tmp_path / "run", **more)
    assert result.status == "finished"
    with (tmp_path / "run" / "out_of_fold.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [one["y"] for one in found] == TABLE["y"].to_pylist()


def test_folds_do_not_take_classes(tmp_path: Path) -> None:
    own = config(data={"name": "table", "cv": {"folds": 3}}, model={"_target_": nn.Linear})
    with pytest.raises(ConfigError, match="is imported for every fold; give its import path"):
        cross_validate(own, tmp_path / "run", frame=TABLE)
