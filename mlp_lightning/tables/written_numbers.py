"""Columns of numbers that are texts, as people and spreadsheets write them: read as numbers, or refused.

What a point or a comma means is decided by all values of a column, then by the other columns, then by the training
rows, then by the delimiter of the file. Where all of these leave it open, the column is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.config import CsvConfig
from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.dialect import NULL_VALUES
from mlp_lightning.tables.reading.numbers import (
    WORDS_AMONG_NUMBERS,
    Examined,
    NumberForm,
    examine,
    may_be_numbers,
    parsed,
    shown,
)
from mlp_lightning.tables.reading.sources import TableSource

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute

#: How the numbers of columns are written, by name of the column.
Forms = Mapping[str, NumberForm]
Place = Callable[[int], str]
_MARKS = {"none": "", "space": " ", "apostrophe": "'"}
_MOST_CLASSES_OF_DIGITS = 20
_POINT_AND_COMMA = frozenset(".,")


@dataclasses.dataclass(frozen=True)
class WrittenNumbers:
    """A table whose numbers are numbers.

    Attributes:
        table: all rows.
        forms: how the numbers of the columns were written that are not written as programs do it.
        notes: what to tell the user about them, a line each.
    """

    table: pa.Table
    forms: dict[str, NumberForm]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class _Hints:
    """What decides where the values of a column do not.

    Attributes:
        decimal: the mark that the user gives.
        thousands: likewise.
        words: texts in lower case that stand for a missing number.
        delimiters: of the text files; none if the table stores values with their types.
        seen: the decimal marks of other columns.
        trained: how the training rows were written.
    """

    decimal: str | None
    thousands: str | None
    words: frozenset[str]
    delimiters: frozenset[str]
    seen: frozenset[str]
    trained: Forms = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, source: TableSource) -> _Hints:
        options = source.dialects[0].options if source.dialects else CsvConfig()
        return cls(
            None if options.decimal == "auto" else options.decimal,
            None if options.thousands == "auto" else _MARKS.get(options.thousands, options.thousands),
            WORDS_AMONG_NUMBERS if options.null_values == "auto" else frozenset(),
            frozenset(one.delimiter for one in source.dialects),
            frozenset(one.decimal for one in source.dialects if one.is_decided and one.decimal),
        )

    def beside(self, examined: Mapping[str, Examined]) -> _Hints:
        """The same with the marks of columns that leave nothing open."""
        seen = {
            one.forms[0].decimal
            for one in examined.values()
            if one.are_numbers and len(one.forms) == 1 and one.marks & _POINT_AND_COMMA
        }
        return dataclasses.replace(self, seen=self.seen | seen)


def number_forms(hyperparameters: Mapping[str, Any]) -> dict[str, NumberForm]:
    """How the training rows of a module are written, by the hyperparameters that it is made of."""
    stored = (hyperparameters.get("preprocessing") or {}).get("number_forms", {})
    return {name: NumberForm.from_dict(plain) for name, plain in stored.items()}


def read_numbers(
    table: pa.Table, source: TableSource, kinds: Mapping[str, str], targets: Collection[str] = ()
) -> WrittenNumbers:
    """Read the columns of texts that are numbers.

    Args:
        table: all rows of some columns of the source.
        source: of the rows.
        kinds: of the columns that may be numbers: ``numeric`` where somebody says so, else ``auto``.
        targets: which of them are to be predicted.

    Raises:
        DataError: a column has numbers and other texts, or numbers that can be read in two ways.
    """
    texts = [name for name in table.column_names if name in kinds and pa.types.is_string(table.column(name).type)]
    hints = _Hints.of(source)
    columns = {name: table.column(name) for name in texts}
    texts = [name for name in texts if kinds[name] == "numeric" or may_be_numbers(columns[name], hints.words)]
    examined = {name: examine(columns[name], hints.words) for name in texts}
    hints = hints.beside(examined)
    notes: list[str] = []
    for name in texts:
        found, is_asked = examined[name], kinds[name] == "numeric"
        refuse_faulty(name, found, source.place, is_asked, name in targets)
        # Whoever stored digits as texts wanted texts; but hundreds of them are no classes.
        are_many = name in targets and pc.count_distinct(columns[name]).as_py() > _MOST_CLASSES_OF_DIGITS
        is_code = not source.dialects and found.are_digits and not are_many
        if found.are_numbers and is_code and not is_asked and name not in targets:
            notes.append(
                f"{name}: digits stored as texts are categories; data.columns.{name}.kind=numeric if they count"
            )
        if not found.are_numbers or (is_code and not is_asked):
            del examined[name]
    again = _perhaps_thousands(table, source, kinds, hints)
    if again:
        columns |= dict(zip(again, source.read(again, dict.fromkeys(again, pa.string())).columns, strict=True))
        examined |= {name: examine(columns[name], hints.words) for name in again}
        hints = hints.beside(examined)
    forms = {name: _form(name, found, source.name, hints) for name, found in examined.items()}
    for name, form in forms.items():
        if name in again and form.is_plain:
            continue
        numbers, bad = parsed(columns[name], form, hints.words)
        assert bad is None, (name, form)
        notes += _notes(name, examined[name], form)
        table = table.set_column(table.column_names.index(name), name, _whole(numbers))
    if hints.seen == {","}:
        # As the delimiter, a decimal comma is a habit of a file; new rows may not show it.
        floats = [name for name in kinds if name in table.column_names and pa.types.is_floating(table[name].type)]
        forms = dict.fromkeys(floats, NumberForm(",")) | forms
    return WrittenNumbers(table, {name: form for name, form in forms.items() if not form.is_plain}, notes)


def number_batches(
    source: TableSource,
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    rows: int,
    trained: Forms,
    notes: list[str],
) -> Iterator[pa.RecordBatch]:
    """As :meth:`TableSource.batches`, with numbers read from texts as people write them.

    A column of which the first values are not plain numbers is read twice: all its values say how they are written.

    Args:
        source: of the rows.
        names: of the columns to read.
        types: theirs, where they matter; a column of doubles is one of numbers.
        rows: most rows at once.
        trained: how the training rows are written.
        notes: what to tell the user is added.

    Raises:
        DataError: as :meth:`TableSource.batches`; and a column has numbers that can be read in two ways, or with
            another unit than the training rows.
    """
    counted = [name for name in names if types.get(name) == pa.float64() or (name in trained and name in types)]
    written = source.written_numbers(counted) | _unlike_programs(source, {name: trained.get(name) for name in counted})
    wanted = [name for name in counted if name in written]
    if not wanted:
        yield from source.batches(names, types, rows)
        return
    as_texts = dict.fromkeys(wanted, pa.string())
    hints = dataclasses.replace(_Hints.of(source), trained=trained)
    examined = dict.fromkeys(wanted, Examined())
    for batch in source.batches(wanted, as_texts, rows):
        for name in wanted:
            examined[name] += examine(pa.chunked_array([batch.column(name)]), hints.words)
    hints = hints.beside(examined)
    forms = {name: _form_of_new_rows(name, found, source, hints) for name, found in examined.items()}
    for name, form in forms.items():
        if form != trained.get(name, NumberForm()):
            notes += _notes(name, examined[name], form)
    first_row = 0
    for batch in source.batches(names, {**types, **as_texts}, rows):
        for name in wanted:
            numbers, bad = parsed(pa.chunked_array([batch.column(name)]), forms[name], hints.words)
            assert bad is None, (source.place(first_row + (bad or 0)), name)
            position = batch.schema.get_field_index(name)
            batch = batch.set_column(position, name, numbers.cast(types[name]).combine_chunks())
        first_row += batch.num_rows
        yield batch


def refuse_faulty(name: str, found: Examined, place: Place, is_asked: bool = False, is_target: bool = False) -> None:
    """Refuse a column of numbers in which something else stands, or which are not written alike.

    Args:
        name: of the column.
        found: what its values say.
        place: the location of the row with a number.
        is_asked: whether somebody says that they are numbers.
        is_target: whether they are to be predicted.

    Raises:
        DataError: with the row, three values, and the options that help.
    """
    if not (found.are_faulty_numbers or (is_asked and found.present and not found.are_numbers)):
        return
    listed = ", ".join(map(shown, found.shown))
    option = "task=multiclass" if is_target else f"data.columns.{name}.kind=categorical"
    otherwise = "" if is_asked else f"; if the column holds categories, set {option}"
    if found.other is not None:
        row, text = found.other
        what = f"has numbers in {_rows(found.numbers)} (such as {listed}), but {shown(text)} here"
        if not found.numbers:
            what = f"holds {shown(text)}, which is not a number"
        raise DataError(
            f"{place(row)}: column {name!r} {what}."
            f" Correct the value; if it stands for a missing value, add it to data.csv.null_values{otherwise}."
        )
    units = ", ".join(f"{unit!r} ({count:,})" if unit else f"none ({count:,})" for unit, count in found.units.items())
    how = f"have different units ({units})" if len(found.units) > 1 else "are not all written in one way"
    raise DataError(
        f"{place(0)} and further: the numbers in column {name!r} (such as {listed}) {how}. Write them alike{otherwise}."
    )


def _unlike_programs(source: TableSource, trained: Mapping[str, NumberForm | None]) -> set[str]:
    """Text columns whose training rows were written in a way that these rows may not show at once."""
    commas = bool(source.dialects) and all(one.is_decided and one.decimal == "," for one in source.dialects)
    plain = (None, NumberForm(","), NumberForm()) if commas else (None, NumberForm())
    return {name for name, form in trained.items() if form not in plain} if source.dialects else set()


def _perhaps_thousands(table: pa.Table, source: TableSource, kinds: Mapping[str, str], hints: _Hints) -> list[str]:
    """Columns that were read with decimal points which may be thousands: all of them of the form 12.345.

    Only where something says so: decimal commas in other columns, or semicolons in a file where no number decides.
    """
    open_files = [one for one in source.dialects if one.decimal != ","]
    doubted = any(one.delimiter == ";" and not one.is_decided for one in open_files) or "," in hints.seen
    if not open_files or not doubted or hints.decimal == ".":
        return []
    found = []
    for name in table.column_names:
        if name not in kinds or not pa.types.is_floating(table.column(name).type):
            continue
        numbers = pc.abs(table.column(name).drop_null())
        thousandths = pc.multiply(numbers, 1000.0)
        exact = pc.less(pc.abs(pc.subtract(thousandths, pc.round(thousandths))), 1e-6)
        if len(numbers) and pc.all(pc.and_(pc.less(numbers, 1000.0), exact)).as_py():
            found.append(name)
    return found


def _form(name: str, found: Examined, table: str, hints: _Hints) -> NumberForm:
    """How the numbers of a column are written.

    Raises:
        DataError: they can be read in two ways, or not as the user says.
    """
    unit = next(iter(found.units), "")
    fitting = {
        form.decimal: dataclasses.replace(form, unit=unit)
        for form in found.forms
        if hints.decimal in (None, form.decimal)
        and (hints.thousands is None or (form.thousands in ("", hints.thousands) and form.decimal != hints.thousands))
    }
    listed = ", ".join(map(shown, found.shown))
    if not fitting:
        options = " and ".join(
            f"data.csv.{key} = {value!r}"
            for key, value in (("decimal", hints.decimal), ("thousands", hints.thousands))
            if value is not None
        )
        raise DataError(
            f"{table}: the numbers in column {name!r} (such as {listed}) are not written as {options} says. Leave the"
            f" option out, correct the values, or leave the column out with data.columns.{name}.kind=ignored."
        )
    marks = found.marks & _POINT_AND_COMMA
    if len(fitting) == 1 or not marks:
        return fitting.get(".") or fitting[","]
    if len(hints.seen) == 1:
        return fitting[next(iter(hints.seen))]
    trained = hints.trained.get(name)
    if trained is not None and trained.covers(found.marks) and trained.decimal in fitting:
        return fitting[trained.decimal]
    # Semicolons are there because commas are decimal marks; between commas, a comma in quotes separates thousands.
    if marks == {","} and hints.delimiters == {";"}:
        return fitting[","]
    if (marks == {","} and hints.delimiters == {","}) or (marks == {"."} and ";" not in hints.delimiters):
        return fitting["."]
    how = "say which with 'data.csv.decimal=\",\"' or data.csv.decimal=." if hints.delimiters else "store numbers"
    raise DataError(
        f"{table}: column {name!r} holds numbers such as {listed}; nothing says whether their points and commas stand"
        f" before decimals or between thousands: {how}."
    )


def _form_of_new_rows(name: str, found: Examined, source: TableSource, hints: _Hints) -> NumberForm:
    trained = hints.trained.get(name, NumberForm())
    if not found.present:
        return trained
    refuse_faulty(name, found, source.place, is_asked=True)
    form = _form(name, found, source.name, hints)
    if form.unit != trained.unit:
        of = [f"the unit {one!r}" if one else "no unit" for one in (form.unit, trained.unit)]
        raise DataError(
            f"{source.name}: the numbers in column {name!r} (such as {shown(found.shown[0])}) have {of[0]}, and those"
            f" of the training rows have {of[1]}. Convert them."
        )
    return form


def _notes(name: str, found: Examined, form: NumberForm) -> list[str]:
    lines = []
    if not form.is_plain and found.shown:
        number = parsed(pa.chunked_array([[found.shown[0]]]), form)[0][0].as_py()
        lines.append(f"{name}: numbers are written as {shown(found.shown[0])}, which is read as {number:.12g}")
    odd = {word: count for word, count in found.words.items() if word and word not in NULL_VALUES}
    for word, count in odd.items():
        lines.append(f"{name}: {shown(word)} among the numbers is taken as missing ({_rows(count)})")
    return lines


def word_notes(table: pa.Table, source: TableSource, names: Sequence[str]) -> list[str]:
    """A line for each word in columns of texts that elsewhere stands for a missing value, and is kept here."""
    if not source.dialects or source.dialects[0].options.null_values != "auto":
        return []
    lines = []
    known = pa.array([one for one in NULL_VALUES if one])
    for name in names:
        if not pa.types.is_string(table.column(name).type):
            continue
        texts = pc.utf8_trim_whitespace(table.column(name))
        for one in texts.filter(pc.is_in(texts, value_set=known)).value_counts():
            word, count = one["values"].as_py(), one["counts"].as_py()
            lines.append(
                f"{name}: {shown(word)} is kept as a text ({_rows(count)});"
                f" \"data.csv.null_values=['{word}']\" takes it as missing"
            )
    return lines


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _whole(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as whole ones, where all are."""
    is_whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**53))
    return numbers.cast(pa.int64()) if pc.all(is_whole).as_py() else numbers
