"""A table for the tests of evaluation and prediction."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

ROWS = 300


def flowers(rows: int = ROWS, seed: int = 1) -> pa.Table:
    """Numbers with gaps, a category, a truth value, a weight and two classes, or three with ``kind``."""
    random = np.random.default_rng(seed)
    length, width = random.normal(3000, 400, rows), random.normal(2, 1, rows)
    kinds = np.array(["red", "blue, light", 'say "so"'])[(length > 2900).astype(int) + (length > 3200)]
    return pa.table(
        {
            "id": [f"{number:05d}" for number in range(rows)],
            "length": pa.array(length, mask=random.random(rows) < 0.1),
            "width": width,
            "place": np.array(["north", "south", "west"])[random.integers(0, 3, rows)],
            "wild": random.random(rows) < 0.5,
            "weight": random.integers(0, 4, rows).astype(float),
            "kind": kinds,
            "big": length + 300 * width > 3600,
            "price": 1e6 + 1e3 * length,
            "age": 10 - width,
        }
    )


def in_threes(rows: int = ROWS) -> pa.Table:
    """The same with the column ``plant``, which has a group of three rows each."""
    return flowers(rows).append_column("plant", pa.array([f"p{row // 3}" for row in range(rows)]))
