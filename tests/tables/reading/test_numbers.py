"""Numbers as people write them: which forms fit a column, and what its values are."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_lightning.tables.reading.numbers import NumberForm, examine, may_be_numbers, parsed


def column(*texts: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([list(texts)], pa.string())


@pytest.mark.parametrize(
    ("texts", "form", "numbers"),
    [
        (["7,300,120", "950"], NumberForm(".", ","), [7300120, 950]),
        (["2.750.000,5", "-3,25"], NumberForm(",", "."), [2750000.5, -3.25]),
        (["3 450,75", "12,5"], NumberForm(",", " "), [3450.75, 12.5]),
        (["3\u202f450,75", "12\u00a0003,5"], NumberForm(",", " "), [3450.75, 12003.5]),
        (["8'120.40", "8\u2019121.40"], NumberForm(".", "'"), [8120.4, 8121.4]),
        (["42,15,300", "1,05,42,000.25"], NumberForm(".", ","), [4215300, 10542000.25]),
        (["0,125", "19,5"], NumberForm(","), [0.125, 19.5]),
        (["44,5 %", "7%"], NumberForm(",", "", "%"), [44.5, 7]),
        (["$12.50", "-$3.25", "$-1"], NumberForm(".", "", "$"), [12.5, -3.25, -1]),
        (["CHF 3'100.00", "CHF 12.05"], NumberForm(".", "'", "CHF"), [3100, 12.05]),
        (["1.250,00 \u20ac", "3,10 \u20ac"], NumberForm(",", ".", "\u20ac"), [1250, 3.1]),
        (["4.5 kg", "12kg"], NumberForm(".", "", "kg"), [4.5, 12]),
        (["1 month", "18 months"], NumberForm(".", "", "month"), [1, 18]),
        (["(1,250.5)", "3"], NumberForm(".", ","), [-1250.5, 3]),
        (["\u22124.5", "+3"], NumberForm(), [-4.5, 3]),
        (["1,5e-3", "2E3"], NumberForm(","), [0.0015, 2000]),
    ],
)
def test_one_form_fits_all_values(texts: list[str], form: NumberForm, numbers: list[float]) -> None:
    found = examine(column(*texts, None, "n.a.", ""))
    assert found.are_numbers
    assert not found.is_ambiguous
    assert set(found.units) == {form.unit}
    assert [(one.decimal, one.thousands) for one in found.forms] in (
        [(form.decimal, form.thousands)],
        [(".", form.thousands), (",", form.thousands)],  # no number has a mark that could be one
    )
    values, bad = parsed(column(*texts, None, "n.a."), form)
    assert bad is None
    assert values.to_pylist() == [*numbers, None, None]


@pytest.mark.parametrize("texts", [["1,234", "87"], ["12.345"], ["1.234", "-999.000"]])
def test_three_digits_leave_both_readings_open(texts: list[str]) -> None:
    assert examine(column(*texts)).is_ambiguous


@pytest.mark.parametrize(
    "texts",
    [
        ["P001", "P002"],
        ["31.12.2019", "01.02.2020"],
        ["08:15", "09:30"],
        ["12 Main St", "7 Oak Ave", "3 Elm Rd", "1 Low St"],
        ["10.0.0.1", "192.168.7.12"],
        ["1A", "2B", "1B"],
        ["32B", "34C", "36B"],
        ["12-15", "16-20"],
        ["red", "green", "3"],
        ["1/2", "3/4"],
    ],
)
def test_what_is_no_number_stays_a_text(texts: list[str]) -> None:
    found = examine(column(*texts * 4))
    assert not found.are_numbers
    assert not found.are_faulty_numbers


@given(st.lists(st.sampled_from(["4", "-1,5", "$3", "(2)", ".5", "CHF 9", "x", "blue", "n.a.", "?", None]), max_size=9))
def test_what_may_be_numbers_is_told_at_once(texts: list[str | None]) -> None:
    found = examine(column(*texts))
    if found.are_numbers or found.are_faulty_numbers:
        assert may_be_numbers(column(*texts))
    if not found.numbers:
        assert not may_be_numbers(column(*texts))


@pytest.mark.parametrize(
    "texts",
    [
        ["1.5", "2,5", "3"],
        ["3 mm", "4 mm", "2 cm", "8 mm"],
        ["12%", "13%", "0.14"],
        ["850k", "3M", "12M", "420k"],
        ["$95K", "$1B", "$7B", "$2B"],
        ["7.25M", "310.5", "1.5k", "2.5k"],
        ["1.5 h", "3.25 h", "0.5 d", "2 h"],
        ["1.5", "2", "oops"],
        ["1,234.5", "1.234,5"],
    ],
)
def test_numbers_that_are_not_written_alike(texts: list[str]) -> None:
    assert examine(column(*texts * 3)).are_faulty_numbers


@given(
    st.lists(st.sampled_from(["1,234", "950", "0,5", "1.234.567", "x", "3 %", None, "?", "12 345"]), max_size=12),
    st.data(),
)
def test_parts_of_a_column_say_together_what_the_column_says(texts: list[str | None], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(texts)))
    whole, parts = examine(column(*texts)), examine(column(*texts[:at])) + examine(column(*texts[at:]))
    for name in ("present", "numbers", "words", "units", "marks", "other", "rows"):
        assert getattr(whole, name) == getattr(parts, name), name
    if whole.numbers:
        assert whole.forms == parts.forms


def grouped(number: int, mark: str, sizes: tuple[int, int]) -> str:
    """Digits in groups, the last of three, the others of ``sizes``: written by hand, apart from the code under test."""
    digits, parts = str(abs(number)), []
    for size in (sizes[0], *[sizes[1]] * 20):
        if not digits:
            break
        parts.append(digits[-size:])
        digits = digits[:-size]
    return "-" * (number < 0) + mark.join(reversed(parts))


@given(
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8),
    st.sampled_from(
        [(".", ",", (3, 3)), (".", ",", (3, 2)), (",", ".", (3, 3)), (",", " ", (3, 3)), (".", "'", (3, 3))]
    ),
)
def test_hundredths_in_any_grouping_are_read(numbers: list[int], how: tuple[str, str, tuple[int, int]]) -> None:
    decimal, mark, sizes = how
    texts = [f"{grouped(one, mark, sizes)}{decimal}{abs(one) % 90 + 10}" for one in numbers]
    found = examine(column(*texts))
    assert found.are_numbers
    (form,) = found.forms
    values, bad = parsed(column(*texts), form)
    assert bad is None
    expected = [one + math.copysign((abs(one) % 90 + 10) / 100, one) for one in numbers]
    assert values.to_pylist() == pytest.approx(expected, rel=1e-12)


def test_a_value_of_another_form_is_found() -> None:
    for text, form in (("1,5", NumberForm()), ("3 cm", NumberForm(unit="mm")), ("12", NumberForm(unit="%"))):
        values, bad = parsed(column(None, text), form)
        assert (values.to_pylist(), bad) == ([None, None], 1)
