"""The metrics of an evaluation: a table in a terminal, aligned lines of plain text elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mlp_lightning.runs.console import WARNING

# Most classes or outputs to show; the file has all.
MOST_ROWS = 50
UNDEFINED = "undefined"
_NAMES = {
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",  # not every terminal can write a raised 2
    "f1": "F1",
}

Row = Mapping[str, "str | float | None"]
Limits = Mapping[str, "tuple[float, float] | None"]


def metric_name(key: str) -> str:
    """The name of a metric to show, e.g. ``macro F1`` for ``macro_f1``."""
    return _NAMES.get(key, key.replace("_", " "))


def metric_text(value: str | float | None) -> str:
    """A metric with five digits, a number of rows with all digits, ``undefined`` for ``None``; words unchanged."""
    if value is None:
        return UNDEFINED
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def evaluation_table(
    metrics: Mapping[str, float | None],
    title: str,
    baseline: Mapping[str, float | None] | None = None,
    intervals: Limits | None = None,
    confidence: float = 0.95,
) -> Table:
    """One metric per line.

    Args:
        metrics: as :meth:`Task.evaluation` has them.
        title: the heading.
        baseline: the same metrics of a prediction that does not look at the features, for a further column.
        intervals: of the metrics, for a further column, if there are some.
        confidence: of the intervals.
    """
    return _table(_metric_cells(metrics, baseline, intervals, confidence), title)


def evaluation_lines(
    metrics: Mapping[str, float | None],
    title: str,
    baseline: Mapping[str, float | None] | None = None,
    intervals: Limits | None = None,
    confidence: float = 0.95,
) -> list[str]:
    """The same as plain lines."""
    return _lines(_metric_cells(metrics, baseline, intervals, confidence), title)


def parts_table(rows: Sequence[Row], title: str) -> Table:
    """One class, label or output per line; at most the first 50.

    Args:
        rows: the parts of :meth:`Task.evaluation`: at least one, all with the same keys, the name first.
        title: the heading.
    """
    return _table(_row_cells(rows), title, _about_hidden(rows))


def parts_lines(rows: Sequence[Row], title: str) -> list[str]:
    """The same as plain lines."""
    hidden = _about_hidden(rows)
    return [*_lines(_row_cells(rows), title), *([f"  {hidden}"] if hidden else [])]


def _metric_cells(
    metrics: Mapping[str, float | None],
    baseline: Mapping[str, float | None] | None,
    intervals: Limits | None,
    confidence: float,
) -> list[list[str]]:
    columns = [["metric", *map(metric_name, metrics)], ["value", *map(metric_text, metrics.values())]]
    if intervals is not None and any(intervals.values()):
        limits = [intervals.get(key) for key in metrics]
        texts = ["" if one is None else f"{one[0]:.4g} to {one[1]:.4g}" for one in limits]
        columns.append([f"{100 * confidence:.4g}% interval", *texts])
    if baseline is not None:
        known = [metric_text(baseline[key]) if key in baseline and key != "rows" else "" for key in metrics]
        columns.append(["baseline", *known])
    return [list(row) for row in zip(*columns, strict=True)]


def _row_cells(rows: Sequence[Row]) -> list[list[str]]:
    keys = list(rows[0])
    # A name over several lines would break the table.
    shown = [[" ".join(metric_text(row[key]).split()) for key in keys] for row in rows[:MOST_ROWS]]
    return [[metric_name(key) for key in keys], *shown]


def _about_hidden(rows: Sequence[Row]) -> str:
    return f"... {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else ""


def _table(cells: list[list[str]], title: str, caption: str = "") -> Table:
    head, *rows = cells
    # Text does not read brackets in a name as markup.
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
        title=Text(title),
        title_justify="left",
        caption=Text(caption) if caption else None,
        caption_justify="left",
    )
    for index, name in enumerate(head):
        # Wide cells wrap, the longest first, which are names; nothing is cut off.
        table.add_column(name.replace(" ", "\n"), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _lines(cells: list[list[str]], title: str) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        title,
        *(
            "  " + "  ".join(f"{cell:{'>' if index else '<'}{widths[index]}}" for index, cell in enumerate(row))
            for row in cells
        ),
    ]


def below_baseline(metrics: Mapping[str, float | None], baseline: Mapping[str, float | None] | None) -> list[str]:
    """A line that warns of the metrics in which a model is worse than its baseline; none if it is not."""
    worse = []
    for name, sign in (("accuracy", 1), ("log_loss", -1), ("rmse", -1), ("mae", -1)):
        value, base = metrics.get(name), (baseline or {}).get(name)
        if value is not None and base is not None and sign * value < sign * base:
            worse.append(f"{metric_name(name)} ({metric_text(value)} against {metric_text(base)})")
    if not worse:
        return []
    return [
        f"{WARNING}On these rows the model is worse than one that does not look at the features: {', '.join(worse)}"
    ]
