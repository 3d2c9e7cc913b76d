"""How to read columns of a Parquet file without decoding more than its size allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from mlp_lightning.tables.reading.decoding import is_text, longest_text, refuse_larger, value_bytes
from mlp_lightning.tables.reading.limits import DECOMPRESSED_BYTES, most_decoded
from mlp_lightning.tables.reading.parquet_pages import CODES, SHARED_BEGINNINGS, Page, pages_of

_ALL = 2**62
_Groups = Sequence[Sequence[Page]]


class ReadingPlan(NamedTuple):
    """How columns are read.

    Attributes:
        coded: columns of texts that are read as codes into dictionaries; how large they become is known then.
        most_bytes: that all columns take, before codes are decoded.
        most_rows: that are read at once.
    """

    coded: Sequence[str]
    most_bytes: int
    most_rows: int


class ParquetPlanner:
    """Makes plans for a file.

    Args:
        path: the file.
        name: what messages call it.
        metadata: pyarrow's, of the file.
        schema: the types of its columns.
    """

    def __init__(self, path: Path, name: str, metadata: Any, schema: pa.Schema) -> None:
        self._path, self._name, self._metadata, self._schema = path, name, metadata, schema
        # Of the columns that are not parts of others.
        self._places = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        self._most = most_decoded(path.stat().st_size)

    def plan(self, columns: Sequence[str]) -> ReadingPlan:
        """The plan for some columns.

        Raises:
            DataError: a page becomes too large.
            ArrowInvalid: the file is damaged.
        """
        coded, total, most_rows = [], 0, _ALL
        with self._path.open("rb") as file:
            for column in columns:
                kind, groups = self._schema.field(column).type, self._pages(file, column)
                pages = [page for group in groups for page in group]
                largest = max((page.bytes for page in pages), default=0)
                refuse_larger(largest, self._path.stat().st_size, self._name)
                values = sum(page.values for page in pages if not page.is_dictionary)
                total += value_bytes(kind) * max(values, self._metadata.num_rows)
                if not is_text(kind):
                    continue
                size = self._size_of_texts(column, groups)
                if size is None:
                    coded.append(column)
                    total += sum(page.bytes for page in pages)
                else:
                    total += size
                    most_rows = min(most_rows, _rows_at_once(pages, largest))
        return ReadingPlan(coded, total, max(1, most_rows))

    def _pages(self, file: BinaryIO, column: str) -> _Groups:
        place, metadata = self._places.get(column), self._metadata
        if place is None:
            return []
        chunks = (metadata.row_group(number).column(place) for number in range(metadata.num_row_groups))
        return [[*pages_of(file, chunk)] for chunk in chunks]

    def _size_of_texts(self, column: str, groups: _Groups) -> int | None:
        """The most bytes that texts become; None if they are read as codes: where that is fast, or has to be."""
        data = [page for group in groups for page in group if not page.is_dictionary]
        if _share_beginnings(data):
            return 0  # only decoding shows it
        if all(page.encoding in CODES for page in data):
            return None
        total = sum(page.bytes for page in data if page.encoding not in CODES)
        for number, group in enumerate(groups):
            values = sum(page.values for page in group if not page.is_dictionary and page.encoding in CODES)
            if values:
                total += values * self._longest(column, number)
        return total if total <= self._most else None

    def _longest(self, column: str, group: int) -> int:
        """Bytes of the longest text in the dictionary of a row group."""
        options = {"pre_buffer": False, "buffer_size": 1 << 18, "metadata": self._metadata}
        with pyarrow.parquet.ParquetFile(self._path, read_dictionary=[column], **options) as file:
            first = next(file.iter_batches(batch_size=1, row_groups=[group], columns=[column]))
        return longest_text(first.column(0))


def _share_beginnings(pages: Sequence[Page]) -> bool:
    return any(page.encoding == SHARED_BEGINNINGS for page in pages)


def _rows_at_once(pages: Sequence[Page], largest: int) -> int:
    """Rows so few that their texts fit into memory.

    Args:
        pages: of the column.
        largest: bytes of the largest page, which may all belong to every text where texts share their beginnings.
    """
    if _share_beginnings(pages):
        return DECOMPRESSED_BYTES // max(1, largest)
    rows = (DECOMPRESSED_BYTES * page.values // max(1, page.bytes) for page in pages if not page.is_dictionary)
    return min(rows, default=_ALL)
