"""Functions of a package of the user's own that return rows, or do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

ROWS = 40


def _columns(rows: int) -> dict[str, Any]:
    x = np.arange(rows) / rows
    return {"x": x, "height": 2 * x}


def growing() -> pd.DataFrame:
    return pd.DataFrame(_columns(ROWS))


def frame(kind: str) -> Any:
    """Of pandas, polars or Arrow."""
    if kind == "polars":
        import polars

        return polars.DataFrame(_columns(ROWS))
    return pd.DataFrame(_columns(ROWS)) if kind == "pandas" else pa.table(_columns(ROWS))


def no_frame() -> list[int]:
    return [1, 2]
