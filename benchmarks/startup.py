"""How long a command takes before it trains, and how soon it answers when it does not train.

    python benchmarks/startup.py [--repeats 5] [--output FILE.md]

It measures the wall time of whole processes:

- a training of one step, against a process that only imports lightning and tensorboard;
- a command with faults (exit code 2), ``--help`` and ``--cfg job``, which must not wait for torch.

Every command runs once to warm up the file cache; then all run in turn, so that a drift of the machine hits all
of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xor import by_round, median_and_range, publish, surroundings, verdict

TRAIN = (str(Path(__file__).resolve().parents[1] / "scripts" / "train.py"), "model=wide_deep", "data=xor")
MOST_OF_IMPORTS = 1.3
MOST_SECONDS_OF_AN_ANSWER = 1.5


@dataclasses.dataclass(frozen=True)
class Command:
    """A Python command: how it is shown, its arguments, its expected exit code."""

    shown: str
    arguments: tuple[str, ...]
    exit_code: int = 0


ONE_STEP = Command("train.py … trainer.max_steps=1", (*TRAIN, "trainer.max_steps=1"))
IMPORTS = Command('-c "import lightning, tensorboard"', ("-c", "import lightning, tensorboard"))
ANSWERS = (
    Command("train.py … optimizer.lr=-1 model.dept=3", (*TRAIN, "optimizer.lr=-1", "model.dept=3"), 2),
    Command("train.py … --help", (*TRAIN, "--help")),
    Command("train.py … --cfg job", (*TRAIN, "--cfg", "job")),
)
COMMANDS = (ONE_STEP, IMPORTS, *ANSWERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command, after one that warms up")
    parser.add_argument("--output", type=Path, help="also write the result to this Markdown file")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    facts = surroundings()
    publish([*_report(measure(arguments.repeats)), *facts], arguments.output)


def measure(repeats: int) -> dict[Command, list[float]]:
    """Seconds of each command in each round, without the round that warms up."""
    seconds: dict[Command, list[float]] = {command: [] for command in COMMANDS}
    for repeat in range(repeats + 1):
        for command in COMMANDS:
            taken = _seconds_of(command)
            print(f"{repeat}/{repeats} {command.shown}: {taken:.2f} s", file=sys.stderr)
            if repeat:
                seconds[command].append(taken)
    return seconds


def _seconds_of(command: Command) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command.arguments],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        taken = time.perf_counter() - started
    if done.returncode != command.exit_code:
        sys.exit(f"{done.stderr}\n{command.shown} ended with exit code {done.returncode}, not {command.exit_code}")
    return taken


def _report(seconds: dict[Command, list[float]]) -> list[str]:
    train, imports = seconds[ONE_STEP], seconds[IMPORTS]
    ratio = statistics.median(train) / statistics.median(imports)
    each = [one / other for one, other in zip(train, imports, strict=True)]
    return [
        "# Start-up",
        "",
        "Wall time of whole processes; `train.py …` is `scripts/train.py model=wide_deep data=xor`."
        " Medians, with the least and the most in brackets.",
        "",
        "| python … | seconds |",
        "|---|--:|",
        *(f"| `{command.shown}` | {median_and_range(taken)} |" for command, taken in seconds.items()),
        "",
        f"- one step / imports alone = {verdict(ratio, MOST_OF_IMPORTS)}; {by_round(each)}",
        *(
            f"- `{answer.shown}`, exit code {answer.exit_code}, seconds:"
            f" {verdict(statistics.median(seconds[answer]), MOST_SECONDS_OF_AN_ANSWER)}"
            for answer in ANSWERS
        ),
        "",
    ]


if __name__ == "__main__":
    main()
