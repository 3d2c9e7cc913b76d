"""One text table: read whole, streamed, and searched for the line of a row."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.compressed import Allowance, open_bytes
from mlp_lightning.tables.reading.decoding import VALUE_BYTES
from mlp_lightning.tables.reading.dialect import SEPARATOR_LINE, CsvDialect, read_sample, records_of
from mlp_lightning.tables.reading.faults import (
    csv_records,
    first_line,
    long_values,
    raise_csv_fault,
    raise_encoding_fault,
    readable,
)
from mlp_lightning.tables.reading.limits import ROW_BYTES
from mlp_lightning.tables.reading.types import cast_column, normal_type, normalised, sliced, with_points

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute
Types = Mapping[str, pa.DataType]
# A row must fit into a block; larger blocks are tried when one does not.
BLOCK_BYTES = (1 << 20, ROW_BYTES)
RETRIES = 4  # columns whose first values may mislead before all columns are inferred from all values
HINT = "correct it, or list it in data.csv.null_values if it stands for a missing value"


class ConversionError(Exception):
    """A value is not of its column's type, as Arrow's reader judges it."""

    def __init__(self, column: str | None) -> None:
        self.column = column
        super().__init__(column)


class BlockTooSmallError(Exception):
    """A row is longer than a block."""


class CsvFile:
    """A text file with a header and one row for each line.

    Args:
        path: the file, compressed or not.
        name: what messages call it.
        dialect: how it is written.
        allowance: of the files of its table; None: it is the only one.
    """

    kind = "a CSV file"

    def __init__(self, path: Path, name: str, dialect: CsvDialect, allowance: Allowance | None = None) -> None:
        self.path = path
        self.name = name
        self.dialect = dialect
        self._allowance = allowance
        self.column_names = list(dialect.header)
        self._rows: int | None = None

    def read(self, columns: Sequence[str], types: Types) -> pa.Table:
        """All rows; columns that ``types`` leaves out get the type that fits all their values.

        Raises:
            DataError: the file is damaged, or a value is not of its column's type.
        """
        given = {column: types[column] for column in columns if column in types}
        try:
            table = self._read_inferred(columns, given) if len(given) < len(columns) else self._read(columns, given)
        except ConversionError:
            table = self._cast(self._read_inferred(columns, as_texts(given)), given, 0)
        self._rows = table.num_rows
        self._check_texts(table.schema)
        return normalised(self._without_bare_words(table), self.name, keep=given)

    def batches(self, columns: Sequence[str], types: Types, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows in order, at most ``rows`` at once, never the whole file in memory.

        Columns that ``types`` leaves out get the type of the values in the first block, to which all others must keep.

        Raises:
            DataError: as :meth:`read`.
        """
        given = self._first_types(columns, types)
        done = 0
        bare_only = self.dialect.quotes_texts and pa.string() in given.values()
        try:
            for batch in self._stream(columns, given, bare_only=bare_only):
                yield from sliced(batch, rows)
                done += batch.num_rows
        except ConversionError:
            # What Arrow's reader does not take may still be of the type, such as 2.0 for a whole number.
            for batch in self._stream(columns, as_texts(given), done, bare_only):
                table = self._cast(pa.Table.from_batches([batch]), given, done)
                yield from sliced(table.combine_chunks().to_batches()[0], rows)
                done += batch.num_rows
        self._rows = done

    def count_rows(self) -> int:
        if self._rows is None:
            first = self.column_names[:1]
            self._rows = sum(batch.num_rows for batch in self._stream(first, dict.fromkeys(first, pa.binary())))
        return self._rows

    def columns_beyond_plain(self, columns: Sequence[str]) -> set[str]:
        """Those of the columns in whose first values are texts that a program does not write for a number."""
        return {name for name, found in self.first_texts(columns).items() if not all(map(self._is_plain, found))}

    def first_texts(self, columns: Sequence[str]) -> dict[str, set[str]]:
        """The first values of columns as they are written, without those that are missing."""
        sample, is_whole = read_sample(self.path, self.name, self.dialect.encoding)
        before = SEPARATOR_LINE.match(sample)
        sample = sample if before is None else sample[before.end() :]
        records = records_of(sample, self.dialect.delimiter, is_whole)[1:]
        missing, at = set(self.dialect.null_values), {name: self.column_names.index(name) for name in columns}
        return {
            name: {record[index] for record in records if index < len(record)} - missing for name, index in at.items()
        }

    def written_texts(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All values of columns as they are written, those that stand for a missing value too."""
        options = dataclasses.replace(self.dialect.options, null_values="auto")
        as_written = dataclasses.replace(self.dialect, null_values=("",), options=options, quotes_texts=False)
        file = CsvFile(self.path, self.name, as_written)
        return file._stream(columns, dict.fromkeys(columns, pa.string())) if columns else iter(())

    def _is_plain(self, text: str) -> bool:
        """Whether Arrow's reader takes a text for a number or a truth value."""
        if self.dialect.decimal == ",":
            text = text.replace(".", "?").replace(",", ".")
        try:
            float(text)
        except ValueError:
            return text.strip().lower() in ("true", "false")
        return "_" not in text

    def place(self, row: int) -> str:
        """The line on which a row begins, found by reading up to it."""
        try:
            with long_values():
                line, _ = next(islice(csv_records(self.path, self.dialect), row, None))
        except (UnicodeError, csv.Error, StopIteration):
            return f"{self.name}, row {row + 1}"
        return f"{self.name}, line {line}"

    def _first_types(self, columns: Sequence[str], types: Types) -> dict[str, pa.DataType]:
        """A type for every column: those of ``types``, else those of the first block's values."""
        given = {column: types[column] for column in columns if column in types}
        inferred = [column for column in columns if column not in types]
        if inferred:
            schema = next((batch.schema for batch in self._stream(inferred, {})), pa.schema([]))
            self._check_texts(schema)
            given |= {field.name: normal_type(field.type) or pa.string() for field in schema}
        return {column: given.get(column, pa.null()) for column in columns}

    def _read_inferred(self, columns: Sequence[str], types: Types) -> pa.Table:
        """All rows; a column not in ``types`` gets the type that fits all its values.

        Arrow's reader infers that too, but keeps the text of all columns meanwhile (2.5 times the table). Most columns
        have the type of their first values, so that is tried first; where it fails, all values are inferred. A type
        that the first values need and all values have is also the result of that inference, so both ways agree.
        """
        tried = self._first_types(columns, types)
        for _ in range(RETRIES):
            try:
                return self._read(columns, tried)
            except ConversionError as error:
                if error.column not in tried or error.column in types:
                    break
                del tried[error.column]
        table = self._read(columns, types)
        times = [field.name for field in table.schema if pa.types.is_time(field.type)]
        if times:  # a time of day is not a supported type: keep the text as written
            table = self._read(columns, {**types, **dict.fromkeys(times, pa.string())})
        return table

    def _read(self, columns: Sequence[str], types: Types, bare_only: bool = False) -> pa.Table:
        if not self.dialect.has_rows:
            return pa.table({column: pa.array([], types.get(column, pa.null())) for column in columns})
        row_bytes = VALUE_BYTES * len(columns)
        for block_bytes in BLOCK_BYTES:
            with contextlib.suppress(BlockTooSmallError), self._faults_reported(), self._opened(row_bytes) as file:
                table = pyarrow.csv.read_csv(file, *self._options(columns, types, block_bytes, bare_only))
                self._check_end(table)
                return self._without_blanks(table.select(list(columns)))
        raise self._too_long()

    def _stream(
        self, columns: Sequence[str], types: Types, skip: int = 0, bare_only: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Batches as Arrow's reader cuts them, without the first ``skip`` rows."""
        if not self.dialect.has_rows:
            return
        for block_bytes in BLOCK_BYTES:
            seen = 0
            last = None
            with contextlib.suppress(BlockTooSmallError), self._faults_reported(), self._opened() as file:
                for batch in pyarrow.csv.open_csv(file, *self._options(columns, types, block_bytes, bare_only)):
                    new = min(max(seen + batch.num_rows - skip, 0), batch.num_rows)
                    seen += batch.num_rows
                    if new:
                        skip, last = seen, batch
                        rest = pa.Table.from_batches([batch.slice(batch.num_rows - new).select(list(columns))])
                        yield from self._without_blanks(rest).to_batches()
                if last is not None:
                    self._check_end(last)
                return
        raise self._too_long()

    def _opened(self, row_bytes: int = 0) -> pa.NativeFile:
        return open_bytes(self.path, self._allowance, row_bytes)

    def _options(
        self, columns: Sequence[str], types: Types, block_bytes: int, bare_only: bool
    ) -> tuple[pyarrow.csv.ReadOptions, pyarrow.csv.ParseOptions, pyarrow.csv.ConvertOptions]:
        """How Arrow reads; with ``bare_only``, a word in quotes is never a missing value."""
        dialect = self.dialect
        last = self.column_names[-1]
        # The last column is always read: only it can show that a quotation mark swallowed the rest of the file.
        unasked = {} if last in columns else {last: pa.binary()}
        return (
            pyarrow.csv.ReadOptions(
                skip_rows=dialect.header_lines,
                column_names=self.column_names,
                block_size=block_bytes,
                encoding="utf8" if dialect.encoding == "utf-8" else dialect.encoding,
            ),
            # Line breaks in values cost nothing measurable; without them a block could end inside a value unseen.
            pyarrow.csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                include_columns=[*columns, *unasked],
                column_types={**types, **unasked},
                null_values=list(dialect.null_values),
                strings_can_be_null=bare_only or dialect.options.null_values != "auto",
                quoted_strings_can_be_null=not bare_only,
                decimal_point=dialect.decimal or ".",
            ),
        )

    def _without_words(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Values to be read as something else than text: texts that stand for a missing value are missing."""
        is_missing = pc.is_in(texts, value_set=pa.array(self.dialect.null_values))
        return pc.if_else(is_missing, pa.scalar(None, pa.string()), texts)

    def _without_bare_words(self, table: pa.Table) -> pa.Table:
        """The table with missing values for words such as NA in columns of texts, where all texts are in quotes."""
        words = pa.array(self.dialect.null_values)
        again = [
            field.name
            for field in table.schema
            if self.dialect.quotes_texts
            and pa.types.is_string(field.type)
            and pc.any(pc.is_in(table.column(field.name), value_set=words)).as_py()
        ]
        if again:
            read = self._read(again, dict.fromkeys(again, pa.string()), bare_only=True)
            for name in again:
                table = table.set_column(table.column_names.index(name), name, read.column(name))
        return table

    def _without_blanks(self, table: pa.Table) -> pa.Table:
        """The table with a missing value for every text of at most blanks, which Arrow's reader keeps among words."""
        if self.dialect.options.null_values != "auto":
            return table
        blank = pa.array([text for text in self.dialect.null_values if not text.strip()])
        for index, field in enumerate(table.schema):
            if pa.types.is_string(field.type):
                values = table.column(index)
                is_blank = pc.is_in(values, value_set=blank)
                if pc.any(is_blank).as_py():
                    values = pc.if_else(is_blank, pa.scalar(None, pa.string()), values)
                    table = table.set_column(index, field.name, values)
        return table

    @contextlib.contextmanager
    def _faults_reported(self) -> Iterator[None]:
        """Turn errors of Arrow's reader into errors that say what to do."""
        try:
            with readable(self.name, self.kind, csv=True):
                yield
        except UnicodeDecodeError as error:
            raise_encoding_fault(self.path, self.name, self.dialect.encoding)
            raise DataError(f"{self.name} is not text in the encoding {self.dialect.encoding}: {error}.") from None
        except pa.ArrowInvalid as error:
            text = str(error)
            if "conversion error" in text and "UTF8" not in text:
                number = re.search(r"column #(\d+)", text)
                raise ConversionError(self.column_names[int(number[1])] if number else None) from None
            raise_csv_fault(self.path, self.name, self.dialect)
            if "straddl" in text:
                raise BlockTooSmallError from None
            raise DataError(f"{self.name} cannot be read as {self.kind}: {first_line(error)}.") from None

    def _check_end(self, rows: pa.Table | pa.RecordBatch) -> None:
        """A line break in the file's last value may be in quotes, or behind an unclosed quote."""
        if rows.num_rows:
            value = rows.column(self.column_names[-1])[-1].as_py()
            if (isinstance(value, str) and "\n" in value) or (isinstance(value, bytes) and b"\n" in value):
                raise_csv_fault(self.path, self.name, self.dialect)

    def _check_texts(self, schema: pa.Schema) -> None:
        if any(pa.types.is_binary(field.type) for field in schema):  # what Arrow makes of texts that are not UTF-8
            raise_encoding_fault(self.path, self.name, self.dialect.encoding)

    def _cast(self, table: pa.Table, types: Types, first_row: int) -> pa.Table:
        for index, field in enumerate(table.schema):
            target = types.get(field.name, field.type)
            if field.type != target:
                texts = self._without_words(table.column(index))
                values = with_points(texts) if self.dialect.decimal == "," and target == pa.float64() else texts
                cast = cast_column(values, target, field.name, lambda row: self.place(first_row + row), HINT, texts)
                table = table.set_column(index, field.name, cast)
        return table

    def _too_long(self) -> DataError:
        return DataError(f"{self.name} has a row of more than {BLOCK_BYTES[-1]:,} bytes; is it a table?")


def as_texts(types: Types) -> dict[str, pa.DataType]:
    return dict.fromkeys(types, pa.string())
