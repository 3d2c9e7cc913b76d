"""How much a process grows with every training in it: ``python benchmarks/growth.py``.

Trainings of five steps on XOR, one after another in one process. Memory is resident memory (Linux), "anonymous" that
of it which no file backs, and "heap" what is allocated from the C library; "objects" are those that Python's garbage
collector tracks, after a collection, and "blocks" those of Python's allocator.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra

from mlp_lightning import MLPClassifier, train
from mlp_lightning.commands.train import main as main_of_train
from mlp_lightning.config import parse_config
from mlp_lightning.config.shared import Remembered
from mlp_lightning.runs import train_stack


class Mallinfo2(ctypes.Structure):
    """What glibc says of its heap, in bytes."""

    _fields_ = (("before", ctypes.c_size_t * 7), ("uordblks", ctypes.c_size_t), ("after", ctypes.c_size_t * 2))


def heap_bytes() -> int:
    """Bytes that are allocated from glibc, once it has given back what is free; 0 of another C library."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc_trim(0)  # what it keeps of freed memory depends on the machine's load
        libc.mallinfo2.restype = Mallinfo2
        return libc.mallinfo2().uordblks
    return 0


def state() -> dict[str, float]:
    for one in gc.get_objects():
        if isinstance(one, Remembered):
            one._known.clear()  # it remembers a bounded number
    gc.collect()
    heap = heap_bytes()
    resident, shared = map(int, Path("/proc/self/statm").read_text(encoding="utf-8").split()[1:3])
    megabytes_a_page = os.sysconf("SC_PAGE_SIZE") / 1e6
    objects = gc.get_objects()
    return {
        "MB": resident * megabytes_a_page,
        "anonymous MB": (resident - shared) * megabytes_a_page,
        "heap MB": heap / 1e6,
        "blocks": sys.getallocatedblocks(),
        "objects": len(objects),
        "classes": sum(isinstance(one, type) for one in objects),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  # an iterator of pathlib would hold one more open
    }


CASES = {
    "run": "one architecture",
    "architectures": "another one each time",
    "no graph": "without a model graph",
    "stack": "two runs together",
    "sweep": "the command, with -m and two runs",
    "estimator": "MLPClassifier",
}


def trainer_of(case: str, folder: Path) -> Callable[[int], object]:
    """What trains once, given its number."""
    if case == "estimator":
        rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).numpy()
        return lambda number: MLPClassifier(hidden_layer_sizes=(4,), max_iter=2).fit(rows, rows[:, 0] > 0)
    if case == "sweep":
        return lambda number: command("-m", "data=xor", "seed=1,2", "trainer.max_steps=5", "verbosity=0")

    def config(width: int, seed: int = 0) -> dict[str, Any]:
        trainer = {"max_steps": 5}
        model = {"hidden_units": [10, width]}
        return {
            **{"data": {"name": "xor"}, "model": model, "trainer": trainer, "verbosity": 0, "seed": seed},
            "logger": {"graph": case != "no graph"},
        }

    if case == "stack":
        configs = [parse_config(config(10, seed)) for seed in range(2)]
        return lambda number: train_stack(configs, [folder / f"{number}-{seed}" for seed in range(2)])
    return lambda number: train(config(1 + number if case == "architectures" else 10), folder / str(number))


def command(*words: str) -> None:
    """A command in this process."""
    sys.argv = ["train.py", *words]
    try:
        main_of_train()
    except SystemExit as ending:
        if ending.code:
            raise RuntimeError(f"{words} ended with {ending.code}") from ending
    finally:
        GlobalHydra.instance().clear()


def growth(case: str, warm_up: int, trainings: int, between: int) -> Iterator[dict[str, Any]]:
    """The state of the process after the warm-up, and after as many trainings as are to lie between two states."""
    warnings.simplefilter("ignore")
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where the command writes
        try:
            once = trainer_of(case, Path(folder))
            for number in range(warm_up):
                once(number)
            start = state()
            for number in range(1, trainings + 1):
                once(warm_up + number)
                if number % between == 0 or number == trainings:
                    yield {"case": case, "trainings": number, "before": start, "after": state()}
        finally:
            os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["run"])
    parser.add_argument("--warm-up", type=int, default=50)
    parser.add_argument("--trainings", type=int, default=1000)
    parser.add_argument("--between", type=int, metavar="N", help="a line after every N trainings, too")
    arguments = parser.parse_args()
    for case in arguments.cases:
        between = arguments.between or arguments.trainings
        for found in growth(case, arguments.warm_up, arguments.trainings, between):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
