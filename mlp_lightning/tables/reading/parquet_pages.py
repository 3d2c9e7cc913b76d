"""What the pages of a Parquet file say of themselves, before one is decompressed.

The footer of a file may say anything of its pages. Arrow's reader believes the header in front of each page, and so
does this module. Headers are in Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
#: Encodings by number: of codes into a dictionary, and of texts that share their beginnings.
CODES, SHARED_BEGINNINGS = (2, 8), 7
_WINDOW, _MOST_OF_A_HEADER = 1 << 12, 1 << 24
_MOST_LEVELS = 4
# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12


class Page(NamedTuple):
    """A page of a column.

    Attributes:
        is_dictionary: whether it has the texts that the codes of other pages stand for.
        values: how many values it has.
        encoding: of its values.
        bytes: that it takes when it is decompressed.
    """

    is_dictionary: bool
    values: int
    encoding: int
    bytes: int


def pages_of(file: BinaryIO, chunk: Any) -> Iterator[Page]:
    """The pages of a column chunk, in order.

    Args:
        file: open for reading, at any place.
        chunk: pyarrow's metadata of the column chunk.

    Raises:
        ArrowInvalid: there is no page where one should be.
    """
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end, left = at + chunk.total_compressed_size, chunk.num_values
    while left > 0 and at < end:
        header, size = _header_at(file, at)
        kind, compressed = header.get(1, -1), header.get(3)
        of_kind = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, -1), {})
        if not isinstance(compressed, int) or compressed < 0 or not isinstance(of_kind, dict):
            raise pa.ArrowInvalid(f"the header of the page at byte {at} is damaged")
        if of_kind:
            encoding = of_kind.get(4 if kind == _DATA_V2 else 2, 0)
            page = Page(kind == _DICTIONARY, of_kind.get(1, 0), encoding, max(header.get(2, 0), 0))
            if kind != _DICTIONARY:
                left -= max(page.values, 0)
            yield page
        at += size + compressed


def _header_at(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    window = _WINDOW
    while True:
        file.seek(at)
        content = file.read(window)
        try:
            return _struct(content, 0, _MOST_LEVELS)
        except IndexError:
            if len(content) < window or window >= _MOST_OF_A_HEADER:
                raise pa.ArrowInvalid(f"the header of the page at byte {at} is damaged") from None
            window = min(window << 4, _MOST_OF_A_HEADER)


def _struct(content: bytes, at: int, levels: int) -> tuple[dict[int, Any], int]:
    """The whole numbers and structures of a structure by the numbers of their fields, and where it ends.

    Raises:
        IndexError: it does not end.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := content[at]:
        at += 1
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            number, at = _zigzag(content, at)
        if kind == _STRUCT and levels:
            fields[number], at = _struct(content, at, levels - 1)
        elif kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        elif _BYTE < kind < _DOUBLE:
            fields[number], at = _zigzag(content, at)
        elif kind == _BINARY:
            size, at = _varint(content, at)
            at += size
        elif kind in (_BYTE, _DOUBLE):
            at += 1 if kind == _BYTE else 8
        else:  # no page header has lists, nor structures so deep
            raise pa.ArrowInvalid("the header of a page is damaged")
    return fields, at + 1


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := content[at]) & 128:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if shift > 63:
            raise pa.ArrowInvalid("the header of a page is damaged")
    return value | byte << shift, at + 1


def _zigzag(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at
