"""What ``trainer.precision=bf16-mixed`` gains over single precision on one thread of a CPU, by width and batch size.

    python benchmarks/precision.py [--steps 100] [--repeats 3] [--output FILE.md]

A table of 32 columns and two classes, two hidden layers, Adam; each training as `mlp_lightning.train` makes it, in
turn, with the engine that it chooses: `explicit` for single precision, `autograd` for bfloat16. The time is that of
the processor in the training, with its set-up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from xor import publish, surroundings

from mlp_lightning import train

PRECISIONS = ("32", "bf16-mixed")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the result to this Markdown file")
    arguments = parser.parse_args()
    facts = surroundings()
    _train(64, 256, "32", 1)  # what the first one imports is not of interest
    lines = ["| hidden layers | batch | 32, ms a step | bf16-mixed, ms a step | 32 / bf16-mixed, by round | losses |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for width, batch in ((64, 256), (64, 4096), (512, 256), (512, 4096)):
        measured = [
            {precision: _train(width, batch, precision, arguments.steps) for precision in PRECISIONS}
            for _ in range(arguments.repeats)
        ]
        ms = [f"{statistics.median(one[precision][0] for one in measured):.2f}" for precision in PRECISIONS]
        ratios = ", ".join(f"{one['32'][0] / one['bf16-mixed'][0]:.2f}" for one in measured)
        losses = " / ".join(f"{measured[0][precision][1]:.4f}" for precision in PRECISIONS)
        lines.append(f"| {width}-{width} | {batch:,} | {ms[0]} | {ms[1]} | {ratios} | {losses} |")
    title = ["# bfloat16 on a CPU", "", f"{arguments.steps} steps, one thread, time of the processor.", ""]
    publish([*title, *lines, "", *facts], arguments.output)


def _train(width: int, batch: int, precision: str, steps: int) -> tuple[float, float]:
    """Milliseconds of the processor in a step, and the last training loss."""
    generator = np.random.default_rng(0)
    features_BF = generator.normal(size=(4 * batch, 32))
    labels_B = (features_BF[:, :4].prod(axis=1) > 0).astype(int)
    columns = {f"x{number}": features_B for number, features_B in enumerate(features_BF.T)}
    config = {
        "data": {"name": "frame", "target": "label", "batch_size": batch, "val_fraction": 0.0, "test_fraction": 0.0},
        "model": {"hidden_units": width, "depth": 2, "activation": "relu"},
        "optimizer": {"name": "Adam", "lr": 0.001},
        "trainer": {"max_steps": steps, "accelerator": "cpu", "threads": 1, "precision": precision},
        "verbosity": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        result = train(config, Path(folder) / "run", frame=pa.table({**columns, "label": labels_B}))
        ms = (time.process_time() - began) / steps * 1e3
    return ms, result.metrics["train"]["loss"]


if __name__ == "__main__":
    main()
