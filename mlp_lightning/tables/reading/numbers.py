"""Numbers as people write them: thousands separators, decimal commas, percent, currencies, units, words for missing.

A single value such as ``1,234`` does not say what it is. :func:`examine` therefore looks at all values of a column and
keeps every way of writing that fits all of them; :func:`parsed` reads a column in one of these ways.

Shapes: ``B`` rows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

from mlp_lightning.tables.reading import durations
from mlp_lightning.tables.reading.dialect import NULL_VALUES

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute

# What stands for a missing number beside the texts that stand for any missing value; compared in lower case.
WORDS_AMONG_NUMBERS = frozenset(one.lower() for one in NULL_VALUES) | {
    *("n.a.", "n.a", "n. a.", "na.", "k.a.", "k. a.", "n.v.", "s.o.", "s/o", "n.d.", "nd", "n/d"),
    *("?", "-", "--", "---", "\u2013", "\u2014", ".", "..", "...", "\u2026", "*"),
    *("#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!", "#wert!", "#bezug!", "#zahl!", "#nv", "missing"),
}
_CODES = "CHF|EUR|USD|GBP|INR|JPY|CNY|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|SFr|Fr|Rs|kr"
# A currency may stand before the number; other letters there are a code such as P001.
_BEFORE = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|(?:{_CODES})\.?)"
_AFTER = r"[\p{L}\p{Sc}%‰°µ²³/][^0-9]{0,15}"
_PARTS = (
    rf"^(?P<outer>[+-]?) ?(?P<before>{_BEFORE})? ?(?P<inner>[+-]?)"
    rf"(?P<core>[0-9](?:[0-9.,' ]*[0-9.])?|[.,][0-9]+)(?P<power>[eE][+-]?[0-9]+)? ?(?P<after>{_AFTER})?$"
)
_NAMES_OF_PARTS = ("outer", "before", "inner", "core", "power", "after")
_BARE = "^[+-]?(?:[0-9](?:[0-9.,' ]*[0-9.])?|[.,][0-9]+)$"
_BEGINNING = rf"^[\s(]*[+\-\x{{2212}}]?\s?(?:{_BEFORE})?\s?[+\-\x{{2212}}]?[.,]?[0-9]"
_DECIMALS = (".", ",")
_SEPARATORS = ("", ".", ",", " ", "'")
# Units that differ so often are no units: "12 Main Street".
_MOST_UNITS = 3
# Some programs write a minus behind its number: 1,234.50-
_MINUS_BEHIND = r"^([^()+-]*[0-9]) ?-$"
_THOUSANDS_AND_MORE = frozenset("kKMB")  # "12K" and "3M" are numbers of two sizes, "12A" and "3C" are codes
_ORDINALS = frozenset({"st", "nd", "rd", "th"})  # "1st" is a rank, and ranks are categories
_SHOWN = 3
_LONGEST_SHOWN = 30


@dataclasses.dataclass(frozen=True)
class NumberForm:
    """How the numbers of a column are written.

    Attributes:
        decimal: the decimal mark, ``.`` or ``,``.
        thousands: the mark between groups of digits, ``.``, ``,``, a blank, an apostrophe, or empty.
        unit: what stands beside every number, such as ``%``, ``$`` or ``mm``; one of :data:`durations.UNITS` for
            durations like 1:02:03, whose numbers are those of :func:`durations.seconds`.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether this is how programs write numbers."""
        return self == NumberForm()

    @property
    def is_duration(self) -> bool:
        return self.unit in durations.UNITS

    def covers(self, marks: frozenset[str]) -> bool:
        """Whether the form says what all of these marks mean."""
        return marks <= {self.decimal, self.thousands}

    def to_dict(self) -> dict[str, str]:
        """As plain data, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, str]) -> NumberForm:
        return cls(**plain)


_FORMS = tuple(NumberForm(decimal, mark) for decimal in _DECIMALS for mark in _SEPARATORS if mark != decimal)


def _pattern(form: NumberForm) -> str:
    """The regular expression of an unsigned number in a form."""
    decimal, mark = f"[{form.decimal}]", f"[{form.thousands}]"
    whole = "[0-9]+"
    if form.thousands:
        # Groups of three, or of two and at last three as in India.
        whole += f"|[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+|[1-9][0-9]?(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}}"
    fraction = "[0-9]*" if form.decimal == "." else "[0-9]+"
    return f"^(?:(?:{whole})(?:{decimal}{fraction})?|{decimal}[0-9]+)$"


_PATTERNS = {form: _pattern(form) for form in _FORMS}
_ANY_FORM = "|".join(f"(?:{one})" for one in _PATTERNS.values())


@dataclasses.dataclass
class Examined:
    """What all values of a column say of how they are written; parts of a column can be added.

    Attributes:
        present: values that are neither missing nor words for missing.
        numbers: how many of them are numbers in some form.
        words: words for missing, and how often each occurs.
        units: what stands beside the numbers, and how often; the empty text is none.
        fitting: the forms, without a unit, that fit all numbers.
        marks: the marks in the numbers.
        shown: the first different numbers, as they are written.
        minus_behind: a number with a minus behind it; empty if there is none.
        distinct: numbers with their units, all of them or more than :data:`_MOST_UNITS`.
        other: the first value that is no number, with its row.
        rows: how many rows were looked at.
    """

    present: int = 0
    numbers: int = 0
    words: Counter[str] = dataclasses.field(default_factory=Counter)
    units: Counter[str] = dataclasses.field(default_factory=Counter)
    fitting: frozenset[NumberForm] = frozenset(_FORMS)
    marks: frozenset[str] = frozenset()
    shown: tuple[str, ...] = ()
    minus_behind: str = ""
    distinct: frozenset[str] = frozenset()
    other: tuple[int, str] | None = None
    rows: int = 0

    def __add__(self, after: Examined) -> Examined:
        other = self.other
        if other is None and after.other is not None:
            other = (self.rows + after.other[0], after.other[1])
        return Examined(
            self.present + after.present,
            self.numbers + after.numbers,
            self.words + after.words,
            self.units + after.units,
            self.fitting & after.fitting,
            self.marks | after.marks,
            tuple(dict.fromkeys([*self.shown, *after.shown]))[:_SHOWN],
            self.minus_behind or after.minus_behind,
            frozenset(sorted(self.distinct | after.distinct)[: _MOST_UNITS + 1]),
            other,
            self.rows + after.rows,
        )

    @property
    def forms(self) -> list[NumberForm]:
        """The forms that fit all numbers, of each decimal mark the one with the fewest separators."""
        used = [form for form in _FORMS if form in self.fitting and form.thousands in self.marks | {""}]
        first = {form.decimal: form for form in reversed(used)}
        return [first[mark] for mark in _DECIMALS if mark in first]

    @property
    def are_numbers(self) -> bool:
        """Whether every value is a number, all in one form and with one unit."""
        return bool(self.numbers) and self.numbers == self.present and bool(self.forms) and len(self.units) == 1

    @property
    def are_digits(self) -> bool:
        """Whether the numbers are digits alone, as codes are."""
        return not self.marks and set(self.units) <= {""}

    @property
    def are_faulty_numbers(self) -> bool:
        """Whether the column is one of numbers, but for some values or for the form of some."""
        if not self.numbers or self.are_numbers:
            return False
        if self.minus_behind and self.other is not None and self.other[1].rstrip().endswith("+"):
            return False  # 2-, 2, 2+ are marks
        if self.numbers < self.present:
            # Letters after digits may be part of a name ("3 bedrooms", "2nd"), so that more of them have to be there.
            known = sum(count for unit, count in self.units.items() if _is_known_unit(unit))
            most = max(self.units.values())
            return known > 0.5 * self.present or most > 0.9 * self.present
        if all(_is_known_unit(one) for one in self.units):
            return True
        if self._are_labels:
            return False
        few = len(self.units) <= _MOST_UNITS and 4 * len(self.units) <= self.numbers
        # One letter after digits may make a code of them, but not where they have decimals.
        return few and (
            bool(self.marks & {".", ","})
            or all(len(one) > 1 or _is_known_unit(one) or one in _THOUSANDS_AND_MORE for one in self.units)
        )

    @property
    def _are_labels(self) -> bool:
        """Whether no value shares its unit with another ("1. Industrial", "2. Information"), or all are ranks ("1st").

        Categories lose nothing then.
        """
        return set(self.units) <= _ORDINALS or (
            len(self.units) == len(self.distinct) and not _THOUSANDS_AND_MORE & set(self.units)
        )

    @property
    def is_ambiguous(self) -> bool:
        """Whether the values alone leave open what a point or a comma is."""
        return len(self.forms) > 1 and bool(self.marks & {".", ","})


def _is_known_unit(unit: str) -> bool:
    return not unit or unit in ("%", "‰") or pc.match_substring_regex(pa.scalar(unit), rf"^{_BEFORE}$").as_py()


def examine(values: pa.ChunkedArray, words: frozenset[str] = WORDS_AMONG_NUMBERS) -> Examined:
    """What the texts of a column, or of a part of it, say of how its numbers are written.

    Args:
        values: texts.
        words: texts in lower case that stand for a missing number.
    """
    texts = pc.utf8_trim_whitespace(values)
    is_word = _is_word(texts, words)
    is_present = pc.and_(pc.is_valid(texts), pc.invert(is_word))
    _, core, _, units = _parts(texts, is_present)
    is_number = pc.and_(is_present, pc.fill_null(pc.match_substring_regex(core, _ANY_FORM), False))
    found = Examined(present=_count(is_present), numbers=_count(is_number), rows=len(values))
    found.words = _counter(texts.filter(is_word))
    if found.numbers < found.present:
        row = pc.index(pc.and_(is_present, pc.invert(is_number)), True).as_py()
        found.other = row, values[row].as_py()
    if not found.numbers:
        return found
    core = core.filter(is_number)
    found.units = Counter({"": found.numbers}) if units is None else _counter(units.filter(is_number))
    found.marks = frozenset(one for one in ".,' " if pc.any(pc.match_substring(core, one)).as_py())
    found.shown = _first(texts.filter(is_number), core)
    found.minus_behind = next(iter(_with_minus_behind(texts.filter(is_number)).slice(0, 1).to_pylist()), "")
    if units is not None:
        found.distinct = frozenset(sorted(pc.unique(texts.filter(is_number)).to_pylist())[: _MOST_UNITS + 1])
    # A separator that no number has changes nothing.
    fits = {
        form: pc.all(pc.match_substring_regex(core, _PATTERNS[form])).as_py()
        for form in _FORMS
        if form.thousands in found.marks | {""}
    }
    found.fitting = frozenset(one for one in _FORMS if fits.get(one, fits[NumberForm(one.decimal)]))
    return found


def may_be_numbers(values: pa.ChunkedArray, words: frozenset[str] = WORDS_AMONG_NUMBERS) -> bool:
    """Whether :func:`examine` could find numbers, faulty ones among them; the same answer in a tenth of the time."""
    count, valid = _count(pc.match_substring_regex(values, _BEGINNING)), len(values) - values.null_count
    if not count or 2 * count > valid:
        return count > 0
    return 2 * count > valid - _count(_is_word(pc.utf8_trim_whitespace(values), words))


def parsed(
    values: pa.ChunkedArray, form: NumberForm, words: frozenset[str] = WORDS_AMONG_NUMBERS
) -> tuple[pa.ChunkedArray, int | None]:
    """Texts as numbers of a form, ``(B,)`` of doubles; words for missing are missing.

    Args:
        values: texts.
        form: how they are written.
        words: texts in lower case that stand for a missing number.

    Returns:
        The numbers, and the first row that is not a number of this form, unit included; ``None`` if all are.
    """
    texts = pc.utf8_trim_whitespace(values)
    is_wanted = pc.and_(pc.is_valid(texts), pc.invert(_is_word(texts, words)))
    if form.is_duration:
        numbers = durations.seconds(pc.if_else(is_wanted, texts, pa.scalar(None, pa.string())), form.unit)
        bad = pc.index(pc.and_(is_wanted, numbers.is_null()), True).as_py()
        return numbers, None if bad < 0 else bad
    sign, core, power, units = _parts(texts, is_wanted)
    of_form = pc.match_substring_regex(core, _PATTERNS[dataclasses.replace(form, unit="")])
    has_unit = not form.unit if units is None else pc.fill_null(pc.equal(units, form.unit), False)
    is_number = pc.and_(pc.fill_null(of_form, False), has_unit)
    bad = pc.index(pc.and_(is_wanted, pc.invert(is_number)), True).as_py()
    if form.thousands:
        core = pc.replace_substring(core, form.thousands, "")
    core = pc.replace_substring(core, ",", ".")
    numbers = pc.binary_join_element_wise(sign, core, power, "")
    numbers = pc.if_else(pc.and_(is_wanted, is_number), numbers, pa.scalar(None, pa.string()))
    return numbers.cast(pa.float64()), None if bad < 0 else bad


def without_words(values: pa.ChunkedArray, words: frozenset[str] = WORDS_AMONG_NUMBERS) -> pa.ChunkedArray:
    """Texts without blanks around them; those that stand for a missing number are missing."""
    texts = pc.utf8_trim_whitespace(values)
    return pc.if_else(_is_word(texts, words), pa.scalar(None, pa.string()), texts)


def whole(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as whole ones, where all are."""
    is_whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**53))
    return numbers.cast(pa.int64()) if pc.all(is_whole).as_py() else numbers


def shown(text: str) -> str:
    """A value as messages show it."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _cleaned(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts with plain blanks, apostrophes and minus signs; brackets around a number are accountants' minus."""
    texts = pc.replace_substring_regex(texts, r"[\x{00a0}\x{2007}\x{2009}\x{202f}]", " ")
    texts = pc.replace_substring_regex(texts, r"[\x{2019}\x{02bc}]", "'")
    texts = pc.replace_substring(texts, "\u2212", "-")
    if len(_with_minus_behind(texts)):
        texts = pc.replace_substring_regex(texts, _MINUS_BEHIND, r"-\1")
    return pc.replace_substring_regex(texts, r"^\(([^()+-]*[0-9][^()+-]*)\)$", r"-\1")


def _with_minus_behind(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Those of the texts that end with a minus."""
    return texts.filter(pc.fill_null(pc.match_substring_regex(texts, r"[0-9] ?[-\x{2212}]$"), False))


def _parts(texts: pa.ChunkedArray, wanted: pa.ChunkedArray) -> tuple[Any, Any, Any, Any]:
    """What texts consist of, where they may be numbers: sign, digits with marks, power of ten, and unit.

    Args:
        texts: without blanks around them.
        wanted: which of them to look at.

    Returns:
        Null where a text can be no number; ``None`` for the units if there is none. The plural of a word is the word.
    """
    texts = _cleaned(texts)
    if pc.all(pc.match_substring_regex(texts.filter(wanted), _BARE)).as_py():  # several times faster than what follows
        return pc.if_else(pc.starts_with(texts, "-"), "-", ""), pc.utf8_ltrim(texts, "+-"), "", None
    parts = pc.extract_regex(texts, pattern=_PARTS)
    outer, before, inner, core, power, after = (pc.struct_field(parts, one) for one in _NAMES_OF_PARTS)
    sign = pc.replace_substring(pc.binary_join_element_wise(outer, inner, ""), "+", "")
    unit = pc.replace_substring_regex(pc.binary_join_element_wise(before, after, ""), r"^(\p{L}{3,})s$", r"\1")
    return sign, core, power, unit


def _is_word(texts: pa.ChunkedArray, words: frozenset[str]) -> pa.ChunkedArray:
    known = pa.array([*sorted(words), ""])
    return pc.and_(pc.is_valid(texts), pc.is_in(pc.utf8_lower(texts), value_set=known))


def _count(truths: pa.ChunkedArray) -> int:
    return pc.sum(truths).as_py() or 0


def _counter(texts: pa.ChunkedArray) -> Counter[str]:
    return Counter({one["values"].as_py(): one["counts"].as_py() for one in texts.value_counts()})


def _first(texts: pa.ChunkedArray, core: pa.ChunkedArray) -> tuple[str, ...]:
    """The first different numbers, those with a mark before others."""
    marked = texts.filter(pc.match_substring_regex(core, "[.,' ]"))
    some = [*marked.slice(0, 50).to_pylist(), *texts.slice(0, 50).to_pylist()]
    return tuple(dict.fromkeys(some))[:_SHOWN]
