"""What to predict of a table: target columns, their classes or statistics, and the targets as numbers.

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
from mlp_lightning.tables.categories import positions, tidied
from mlp_lightning.tables.columns import ARROW_TYPES, Origin, Place, converted
from mlp_lightning.tables.reading.limits import CLASSES

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute

# Whole numbers are classes if there are no more different ones than this, and at least two rows of each on average.
_MOST_INTEGER_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class TargetColumn:
    """One column to predict.

    Attributes:
        name: as in the table.
        type: a name in :data:`~mlp_lightning.tables.columns.ARROW_TYPES`, as which the column is read.
        classes: in ascending order; empty for numbers.
        mean: of numbers, of the training rows; ``None`` as long as they are not known.
        scale: likewise the deviation; the model learns ``(target - mean) / scale``.
    """

    name: str
    type: str
    classes: tuple[str | int | float | bool, ...] = ()
    mean: float | None = None
    scale: float | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        return ARROW_TYPES[self.type]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self.classes)

    def numbers(self, values: pa.ChunkedArray, place: Place) -> NDArray[np.float64]:
        """Class numbers or values ``(B,)``; NaN where one is missing.

        Raises:
            DataError: a class that is not in :attr:`classes`, or a value that is not a number.
        """
        values = converted(self.name, values, self.arrow_type, place)
        if not self.classes:
            return _float(values)
        numbers, missing = positions(values, pa.array(self.classes, type=self.arrow_type))
        unknown = pc.and_(pc.is_null(numbers), pc.invert(missing))
        if pc.any(unknown).as_py():
            row = pc.index(unknown, True).as_py()
            known = ", ".join(self.class_names[:10]) + (", …" if len(self.classes) > 10 else "")
            raise DataError(
                f"{place(row)}: column {self.name!r} has the class {values[row].as_py()!r}, which the model does"
                f" not know (it knows {known})."
            )
        return _float(numbers.cast(pa.float64()))

    def values(self, numbers_B: NDArray[np.generic]) -> pa.Array:
        """Class numbers as the classes."""
        return pa.array(self.classes, type=self.arrow_type).take(pa.array(numbers_B.astype(np.int64)))


@dataclasses.dataclass(frozen=True)
class Target:
    """What to predict.

    Attributes:
        task: the name of a task.
        columns: one or more, all with classes or all with numbers.
    """

    task: str
    columns: tuple[TargetColumn, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        columns = [{**dataclasses.asdict(one), "classes": list(one.classes)} for one in self.columns]
        return {"task": self.task, "columns": columns}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Target:
        columns = (TargetColumn(**{**one, "classes": tuple(one["classes"])}) for one in plain["columns"])
        return cls(plain["task"], tuple(columns))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the only column."""
        (only,) = self.columns
        return only.class_names

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each column of numbers, once it is known."""
        return tuple(one.mean for one in self.columns if one.mean is not None)

    @property
    def scale(self) -> tuple[float, ...]:
        """Likewise the deviation."""
        return tuple(one.scale for one in self.columns if one.scale is not None)

    @property
    def arrow_types(self) -> dict[str, pa.DataType]:
        """The type as which each column is read."""
        return {one.name: one.arrow_type for one in self.columns}

    def by_name(self, of_columns: Sequence[Any]) -> Any:
        """What belongs to each column, by its name; of a single column that alone."""
        return of_columns[0] if len(self.columns) == 1 else dict(zip(self.names, of_columns, strict=True))

    def numbers(self, table: pa.Table | pa.RecordBatch, place: Place) -> NDArray[np.float64]:
        """The targets of rows ``(B, T)``: class numbers or values; NaN where one is missing.

        Raises:
            DataError: a class that is not known, or a value that is not a number.
        """
        return np.stack([one.numbers(_chunked(table.column(one.name)), place) for one in self.columns], axis=1)

    def standardized(self, numbers_BT: NDArray[np.float64]) -> NDArray[np.float64]:
        """Targets of a regression as the model learns them."""
        return (numbers_BT - np.array(self.mean)) / np.array(self.scale)

    def with_statistics(self, numbers_BT: NDArray[np.float64], weights_B: NDArray[np.float64] | None = None) -> Target:
        """The same target with mean and deviation of these training rows, each counting by its weight."""
        if self.columns[0].classes:
            return self
        with np.errstate(over="ignore", invalid="ignore"):
            mean_T = np.average(numbers_BT, 0, weights_B)
            scale_T = np.sqrt(np.average(np.square(numbers_BT - mean_T), 0, weights_B))
        for one, mean, scale in zip(self.columns, mean_T, scale_T, strict=True):
            if not (np.isfinite(mean) and np.isfinite(scale)):
                raise DataError(f"Column {one.name!r} has numbers that are too large to learn (near 1e308). Scale it.")
        # A constant target is learnt as it is; its deviation may not be exactly 0, because of rounding.
        scale_T = np.where(scale_T > 1e-14 * np.abs(mean_T), scale_T, 1.0)
        known = zip(self.columns, mean_T.tolist(), scale_T.tolist(), strict=True)
        return Target(self.task, tuple(dataclasses.replace(one, mean=mean, scale=scale) for one, mean, scale in known))


def only_target(names: Sequence[str], task: str, origin: Origin) -> str:
    """The target of a task that takes one.

    Raises:
        DataError: there are several.
    """
    if len(names) > 1:
        raise DataError(
            f"{origin.name}: task={task} takes one target, and data.target names {len(names)} ({', '.join(names)})."
            " Name one, or use task=multilabel for targets of two classes each, or task=regression for numbers."
        )
    return names[0]


def numbers_of(table: pa.Table, name: str, origin: Origin) -> TargetColumn:
    """A column of finite numbers as a target."""
    numbers = converted(name, table.column(name), pa.float64(), origin.place)
    infinite = pc.invert(pc.is_finite(numbers))
    if pc.any(infinite).as_py():
        row = pc.index(infinite, True).as_py()
        raise DataError(
            f"{origin.place(row)}: the target {name!r} is {numbers[row].as_py()}. Correct or remove the row."
        )
    return TargetColumn(name, "float64")


def classes_of(table: pa.Table, name: str, origin: Origin) -> TargetColumn:
    """A column of at least two classes as a target."""
    values, kind = table.column(name), "string"
    if pa.types.is_boolean(values.type):
        kind = "bool"
    elif pa.types.is_integer(values.type) or (pa.types.is_floating(values.type) and _are_whole(values)):
        kind = "int64"
    elif pa.types.is_floating(values.type):
        kind = "float64"  # and not as texts: 1.50 in one file is 1.5 in another
    texts = tidied(converted(name, values, ARROW_TYPES[kind], origin.place))
    distinct = pc.unique(texts)
    if len(distinct) > CLASSES:
        shown = ", ".join(map(repr, distinct[:3].to_pylist()))
        what = "numbers" if kind in ("int64", "float64") else "names of rows, or free text"
        advice = "set task=regression" if kind in ("int64", "float64") else "choose another data.target"
        raise DataError(
            f"{origin.name}: the target {name!r} has {len(distinct):,} classes ({shown}, …), and at most"
            f" {CLASSES:,} are trained. If these are {what}, {advice}; else put rare classes into one."
        )
    classes = tuple(sorted(distinct.to_pylist()))
    if len(classes) == 1:
        raise DataError(
            f"{origin.name}: the target {name!r} has one class only ({classes[0]!r}): there is nothing to learn."
            " Add rows of another class, or choose another data.target."
        )
    return TargetColumn(name, kind, classes)


def are_classes(values: pa.ChunkedArray) -> bool:
    """Whether a column has classes and not numbers, where nobody says which."""
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
