"""Options of a table that its rows give no effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.config import DataConfig
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.tables.columns import Column

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute


def refuse_idle_options(options: DataConfig, columns: Sequence[Column], table: pa.Table) -> None:
    """Refuse options of columns that the table does not have, and columns that say the same without their option.

    Args:
        options: of the table.
        columns: that the model sees.
        table: its rows.

    Raises:
        ConfigError: naming them.
    """
    faults = [*_without_columns(options, columns), *_without_difference(options, table)]
    if faults:
        raise ConfigError(faults)


def _without_columns(options: DataConfig, columns: Sequence[Column]) -> Iterator[Fault]:
    kinds, default = {one.kind for one in columns}, DataConfig()
    categorical = ("categorical",)
    needed = {"scaling": ("numeric", "datetime"), "max_one_hot": categorical, "max_categories": categorical}
    for key, of_kinds in needed.items():
        if not kinds & {*of_kinds} and (value := getattr(options, key)) != getattr(default, key):
            yield Fault(f"data.{key}", value, f"has no effect: no column is {' or '.join(of_kinds)}", "leave it out")


def _without_difference(options: DataConfig, table: pa.Table) -> Iterator[Fault]:
    reasons = {
        "weight_column": (lambda different: different == 1, "all rows have the same weight"),
        "group_column": (lambda different: different == table.num_rows, "every row is a group by itself"),
        "split_column": (lambda different: different == 1, "all rows are in one split"),
    }
    for key, (is_idle, reason) in reasons.items():
        name = getattr(options, key)
        if name is not None and is_idle(pc.count_distinct(table.column(name), mode="all").as_py()):
            yield Fault(f"data.{key}", name, f"has no effect: {reason}", "leave it out, or name another column")
