"""What a table asks to predict: which task its target column poses, and the targets as numbers.

Shapes: ``B`` rows, ``T`` target columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.tables.columns import ARROW_TYPES, Origin, Place, converted

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute

# Whole numbers are classes if there are no more different ones than this, and at least two rows of each on average.
_MOST_INTEGER_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Target:
    """What to predict.

    Attributes:
        names: target columns; several only for a regression.
        task: ``binary``, ``multiclass`` or ``regression``.
        type: a name in :data:`~mlp_lightning.tables.columns.ARROW_TYPES`, as which the columns are read.
        classes: of a classification, in the order of the model's outputs.
        mean: of a regression, of the training rows, for each column.
        scale: likewise the deviation; the model learns ``(target - mean) / scale``.
    """

    names: tuple[str, ...]
    task: str
    type: str
    classes: tuple[str | int | float | bool, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Target:
        fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in plain.items()}
        return cls(**fields)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self.classes)

    @property
    def out_features(self) -> int:
        """Number of logits."""
        return {"binary": 1, "multiclass": len(self.classes), "regression": len(self.names)}[self.task]

    def numbers(self, table: pa.Table | pa.RecordBatch, place: Place) -> NDArray[np.float64]:
        """The targets of rows: ``(B, T)`` of a regression, else class numbers ``(B, 1)``; NaN where one is missing.

        Raises:
            DataError: a class that is not in :attr:`classes`, or a value that is not a number.
        """
        columns = [_chunked(table.column(name)) for name in self.names]
        if self.task != "regression":
            return self._class_numbers(columns[0], place)[:, None]
        return np.stack(
            [
                _float(converted(name, values, pa.float64(), place))
                for name, values in zip(self.names, columns, strict=True)
            ],
            axis=1,
        )

    def _class_numbers(self, values: pa.ChunkedArray, place: Place) -> NDArray[np.float64]:
        kind = ARROW_TYPES[self.type]
        values = converted(self.names[0], values, kind, place)
        numbers = pc.index_in(values, value_set=pa.array(self.classes, type=kind))
        unknown = pc.and_(pc.is_null(numbers), pc.is_valid(values))
        if pc.any(unknown).as_py():
            row = pc.index(unknown, True).as_py()
            known = ", ".join(self.class_names[:10]) + (", …" if len(self.classes) > 10 else "")
            raise DataError(
                f"{place(row)}: column {self.names[0]!r} has the class {values[row].as_py()!r}, which the model does"
                f" not know (it knows {known})."
            )
        return _float(numbers.cast(pa.float64()))

    def standardized(self, numbers_BT: NDArray[np.float64]) -> NDArray[np.float64]:
        """Targets of a regression as the model learns them."""
        return (numbers_BT - np.array(self.mean)) / np.array(self.scale)

    def with_statistics(self, numbers_BT: NDArray[np.float64], weights_B: NDArray[np.float64] | None = None) -> Target:
        """The same target with mean and deviation of these training rows, each counting by its weight."""
        if self.task != "regression":
            return self
        with np.errstate(over="ignore", invalid="ignore"):
            mean_T = np.average(numbers_BT, 0, weights_B)
            scale_T = np.sqrt(np.average(np.square(numbers_BT - mean_T), 0, weights_B))
        if not (np.isfinite(mean_T).all() and np.isfinite(scale_T).all()):
            raise DataError(f"Column {self.names[0]!r} has numbers that are too large to learn (near 1e308). Scale it.")
        # A constant target is learnt as it is; its deviation may not be exactly 0, because of rounding.
        scale_T = np.where(scale_T > 1e-14 * np.abs(mean_T), scale_T, 1.0)
        return dataclasses.replace(self, mean=tuple(mean_T.tolist()), scale=tuple(scale_T.tolist()))


def infer_target(table: pa.Table, names: Sequence[str], task: str, origin: Origin) -> Target:
    """Infer the task that the target columns pose.

    Args:
        table: rows, all of which have a target.
        names: target columns.
        task: ``auto``, ``binary``, ``multiclass`` or ``regression``.
        origin: of the table, for messages.

    Raises:
        DataError: there is only one class, or the columns do not fit the task.
    """
    if task == "auto":
        task = "regression" if len(names) > 1 or not are_classes(table.column(names[0])) else "classes"
    if task == "regression":
        for name in names:
            numbers = converted(name, table.column(name), pa.float64(), origin.place)
            infinite = pc.invert(pc.is_finite(numbers))
            if pc.any(infinite).as_py():
                row = pc.index(infinite, True).as_py()
                raise DataError(
                    f"{origin.place(row)}: the target {name!r} is {numbers[row].as_py()}. Correct or remove the row."
                )
        return Target(tuple(names), task, "float64")
    if len(names) > 1:
        raise DataError(
            f"{origin.name}: several targets ({', '.join(names)}) are a regression, not task={task}. Name one target."
        )
    return _classes(table.column(names[0]), names[0], task, origin)


def _classes(values: pa.ChunkedArray, name: str, task: str, origin: Origin) -> Target:
    kind = "string"
    if pa.types.is_boolean(values.type):
        kind = "bool"
    elif pa.types.is_integer(values.type) or (pa.types.is_floating(values.type) and _are_whole(values)):
        kind = "int64"
    elif pa.types.is_floating(values.type):
        kind = "float64"  # and not as texts: 1.50 in one file is 1.5 in another
    classes = tuple(sorted(pc.unique(converted(name, values, ARROW_TYPES[kind], origin.place)).to_pylist()))
    if len(classes) == 1:
        raise DataError(
            f"{origin.name}: the target {name!r} has one class only ({classes[0]!r}): there is nothing to learn."
            " Add rows of another class, or choose another data.target."
        )
    if task == "binary" and len(classes) != 2:
        raise DataError(f"{origin.name}: task=binary needs two classes, and {name!r} has {len(classes)}.")
    if task == "classes":
        task = "binary" if len(classes) == 2 else "multiclass"
    return Target((name,), task, kind, classes)


def are_classes(values: pa.ChunkedArray) -> bool:
    """Whether a target column is read as classes: texts, truth values, and few different whole numbers are."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return True
    whole = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and _are_whole(values))
    if not whole:
        return False
    distinct = pc.count_distinct(values).as_py()
    return distinct <= _MOST_INTEGER_CLASSES and 2 * distinct <= len(values)


def _are_whole(values: pa.ChunkedArray) -> bool:
    numbers = values.to_numpy()
    return bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())


def _float(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.array(values.to_numpy())  # a copy: what Arrow keeps cannot be written to, which torch warns of


def _chunked(values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([values]) if isinstance(values, pa.Array) else values
