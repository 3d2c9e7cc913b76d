"""A sweep of ten thousand small networks: with a folder for every run, and packed.

    python benchmarks/packed_sweep.py [--runs 10000] [--steps 500] [--repeats 3] [--quick] [--output FILE.md]

The runs are XOR with one hidden layer of two units, as many seeds as runs. Both contenders are the whole command
``scripts/train.py -m``, one thread, in turn; each sweep stays on the disk until the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xor import CONTENDER_ENVIRONMENT, by_round, median_and_range, publish, surroundings, verdict

TRAIN = str(Path(__file__).resolve().parents[1] / "scripts" / "train.py")
STORES = ("folders", "packed")
MOST_SECONDS, MOST_MB, MOST_KB_A_RUN = 20.0, 60.0, 5.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """One command.

    Attributes:
        seconds: from its start to its exit.
        cpu_seconds: of the processor, in it and in the system for it.
        megabytes: that its files take on the disk.
        files: how many it left.
    """

    seconds: float
    cpu_seconds: float
    megabytes: float
    files: int


def main() -> None:
    arguments = _arguments()
    facts = surroundings()
    measured: dict[str, list[Measured]] = {store: [] for store in STORES}
    with tempfile.TemporaryDirectory(prefix="packed-") as folder:
        for number in range(arguments.repeats):
            for store in STORES:
                one = _measure(store, arguments.runs, arguments.steps, Path(folder) / f"{number}-{store}")
                measured[store].append(one)
                print(f"{number + 1}/{arguments.repeats} {store}: {one}", file=sys.stderr)
    publish([*_report(measured, arguments.runs, arguments.steps), *facts], arguments.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="number of runs")
    parser.add_argument("--steps", type=int, default=500, help="of each")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each contender")
    parser.add_argument("--quick", action="store_true", help="one round of few runs: whether everything works")
    parser.add_argument("--output", type=Path, help="also write the result to this Markdown file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs, arguments.repeats = 50, 1
    return arguments


def _measure(store: str, runs: int, steps: int, folder: Path) -> Measured:
    folder.mkdir()
    command = [sys.executable, TRAIN, "-m", "data=xor", "model.hidden_units=2", "model.depth=1", "optimizer.lr=0.1"]
    command += [f"trainer.max_steps={steps}", "trainer.threads=1", f"seed=range(0,{runs})", f"sweep.store={store}"]
    before, started = _cpu_of_children(), time.perf_counter()
    environment = {**os.environ, **CONTENDER_ENVIRONMENT}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    seconds, cpu_seconds = time.perf_counter() - started, _cpu_of_children() - before
    if done.returncode or f"  {runs}  " not in done.stdout:
        sys.exit(f"{done.stderr}\n{done.stdout}\nThe sweep has not finished {runs} runs.")
    files = [one.stat() for one in folder.rglob("*") if one.is_file()]
    blocks = [getattr(one, "st_blocks", -(-one.st_size // 512)) for one in files]
    return Measured(seconds, cpu_seconds, 512 * sum(blocks) / 1e6, len(files))


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(measured: dict[str, list[Measured]], runs: int, steps: int) -> list[str]:
    lines = [
        f"# A sweep of {runs:,} runs",
        "",
        f"XOR 2-2-1, {steps:,} steps, SGD, one thread; whole commands. Medians (least to most).",
        "",
        "| sweep.store | seconds | CPU seconds | MB | files |",
        "|---|--:|--:|--:|--:|",
    ]
    for store, its in measured.items():
        columns = [[one.seconds for one in its], [one.cpu_seconds for one in its], [one.megabytes for one in its]]
        lines.append(f"| {store} | {' | '.join(map(median_and_range, columns))} | {its[0].files:,} |")
    packed, is_full = measured["packed"], (runs, steps) == (10_000, 500)
    ratios = [one.seconds / other.seconds for one, other in zip(measured["folders"], packed, strict=True)]
    seconds, megabytes = (statistics.median(getattr(one, name) for one in packed) for name in ("seconds", "megabytes"))
    values = {"seconds": (seconds, MOST_SECONDS), "MB": (megabytes, MOST_MB)}
    values["kB a run"] = (1000 * megabytes / runs, MOST_KB_A_RUN)
    shown = [f"- packed, {name}: {verdict(*one) if is_full else f'{one[0]:.3f}'}" for name, one in values.items()]
    return [*lines, "", *shown, f"- folders/packed = {statistics.median(ratios):.2f}; {by_round(ratios)}", ""]


if __name__ == "__main__":
    main()
