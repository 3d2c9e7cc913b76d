"""Columns of text files that hold codes: digits of one width with zeros before them, such as ``01067``."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.config.free_names import column_option
from mlp_lightning.tables.reading.csv import CsvFile
from mlp_lightning.tables.reading.numbers import without_words
from mlp_lightning.tables.reading.sources import TableSource
from mlp_lightning.tables.written_numbers import MOST_CLASSES_OF_DIGITS

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute
_MOST_FILES = 16  # of which the first values are looked at


def read_codes(
    table: pa.Table, source: TableSource, names: Collection[str], targets: Collection[str]
) -> tuple[pa.Table, list[str], list[str]]:
    """The table with texts for codes that were read as whole numbers; those columns, and a line on each of them.

    Args:
        table: all rows of some columns of the source.
        source: of the rows.
        names: of the columns of which nobody says what they are.
        targets: which of them are to be predicted; many different values of one are numbers, and no classes.
    """
    codes, notes = [], []
    for name, padded in _with_zeros(table, source, names, targets).items():
        texts = without_words(source.read([name], {name: pa.string()}).column(name))
        widths = pc.min_max(pc.utf8_length(texts)).as_py()
        is_padded = pc.fill_null(pc.match_substring_regex(texts, "^0[0-9]"), False)
        has_one_width = widths["min"] == widths["max"] and pc.all(pc.match_substring_regex(texts, "^[0-9]+$")).as_py()
        if has_one_width and pc.any(is_padded).as_py():
            table = table.set_column(table.column_names.index(name), name, texts)
            codes.append(name)
            padded = texts[pc.index(is_padded, True).as_py()].as_py()
        if padded:
            what, kind, when = "numbers", "categorical", "are codes"
            if name in codes:
                what, kind, when = "categories", "numeric", "count"
            option = column_option(name, "kind", kind)
            notes.append(f"{name}: digits with zeros before them ({padded}) are {what}; {option} if they {when}")
    return table, codes, notes


def _with_zeros(
    table: pa.Table, source: TableSource, names: Collection[str], targets: Collection[str]
) -> dict[str, str]:
    """Columns of whole numbers that may be written with zeros before them, each with one that is, if it is known.

    Those are columns with such a value in the sample, and others with smaller numbers than their width there allows.
    """
    files = [file for file in source.files if isinstance(file, CsvFile)]
    # Others are in the names of folders.
    there = set(names).intersection(table.column_names, *(file.column_names for file in files))
    numbers = [one for one in names if one in there and pa.types.is_integer(table.column(one).type)]
    texts: dict[str, set[str]] = {name: set() for name in numbers}
    for file in files[:_MOST_FILES] if numbers else ():
        for name, first in file.first_texts(numbers).items():
            texts[name] |= {one.strip() for one in first}
    found = {}
    for name in numbers if files else ():
        values, widths = table.column(name), {len(one) for one in texts[name]}
        extremes = pc.min_max(values).as_py()
        if extremes["min"] is None or (name in targets and pc.count_distinct(values).as_py() > MOST_CLASSES_OF_DIGITS):
            continue
        padded = next((one for one in sorted(texts[name]) if re.match("0[0-9]", one)), "")
        width = max(widths, default=len(str(extremes["max"])))
        may_be = len(widths) < 2 and 0 <= extremes["min"] < 10 ** (width - 1) and extremes["max"] < 10**width
        if padded or (may_be and width > 1):
            found[name] = padded
    return found
