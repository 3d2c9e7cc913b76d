"""Tables that are written in parts: text, Parquet, Feather and Arrow files, by the ending of their name."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.tables.reading.compressed import COMPRESSIONS
from mlp_lightning.tables.reading.paths import ARROW, PARQUET, TEXT, format_of

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute
_ENDINGS = ".csv .tsv .txt (also with .gz, .zst or .bz2 behind it), .parquet .pq, .feather .arrow .ipc"
# Least size of a row group of a Parquet file, or of a batch of a Feather file: each costs a reader time.
_ROWS, _BYTES = 65_536, 16 << 20


class TableWriter(ABC):
    """Writes the rows of one table, in order. The first rows decide its columns.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        """Add rows, all with the same columns; they are in the file after :meth:`close`."""
        self._waiting.append(rows)
        if sum(one.num_rows for one in self._waiting) >= _ROWS or sum(one.nbytes for one in self._waiting) >= _BYTES:
            self._flush()

    def close(self) -> None:
        """Write the waiting rows and the file's end."""
        self._flush()
        with _named(self._path):
            self._end()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            with _named(self._path):
                self._write(pa.concat_tables(waiting).combine_chunks())

    def give_up(self) -> None:
        """Close the file, complete or not."""
        self._waiting = []
        with contextlib.suppress(Exception):  # the first error has been reported
            self._end()

    @abstractmethod
    def _write(self, rows: pa.Table) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...


class ColumnarWriter(TableWriter):
    """Writes a Parquet file, or one in Arrow's file format, which Feather (version 2) is too."""

    def __init__(self, path: Path, file: BinaryIO, kind: str) -> None:
        super().__init__(path)
        self._file = file
        self._kind = kind
        self._writer: Any = None

    def _write(self, rows: pa.Table) -> None:
        if self._writer is None:
            if self._kind == PARQUET:
                self._writer = pyarrow.parquet.ParquetWriter(self._file, rows.schema, write_page_checksum=True)
            else:
                options = pa.ipc.IpcWriteOptions(compression="lz4" if pa.Codec.is_available("lz4") else None)
                self._writer = pa.ipc.new_file(self._file, rows.schema, options=options)
        self._writer.write_table(rows)

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class TextWriter(TableWriter):
    """Writes a text table: only values that need it are in quotes, missing ones are empty, lines end as in Unix."""

    def __init__(self, path: Path, file: BinaryIO, delimiter: str, compression: str | None) -> None:
        super().__init__(path)
        self._file: Any = file if compression is None else pa.CompressedOutputStream(_LeftOpen(file), compression)
        self._compressed = compression is not None
        self._delimiter = delimiter
        self._has_header = False

    def _write(self, rows: pa.Table) -> None:
        if not self._has_header:
            header = pa.table([pa.array([name]) for name in rows.column_names], names=rows.column_names)
            self._file.write(text_lines(header, self._delimiter))
            self._has_header = True
        self._file.write(text_lines(rows, self._delimiter))

    def _end(self) -> None:
        if self._compressed:
            self._file.close()


class _LeftOpen(io.RawIOBase):
    """Writes to a file that stays open when this is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        return self._file.write(content)


def text_lines(rows: pa.Table, delimiter: str) -> pa.Buffer:
    r"""The lines of some rows, each with its end.

    >>> text_lines(pa.table({"a": [1.5, None], "b": ["5,0", "y"]}), ",").to_pybytes()
    b'1.5,"5,0"\n,y\n'
    """
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none")
    try:
        pyarrow.csv.write_csv(rows, sink, options)
        return sink.getvalue()
    except pa.ArrowInvalid:  # some value needs quotes, and Arrow's writer would quote all texts
        columns = [_quoted(values.cast(pa.string()), delimiter) for values in rows.columns]
    lines = pc.binary_join_element_wise(*columns, delimiter, null_handling="replace")
    lines = pa.concat_arrays([*lines.chunks, pa.array([""])])  # the end of the last line
    return pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0].as_buffer()


def _quoted(texts: pa.ChunkedArray, delimiter: str) -> pa.ChunkedArray:
    needs_quotes = pc.match_substring_regex(texts, f'["\r\n{delimiter}]')
    doubled = pc.replace_substring(texts, '"', '""')
    return pc.if_else(needs_quotes, pc.binary_join_element_wise('"', doubled, '"', ""), texts)


def csv_bytes(table: pa.Table) -> bytes:
    """A whole text table with commas."""
    file = io.BytesIO()
    writer = TextWriter(Path("table.csv"), file, ",", None)
    writer.write(table)
    writer.close()
    return file.getvalue()


@contextlib.contextmanager
def written_table(path: Path) -> Iterator[TableWriter]:
    """A writer for the format of the ending of ``path``; the file appears when all of it is on the disk.

    Until then it has a hidden name in the same folder, and is removed after an error. Only a process that is killed
    leaves it, and nothing reads it.

    Raises:
        OSError: the file cannot be written; then ``path`` is as before.
    """
    kind, suffix = format_of(path), path.suffix.lower()
    with atomic_write(path) as file:
        if kind in (PARQUET, ARROW):
            writer: TableWriter = ColumnarWriter(path, file, kind)
        else:
            delimiter = "\t" if ".tsv" in [one.lower() for one in path.suffixes[-2:]] else ","
            writer = TextWriter(path, file, delimiter, COMPRESSIONS.get(suffix))
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.give_up()
            raise


def output_fault(path: Path, given: str, inputs: Sequence[Path], overwrite: bool) -> Fault | None:
    """Why predictions cannot be written to ``path``; ``None`` if they can.

    Args:
        path: of the output.
        given: the path as the user wrote it.
        inputs: files that are read for it.
        overwrite: whether to replace an existing file.
    """
    if format_of(path) not in (TEXT, PARQUET, ARROW):
        return Fault("output", given, "has an unknown ending", f"known are {_ENDINGS}")
    if path.is_dir():
        return Fault("output", given, "is a folder", "name a file in it, for example predictions.csv")
    if not path.exists():
        return None
    if any(one.exists() and path.samefile(one) for one in inputs):
        return Fault("output", given, "is a file that the rows are read from", "name another file")
    return None if overwrite else Fault("output", given, "already exists", "name another file, or set overwrite=true")


def refuse_output(path: Path, given: str, inputs: Sequence[Path], overwrite: bool) -> None:
    """See :func:`output_fault`.

    Raises:
        ConfigError: predictions cannot be written to ``path``.
    """
    fault = output_fault(path, given, inputs, overwrite)
    if fault is not None:
        raise ConfigError([fault])


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the name of the file to an error of the system."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
