"""Columns of texts like clocks: times of day, or durations, which are numbers of seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from mlp_lightning.config.free_names import column_option
from mlp_lightning.errors import DataError
from mlp_lightning.tables.columns import Place
from mlp_lightning.tables.reading.durations import UNITS, clocks_of, seconds
from mlp_lightning.tables.reading.numbers import NumberForm, parsed, shown, whole, without_words
from mlp_lightning.tables.reading.types import AS_MISSING


def read_durations(
    table: pa.Table,
    columns: Mapping[str, pa.ChunkedArray],
    kinds: Mapping[str, str],
    trained: Mapping[str, NumberForm],
    words: frozenset[str],
    place: Place,
) -> tuple[pa.Table, dict[str, NumberForm], list[str]]:
    """The table with seconds for durations, how they are written, and a line on each of their columns.

    Args:
        table: all rows.
        columns: those of texts.
        kinds: of the columns: ``numeric`` where somebody says that they are numbers, else ``auto``.
        trained: how the columns of an earlier training are written.
        words: texts in lower case that stand for a missing value.
        place: the location of the row with a number.

    Raises:
        DataError: durations and something else, or what may be times of day or durations.
    """
    forms, notes = _duration_forms(columns, kinds, trained, words, place), []
    for name, form in forms.items():
        notes.append(_note_on_durations(name, columns[name], form, kinds[name] == "numeric"))
        numbers, _ = parsed(columns[name], form, words)
        table = table.set_column(table.column_names.index(name), name, whole(numbers))
    return table, forms, notes


def _duration_forms(
    columns: Mapping[str, pa.ChunkedArray],
    kinds: Mapping[str, str],
    trained: Mapping[str, NumberForm],
    words: frozenset[str],
    place: Place,
) -> dict[str, NumberForm]:
    """How the durations are written of those columns that hold some."""
    forms = {}
    for name, values in columns.items():
        if trained.get(name, NumberForm()).unit in UNITS:
            forms[name] = trained[name]
            parsed_durations(name, values, trained[name], words, place)
            continue
        texts = without_words(values, words)
        found = clocks_of(texts.drop_null())
        if found is None:
            continue
        is_asked = kinds[name] == "numeric"
        are_all = found.count == len(texts) - texts.null_count
        if not (is_asked or found.are_durations or (are_all and found.unit == UNITS[2])):
            continue  # times of day
        form = NumberForm(unit=found.unit)
        if not are_all:
            _, bad = parsed(values, form, words)
            assert bad is not None
            raise DataError(
                f"{place(bad)}: column {name!r} has durations (such as {', '.join(map(shown, found.shown))}), but"
                f" {shown(values[bad].as_py())} here. Correct the value;"
                f" {AS_MISSING}{_or_categories(name, is_asked)}."
            )
        if not (is_asked or found.are_durations):
            row = next(row for row, one in enumerate(values) if (one.as_py() or "").strip() == found.shown[1])
            raise DataError(
                f"{place(row)}: column {name!r} has {found.shown[1]!r}, and {found.shown[0]!r} elsewhere: durations"
                " (minutes and seconds; hours, minutes and seconds), or times of day. Say"
                f" {column_option(name, 'kind', 'numeric')} for durations, {column_option(name, 'kind', 'datetime')}"
                " for times of day."
            )
        forms[name] = form
    return forms


def _or_categories(name: str, is_asked: bool) -> str:
    return "" if is_asked else f"; if the column holds categories, set {column_option(name, 'kind', 'categorical')}"


def parsed_durations(
    name: str, values: pa.ChunkedArray, form: NumberForm, words: frozenset[str], place: Place
) -> pa.ChunkedArray:
    """Durations of new rows as seconds.

    Raises:
        DataError: one is written in another way than those of the training rows.
    """
    numbers, bad = parsed(values, form, words)
    if bad is not None:
        raise DataError(
            f"{place(bad)}: column {name!r} holds {shown(values[bad].as_py())}, which is no duration as the training"
            f" rows have them ({form.unit}). Write it like them; {AS_MISSING}."
        )
    return numbers


def _note_on_durations(name: str, values: pa.ChunkedArray, form: NumberForm, is_asked: bool) -> str:
    """A line on what durations are read as."""
    text = without_words(values, frozenset()).drop_null()[0].as_py()
    number = seconds(pa.chunked_array([[text]]), form.unit)[0].as_py()
    option = "" if is_asked else f"; {column_option(name, 'kind', 'categorical')} if it is none"
    return f"{name}: {text!r} is read as a duration, {number:.12g} (in units of its last part){option}"


def note_on_times_of_day(names: Sequence[str]) -> list[str]:
    """A line on each column of times of day that may be durations."""
    options = {name: column_option(name, "kind", "numeric") for name in names}
    return [f"{name}: taken as times of day; {option} if these are durations" for name, option in options.items()]
