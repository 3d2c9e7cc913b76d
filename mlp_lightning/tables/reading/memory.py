"""Tables in memory: made there, or kept after they were read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.columnar import cast_table, row_place
from mlp_lightning.tables.reading.dialect import check_names
from mlp_lightning.tables.reading.frames import arrow_table
from mlp_lightning.tables.reading.sources import BATCH_ROWS, TableSource, Types, text_columns
from mlp_lightning.tables.reading.types import is_row_label, sliced


class KeptSource(TableSource):
    """A table whose rows are read once, and kept for the next reader.

    Args:
        source: of the rows.
    """

    def __init__(self, source: TableSource) -> None:
        self.name = source.name
        self.column_names = source.column_names
        self.targets, self.categorical, self.dialects = source.targets, source.categorical, source.dialects
        self.notes, self.files, self.other_sheets = source.notes, source.files, source.other_sheets
        self._source = source
        self._tables: dict[tuple[Any, ...], pa.Table] = {}

    def read(self, columns: Sequence[str] | None = None, types: Types | None = None) -> pa.Table:
        key = (None if columns is None else tuple(columns), tuple((types or {}).items()))
        if key not in self._tables:
            self._tables[key] = self._source.read(columns, types)
        return self._tables[key]

    def batches(
        self, columns: Sequence[str] | None = None, types: Types | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        return self._source.batches(columns, types, rows)

    def written_numbers(self, columns: Sequence[str]) -> set[str]:
        return self._source.written_numbers(columns)

    def place(self, row: int) -> str:
        return self._source.place(row)


class MemorySource(TableSource):
    """A table that is already in memory.

    Args:
        table: its columns.
        name: what messages call it.
        targets: the columns to predict, if that is known.

    Raises:
        DataError: two columns have the same name, or one has none.
    """

    def __init__(self, table: pa.Table, name: str, targets: Sequence[str] = ()) -> None:
        self.table = table
        self.targets = targets
        self.categorical = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
        self.name = name
        self.column_names = [column for column in table.column_names if not is_row_label(column)]
        check_names(self.column_names, name)

    def read(self, columns: Sequence[str] | None = None, types: Types | None = None) -> pa.Table:
        table = self.table.select(self.chosen(columns))
        if not self.table.num_rows:
            raise DataError(f"{self.name} has no rows; there is nothing to learn or to predict from.")
        return cast_table(table, types or {}, self.name, lambda row: row_place(self.name, row))

    def batches(
        self, columns: Sequence[str] | None = None, types: Types | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        # Views of the caller's table: only what has to be cast takes memory.
        for batch in self.read(columns, types).to_batches():
            yield from sliced(batch, rows)

    def written_numbers(self, columns: Sequence[str]) -> set[str]:
        return text_columns(self.table.schema, columns)

    @classmethod
    def of_frame(cls, frame: Any, read: Collection[str] | None = None) -> MemorySource:
        """The rows of a data frame of pandas, polars or pyarrow.

        Args:
            frame: the rows.
            read: columns whose values are asked for; the others may hold what cannot be read. ``None``: all.

        Raises:
            DataError: it is no data frame, or has a column that cannot be read.
        """
        names = [str(one) for one in frame.columns] if hasattr(frame, "iloc") else []
        return cls(arrow_table(frame, "frame", [] if read is None else set(names).difference(read)), "frame")

    def place(self, row: int) -> str:
        if not 0 <= row < self.table.num_rows:
            raise IndexError(f"{self.name} has no row {row}")
        return row_place("", row)
