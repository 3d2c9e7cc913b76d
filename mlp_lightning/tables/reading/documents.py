"""Files that are read as a whole: JSON lines and Excel workbooks."""

from __future__ import annotations

import datetime
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.columnar import ColumnarFile, row_place, validated
from mlp_lightning.tables.reading.compressed import open_bytes
from mlp_lightning.tables.reading.json_bounds import refuse_unbounded_json
from mlp_lightning.tables.reading.limits import ROW_BYTES, SHEET_CELLS, SHEET_ROWS, most_decompressed


class WholeFile(ColumnarFile):
    """A file whose columns are known only when all of it has been read."""

    def _schema_and_rows(self) -> tuple[pa.Schema, int | None]:
        self.kept = self._load()
        return self.kept.schema, self.kept.num_rows

    def _read(self, columns: Sequence[str]) -> pa.Table:
        return self.kept.select(list(columns))

    def _batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        yield from self.kept.select(list(columns)).to_batches(rows)

    @abstractmethod
    def _load(self) -> pa.Table: ...


class JsonFile(WholeFile):
    """JSON lines: an object on each line, with a value for each column."""

    kind = "JSON lines (an object on each line)"

    def _load(self) -> pa.Table:
        refuse_unbounded_json(self.path, self.name, self._allowance)
        try:
            return self._parsed(1 << 20)
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error):
                raise
        try:
            return self._parsed(ROW_BYTES)
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error):
                raise
            raise DataError(f"{self.name} has a row of more than {ROW_BYTES:,} bytes; is it a table?") from None

    def _parsed(self, block_bytes: int) -> pa.Table:
        options = pyarrow.json.ReadOptions(block_size=block_bytes)
        with open_bytes(self.path, self._allowance) as file:
            return validated(pyarrow.json.read_json(file, options))


class ExcelFile(WholeFile):
    """The first sheet of a workbook that has rows; its first row has the names of the columns.

    Cells have the values that Excel showed when it saved them; ``#N/A`` is a missing value.
    """

    kind = "an Excel workbook"
    _sheet_rows: Sequence[int]  # the numbers of the rows in the sheet, which Excel shows
    other_sheets: Mapping[str, str] = {}  # by the columns that they have

    def place(self, row: int) -> str:
        return row_place(self.name, self._sheet_rows[row] - 1)

    def _load(self) -> pa.Table:
        try:
            import openpyxl
        except ImportError:
            raise DataError(
                f"{self.name}: reading Excel workbooks needs openpyxl: pip install 'mlp-lightning[excel]'."
            ) from None
        try:
            refuse_unbounded_zip(self.path, self.name)
            return self._first_sheet(openpyxl.load_workbook(self.path, read_only=True, data_only=True))
        except (DataError, OSError, MemoryError):
            raise
        except Exception as error:  # of zipfile, zlib, the parser of XML and openpyxl, which checks little
            raise OSError(str(error) or type(error).__name__) from error

    def _first_sheet(self, workbook: Any) -> pa.Table:
        """The first sheet that has rows."""
        try:
            sheets = {sheet.title: sheet for sheet in workbook.worksheets}
            for title, sheet in sheets.items():
                rows = list(self._rows_of(sheet))
                if rows:
                    others = [one for one in sheets if one != title]
                    if others:
                        self.other_sheets = {
                            name: other for other in reversed(others) for name in self._names_of(sheets[other])
                        }
                        self.notes = [
                            f"{self.name}: the sheet {title!r} is read, and not {', '.join(map(repr, others))}"
                        ]
                    self._sheet_rows = [number for number, _ in rows[1:]]
                    return _table([row for _, row in rows])
        finally:
            workbook.close()
        raise DataError(f"{self.name} has no sheet with rows.")

    def _names_of(self, sheet: Any) -> list[str]:
        """The texts in the first row of a sheet."""
        _, first = next(self._rows_of(sheet), (0, ()))
        return [one.strip() for one in first if isinstance(one, str)]

    def _rows_of(self, sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The rows that have a value, with their numbers in the sheet, from 1."""
        sheet.reset_dimensions()  # what a sheet says of its size need not be so
        cells = 0
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells += len(row)
            if number > SHEET_ROWS or cells > SHEET_CELLS:
                raise DataError(
                    f"{self.name}: the sheet {sheet.title!r} has more than {SHEET_ROWS:,} rows or {SHEET_CELLS:,}"
                    " cells, which is the limit; save it as CSV."
                )
            if any(one is not None for one in row):
                yield number, row


def refuse_unbounded_zip(path: Path, name: str) -> None:
    """Check what the members of a workbook would take.

    Raises:
        DataError: more than :func:`~mlp_lightning.tables.reading.limits.most_decompressed`.
        BadZipFile: it is no workbook.
    """
    with zipfile.ZipFile(path) as members:
        unpacked = sum(one.file_size for one in members.infolist())
    most = most_decompressed(path.stat().st_size)
    if unpacked > most:
        raise DataError(
            f"{name} says that it has {unpacked:,} bytes when it is unpacked, and the limit for a file of its size is"
            f" {most:,}; is it a table? If so, save it as CSV."
        )


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """The columns of the rows of a sheet; columns without a name and without a value are left out."""
    header, *body = rows
    width = max(len(row) for row in rows)
    columns = [[row[at] if at < len(row) else None for row in body] for at in range(width)]
    names = ["" if at >= len(header) or header[at] is None else str(header[at]).strip() for at in range(width)]
    kept = [at for at in range(width) if names[at] or any(one is not None for one in columns[at])]
    return pa.table([_array(columns[at]) for at in kept], [names[at] for at in kept])


def _array(values: list[Any]) -> pa.Array:
    """The cells of a column; as texts if they are of several types."""
    values = [None if one == "#N/A" else one for one in values]
    if any(isinstance(one, datetime.date) and not isinstance(one, datetime.datetime) for one in values):
        values = [
            datetime.datetime(one.year, one.month, one.day) if type(one) is datetime.date else one for one in values
        ]
    kinds = {bool if isinstance(one, bool) else type(one) for one in values if one is not None}
    if kinds == {datetime.time, datetime.timedelta}:  # durations, which Excel shows as clocks
        midnight = datetime.datetime.min
        values = [
            datetime.datetime.combine(midnight, one) - midnight if isinstance(one, datetime.time) else one
            for one in values
        ]
        kinds = {datetime.timedelta}
    if kinds == {int, float}:
        return pa.array(values, pa.float64())
    return pa.array(values if len(kinds) <= 1 else [None if one is None else str(one) for one in values])
