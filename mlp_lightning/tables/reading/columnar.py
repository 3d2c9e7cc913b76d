"""One Parquet, Feather or Arrow file: read whole and streamed."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from mlp_lightning.tables.reading.arrow_messages import decoded_sizes
from mlp_lightning.tables.reading.compressed import Allowance
from mlp_lightning.tables.reading.decoding import VALUE_BYTES, decoded_bytes, parts_of, refuse_larger
from mlp_lightning.tables.reading.dialect import check_names
from mlp_lightning.tables.reading.faults import readable
from mlp_lightning.tables.reading.limits import DECOMPRESSED_BYTES, most_decoded
from mlp_lightning.tables.reading.parquet_plan import ParquetPlanner
from mlp_lightning.tables.reading.types import (
    cast_column,
    is_row_label,
    normalised,
    readable_type,
    sliced,
)

Types = Mapping[str, pa.DataType]
STREAM_BYTES = 1 << 18  # of each column chunk that is being read in batches


def cast_table(table: pa.Table, types: Types, name: str, place: Callable[[int], str]) -> pa.Table:
    """The table with the columns of ``types`` cast, all others of a type that this package reads.

    Args:
        table: rows ``first_row``, … of what ``name`` calls.
        types: the type that columns must have.
        name: what messages call the file; empty for a table in memory, whose rows have no other place.
        place: where a row of the table, counted from 0, is found.

    Raises:
        DataError: a value is not of its column's type.
    """
    for index, field in enumerate(table.schema):
        if (target := types.get(field.name, field.type)) != field.type:
            readable_type(field.type, field.name, name)
            table = table.set_column(index, field.name, cast_column(table.column(index), target, field.name, place))
    return normalised(table, name, keep=types)


def row_place(name: str, row: int) -> str:
    """Where a row, counted from 0, is found; people count from 1."""
    return f"{name}, row {row + 1}" if name else f"row {row + 1}"


class ColumnarFile(ABC):
    """A file that stores columns with their types.

    Args:
        path: the file.
        name: what messages call it.
        allowance: of the files of its table; None: it is the only one.

    Raises:
        DataError: the file is damaged, or two columns have the same name.
    """

    kind: str
    notes: Sequence[str] = ()  # on what of it is read
    kept: pa.Table = pa.table({})  # what stays in memory, read or not

    def __init__(self, path: Path, name: str, allowance: Allowance | None = None) -> None:
        self.path = path
        self.name = name
        self._allowance = allowance
        with readable(name, self.kind):
            self.schema, self._rows = self._schema_and_rows()
            names = self.schema.names  # which need not be texts
        # The row labels that pandas may store beside the columns are not a column.
        self.column_names = [column for column in names if not is_row_label(column)]
        check_names(self.column_names, name)

    def read(self, columns: Sequence[str], types: Types) -> pa.Table:
        """All rows; columns that ``types`` leaves out keep the nearest type that this package reads.

        Raises:
            DataError: the file is damaged, or a value is not of its column's type.
        """
        self._check_types(columns)
        with readable(self.name, self.kind):
            table = self._read(columns)
            size = self.path.stat().st_size
            refuse_larger(decoded_bytes(table, most_decoded(size)), size, self.name)
            return cast_table(table.select(list(columns)), types, self.name, self.place)

    def batches(self, columns: Sequence[str], types: Types, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows in order, at most ``rows`` at once, never the whole file in memory.

        Raises:
            DataError: as :meth:`read`.
        """
        self._check_types(columns)
        given = {name: readable_type(self.schema.field(name).type, name, self.name) for name in columns} | dict(types)
        done = 0
        # No more than can be decoded at once.
        rows = max(1, min(rows, DECOMPRESSED_BYTES // (VALUE_BYTES * max(1, len(columns)))))
        with readable(self.name, self.kind):
            for batch in self._batches(columns, rows):
                for part in parts_of(batch, self.name):
                    table = pa.Table.from_batches([part]).select(list(columns))
                    cast = cast_table(table, given, self.name, lambda row, at=done: self.place(at + row))
                    for one in cast.combine_chunks().to_batches():
                        yield from sliced(one, rows)
                    done += part.num_rows

    def count_rows(self) -> int:
        if self._rows is None:
            with readable(self.name, self.kind):
                self._rows = sum(batch.num_rows for batch in self._batches(self.column_names[:1], 1 << 16))
        return self._rows

    def place(self, row: int) -> str:
        return row_place(self.name, row)

    def _check_types(self, columns: Sequence[str]) -> None:
        for column in columns:
            readable_type(self.schema.field(column).type, column, self.name)

    @abstractmethod
    def _schema_and_rows(self) -> tuple[pa.Schema, int | None]:
        """What the file says of itself; None where it does not say how many rows it has."""

    @abstractmethod
    def _read(self, columns: Sequence[str]) -> pa.Table: ...

    @abstractmethod
    def _batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]: ...


_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)


def validated(rows: _Rows) -> _Rows:
    """The rows themselves. Arrow's functions trust offsets, codes and texts, and read beyond the end of what is there.

    Raises:
        ArrowInvalid: a value points outside of what is there, or a text is not UTF-8.
    """
    rows.validate()
    for column in rows.columns:
        for part in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            if not pa.types.is_primitive(part.type) and not _are_ascii(part):
                part.validate(full=True)
    return rows


def _are_ascii(values: pa.Array) -> bool:
    """Whether an array has texts of ASCII, all within what is there: found in a fifth of the time of validating it."""
    widths = {pa.string(): np.int32, pa.large_string(): np.int64}
    if values.type not in widths:
        return False
    _, starts, characters = values.buffers()
    if starts is None or characters is None:
        return False
    width = np.dtype(widths[values.type])
    starts_B = np.frombuffer(starts, width, len(values) + 1, values.offset * width.itemsize)
    if starts_B[0] < 0 or starts_B[-1] > characters.size or (starts_B[1:] < starts_B[:-1]).any():
        return False
    used = np.frombuffer(characters, np.uint8)[starts_B[0] : starts_B[-1]]
    return not used.size or used.max() < 128


class ParquetFile(ColumnarFile):
    """A Parquet file."""

    kind = "a Parquet file"

    def _schema_and_rows(self) -> tuple[pa.Schema, int | None]:
        with pyarrow.parquet.ParquetFile(self.path) as file:
            self._metadata, schema = file.metadata, file.schema_arrow
        self._planner = ParquetPlanner(self.path, self.name, self._metadata, schema)
        return schema, self._metadata.num_rows

    def _read(self, columns: Sequence[str]) -> pa.Table:
        size, plan = self.path.stat().st_size, self._planner.plan(columns)
        refuse_larger(plan.most_bytes, size, self.name)
        with self._opened(plan.coded) as file:
            if plan.most_rows >= self._metadata.num_rows:
                return validated(file.read(columns=list(columns)))
            batches, total = [], 0
            for batch in file.iter_batches(batch_size=plan.most_rows, columns=list(columns)):
                total += decoded_bytes(batch, 0)
                refuse_larger(total, size, self.name)
                batches.append(validated(batch))
            return pa.Table.from_batches(batches, batches[0].schema)

    def _batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        plan = self._planner.plan(columns)
        rows = min(rows, plan.most_rows)
        with self._opened(plan.coded) as file:
            yield from map(validated, file.iter_batches(batch_size=rows, columns=list(columns)))

    def _opened(self, coded: Sequence[str] = ()) -> pyarrow.parquet.ParquetFile:
        # Page by page: otherwise all columns of a row group, often the whole file, are held beside the table.
        options = {"pre_buffer": False, "buffer_size": 1 << 18, "page_checksum_verification": True}
        return pyarrow.parquet.ParquetFile(self.path, metadata=self._metadata, read_dictionary=list(coded), **options)


class ArrowFile(ColumnarFile):
    """A Feather file (version 2), or Arrow's file or stream format."""

    kind = "a Feather or Arrow file"

    def _schema_and_rows(self) -> tuple[pa.Schema, int | None]:
        with self._opened(None) as reader:
            return reader.schema, None

    def _read(self, columns: Sequence[str]) -> pa.Table:
        refuse_larger(sum(decoded_sizes(self.path)), self.path.stat().st_size, self.name)
        with self._opened(columns) as reader:
            batches = [validated(batch) for batch in _batches_of(reader)]
            return pa.Table.from_batches(batches, batches[0].schema if batches else reader.schema)

    def _batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        refuse_larger(max(decoded_sizes(self.path), default=0), self.path.stat().st_size, self.name)
        with self._opened(columns) as reader:
            yield from map(validated, _batches_of(reader))

    @contextlib.contextmanager
    def _opened(
        self, columns: Sequence[str] | None
    ) -> Iterator[pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader]:
        with pa.OSFile(str(self.path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            options = pa.ipc.IpcReadOptions()
            if columns is not None:
                options.included_fields = [self.schema.get_field_index(column) for column in columns]
            yield pa.ipc.open_file(file, options=options) if is_file else pa.ipc.open_stream(file, options=options)


def _batches_of(reader: pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)
