"""What the columns of a table are: numbers, categories, truth values, dates, or nothing to learn from.

The kinds, the vocabularies and all other statistics are taken from the training rows alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.config import ColumnConfig
from mlp_lightning.config.free_names import column_option
from mlp_lightning.errors import DataError
from mlp_lightning.tables.categories import frequent, tidied
from mlp_lightning.tables.reading.types import EXPECTED, CastError, first_failure
from mlp_lightning.tables.reading.types import converted as as_type

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute

#: The location of the row with a number, for messages.
Place = Callable[[int], str]
# With fewer rows than this, values that all differ need not be names of rows.
_LEAST_ROWS_OF_IDENTIFIERS = 20
# "customerId" and "userID" too, but neither "acid" nor "paid".
_IDENTIFIER_NAME = re.compile(
    r"(?i:(^|[_\s.])(id|ids|uuid|guid|key|index|idx|nr|no|number|row|rowid)$|^unnamed)|[a-z](Id|ID)$"
)
# Texts of at least so many words, of which more than half differ, are written by hand: what they say is not in a name.
_WORDS_OF_FREE_TEXT = 4
# More categories than this are worth a line if hardly any occurs twice.
_MANY_CATEGORIES = 50
# Arrow type as which a column of each type name is read.
ARROW_TYPES: dict[str, pa.DataType] = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where rows come from, for messages.

    Attributes:
        name: of the table.
        place: the location of the row with a number.
    """

    name: str
    place: Place

    def of(self, rows: NDArray[np.int64]) -> Origin:
        """The origin of some of the rows."""
        return Origin(self.name, lambda row: self.place(int(rows[row])))


@dataclasses.dataclass(frozen=True)
class Column:
    """One column that the model sees.

    Attributes:
        name: as in the file.
        kind: ``numeric``, ``boolean``, ``datetime`` or ``categorical``.
        type: a name in :data:`ARROW_TYPES`, as which the column is read.
        format: in which texts are read as moments; empty: as ISO writes them.
        missing: whether a training row has no value here.
        vocabulary: the categories, in order; texts, whole numbers or truth values.
        encoding: of a categorical column: ``one_hot`` or ``embedding``.
        is_capped: whether training rows have rarer values, too, which are one category with unknown ones.
        parts: of a date: the cycles in which the training rows differ (``year``, ``week``, ``day``).
    """

    name: str
    kind: str
    type: str
    missing: bool = False
    vocabulary: tuple[str | int | bool, ...] = ()
    encoding: str = ""
    parts: tuple[str, ...] = ()
    is_capped: bool = False
    format: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        plain = dataclasses.asdict(self)
        if not self.is_capped:  # as older checkpoints have it
            del plain["is_capped"]
        return {**plain, "vocabulary": list(self.vocabulary), "parts": list(self.parts)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Column:
        return cls(**{**plain, "vocabulary": tuple(plain["vocabulary"]), "parts": tuple(plain["parts"])})

    @property
    def arrow_type(self) -> pa.DataType:
        return ARROW_TYPES[self.type]

    @property
    def read_type(self) -> pa.DataType:
        """The type to read the column as: texts where moments have a form."""
        return pa.string() if self.format else self.arrow_type


@dataclasses.dataclass(frozen=True)
class ColumnReport:
    """Which columns a model sees, and which it does not.

    Attributes:
        columns: what the model sees, in the order of the file.
        ignored: names of the other columns, each with the reason.
        notes: what else to tell the user of the columns, a line each.
    """

    columns: list[Column]
    ignored: dict[str, str]
    notes: list[str] = dataclasses.field(default_factory=list)


def infer_columns(
    table: pa.Table,
    names: Sequence[str],
    training_rows: NDArray[np.int64],
    wanted: Mapping[str, ColumnConfig],
    most: tuple[int, int],
    origin: Origin,
    forms: Mapping[str, str] | None = None,
) -> ColumnReport:
    """Infer what each column is.

    Args:
        table: all rows; it needs no column that is to be ignored.
        names: columns that may be seen by the model.
        training_rows: row numbers of the training rows.
        wanted: kinds that the user sets.
        most: categories of a one-hot column, and of any column: the rarest of more are one.
        origin: of the table, for messages.
        forms: of columns whose texts were read as moments.

    Raises:
        DataError: a column has an infinite number, a kind that does not fit, or no column is
            left to learn from.
    """
    columns, ignored, notes = [], {}, []
    spare: list[Column] = []
    of_training = origin.of(training_rows)
    for name in names:
        kind, reason = wanted[name].kind if name in wanted else "auto", ""
        if kind == "ignored":
            ignored[name] = "as asked"
            continue
        values = tidied(without_nan(table.column(name)))
        training = pa.chunked_array([values.combine_chunks().take(pa.array(training_rows))])
        if kind == "auto":
            kind, reason = _inferred_kind(name, training)
        if kind == "ignored":
            ignored[name] = reason
            if reason in _REASONS_OF_IDENTIFIERS:
                kind, _ = _inferred_kind("", training, False)
                spare.append(_fitted(name, kind, values, training, most, origin, of_training))
            continue
        column = _fitted(name, kind, values, training, most, origin, of_training)
        columns.append(dataclasses.replace(column, format=(forms or {}).get(name, "")))
        notes += _notes_on(columns[-1], training)
    if not columns:
        # Better to learn from what looks like names of rows than from nothing.
        columns = spare
        ignored = {name: reason for name, reason in ignored.items() if reason not in _REASONS_OF_IDENTIFIERS}
    if not columns:
        why = "; ".join(f"{name}: {reason}" for name, reason in ignored.items())
        raise DataError(
            f"{origin.name} has no column to learn from ({why or 'there is none beside the target'})."
            " Give one a kind, for example "
            f"{column_option(next(iter(ignored), 'NAME'), 'kind', 'categorical')}."
        )
    return ColumnReport(columns, ignored, notes)


_ALL_DIFFERENT = "all values differ, as names of rows do"
_NUMBERED = "numbers the rows"
_FREE_TEXT = "free text, of which hardly any value occurs twice"
_REASONS_OF_IDENTIFIERS = (_ALL_DIFFERENT, _NUMBERED, _FREE_TEXT)


def _inferred_kind(name: str, training: pa.ChunkedArray, look_for_identifiers: bool = True) -> tuple[str, str]:
    """The kind of a column by its training rows, and the reason if it is ``ignored``."""
    present = len(training) - training.null_count
    if present == 0:
        return "ignored", "has no value"
    kind = training.type
    extremes = pc.min_max(training).as_py()
    if extremes["min"] == extremes["max"] and training.null_count == 0:
        return "ignored", f"is always {training[0].as_py()!r}"
    if pa.types.is_floating(kind):
        return "numeric", ""
    if pa.types.is_boolean(kind):
        return "boolean", ""
    if pa.types.is_timestamp(kind):
        return "datetime", ""
    may_be_names = look_for_identifiers and present >= _LEAST_ROWS_OF_IDENTIFIERS
    distinct = pc.count_distinct(training, mode="only_valid").as_py() if may_be_names else 0
    if pa.types.is_string(kind) and 2 * distinct > present and distinct < present:
        blanks = pc.mean(pc.count_substring(training, " ")).as_py()
        if blanks >= _WORDS_OF_FREE_TEXT - 1:
            return "ignored", _FREE_TEXT
    may_be_names = may_be_names and distinct == present
    if pa.types.is_string(kind):
        return ("ignored", _ALL_DIFFERENT) if may_be_names else ("categorical", "")
    if may_be_names and pa.types.is_integer(kind):
        if _IDENTIFIER_NAME.search(name):
            return "ignored", _ALL_DIFFERENT
        numbers = training.drop_null().to_numpy()
        # Row numbers are dense; other numbers that happen to be in order are not.
        if (
            bool((np.diff(numbers) > 0).all())
            and int(numbers[-1]) - int(numbers[0]) < 2 * present
            and abs(int(numbers[0])) <= present
        ):
            return "ignored", _NUMBERED
    return "numeric", ""


def _fitted(
    name: str,
    kind: str,
    values: pa.ChunkedArray,
    training: pa.ChunkedArray,
    most: tuple[int, int],
    origin: Origin,
    of_training: Origin,
) -> Column:
    """The column of a kind, with what its training rows say about it."""
    missing = training.null_count > 0
    if pa.types.is_floating(training.type):
        missing = missing or bool(pc.any(pc.is_nan(training)).as_py())
    type_name = _type_name(values.type)
    if kind == "categorical":
        type_name = "string" if type_name in ("float64", "timestamp") else type_name
        cast = converted(name, training, ARROW_TYPES[type_name], of_training.place)
        most_one_hot, most_categories = most
        vocabulary, share = frequent(cast, most_categories)
        encoding = "one_hot" if len(vocabulary) <= most_one_hot else "embedding"
        return Column(name, kind, type_name, missing, tuple(vocabulary), encoding, is_capped=share > 0)
    if kind == "datetime":
        seconds = to_seconds(converted(name, training, ARROW_TYPES["timestamp"], of_training.place))
        return Column(name, kind, "timestamp", missing, parts=_varying_cycles(seconds[np.isfinite(seconds)]))
    type_name = "bool" if kind == "boolean" or type_name == "bool" else "float64"
    numbers = converted(name, converted(name, values, ARROW_TYPES[type_name], origin.place), pa.float64(), origin.place)
    infinite = pc.is_inf(numbers)
    if pc.any(infinite).as_py():
        row = pc.index(infinite, True).as_py()
        raise DataError(
            f"{origin.place(row)}: column {name!r} is infinite ({numbers[row].as_py()}). Correct or remove the value,"
            f" or leave the column out with {column_option(name, 'kind', 'ignored')}."
        )
    return Column(name, kind, type_name, missing)


def _notes_on(column: Column, training: pa.ChunkedArray) -> list[str]:
    """A line on values of which there are too few or too many to learn anything of them."""
    if column.kind != "categorical" and column.missing:
        extremes = pc.min_max(training).as_py()
        if extremes["min"] == extremes["max"] is not None:
            return [f"{column.name}: always {extremes['min']!r} or missing"]
    if column.kind != "categorical" or not (column.is_capped or len(column.vocabulary) > _MANY_CATEGORIES):
        return []
    distinct = pc.count_distinct(training, mode="only_valid").as_py()
    if column.is_capped:
        kept = len(column.vocabulary)
        return [
            f"{column.name}: {distinct:,} different values; the {kept:,} most frequent are categories, and the others"
            " are one (data.max_categories)"
        ]
    present = len(training) - training.null_count
    if 2 * distinct <= present:
        return []
    return [
        f"{column.name}: {distinct:,} categories in {present:,} rows, so that most occur once;"
        f" {column_option(column.name, 'kind', 'ignored')} leaves them out"
    ]


def converted(name: str, values: pa.ChunkedArray, wanted: pa.DataType, place: Place) -> pa.ChunkedArray:
    """Values as another type.

    Raises:
        DataError: a value does not fit, with its place.
    """
    try:
        return as_type(values, wanted)
    except CastError as error:
        row = first_failure(values, wanted)
        raise DataError(
            f"{place(row)}: column {name!r} has {values[row].as_py()!r}, which is not {EXPECTED[wanted]}."
            f" Correct the value, or set another kind, for example {column_option(name, 'kind', 'categorical')}."
        ) from error


def without_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values, with a missing value for every NaN: some files have one, some the other."""
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def to_seconds(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Moments as seconds since 1970-01-01 00:00, NaN where there is none."""
    micros = values.cast(pa.int64())
    return micros.cast(pa.float64(), safe=False).to_numpy() / 1e6


# Length of each cycle in seconds; the year is the mean Gregorian one.
CYCLES = {"year": 365.2425 * 86_400, "week": 7 * 86_400.0, "day": 86_400.0}


def _varying_cycles(seconds_B: NDArray[np.float64]) -> tuple[str, ...]:
    """The cycles in which some moments differ from each other."""
    found = []
    for name, period in CYCLES.items():
        phase_B = 2 * np.pi * (seconds_B / period % 1.0)
        if len(phase_B) and (np.ptp(np.cos(phase_B)) > 1e-3 or np.ptp(np.sin(phase_B)) > 1e-3):
            found.append(name)
    return tuple(found)


def _type_name(kind: pa.DataType) -> str:
    for name, one in ARROW_TYPES.items():
        if kind == one:
            return name
    return "string"  # a column without any value has the type null
