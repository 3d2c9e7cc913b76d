"""Texts that are moments, compared with Python's own strptime."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.moments import converted_moments, inferred_form, read_moments, with_moments


def place(row: int) -> str:
    return f"line {row + 2}"


def texts(values: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def inferred(values: list[str | None]) -> str | None:
    return inferred_form("when", texts(values), place)


def read(values: list[str | None]) -> list[Any]:
    form = inferred(values)
    assert form is not None
    return read_moments(texts(values), form).to_pylist()


DATES = ["%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%d-%m-%Y", "%Y-%m-%d", "%d/%m/%y", "%m/%d/%y"]
DATES += ["%d %b %Y", "%d-%b-%Y", "%B %d, %Y", "%d%b%Y", "%a, %d %b %Y", "%Y %b %d"]
TIMES = ["", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p"]
moments = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2068, 12, 31))


@settings(max_examples=60, deadline=None)
@given(st.lists(moments, min_size=1, max_size=30), st.sampled_from(DATES), st.sampled_from(TIMES))
def test_what_strftime_writes_is_read(drawn: list[datetime.datetime], date: str, time: str) -> None:
    # Two of them tell days from months and from years, whatever the form.
    drawn = [*drawn, datetime.datetime(2051, 11, 30, 13, 5), datetime.datetime(2045, 12, 31)]
    written = [one.strftime(date + time) for one in drawn]
    expected = [datetime.datetime.strptime(one, date + time) for one in written]
    assert read([*written, None]) == [*expected, None]
    assert read_moments(texts(list(written)), date + time).to_pylist() == expected


@settings(max_examples=60, deadline=None)
@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)), st.integers(-40, 40), st.sampled_from("/.-"))
def test_days_that_do_not_exist_are_missing(day: datetime.date, shift: int, mark: str) -> None:
    form = f"%d{mark}%m{mark}%Y"
    text = f"{(day.day + shift) % 50}{mark}{(day.month + shift) % 16}{mark}{day.year}"
    try:
        expected = datetime.datetime.strptime(text, form)
    except ValueError:
        expected = None
    assert read_moments(texts([text]), form).to_pylist() == [expected]


UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["7:05", "18:30:15", "9:15:00.25 pm"], ["07:05:00", "18:30:15", "21:15:00.250000"]),
        (["12:00 AM", "12:00 PM", "11:59 p.m."], ["00:00:00", "12:00:00", "23:59:00"]),
        (["2023-05-01 06:00", "2023-05-01T06:00Z", "2023-05-01T06:00:00+0530"], ["06:00:00", "06:00:00", "00:30:00"]),
        (["25.5.2023", "2023-05-26 01:00"], ["00:00:00", "01:00:00"]),
        (["Tue, 02 May 2023 10:00:00 -0200"], ["12:00:00"]),
        (["10/May/2023:13:55:36 -0700"], ["20:55:36"]),
        (["Tue May 30 21:49:08 1995"], ["21:49:08"]),
    ],
)
def test_times_of_day_and_zones(values: list[str | None], expected: list[str]) -> None:
    assert [one.time().isoformat() for one in read(values)] == expected


@pytest.mark.parametrize(
    "values",
    [
        ["14. Januar 2020", "3. März 2020", "9. Dez. 2020"],
        ["14 janvier 2020", "3 mars 2020", "9 déc. 2020"],
        ["14 de enero de 2020", "3 de marzo de 2020", "9 de diciembre de 2020"],
        ["14 gennaio 2020", "3 marzo 2020", "9 dicembre 2020"],
        ["14 JAN 2020", "3 mar 2020", "9 Dec 2020"],
        ["14 januari 2020", "3 mrt 2020", "9 december 2020"],
    ],
)
def test_months_in_several_languages(values: list[str | None]) -> None:
    assert [(one.month, one.day) for one in read(values)] == [(1, 14), (3, 3), (12, 9)]


@pytest.mark.parametrize("values", [["2020-03", "2021-11"], ["03/2020", "11/2021"], ["Mar 2020", "novembre 2021"]])
def test_months_without_a_day(values: list[str | None]) -> None:
    assert read(values) == [datetime.datetime(2020, 3, 1), datetime.datetime(2021, 11, 1)]


@pytest.mark.parametrize(
    "values",
    [
        ["week 10", "week 11"],
        ["red", "blue"],
        ["0012-03", "9912-04"],  # codes: no such years
        ["1-2", "3-4"],
        ["120:30", "99:10"],
        ["3 mm", "12 mm"],
        ["A-12/2021x", "B-13/2021x"],
        ["555-1234", "555-9876"],
        [None, None],
        [],
    ],
)
def test_what_is_no_moment(values: list[str | None]) -> None:
    assert inferred(values) is None


@pytest.mark.parametrize(
    ("values", "forms", "readings"),
    [
        (["01/02/2021", "05/06/2022"], ("%d/%m/%Y", "%m/%d/%Y"), ("2021-02-01", "2021-01-02")),
        (["7.8.2021 10:00", "7.7.2021"], ("%d.%m.%Y", "%m.%d.%Y"), ("2021-08-07", "2021-07-08")),
        (["10-11-12", "10-11-25"], ("%d-%m-%y", "%m-%d-%y"), ("2012-11-10", "2012-10-11")),
    ],
)
def test_what_can_be_read_in_several_ways(values: list[str | None], forms: Any, readings: Any) -> None:
    with pytest.raises(DataError) as caught:
        inferred(values)
    message = str(caught.value)
    assert message.startswith("line 2: column 'when' has")
    for form, reading in zip(forms, readings, strict=True):
        assert f"{reading} in the form {form}" in message
    assert f"data.columns.when.format={forms[0]}" in message


def test_one_value_that_is_no_moment() -> None:
    text = "line 3: column 'when' holds moments in the form %d/%m/%Y, but 'soon' here."
    with pytest.raises(DataError, match=re.escape(text)):
        inferred(["31/12/2020", "soon", "30/11/2020"])


def test_moments_of_two_forms() -> None:
    with pytest.raises(DataError, match="column 'when' holds moments in the form"):
        inferred(["31/12/2020", "12/31/2020", "30/11/2020", "11/30/2020"])


def test_a_value_of_another_form_has_its_place() -> None:
    text = "line 3: column 'when' has '12/31/2020', which is not a moment in the form %d/%m/%Y."
    with pytest.raises(DataError, match=re.escape(text)):
        converted_moments("when", texts(["31/12/2020", "12/31/2020"]), "%d/%m/%Y", place)


def test_a_column_that_must_hold_moments() -> None:
    table = pa.table({"when": ["spring", "autumn"]})
    assert with_moments(table, {"when": None}, [], place) == (table, {})
    with pytest.raises(DataError, match=r"line 2: column 'when' has 'spring'.*data\.columns\.when\.format=%d/%m/%Y"):
        with_moments(table, {"when": None}, ["when"], place)


def test_chunks_make_no_difference() -> None:
    values = pa.chunked_array([["31.12.2020"], [], ["1.1.2021", None, "31.12.2020"]])
    whole = pa.chunked_array([values.combine_chunks()])
    assert read_moments(values, "%d.%m.%Y").to_pylist() == read_moments(whole, "%d.%m.%Y").to_pylist()
    empty = pa.chunked_array([], pa.string())
    assert read_moments(empty, "%d.%m.%Y").to_pylist() == []


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m.%d.%y", "%d %b %Y"])
def test_dates_of_iso_beside_another_form(form: str) -> None:
    """They can be nothing else. No other second form is read, and none beside times of day."""
    days = [datetime.date(2021, 1, 13 + number) for number in range(9)]
    written = [f"{day:{form}}" for day in days]
    values = texts([day.isoformat() if day.day % 3 == 0 else f"{day:{form}}" for day in days])
    assert inferred_form("when", values, str) == form
    assert [one.date() for one in read_moments(values, form).to_pylist()] == days
    others = {"%d/%m/%Y", "%m.%d.%y", "%d %b %Y", "%Y/%m/%d"} - {form}
    for other in others:
        two = texts([*written, f"{days[0]:{other}}"])
        with pytest.raises(DataError, match=rf"moments in the form {form}, but '{days[0]:{other}}' here"):
            inferred_form("when", two, str)
    clocks = texts(["08:15", "9:30", "12:45", days[0].isoformat()])
    with pytest.raises(DataError, match=rf"moments in the form %H:%M, but '{days[0].isoformat()}' here"):
        inferred_form("when", clocks, str)
