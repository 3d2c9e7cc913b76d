"""Minibatches of a table of real size: rows per second of a hand-written loop, libraries and this project's engines.

    python benchmarks/minibatch.py [--rows 200000] [--epochs 4] [--repeats 5] [--output FILE.md]

All contenders train the same network (cross-entropy, Adam with learning rate 0.001) on the same random rows of 32
features in batches of 32, 256 and 4,096 rows, each in a separate process; nobody validates:

- (a) the plain loop: index the rows, forward, backward, ``torch.optim.Adam``. Timed is the loop;
- (b) an obvious Lightning module with a DataLoader (only where ``--lightning`` asks for it: it is slow). Timed is
  ``Trainer.fit``;
- (c) scikit-learn's ``MLPClassifier``, ReLU only. Timed is ``fit``, which checks and copies the rows;
- (d) this project with ``trainer.engine=autograd``, (e) with ``trainer.engine=explicit``; both with TensorBoard, CSV
  and checkpoints as by default. Timed is what a run reports as ``fit_time_s``: all steps with what is logged of them,
  and the loss over all training rows at the end, by which the best checkpoint is chosen.

The networks are 32-64-64-2 with ReLU, on one CPU thread; the same with SiLU and dropout 0.1, as tables have by default;
and, for (a) and (e) with a quarter of the rows, two hidden layers of 64 and of 512 with ReLU, on one thread, on all
cores, and (e) with ``trainer.threads=auto``.

The contenders run in turn, so that a drift of the machine affects all of them; the ratios count.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

FEATURES, CLASSES, LEARNING_RATE, DROPOUT = 32, 2, 1e-3, 0.1
BATCH_SIZES = (32, 256, 4096)
LEAST_OF_PLAIN = {32: 3.0, 256: 2.2, 4096: 1.0}
LEAST_OF_SKLEARN = 1.5


class Case(NamedTuple):
    """What a contender trains.

    Attributes:
        activation: ``relu``, or ``silu``, which comes with dropout.
        width: of both hidden layers.
        threads: of the CPU; 0: as ``trainer.threads=auto`` says.
    """

    activation: str = "relu"
    width: int = 64
    threads: int = 1

    def __str__(self) -> str:
        threads = "threads=auto" if not self.threads else f"{self.threads} thread{'s' * (self.threads > 1)}"
        kind = "ReLU" if self.activation == "relu" else f"SiLU, dropout {DROPOUT}"
        return f"{FEATURES}-{self.width}-{self.width}-{CLASSES}, {kind}, {threads}"


def rows(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The same rows at every call."""
    import numpy as np

    draw = np.random.default_rng(0)
    features_BF = draw.standard_normal((count, FEATURES), dtype=np.float32)
    return features_BF, (features_BF @ draw.standard_normal(FEATURES) > 0).astype(np.int64)


def network(case: Case) -> nn.Sequential:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (FEATURES, case.width):
        layers += [nn.Linear(inputs, case.width), nn.ReLU() if case.activation == "relu" else nn.SiLU()]
        layers += [nn.Dropout(DROPOUT)] if case.activation == "silu" else []
    return nn.Sequential(*layers, nn.Linear(case.width, CLASSES))


def plain(case: Case, count: int, batch_size: int, epochs: int) -> float:
    import torch
    from torch import nn

    features_BF, labels_B = map(torch.from_numpy, rows(count))
    model = network(case)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    started = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(count)
        for start in range(0, count, batch_size):
            here = order[start : start + batch_size]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(features_BF[here]), labels_B[here])
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def lightning(case: Case, count: int, batch_size: int, epochs: int) -> float:
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network(case)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)

    data = TensorDataset(*map(torch.from_numpy, rows(count)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(max_epochs=epochs, default_root_dir=folder, accelerator="cpu", enable_progress_bar=False)
        started = time.perf_counter()
        trainer.fit(Module(), DataLoader(data, batch_size, shuffle=True))
        return time.perf_counter() - started


def sklearn(case: Case, count: int, batch_size: int, epochs: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    sizes: Any = {"batch_size": batch_size}  # its stubs know "auto" alone
    model = MLPClassifier((case.width,) * 2, learning_rate_init=LEARNING_RATE, alpha=0.0, max_iter=epochs, **sizes)
    features_BF, labels_B = rows(count)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features_BF, labels_B)
    return time.perf_counter() - started


def ours(engine: str, case: Case, count: int, batch_size: int, epochs: int) -> float:
    import pyarrow as pa

    from mlp_lightning import train

    features_BF, labels_B = rows(count)
    columns = {f"x{number}": features_BF[:, number] for number in range(FEATURES)}
    config = {
        "data": {"name": "table", "target": "y", "batch_size": batch_size, "val_fraction": 0.0, "test_fraction": 0.0},
        "model": {
            "hidden_units": case.width,
            "depth": 2,
            "activation": case.activation,
            "dropout": DROPOUT if case.activation == "silu" else 0.0,
        },
        "task": "multiclass",
        "optimizer": {"name": "Adam", "lr": LEARNING_RATE},
        "scheduler": "none",
        "trainer": {
            "max_epochs": epochs,
            "threads": case.threads or "auto",
            "engine": engine,
            "label_smoothing": 0.0,
            "accelerator": "cpu",
        },
        "verbosity": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        frame = pa.table({**columns, "y": [str(one) for one in labels_B]})
        return train(config, Path(folder) / "run", frame=frame).fit_time_s


CONTENDERS = {
    "plain": ("(a) plain loop", plain),
    "lightning": ("(b) obvious Lightning module", lightning),
    "sklearn": ("(c) scikit-learn's MLPClassifier", sklearn),
    "autograd": ("(d) mlp_lightning, autograd", functools.partial(ours, "autograd")),
    "explicit": ("(e) mlp_lightning, explicit", functools.partial(ours, "explicit")),
}


def timed(name: str, case: Case, count: int, batch_size: int, epochs: int) -> float:
    """Rows per second of a contender, in a new process."""
    words = [sys.executable, __file__, "--contender", name, *map(str, (*case, count, batch_size, epochs))]
    threads = str(case.threads or os.cpu_count())
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    done = subprocess.run(words, capture_output=True, encoding="utf-8", env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return count * epochs / json.loads(done.stdout.splitlines()[-1])


def measured(
    names: Sequence[str], case: Case, count: int, batch_size: int, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Rows per second of each contender, in turn."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.repeats):
        for name in names:
            speeds[name].append(timed(name, case, count, batch_size, arguments.epochs))
            print(f"{case!s:<45} {batch_size:>5} {name:<10} {speeds[name][-1]:>12,.0f}", file=sys.stderr)
    return speeds


def ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, str]:
    """The median of the ratios of each round, and these as text."""
    by_round = [first / second for first, second in zip(one, other, strict=True)]
    return statistics.median(by_round), ", ".join(f"{value:.2f}" for value in by_round)


def compared(case: Case, arguments: argparse.Namespace) -> list[str]:
    """The contenders on one network, batch size by batch size."""
    names = ["plain", "lightning", "sklearn", "autograd", "explicit"]
    left_out = [] if arguments.lightning else ["lightning"]
    left_out += ["sklearn"] if case.activation != "relu" else []
    lines = []
    for batch_size in BATCH_SIZES:
        speeds = measured([name for name in names if name not in left_out], case, arguments.rows, batch_size, arguments)
        lines += [
            "",
            f"| {case}: batches of {batch_size:,} | thousand rows per second | ratio to (a) |",
            "|---|--:|--:|",
        ]
        for name, values in speeds.items():
            bounds = f"{min(values) / 1e3:,.0f} to {max(values) / 1e3:,.0f}"
            row = f"| {CONTENDERS[name][0]} | {statistics.median(values) / 1e3:,.0f} ({bounds})"
            lines.append(f"{row} | {ratio(values, speeds['plain'])[0]:.2f} |")
        claims = [("plain", LEAST_OF_PLAIN[batch_size] if case.activation == "relu" else 1.0)]
        claims += [("sklearn", LEAST_OF_SKLEARN)] if batch_size == 256 and "sklearn" in speeds else []
        for other, target in claims:
            found, listed = ratio(speeds["explicit"], speeds[other])
            verdict = "met" if found >= target else "missed"
            at_least = f"target >= {target}: {verdict}; by round {listed}"
            lines += ["", f"- (e)/{CONTENDERS[other][0][:3]} = {found:.2f}  {at_least}"]
    return lines


def by_threads(arguments: argparse.Namespace) -> list[str]:
    """Widths and batch sizes on one thread, on all cores and with ``threads=auto``, in thousand rows per second."""
    cores = os.cpu_count() or 1
    lines = [
        "",
        f"| width | batches of | (a) 1 thread | (e) 1 thread | (a) {cores} threads | (e) {cores} threads | (e) auto |",
    ]
    lines.append("|--:|--:|--:|--:|--:|--:|--:|")
    for width in (64, 512):
        for batch_size in BATCH_SIZES:
            medians = []
            for threads in (1, cores, 0):
                names = ["explicit"] if threads == 0 else ["plain", "explicit"]
                case = Case(width=width, threads=threads)
                speeds = measured(names, case, arguments.rows // 4, batch_size, arguments)
                medians += [statistics.median(one) / 1e3 for one in speeds.values()]
            lines.append(f"| {width} | {batch_size:,} | " + " | ".join(f"{one:,.0f}" for one in medians) + " |")
    return lines


def report(lines: Sequence[str], arguments: argparse.Namespace) -> str:
    packages = ("torch", "lightning", "scikit-learn", "mlp_lightning")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return "\n".join(
        [
            "# Minibatches: rows per second",
            "",
            f"{arguments.rows:,} rows, {arguments.epochs} epochs, Adam. Medians, with the least and the most in"
            " brackets; ratios are medians of those of each round.",
            *lines,
            "",
            f"- python {platform.python_version()}, {versions}",
            f"- {processor()}, {os.cpu_count()} cores, load average {arguments.load:.2f} at the start",
            f"- {datetime.date.today()}, `python {shlex.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`",
            "",
        ]
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lightning", action="store_true", help="with the obvious Lightning module, which is slow")
    parser.add_argument("--part", choices=("relu", "silu", "threads"), help="measure this alone")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--contender", nargs=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender is not None:
        name, activation, *sizes = arguments.contender
        width, threads, *others = map(int, sizes)
        import torch

        torch.set_num_threads(threads or os.cpu_count() or 1)
        print(json.dumps(CONTENDERS[name][1](Case(activation, width, threads), *others)))
        return
    arguments.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    parts = ("relu", "silu", "threads") if arguments.part is None else (arguments.part,)
    lines: list[str] = []
    for part in parts:
        lines += by_threads(arguments) if part == "threads" else compared(Case(part), arguments)
    text = report(lines, arguments)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
