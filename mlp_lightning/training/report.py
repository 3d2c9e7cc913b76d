"""The end of a run, for a person to read."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.table import Table

from mlp_lightning.training.console import RunConsole
from mlp_lightning.training.result import TrainingResult

_SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def report(result: TrainingResult, console: RunConsole, details: str) -> None:
    """Show the figures of every split, the run's facts, the run folder and how to look at it.

    Args:
        result: of the run.
        console: where to show it.
        details: what the data set has to say about the predictions, possibly empty.
    """
    if result.metrics:
        _figures(result, console)
    console.line(
        f"{result.steps} steps ({result.epochs} epochs) in {result.wall_time_s:.1f} s on {result.device}"
        + (f"; stopped early: {result.stopped_by}" if result.stopped_by else "")
    )
    if details:
        console.line(details)
    folder = _shortest(result.run_dir)
    console.line(f"Run folder:  {folder}")
    if any(result.run_dir.glob("events.out.tfevents.*")):
        console.line(f"TensorBoard: tensorboard --logdir {shlex.quote(str(folder))}")


def _figures(result: TrainingResult, console: RunConsole) -> None:
    names = list(next(iter(result.metrics.values())))
    rows = [
        [_SPLIT_NAMES[split], *(f"{figures[name]:.6g}" for name in names)] for split, figures in result.metrics.items()
    ]
    title = f"Final figures ({result.weights} weights)"
    table = Table("", *names, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    lines = [f"  {name:<10}" + "".join(f"{cell:>14}" for cell in cells) for name, *cells in [["", *names], *rows]]
    console.line("\n".join([title, *lines]), in_terminal=table)


def _shortest(path: Path) -> Path:
    """The path as one would type it: relative where it lies below the working folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
