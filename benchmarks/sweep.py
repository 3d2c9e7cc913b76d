"""A sweep of small networks: one loop after another, Hydra's basic launcher, and this project's stack.

    python benchmarks/sweep.py [--runs 256 1024] [--repeats 3] [--no-iris] [--full-basic] [--quick] [--output FILE.md]

The runs are XOR with ``wide_deep`` (8 widths from 4 to 16, 4 learning rates, and as many seeds as it takes) and
iris with one hidden layer (5 widths, 5 learning rates, 20 seeds). The contenders, each a whole process with one
thread:

- (a) plain loops, one after another: for XOR that of ``xor.py``, for iris one with a validation after every epoch.
  A few runs are made; each of the others is charged the mean of their loops. The start of the process counts once;
- (b) ``scripts/train.py`` with Hydra's basic launcher, all outputs written. Again a few runs are made, and each of
  the others is charged the mean time from the start of one to the start of the next;
- (c) the same command with this project's launcher: all runs, all outputs written, from start to exit.

They run in turn (a b c a b c …); a ratio is that of one round, and its median over the rounds counts. Every process
is checked to have finished all of its runs, and the losses of (a) are compared with those of (c).

In each round, one more process measures where the time of (c) goes, with timers around the parts. The loops of (a)
and these timers are in ``sweep_contenders.py``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweep_contenders import IRIS_ROWS, save_iris_rows
from xor import (
    CONTENDER_ENVIRONMENT,
    STEPS_BETWEEN_LOSSES,
    by_round,
    median_and_range,
    publish,
    surroundings,
    verdict,
)

TRAIN = str(Path(__file__).resolve().parents[1] / "scripts" / "train.py")
CONTENDERS_SCRIPT = str(Path(__file__).resolve().with_name("sweep_contenders.py"))
BASIC = ("hydra/launcher=basic", "hydra/sweeper=basic")
ON_ONE_THREAD = ("trainer.accelerator=cpu", "trainer.threads=1")
CONTENDERS = {"a": "plain loops, one after another", "b": "Hydra's basic launcher", "c": "vectorized"}
XOR_STEPS, IRIS_EPOCHS, IRIS_SEEDS = 10_001, 100, 20
XOR_HIDDEN_UNITS, XOR_LRS = (4, 6, 8, 10, 11, 12, 14, 16), (0.25, 0.5, 1.0, 2.0)
IRIS_HIDDEN_UNITS, IRIS_LRS = (5, 10, 20, 50, 100), (0.01, 0.03, 0.1, 0.3, 1.0)
LEAST_GAIN = {256: 80.0, 1024: 200.0}  # of (c) over (a), by number of XOR runs
MOST_OUTPUTS = {1024: 3.0}  # seconds of (c)'s outputs
MOST_LOSSES_APART = 1e-5
# Nothing is removed before the end: ext4 looks at every inode that was freed within minutes before it takes another
# one, so that a sweep near the place of a removed one takes ten times as long to make its files.
_OUTPUTS = tempfile.TemporaryDirectory(prefix="sweep-")


@dataclasses.dataclass(frozen=True)
class Run:
    """What distinguishes one run of a sweep."""

    hidden_units: int
    lr: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Grid:
    """The runs of a sweep: every width with every learning rate and every seed.

    Attributes:
        data: ``xor`` or ``iris``.
        steps: optimizer steps of a run; epochs, too, as all rows are in each step.
        measured: widths of the runs that (a) and (b) make.
    """

    data: str
    steps: int
    hidden_units: tuple[int, ...]
    lrs: tuple[float, ...]
    seeds: int
    measured: tuple[int, ...]

    @property
    def title(self) -> str:
        name = {"xor": "XOR, wide_deep", "iris": "Iris, one hidden layer"}[self.data]
        return f"{name}: {len(self.runs):,} runs of {self.steps:,} steps"

    @property
    def has_targets(self) -> bool:
        """Whether the targets are for sweeps like this one."""
        return (self.data, self.steps) == ("xor", XOR_STEPS)

    @property
    def runs(self) -> list[Run]:
        """In the order in which Hydra numbers them."""
        return [Run(*one) for one in itertools.product(self.hidden_units, self.lrs, range(self.seeds))]

    @property
    def few(self) -> Grid:
        """The runs that (b) makes: a run costs the same with any learning rate and seed."""
        return dataclasses.replace(self, hidden_units=self.measured, lrs=self.lrs[2:3], seeds=1)

    @property
    def plain_runs(self) -> list[Run]:
        """The runs that (a) makes: of the same widths, with various learning rates and seeds."""
        others = itertools.cycle(zip(reversed(self.lrs), itertools.cycle(range(self.seeds)), strict=False))
        return [Run(width, lr, seed) for width, (lr, seed) in zip(self.measured, others, strict=False)]

    @property
    def command(self) -> list[str]:
        """The arguments of ``train.py``."""
        length, model = ("max_steps", ("model=wide_deep",)) if self.data == "xor" else ("max_epochs", ())
        return [
            "-m",
            f"data={self.data}",
            *model,
            f"trainer.{length}={self.steps}",
            *ON_ONE_THREAD,
            f"model.hidden_units={','.join(map(str, self.hidden_units))}",
            f"optimizer.lr={','.join(map(str, self.lrs))}",
            f"seed=range(0,{self.seeds})",
        ]


@dataclasses.dataclass(frozen=True)
class Measured:
    """One process.

    Attributes:
        seconds: from its start to its exit.
        runs: how many it made.
        seconds_per_run: what one more run would have taken.
        losses: training loss of some runs, at the last step for which (a) has one.
    """

    seconds: float
    runs: int
    seconds_per_run: float
    losses: dict[Run, float]

    def seconds_of(self, runs: int) -> float:
        """Seconds of a process that makes ``runs`` runs."""
        return self.seconds + (runs - self.runs) * self.seconds_per_run


@dataclasses.dataclass(frozen=True)
class Round:
    """Every contender measured once, by its letter, and the seconds of the parts of (c), in one more process."""

    measured: dict[str, Measured]
    parts: dict[str, float]


def main() -> None:
    arguments = _arguments()
    facts = surroundings()
    grids = _grids(arguments)
    rounds: dict[Grid, list[Round]] = {grid: [] for grid in grids}
    for number in range(arguments.repeats):
        for grid, measured in _measure_round(grids, arguments.full_basic):
            rounds[grid].append(measured)
            times = ", ".join(f"({letter}) {_us_per_step(grid, one):,.2f}" for letter, one in measured.measured.items())
            print(f"{number + 1}/{arguments.repeats} {grid.title}: µs per step and member {times}", file=sys.stderr)
    publish([*_report(rounds), *facts], arguments.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[256, 1024], help="numbers of XOR runs, multiples of 32")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each contender")
    parser.add_argument("--no-iris", action="store_true", help="XOR only")
    parser.add_argument("--full-basic", action="store_true", help="(b) makes all runs: more than an hour per round")
    parser.add_argument("--quick", action="store_true", help="one round of few, short runs: whether everything works")
    parser.add_argument("--output", type=Path, help="also write the result to this Markdown file")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    each = len(XOR_HIDDEN_UNITS) * len(XOR_LRS)
    if any(runs < each or runs % each for runs in arguments.runs):
        parser.error(f"--runs must be multiples of {each}: 8 widths, 4 learning rates, the rest are seeds")
    if arguments.quick:
        arguments.runs, arguments.repeats = [each, 2 * each], 1
    return arguments


def _grids(arguments: argparse.Namespace) -> list[Grid]:
    steps, epochs, iris_seeds = (201, 20, 1) if arguments.quick else (XOR_STEPS, IRIS_EPOCHS, IRIS_SEEDS)
    each = len(XOR_HIDDEN_UNITS) * len(XOR_LRS)
    grids = [
        Grid("xor", steps, XOR_HIDDEN_UNITS, XOR_LRS, runs // each, measured=(4, 8, 12, 16))
        for runs in sorted(set(arguments.runs))
    ]
    if not arguments.no_iris:
        grids.append(Grid("iris", epochs, IRIS_HIDDEN_UNITS, IRIS_LRS, iris_seeds, measured=(5, 20, 50, 100)))
    return grids


# ---- measuring -----------------------------------------------------------------------------------------------


def _measure_round(grids: Sequence[Grid], full_basic: bool) -> Iterator[tuple[Grid, Round]]:
    """Every contender once. What (a) and (b) make does not depend on the number of runs, and serves all grids."""
    for _, of_data in itertools.groupby(grids, key=lambda grid: grid.data):
        first, *others = of_data
        plain = _measure_plain(first)
        few = None if full_basic else _measure_command(first.few, BASIC)
        for grid in (first, *others):
            basic = few or _measure_command(grid, BASIC)
            stacked = _measure_command(grid, (), list(plain.losses))
            yield grid, Round({"a": plain, "b": basic, "c": stacked}, _measure_parts(grid))


def _measure_plain(grid: Grid) -> Measured:
    runs = grid.plain_runs
    given = {"data": grid.data, "steps": grid.steps, "runs": [dataclasses.astuple(one) for one in runs]}
    folder = tempfile.mkdtemp(dir=_OUTPUTS.name)
    if grid.data == "iris":
        save_iris_rows(Path(folder) / IRIS_ROWS, {one.seed for one in runs})
    seconds, printed = _timed([CONTENDERS_SCRIPT, "plain", json.dumps(given)], folder)
    loops: list[dict[str, Any]] = json.loads(printed.splitlines()[-1])
    losses = {run: one["loss"] for run, one in zip(runs, loops, strict=True)}
    return Measured(seconds, len(runs), statistics.mean(one["seconds"] for one in loops), losses)


def _measure_command(grid: Grid, more: Sequence[str], runs_with_loss: Sequence[Run] = ()) -> Measured:
    """``train.py`` with all runs of a grid, which must all have finished."""
    folder = tempfile.mkdtemp(dir=_OUTPUTS.name)
    seconds, _ = _timed([TRAIN, *grid.command, *more], folder)
    started = [datetime.datetime.fromisoformat(one["started_at"]) for one in _finished_results(grid, folder)]
    numbers = {run: number for number, run in enumerate(grid.runs)}
    losses = {run: _loss_of(Path(folder), numbers[run], grid) for run in runs_with_loss}
    per_run = (max(started) - min(started)).total_seconds() / (len(started) - 1)
    return Measured(seconds, len(started), per_run, losses)


def _finished_results(grid: Grid, folder: str) -> list[dict[str, Any]]:
    """The results of all runs; ends this process if one is missing, has not finished or is of another length."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("result.json")]
    finished = [one for one in results if one["status"] == "finished" and one["steps"] == grid.steps]
    if len(finished) != len(grid.runs):
        sys.exit(f"{grid.title}: only {len(finished)} of them finished")
    return finished


def _loss_of(folder: Path, number: int, grid: Grid) -> float:
    (path,) = folder.glob(f"lightning_logs/*/*/{number}/metrics.csv")
    with path.open(newline="", encoding="utf-8") as file:
        by_step = {int(row["step"]): row["loss/train"] for row in csv.DictReader(file) if row["loss/train"]}
    return float(by_step[_step_of_loss(grid)])


def _step_of_loss(grid: Grid) -> int:
    """The last step whose loss both (a) and (c) have."""
    last = grid.steps - 1
    return last - last % STEPS_BETWEEN_LOSSES if grid.data == "xor" else last


def _measure_parts(grid: Grid) -> dict[str, float]:
    """Seconds of the parts of (c), which add up to the whole process."""
    folder = tempfile.mkdtemp(dir=_OUTPUTS.name)
    seconds, printed = _timed([CONTENDERS_SCRIPT, "parts", json.dumps([TRAIN, *grid.command])], folder)
    _finished_results(grid, folder)
    parts: dict[str, float] = json.loads(printed.splitlines()[-1])
    return {"start-up": seconds - sum(parts.values()), **parts}


def _timed(arguments: Sequence[str], folder: str) -> tuple[float, str]:
    """Seconds of a Python process, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **CONTENDER_ENVIRONMENT},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{done.stderr}\npython {' '.join(arguments)} ended with exit code {done.returncode}")
    return seconds, done.stdout


# ---- reporting -----------------------------------------------------------------------------------------------


def _us_per_step(grid: Grid, measured: Measured) -> float:
    """Microseconds per step and member."""
    return measured.seconds_of(len(grid.runs)) / (grid.steps * len(grid.runs)) * 1e6


def _report(rounds: dict[Grid, list[Round]]) -> list[str]:
    return [
        "# Sweeps of small networks",
        "",
        "Whole processes with one CPU thread each, every output written. Where fewer runs were made than the sweep"
        " has, the others are charged the mean of those; the start of the process counts once. Medians, with the"
        " least and the most in brackets.",
        "",
        *(line for grid, its_rounds in rounds.items() for line in _section(grid, its_rounds)),
        *_parts_section(rounds),
    ]


def _section(grid: Grid, rounds: Sequence[Round]) -> list[str]:
    lines = [
        f"## {grid.title}",
        "",
        "| contender | runs made | whole sweep, seconds | µs per step and member | ratio to (c) |",
        "|---|--:|--:|--:|--:|",
    ]
    for letter, title in CONTENDERS.items():
        own = [one.measured[letter] for one in rounds]
        cells = [
            f"({letter}) {title}",
            f"{own[0].runs:,}",
            median_and_range([one.seconds_of(len(grid.runs)) for one in own]),
            f"{statistics.median(_us_per_step(grid, one) for one in own):,.2f}",
            f"{statistics.median(_ratios(grid, rounds, letter)):.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", *_verdicts(grid, rounds), ""]


def _verdicts(grid: Grid, rounds: Sequence[Round]) -> list[str]:
    plain, basic = (_ratios(grid, rounds, letter) for letter in "ab")
    ratio = statistics.median(plain)
    target = LEAST_GAIN.get(len(grid.runs)) if grid.has_targets else None
    shown_ratio = f"{ratio:.3f}" if target is None else verdict(ratio, target, at_most=False)
    losses = [(one.measured["c"].losses[run], loss) for one in rounds for run, loss in one.measured["a"].losses.items()]
    apart = max(abs(one - other) for one, other in losses)
    shown = ", ".join(f"{loss:.6f}" for loss in rounds[0].measured["c"].losses.values())
    met = "met" if apart <= MOST_LOSSES_APART else "missed"
    return [
        f"- (a)/(c) = {shown_ratio}; {by_round(plain)}",
        f"- (b)/(c) = {statistics.median(basic):.3f}; {by_round(basic)}",
        f"- all {len(grid.runs):,} runs of (c) finished; losses at step {_step_of_loss(grid)} of those that (a) made"
        f" as well ({shown}): apart by at most {apart:.1e}  target <= {MOST_LOSSES_APART:g}: {met}",
    ]


def _ratios(grid: Grid, rounds: Sequence[Round], letter: str) -> list[float]:
    """How many times as long as (c) a contender takes, in each round."""
    runs = len(grid.runs)
    return [one.measured[letter].seconds_of(runs) / one.measured["c"].seconds_of(runs) for one in rounds]


def _parts_section(rounds: dict[Grid, list[Round]]) -> list[str]:
    names = list(next(iter(rounds.values()))[0].parts)
    rows, verdicts = [], []
    for grid, its_rounds in rounds.items():
        seconds = {name: statistics.median(one.parts[name] for one in its_rounds) for name in names}
        whole = statistics.median(sum(one.parts.values()) for one in its_rounds)
        training_us = seconds["training"] / (grid.steps * len(grid.runs)) * 1e6
        cells = [grid.title, *(f"{seconds[name]:.2f}" for name in names), f"{whole:.2f}", f"{training_us:.2f}"]
        rows.append("| " + " | ".join(cells) + " |")
        target = MOST_OUTPUTS.get(len(grid.runs)) if grid.has_targets else None
        outputs = seconds["outputs"]
        shown = f"{outputs:.2f}" if target is None else verdict(outputs, target)
        own = [one.parts["outputs"] for one in its_rounds]
        verdicts.append(f"- {grid.title}: outputs, seconds = {shown}; {by_round(own)}")
    return [
        "## Where the time of (c) goes",
        "",
        "Seconds, medians of one more process per round. Start-up: imports, Hydra's own start, the exit. Composing: the"
        " configurations, their checks, the grouping. Outputs: everything in the run folders, the last evaluation that"
        " they need, and the leaderboard. Training: the rest, the data and the Trainer's set-up included.",
        "",
        f"| sweep | {' | '.join(names)} | whole | training, µs per step and member |",
        "|---" + "|--:" * (len(names) + 2) + "|",
        *rows,
        "",
        *verdicts,
        "",
    ]


if __name__ == "__main__":
    main()
