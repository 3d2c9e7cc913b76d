"""How much of a file may have to be in memory at once, and how much one may grow when it is decompressed.

A table may be of any size. What is limited here is what no table needs, and what a damaged or hostile file could use to
take all memory or never to end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

#: Characters of the names of all columns, in the first line of a text table.
HEADER_CHARACTERS = 1 << 23
#: Bytes of one row of a text table or JSON file: a row must fit into a block of Arrow's reader.
ROW_BYTES = 1 << 25
#: Columns; with more, names and types alone take seconds and hundreds of megabytes.
COLUMNS = 100_000
#: Classes of a target: each takes an output, and a row and a column of the confusion matrix.
CLASSES = 5_000
#: Levels of lists and objects within each other in JSON: Arrow's reader needs stack for each, and dies without it.
JSON_LEVELS = 100
#: A compressed file may become this many times as large. Tables become 5 to 20 times as large, those of zeros 50 times.
TIMES_LARGER = 100
#: A file that becomes no larger than this may become any number of times as large.
DECOMPRESSED_BYTES = 1 << 28
#: As the two above, of formats that store equal values once: rare categories in columns of their own, 200 times.
COLUMNS_TIMES_LARGER, COLUMNS_BYTES = 250, 1 << 30
#: Bytes of a row of such a format, and of the texts that are decoded at once where the whole table is not.
TEXTS_AT_ONCE_BYTES = 1 << 26
#: Rows of a sheet, as in Excel itself.
SHEET_ROWS = 1 << 20
#: Cells of a sheet, with the empty ones before the last of each row.
SHEET_CELLS = 50_000_000
#: Bytes of standard input, which is kept on the disk while a run reads it.
STANDARD_INPUT_BYTES = 1 << 36


def stored_bytes(files: Iterable[Path]) -> int:
    """The sizes of files together; one that has gone says so when it is read."""
    total = 0
    for one in files:
        with contextlib.suppress(OSError):
            total += one.stat().st_size
    return total


def most_decompressed(compressed_bytes: int) -> int:
    """The most bytes that a compressed file of this size may become."""
    return max(DECOMPRESSED_BYTES, TIMES_LARGER * compressed_bytes)


def most_decoded(stored_bytes: int) -> int:
    """The most bytes that the columns of a Parquet, Feather or Arrow file of this size may become."""
    return max(COLUMNS_BYTES, COLUMNS_TIMES_LARGER * stored_bytes)
