"""Columns of numbers that are texts, as people and spreadsheets write them: read as numbers, or refused.

What a point or a comma means is decided by all values of a column, then by the other columns, then by the training
rows, then by the delimiter of the file. Where all of these leave it open, the column is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.config import CsvConfig
from mlp_lightning.config.free_names import column_option
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
    whole,
)
from mlp_lightning.tables.reading.sources import TableSource
from mlp_lightning.tables.reading.types import AS_MISSING
from mlp_lightning.tables.written_durations import read_durations

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute

#: How the numbers of columns are written, by name of the column.
Forms = Mapping[str, NumberForm]
Place = Callable[[int], str]
_MARKS = {"none": "", "space": " ", "apostrophe": "'"}
MOST_CLASSES_OF_DIGITS = 20
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
class Hints:
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
    def of(cls, source: TableSource) -> Hints:
        options = source.dialects[0].options if source.dialects else CsvConfig()
        return cls(
            None if options.decimal == "auto" else options.decimal,
            None if options.thousands == "auto" else _MARKS.get(options.thousands, options.thousands),
            WORDS_AMONG_NUMBERS if options.null_values == "auto" else frozenset(),
            frozenset(one.delimiter for one in source.dialects),
            frozenset(one.decimal for one in source.dialects if one.is_decided and one.decimal),
        )

    def beside(self, examined: Mapping[str, Examined]) -> Hints:
        """The same with the marks of columns that leave nothing open."""
        seen = {
            one.forms[0].decimal
            for one in examined.values()
            if one.are_numbers and len(one.forms) == 1 and one.marks & _POINT_AND_COMMA
        }
        return dataclasses.replace(self, seen=self.seen | seen)


def number_forms(preprocessing: Mapping[str, Any] | None) -> dict[str, NumberForm]:
    """How the training rows of a model are written, by what it says of its columns."""
    stored = (preprocessing or {}).get("number_forms", {})
    return {name: NumberForm.from_dict(plain) for name, plain in stored.items()}


def read_numbers(
    table: pa.Table,
    source: TableSource,
    kinds: Mapping[str, str],
    targets: Collection[str] = (),
    trained: Forms | None = None,
) -> WrittenNumbers:
    """Read the columns of texts that are numbers.

    Args:
        table: all rows of some columns of the source.
        source: of the rows.
        kinds: of the columns that may be numbers: ``numeric`` where somebody says so, else ``auto``.
        targets: which of them are to be predicted.
        trained: how the rows of an earlier training are written, which these rows continue; ``None`` without one.

    Raises:
        DataError: a column has numbers and other texts, numbers that can be read in two ways, or another unit than
            in the earlier training.
    """
    texts = [name for name in table.column_names if name in kinds and pa.types.is_string(table.column(name).type)]
    hints = dataclasses.replace(Hints.of(source), trained=trained or {})
    if trained is not None:
        _refuse_bare_numbers(table, source.name, kinds, trained)
    columns = {name: table.column(name) for name in texts}
    table, of_durations, notes = read_durations(table, columns, kinds, hints.trained, hints.words, source.place)
    texts = [name for name in texts if name not in of_durations]
    texts = [name for name in texts if kinds[name] == "numeric" or may_be_numbers(columns[name], hints.words)]
    examined = {name: examine(columns[name], hints.words) for name in texts}
    hints = hints.beside(examined)
    for name in texts:
        found, is_asked = examined[name], kinds[name] == "numeric"
        refuse_faulty(name, found, source.place, is_asked, name in targets)
        is_code = not is_asked and _are_codes(columns[name], found, source, name in targets)
        if is_code and found.are_numbers and name not in targets:
            option = column_option(name, "kind", "numeric")
            notes.append(f"{name}: digits stored as texts are categories; {option} if they count")
        if is_code or not found.are_numbers:
            del examined[name]
    again = _perhaps_thousands(table, source, kinds, hints)
    if again:
        columns |= dict(zip(again, source.read(again, dict.fromkeys(again, pa.string())).columns, strict=True))
        examined |= {name: examine(columns[name], hints.words) for name in again}
        hints = hints.beside(examined)
    forms = {name: form_of(name, found, source.name, hints) for name, found in examined.items()}
    for name, form in forms.items():
        if trained is not None:
            refuse_other_unit(name, examined[name].shown[0], form, trained.get(name, NumberForm()), source.name)
        if name in again and form.is_plain:
            continue
        numbers, bad = parsed(columns[name], form, hints.words)
        assert bad is None, (name, form)
        notes += notes_on_numbers(name, examined[name], form)
        table = table.set_column(table.column_names.index(name), name, whole(numbers))
    if hints.seen == {","}:
        # As the delimiter, a decimal comma is a habit of a file; new rows may not show it.
        floats = [name for name in kinds if name in table.column_names and pa.types.is_floating(table[name].type)]
        forms = dict.fromkeys(floats, NumberForm(",")) | forms
    forms |= of_durations
    return WrittenNumbers(table, {name: form for name, form in forms.items() if not form.is_plain}, notes)


def _are_codes(values: pa.ChunkedArray, found: Examined, source: TableSource, is_target: bool) -> bool:
    """Whoever stored digits as texts wanted texts; but hundreds of them are no classes."""
    are_many = is_target and pc.count_distinct(values).as_py() > MOST_CLASSES_OF_DIGITS
    return not source.dialects and found.are_digits and not are_many


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
    if found.are_numbers and found.minus_behind and not found.marks and not is_asked:
        option = "task=multiclass" if is_target else column_option(name, "kind", "categorical")
        number = "task=regression" if is_target else column_option(name, "kind", "numeric")
        listed = ", ".join(map(shown, dict.fromkeys([found.minus_behind, *found.shown])))
        raise DataError(
            f"{place(0)} and further: column {name!r} holds {listed}. The first may be a number below zero, or a"
            f" category such as a mark: set {number} or {option}."
        )
    if not (found.are_faulty_numbers or (is_asked and found.present and not found.are_numbers)):
        return
    listed = ", ".join(map(shown, found.shown))
    option = "task=multiclass" if is_target else column_option(name, "kind", "categorical")
    otherwise = "" if is_asked else f"; if the column holds categories, set {option}"
    if found.other is not None:
        row, text = found.other
        what = f"has numbers in {_rows(found.numbers)} (such as {listed}), but {shown(text)} here"
        if not found.numbers:
            what = f"holds {shown(text)}, which is not a number"
        raise DataError(f"{place(row)}: column {name!r} {what}. Correct the value; {AS_MISSING}{otherwise}.")
    units = ", ".join(f"{unit!r} ({count:,})" if unit else f"none ({count:,})" for unit, count in found.units.items())
    how = f"have different units ({units})" if len(found.units) > 1 else "are not all written in one way"
    raise DataError(
        f"{place(0)} and further: the numbers in column {name!r} (such as {listed}) {how}. Write them alike{otherwise}."
    )


def _perhaps_thousands(table: pa.Table, source: TableSource, kinds: Mapping[str, str], hints: Hints) -> list[str]:
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


def form_of(name: str, found: Examined, table: str, hints: Hints) -> NumberForm:
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
            f" option out, correct the values, or leave the column out with {column_option(name, 'kind', 'ignored')}."
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
    how = "say which with data.csv.decimal=. or 'data.csv.decimal=\",\"'" if hints.delimiters else "store numbers"
    raise DataError(
        f"{table}: column {name!r} holds numbers such as {listed}; nothing says whether their points and commas stand"
        f" before decimals or between thousands: {how}."
    )


def refuse_other_unit(name: str, text: str, form: NumberForm, trained: NumberForm, table: str) -> None:
    """Refuse numbers with another unit than those of the training rows, or without it.

    Raises:
        DataError: with what to do.
    """
    if form.unit == trained.unit:
        return
    of = [f"the unit {one!r}" if one else "no unit" for one in (form.unit, trained.unit)]
    advice = f"Convert them into texts with the unit {trained.unit!r}" if trained.unit else "Convert them"
    if not form.unit:
        advice = f"Write them as texts with the unit {trained.unit!r}"
        advice += ": a percentage is also stored as its hundredth" if trained.unit == "%" else ""
    raise DataError(
        f"{table}: the numbers in column {name!r} (such as {shown(text)}) have {of[0]}, and those of the training rows"
        f" have {of[1]}. {advice}."
    )


def _refuse_bare_numbers(table: pa.Table, name_of_table: str, kinds: Mapping[str, str], trained: Forms) -> None:
    """Refuse stored numbers in columns whose training rows have a unit."""
    for name, form in trained.items():
        if not form.unit or name not in kinds or name not in table.column_names:
            continue
        values = table.column(name).drop_null()
        if len(values) and not pa.types.is_string(values.type):
            refuse_other_unit(name, str(values[0].as_py()), NumberForm(), form, name_of_table)


def notes_on_numbers(name: str, found: Examined, form: NumberForm) -> list[str]:
    """What to tell the user of a column, a line each."""
    lines = []
    if not form.is_plain and found.shown:
        number = parsed(pa.chunked_array([[found.shown[0]]]), form)[0][0].as_py()
        lines.append(f"{name}: numbers are written as {shown(found.shown[0])}, which is read as {number:.12g}")
    if found.minus_behind and (form.is_plain or found.minus_behind != found.shown[0]):
        number = parsed(pa.chunked_array([[found.minus_behind]]), form)[0][0].as_py()
        lines.append(f"{name}: {shown(found.minus_behind)} is read as {number:.12g}")
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
