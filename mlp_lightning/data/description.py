"""What is printed of a table before a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlp_lightning.data.preparation import Preparation


def describe(rows: Preparation) -> list[str]:
    """What was read, what is predicted, and what each column is."""
    target, count = rows.target, sum(map(len, rows.splits.values()))
    asked = ", ".join(target.names)
    lines = [f"{count:,} rows; predicts {asked} ({_described_target(rows)})"]
    if rows.dropped:
        rows_are = "row {} is" if rows.dropped == 1 else "rows {} are"
        lines.append(f"{rows.dropped:,} {rows_are.format(f'without a value of {asked}')} left out")
    lines += rows.notes
    by_kind: dict[str, list[str]] = {}
    for column in rows.report.columns:
        details = [str(len(column.vocabulary))] if column.kind == "categorical" else []
        details += [column.format] if column.format else []
        details += ["with gaps"] if column.missing else []
        by_kind.setdefault(column.kind, []).append(column.name + (f" ({', '.join(details)})" if details else ""))
    lines += [f"{kind}: {_shortened(names)}" for kind, names in by_kind.items()]
    lines += [f"ignored: {name}: {reason}" for name, reason in list(rows.report.ignored.items())[:10]]
    if len(rows.report.ignored) > 10:
        lines.append(f"ignored: {len(rows.report.ignored) - 10} more columns")
    lines += [f"{split}: {line}" for split, one in rows.surprises.items() for line in one.lines()]
    return lines


def _described_target(rows: Preparation) -> str:
    target, columns = rows.target, rows.target.columns
    if not columns[0].classes:
        return f"{target.task}, a number" if len(columns) == 1 else f"{target.task}, numbers"
    labels_TB = torch.cat([one.targets for one in rows.splits.values()]).reshape(-1, len(columns)).long().T
    counts = [of.bincount(minlength=len(one.classes)).tolist() for one, of in zip(columns, labels_TB, strict=True)]
    if len(columns) == 1:
        names = [f"{name} {number:,}" for name, number in zip(columns[0].class_names, counts[0], strict=True)]
    else:  # of two classes each
        names = [f"{one.name} {one.class_names[1]} {of[1]:,}" for one, of in zip(columns, counts, strict=True)]
    return f"{target.task}: {_shortened(names)}"


def _shortened(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
