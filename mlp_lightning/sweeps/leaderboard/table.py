"""The leaderboard as text: a table in a terminal, aligned lines elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlp_lightning.runs.console import SPLIT_NAMES, WARNING, short_path
from mlp_lightning.sweeps.leaderboard.csv_file import CSV_NAME
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, Line, Run, Spread
from mlp_lightning.sweeps.leaderboard.repeat import repeat_command

# Maximum number of lines, and of unfinished runs, to print; the file has all of them.
MAX_LINES = 20
# Test metrics must not guide the choice of a run, so only the file has them; those of folds are made for it.
_SPLITS_SHOWN = ("train", "val")
# Below so many standard errors the next may be as good.
_CLEAR_GAP = 2.0


def print_leaderboard(leaderboard: Leaderboard, console: Console, program: str) -> None:
    """Show the lines best first, then the runs that did not finish, then how to repeat the best.

    Args:
        leaderboard: to print.
        console: the output; without a terminal it gets plain lines, without Unicode only ASCII.
        program: the training program, e.g. ``python scripts/train.py``.
    """
    if leaderboard.lines:
        _print_lines(leaderboard, console)
    if leaderboard.has_changed:
        _print(
            console,
            "\nOther runs were trained on other rows of the same table, which has changed (see fingerprint in their"
            " result.json): they cannot be compared, and have a separate leaderboard.",
        )
    for line in _about_others(leaderboard):
        _print(console, line)
    for line in _about_best(leaderboard, program):
        _print(console, line)


def metric_title(metric: str, held_out: bool = False) -> str:
    """The title of a metric, e.g. ``validation loss`` for ``loss/val``; of folds the test rows are those held out."""
    name, _, split = metric.partition("/")
    return f"{'held-out' if held_out and split == 'test' else SPLIT_NAMES.get(split, split)} {name}"


def shown_value(value: object) -> str:
    """The text of a swept value; ``(default)`` for a run that chose no option of a swept group."""
    return value_text(value) or "(default)"


def _print_lines(leaderboard: Leaderboard, console: Console) -> None:
    columns = _columns(leaderboard)
    table = _cells(leaderboard, columns, console)
    if console.is_terminal and _width(table) > console.width:
        # Keep the losses, which include the ranking metric; the file has the rest.
        columns = [metric for metric in columns if metric.startswith("loss/")]
        table = _cells(leaderboard, columns, console)
    spread = f", mean ± sd over {leaderboard.repeated_over}" if leaderboard.has_spread else ""
    ranked_by = metric_title(leaderboard.ranked_by, leaderboard.held_out)
    title = f"Leaderboard of {leaderboard.data}: best {ranked_by} first{spread}"
    _print(console, f"\n{title}")
    if console.is_terminal:
        _print_table(table, len(columns), console)
    else:
        widths = _widths(table)
        for row in table:
            cells = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            _print(console, f"  {'  '.join(cells)}")
    hidden = len(leaderboard.lines) - MAX_LINES
    if hidden > 0:
        _print(console, f"  … {hidden} more in {CSV_NAME}")


def _print_table(table: list[list[str]], metrics: int, console: Console) -> None:
    """Print ``table``, whose last ``metrics`` columns are metrics."""
    head, *rows = table
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for index, name in enumerate(head):
        # A long list of widths may wrap; a metric may not.
        shown.add_column(Text(_in_lines(name)), justify="right", overflow="fold", no_wrap=index >= len(head) - metrics)
    for index, row in enumerate(rows):
        shown.add_row(*map(Text, row), style="bold" if index == 0 else None)
    console.print(shown, soft_wrap=False)


def _widths(table: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _width(table: list[list[str]]) -> int:
    """The width in a terminal, where a header has several lines and three blanks separate two columns."""
    head, *rows = table
    parts = [_in_lines(name).splitlines() or [""] for name in head]
    return sum(max(map(len, [*part, *column])) + 3 for part, column in zip(parts, zip(*rows, strict=True), strict=True))


def _in_lines(name: str) -> str:
    """A header of minimum width: ``model.`` above ``hidden_units``, ``training`` above ``loss``."""
    return name.replace(".", ".\n").replace(" ", "\n")


def _columns(leaderboard: Leaderboard) -> list[str]:
    """The metrics to print; a metric of all splits side by side, so that overfitting is visible."""
    names = dict.fromkeys(metric.partition("/")[0] for metric in leaderboard.metrics)
    splits = (*_SPLITS_SHOWN, "test") if leaderboard.held_out else _SPLITS_SHOWN
    wanted = [f"{name}/{split}" for name in names for split in splits]
    return [metric for metric in wanted if metric in leaderboard.metrics]


def _cells(leaderboard: Leaderboard, columns: Sequence[str], console: Console) -> list[list[str]]:
    """The header and the lines to print, as text that the console can write."""
    solved = [leaderboard.solved([line]) for line in leaderboard.lines[:MAX_LINES]]
    title = ["runs" if leaderboard.has_spread else "run", *(["solved"] if any(solved) else [])]
    titles = [metric_title(name, leaderboard.held_out) for name in columns]
    rows = [["", *leaderboard.line_keys, *title, *titles]]
    for rank, (line, share) in enumerate(zip(leaderboard.lines, solved, strict=False), start=1):
        values = [short_value(line.values[key]) for key in leaderboard.line_keys]
        run = [_runs(line) if leaderboard.has_spread else line.runs[0].label]
        run += [] if share is None else [f"{share[0]} of {share[1]}"]
        metrics = [_spread_text(line.metrics[name]) if name in line.metrics else "" for name in columns]
        rows.append([str(rank), *values, *run, *metrics])
    if known := leaderboard.baseline:
        # Of equal runs, but for rounding, a single number says it.
        differ = {name for name, one in known.items() if one.sd is not None and not one.sd <= 1e-12 * abs(one.mean)}
        base = {name: one if name in differ else dataclasses.replace(one, sd=None) for name, one in known.items()}
        metrics = [_spread_text(base[name]) if name in base else "" for name in columns]
        rows.append(["baseline", *[""] * (len(rows[0]) - 1 - len(columns)), *metrics])
    return [[_plain(cell, console) for cell in row] for row in rows]


def _runs(line: Line) -> str:
    count = len(line.runs)
    return f"{count} of {count + line.unfinished}" if line.unfinished else str(count)


def short_value(value: object) -> str:
    """As :func:`shown_value`, with fewer digits; the command below has them all."""
    return f"{value:.6g}" if isinstance(value, float) else shown_value(value)


def _spread_text(spread: Spread) -> str:
    if spread.sd is None:
        return f"{spread.mean:.6g}"
    return f"{spread.mean:.4g} ± {spread.sd:.2g}"


def _about_others(leaderboard: Leaderboard) -> list[str]:
    others = [run for run in leaderboard.others if run.record.status != "pruned"]
    lines = ["", "Not finished", *map(_other, others[:MAX_LINES])] if others else []
    if (hidden := len(others) - MAX_LINES) > 0:
        lines.append(f"  … {hidden} more in {CSV_NAME}")
    if pruned := len(leaderboard.others) - len(others):
        which = "1 trial was" if pruned == 1 else f"{pruned:,} trials were"
        lines += ["", f"{which} pruned: {CSV_NAME} says when and why. They trained for less, and have no rank."]
    return lines


def _other(run: Run) -> str:
    values = values_text(run.values)
    cause = f": {run.cause}" if run.cause else ""
    return f"  run {run.label}{f' ({values})' if values else ''} {run.record.status}{cause}"


def values_text(values: Mapping[str, object]) -> str:
    """Keys with their values, as in a command."""
    return " ".join(f"{key}={shown_value(value)}" for key, value in values.items())


def _about_best(leaderboard: Leaderboard, program: str) -> list[str]:
    best = leaderboard.best
    if best is None:
        return ["", f"No run finished with a finite {metric_title(leaderboard.ranked_by, leaderboard.held_out)}."]
    lines = ["", *said] if (said := [one for one in (_gap(leaderboard), _against_baseline(leaderboard)) if one]) else []
    record = best.records[0]
    if len(best.runs) > 1:
        which = f"the best combination ({values_text(best.values)})" if best.values else f"these {len(best.runs)} runs"
    else:
        which = f"the best run (run {next(iter(best.runs)).label})"
    if not record.overrides:
        # Started from Python: there is no command to repeat.
        return [*lines, "", f"Configuration of {which}: {short_path(record.folder / 'config.yaml')}"]
    return [*lines, "", f"Repeat {which}:", f"  {repeat_command(best, program)}"]


def _gap(leaderboard: Leaderboard) -> str:
    """How far the best is from the next."""
    gap = leaderboard.gap
    if gap is None:
        return ""
    over = f"over {gap.count} {'folds' if leaderboard.held_out else leaderboard.repeated_over}"
    if gap.standard_error <= 1e-9 * abs(gap.difference):
        return f"The best is better than the next by {gap.difference:.2g} in each, {over}."
    errors = gap.difference / gap.standard_error
    said = f"The best is {errors:.1f} standard errors better than the next"
    chance = "" if errors >= _CLEAR_GAP else ": chance may have decided between them"
    return f"{said} ({gap.difference:.2g} ± {gap.standard_error:.1g} {over}){chance}."


def _against_baseline(leaderboard: Leaderboard) -> str:
    """A warning of combinations that are no better than a prediction that does not look at the features."""
    count, total = len(leaderboard.not_above_chance), len(leaderboard.lines)
    if not count:
        return ""
    which = (
        f"{count} of {total} combinations are" if total > 1 else "The runs are" if leaderboard.has_spread else "It is"
    )
    metric = metric_title(leaderboard.ranked_by, leaderboard.held_out)
    return f"{WARNING}{which} not better than the baseline, which does not look at the features, in {metric}."


def _print(console: Console, line: str) -> None:
    # No markup, since lists have brackets, and no line breaks inside a command.
    console.print(_plain(line, console), markup=False, highlight=False, soft_wrap=True)


def _plain(text: str, console: Console) -> str:
    """``text`` as the console can write it."""
    return text.replace("±", "+/-").replace("…", "...") if console.options.ascii_only else text
