"""Tables whose numbers are texts: read alike for training and for new rows, or refused with what to do."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tables import set_up

from mlp_lightning.config import ColumnConfig, CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import DataError
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.numbers import NumberForm
from mlp_lightning.tables.reading.sources import FileSource, TableSource
from mlp_lightning.tables.written_numbers import read_numbers

ROWS = 40
DRAW = np.random.default_rng(3)


def source_of(path: Path, **options: Any) -> FileSource:
    return FileSource.open(str(path), CsvConfig(**options))


def numbers_of(source: TableSource, *names: str) -> dict[str, list[Any]]:
    """Columns as a training reads them."""
    return read_numbers(source.read(names), source, dict.fromkeys(names, "auto")).table.to_pydict()


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def trained(path: Path, **options: Any) -> TabularDataModule:
    return set_up(path=str(path), **options)


def new_rows(data: TabularDataModule, source: TableSource) -> tuple[np.ndarray, list[str]]:
    """The columns of new rows as ``evaluate`` and ``predict`` read them, and what they say of them."""
    surprises = Surprises()
    batches = encoded_batches(source, data.preprocessor.columns, None, surprises, trained=data.rows.forms)
    return np.concatenate([one.raw_BF for one in batches]), surprises.lines()


# ---- what a point or a comma is ----------------------------------------------------------------------------


def test_thousands_in_a_file_of_commas(tmp_path) -> None:
    rows = [f'"{1000 + 37 * row:,}",{"ab"[row % 2]}' for row in range(ROWS)]
    data = trained(write(tmp_path / "t.csv", "pop,y", rows))
    assert data.rows.forms == {"pop": NumberForm(".", ",")}
    assert [one.kind for one in data.preprocessor.columns] == ["numeric"]
    assert "pop: numbers are written as '1,000', which is read as 1000" in data.describe()


def test_another_column_says_what_three_digits_are(tmp_path) -> None:
    rows = [f"{f'{10_000 + row:,}'.replace(',', '.')};{row},5;x" for row in range(5)]
    path = write(tmp_path / "t.csv", "a;b;y", rows)
    assert numbers_of(source_of(path), "a", "b") == {
        "a": [10_000 + row for row in range(5)],
        "b": [row + 0.5 for row in range(5)],
    }


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_decimals_that_come_behind_the_sample(tmp_path, delimiter) -> None:
    """Until row 30,000 the columns could be numbers with decimal points and whole numbers."""

    def quoted(text: str) -> str:
        return f'"{text}"' if delimiter in text else text

    rows = [f"{10 + row % 80}.{row % 1000:03}{delimiter}{row}" for row in range(30_000)]
    rows += [delimiter.join([quoted("12.345"), quoted(f"{row},5")]) for row in range(3)]
    path = write(tmp_path / "t.csv", f"a{delimiter}b", rows)
    assert path.stat().st_size > 4 * (1 << 16)
    read = numbers_of(source_of(path), "a", "b")
    assert read["a"][:2] == [10_000, 11_001]
    assert read["a"][-1] == 12_345
    assert read["b"][29_999:] == [29_999, 0.5, 1.5, 2.5]


def test_semicolons_and_points_alone_are_refused(tmp_path) -> None:
    path = write(tmp_path / "t.csv", "pop;y", [f"{10 + row}.250;{'ab'[row % 2]}" for row in range(ROWS)])
    text = "t.csv: column 'pop' holds numbers such as '10.250', '11.250', '12.250'; nothing says whether"
    with pytest.raises(DataError, match=re.escape(text)) as caught:
        trained(path)
    assert "say which with data.csv.decimal=. or 'data.csv.decimal=\",\"'." in str(caught.value)
    assert numbers_of(source_of(path, decimal="."), "pop")["pop"][0] == 10.25
    for options in ({"decimal": ","}, {"thousands": "."}):
        assert numbers_of(source_of(path, **options), "pop")["pop"][0] == 10_250


def test_options_that_no_number_follows_are_refused(tmp_path) -> None:
    path = write(tmp_path / "t.csv", "a,y", ['"1,25",x', '"3,5",z'])
    assert numbers_of(source_of(path), "a") == {"a": [1.25, 3.5]}
    assert numbers_of(source_of(path, decimal=","), "a") == {"a": [1.25, 3.5]}
    for options in ({"thousands": ","}, {"thousands": "none", "decimal": "."}):
        with pytest.raises(DataError, match=r"column 'a' \(such as '1,25', '3,5'\) are not written as data.csv"):
            numbers_of(source_of(path, **options), "a")


def test_other_marks_between_thousands(tmp_path) -> None:
    path = write(tmp_path / "t.csv", "a;b;c", ["1 200;3'000;12%", "15 300,5;4'000.5;7%"])
    assert numbers_of(source_of(path), "a", "b", "c") == {"a": [1200, 15300.5], "b": [3000, 4000.5], "c": [12, 7]}


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1.040,50-", "33,25", "7,00-"], [-1040.5, 33.25, -7.0]),
        (["12.5 -", "0.25", "(3.5)"], [-12.5, 0.25, -3.5]),
        (["4'300\u2212", "1'100"], [-4300, 1100]),
    ],
)
def test_a_minus_behind_its_number(tmp_path, texts: list[str], numbers: list[float]) -> None:
    path = write(
        tmp_path / "t.csv", "x;n;y", [f"{texts[row % len(texts)]};{row};{'uv'[row % 2]}" for row in range(ROWS)]
    )
    assert numbers_of(source_of(path), "x")["x"][: len(texts)] == numbers
    data = trained(path)
    assert [one.kind for one in data.preprocessor.columns if one.name == "x"] == ["numeric"]
    raw, _ = new_rows(data, source_of(write(tmp_path / "new.csv", "x;n", [f"{texts[0]};1", f"{texts[1]};2"])))
    assert raw[:, 0].tolist() == numbers[:2]


def test_digits_with_a_minus_behind_them_may_be_marks(tmp_path) -> None:
    def table(*texts: str) -> Path:
        return write(
            tmp_path / "t.csv", "x;n;y", [f"{texts[row % len(texts)]};{row};{'uv'[row % 2]}" for row in range(ROWS)]
        )

    both = r"data\.columns\.x\.kind=numeric or data\.columns\.x\.kind=categorical"
    with pytest.raises(DataError, match=f"holds '81-', '9', '4-'. The first may be a number below zero, .* set {both}"):
        trained(table("9", "81-", "4-"))
    with pytest.raises(DataError, match="set task=regression or task=multiclass"):
        trained(table("9", "81-", "4-"), target="x")
    numeric = trained(table("9", "81-", "4-"), columns={"x": ColumnConfig("numeric")})
    assert "x: '81-' is read as -81" in numeric.describe()
    for texts, options in (
        (("9", "81-"), {"columns": {"x": ColumnConfig("categorical")}}),
        (("2-", "2", "2+", "1"), {}),
        (("B-", "B", "A"), {}),
    ):
        (column,) = [one for one in trained(table(*texts), **options).preprocessor.columns if one.name == "x"]
        assert column.kind == "categorical"
        assert set(column.vocabulary) == set(texts)


def test_words_for_missing_among_numbers(tmp_path) -> None:
    rows = [f"{row}.5,{'ab'[row % 2]}" for row in range(ROWS)] + ["n.a.,a", "?,b", "NA,b"]
    data = trained(write(tmp_path / "t.csv", "x,y", rows))
    assert [(one.kind, one.missing) for one in data.preprocessor.columns] == [("numeric", True)]
    assert "x: 'n.a.' among the numbers is taken as missing (1 row)" in data.describe()


# ---- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["x", "y"])
@pytest.mark.parametrize("kind", ["csv", "frame"])
def test_one_word_among_numbers_is_a_fault(tmp_path, column: str, kind: str) -> None:
    values = {"x": [f"{row}.25" for row in range(ROWS)], "y": [f"{row * row}.5" for row in range(ROWS)]}
    values[column][7] = "lots"
    option = "task=multiclass" if column == "y" else "data.columns.x.kind=categorical"
    text = f"column '{column}' has numbers in 39 rows (such as {values[column][0]!r}, "
    rows = [",".join(row) for row in zip(values["x"], values["y"], strict=True)]
    path = write(tmp_path / "t.csv", "x,y", rows)
    with pytest.raises(DataError, match=re.escape(text)) as caught:
        set_up(pa.table(values)) if kind == "frame" else trained(path)
    assert option in str(caught.value)
    assert ("row 8" if kind == "frame" else "t.csv, line 9") in str(caught.value)
    # What the message offers is taken.
    other: dict[str, Any] = {"task": "multiclass"} if column == "y" else {"kinds": {"x": "categorical"}}
    assert set_up(pa.table(values), **other).preprocessor.columns


def test_different_units_are_refused(tmp_path) -> None:
    rows = [f"{row} {'mm' if row % 8 else 'cm'},{'ab'[row % 2]}" for row in range(ROWS)]
    text = "column 'x' (such as '0 cm', '1 mm', '2 mm') have different units ('cm' (5), 'mm' (35)). Write them alike"
    with pytest.raises(DataError, match=re.escape(text)):
        trained(write(tmp_path / "t.csv", "x,y", rows))


@pytest.mark.parametrize(
    "labels",
    [
        ("1st", "2nd", "3rd"),
        ("1st", "2nd", "3rd", "4th", "5th", "22nd"),
        ("1. Industrial", "2. Information"),
        ("1 low", "2 mid", "3 high"),
        ("10 mg tablet", "20 ml syrup"),
    ],
)
@pytest.mark.parametrize("column", ["x", "y"])
def test_numbered_labels_and_ranks_are_categories(tmp_path, labels: tuple[str, ...], column: str) -> None:
    other = "y" if column == "x" else "x"
    values = {column: [labels[row % len(labels)] for row in range(ROWS)], other: [*"aab" * ROWS][:ROWS]}
    rows = [f"{values['x'][row]},{values['y'][row]}" for row in range(ROWS)]
    data = trained(write(tmp_path / "t.csv", "x,y", rows))
    found = data.preprocessor.columns[0].vocabulary if column == "x" else data.target.columns[0].classes
    assert sorted(found) == sorted(labels)


@pytest.mark.parametrize("units", [("12K", "850M"), ("5 $", "5 %")])
def test_few_values_of_known_units_are_refused(tmp_path, units: tuple[str, str]) -> None:
    rows = [f"{units[row % 2]},{'aab'[row % 3]}" for row in range(ROWS)]
    with pytest.raises(DataError, match="have different units"):
        trained(write(tmp_path / "t.csv", "x,y", rows))


def test_a_target_with_thousands_is_a_regression(tmp_path) -> None:
    rows = [f'{row % 7}.5,"{20_000 + 1_111 * row:,}"' for row in range(ROWS)]
    data = trained(write(tmp_path / "t.csv", "x,y", rows))
    assert data.task == "regression"
    assert data.target.mean == pytest.approx((20_000 + 1_111 * (ROWS - 1) / 2,))


def test_texts_of_digits_that_are_stored_as_texts() -> None:
    table = pa.table({"zip": ["01067", "10115"] * 20, "y": ["a", "b", "b", "a"] * 10})
    data = set_up(table)
    assert data.preprocessor.columns[0].vocabulary == ("01067", "10115")
    assert any(line.startswith("zip: digits stored as texts are categories") for line in data.describe())
    assert set_up(table, kinds={"zip": "numeric"}).preprocessor.columns[0].kind == "numeric"


def test_commas_stored_as_texts_are_refused_unless_they_say_what_they_are(tmp_path) -> None:
    values = {"x": [f"{1000 + 37 * row:,}" for row in range(ROWS)], "y": ["a", "b"] * (ROWS // 2)}
    pyarrow.parquet.write_table(pa.table(values), tmp_path / "t.parquet")
    with pytest.raises(
        DataError, match=r"column 'x' holds numbers such as '1,000', '1,037', '1,074'; .* store numbers"
    ):
        trained(tmp_path / "t.parquet")
    values["x"][0] = "1,000.5"
    assert numbers_of(MemorySource(pa.table(values), "frame"), "x")["x"][:2] == [1000.5, 1037]


# ---- new rows ----------------------------------------------------------------------------------------------


def german(number: float) -> str:
    return f"{number:,.1f}".replace(",", " ").replace(".", ",").replace(" ", ".")


@pytest.mark.parametrize("rows", [1, 3])
def test_new_rows_are_read_as_the_training_rows_are_written(tmp_path, rows: int) -> None:
    """``12.500`` alone could be 12.5; in the training it was twelve thousand."""
    train = write(tmp_path / "t.csv", "a;y", [f"{german(900 * row + 0.5)};{'ab'[row % 2]}" for row in range(ROWS)])
    data = trained(train)
    assert data.rows.forms == {"a": NumberForm(",", ".")}
    new = write(tmp_path / "new.csv", "a", ["12.500"] * rows)
    assert new_rows(data, source_of(new))[0].tolist() == [[12_500]] * rows
    # Values that can be read in one way only are read so, whatever the training rows are like.
    other = write(tmp_path / "other.csv", "a", ["12500.25", "1000000"])
    raw_BF, _ = new_rows(data, source_of(other))
    assert raw_BF.tolist() == [[12_500.25], [1_000_000]]
    pyarrow.parquet.write_table(pa.table({"a": [12_500.25]}), tmp_path / "new.parquet")
    assert new_rows(data, source_of(tmp_path / "new.parquet"))[0].tolist() == [[12_500.25]]


def test_new_rows_that_are_written_otherwise_than_the_training_rows(tmp_path) -> None:
    train = write(tmp_path / "t.csv", "a,y", [f"{row}.5,{'ab'[row % 2]}" for row in range(ROWS)])
    data = trained(train)
    new = write(tmp_path / "new.csv", "a,b", ['"1,250",1', "7,2"])
    raw_BF, lines = new_rows(data, source_of(new))
    assert raw_BF.tolist() == [[1_250], [7]]
    assert lines == ["a: numbers are written as '1,250', which is read as 1250"]
    with pytest.raises(DataError, match=r"column 'a' holds numbers such as '1\.250'"):
        new_rows(
            trained(write(tmp_path / "g.csv", "a;y", [f"{row},5;{'ab'[row % 2]}" for row in range(ROWS)])),
            source_of(write(tmp_path / "n.csv", "a;b", ["1.250;1"])),
        )


@pytest.mark.parametrize(("before", "after"), [("12.5%", "0.125"), ("12.5", "12.5%"), ("3 mm", "3 cm")])
def test_another_unit_in_new_rows_is_refused(tmp_path, before: str, after: str) -> None:
    rows = [
        f"{before.replace('2', str(row % 9 + 1)).replace('3', str(row % 9 + 1))},{'ab'[row % 2]}" for row in range(ROWS)
    ]
    data = trained(write(tmp_path / "t.csv", "a,y", rows))
    with pytest.raises(DataError, match=r"new.csv: the numbers in column 'a' .* and those of the training rows have"):
        new_rows(data, source_of(write(tmp_path / "new.csv", "a,b", [f"{after},1"] * 2)))


def test_a_file_of_validation_rows_is_read_like_the_training_rows(tmp_path) -> None:
    train = write(tmp_path / "t.csv", "a;y", [f"{german(900 * row + 0.5)};{row}" for row in range(ROWS)])
    val = write(tmp_path / "v.csv", "a;y", ["12.500;7", "1.500;8"])
    data = trained(train, val_path=str(val), scaling="none")
    assert data.splits["val"].features_BF[:, 0].tolist() == [12_500, 1_500]


@pytest.mark.parametrize("unit", ["%", "€", "km/h"])
@pytest.mark.parametrize("stored", [0.15, 15])
def test_stored_numbers_lack_the_unit_of_the_training_rows(tmp_path, unit: str, stored: float) -> None:
    """A file of 15% may come back from a spreadsheet as 0.15 or as 15: neither is taken without a word."""
    rows = [f"{row % 9 + 1} {unit},{row},{'ab'[row % 2]}" for row in range(ROWS)]
    path = write(tmp_path / "t.csv", "rate,b,y", rows)
    data = trained(path)
    table = pa.table({"rate": [stored, stored], "b": [1, 2], "y": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    words = rf"'rate' \(such as '{stored}'\) have no unit, and those of the training rows have the unit '{unit}'"
    for source in (source_of(tmp_path / "new.parquet"), MemorySource(table, "the frame")):
        with pytest.raises(DataError, match=words):
            new_rows(data, source)
    with pytest.raises(DataError, match=words):
        trained(path, val_path=str(tmp_path / "new.parquet"))
    gaps = table.set_column(0, "rate", pa.nulls(2))
    assert np.isnan(new_rows(data, MemorySource(gaps, "the frame"))[0][:, 0]).all()


def test_stored_numbers_lack_the_unit_of_the_target(tmp_path) -> None:
    data = trained(write(tmp_path / "t.csv", "a,y", [f"{row % 7},{row * 1.5}%" for row in range(ROWS)]))
    new = MemorySource(pa.table({"a": [1.0], "y": [0.5]}), "the frame")
    batches = encoded_batches(new, data.preprocessor.columns, data.target, Surprises(), trained=data.rows.forms)
    with pytest.raises(DataError, match=r"'y' \(such as '0\.5'\) have no unit"):
        next(batches)


LONG = 30_000  # rows, more than the sample of a file and its first block


@pytest.mark.parametrize(
    ("late", "numbers"), [(["-"], [np.nan]), (['"1,250"', '"3,700,000"'], [1_250, 3_700_000]), (["(17)"], [-17])]
)
def test_numbers_that_are_written_otherwise_behind_the_sample(tmp_path, late: list[str], numbers: list[float]) -> None:
    data = trained(write(tmp_path / "t.csv", "a,b,y", [f"{row}.5,{-row},{'ab'[row % 2]}" for row in range(ROWS)]))
    rows = [f"{row / 8},{row * 7919 % 10_000_019},{'x' * 30}" for row in range(LONG)]
    path = write(tmp_path / "n.csv", "a,b,c", [*rows, *(f"{one},1,x" for one in late), "2.25,1,x"])
    assert path.stat().st_size > 1 << 20  # a block
    raw_BF, _ = new_rows(data, source_of(path))
    expected = [*(row / 8 for row in range(LONG)), *numbers, 2.25]
    np.testing.assert_array_equal(raw_BF[:, 0], expected)
    assert raw_BF[:3, 1].tolist() == [0, 7_919, 15_838]


def test_late_numbers_that_say_that_the_first_ones_were_misread(tmp_path) -> None:
    data = trained(write(tmp_path / "t.csv", "a,b,y", [f"{row}.5,{-row},{'ab'[row % 2]}" for row in range(ROWS)]))
    rows = [f"{row % 100 + 1}.{row % 1000:03},{row * 7919 % 10_000_019},{'x' * 30}" for row in range(LONG)]
    path = write(tmp_path / "n.csv", "a,b,c", [*rows, '"2,5",1,x'])
    assert path.stat().st_size > 1 << 20  # a block
    with pytest.raises(DataError, match=r"'a' begins with numbers such as '1\.000', and only later"):
        new_rows(data, source_of(path))
    raw_BF, _ = new_rows(data, source_of(path, decimal=","))
    assert raw_BF[[0, 1, -1], 0].tolist() == [1_000, 2_001, 2.5]
    faulty = write(tmp_path / "f.csv", "a,b,c", [*rows, "lots,1,x"])
    with pytest.raises(DataError, match=rf"line {LONG + 2}: column 'a' has numbers .* but 'lots' here"):
        new_rows(data, source_of(faulty))


# ---- any table in the habits of programs and countries -------------------------------------------------------


def plain(number: float) -> str:
    return repr(number)


def with_groups(mark: str, decimal: str, of_two: bool = False):
    def text(number: float) -> str:
        whole, fraction = f"{abs(number):.2f}".split(".")
        head, parts = whole[:-3], [whole[-3:]]
        while head:
            parts.insert(0, head[-2 if of_two else -3 :])
            head = head[: -2 if of_two else -3]
        return "-" * (number < 0) + mark.join(parts) + ("" if isinstance(number, int) else decimal + fraction)

    return text


def with_comma(number: float) -> str:
    return repr(number).replace(".", ",")


#: Delimiter, how a number is written, what stands for a missing value, and which texts are in quotes.
HABITS: dict[str, tuple[Any, ...]] = {
    "pandas": (",", plain, "", csv.QUOTE_MINIMAL),
    "pandas, decimal=','": (",", with_comma, "", csv.QUOTE_MINIMAL),
    "polars": (",", plain, "", csv.QUOTE_MINIMAL),
    "write.csv": (",", plain, "NA", csv.QUOTE_NONNUMERIC),
    "write.csv2": (";", with_comma, "NA", csv.QUOTE_NONNUMERIC),
    "Excel, US": (",", with_groups(",", "."), "", csv.QUOTE_MINIMAL),
    "Excel, German": (";", with_groups(".", ","), "", csv.QUOTE_MINIMAL),
    "Excel, French": (";", with_groups("\u202f", ","), "", csv.QUOTE_MINIMAL),
    "Excel, Swiss": (";", with_groups("\u2019", "."), "", csv.QUOTE_MINIMAL),
    "Excel, Indian": (",", with_groups(",", ".", True), "", csv.QUOTE_MINIMAL),
}


class Bare(float):
    """What :mod:`csv` takes for a number, so that it has no quotes; shown as its text."""

    text: str

    def __new__(cls, text: str) -> Bare:
        self = super().__new__(cls, 0)
        self.text = text
        return self

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


hundredths = st.integers(-(10**9), 10**9).map(lambda one: one / 100)
rows_of_tables = st.lists(
    st.tuples(
        st.none() | hundredths,
        st.none() | st.integers(-(10**9), 10**9),
        st.none() | st.sampled_from(["None", "NA", "x, y", "Zürich", 'say "so"']),
    ),
    min_size=2,
    max_size=12,
)


@pytest.mark.parametrize("habit", HABITS)
@settings(deadline=None, max_examples=40)
@given(rows=rows_of_tables)
def test_tables_of_programs_and_countries_are_read_back(tmp_path_factory, habit: str, rows: list[tuple]) -> None:
    delimiter, number, missing, quoting = HABITS[habit]
    is_r = quoting == csv.QUOTE_NONNUMERIC
    rows = [(1234.56, 7, "x, y"), *rows]  # a number that says what the marks are, as in any table of numbers
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerow(["real", "whole", "words"])
    bare = Bare if is_r else str
    for row in rows:
        numbers = [bare(missing if one is None else number(one)) for one in row[:2]]
        writer.writerow([*numbers, bare(missing) if row[2] is None else row[2]])
    path = tmp_path_factory.mktemp("rows") / "t.csv"
    path.write_text(("\ufeff" if "Excel" in habit else "") + text.getvalue(), encoding="utf-8", newline="")
    real, whole, words = (list(one) for one in zip(*rows, strict=True))
    if is_r:
        assert '"real"' in text.getvalue()
    source = source_of(path)
    table = read_numbers(source.read(), source, dict.fromkeys(source.column_names, "auto")).table
    assert table["real"].to_pylist() == real
    assert table["whole"].to_pylist() == whole
    assert table["words"].to_pylist() == words
    assert table["whole"].type in (pa.int64(), pa.float64())
