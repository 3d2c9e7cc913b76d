"""What the batches of a Feather or Arrow file become, from what is in front of them: before one is decompressed.

The descriptions are FlatBuffers: https://github.com/apache/arrow/blob/main/format/Message.fbs and File.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from mlp_lightning.tables.reading.decoding import VALUE_BYTES

_MAGIC = b"ARROW1"
_DICTIONARY, _BATCH = 2, 3
_MOST_OF_A_MESSAGE = 1 << 28


def decoded_sizes(path: Path) -> list[int]:
    """The bytes that each batch takes, in the order of the file, with the dictionary batches.

    Raises:
        ArrowInvalid: it does not say so where it should.
    """
    with path.open("rb") as file:
        try:
            is_file = file.read(len(_MAGIC)) == _MAGIC
            places = _places_in_footer(file) if is_file else _places_in_stream(file, path.stat().st_size)
            return [_decoded_size(file, *one) for one in places]
        except (struct.error, IndexError, OverflowError):
            raise pa.ArrowInvalid("the description of a batch is damaged") from None


class _Table:
    """A table of a FlatBuffer: values by the numbers of their fields."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at
        self._fields = at - _number("<i", content, at)
        self._size = _number("<H", content, self._fields)

    def place(self, field: int) -> int:
        """Where a field is; 0 if it has none."""
        entry = 4 + 2 * field
        offset = _number("<H", self.content, self._fields + entry) if entry + 2 <= self._size else 0
        return self.at + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        place = self.place(field)
        return _number(form, self.content, place) if place else 0

    def table(self, field: int) -> _Table | None:
        place = self.place(field)
        return _Table(self.content, place + _number("<I", self.content, place)) if place else None

    def rows(self, field: int, form: str) -> Iterator[tuple[Any, ...]]:
        """The structures of a vector."""
        place = self.place(field)
        if place:
            start = place + _number("<I", self.content, place)
            for number in range(_number("<I", self.content, start)):
                yield struct.unpack_from(form, self.content, _inside(start + 4 + number * struct.calcsize(form)))


def _number(form: str, content: bytes, at: int) -> int:
    return struct.unpack_from(form, content, _inside(at))[0]


def _inside(at: int) -> int:
    """An offset; a negative one would count from the end."""
    if at < 0:
        raise IndexError(at)
    return at


def _root(content: bytes) -> _Table:
    return _Table(content, _number("<I", content, 0))


def _places_in_footer(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where the messages begin and how long they are in front of their contents."""
    end = 4 + len(_MAGIC)
    size = file.seek(0, 2)
    file.seek(max(0, size - end))
    length = _number("<i", file.read(4), 0)
    file.seek(_inside(size - end - length))
    footer = _root(file.read(_inside(length)))
    for field in (2, 3):
        for offset, described, _ in footer.rows(field, "<qi4xq"):
            yield offset, described


def _places_in_stream(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 4 <= size:
        described = _length_at(file, at)
        if not described:
            return
        yield at, described
        body = _message(file, at, described).number(3, "<q")
        at += described + _inside(body)


def _length_at(file: BinaryIO, at: int) -> int:
    """How long a message is in front of its contents, with its length itself; 0 at the end."""
    file.seek(at)
    head = file.read(8)
    is_marked = head[:4] == b"\xff\xff\xff\xff"
    length = _number("<i", head, 4 if is_marked else 0)
    return length + (8 if is_marked else 4) if length > 0 else 0


def _message(file: BinaryIO, at: int, described: int) -> _Table:
    file.seek(_inside(at))
    if not 8 < described <= _MOST_OF_A_MESSAGE:
        raise IndexError(described)
    content = file.read(described)
    return _root(content[8 if content[:4] == b"\xff\xff\xff\xff" else 4 :])


def _decoded_size(file: BinaryIO, at: int, described: int) -> int:
    message = _message(file, at, described)
    kind, batch = message.number(1, "<B"), message.table(2)
    if kind == _DICTIONARY and batch is not None:
        batch = batch.table(1)
    if kind not in (_DICTIONARY, _BATCH) or batch is None:
        return 0
    values = sum(max(length, 0) for length, _ in batch.rows(1, "<qq")) * VALUE_BYTES
    if batch.table(3) is None:  # what is not compressed is in the file, but the same place may be used again and again
        return max(values, sum(max(length, 0) for _, length in batch.rows(2, "<qq")))
    total = 0
    for offset, length in batch.rows(2, "<qq"):
        if length >= 8:
            file.seek(_inside(at + described + offset))
            # Each is preceded by its size; -1 if it was not worth compressing.
            size = _number("<q", file.read(8), 0)
            total += length if size < 0 else size
    return max(values, total)
