"""How a text table is written: delimiter, decimal mark, encoding, texts of missing values, header.

What the options leave at ``auto`` is detected from the first 64 Ki characters of the file (after decompression).
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.tables.reading.compressed import open_bytes
from mlp_lightning.tables.reading.limits import COLUMNS, HEADER_CHARACTERS

SAMPLE_CHARACTERS = 1 << 16
NAMED_DELIMITERS = {"tab": "\t", "space": " "}
# In this order where several fit: commas also stand in names ("length, mm") and in numbers ("1,5"), the others rarely.
SNIFFED_DELIMITERS = ("\t", ";", "|", ",")
# The texts that pandas takes for missing; the empty text is one of them, quoted or not. Where nobody says that they
# stand for a missing value, the words count as missing among numbers and dates only: a class may be called None.
NULL_VALUES = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
WITH_COMMA = re.compile(r"\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*")
WITH_POINT = re.compile(r"\s*[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?\s*")
# May be a number with a decimal mark, or a whole one with a mark between thousands.
EITHER = re.compile(r"\s*[+-]?[1-9]\d{0,2}[.,]\d{3}\s*")
# A first line with which spreadsheets name the delimiter.
SEPARATOR_LINE = re.compile(r"[\r\n]*\"?sep=(.)\"?(\r\n|\n|\r)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CsvDialect:
    """What must be known to read one text file.

    Attributes:
        delimiter: the character between two columns.
        decimal: ``.`` or ``,``; None where the sample holds no number that decides.
        is_decided: whether the option or a number of the sample says what the decimal mark is.
        encoding: name of a Python codec; ``utf-8`` also stands for UTF-8 with a byte order mark.
        null_values: texts that mean a missing value, with the blanks that may surround them.
        options: what the user says of the file.
        quotes_texts: whether the column names are in quotes, as R writes them; then texts are too, and a bare NA is a
            missing value.
        header: column names, without the blanks around them.
        header_lines: lines up to the end of the header: data begin on the next one.
        has_rows: whether any row follows the header.
    """

    delimiter: str
    decimal: Union[str, None]
    encoding: str
    null_values: tuple[str, ...]
    header: tuple[str, ...]
    header_lines: int
    has_rows: bool = True
    is_decided: bool = True
    options: CsvConfig = dataclasses.field(default_factory=CsvConfig)
    quotes_texts: bool = False


def open_text(path: Path, encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    """The decompressed text of a file, line ends untouched and without a byte order mark."""
    codec = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(open_bytes(path), encoding=codec, errors=errors, newline="")


def read_dialect(path: Path, name: str, config: CsvConfig) -> CsvDialect:
    """The dialect of one file; ``name`` is what messages call it.

    Raises:
        ConfigError: an invalid option, such as an encoding that Python does not know.
        DataError: the file is empty or not text, or its header cannot serve.
    """
    if config.decimal == config.thousands != "auto":
        rule = f"contradicts data.csv.decimal = {config.decimal!r}: one mark cannot be both"
        raise ConfigError([Fault("data.csv.thousands", config.thousands, rule, "set one of the two")])
    encoding = known_encoding(config.encoding)
    sample, is_whole = read_sample(path, name, encoding)
    before = SEPARATOR_LINE.match(sample)
    sample = sample if before is None else sample[before.end() :]
    named = None if before is None or config.delimiter != "auto" else before[1]
    delimiter = named or chosen_delimiter(sample, is_whole, path, config)
    records = records_of(sample, delimiter, is_whole)
    refuse_title(sample, is_whole, delimiter, name)
    header, header_lines = read_header(sample, delimiter, name)
    if before is not None:
        header_lines += len(re.findall(r"\r\n|\n|\r", before[0]))
    sniffed = sniff_decimal(records[1:], delimiter)
    return CsvDialect(
        delimiter,
        given_decimal(config) or sniffed,
        encoding,
        null_texts(config),
        header,
        header_lines,
        has_rows=len(records) > 1 or not is_whole,
        is_decided=bool(given_decimal(config) or sniffed),
        options=config,
        quotes_texts=config.null_values == "auto" and are_quoted(sample, delimiter, header),
    )


def given_decimal(config: CsvConfig) -> str | None:
    """The decimal mark, where the options say it; what stands between thousands is none."""
    if config.decimal != "auto":
        return config.decimal
    return {",": ".", ".": ","}.get(config.thousands)


def are_quoted(sample: str, delimiter: str, names: Sequence[str]) -> bool:
    """Whether a file begins with these names, all in quotes."""
    quoted = delimiter.join('"{}"'.format(name.replace('"', '""')) for name in names)
    return sample.lstrip("\r\n").startswith(quoted)


def known_encoding(encoding: str) -> str:
    """The codec's own name, ``utf-8`` for all spellings of UTF-8."""
    try:
        # Some of Python's codecs turn bytes into bytes ("hex"); no public name distinguishes them.
        "".encode(encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        fault = Fault("data.csv.encoding", encoding, "is not an encoding of text that Python knows", "try latin-1")
        raise ConfigError([fault]) from None
    return "utf-8" if name == "utf-8-sig" else name


def null_texts(config: CsvConfig) -> tuple[str, ...]:
    """All texts that mean a missing value; the empty one always does, and so do up to eight blanks."""
    texts = NULL_VALUES if config.null_values == "auto" else tuple(config.null_values)
    padded = [f"{before}{text}{after}" for text in texts for before in ("", " ") for after in ("", " ")]
    return tuple(dict.fromkeys([*padded, *(" " * count for count in range(9))]))


def read_sample(path: Path, name: str, encoding: str) -> tuple[str, bool]:
    """The beginning of the file, at least its first line, and whether that is all of it."""
    try:
        with open_text(path, encoding, errors="replace") as file:
            sample = file.read(SAMPLE_CHARACTERS)
            # A header of thousands of columns may be longer than the sample.
            while not re.search(r"[^\r\n][\r\n]", sample) and (more := file.read(len(sample) or 1)):
                sample += more
                if "\0" in sample or len(sample) > HEADER_CHARACTERS:
                    break
            is_whole = not file.read(1)
    except UnicodeError as error:
        raise DataError(f"{name} is not text in the encoding {encoding} ({error}); set data.csv.encoding") from None
    if not sample.strip("\r\n"):
        raise DataError(f"{name} is empty; a table needs a line of column names and then one line for each row.")
    if "\0" in sample:
        raise DataError(
            f"{name} is not text in the encoding {encoding}: it holds zero bytes. If a spreadsheet wrote it as text, "
            "try data.csv.encoding=utf-16; if it is not a text file, its ending is wrong."
        )
    if len(sample) > HEADER_CHARACTERS:
        raise DataError(
            f"{name} has a first line of more than {HEADER_CHARACTERS:,} characters, which is the limit for the names"
            " of the columns; is it a table?"
        )
    return sample, is_whole


def records_of(sample: str, delimiter: str, is_whole: bool) -> list[list[str]]:
    """The values of each record that is complete in the sample; quotes are respected, empty lines left out."""
    records = []
    try:
        for record in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if record:
                records.append(record)
    except csv.Error:
        return records  # such as a quoted value over 128 KiB; what came before it is enough
    return records if is_whole or len(records) < 2 else records[:-1]


def chosen_delimiter(sample: str, is_whole: bool, path: Path, config: CsvConfig) -> str:
    if config.delimiter != "auto":
        return NAMED_DELIMITERS.get(config.delimiter, config.delimiter)
    if ".tsv" in [suffix.lower() for suffix in path.suffixes[-2:]]:
        return "\t"
    return sniff_delimiter(sample, is_whole, [one for one in SNIFFED_DELIMITERS if one != config.decimal])


def sniff_delimiter(sample: str, is_whole: bool = True, candidates: Sequence[str] = SNIFFED_DELIMITERS) -> str:
    r"""The candidate that gives most records as many values as the header has names, and at least two.

    >>> sniff_delimiter("length, mm;width, mm\n1,5;2,5\n")
    ';'
    >>> sniff_delimiter("length\n1.5\n")
    ','
    """
    best, best_share = ",", 0.0
    for delimiter in candidates:
        records = records_of(sample, delimiter, is_whole)
        width = len(records[0]) if records else 0
        share = sum(len(record) == width for record in records) / len(records) if width > 1 else 0.0
        if share > best_share:
            best, best_share = delimiter, share
    return best


def sniff_decimal(records: Sequence[Sequence[str]], delimiter: str) -> str | None:
    """The decimal mark of the values, None where no value decides.

    A comma only where values like ``-12,5`` occur and values like ``12.5`` do not. ``1.234`` and ``1,234`` decide
    nothing alone: they may be thousands. In a file with commas between columns, numbers with a comma are in quotes;
    whether they are thousands or decimals is for the whole column to say.
    """
    found = {
        (mark, bool(EITHER.fullmatch(value)))
        for record in records
        for value in record
        for mark, pattern in ((".", WITH_POINT), (",", WITH_COMMA))
        if pattern.fullmatch(value)
    }
    if (".", False) in found:
        return "."
    if (",", False) in found and delimiter != ",":
        return ","
    # Semicolons are there because commas are decimal marks.
    return "," if delimiter == ";" and found == {(",", True)} else None


def read_header(sample: str, delimiter: str, name: str) -> tuple[tuple[str, ...], int]:
    """Column names and the number of lines up to their end.

    Raises:
        DataError: a name is empty, or two are the same, or the header is not text in this encoding.
    """
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    try:
        header = next(record for record in reader if record)
    except csv.Error as error:
        raise DataError(f"{name}, line 1: the column names cannot be read ({error}).") from None
    names = tuple(one.strip() for one in header)
    check_names(names, f"{name}, line {reader.line_num}")
    return names, reader.line_num


def refuse_title(sample: str, is_whole: bool, delimiter: str, name: str) -> None:
    """Refuse a first line of one value above lines that all have more: it cannot have the names of all columns.

    Raises:
        DataError: with the line.
    """
    (first, *others) = records_of(sample, delimiter, is_whole) or [[]]
    widths = {len(record) for record in others}
    if len(first) == 1 and len(others) > 1 and len(widths) == 1 and widths != {1}:
        raise DataError(
            f"{name}: the first line has one value ({first[0][:80]!r}), and all others have {min(widths)}. If it is a"
            " title, remove it, so that the first line has the names of the columns."
        )


def _hint_on_name(number: int, count: int) -> str:
    if number == 1 < count:
        return (
            "If it holds row labels, leave them out where the file is written (index=False in pandas, row.names=FALSE"
            " in R); else give it a name."
        )
    if number == count > 1:
        return "If each line ends with a delimiter, take that away; else give the column a name."
    return "Give it one."


def check_names(names: Sequence[str], place: str) -> None:
    """Check that every column has a unique name.

    Raises:
        DataError: a name is empty, two are the same, or they are too many or none.
    """
    if not names:
        raise DataError(f"{place}: there are no columns; a table needs at least one.")
    if len(names) > COLUMNS:
        raise DataError(f"{place}: there are {len(names):,} columns, and the limit is {COLUMNS:,}; is it a table?")
    if len(names) > 1 and names[0] and not any(names[1:]):
        raise DataError(
            f"{place}: only the first of {len(names)} columns has a name ({names[0][:80]!r}). If it is a title, remove"
            " its line, so that the first one has the names of the columns."
        )
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(
                f"{place}: column {number} of {len(names)} has no name. {_hint_on_name(number, len(names))}"
            )
    seen: set[str] = set()
    twice = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))
    if twice:
        listed = ", ".join(repr(name) for name in twice[:5]) + (" and more" if len(twice) > 5 else "")
        raise DataError(
            f"{place}: more than one column is called {listed}; every column needs a unique name, "
            "in a first line that holds the names."
        )
