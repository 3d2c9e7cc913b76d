"""What the fingerprint of a table costs beside reading and preparing it: ``python benchmarks/fingerprint.py``.

1,000,000 rows and 20 columns in memory and as Parquet: 14 columns of numbers, one of whole numbers, three of texts with
50 values, one of texts that all differ, and a target of two classes. One thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from mlp_lightning.data import TabularDataModule
from mlp_lightning.tables.fingerprint import table_fingerprint


def table_of(rows: int) -> pa.Table:
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {f"number{one}": draw.normal(size=rows) for one in range(14)}
    columns["whole"] = draw.integers(0, 1_000, rows)
    columns |= {f"text{one}": pa.array(draw.integers(0, 50, rows)).cast(pa.string()) for one in range(3)}
    columns["name"] = pa.array(np.arange(rows)).cast(pa.string())
    columns["y"] = draw.integers(0, 2, rows)
    return pa.table(columns)


def seconds(work: Callable[[], Any], repeats: int) -> str:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return f"{median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    table = table_of(arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        pyarrow.parquet.write_table(table, path)

        def prepare() -> None:
            TabularDataModule(path=str(path), target="y", val_fraction=0.2).setup()

        print("| what | seconds |\n|---|---|")
        print(f"| fingerprint of the whole table | {seconds(lambda: table_fingerprint(table), arguments.repeats)} |")
        for names in (["number0"], ["whole"], ["text0"], ["name"]):
            part = table.select(names)
            print(
                f"| of `{names[0]}` alone | {seconds(lambda part=part: table_fingerprint(part), arguments.repeats)} |"
            )
        print(f"| reading and preparing, with the fingerprint | {seconds(prepare, arguments.repeats)} |")


if __name__ == "__main__":
    main()
