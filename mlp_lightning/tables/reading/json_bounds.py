"""What JSON lines would need before Arrow's reader is given them: it takes one level of its stack for each bracket that
is open, and a place in every row for each name that any row has.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.dialect import open_bytes
from mlp_lightning.tables.reading.limits import COLUMNS, JSON_LEVELS, most_decompressed

_BLOCK_BYTES = 1 << 20
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_TEXT = re.compile(rb'"[^"]*"')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_OPENING = np.frombuffer(b"[{", np.uint8)
_CELL_BYTES = 8
_QUOTE, _COLON = ord('"'), ord(":")
_BLANK = np.isin(np.arange(256), list(b" \t\r\n"))
# Of a name, so many words of 8 bytes are compared by numpy, and the rest by Python.
_WORDS = 4
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_PLACE_BITS = 20
_MOST_BLANKS = 1000


def refuse_unbounded_json(path: Path, name: str) -> None:
    """Read a file of JSON lines for what reading it takes.

    Raises:
        DataError: its values are nested too deep, or its names are too many, by themselves or for its rows.
    """
    level, rows, in_text, rest = 0, 0, False, b""
    names = _Names()
    with open_bytes(path) as file:
        while block := file.read(_BLOCK_BYTES):
            rows += block.count(b"\n")
            block, rest = _whole_escapes(rest + block)
            names.add(block, in_text)
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
            if names.count > COLUMNS:
                raise DataError(f"{name} has more than {COLUMNS:,} columns, which is the limit; is it a table?")
    needed = (rows + 1) * names.count * _CELL_BYTES
    if needed > most_decompressed(path.stat().st_size):
        raise DataError(
            f"{name} has {names.count:,} different names in {rows + 1:,} rows, most of which have only a few of them:"
            f" as a table it would take {needed:,} bytes. Write a row for each value, with one column for the names."
        )


def _whole_escapes(block: bytes) -> tuple[bytes, bytes]:
    """A block without escaped characters, and the backslash at its end whose character is in the next one."""
    if b"\\" not in block:
        return block, b""
    count = len(block) - len(block.rstrip(b"\\"))
    rest = block[-1:] if count % 2 else b""
    return _ESCAPED.sub(b"", block[: len(block) - len(rest)]), rest


class _Names:
    """How many different names there are, by 64 bits of each.

    To make a text of Python's of every name would take as long as Arrow takes for the whole file.
    """

    def __init__(self) -> None:
        self._names: set[int] = set()
        self._latest = np.zeros(1 << _PLACE_BITS, np.uint64)  # of the names that share a place; most rows have the same
        # Others in every process, so that no file can be made of names that share their bits.
        self._factors = np.frombuffer(os.urandom(8 * (_WORDS + 1)), np.uint64) | np.uint64(1)

    @property
    def count(self) -> int:
        return len(self._names)

    def add(self, block: bytes, in_text: bool) -> None:
        """Look at a block without escaped characters, which begins within a text or not."""
        padded = np.frombuffer(block + bytes(8 * _WORDS + 1), np.uint8)
        quotes = np.flatnonzero(padded == _QUOTE)[int(in_text) :]
        ends = quotes[1::2]
        starts = quotes[::2][: len(ends)] + 1
        follows = padded[ends + 1]
        for number in np.flatnonzero(_BLANK[follows]):
            follows[number] = next(iter(block[ends[number] + 1 :][:_MOST_BLANKS].lstrip()), 0)
        named = follows == _COLON
        bits = self._bits(padded, block, starts[named], ends[named])
        places = bits >> np.uint64(64 - _PLACE_BITS)
        others = bits[self._latest[places] != bits]
        self._names.update(np.unique(others).tolist())
        self._latest[places] = bits

    def _bits(
        self, padded: NDArray[np.uint8], block: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """64 bits of every name."""
        # The eight bytes from every byte on.
        words = np.ndarray((len(padded) - 7,), np.uint64, padded.data, strides=(1,))
        lengths = ends - starts
        mixed = lengths.astype(np.uint64)
        for number in range(min(_WORDS, int(lengths.max(initial=0) + 7) // 8)):
            word = words[np.minimum(starts + 8 * number, len(words) - 1)]
            word &= _FIRST_BYTES[np.clip(lengths - 8 * number, 0, 8)]
            mixed = (mixed ^ word) * self._factors[number]
            mixed ^= mixed >> np.uint64(32)
        for number in np.flatnonzero(lengths > 8 * _WORDS):
            mixed[number] ^= np.uint64(hash(block[starts[number] : ends[number]]) & _FIRST_BYTES[8].item())
        return mixed * self._factors[_WORDS]
