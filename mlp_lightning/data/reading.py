"""From a table to typed columns: what is read of it, numbers and moments in texts, and the rows that have a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.config import ColumnConfig, DataConfig, OwnDataConfig
from mlp_lightning.config.contradictions import target_kinds
from mlp_lightning.config.free_names import column_option
from mlp_lightning.config.targets import argument_faults, import_target
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import task_class
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.datasets import load_dataset
from mlp_lightning.tables.fingerprint import table_fingerprint
from mlp_lightning.tables.reading.frames import arrow_table
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.moments import TIME_OF_DAY, has_zone, inferred_form, with_moments
from mlp_lightning.tables.reading.numbers import NumberForm
from mlp_lightning.tables.reading.sources import FileSource, TableSource
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.written_codes import read_codes
from mlp_lightning.tables.written_durations import note_on_times_of_day
from mlp_lightning.tables.written_numbers import read_numbers, word_notes

# pyarrow makes these functions when it is imported, so type checkers do not see them.
pc: Any = pyarrow.compute


@dataclasses.dataclass(frozen=True)
class Given:
    """What is known of the rows beside the options.

    Attributes:
        source: read instead of what the options name.
        target: what is predicted: all classes, of which the rows may lack some.
        preprocessor: prepares the rows as others were prepared; then ``target`` is taken as it is, too. ``None``:
            fitted to the training rows.
        number_forms: how the numbers are written of the rows that ``preprocessor`` was fitted to.
        splits_by_labels: whether rows of several labels are split by them. Earlier versions did not, and their models
            meet their rows again.
        allow_targets: packages and modules that a function of the user's own may be imported from, which returns them.
        is_trained: whether a model was trained on them: earlier versions took options that have no effect.
    """

    source: TableSource | None = None
    target: Target | None = None
    preprocessor: Preprocessor | None = None
    number_forms: Mapping[str, NumberForm] = dataclasses.field(default_factory=dict)
    splits_by_labels: bool = True
    allow_targets: Sequence[str] = ()
    is_trained: bool = False


class TypedRows:
    """The rows of a table that have a target, with the types that their columns have by their values.

    Args:
        source: of the rows.
        options: what the columns are.
        task: one of :data:`~mlp_lightning.networks.tasks.TASKS`, or ``auto``.
        given: what is known of the rows already.

    Attributes:
        table: the rows.
        numbers: their numbers in the source.
        dropped: how many rows without a target are left out.
        origin: of the rows, for messages.
        targets: names of the target columns.
        task: that the kinds of the targets leave.
        candidates: columns that may be features.
        wanted: what is asked of columns.
        fingerprint: of the rows, as :mod:`mlp_lightning.tables.fingerprint` describes it.
        number_forms: how the numbers of columns are written that are not written as programs do it.
        moment_forms: how moments are written.
        notes: what to tell the user of the columns, a line each.

    Raises:
        ConfigError, DataError: the table cannot be used as the options ask.
    """

    table: pa.Table
    number_forms: dict[str, NumberForm]
    moment_forms: dict[str, str]

    def __init__(self, source: TableSource, options: DataConfig, task: str, given: Given) -> None:
        self.source, self.options = source, options
        self.notes: list[str] = list(source.notes)
        self.targets = _target_names(options, source)
        self._refuse_missing_columns()
        self.candidates = [one for one in source.column_names if one not in self._not_seen]
        categories = {name: ColumnConfig("categorical") for name in source.categorical if name in self.candidates}
        self.wanted: Mapping[str, ColumnConfig] = {**categories, **options.columns}
        self.task = _task_of_kinds(options.columns, self.targets, task)
        self.table = source.read(self._columns_to_read(), _types(self.wanted, self.targets))
        self._read_numbers(given, self._read_codes(given) if given.preprocessor is None else [])
        count = self.table.num_rows
        self.numbers = self._leave_out_unlabelled()
        self.dropped = count - len(self.numbers)
        ignored = {name for name, one in options.columns.items() if one.kind == "ignored"}
        self.fingerprint = table_fingerprint(self.table.drop_columns(sorted(ignored & {*self.table.column_names})))
        self.origin = Origin(source.name, source.place).of(self.numbers)
        if self.task == "auto" and given.target is None:
            self._refuse_moments_as_targets()
        self._read_moments(given)

    @property
    def used(self) -> tuple[list[str], list[str]]:
        """The columns that are not left out, and those of them that hold numbers."""
        ignored = {name for name, one in self.wanted.items() if one.kind == "ignored"} - self._roles
        columns = [one for one in self.table.column_names if one not in ignored]
        kinds = {name: self.table.column(name).type for name in columns}
        return columns, [one for one in columns if pa.types.is_integer(kinds[one]) or pa.types.is_floating(kinds[one])]

    def _refuse_missing_columns(self) -> None:
        for name in [*self.targets, *sorted(self._roles), *self.options.columns]:
            if name not in self.source.column_names:
                raise self.source.without(name)

    @property
    def _not_seen(self) -> set[str]:
        """Columns that are no features: targets, and what says how to use the rows (unless given a kind)."""
        given = {name for name, one in self.options.columns.items() if one.kind != "auto"}
        return {*self.targets, *(self._roles - given)}

    @property
    def _roles(self) -> set[str]:
        """Columns that say how to use the rows."""
        options = self.options
        roles = (options.weight_column, options.group_column, options.time_column, options.split_column)
        return {one for one in roles if one is not None}

    def _columns_to_read(self) -> list[str] | None:
        """All but those that are left out, which may hold what cannot be read; ``None``: all."""
        asked = {name for name, one in self.wanted.items() if one.kind == "ignored"}
        ignored = asked - self._roles - set(self.targets)
        return [one for one in self.source.column_names if one not in ignored] if ignored else None

    def _read_codes(self, given: Given) -> list[str]:
        """Put texts in the place of numbers that are written as codes, where nobody says what they are; their names."""
        targets = self.targets if given.target is None and self.task == "auto" else []
        said = {name for name, one in self.wanted.items() if one.kind != "auto" or one.format}
        names = [name for name in (*self.candidates, *targets) if name not in said]
        self.table, codes, notes = read_codes(self.table, self.source, names, targets)
        self.notes += notes
        return codes

    def _read_numbers(self, given: Given, codes: Sequence[str]) -> None:
        """Put numbers in the place of texts that are numbers, where somebody says so or nobody says otherwise."""
        options, wanted, not_seen = self.options, self.wanted, self._not_seen
        kinds = {name: "auto" for name in self.table.column_names if name not in not_seen}
        # What has the format of a moment is none, whatever it looks like.
        kinds |= {name: "datetime" if wanted[name].format else wanted[name].kind for name in kinds if name in wanted}
        if given.preprocessor is not None:
            kinds |= {column.name: column.kind for column in given.preprocessor.columns}
        kinds |= {name: "auto" for name in (options.time_column,) if name is not None and name in not_seen}
        kinds |= {name: "numeric" for name in (options.weight_column,) if name is not None}
        task = self.task if given.target is None else given.target.task
        of_targets = "auto"
        if task != "auto":
            of_targets = "categorical" if task == "classes" or task_class(task).has_classes else "numeric"
        kinds |= dict.fromkeys(self.targets, of_targets)
        kinds = {name: kind for name, kind in kinds.items() if kind in ("auto", "numeric") and name not in codes}
        trained = None if given.preprocessor is None else given.number_forms
        read = read_numbers(self.table, self.source, kinds, self.targets, trained)
        seen = [name for name in self.table.column_names if name not in wanted or wanted[name].kind != "ignored"]
        self.table, self.number_forms = read.table, read.forms if trained is None else dict(trained)
        self.notes += [*read.notes, *word_notes(read.table, self.source, seen)]

    def _read_moments(self, given: Given) -> None:
        """Put moments in the place of texts that are moments."""
        wanted = self.wanted
        kinds = {name: wanted[name].kind if name in wanted else "auto" for name in self.candidates}
        names = [name for name, kind in kinds.items() if kind in ("auto", "datetime")]
        forms: dict[str, str | None]
        forms = {name: wanted[name].format if name in wanted else None for name in names}
        if given.preprocessor is not None:  # what it knows of the features is not inferred again
            forms = {one.name: one.format for one in given.preprocessor.columns if one.format}
        time = self.options.time_column
        if time is not None and kinds.get(time, "auto") in ("auto", "datetime"):
            forms.setdefault(time, wanted[time].format if time in wanted else None)
        required = [name for name in names if kinds[name] == "datetime"]
        table = self.table
        self.table, self.moment_forms = with_moments(table, forms, required, self.origin.place)
        found = self.moment_forms
        if time in found:
            self.notes.append(f"in the order of {time} ({found[time]})")
        asked = set(required) if given.preprocessor is None else set(found)
        times_of_day = [name for name, form in found.items() if form == TIME_OF_DAY and name in names]
        self.notes += note_on_times_of_day([name for name in times_of_day if name not in asked and not forms[name]])
        for name in found:
            zoned = has_zone(table.column(name))
            if pc.any(zoned).as_py() and not pc.all(zoned).as_py():
                self.notes.append(f"{name}: times without a zone are taken as UTC, as others have a zone")

    def _refuse_moments_as_targets(self) -> None:
        """Dates are neither the classes nor the numbers that somebody wants to predict, unless they say so."""
        for name in self.targets:
            values, place = self.table.column(name), self.origin.place
            advice = (
                "A target has classes or numbers: store a number, such as the days since a certain date, or set"
                f" {column_option(name, 'kind', 'categorical')} if each of them is a class."
            )
            is_moment = pa.types.is_timestamp(values.type)
            if pa.types.is_string(values.type):
                form = inferred_form(name, values, place, advice)
                is_moment = form is not None
                if form == TIME_OF_DAY:
                    advice = f"If these are durations, set {column_option(name, 'kind', 'numeric')}. {advice}"
            if is_moment:
                value = values[0].as_py()
                raise DataError(
                    f"{place(0)}: the target {name!r} holds dates or times (such as {str(value)!r}). {advice}"
                )

    def _leave_out_unlabelled(self) -> NDArray[np.int64]:
        """Keep the rows that have a target; returns their numbers in the source."""
        table, name_of_table = self.table, self.source.name
        has_target = np.ones(table.num_rows, dtype=bool)
        for name in self.targets:
            values = table.column(name)
            if values.null_count == len(values):
                raise DataError(
                    f"{name_of_table}: the target {name!r} is missing in all {len(values):,} rows. Choose another"
                    " data.target."
                )
            if values.null_count or pa.types.is_floating(values.type):
                has_target &= values.is_valid().to_numpy()
                if pa.types.is_floating(values.type):
                    has_target &= ~np.isnan(values.to_numpy())
        kept = np.flatnonzero(has_target)
        if not len(kept):
            raise DataError(f"{name_of_table}: no row has all of its targets {', '.join(self.targets)}.")
        if len(kept) < table.num_rows:
            self.table = table.filter(pa.array(has_target))
        return kept


def open_source(options: DataConfig, allow_targets: Sequence[str]) -> TableSource:
    """The table that the options name.

    Args:
        options: where it is.
        allow_targets: packages and modules that a function of the user's own may be imported from.

    Raises:
        ConfigError, DataError: there is no such table, or it may not be imported.
    """
    if isinstance(options, OwnDataConfig):
        faults = list(argument_faults("data", options.options))  # before the import: a checkpoint may say anything
        if faults:
            raise ConfigError(faults)
        return own_source(options, import_target("data._target_", options._target_, allow_targets, None))
    if options.name == "frame":
        rule, hint = "has its rows in memory, and they are not here", "hand them over: train(config, run_dir, frame=…)"
        raise ConfigError([Fault("data.name", "frame", rule, hint)])
    if options.name != "table":
        table, targets = load_dataset(options)
        return MemorySource(table, options.name, targets)
    if options.path is None:
        raise ConfigError([Fault("data.path", None, "is missing", "name a CSV, Parquet or Feather file or a folder")])
    return FileSource.open(options.path, options.csv)


def own_source(options: OwnDataConfig, function: Callable[..., Any]) -> TableSource:
    """The table that a function of the user's own returns.

    Args:
        options: what it is called, and the arguments of the function.
        function: returns a data frame.

    Raises:
        ConfigError: it fails, or does not take its arguments.
        DataError: it returns something else.
    """
    path, arguments = options._target_, dict(options.options)
    try:
        frame = function(**arguments)
    except Exception as error:  # code of the user's own
        rule = f"failed with the arguments {arguments} ({type(error).__name__}: {error})"
        raise ConfigError([Fault("data._target_", path, rule)]) from error
    # Columns that are left out may hold what cannot be read.
    ignored = [name for name, one in options.columns.items() if one.kind == "ignored"]
    return MemorySource(arrow_table(frame, f"what {path} returns", ignored), path)


def _target_names(options: DataConfig, source: TableSource) -> list[str]:
    wanted = [options.target] if isinstance(options.target, str) else options.target
    names = list(wanted or source.targets)
    if not names:
        columns = ", ".join(source.column_names)
        raise ConfigError([Fault("data.target", None, "is missing", f"name the column to predict, one of {columns}")])
    return names


def _types(columns: Mapping[str, ColumnConfig], targets: Sequence[str]) -> dict[str, pa.DataType]:
    """Types that columns are read as because somebody says what they are: 007 is a category, and not 7."""
    texts = [name for name, one in columns.items() if one.kind == "categorical" or one.format]
    truths = [name for name in targets if name in columns and columns[name].kind == "boolean"]
    return dict.fromkeys(texts, pa.string()) | dict.fromkeys(truths, pa.bool_())


def _task_of_kinds(columns: Mapping[str, ColumnConfig], targets: Sequence[str], task: str) -> str:
    """The task that the kinds of the target columns ask for; ``classes``: binary or multiclass.

    Raises:
        ConfigError: they contradict the task.
    """
    faults = list(target_kinds(columns, targets, task))
    if faults:
        raise ConfigError(faults)
    kinds = {columns[name].kind for name in targets if name in columns} - {"auto"}
    if task != "auto" or not kinds:
        return task
    return "regression" if kinds == {"numeric"} else "classes"
