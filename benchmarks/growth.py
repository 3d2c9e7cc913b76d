"""How much a process grows with every training in it: ``python benchmarks/growth.py``.

Trainings of five steps on XOR, one after another in one process. Memory is resident memory (Linux); "objects" are those
that Python's garbage collector tracks, after a collection.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from mlp_lightning import MLPClassifier, train


def state() -> dict[str, float]:
    gc.collect()
    objects = gc.get_objects()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return {
        "MB": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "objects": len(objects),
        "classes": sum(isinstance(one, type) for one in objects),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  # an iterator of pathlib would hold one more open
    }


def trainer_of(case: str, folder: Path) -> Callable[[int], object]:
    """What trains once, given its number."""
    if case == "estimator":
        rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).numpy()
        return lambda number: MLPClassifier(hidden_layer_sizes=(4,), max_iter=2).fit(rows, rows[:, 0] > 0)
    config = {
        "data": {"name": "xor"},
        "trainer": {"max_steps": 5},
        "verbosity": 0,
        "logger": {"graph": case != "no graph"},
    }
    return lambda number: train(config, folder / str(number))


def growth(case: str, warm_up: int, trainings: int) -> dict[str, dict[str, float]]:
    """The state of the process after the warm-up and after the trainings that follow it."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        once = trainer_of(case, Path(folder))
        for number in range(warm_up):
            once(number)
        before = state()
        for number in range(warm_up, warm_up + trainings):
            once(number)
        return {"before": before, "after": state()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=("graph", "no graph", "estimator"), default="graph")
    parser.add_argument("--warm-up", type=int, default=50)
    parser.add_argument("--trainings", type=int, default=1000)
    arguments = parser.parse_args()
    print(json.dumps(growth(arguments.case, arguments.warm_up, arguments.trainings)))


if __name__ == "__main__":
    main()
