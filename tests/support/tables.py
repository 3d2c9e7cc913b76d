"""Small tables for tests, and the data modules of them."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hypothesis import strategies as st

from mlp_lightning.config import ColumnConfig, DataConfig
from mlp_lightning.config.schema import CrossValidationConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.tables.columns import ARROW_TYPES
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import TableSource


def table_options(
    kinds: Mapping[str, str] | None = None, cv: tuple[Any, ...] | None = None, **options: Any
) -> DataConfig:
    """Options of a table whose target is called y, unless said otherwise."""
    columns = {name: ColumnConfig(kind) for name, kind in (kinds or {}).items()}
    folds = CrossValidationConfig() if cv is None else CrossValidationConfig(*cv)
    return DataConfig(**{"name": "table", "target": "y", "columns": columns, "cv": folds, **options})


def set_up(
    table: pa.Table | None = None,
    task: str = "auto",
    seed: int = 0,
    batch_size: int | None = None,
    source: TableSource | None = None,
    **options: Any,
) -> TabularDataModule:
    """The data module of a table in memory (or of a file, with ``path``), read and prepared."""
    if table is not None:
        source = MemorySource(table, "the table")
    data = TabularDataModule(table_options(**options), task, Given(source), seed, batch_size=batch_size)
    data.setup()
    return data


def module_of(data: TabularDataModule, seed: int = 0, **model: Any) -> MLPModule:
    """A model with initial weights, which prepares rows as the data module does."""
    options = {"hidden_units": [5, 4], "activation": "silu", **model}
    module = MLPModule(
        data.in_features, data.out_features, data.task, model=options, seed=seed, preprocessing=data.preprocessing
    )
    module.take_statistics(data)
    return module.eval()


def mixed_table(rows: int = 60, seed: int = 0) -> pa.Table:
    """Columns of every kind, all with gaps but for the target y, which has two classes."""
    draw = np.random.default_rng(seed)
    number = draw.normal(size=rows)
    gaps = {name: draw.random(rows) < 0.1 for name in ("number", "whole", "flag", "colour", "town", "when")}
    towns = [f"town {letter}" for letter in string.ascii_lowercase[:14]]
    return pa.table(
        {
            "number": pa.array(number, pa.float64(), mask=gaps["number"]),
            "whole": pa.array(draw.integers(0, 30, rows), pa.int64(), mask=gaps["whole"]),
            "flag": pa.array(draw.random(rows) < 0.5, pa.bool_(), mask=gaps["flag"]),
            "colour": pa.array(draw.choice(["red", "green", "blue"], rows), pa.string(), mask=gaps["colour"]),
            "town": pa.array(draw.choice(towns, rows), pa.string(), mask=gaps["town"]),
            "when": pa.array(
                1_700_000_000_000_000 + draw.integers(0, 10**14, rows), pa.timestamp("us"), mask=gaps["when"]
            ),
            "y": pa.array(np.where(number + draw.normal(size=rows) > 0, "yes", "no")),
        }
    )


_VALUES = {
    "float64": st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, -5e-324, 1e-300, 1.0, 1.0 + 2e-16]),
    ),
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "string": st.text(max_size=4) | st.sampled_from(["", " ", "a", "é", "\0", "1.5", "日本", "🙂"]),
    "bool": st.booleans(),
    # Microseconds; the years 1 to 9999.
    "timestamp": st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
}


@st.composite
def finite_tables(draw: st.DrawFn, most_rows: int = 24) -> pa.Table:
    """Tables of one to four columns of any finite values and gaps, and a target y of two classes."""
    rows = draw(st.integers(4, most_rows))
    columns: dict[str, pa.Array] = {}
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(sorted(_VALUES)))
        # Of few different values now and then, so that there are categories and constant columns.
        values = draw(st.lists(_VALUES[kind], min_size=1, max_size=rows))
        places = draw(st.lists(st.integers(-1, len(values) - 1), min_size=rows, max_size=rows))
        columns[f"{kind} {number}"] = pa.array([None if at < 0 else values[at] for at in places], ARROW_TYPES[kind])
    return pa.table({**columns, "y": pa.array(["a", "b"] * (rows // 2) + ["a"] * (rows % 2))})


def rows_of(data: TabularDataModule, split: str) -> list[int]:
    """Row numbers of a split; none if there is no such split."""
    return data.row_numbers[split].tolist() if split in data.row_numbers else []


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
