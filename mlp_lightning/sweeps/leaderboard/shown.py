"""What the picture of a leaderboard shows: values, losses and texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mlp_lightning.errors import counted
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, Line
from mlp_lightning.sweeps.leaderboard.scales import is_number
from mlp_lightning.sweeps.leaderboard.table import metric_title


def failed_values(leaderboard: Leaderboard) -> Iterator[dict[str, Any]]:
    """The combinations of which no run has finished, nor left a search because others did better."""
    keys = leaderboard.line_keys
    known = {tuple(value_text(line.values[key]) for key in keys) for line in leaderboard.lines}
    for run in (one for one in leaderboard.others if one.record.status != "pruned"):
        values = {key: run.values[key] for key in keys}
        combination = tuple(map(value_text, values.values()))
        if combination not in known:
            known.add(combination)
            yield values


def ordered_values(leaderboard: Leaderboard, key: str) -> list[Any]:
    """The values of a key, those of failed runs too: numbers by size, then all others in the order of the sweep."""
    by_run = sorted((*leaderboard.finished, *leaderboard.others), key=lambda run: run.record.sort_key)
    values = {value_text(run.values[key]): run.values[key] for run in by_run}
    return sorted(values.values(), key=lambda value: (not is_number(value), value if is_number(value) else 0))


def mean_of(leaderboard: Leaderboard, line: Line) -> float:
    return line.metrics[leaderboard.ranked_by].mean


def is_wide(leaderboard: Leaderboard) -> bool:
    """Whether there are several panels side by side."""
    keys = len(leaderboard.line_keys)
    return keys > 2 or (keys == 2 and len(shown_losses(leaderboard)) > 1)


def shown_losses(leaderboard: Leaderboard) -> list[str]:
    """The training loss, and the one that decides the ranks."""
    names = dict.fromkeys(["loss/train", leaderboard.ranked_by])
    return [name for name in names if all(name in line.metrics for line in leaderboard.lines)]


def split_of(leaderboard: Leaderboard, name: str) -> str:
    return metric_title(name, leaderboard.held_out).split()[0]


def title_of(leaderboard: Leaderboard) -> str:
    runs, keys = len(leaderboard.finished), leaderboard.line_keys
    sweeps = leaderboard.sweeps if len(leaderboard.sweeps) < 50 else f"{leaderboard.sweeps[:49]}…"
    text = f"{leaderboard.data}, {'sweeps' if ',' in sweeps else 'sweep'} {sweeps}: {runs:,} run{'s' * (runs != 1)}"
    if leaderboard.has_spread:
        text += f", means{' and ranges' * (len(keys) == 1)} over {leaderboard.repeated_over}"
    text += ", the best framed" if len(keys) == 2 else ", the best ringed" * (len(keys) > 2)
    if share := leaderboard.solved(leaderboard.lines):
        text += f"; {share[0]} of {share[1]} solved"
    metrics = [run.metrics.get(leaderboard.ranked_by, math.nan) for run in leaderboard.finished]
    diverged = sum(not math.isfinite(one) for one in metrics)
    text += f"; {diverged:,} without a finite loss" if diverged else ""
    pruned = sum(run.record.status == "pruned" for run in leaderboard.others)
    text += f"; {pruned:,} pruned" if pruned else ""
    left = len(leaderboard.others) - pruned
    return text + (f"; {left:,} not finished" if left else "")


def reason_for_no_plot(leaderboard: Leaderboard) -> str:
    """Why there is nothing to plot; empty if there is something."""
    total = len(leaderboard.finished) + len(leaderboard.others)
    metric = metric_title(leaderboard.ranked_by, leaderboard.held_out)
    if not leaderboard.finished:
        return f"None of {counted(total, 'run')} finished."
    if not any(math.isfinite(run.metrics.get(leaderboard.ranked_by, math.nan)) for run in leaderboard.finished):
        return f"None of {counted(total, 'run')} has a finite {metric}."
    if leaderboard.line_keys and not any(math.isfinite(mean_of(leaderboard, line)) for line in leaderboard.lines):
        return f"No combination has a finite {metric} for all of its seeds."
    return ""
