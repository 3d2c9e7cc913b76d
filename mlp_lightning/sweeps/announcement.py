"""What is said of the runs of a sweep before they train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlp_lightning.runs.console import RunConsole, short_path
from mlp_lightning.sweeps.grouping import Grouping
from mlp_lightning.sweeps.parts import SweepRun, config_of
from mlp_lightning.sweeps.sizes import SizesOf


def announce(
    console: RunConsole,
    folder: Path,
    runs: Sequence[SweepRun],
    new: Sequence[SweepRun],
    grouping: Grouping,
    sizes: SizesOf,
    done_before: int,
) -> None:
    """Print how many runs there are, and why some of the new ones are not in a stack.

    Args:
        console: where to print.
        folder: of the sweep.
        runs: all that train now.
        new: those of them that do not continue.
        grouping: of the new ones.
        sizes: what was read of their tables.
        done_before: runs that an earlier command finished.
    """
    stacked = sum(len(one) for one in grouping.stacks)
    done = f", {done_before} done before" if done_before else ""
    stacks = f"{stacked} in {count_of(len(grouping.stacks), 'stack')}" if stacked else ""
    alone = f"{len(grouping.alone)} one after another" if grouping.alone else ""
    continued = f"{len(runs) - len(new)} continued" if len(new) < len(runs) else ""
    how = " and ".join(one for one in (continued, stacks, alone) if one)
    jobs = len({one.job_folder for one in runs if one.fold is not None})
    folds = f" (folds of {count_of(jobs, 'cross-validation')})" if jobs else ""
    console.line(f"Sweep of {count_of(len(runs), 'run')}{folds}{done}: {how}. Folder: {short_path(folder)}")
    for line in sizes.new_lines((one.name.partition(" (")[0], config_of(one)) for one in new):
        console.line(line)
    if not stacked:
        return
    reasons: dict[str, list[int]] = {}
    for index, reason in grouping.alone:
        reasons.setdefault(reason, []).append(new[index].job.number)
    for reason, numbers in reasons.items():
        which = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
        console.line(f"Not in a stack: {count_of(len(numbers), 'run')} ({which}), because {reason}")


def count_of(number: int, word: str) -> str:
    """A number with its unit."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
