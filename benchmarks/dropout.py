"""Dropout: what its masks cost against torch's generator, and what a step with it costs in each engine.

    python benchmarks/dropout.py [--repeats 3] [--output FILE.md]

First the masks of a step alone, of members with different seeds, against ``torch.Tensor.bernoulli_`` for as many
numbers. Then the loops of the engines, without all that is around them: networks with two hidden layers (SiLU, as
tables have by default; Adam), ten features, eight batches in an epoch. ``explicit`` trains one member.

All on one thread, in turn, and in seconds of the processor that the process used, so that other programs disturb them
less.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from xor import publish, surroundings

from mlp_lightning.config import ConstantSchedule, OptimizerConfig
from mlp_lightning.engines.compiled.loop import CompiledLoop
from mlp_lightning.engines.dropout import DropoutMasks
from mlp_lightning.engines.explicit.loop import ExplicitLoop
from mlp_lightning.engines.explicit.optimizer import FlatOptimizer
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.loop import StackedLoop
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer, StackedSchedule
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks import MLP
from mlp_lightning.networks.tasks import make_task

PROBABILITY, FEATURES, BATCHES = 0.1, 10, 8
#: Members, rows and units.
MASKS = ((1, 32, (64, 64)), (1, 256, (64, 64)), (1, 4096, (64, 64)), (16, 256, (64, 64)), (100, 4, (10, 10, 10)))
MEMBERS, WIDTHS, ROWS = (1, 5, 16), (16, 64, 128), (32, 256)
_OPTIMIZER = OptimizerConfig("Adam", 1e-3, {})


def seconds(run: Callable[[int], object], calls: int) -> float:
    """Of each of ``calls`` calls, with their numbers."""
    began = time.process_time()
    for number in range(calls):
        run(number)
    return (time.process_time() - began) / calls


def of_masks(members: int, rows: int, units: tuple[int, ...], repeats: int) -> str:
    like = torch.empty(members, rows, sum(units))
    masks = DropoutMasks(list(range(members)), [PROBABILITY] * members, units, like)
    calls = max(10, int(2e7 / like.numel()))
    found = []
    for repeat in range(repeats):
        ours = seconds(lambda call, repeat=repeat: masks.of_step(repeat * calls + call, rows), calls)
        found.append((ours, seconds(lambda call: like.bernoulli_(1 - PROBABILITY).div_(1 - PROBABILITY), calls)))
    mine, torchs = (statistics.median(one) * 1e9 / like.numel() for one in zip(*found, strict=True))
    sizes = f"{members} | {rows} | {', '.join(map(str, units))}"
    return f"| {sizes} | {mine:.2f} | {torchs:.2f} | {torchs / mine:.1f} |"


def steps_of(seed: int, rows: int) -> TrainingSteps:
    draw = torch.Generator().manual_seed(seed)
    features_BF = torch.randn(rows * BATCHES, FEATURES, generator=draw)
    targets = torch.randint(0, 2, (rows * BATCHES, 1), generator=draw).float()
    return TrainingSteps(Rows(features_BF, targets), rows, seed=seed)


def loops(members: int, width: int, rows: int, dropout: float) -> dict[str, Callable[[int, int], Any]]:
    """Of each engine, what makes ``count`` steps from ``first`` on."""
    task = make_task("binary", 1)
    mlps = [MLP(FEATURES, 1, [width] * 2, "silu", dropout) for _ in range(members)]
    steps = [steps_of(member, rows) for member in range(members)]
    flat = FlatOptimizer(list(mlps[0].parameters()), _OPTIMIZER)
    alone = ExplicitLoop(mlps[0], task, flat.optimizer, log_interval=1000, flat=flat)

    def stack(loop_class: type[StackedLoop]) -> StackedLoop:
        model = StackedMLP.stack(mlps, "silu", [dropout] * members)
        optimizer = StackedOptimizer(model, torch.zeros_like(model.flat_N.detach()), [_OPTIMIZER] * members)
        schedule = StackedSchedule(ConstantSchedule(), [_OPTIMIZER.lr] * members, None, False)
        optimizer.set_learning_rates(schedule.learning_rates())
        masks = DropoutMasks(range(members), model.dropout, model.widest_dropped, model.flat_N.detach())
        of_each = StackedSteps(steps, range(members))
        return loop_class(model, task, of_each, optimizer, schedule, masks if dropout else None, 1000)

    return {
        "explicit": lambda first, count: alone.run(Execution(steps[0], first, count)),
        "stacked": stack(StackedLoop).run,
        "compiled": stack(CompiledLoop).run,
    }


def of_engines(members: int, width: int, rows: int, repeats: int) -> str:
    """A line of the table."""
    count = max(1, int(1e8 / members / (rows * width**2 + 1e5)) // BATCHES) * BATCHES
    runs = {(name, rate): run for rate in (0.0, PROBABILITY) for name, run in loops(members, width, rows, rate).items()}
    found: dict[tuple[str, float], list[float]] = {key: [] for key in runs}
    for repeat in range(repeats + 1):
        for key, run in runs.items():
            of_call = seconds(lambda _, run=run, repeat=repeat: run(repeat * count, count), 1)
            found[key] += [of_call / count * 1e6] * (repeat > 0)  # the first compiles
    medians = {key: statistics.median(one) for key, one in found.items()}
    cells = []
    for name in ("explicit", "stacked", "compiled"):
        without, with_dropout = medians[name, 0.0], medians[name, PROBABILITY]
        cells.append(f"{without:,.0f} → {with_dropout:,.0f} ({with_dropout / without:.2f})")
    gain = medians["stacked", PROBABILITY] / medians["compiled", PROBABILITY]
    return f"| {members} | {width} | {rows} | {' | '.join(cells)} | {gain:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    foot, repeats = surroundings(), arguments.repeats
    lines = [
        "# Dropout",
        "",
        "Nanoseconds of the processor for each number of a step's masks; one thread, medians.",
        "",
        "| members | rows | units | masks | `bernoulli_` | ratio |",
        "|--:|--:|---|--:|--:|--:|",
        *(of_masks(*sizes, repeats) for sizes in MASKS),
        "",
        f"Microseconds of the processor for a step of all members (of one for `explicit`), without → with dropout"
        f" {PROBABILITY} (ratio); one thread, medians.",
        "",
        "| members | width | rows | `explicit` | `stacked` | `compiled` | `stacked` / `compiled` with dropout |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *(of_engines(*sizes, repeats) for sizes in itertools.product(MEMBERS, WIDTHS, ROWS)),
    ]
    publish([*lines, "", *foot], arguments.output)


if __name__ == "__main__":
    main()
