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
from mlp_lightning.tables.reading.compressed import Allowance, open_bytes
from mlp_lightning.tables.reading.limits import COLUMNS, JSON_LEVELS, most_decompressed

_BLOCK_BYTES = 1 << 20
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_TEXT = re.compile(rb'"[^"]*"')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_OPENING = np.frombuffer(b"[{", np.uint8)
_CELL_BYTES = 8
_QUOTE, _COLON, _OPEN, _CLOSE, _LINE_END = b'":{}\n'
_BLANK = np.isin(np.arange(256), list(b" \t\r\n"))
# Of a name, so many words of 8 bytes are compared by numpy, and the rest by Python.
_WORDS = 4
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_PLACE_BITS = 20
_MOST_BLANKS = 1000


def refuse_unbounded_json(path: Path, name: str, allowance: Allowance | None = None) -> None:
    """Read a file of JSON lines for what reading it takes.

    Args:
        path: the file.
        name: what messages call it.
        allowance: of the files of its table; None: it is the only one.

    Raises:
        DataError: its values are nested too deep, or its names are too many, by themselves or for its rows.
    """
    rows, names, levels, begun = 0, _Names(), _Levels(), b""
    with open_bytes(path, allowance) as file:
        while block := file.read(_BLOCK_BYTES):
            rows += _count(np.frombuffer(block, np.uint8), _LINE_END)
            lines, end, begun = (begun + block).rpartition(b"\n")
            if levels.are_none and names.are_those_of_the_first(lines + end):
                continue
            block, begun = (lines + end, begun) if end else (begun, b"")
            _look_closely(block, names, levels, name)
    _look_closely(begun, names, levels, name)
    needed = (rows + 1) * names.count * _CELL_BYTES
    if needed > most_decompressed(path.stat().st_size):
        raise DataError(
            f"{name} has {names.count:,} different names in {rows + 1:,} rows, most of which have only a few of them:"
            f" as a table it would take {needed:,} bytes. Write a row for each value, with one column for the names."
        )


def _look_closely(block: bytes, names: _Names, levels: _Levels, name: str) -> None:
    names.add(*levels.add(block))
    if levels.most > JSON_LEVELS:
        raise DataError(
            f"{name} has lists or objects nested more than {JSON_LEVELS} deep; a table has none. Is it a table?"
        )
    if names.count > COLUMNS:
        raise DataError(f"{name} has more than {COLUMNS:,} columns, which is the limit; is it a table?")


class _Levels:
    """How deep lists and objects are nested, block by block."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._in_text, self._rest = False, b""

    @property
    def are_none(self) -> bool:
        """Whether a block begins outside of texts, lists and objects."""
        return not (self._now or self._in_text or self._rest)

    def add(self, block: bytes) -> tuple[bytes, bool]:
        """Look at a block; gives it without escaped characters, and whether it begins within a text."""
        block, self._rest = _whole_escapes(self._rest + block)
        began_in_text = self._in_text
        marks = block.translate(None, _NOT_STRUCTURE)
        # Two marks that follow each other begin and end a text, or end one and begin the next.
        marks = (b'"' if began_in_text else b"") + marks
        self._in_text = marks.count(b'"') % 2 == 1
        marks = _TEXT.sub(b"", marks.replace(b'""', b"")).partition(b'"')[0]
        levels = self._now + np.where(np.isin(np.frombuffer(marks, np.uint8), _OPENING), 1, -1).cumsum()
        if levels.size:
            self.most = max(self.most, int(levels.max()))
            self._now = max(0, int(levels[-1]))
        return block, began_in_text


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

    def are_those_of_the_first(self, lines: bytes) -> bool:
        """Whether whole lines have one flat object each, all with the names of the first in its order.

        Then these names count. Most tables are so, and this is found in a third of the time of :meth:`add`.
        """
        first, end, rest = lines.partition(b"\n")
        if not (first[:1] == b"{" and rest.endswith(b"}\n")) or b"\\" in lines or b"[" in lines:
            return False
        # Words that begin before the first line, too.
        padded = np.frombuffer(bytes(8) + lines, np.uint8)
        opening, colons = np.flatnonzero(padded == _OPEN), np.flatnonzero(padded == _COLON)
        rows = len(opening)
        begins = (padded[opening[1:] - 1] == _LINE_END) & (padded[opening[1:] - 2] == _CLOSE)
        if not (begins.all() and rows == _count(padded, _LINE_END) == _count(padded, _CLOSE)):
            return False
        before = padded[colons - 1]
        ends_N = colons[before == _QUOTE] - 1
        count = int(np.searchsorted(ends_N, 8 + len(first)))
        if _BLANK[before].any() or not count or len(ends_N) != count * rows:
            return False
        ends_RN = ends_N.reshape(rows, count)
        if (ends_RN[:, 0] < opening).any() or (ends_RN[:-1, -1] > opening[1:]).any():
            return False
        starts = [first.rfind(b'"', 0, one - 8) for one in ends_RN[0]]
        if not _end_alike(padded, ends_RN, ends_RN[0] - 8 - np.array(starts)):
            return False
        self.add(first + end, False)
        return True

    def _bits(
        self, padded: NDArray[np.uint8], block: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """64 bits of every name."""
        # The eight bytes from every byte on.
        words = np.ndarray((len(padded) - 7,), np.uint64, padded.data, strides=(1,))
        lengths = ends - starts
        mixed = (lengths + 1).astype(np.uint64)  # not 0, which is that of no name
        for number in range(min(_WORDS, int(lengths.max(initial=0) + 7) // 8)):
            word = words[np.minimum(starts + 8 * number, len(words) - 1)]
            word &= _FIRST_BYTES[np.clip(lengths - 8 * number, 0, 8)]
            more = (mixed ^ word) * self._factors[number]
            # What a name has no bytes for leaves it alone, however long others are.
            mixed = np.where(lengths > 8 * number, more ^ (more >> np.uint64(32)), mixed)
        for number in np.flatnonzero(lengths > 8 * _WORDS):
            mixed[number] ^= np.uint64(hash(block[starts[number] : ends[number]]) & _FIRST_BYTES[8].item())
        return mixed * self._factors[_WORDS]


def _count(characters: NDArray[np.uint8], one: int) -> int:
    return int(np.count_nonzero(characters == one))  # in a fifth of the time of bytes.count


def _end_alike(padded: NDArray[np.uint8], ends_RN: NDArray[np.int64], lengths_N: NDArray[np.int64]) -> bool:
    """Whether the bytes before these places are those of the first row, as many as ``lengths_N`` says."""
    words = np.ndarray((len(padded) - 7,), np.uint64, padded.data, strides=(1,))
    for number in range(int(lengths_N.max()) // 8 + 1):
        missing = np.clip(8 * (number + 1) - lengths_N, 0, 8)
        bits_N = ~_FIRST_BYTES[missing]
        word_RN = words[np.maximum(ends_RN - 8 * (number + 1), 0)] & bits_N
        if (word_RN != word_RN[0]).any():
            return False
    return True
