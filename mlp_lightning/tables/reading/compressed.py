"""Bytes of files that may be compressed, within what the files of a table may become."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.decoding import refuse_larger
from mlp_lightning.tables.reading.limits import DECOMPRESSED_BYTES, TIMES_LARGER, most_decompressed, stored_bytes

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_BLOCK_BYTES = 1 << 20


class Allowance:
    """What the compressed files of a table may become together; a file that is read again counts once.

    Args:
        files: all files of the table.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.stored_bytes = stored_bytes(files)
        self._together = " with the other files of its table" if len(files) > 1 else ""
        self.most_bytes = self._left_bytes = most_decompressed(self.stored_bytes)
        self._read: dict[Path, int] = {}

    def take(self, path: Path, done_bytes: int) -> None:
        """Count what has been decompressed of a file since its beginning.

        Raises:
            DataError: it is too much.
        """
        more = done_bytes - self._read.get(path, 0)
        if more <= 0:
            return
        self._read[path] = done_bytes
        self._left_bytes -= more
        if self._left_bytes < 0:
            raise DataError(
                f"{path.name} becomes larger{self._together} than {self.most_bytes:,} bytes when it is decompressed,"
                f" which is the limit for its size ({TIMES_LARGER} times, at least {DECOMPRESSED_BYTES:,}). If it is a"
                " table, decompress it yourself: files that are not compressed may have any size."
            )


def open_bytes(path: Path, allowance: Allowance | None = None, row_bytes: int = 0) -> pa.NativeFile:
    """The decompressed bytes of a file.

    Args:
        path: the file.
        allowance: of the files of its table; None: it is the only one.
        row_bytes: that each of its lines becomes in memory, if all of them are kept there.
    """
    compression = COMPRESSIONS.get(path.suffix.lower())
    file = pa.input_stream(str(path), compression=compression)
    if compression is None:
        return file
    return pa.PythonFile(_Decompressed(file, path, allowance or Allowance([path]), row_bytes), mode="r")


class _Decompressed(io.RawIOBase):
    """The bytes of a compressed file, as many as it may become."""

    def __init__(self, file: pa.NativeFile, path: Path, allowance: Allowance, row_bytes: int) -> None:
        self._file, self._path, self._allowance = file, path, allowance
        self._row_bytes, self._kept_bytes, self._done = row_bytes, 0, 0
        # Ordinary tables do not become so large; those that do are looked at as a whole before more of them is kept.
        self._suspicious_bytes = max(DECOMPRESSED_BYTES, 64 * allowance.stored_bytes)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        content = self._file.read(self._allowance.most_bytes + 1 if size is None or size < 0 else size)
        self._done += len(content)
        self._allowance.take(self._path, self._done)
        if self._row_bytes:
            self._kept_bytes += _lines(content) * self._row_bytes
            if self._kept_bytes > self._suspicious_bytes:
                self._refuse_too_many_lines()
        return content

    def _refuse_too_many_lines(self) -> None:
        row_bytes, self._row_bytes, total = self._row_bytes, 0, 0
        with open_bytes(self._path, self._allowance) as file:
            while block := file.read(_BLOCK_BYTES):
                total += _lines(block) * row_bytes
                refuse_larger(total, self._allowance.stored_bytes, self._path.name)

    def close(self) -> None:
        self._file.close()
        super().close()


def _lines(content: bytes) -> int:
    return content.count(b"\n") or content.count(b"\r")
