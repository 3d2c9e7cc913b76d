"""A small table in every form that an estimator takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NAMES = ["age", "income in €", "a.b", "index"]
FAST: dict[str, Any] = {
    "hidden_layer_sizes": (8,),
    "max_iter": 5,
    "random_state": 0,
    "dropout": 0.0,
    "accelerator": "cpu",
}


def numbers(rows: int = 40, gaps: bool = True) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features with missing values, and classes that they decide."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(rows, len(NAMES))) * [1, 1e4, 1e-3, 10]
    y = (X[:, 0] + X[:, 2] * 1e3 > 0).astype(np.int64)
    if gaps:
        X[draw.random(X.shape) < 0.1] = np.nan
    return X, y


def mixed(rows: int = 60) -> tuple[pa.Table, NDArray[np.str_]]:
    """Columns of every kind; the class follows from text and date."""
    draw = np.random.default_rng(1)
    text = draw.choice(["a", "b", "c"], size=rows)
    days = draw.integers(0, 3000, size=rows)
    table = pa.table(
        {
            "number": pa.array(draw.normal(size=rows), mask=draw.random(rows) < 0.2),
            "whole": pa.array(draw.integers(0, 5, size=rows)),
            "text": pa.array(text, mask=draw.random(rows) < 0.1),
            "flag": pa.array(draw.random(rows) < 0.5),
            "when": pa.array(days.astype("datetime64[D]")),
            "kind": pa.array(draw.choice(["x", "y"], size=rows)).dictionary_encode(),
            "nothing": pa.nulls(rows),
        }
    )
    return table, np.where((text == "a") ^ (days > 1500), "yes", "no")
