"""Dates, times of day and time stamps that are written as texts.

A form is written as in ``strptime``: ``%d/%m/%Y``. After a date a time of day may follow, and after a time its seconds,
their fraction, AM or PM, and a zone; a moment without a zone is in UTC, one without a date on 1970-01-01. A date as ISO
writes it, 2024-05-31, is read beside any form that has a year.

Shapes: ``B`` values.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from mlp_lightning.config.free_names import column_option
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.tables.reading.types import AS_MISSING, TIMESTAMP

# Its functions are made when it is imported, where a type checker does not see them.
pc: Any = pyarrow.compute
ISO = "%Y-%m-%d"
TIME_OF_DAY = "%H:%M"
# Of the different values, more than this share must be moments in one form for the column to hold moments.
_MOST = 0.5
_SAMPLE = 200

_LETTERS = "[A-Za-zÀ-ɏ]+"  # of all scripts they would take RE2 a hundred times longer
_ZONE = r"Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2}"
FIELDS = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "b": rf"(?P<b>{_LETTERS})\.?",
    "B": rf"(?P<b>{_LETTERS})\.?",
    "d": r"(?P<d>\d{1,2})",
    "a": rf"{_LETTERS}\.?",
    "A": rf"{_LETTERS}\.?",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<H>\d{1,2})",
    "M": r"(?P<M>\d{2})",
    "S": r"(?P<S>\d{2})",
    "f": r"(?P<f>\d{1,9})",
    "p": r"(?P<p>[AaPp])\.?[Mm]\.?",
    "z": f"(?P<z>{_ZONE})",
}
_CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?(?: ?(?P<p>[AaPp])\.?[Mm]\.?)?"
_CLOCK += f"(?: ?(?P<z>{_ZONE}))?"

_NAMES_OF_MONTHS = (
    "january januar janvier enero gennaio janeiro januari",
    "february februar février fevrier febrero febbraio fevereiro februari feber",
    "march märz maerz mrz mars marzo março marco maart mrt",
    "april avril abril aprile",
    "may mai mayo maggio maio mei maj",
    "june juni juin junio giugno junho",
    "july juli juillet julio luglio julho",
    "august août aout agosto augustus augusti",
    "september septembre septiembre settembre setembro",
    "october oktober octobre octubre ottobre outubro",
    "november novembre noviembre novembro",
    "december dezember décembre decembre diciembre dicembre dezembro",
)

# The forms that are tried. ISO comes first: where several read the same, the first one is meant.
_FORMS = (
    *(form.replace("-", mark) for mark in "-/." for form in (ISO, "%d-%m-%Y", "%m-%d-%Y")),
    *(form.replace("-", mark) for mark in "-/." for form in ("%d-%m-%y", "%m-%d-%y", "%y-%m-%d")),
    *(form.replace("-", mark) for mark in "-/." for form in ("%Y-%m", "%m-%Y")),
    *("%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d.%b.%Y", "%d/%b/%Y", "%d%b%Y", "%d de %b de %Y", "%Y-%b-%d", "%Y %b %d"),
    *("%b %d, %Y", "%b %d %Y", "%b-%d-%Y", "%d %b %y", "%d. %b %y", "%d-%b-%y", "%d%b%y", "%b %Y", "%b-%Y", "%Y %b"),
    *("%a %d %b %Y", "%a, %d %b %Y", "%a, %d. %b %Y", "%a %b %d %Y", "%a, %b %d, %Y", "%a %b %d %H:%M:%S %Y"),
    *("%d/%b/%Y:%H:%M:%S %z", "%d-%m-%Y %H.%M", "%d.%m.%Y %H.%M", TIME_OF_DAY),
)
_HAS_SHAPE_OF_A_MOMENT = r"\d\D{1,16}\d|\D{3}[-/. ]\d{4}"


def read_moments(texts: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """The moments that texts hold, missing where one is not of the form (or is no day or time that exists).

    >>> read_moments(pa.chunked_array([["31.12.2021", "1.2.2022 8:15", "30.2.2022"]]), "%d.%m.%Y").to_pylist()
    [datetime.datetime(2021, 12, 31, 0, 0), datetime.datetime(2022, 2, 1, 8, 15), None]
    """
    encoded = texts.combine_chunks().dictionary_encode()
    if not isinstance(encoded, pa.DictionaryArray):  # pyarrow hands over chunks where there are several
        encoded = encoded.unify_dictionaries().combine_chunks()
    return pa.chunked_array([_read(encoded.dictionary, form).take(encoded.indices)])


def is_of_form(texts: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """Whether a text is of the form itself, and not as ISO writes a date."""
    return pc.fill_null(pc.match_substring_regex(pc.utf8_trim_whitespace(texts), _pattern(form)), False)


def has_zone(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a text ends with a time and its zone, such as +02:00 or Z."""
    return pc.match_substring_regex(texts, rf":\d{{2}}[\d.,]* ?({_ZONE})\s*$")


def converted_moments(column: str, values: pa.ChunkedArray, form: str, place: Callable[[int], str]) -> pa.ChunkedArray:
    """Texts as moments.

    Raises:
        DataError: a text is not of the form, with its place.
    """
    moments = read_moments(values, form)
    if moments.null_count > values.null_count:
        row = pc.index(pc.and_(moments.is_null(), values.is_valid()), True).as_py()
        raise DataError(
            f"{place(row)}: column {column!r} has {values[row].as_py()!r}, which is not a moment in the form {form}."
            f" Correct the value; {AS_MISSING}."
        )
    return moments


def with_moments(
    table: pa.Table, forms: Mapping[str, str | None], required: Collection[str], place: Callable[[int], str]
) -> tuple[pa.Table, dict[str, str]]:
    """The table with moments in the place of texts, and the form of each column in which they were found.

    Args:
        table: all rows.
        forms: the columns to look at, each with its form; ``None``: inferred from all values.
        required: columns that must hold moments.
        place: the location of the row with a number, for messages.

    Raises:
        ConfigError: a form has no effect.
        DataError: a value is not of the form, or no form is certain.
    """
    found: dict[str, str] = {}
    for name, form in forms.items():
        values = table.column(name)
        if not pa.types.is_string(values.type) or values.null_count == len(values):
            continue
        if (
            form is not None
            and not pc.any(is_of_form(values, form)).as_py()
            and read_moments(values, form).null_count == values.null_count
        ):
            rule = "has no effect: the column holds moments as ISO writes them"
            raise ConfigError([Fault(f"data.columns.{name}.format", form, rule, "leave it out")])
        form = inferred_form(name, values, place) if form is None else form
        if form is not None:
            table = table.set_column(table.column_names.index(name), name, converted_moments(name, values, form, place))
            found[name] = form
        elif name in required:
            row = pc.index(values.is_valid(), True).as_py()
            raise DataError(
                f"{place(row)}: column {name!r} has {values[row].as_py()!r}, which is not read as a date or a time."
                f" Say how moments are written with {column_option(name, 'format', '%d/%m/%Y')}, say, or set another"
                " kind."
            )
    return table, found


def inferred_form(
    column: str, values: pa.ChunkedArray, place: Callable[[int], str], advice: str | None = None
) -> str | None:
    """The form in which the texts of a column are moments; ``None`` if they are something else.

    Args:
        column: its name.
        values: all its texts.
        place: the location of the row with a number, for messages.
        advice: what messages say can be done; ``None``: which options can be set.

    Raises:
        DataError: most are moments and one is not, or they can be read in several ways.
    """
    distinct = pc.drop_null(pc.unique(values))
    if _are_seasons(column, distinct, lambda value: place(pc.index(values, value).as_py()), advice):
        return None
    at = np.unique(np.linspace(0, len(distinct) - 1, min(len(distinct), _SAMPLE)).astype(np.int64))
    sample = distinct.take(pa.array(at))
    if not len(sample) or pc.mean(pc.match_substring_regex(sample, _HAS_SHAPE_OF_A_MOMENT)).as_py() <= _MOST:
        return None
    read = {form: _read(distinct, form) for form in _FORMS if _count(_read(sample, form))}
    if not read or _count(pc.coalesce(*read.values())) <= _MOST * len(distinct):
        return None
    best = max(read, key=lambda form: _count(read[form]))
    count = _count(read[best])
    if count < len(distinct):
        value = distinct.filter(read[best].is_null())[0]
        row = pc.index(values, value).as_py()
        others = [f"if these are durations, set {column_option(column, 'kind', 'numeric')}"] * (best == TIME_OF_DAY)
        others += [f"if all are of another form, say which with {column_option(column, 'format', '%d/%m/%Y')}"]
        others += [f"if the column holds categories, set {column_option(column, 'kind', 'categorical')}"]
        missing = f"Correct the value; {AS_MISSING}"
        advice = advice or f"{'; '.join([missing, *others])}."
        raise DataError(
            f"{place(row)}: column {column!r} holds moments in the form {best}, but {value.as_py()!r} here. {advice}"
        )
    complete = {form: moments for form, moments in read.items() if _count(moments) == count}
    first, *others = complete
    for other in others:
        differs = pc.not_equal(complete[first], complete[other])
        if pc.any(differs).as_py():
            at_first = pc.index(differs, True).as_py()
            both = [f"{complete[form][at_first].as_py():%Y-%m-%d} in the form {form}" for form in (first, other)]
            advice = advice or (
                f"Say it with {column_option(column, 'format', first)} (or ={other}); if the column holds categories,"
                f" set {column_option(column, 'kind', 'categorical')}."
            )
            raise DataError(
                f"{place(pc.index(values, distinct[at_first]).as_py())}: column {column!r} has"
                f" {distinct[at_first].as_py()!r}, which is {both[0]} and {both[1]}, and no value of the column tells"
                f" which. {advice}"
            )
    return first


def _are_seasons(column: str, distinct: pa.Array, place: Callable[[Any], str], advice: str | None) -> bool:
    """Whether all texts are of the form 2010-11 and the second part is the year after the first.

    Raises:
        DataError: they may be months as well.
    """
    parts = pc.extract_regex(
        pc.utf8_trim_whitespace(distinct), r"^(?P<year>[0-9]{4})(?P<mark>[-/.])(?P<next>[0-9]{2})$"
    )
    if len(distinct) < 2 or parts.null_count:
        return False
    year_B, next_B = (pc.struct_field(parts, one).cast(pa.int64()).to_numpy() for one in ("year", "next"))
    if ((year_B + 1) % 100 != next_B).any():
        return False
    if ((next_B < 1) | (next_B > 12)).any():
        return True
    form = f"%Y{pc.struct_field(parts, 'mark')[0].as_py()}%m"
    raise DataError(
        f"{place(distinct[0])}: column {column!r} has {distinct[0].as_py()!r}, and in all rows the second number is the"
        " year after the first: these are seasons, or months. "
        + (
            advice
            or f"Say {column_option(column, 'kind', 'categorical')} for seasons, or"
            f" {column_option(column, 'format', form)} for months."
        )
    )


def _count(values: pa.Array) -> int:
    return len(values) - values.null_count


@functools.cache
def _pattern(form: str) -> str:
    """The regular expression of a form, with a named group for each part."""
    has_date, whole = re.search("%[YymbBd]", form), form
    if form.endswith("%H:%M"):
        form, tail = form[: -len("%H:%M")], _CLOCK
    elif has_date and not re.search("%[HI]", form):
        tail = rf"(?:(?:T| +|, ?){_CLOCK})?"
    else:
        tail = ""
    pattern = ""
    for token in re.findall(r"%.|\s+|[^%\s]", form):
        if token[0] == "%":
            pattern += FIELDS[token[1]]
        else:
            pattern += " +" if token.isspace() else re.escape(token)
    if re.search("%[a-zA-Z]%[a-zA-Z]", whole):  # without marks between them, days and months have two digits
        pattern = pattern.replace(r"\d{1,2}", r"\d{2}")
    return f"^{pattern}{tail}$"


def _read(texts: pa.Array, form: str) -> pa.Array:
    moments = _of_form(texts, form)
    # What ISO writes can be nothing else, unless the form has the same shape; beside times of day it is a fault.
    if not moments.null_count or form.startswith("%Y-") or not re.search("%[Yy]", form):
        return moments
    return pc.coalesce(moments, _of_form(texts, ISO))


def _of_form(texts: pa.Array, form: str) -> pa.Array:
    found = pc.extract_regex(pc.utf8_trim_whitespace(texts), _pattern(form))
    parts = {field.name: found.field(number) for number, field in enumerate(found.type)}
    is_read_B = found.is_valid().to_numpy(zero_copy_only=False)

    def numbers(name: str, default: int) -> NDArray[np.int64]:
        if name not in parts:
            return np.full(len(texts), default)
        digits = pc.if_else(pc.equal(parts[name], ""), str(default), parts[name])
        return pc.fill_null(digits.cast(pa.int64()), default).to_numpy()

    def texts_of(name: str) -> pa.Array:
        return pc.fill_null(parts[name], "") if name in parts else pa.repeat("", len(texts))

    year_B = numbers("Y", 1970)
    if "y" in parts:  # as POSIX says: 69 is 1969 and 68 is 2068
        short_B = numbers("y", 70)
        year_B = short_B + np.where(short_B < 69, 2000, 1900)
    month_B = _months(texts_of("b")) if "b" in parts else numbers("m", 1)
    hour_B = _of_24(numbers("H", 0), texts_of("p"))
    is_read_B &= (month_B >= 1) & (month_B <= 12) & (year_B >= 1) & (hour_B < 24)
    if "d" not in parts:  # 1234-05 is a code
        is_read_B &= ((year_B >= 1600) & (year_B < 2200)) if "m" in parts or "b" in parts else True
    month_start_B = ((year_B - 1970) * 12 + np.clip(month_B, 1, 12) - 1).astype("M8[M]")
    day_B, minute_B, second_B = numbers("d", 1), numbers("M", 0), numbers("S", 0)
    days_B = ((month_start_B + 1).astype("M8[D]") - month_start_B.astype("M8[D]")).astype(np.int64)
    is_read_B &= (day_B >= 1) & (day_B <= days_B) & (minute_B < 60) & (second_B < 60)
    seconds_B = (day_B - 1) * 86_400 + hour_B * 3_600 + minute_B * 60 + second_B - _zones(texts_of("z"))
    micros_B = seconds_B * 1_000_000 + _micros(texts_of("f"))
    moments_B = month_start_B.astype("M8[us]") + micros_B.astype("m8[us]")
    return pa.array(moments_B, TIMESTAMP, mask=~is_read_B)


def _by_text(texts: pa.Array, number: Callable[[str], int]) -> NDArray[np.int64]:
    """A number for each text, made once for texts that are the same."""
    encoded = texts.dictionary_encode()
    numbers = np.array([number(one) for one in encoded.dictionary.to_pylist()], np.int64)
    return numbers[encoded.indices.to_numpy()]


def _months(texts: pa.Array) -> NDArray[np.int64]:
    """The month that a name begins to spell, in one of several languages; 0 where none or several do."""

    def month(text: str) -> int:
        text = text.lower()
        found = [n for n, names in enumerate(_NAMES_OF_MONTHS, 1) if any(one.startswith(text) for one in names.split())]
        return found[0] if len(text) >= 3 and len(found) == 1 else 0

    return _by_text(texts, month)


def _of_24(hour_B: NDArray[np.int64], halves: pa.Array) -> NDArray[np.int64]:
    """Hours of the day from those of a half of it; 24 where there is no such hour."""
    half_B = _by_text(halves, lambda text: {"": 0, "a": 1, "p": 2}[text.lower()])
    in_half_B = hour_B % 12 + np.where(half_B == 2, 12, 0)
    return np.where(half_B == 0, hour_B, np.where((hour_B >= 1) & (hour_B <= 12), in_half_B, 24))


def _zones(texts: pa.Array) -> NDArray[np.int64]:
    """Seconds east of Greenwich."""

    def seconds(text: str) -> int:
        if text[:1] not in ("+", "-"):
            return 0
        digits = text[1:].replace(":", "")
        return int(f"{text[0]}1") * (int(digits[:2]) * 3_600 + int(digits[2:] or 0) * 60)

    return _by_text(texts, seconds)


def _micros(texts: pa.Array) -> NDArray[np.int64]:
    return _by_text(texts, lambda text: int(text[:6].ljust(6, "0")))
