"""What JSON lines would need before Arrow's reader is given them: it takes one level of its stack for each bracket that
is open, and a place in every row for each name that any row has.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.dialect import open_bytes
from mlp_lightning.tables.reading.limits import COLUMNS, JSON_LEVELS, most_decompressed

_BLOCK_BYTES = 1 << 20
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_NAME = re.compile(rb'"([^"\n]*)"\s*:')
_TEXT = re.compile(rb'"[^"]*"')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_OPENING = np.frombuffer(b"[{", np.uint8)
_CELL_BYTES = 8


def refuse_unbounded_json(path: Path, name: str) -> None:
    """Read a file of JSON lines for what reading it takes.

    Raises:
        DataError: its values are nested too deep, or its names are too many, by themselves or for its rows.
    """
    level, rows, in_text, rest = 0, 0, False, b""
    names: set[bytes] = set()
    with open_bytes(path) as file:
        while block := file.read(_BLOCK_BYTES):
            rows += block.count(b"\n")
            block, rest = _whole_escapes(rest + block)
            names.update(_NAME.findall(block))
            marks = block.translate(None, _NOT_STRUCTURE)
            # Two marks that follow each other begin and end a text, or end one and begin the next.
            marks = (b'"' if in_text else b"") + marks
            in_text = marks.count(b'"') % 2 == 1
            marks = _TEXT.sub(b"", marks.replace(b'""', b"")).partition(b'"')[0]
            levels = level + np.where(np.isin(np.frombuffer(marks, np.uint8), _OPENING), 1, -1).cumsum()
            if levels.max(initial=0) > JSON_LEVELS:
                raise DataError(
                    f"{name} has lists or objects nested more than {JSON_LEVELS} deep; a table has none. Is it a table?"
                )
            level = max(0, int(levels[-1])) if levels.size else level
            if len(names) > COLUMNS:
                raise DataError(f"{name} has more than {COLUMNS:,} columns, which is the limit; is it a table?")
    needed = (rows + 1) * len(names) * _CELL_BYTES
    if needed > most_decompressed(path.stat().st_size):
        raise DataError(
            f"{name} has {len(names):,} different names in {rows + 1:,} rows, most of which have only a few of them: as"
            f" a table it would take {needed:,} bytes. Write a row for each value, with one column for the names."
        )


def _whole_escapes(block: bytes) -> tuple[bytes, bytes]:
    """A block without escaped characters, and the backslash at its end whose character is in the next one."""
    if b"\\" not in block:
        return block, b""
    count = len(block) - len(block.rstrip(b"\\"))
    rest = block[-1:] if count % 2 else b""
    return _ESCAPED.sub(b"", block[: len(block) - len(rest)]), rest
