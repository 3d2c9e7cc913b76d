from __future__ import annotations

import doctest
import gzip
from pathlib import Path

import pytest

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.tables.reading import dialect as csv_dialect
from mlp_lightning.tables.reading.dialect import NULL_VALUES, CsvDialect, null_texts, read_dialect, sniff_delimiter
from mlp_lightning.tables.reading.sources import FileSource


def dialect_of(folder: Path, content: str | bytes, name: str = "t.csv", **options: object) -> CsvDialect:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_dialect(path, path.name, CsvConfig(**options))  # pyright: ignore[reportArgumentType]


def test_examples() -> None:
    assert doctest.testmod(csv_dialect).failed == 0


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_inferred_from_the_sample(tmp_path, delimiter) -> None:
    lines = [["a", "b", "c"], ["1", "x", "2.5"], ["2", '"p,q;r|s\tt"', "3.5"]]
    found = dialect_of(tmp_path, "\n".join(delimiter.join(line) for line in lines))
    assert (found.delimiter, found.header, found.decimal) == (delimiter, ("a", "b", "c"), ".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n1\n2\n", ","),
        ("a b\n1 2\n", ","),  # blanks only when asked for
        ("name;note\nx;one, two\ny;three\n", ";"),
        ("length, mm;width, mm\n1,5;2,5\n", ";"),
        ("a,b\n1,2\n3\n", ","),  # a ragged line does not change the delimiter
        ("a;b;c\n1;2;3\n4;5\n", ";"),
        ('a|b\n"x\n|y|z"|2\n', "|"),  # a quoted value over two lines
        ("a,b", ","),
        ("a;b", ";"),
    ],
)
def test_which_delimiter(text, expected) -> None:
    assert sniff_delimiter(text) == expected


def test_a_sample_that_ends_inside_a_row(tmp_path) -> None:
    row = "1;" + "x" * 1000 + ";2\n"
    assert dialect_of(tmp_path, "a;b;c\n" + row * 200).delimiter == ";"


def test_options_come_first(tmp_path) -> None:
    found = dialect_of(tmp_path, "a b,c\n1 2,5\n", delimiter="space", decimal=",")
    assert (found.delimiter, found.decimal, found.header) == (" ", ",", ("a", "b,c"))
    assert dialect_of(tmp_path, "a,b\n1,2\n", delimiter="tab").delimiter == "\t"
    assert dialect_of(tmp_path, "a,b\n1,2\n", name="t.tsv").delimiter == "\t"
    assert dialect_of(tmp_path, gzip.compress(b"a,b\n1,2\n"), name="t.tsv.gz").delimiter == "\t"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["-12,5", "3"], ","),
        (["12.5", "3"], "."),
        (["12,5", "12.5"], "."),
        (["1", "x"], None),
        (["1,5e-3"], ","),
        (["12.05.2020", "1,5"], ","),
        (["one, two", "a.b"], None),
    ],
)
def test_the_decimal_mark(tmp_path, values, expected) -> None:
    assert dialect_of(tmp_path, "a;b\n" + "".join(f"{value};1\n" for value in values)).decimal == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1,234"], ","),  # nobody writes semicolons but where a comma is in numbers
        (["1.234"], None),
        (["1.234", "1,234"], None),
        (["1.234", "1,5"], ","),
        (["0.123"], "."),
        (["1.234", "1.5"], "."),
    ],
)
def test_three_digits_behind_a_mark_may_be_thousands(tmp_path, values, expected) -> None:
    assert dialect_of(tmp_path, "a;b\n" + "".join(f"{value};1\n" for value in values)).decimal == expected


@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "SEP=|\n"])
def test_a_first_line_that_names_the_delimiter(tmp_path, line) -> None:
    mark = "|" if "|" in line else ";"
    # As few values as these do not show it: the commas could be the delimiter.
    path = tmp_path / "t.csv"
    path.write_bytes(f"\ufeff{line}a,b{mark}c\r\n1,2{mark}x\r\n".encode())
    found = read_dialect(path, "t.csv", CsvConfig())
    assert (found.delimiter, found.header, found.header_lines) == (mark, ("a,b", "c"), 2)
    source = FileSource.open(str(path), CsvConfig())
    assert source.read().to_pydict() == {"a,b": [1.2], "c": ["x"]}
    assert source.place(0) == "t.csv, line 3"
    assert source.written_numbers(["c"]) == {"c"}


def test_a_mark_has_one_meaning(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"data.csv.thousands = ',' contradicts data.csv.decimal = ','"):
        dialect_of(tmp_path, "a;b\n1;2\n", decimal=",", thousands=",")
    assert dialect_of(tmp_path, "a;b\n1;2\n", thousands=".").decimal == ","


def test_header_names_lose_their_blanks_and_a_byte_order_mark(tmp_path) -> None:
    found = dialect_of(tmp_path, b'\xef\xbb\xbf\n\n a , "b, c" ,d\r\n1,2,3\n', decimal=".")
    assert found.header_lines == 3
    assert found.header[0] == "a"
    assert dialect_of(tmp_path, '"two\nlines",b\n1,2\n').header_lines == 2


def test_a_header_longer_than_the_sample(tmp_path) -> None:
    names = [f"column_{number:05}" for number in range(10_000)]
    found = dialect_of(tmp_path, ";".join(names) + "\n" + ";".join("1" for _ in names) + "\n")
    assert found.header == tuple(names)
    assert found.has_rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "t.csv is empty"),
        (b"\n\n", "t.csv is empty"),
        (b"a,,c\n1,2,3\n", r"t.csv, line 1: column 2 of 3 has no name\. Give it one\.$"),
        (b"a;c;\n1;2;\n", "t.csv, line 1: column 3 of 3 has no name.*each line ends with a delimiter"),
        (b'"","a"\n"1",7\n', r"t.csv, line 1: column 1 of 2 has no name.*row\.names=FALSE"),
        (b"\n,a\n0,1\n", "t.csv, line 2: column 1 of 2 has no name.*index=False"),
        (b"a,b,a\n1,2,3\n", "line 1: more than one column is called 'a'"),
        (b"a, a\n1,2\n", "more than one column is called 'a'"),
        ("a,b\n1,2\n".encode("utf-16-le"), "zero bytes.*utf-16"),
    ],
)
def test_what_cannot_be_a_table(tmp_path, content, words) -> None:
    with pytest.raises(DataError, match=words):
        dialect_of(tmp_path, content)


@pytest.mark.parametrize("encoding", ["no-such", "hex", "rot13"])
def test_unknown_encodings(tmp_path, encoding) -> None:
    with pytest.raises(ConfigError, match=rf"data.csv.encoding = '{encoding}' is not an encoding"):
        dialect_of(tmp_path, "a,b\n1,2\n", encoding=encoding)


def test_a_decimal_mark_that_is_the_delimiter(tmp_path) -> None:
    # Numbers in quotes may have it.
    assert dialect_of(tmp_path, 'a,b\n"1,5",2\n', decimal=",").delimiter == ","
    # With the decimal mark given, a comma is no longer a candidate.
    assert dialect_of(tmp_path, "a;b\n1;2\n", decimal=",").delimiter == ";"


@pytest.mark.parametrize("spelling", ["utf-8", "UTF8", "utf-8-sig", "utf_8"])
def test_spellings_of_utf_8(tmp_path, spelling) -> None:
    assert dialect_of(tmp_path, "\ufeffa,b\n1,2\n", encoding=spelling).encoding == "utf-8"
    assert dialect_of(tmp_path, "\ufeffa,b\n1,2\n", encoding=spelling).header == ("a", "b")


def test_texts_of_missing_values() -> None:
    assert set(NULL_VALUES) < set(null_texts(CsvConfig()))
    assert {" NA", "NA ", "", "   "} < set(null_texts(CsvConfig()))
    own = null_texts(CsvConfig(null_values=["?"]))
    assert {"?", " ?", ""} < set(own)
    assert "NA" not in own


def test_null_values_are_those_of_pandas() -> None:
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert set(NULL_VALUES) == set(parsers.STR_NA_VALUES)


def test_row_labels_that_r_writes_without_a_name(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"size","y"\n"1",7.5,"u"\n"2",8,"v"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2 has 3 values, but the header has 2 columns; .*row\.names=FALSE"):
        FileSource.open(str(path), CsvConfig()).read()
