"""Tasks: what a network learns. One file each; a new one is a subclass of :class:`Task` and an entry here."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from mlp_lightning.errors import DataError
from mlp_lightning.networks.tasks.base import Evaluation, Task
from mlp_lightning.networks.tasks.binary import BinaryTask
from mlp_lightning.networks.tasks.multiclass import MulticlassTask
from mlp_lightning.networks.tasks.multilabel import MultilabelTask
from mlp_lightning.networks.tasks.regression import RegressionTask
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target

__all__ = ["TASKS", "Evaluation", "Task", "infer_target", "make_task", "task_class"]

#: In the order in which they are asked whether a target poses them.
TASKS: dict[str, type[Task]] = {
    "binary": BinaryTask,
    "multiclass": MulticlassTask,
    "multilabel": MultilabelTask,
    "regression": RegressionTask,
}


def task_class(name: str) -> type[Task]:
    """The class of the task called ``name``."""
    if name not in TASKS:
        raise ValueError(f"task = {name!r} must be one of {', '.join(TASKS)}")
    return TASKS[name]


def make_task(
    name: str, out_features: int, target_mean: Sequence[float] = (), target_scale: Sequence[float] = ()
) -> Task:
    """The task called ``name`` for a model with ``out_features`` logits.

    Args:
        name: one of :data:`TASKS`.
        out_features: C.
        target_mean: of targets that are standardised.
        target_scale: likewise.
    """
    return task_class(name).make(out_features, target_mean, target_scale)


def infer_target(table: pa.Table, names: Sequence[str], task: str, origin: Origin) -> Target:
    """What the target columns are.

    Args:
        table: rows, all of which have a target.
        names: target columns.
        task: one of :data:`TASKS`; ``auto``: the first that the columns pose; ``classes``: the one of so many classes.
        origin: of the table, for messages.

    Raises:
        DataError: there is only one class, or the columns do not fit the task.
    """
    if task == "classes":
        of_one = "binary" if len(table.column(names[0]).unique()) <= 2 else "multiclass"
        task = of_one if len(names) == 1 else "multilabel"
    if task == "auto":
        columns = [table.column(name) for name in names]
        task = next(name for name, one in TASKS.items() if one.poses(columns))
        texts = [name for name, one in zip(names, columns, strict=True) if pa.types.is_string(one.type)]
        if texts and len(names) > 1 and not TASKS[task].has_classes:
            count = max((len(table.column(name).unique()), name) for name in texts)
            raise DataError(
                f"{origin.name}: the targets {', '.join(names)} pose no task together. Several targets are all numbers"
                f" (regression) or all have two classes (multilabel), and {count[1]!r} has {count[0]} different texts."
                " Train a model for it alone, or correct its values."
            )
    return task_class(task).target(table, names, origin)
