"""From a large file to the first training step, and prediction in constant memory: ``python benchmarks/table_io.py``.

Writes a table of 1,000,000 rows and 30 columns of numbers as CSV and as Parquet into a temporary folder. Each contender
runs in a separate process; time counts from the end of its imports, memory is its peak (resident set).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROWS, COLUMNS = 1_000_000, 30


def write_tables(folder: Path, rows: int) -> list[Path]:
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv, parquet

    generator = np.random.default_rng(0)
    columns = {f"x{number}": generator.normal(number, 1 + number, rows) for number in range(1, COLUMNS)}
    columns["y"] = sum(columns[f"x{number}"] for number in range(1, 6)) + generator.normal(size=rows)
    table = pa.table(columns)
    paths = [folder / "table.csv", folder / "table.parquet"]
    csv.write_csv(table, paths[0])
    parquet.write_table(table, paths[1])
    return paths


def peak_mib() -> float:
    """The peak memory of this process. (``ru_maxrss`` would also count its parent's.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def ours(path: Path, folder: Path) -> dict[str, float]:
    """``mlp_lightning`` with the defaults of ``data=table`` except the length."""
    from mlp_lightning.config.overrides import check_overrides
    from mlp_lightning.runs import train
    from mlp_lightning.runs.build import build_data

    config = check_overrides(
        [
            *("data=table", f"data.path={path}", "data.target=y", "data.val_fraction=0", "data.test_fraction=0"),
            *("trainer.max_epochs=null", "trainer.max_steps=1", "logger=none", "callbacks=none", "verbosity=0"),
        ]
    )
    base, started = peak_mib(), time.perf_counter()
    data = build_data(config)
    ready = time.perf_counter() - started
    result = train(config, folder / f"run-{time.time_ns()}", data=data)
    # The end of a run evaluates the whole table once more; the first step ends with fit.
    return {"seconds": ready + result.fit_time_s, "base": base, "peak": peak_mib()}


def pandas_pipeline(path: Path, folder: Path) -> dict[str, float]:
    """A hand-written pipeline: pandas, StandardScaler, TensorDataset, DataLoader."""
    import pandas
    import torch
    from sklearn.preprocessing import StandardScaler
    from torch.utils.data import DataLoader, TensorDataset

    base, started = peak_mib(), time.perf_counter()
    frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    targets = torch.tensor(StandardScaler().fit_transform(frame[["y"]]), dtype=torch.float32)
    features = torch.tensor(StandardScaler().fit_transform(frame.drop(columns="y")), dtype=torch.float32)
    loader = DataLoader(TensorDataset(features, targets), batch_size=1024, shuffle=True)
    silu = torch.nn.SiLU
    model = torch.nn.Sequential(
        torch.nn.Linear(COLUMNS - 1, 128), silu(), torch.nn.Linear(128, 128), silu(), torch.nn.Linear(128, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    batch, wanted = next(iter(loader))
    torch.nn.functional.mse_loss(model(batch), wanted).backward()
    optimizer.step()
    return {"seconds": time.perf_counter() - started, "base": base, "peak": peak_mib()}


def prediction(path: Path, folder: Path) -> dict[str, float]:
    """``predict`` over the whole file."""
    from mlp_lightning.inference.loading import load_model
    from mlp_lightning.inference.predict import predict

    checkpoint = folder / "model" / "checkpoints" / "last.ckpt"
    load_model(checkpoint)
    base, started = peak_mib(), time.perf_counter()
    predict(checkpoint, str(path), folder / f"predictions-{time.time_ns()}.csv")
    return {"seconds": time.perf_counter() - started, "base": base, "peak": peak_mib()}


CONTENDERS = {"mlp_lightning": ours, "pandas pipeline": pandas_pipeline, "predict": prediction}


def make_model(folder: Path, path: Path) -> None:
    from mlp_lightning.config.overrides import check_overrides
    from mlp_lightning.runs import train

    overrides = ["data=table", f"data.path={path}", "data.target=y", "trainer.max_epochs=null", "trainer.max_steps=5"]
    train(check_overrides([*overrides, "logger=none", "verbosity=0"]), folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, metavar=("CONTENDER", "PATH", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.child:
        name, path, folder = arguments.child
        print(json.dumps(CONTENDERS[name](Path(path), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = write_tables(folder, arguments.rows)
        make_model(folder, paths[1])
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for _ in range(arguments.rounds):
            for path in paths:
                for name in CONTENDERS:
                    command = [sys.executable, __file__, "--child", name, str(path), str(folder)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found.setdefault((path.suffix, name), []).append(json.loads(done.stdout.splitlines()[-1]))
        print("| file | what | seconds | base, MiB | peak above it, MiB |\n|---|---|---|---|---|")
        for (suffix, name), rounds in found.items():
            seconds = [one["seconds"] for one in rounds]
            above = median(one["peak"] - one["base"] for one in rounds)
            base = median(one["base"] for one in rounds)
            spread = f"{median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
            print(f"| {suffix[1:]} | {name} | {spread} | {base:.0f} | {above:.0f} |")


if __name__ == "__main__":
    main()
