"""Tables: a file, a folder of files or rows in memory, read into Arrow columns whole or in batches.

Whatever the format, columns come as ``bool``, ``int64``, ``float64``, ``string``, ``timestamp("us")`` or, without
any value, ``null``. Rows are counted from 0 over all files in order; :meth:`TableSource.place` says where one is from.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, Union

import pyarrow as pa

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.tables.reading.columnar import ArrowFile, ColumnarFile, ParquetFile
from mlp_lightning.tables.reading.compressed import Allowance
from mlp_lightning.tables.reading.csv import CsvFile
from mlp_lightning.tables.reading.decoding import TableSize
from mlp_lightning.tables.reading.dialect import WITH_POINT, CsvDialect, known_encoding, read_dialect
from mlp_lightning.tables.reading.documents import ExcelFile, JsonFile
from mlp_lightning.tables.reading.faults import encoding_of, raise_encoding_fault, readable
from mlp_lightning.tables.reading.paths import (
    ARROW,
    EXCEL,
    JSON,
    PARQUET,
    TEXT,
    find_files,
    format_of,
    partition_values,
)
from mlp_lightning.tables.reading.types import (
    cast_column,
    common_type,
    normal_type,
    readable_type,
)

Types = Mapping[str, pa.DataType]
TableFile = Union[CsvFile, ColumnarFile]
BATCH_ROWS = 65_536
COLUMNAR: dict[str, type[ColumnarFile]] = {PARQUET: ParquetFile, ARROW: ArrowFile, JSON: JsonFile, EXCEL: ExcelFile}
_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)


class TableSource(ABC):
    """What a table is read from.

    Attributes:
        name: what messages call it, such as ``penguins.csv`` or ``folder (12 files)``.
        column_names: all its columns, in order.
        targets: the columns to predict, where the table says so.
        categorical: columns whose values are categories, where the table says so; they may be numbers.
        dialects: how the text files of the table are written; none if it stores values with their types.
        notes: lines on what of it is read.
        files: in the order of their rows; none if the table is in memory.
        other_sheets: the sheets of workbooks that are not read, by the columns that they have.
    """

    name: str
    column_names: list[str]
    targets: Sequence[str] = ()
    categorical: Sequence[str] = ()
    dialects: Sequence[CsvDialect] = ()
    notes: Sequence[str] = ()
    files: Sequence[TableFile] = ()
    other_sheets: Mapping[str, str] = {}

    @abstractmethod
    def read(self, columns: Sequence[str] | None = None, types: Types | None = None) -> pa.Table:
        """All rows of some columns.

        Args:
            columns: which ones, in this order; None: all.
            types: the Arrow type that a column must have; the others get the one that fits all their values.

        Raises:
            DataError: a column is not there, a file is damaged, a value is not of its type, or there are no rows.
        """

    @abstractmethod
    def batches(
        self, columns: Sequence[str] | None = None, types: Types | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The same rows in order, at most ``rows`` at once, in memory that does not grow with the table.

        Give a type for every column of a text file: one left out gets the type of its first values (the first
        mebibyte of the first file), and a later value that is not of it is an error.

        Raises:
            DataError: as :meth:`read`; it may come after rows that were already handed out.
        """

    @abstractmethod
    def place(self, row: int) -> str:
        """Where a row comes from, for messages: ``penguins.csv, line 17`` or ``part-2.parquet, row 5``.

        Lines count from 1 and include the header; rows of other files count from 1.

        Raises:
            IndexError: there is no such row.
        """

    @abstractmethod
    def written_numbers(self, columns: Sequence[str]) -> set[str]:
        """Those of the columns that, if they are numbers, are texts or not as a program writes numbers.

        Of text files, the first values are looked at.
        """

    def without(self, column: str) -> DataError:
        """The error for a column that it does not have."""
        return missing_column(self.name, column, self.column_names, self.other_sheets.get(column))

    def chosen(self, columns: Sequence[str] | None) -> list[str]:
        """The columns to read, each once.

        Raises:
            DataError: one of them is not there.
        """
        if columns is None:
            return list(self.column_names)
        known = set(self.column_names)
        for column in columns:
            if column not in known:
                raise self.without(column)
        return list(dict.fromkeys(columns))


def missing_column(source_name: str, name: str, known: Sequence[str], sheet: str | None = None) -> DataError:
    """The error for a column that a table does not have, with the nearest name and the columns that it has.

    Args:
        source_name: of the table.
        name: of the column.
        known: the columns that it has.
        sheet: of the same workbook that has the column, and is not read.
    """
    if sheet is not None:
        return DataError(
            f"{source_name} has no column {name!r} in the sheet that is read, the first one with rows; the sheet"
            f" {sheet!r} has one. Make {sheet!r} the first sheet of the workbook, or save it as CSV."
        )
    near = difflib.get_close_matches(name, known, n=1) or [one for one in known if one.lower() == name.lower()]
    listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    text = f"{source_name} has no column {name!r}"
    text += f"; did you mean {near[0]!r}? " if near else ". "
    text += f"Its columns are: {listed}."
    if len(known) == 1:
        text += " If its first line is a title, remove it; if something else stands between columns, set"
        text += " data.csv.delimiter."
    if any(map(WITH_POINT.fullmatch, known)):
        text += " These seem to be values: the first line of a text table must hold the names of the columns."
    return DataError(text)


class FileSource(TableSource):
    """A table in one file or in several of the same format and columns; made by :meth:`open`.

    Attributes:
        partitions: columns that the folders of the files stand for, each with one value for each file.
    """

    def __init__(
        self, files: Sequence[TableFile], name: str, partitions: Sequence[Mapping[str, str | None]] = ()
    ) -> None:
        self.files: Sequence[TableFile] = list(files)
        self.name = name
        self.column_names = list(files[0].column_names)
        self.dialects = [file.dialect for file in files if isinstance(file, CsvFile)]
        self.notes = [note for file in files if isinstance(file, ColumnarFile) for note in file.notes]
        sheets = [file.other_sheets for file in files if isinstance(file, ExcelFile)]
        self.other_sheets = {name: sheet for of_file in sheets for name, sheet in of_file.items()}
        # What a file itself has is exact; its folders only repeat it.
        self.partitions = partition_columns(partitions or [{} for _ in files], files[0].column_names)
        for file in self.files[1:]:
            check_same_columns(file, self.files[0])
        self.column_names = [*files[0].column_names, *self.partitions]

    @classmethod
    def open(cls, path: str, csv: CsvConfig) -> FileSource:
        """The source of a file, a folder (with those in it) or a pattern with ``*``; reads headers only.

        Args:
            path: where the table is.
            csv: how its text files are written.

        Raises:
            ConfigError: an invalid option of ``csv``.
            DataError: nothing there, nothing that can be read, or files that do not fit together.
        """
        if not isinstance(path, (str, Path)):
            rule, hint = (
                "is not a path",
                "train on a data frame with train(config, run_dir, frame=…), or write it to a file",
            )
            raise ConfigError([Fault("data.path", f"a {type(path).__name__}", rule, hint)])
        path = str(path)
        paths, root = find_files(path)
        names = [one.relative_to(root).as_posix() for one in paths]
        name = names[0] if len(names) == 1 else f"{Path(path).name or path} ({len(names)} files)"
        allowance, size = Allowance(paths), TableSize(paths, name)
        files: list[TableFile] = []
        if format_of(paths[0]) == TEXT:
            dialects = read_dialects(paths, names, csv)
            files += [CsvFile(*each, allowance) for each in zip(paths, names, dialects, strict=True)]
        else:
            opened = COLUMNAR[str(format_of(paths[0]))]
            for each in zip(paths, names, strict=True):
                file = opened(*each, allowance)
                size.add(file.kept)
                files.append(file)
        return cls(files, name, [partition_values(one, root) for one in paths])

    def read(self, columns: Sequence[str] | None = None, types: Types | None = None) -> pa.Table:
        chosen = self.chosen(columns)
        types = types or {}
        if not chosen:
            return self.read(self.column_names[:1]).select([])
        stored = [name for name in chosen if name not in self.partitions] or self.files[0].column_names[:1]
        tables, size = [], TableSize([file.path for file in self.files], self.name)
        for file in self.files:
            tables.append(file.read(stored, types))
            size.add(tables[-1])
        if len(tables) > 1:
            tables = self._of_one_schema(tables, stored, types)
        table = pa.concat_tables(self._with_partitions(one, at, chosen, types) for at, one in enumerate(tables))
        if not table.num_rows:
            raise self._no_rows()
        return table

    def batches(
        self, columns: Sequence[str] | None = None, types: Types | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        chosen = self.chosen(columns)
        given = dict(types or {})
        if not chosen:
            yield from self.read([]).to_batches(rows)
            return
        stored = [name for name in chosen if name not in self.partitions] or self.files[0].column_names[:1]
        if all(isinstance(file, ColumnarFile) for file in self.files):
            given = self._stored_types(stored) | given
        is_empty = True
        for at, file in enumerate(self.files):
            for batch in file.batches(stored, given, rows):
                is_empty = False
                given = {field.name: field.type for field in batch.schema if field.type != pa.null()} | given
                yield self._with_partitions(batch, at, chosen, given)
        if is_empty:
            raise self._no_rows()

    def place(self, row: int) -> str:
        left = row
        for file in self.files if row >= 0 else ():
            count = file.count_rows()
            if left < count:
                return file.place(left)
            left -= count
        raise IndexError(f"{self.name} has no row {row}")

    def written_numbers(self, columns: Sequence[str]) -> set[str]:
        stored = [name for name in columns if name not in self.partitions]
        found = {name for name in columns if name in self.partitions and self.partitions[name].type == pa.string()}
        for file in self.files:
            if isinstance(file, CsvFile):
                found |= file.columns_beyond_plain(stored)
            else:
                found |= text_columns(file.schema, stored)
        return found

    def _with_partitions(self, rows: _Rows, file: int, columns: Sequence[str], types: Types) -> _Rows:
        """Rows of a file with the columns that its folders stand for, in the order of ``columns``."""
        for name in columns:
            if name in self.partitions:
                value = self.partitions[name].slice(file, 1)
                value = cast_column(value, types.get(name, value.type), name, lambda _: self.files[file].name)
                rows = rows.append_column(name, pa.repeat(value[0], rows.num_rows))
        return rows.select(list(columns))

    def _stored_types(self, columns: Sequence[str]) -> dict[str, pa.DataType]:
        files = [file for file in self.files if isinstance(file, ColumnarFile)]
        return {
            column: common_type(readable_type(file.schema.field(column).type, column, file.name) for file in files)
            for column in columns
        }

    def _of_one_schema(self, tables: list[pa.Table], columns: Sequence[str], types: Types) -> list[pa.Table]:
        """The tables with a type for each column that fits the values of all."""
        common = {
            column: common_type(table.schema.field(column).type for table in tables)
            for column in columns
            if column not in types
        }
        for index, file in enumerate(self.files):
            table = tables[index]
            # A number that is a text in another file is read again as it was written: 007 is not 7.
            again = [
                column
                for column, type_ in common.items()
                if type_ == pa.string() and table.schema.field(column).type not in (pa.string(), pa.null())
            ]
            reread = file.read(again, dict.fromkeys(again, pa.string())) if again else None
            for position, column in enumerate(columns):
                if reread is not None and column in again:
                    table = table.set_column(position, column, reread.column(column))
                elif table.schema.field(column).type != common.get(column, table.schema.field(column).type):
                    cast = cast_column(table.column(position), common[column], column, file.place)
                    table = table.set_column(position, column, cast)
            tables[index] = table
        return tables

    def _no_rows(self) -> DataError:
        return DataError(f"{self.name} has columns but no rows; there is nothing to learn or to predict from.")


def text_columns(schema: pa.Schema, columns: Sequence[str]) -> set[str]:
    """Those of the columns that hold texts."""
    return {name for name in columns if normal_type(schema.field(name).type) == pa.string()}


def partition_columns(
    partitions: Sequence[Mapping[str, str | None]], known: Sequence[str]
) -> dict[str, pa.ChunkedArray]:
    """What the folders of files say, as columns with one value for each file; whole numbers if all are.

    Raises:
        DataError: the folders of some files do not say the same columns.
    """
    columns = {}
    for name in dict.fromkeys(name for one in partitions for name in one if name not in known):
        if not all(name in one for one in partitions):
            raise DataError(
                f"Some files of the table lie in folders {name}=…, and others do not. Give all of them one."
            )
        values = [one[name] for one in partitions]
        whole = all(one is None or re.fullmatch("0|-?[1-9][0-9]{0,17}", one) for one in values)
        columns[name] = pa.chunked_array([pa.array(values, pa.string())]).cast(pa.int64() if whole else pa.string())
    return columns


def read_dialects(paths: Sequence[Path], names: Sequence[str], csv: CsvConfig) -> list[CsvDialect]:
    """How each text file is written; one without a number that decides has the decimal mark of the others."""
    dialects = []
    for path, name in zip(paths, names, strict=True):
        with readable(name, "a text file"):
            dialect = read_dialect(path, name, csv)
            if any("\ufffd" in column for column in dialect.header):  # what stands for bytes that are no character
                raise_encoding_fault(path, name, dialect.encoding)
            dialects.append(dialect)
    marks = {dialect.decimal for dialect in dialects} - {None}
    common = "," if marks == {","} else "."
    return [dataclasses.replace(dialect, decimal=dialect.decimal or common) for dialect in dialects]


def refuse_mixed_encodings(sources: Sequence[TableSource], encoding: str) -> None:
    """Refuse text files of UTF-8 beside others in another encoding, which one option cannot name.

    Args:
        sources: that are read with one section of options.
        encoding: that the options name.

    Raises:
        DataError: naming a file of each.
    """
    if known_encoding(encoding) == "utf-8":  # which refuses all other texts
        return
    files = [file for source in sources for file in source.files if isinstance(file, CsvFile)]
    of = {file: encoding_of(file.path) for file in files} if len(files) > 1 else {}
    of_utf8, others = ([file.name for file, found in of.items() if found == one] for one in ("utf-8", ""))
    if of_utf8 and others:
        raise DataError(
            f"{of_utf8[0]} is UTF-8 and {others[0]} is not, and data.csv.encoding={encoding} holds for both: it would"
            f" read other characters in {of_utf8[0]}. Save all files in one encoding."
        )


def check_same_columns(file: TableFile, first: TableFile) -> None:
    """Every file of a table has the same columns; their order may differ.

    Raises:
        DataError: with the columns that only one of them has.
    """
    lacking = [name for name in first.column_names if name not in set(file.column_names)]
    surplus = [name for name in file.column_names if name not in set(first.column_names)]
    if lacking or surplus:
        parts = [f"lacks {', '.join(map(repr, lacking))}"] if lacking else []
        parts += [f"also has {', '.join(map(repr, surplus))}"] if surplus else []
        raise DataError(
            f"The files of a table must have the same columns: compared with {first.name}, {file.name} "
            f"{' and '.join(parts)}. Give both the same columns, or leave one out with a pattern in data.path."
        )
