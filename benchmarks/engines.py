"""Which engine is fastest for which sizes, and which one ``trainer.engine=auto`` takes.

    python benchmarks/engines.py [--dropout 0.1] [--seconds 1] [--repeats 3] [--output FILE.md]

Members are networks with two hidden layers (ReLU, or with dropout SiLU, as tables have by default; Adam) on 2,048 rows
of Friedman's regression with ten features, each with another learning rate, on one CPU thread. The time is that of the
steps of a whole training with its run folders, from the first step to the last (``fit_time_s``), after a short training
of the same kind: the kernel of ``compiled`` is there. ``explicit`` trains one member, and the others are charged the
same. The engines run in turn.

``auto`` chooses by sizes alone. The table says what it takes for a training of 20,000 steps, and the last lines where
that is more than 1.5 times slower than the fastest.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from xor import publish, surroundings

MEMBERS, WIDTHS, BATCHES = (1, 5, 16, 128), (4, 16, 64, 128), (8, 256)
ENGINES = ("explicit", "stacked", "compiled")
FEATURES, ROWS, STEPS = 10, 2048, 20_000
MOST_OF_FASTEST = 1.5


class Case(NamedTuple):
    """A training.

    Attributes:
        members: how many train together.
        width: of both hidden layers.
        batch: rows of a step.
        dropout: its probability.
    """

    members: int
    width: int
    batch: int
    dropout: float


def configuration(case: Case, engine: str, steps: int) -> dict[str, Any]:
    return {
        "data": {"name": "friedman", "samples": ROWS, "batch_size": case.batch, "val_fraction": 0, "test_fraction": 0},
        "model": {
            "hidden_units": [case.width] * 2,
            "activation": "silu" if case.dropout else "relu",
            "dropout": case.dropout,
        },
        "optimizer": {"name": "Adam", "lr": 0.001},
        "scheduler": {"name": "none"},
        "trainer": {"max_steps": steps, "threads": 1, "engine": engine, "accelerator": "cpu"},
        "logger": {"graph": False},
        "verbosity": 0,
    }


def seconds_per_step(case: Case, engine: str, steps: int) -> float:
    from mlp_lightning.config import parse_config
    from mlp_lightning.runs import train, train_stack

    common = configuration(case, engine, steps)
    count = 1 if engine == "explicit" else case.members
    configs = [parse_config({**common, "optimizer": {"name": "Adam", "lr": 0.001 / (1 + one)}}) for one in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(one) for one in range(count)]
        results = [train(configs[0], folders[0])] if count == 1 else train_stack(configs, folders)
    gc.collect()  # a stack is large, and in cycles
    return sum(one.fit_time_s for one in results) / steps * case.members / count


def steps_of(case: Case, engine: str, seconds: float) -> int:
    """So many that they take about this long, by what 100 steps take."""
    seconds_per_step(case, engine, 2)
    return max(5, min(STEPS, int(seconds / seconds_per_step(case, engine, 100))))


def chosen(case: Case) -> str:
    from mlp_lightning.config import parse_config
    from mlp_lightning.engines.choice import Work, choose_engine

    work = Work([FEATURES, case.width, case.width, 1], case.batch, STEPS)
    return choose_engine(parse_config(configuration(case, "auto", STEPS)), case.members, work).name


def report(timings: dict[Case, dict[str, list[float]]]) -> list[str]:
    lines = [
        "# Which engine for which sizes",
        "",
        f"Dropout {next(iter(timings)).dropout:g}. "
        "Microseconds per step of all members, medians; one CPU thread. The fastest is in bold, with how much slower"
        " the choice of `auto` is.",
        "",
        f"| members | widths | rows of a step | {' | '.join(f'`{one}`' for one in ENGINES)} | `auto` |",
        f"|--:|--:|--:|{'--:|' * len(ENGINES)}---|",
    ]
    slow = []
    for case, of_engine in timings.items():
        medians = {name: statistics.median(values) * 1e6 for name, values in of_engine.items()}
        fastest, taken = min(medians, key=medians.__getitem__), chosen(case)
        cells = [f"**{one:,.1f}**" if name == fastest else f"{one:,.1f}" for name, one in medians.items()]
        slower = medians[taken] / medians[fastest]
        lines.append(
            f"| {case.members} | {case.width} | {case.batch} | {' | '.join(cells)} | {taken}, {slower:.2f} times |"
        )
        if slower > MOST_OF_FASTEST:
            slow.append(f"- {case}: {taken} takes {slower:.2f} times as long as {fastest}")
    return [*lines, "", *(slow or [f"- `auto` is nowhere more than {MOST_OF_FASTEST} times slower than the fastest"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dropout", type=float, default=0.0, help="its probability, with SiLU (default 0, with ReLU)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each training takes (default 1)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    foot = surroundings()
    timings: dict[Case, dict[str, list[float]]] = {}
    for case in itertools.starmap(Case, itertools.product(MEMBERS, WIDTHS, BATCHES, [arguments.dropout])):
        steps = {engine: steps_of(case, engine, arguments.seconds) for engine in ENGINES}
        timings[case] = {engine: [] for engine in ENGINES}
        for _ in range(arguments.repeats):
            for engine in ENGINES:
                timings[case][engine].append(seconds_per_step(case, engine, steps[engine]))
        print(case, {name: round(min(of) * 1e6, 1) for name, of in timings[case].items()}, flush=True)
    publish([*report(timings), "", *foot], arguments.output)


if __name__ == "__main__":
    main()
