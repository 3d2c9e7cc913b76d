"""Small trained models of a table with columns of every kind."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import mlp_lightning

#: Columns that are categories because we say so, and what these are.
TYPES = {"truth": "bool", "sure": "bool", "zip": "int64", "many": "int64"}
TARGETS = ("two", "three", "numbers", "far", "near", "cold")


def table_of_all_kinds(rows: int = 120) -> pa.Table:
    """Names that are no identifiers, equal once cleaned, or those of an output; gaps in every kind of column."""
    random = np.random.default_rng(0)

    def gaps(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
        return pa.array([None if random.random() < 0.1 else one for one in values], kind)

    def pick(values: list[Any]) -> list[Any]:
        return [values[place] for place in random.integers(0, len(values), rows)]

    start = datetime.datetime(2020, 1, 1)
    signal = random.normal(size=rows)
    return pa.table(
        {
            "bill length (mm)": gaps((random.normal(size=rows) * 3 + 2000).tolist()),
            "bill_length__mm_": signal,
            "label": random.integers(0, 50, rows) * 1.5,
            "network/raw_bf": random.normal(size=rows),
            "flag": gaps(pick([False, True]), pa.bool_()),
            "truth": gaps(pick([False, True]), pa.bool_()),
            "sure": pa.array(pick([False, True])),
            "when": gaps(
                [start + datetime.timedelta(hours=hours) for hours in random.integers(0, 20_000, rows).tolist()],
                pa.timestamp("us"),
            ),
            "colour": gaps(pick(["red", "grün", "blau"])),
            "town": pick([f"t{number}" for number in range(15)]),
            "zip": pick([1, 2**40 + 1, -7]),
            "many": gaps(pick(list(range(0, 98, 7))), pa.int64()),
            "two": np.where(signal > 0, "yes", "no"),
            "three": pick(["a", "b", "c"]),
            "numbers": pick([3, 4, 5]),
            "far": signal * 1e3 + 5e6,
            "near": signal - random.normal(size=rows),
            "cold": pick([4, 9]),
        }
    )


def trained(
    folder: Path, target: str | list[str], scaling: str = "robust", precision: str = "32", **model: Any
) -> Path:
    """The checkpoint of a run of a few steps."""
    path = folder / "all kinds.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of_all_kinds(), path)
    asked = [target] if isinstance(target, str) else target
    columns = {name: {"kind": "ignored"} for name in TARGETS if name not in asked}
    data = {
        "name": "table",
        "path": str(path),
        "target": target,
        "scaling": scaling,
        "batch_size": 32,
        "val_fraction": 0.2,
        "columns": {**columns, **{name: {"kind": "categorical"} for name in TYPES}},
    }
    checkpoint = _trained(folder, data, precision, model)
    _with_types(checkpoint)
    return checkpoint


def _with_types(path: Path) -> None:
    """Make categories in a checkpoint numbers and truth values again: from a file all of them are read as texts."""
    content = torch.load(path, weights_only=True)
    for column in content["hyper_parameters"]["preprocessing"]["columns"]:
        kind = TYPES.get(column["name"])
        if kind is not None:
            values = [json.loads(str(value).lower()) for value in column["vocabulary"]]
            column.update(type=kind, vocabulary=sorted(values))
    torch.save(content, path)


def trained_on(folder: Path, name: str) -> Path:
    """The checkpoint of a few steps on a data set that brings its rows."""
    data = {
        "name": name,
        "scaling": "standard" if name == "iris" else "none",
        "batch_size": None if name == "xor" else 16,
    }
    return _trained(folder, data, "32", {})


def _trained(folder: Path, data: dict[str, Any], precision: str, model: dict[str, Any]) -> Path:
    config = {
        "data": data,
        "model": {"hidden_units": 8, "depth": 2, "activation": "silu", "dropout": 0.1, **model},
        "optimizer": {"name": "AdamW", "lr": 0.003},
        "trainer": {"max_steps": 20, "precision": precision, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    result = mlp_lightning.train(config, folder / "run")
    return result.run_dir / "checkpoints" / "last.ckpt"
