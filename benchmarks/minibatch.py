"""Minibatches of a table of real size: rows per second of a hand-written loop, libraries and this project's engines.

    python benchmarks/minibatch.py [--rows 200000] [--epochs 2] [--repeats 3] [--output FILE.md]

All contenders train 32-64-64-2 (ReLU, cross-entropy, Adam with learning rate 0.001) on the same random rows of 32
features in batches of 32, 256 and 4,096 rows on one CPU thread, each in a separate process:

- (a) the plain loop: index the rows, forward, backward, ``torch.optim.Adam``;
- (b) an obvious Lightning module with a DataLoader (only where ``--lightning`` asks for it: it is slow);
- (c) scikit-learn's ``MLPClassifier``;
- (d) this project with ``trainer.engine=autograd``, (e) with ``trainer.engine=explicit``; both with TensorBoard, CSV
  and checkpoints as by default.

Timed is the loop, or the fit without the preparation of the rows. They run in turn, so that a drift of the machine
affects all of them; the ratios count.
"""

from __future__ import annotations

import argparse
import datetime
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

FEATURES, WIDTHS, CLASSES, LEARNING_RATE = 32, (64, 64), 2, 1e-3
BATCH_SIZES = (32, 256, 4096)
LEAST_OF_PLAIN = {32: 3.0, 256: 2.2, 4096: 1.0}
LEAST_OF_SKLEARN = 1.5


def rows(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The same rows at every call."""
    import numpy as np

    draw = np.random.default_rng(0)
    features_BF = draw.standard_normal((count, FEATURES), dtype=np.float32)
    return features_BF, (features_BF @ draw.standard_normal(FEATURES) > 0).astype(np.int64)


def network() -> nn.Sequential:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = FEATURES
    for units in WIDTHS:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def plain(count: int, batch_size: int, epochs: int) -> float:
    import torch
    from torch import nn

    features_BF, labels_B = map(torch.from_numpy, rows(count))
    model = network()
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


def lightning(count: int, batch_size: int, epochs: int) -> float:
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

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


def sklearn(count: int, batch_size: int, epochs: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    sizes: Any = {"batch_size": batch_size}  # its stubs know "auto" alone
    model = MLPClassifier(WIDTHS, learning_rate_init=LEARNING_RATE, alpha=0.0, max_iter=epochs, **sizes)
    features_BF, labels_B = rows(count)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features_BF, labels_B)
    return time.perf_counter() - started


def ours(engine: str, count: int, batch_size: int, epochs: int) -> float:
    import pyarrow as pa

    from mlp_lightning import train

    features_BF, labels_B = rows(count)
    columns = {f"x{number}": features_BF[:, number] for number in range(FEATURES)}
    config = {
        "data": {"name": "table", "target": "y", "batch_size": batch_size, "val_fraction": 0.0, "test_fraction": 0.0},
        "model": {"hidden_units": list(WIDTHS), "activation": "relu", "dropout": 0.0},
        "task": "multiclass",
        "optimizer": {"name": "Adam", "lr": LEARNING_RATE},
        "scheduler": "none",
        "trainer": {"max_epochs": epochs, "threads": 1, "engine": engine, "label_smoothing": 0.0, "accelerator": "cpu"},
        "verbosity": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        frame = pa.table({**columns, "y": [str(one) for one in labels_B]})
        return train(config, Path(folder) / "run", frame=frame).fit_time_s


CONTENDERS = {
    "plain": ("(a) plain loop", plain),
    "lightning": ("(b) obvious Lightning module", lightning),
    "sklearn": ("(c) scikit-learn's MLPClassifier", sklearn),
    "autograd": ("(d) mlp_lightning, autograd", lambda *sizes: ours("autograd", *sizes)),
    "explicit": ("(e) mlp_lightning, explicit", lambda *sizes: ours("explicit", *sizes)),
}


def timed(name: str, count: int, batch_size: int, epochs: int) -> float:
    """Rows per second of a contender, in a new process."""
    words = [sys.executable, __file__, "--contender", name, *map(str, (count, batch_size, epochs))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, encoding="utf-8", env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return count * epochs / json.loads(done.stdout.splitlines()[-1])


def report(speeds: dict[int, dict[str, list[float]]], arguments: argparse.Namespace) -> str:
    lines = [
        "# Minibatches: rows per second",
        "",
        f"{arguments.rows:,} rows, {FEATURES}-{'-'.join(map(str, WIDTHS))}-{CLASSES}, Adam, one CPU thread."
        " Medians, with the least and the most in brackets.",
    ]
    for batch_size, of_size in speeds.items():
        medians = {name: statistics.median(values) for name, values in of_size.items()}
        lines += ["", f"| batches of {batch_size:,} | thousand rows per second | ratio to (a) |", "|---|--:|--:|"]
        for name, values in of_size.items():
            bounds = f"{min(values) / 1e3:,.0f} to {max(values) / 1e3:,.0f}"
            ratio = medians[name] / medians["plain"]
            lines.append(f"| {CONTENDERS[name][0]} | {medians[name] / 1e3:,.0f} ({bounds}) | {ratio:.2f} |")
        claims = [("plain", LEAST_OF_PLAIN[batch_size])]
        claims += [("sklearn", LEAST_OF_SKLEARN)] if batch_size == 256 else []
        for other, target in claims:
            by_round = [one / two for one, two in zip(of_size["explicit"], of_size[other], strict=True)]
            ratio = statistics.median(by_round)
            verdict = "met" if ratio >= target else "missed"
            listed = ", ".join(f"{one:.2f}" for one in by_round)
            lines += [
                "",
                f"- (e)/{CONTENDERS[other][0][:3]} = {ratio:.2f}  target >= {target}: {verdict}; by round {listed}",
            ]
    packages = ("torch", "lightning", "scikit-learn", "mlp_lightning")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    lines += [
        "",
        f"- python {platform.python_version()}, {versions}",
        f"- {processor()}, {os.cpu_count()} cores, load average {arguments.load:.2f} at the start",
        f"- {datetime.date.today()}, `python {shlex.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`",
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lightning", action="store_true", help="with the obvious Lightning module, which is slow")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender is not None:
        name, *sizes = arguments.contender
        import torch

        torch.set_num_threads(1)
        print(json.dumps(CONTENDERS[name][1](*map(int, sizes))))
        return
    arguments.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    names = [name for name in CONTENDERS if name != "lightning" or arguments.lightning]
    speeds: dict[int, dict[str, list[float]]] = {}
    for batch_size in BATCH_SIZES:
        speeds[batch_size] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                speeds[batch_size][name].append(timed(name, arguments.rows, batch_size, arguments.epochs))
                print(f"{batch_size:>5} {name:<10} {speeds[batch_size][name][-1]:>12,.0f}", file=sys.stderr)
    text = report(speeds, arguments)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
