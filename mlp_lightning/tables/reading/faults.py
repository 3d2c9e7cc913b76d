"""What is wrong with a file that cannot be read, found by reading it again, slowly.

Arrow's readers are fast and report little; this slow way is taken only once something is wrong.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from mlp_lightning.errors import DataError, counted
from mlp_lightning.tables.reading.compressed import open_bytes
from mlp_lightning.tables.reading.dialect import CsvDialect, known_encoding, open_text
from mlp_lightning.tables.reading.limits import ROW_BYTES

BLOCK_BYTES = 1 << 20
# What is wrong is not the content of the file.
SYSTEM_FAULTS = {errno.EIO, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE}
END = "end"


@contextlib.contextmanager
def readable(name: str, kind: str, csv: bool = False) -> Iterator[None]:
    """Turn what Arrow and the operating system raise on a file into a DataError that names it.

    Args:
        name: what messages call the file.
        kind: what the file should be, as in "a Parquet file".
        csv: whether what Arrow says of the contents is left to the caller.
    """
    try:
        yield
    except PermissionError:
        raise DataError(f"{name}: no permission to read this file; ask its owner, or copy it.") from None
    except FileNotFoundError:
        raise DataError(f"{name} disappeared; it must stay until it has been read.") from None
    except MemoryError as error:
        raise DataError(
            f"{name}: there is not enough memory to read this file ({first_line(error)}). It is too large for this"
            " machine, or damaged and only seems to be."
        ) from None
    except (OSError, pa.ArrowException, EOFError, zlib.error, UnicodeDecodeError) as error:
        if csv and isinstance(error, (pa.ArrowInvalid, UnicodeDecodeError)):
            raise
        if isinstance(error, OSError) and error.errno in SYSTEM_FAULTS:
            raise DataError(f"{name} cannot be read: {error.strerror or first_line(error)}.") from None
        raise DataError(
            f"{name} cannot be read as {kind}: {first_line(error)}. It is damaged, incomplete, or not what "
            "its ending says; write or fetch it again."
        ) from None


def first_line(error: BaseException) -> str:
    """What an exception says, without Arrow's further lines and without a closing stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def raise_csv_fault(path: Path, name: str, dialect: CsvDialect) -> None:
    """Read the whole file with Python's own reader and raise for the first thing that is wrong; return if nothing is.

    Raises:
        DataError: characters that are not of the encoding, a line with too few or too many values, an unclosed
            quote; each with the line.
    """
    width = len(dialect.header)
    try:
        with long_values():
            for line, record in csv_records(path, dialect, strict_end=True):
                if len(record) != width:
                    raise DataError(
                        f"{name}, line {line} has {counted(len(record), 'value')}, but the header has "
                        f"{counted(width, 'column')}{ragged_hint(record, dialect)}"
                    )
    except UnicodeError:
        raise_encoding_fault(path, name, dialect.encoding)
    except csv.Error as error:  # such as zero bytes, on Python 3.10
        if "field limit" in str(error):
            error = csv.Error(f"it has a value of more than {ROW_BYTES:,} characters; is a quotation mark not closed?")
        raise DataError(f"{name} cannot be read as a CSV file: {error}.") from None
    except UnclosedQuoteError as error:
        raise DataError(
            f"{name}, line {error.line}: a quotation mark opens a value in this row and no mark closes it. "
            "Close it, or double it where it is part of the value."
        ) from None


def ragged_hint(record: list[str], dialect: CsvDialect) -> str:
    mark = {"\t": "tab", " ": "space"}.get(dialect.delimiter, dialect.delimiter)
    if len(record) > len(dialect.header):
        if len(record) == len(dialect.header) + 1 and record[0].strip() == "1":
            return "; if the first one is a row label of R, write the file with row.names=FALSE."
        return f"; a value that holds the delimiter {mark!r} must stand in quotes."
    if len(dialect.header) == 1 or len(record) == 1:
        return f"; the delimiter is taken to be {mark!r}, and data.csv.delimiter says otherwise if it is not."
    return "; every row needs a value, or nothing between two delimiters, for each column."


class UnclosedQuoteError(Exception):
    """A quoted value continues to the end of the file."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(line)


def csv_records(path: Path, dialect: CsvDialect, strict_end: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Every row of the data as its texts, with the line on which it begins (the file's first line is 1).

    Raises:
        UnclosedQuoteError: with ``strict_end``, where nothing but the file's end closes a value.
        UnicodeError: the file is not in the dialect's encoding.
    """
    ended = False

    def lines(file: TextIO) -> Iterator[str]:
        nonlocal ended
        while line := file.readline(ROW_BYTES):
            if len(line) == ROW_BYTES and line[-1] not in "\r\n":
                raise csv.Error(f"it has a line of more than {ROW_BYTES:,} characters, which is the limit")
            yield line
        # One more record, which is swallowed where a quotation mark is open.
        ended = True
        yield END

    with open_text(path, dialect.encoding) as file:
        for _ in range(dialect.header_lines):
            file.readline()
        reader = csv.reader(lines(file), delimiter=dialect.delimiter)
        line = dialect.header_lines + 1
        for record in reader:
            if ended and record == [END]:
                return
            if ended and strict_end:
                raise UnclosedQuoteError(line)
            if record:
                yield line, record
            line = dialect.header_lines + reader.line_num + 1


@contextlib.contextmanager
def long_values() -> Iterator[None]:
    """Let Python's CSV readers take values of more than 128 KiB for a while; the limit is global to the process."""
    before = csv.field_size_limit(ROW_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def raise_encoding_fault(path: Path, name: str, encoding: str) -> None:
    """Raise for the first bytes that are not of ``encoding``; return if there are none.

    Raises:
        DataError: with line and byte, and a suggested encoding where one fits.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, breaks = 0, 0
    with open_bytes(path) as file:
        while True:
            block = file.read(BLOCK_BYTES)
            pending = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                start = offset - len(pending) + error.start
                known = (pending + block)[: error.start]
                line = breaks + known.count(b"\n") + 1
                found = " ".join(f"{byte:02x}" for byte in error.object[error.start : error.end][:4])
                raise DataError(
                    f"{name}, line {line}: byte {start} of the file ({found} in hexadecimal) is not text in the "
                    f"encoding {encoding}; {encoding_hint(encoding)}."
                ) from None
            if not block:
                return
            # A byte that waits for the rest of its character is counted with the next block.
            waiting = len(decoder.getstate()[0])
            breaks += (pending + block)[: len(pending) + len(block) - waiting].count(b"\n")
            offset += len(block)


def encoding_of(path: Path) -> str:
    """``ascii`` or ``utf-8`` if the bytes of a file are, else nothing: no other text is UTF-8 by accident."""
    decoder, is_ascii = codecs.getincrementaldecoder("utf-8")(), True
    with open_bytes(path) as file:
        try:
            while block := file.read(BLOCK_BYTES):
                is_ascii = is_ascii and block.isascii()
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return ""
    return "ascii" if is_ascii else "utf-8"


def refuse_utf8(path: Path, name: str, encoding: str) -> None:
    """Refuse a file of UTF-8 where another encoding is expected that may read the same bytes as other characters.

    Raises:
        DataError: all of the file is UTF-8 and some of it is beyond ASCII.
    """
    if known_encoding(encoding) != "utf-8" and encoding_of(path) == "utf-8":
        raise DataError(
            f"{name} is UTF-8, and the model was trained with data.csv.encoding={encoding}, which would read other"
            f" characters. Set data.csv.encoding=utf-8, or data.csv.encoding={encoding} if the file is in it after all."
        )


def encoding_hint(encoding: str) -> str:
    if encoding == "utf-8":
        return "many such files read with data.csv.encoding=latin-1 (or cp1252, as Windows writes it)"
    return "set data.csv.encoding to the one it was written in, or save it as utf-8"
