"""Options of text files that have no effect on a table: what they name stands nowhere in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.config import CsvConfig
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.tables.reading.csv import CsvFile
from mlp_lightning.tables.reading.dialect import NULL_VALUES, known_encoding
from mlp_lightning.tables.reading.faults import encoding_of
from mlp_lightning.tables.reading.sources import TableSource

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute

_SPACES, _APOSTROPHES = r" \x{00a0}\x{2007}\x{2009}\x{202f}", r"'\x{2019}\x{02bc}"
_IS_DECIMAL_OR_THOUSANDS = r"(^|[^0-9])[1-9][0-9]{0,2}[.,][0-9]{3}([^0-9]|$)"


def _beside_digits(marks: str) -> str:
    return f"[0-9][{marks}]|[{marks}][0-9]"


# What a number looks like on which ``data.csv.thousands`` has an effect: it has the mark, or the option says what the
# other mark is.
_NUMBERS_WITH = {
    "space": f"[0-9][{_SPACES}][0-9]",
    "apostrophe": f"[0-9][{_APOSTROPHES}][0-9]",
    ".": rf"{_beside_digits('.')}|{_IS_DECIMAL_OR_THOUSANDS}",
    ",": rf"{_beside_digits(',')}|{_IS_DECIMAL_OR_THOUSANDS}",
    "none": f"[0-9][.,{_SPACES}{_APOSTROPHES}][0-9]",
}


def given_options(csv: Any) -> dict[str, Any]:
    """The options of a section that are set, by key; of ``CsvConfig`` or ``CsvAsTrained``, or ``None`` for none."""
    fields = () if csv is None else dataclasses.fields(csv)
    return {f"data.csv.{one.name}": getattr(csv, one.name) for one in fields if getattr(csv, one.name) != one.default}


def refuse_idle_csv(given: Any, sources: Sequence[TableSource]) -> None:
    """Options of text files, where no file is a text file, have no effect.

    Args:
        given: a section of such options, ``CsvConfig`` or ``CsvAsTrained``.
        sources: what they are given for.

    Raises:
        ConfigError: naming them.
    """
    if any(source.dialects for source in sources):
        return
    names = ", ".join(source.name for source in sources)
    rule = f"has no effect: {names} {'is' if len(sources) == 1 else 'are'} no text"
    faults = [Fault(key, value, rule, "leave it out") for key, value in given_options(given).items()]
    if faults:
        raise ConfigError(faults)


def refuse_unmatched_csv(
    options: CsvConfig, sources: Sequence[TableSource], columns: Collection[str], numbers: Collection[str]
) -> list[str]:
    """Refuse options of text files that name what stands nowhere in them.

    An option that says what is the case anyway is none of them. New rows of a trained model are not looked at in this
    way: they need not have all that the training rows have.

    Args:
        options: how the files are written.
        sources: the tables of a training.
        columns: that are used of them.
        numbers: those that hold numbers.

    Returns:
        Notes on the texts of ``data.csv.null_values`` that stand nowhere, where others do.

    Raises:
        ConfigError: naming the options.
    """
    files = [file for source in sources for file in source.files if isinstance(file, CsvFile)]
    faults = []
    if options.delimiter != "auto" and all(len(file.column_names) == 1 for file in files):
        faults.append(
            Fault("data.csv.delimiter", options.delimiter, _rule("the first line has one name"), "leave it out")
        )
    if _is_idle_encoding(options.encoding, files):
        rule = _rule("all characters are ASCII, which it does not change")
        faults.append(Fault("data.csv.encoding", options.encoding, rule, "leave it out"))
    wanted = {"decimal": _beside_digits(".,") if options.decimal != "auto" else ""}
    wanted["thousands"] = _NUMBERS_WITH.get(options.thousands, "")
    for key, pattern in wanted.items():
        if pattern and not any(_any(pc.match_substring_regex(texts, pattern)) for texts in _texts(files, numbers)):
            which = "a mark that it could concern" if getattr(options, key) in (".", ",", "none") else "such a mark"
            hint = "correct it, or leave it out"
            faults.append(Fault(f"data.csv.{key}", getattr(options, key), _rule(f"no number has {which}"), hint))
    unseen = set() if options.null_values == "auto" else _unseen(options.null_values, files, columns)
    listed = [] if options.null_values == "auto" else [one for one in options.null_values if one.strip()]
    if options.null_values != "auto" and unseen == {*(listed or NULL_VALUES)} - {""}:
        what = "no value is one of these texts" if listed else "no value is NA, null or the like"
        faults.append(Fault("data.csv.null_values", options.null_values, _rule(what), "correct it, or leave it out"))
    if faults:
        raise ConfigError(faults)
    return [f"data.csv.null_values: no value is {text!r}" for text in listed if text in unseen]


def _rule(reason: str) -> str:
    return f"has no effect: {reason}"


def _is_idle_encoding(encoding: str, files: Sequence[CsvFile]) -> bool:
    """Whether an encoding other than UTF-8 reads the same characters as UTF-8."""
    ascii_bytes = bytes(range(128))
    if known_encoding(encoding) == "utf-8" or ascii_bytes.decode(encoding, "replace") != ascii_bytes.decode("ascii"):
        return False
    return all(encoding_of(file.path) == "ascii" for file in files)


def _unseen(null_values: Sequence[str], files: Sequence[CsvFile], columns: Collection[str]) -> set[str]:
    """Those of the texts for missing values that no value is; without any, those that ``auto`` takes for them."""
    left = {one for one in null_values if one.strip()} or {*NULL_VALUES} - {""}
    for texts in _texts(files, columns):
        trimmed = pc.utf8_trim_whitespace(texts)
        found = trimmed.filter(pc.is_in(trimmed, value_set=pa.array([one.strip() for one in left]))).unique()
        left -= {one for one in left if one.strip() in set(found.to_pylist())}
        if not left:
            break
    return left


def _texts(files: Sequence[CsvFile], columns: Collection[str]) -> Iterator[pa.Array]:
    """The values of columns as they are written, part by part."""
    for file in files:
        for batch in file.written_texts([one for one in file.column_names if one in columns]):
            yield from batch.columns


def _any(truths: pa.Array) -> bool:
    return bool(pc.any(truths).as_py())
