"""Numbers of new rows that are written as people write them: read part by part, as the training rows were read.

All values of a column say how its numbers are written, so such a column is read twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.numbers import Examined, NumberForm, examine, parsed, shown
from mlp_lightning.tables.reading.sources import TableSource
from mlp_lightning.tables.written_durations import parsed_durations
from mlp_lightning.tables.written_numbers import (
    Forms,
    Hints,
    Place,
    form_of,
    notes_on_numbers,
    refuse_faulty,
    refuse_other_unit,
)


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
    new_rows = _NewRows(source, types, rows, dataclasses.replace(Hints.of(source), trained=trained), notes)
    forms = new_rows.forms([name for name in counted if name in written])
    done = 0
    try:
        for batch in new_rows.batches(names, forms):
            yield batch
            done += batch.num_rows
        return
    except DataError:
        late = [name for name in counted if name not in forms]
        if not source.dialects or not late:
            raise
    # Numbers of a text file that are plain at first may be written otherwise further behind.
    forms |= new_rows.forms(late, done)
    for batch in new_rows.batches(names, forms):
        skipped = min(done, batch.num_rows)
        done -= skipped
        yield batch.slice(skipped)


@dataclasses.dataclass
class _NewRows:
    """Reads the numbers of new rows.

    Attributes:
        source: of the rows.
        types: of the columns.
        rows: most rows at once.
        hints: what decides where the values of a column do not.
        notes: what to tell the user is added.
    """

    source: TableSource
    types: Mapping[str, pa.DataType]
    rows: int
    hints: Hints
    notes: list[str]

    def forms(self, names: Sequence[str], done: int = 0) -> dict[str, NumberForm]:
        """How the numbers of columns are written, by all their values.

        Args:
            names: of the columns.
            done: how many rows have been read as the dialect of the file says.
        """
        trained = {name: self.hints.trained[name] for name in names if name in self.hints.trained}
        of_durations = {name: form for name, form in trained.items() if form.is_duration}
        names = [name for name in names if name not in of_durations]
        if not names:
            return of_durations
        before, after = dict.fromkeys(names, Examined()), dict.fromkeys(names, Examined())
        first_row = 0
        for batch in self.source.batches(names, dict.fromkeys(names, pa.string()), self.rows):
            split = min(max(done - first_row, 0), batch.num_rows)
            first_row += batch.num_rows
            for found, part in ((before, batch.slice(0, split)), (after, batch.slice(split))):
                for name in names if part.num_rows else ():
                    found[name] += examine(pa.chunked_array([part.column(name)]), self.hints.words)
        examined = {name: before[name] + after[name] for name in names}
        self.hints = self.hints.beside(examined)
        forms = {name: _form_of_new_rows(name, found, self.source, self.hints) for name, found in examined.items()}
        for name, form in forms.items():
            _refuse_late_marks(name, form, before[name], self.source)
            if form != self.hints.trained.get(name, NumberForm()):
                self.notes += notes_on_numbers(name, examined[name], form)
        return forms | of_durations

    def batches(self, names: Sequence[str], forms: Forms) -> Iterator[pa.RecordBatch]:
        """The rows, with numbers in the columns of these forms."""
        types, first_row = self.types, 0
        for batch in self.source.batches(names, {**types, **dict.fromkeys(forms, pa.string())}, self.rows):
            for name, form in forms.items():
                values = pa.chunked_array([batch.column(name)])
                if form.is_duration:
                    numbers = parsed_durations(name, values, form, self.hints.words, self._place_after(first_row))
                else:
                    numbers, bad = parsed(values, form, self.hints.words)
                    assert bad is None, (self.source.place(first_row + (bad or 0)), name)
                position = batch.schema.get_field_index(name)
                batch = batch.set_column(position, name, numbers.cast(types[name]).combine_chunks())
            first_row += batch.num_rows
            yield batch

    def _place_after(self, first_row: int) -> Place:
        return lambda row: self.source.place(first_row + row)


def _refuse_late_marks(name: str, form: NumberForm, before: Examined, source: TableSource) -> None:
    """Refuse a column whose first numbers were read with another decimal mark than its later ones have.

    Raises:
        DataError: with both, and the option that says so from the start.
    """
    if not before.marks or all(one.decimal == form.decimal for one in source.dialects):
        return
    option = "'data.csv.decimal=\",\"'" if form.decimal == "," else "data.csv.decimal=."
    raise DataError(
        f"{source.name}: column {name!r} begins with numbers such as {shown(before.shown[0])}, and only later"
        f" rows say what a point and a comma are. Say it with {option} from the start."
    )


def _unlike_programs(source: TableSource, trained: Mapping[str, NumberForm | None]) -> set[str]:
    """Columns whose training rows were written in a way that these rows may not show at once.

    Stored numbers lack the unit of the training rows: 12% may be stored as 12 or as 0.12, and $5 as 500 cents. Read as
    texts, they are refused as numbers without a unit are.
    """
    if not source.dialects:
        return {name for name, form in trained.items() if form is not None and form.unit}
    commas = all(one.is_decided and one.decimal == "," for one in source.dialects)
    plain = (None, NumberForm(","), NumberForm()) if commas else (None, NumberForm())
    return {name for name, form in trained.items() if form not in plain}


def _form_of_new_rows(name: str, found: Examined, source: TableSource, hints: Hints) -> NumberForm:
    trained = hints.trained.get(name, NumberForm())
    if not found.present:
        return trained
    refuse_faulty(name, found, source.place, is_asked=True)
    form = form_of(name, found, source.name, hints)
    refuse_other_unit(name, found.shown[0], form, trained, source.name)
    return form
