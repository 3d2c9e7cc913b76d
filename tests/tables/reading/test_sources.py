from __future__ import annotations

import csv
import datetime
import io
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading import csv as reading_csv
from mlp_lightning.tables.reading.dialect import NULL_VALUES
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource, TableSource, missing_column

TIMESTAMP = pa.timestamp("us")
ROWS = pa.table(
    {
        "number": pa.array([1.5, None, -3.0, 4.25, 1e300]),
        "count": pa.array([1, 2, None, 4, 5]),
        "word": pa.array(["a", "b,c", 'say "no"', None, "two\nlines"]),
        "flag": pa.array([True, None, False, True, True]),
        "day": pa.array([datetime.datetime(2020, 1, day, 12) for day in range(1, 6)], TIMESTAMP),
    }
)


def source(path: Path | str, **options: object) -> FileSource:
    return FileSource.open(str(path), CsvConfig(**options))  # pyright: ignore[reportArgumentType]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_rows(path: Path, table: pa.Table = ROWS) -> Path:
    """The table in the format of the path's ending."""
    ending = path.suffixes[0]
    if ending in (".csv", ".txt", ".tsv"):
        options = pyarrow.csv.WriteOptions(delimiter="\t" if ending == ".tsv" else ",")
        codec = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}.get(path.suffix)
        with pa.output_stream(str(path), compression=codec) as file:
            pyarrow.csv.write_csv(table, file, options)
    elif ending in (".parquet", ".pq"):
        pyarrow.parquet.write_table(table, path, row_group_size=2)
    elif ending == ".ipc":  # the stream format
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    else:
        pyarrow.feather.write_feather(table, str(path), chunksize=2)
    return path


def joined(table_source: TableSource, types: dict[str, pa.DataType], rows: int, columns: list[str] | None = None):
    batches = list(table_source.batches(columns, types, rows))
    assert all(0 < batch.num_rows <= rows for batch in batches)
    return pa.Table.from_batches(batches)


def types_of(table: pa.Table) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in table.schema}


@pytest.mark.parametrize(
    "name",
    [
        *("t.csv", "t.tsv", "t.txt", "t.csv.gz", "t.tsv.zst", "t.txt.bz2", "T.CSV"),
        *("t.parquet", "t.pq", "t.feather", "t.arrow", "t.ipc"),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name) -> None:
    path = write_rows(tmp_path / name.lower()).rename(tmp_path / name)
    read = source(path)
    assert read.name == name
    assert read.column_names == ROWS.column_names
    assert read.read().equals(ROWS)
    assert read.read(["flag", "count"]).equals(ROWS.select(["flag", "count"]))
    assert joined(read, types_of(ROWS), 2).equals(ROWS)
    assert joined(source(path), {}, 3).equals(ROWS)
    lines = name.lower().startswith(("t.c", "t.t"))
    assert source(path).place(4) == (f"{name}, line 6" if lines else f"{name}, row 5")
    for row in (-1, 5):
        with pytest.raises(IndexError):
            read.place(row)


values = st.one_of(st.none(), st.integers(-(2**62), 2**62))
texts = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\ufeff"), max_size=8).filter(
        lambda text: text.strip() not in NULL_VALUES
    ),
)
floats = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
tables = st.lists(st.tuples(values, floats, texts, st.sampled_from([True, False, None])), min_size=1, max_size=20)


def as_text(value: object) -> object:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


@settings(max_examples=120, deadline=None)
@given(
    rows=tables, delimiter=st.sampled_from(",;\t|"), rows_at_once=st.integers(1, 7), end=st.sampled_from(["\n", "\r\n"])
)
def test_what_python_writes_is_read(tmp_path_factory, rows, delimiter, rows_at_once, end) -> None:
    columns = list(zip(*rows, strict=True))
    types = {"i": pa.int64(), "x": pa.float64(), "text, or so": pa.string(), "b": pa.bool_()}
    expected = pa.table(
        {name: pa.array(column, type_) for (name, type_), column in zip(types.items(), columns, strict=True)}
    )
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(types)
    writer.writerows([as_text(value) for value in row] for row in rows)
    path = written(tmp_path_factory.mktemp("rows"), "t.csv", text.getvalue())
    name = {"\t": "tab"}.get(delimiter, delimiter)
    read = source(path, delimiter=name, decimal=".")
    table = read.read(types=types)
    assert table.equals(expected)
    assert joined(read, types, rows_at_once).equals(expected)
    # The reported line of a row holds its beginning, by an independent count.
    starts = [len(text.getvalue().split(end)[0:1])]
    for row in rows:
        one = io.StringIO(newline="")
        csv.writer(one, delimiter=delimiter, lineterminator=end).writerow([as_text(value) for value in row])
        starts.append(starts[-1] + one.getvalue().count("\n"))
    assert [read.place(row) for row in range(len(rows))] == [f"t.csv, line {start + 1}" for start in starts[:-1]]


@settings(max_examples=60, deadline=None)
@given(rows=tables)
def test_what_arrow_writes_is_read(tmp_path_factory, rows) -> None:
    types = {"i": pa.int64(), "x": pa.float64(), "t": pa.string(), "b": pa.bool_()}
    columns = zip(*rows, strict=True)
    expected = pa.table({name: pa.array(column, types[name]) for name, column in zip(types, columns, strict=True)})
    folder = tmp_path_factory.mktemp("rows")
    for name in ("t.csv", "t.parquet", "t.feather"):
        read = source(write_rows(folder / name, expected))
        assert read.read(types=types).equals(expected)
        assert joined(read, types, 3).equals(expected)


def test_types_are_those_of_the_whole_file(tmp_path) -> None:
    many = 300_000  # several blocks of Arrow's reader
    lines = ["i,x,t,n,z"] + [f"{row},{row},{row},,07" for row in range(many)] + ["1,2.5,x,,x7"]
    read = source(written(tmp_path, "t.csv", "\n".join(lines)))
    table = read.read()
    assert types_of(table) == {"i": pa.int64(), "x": pa.float64(), "t": pa.string(), "n": pa.null(), "z": pa.string()}
    assert table["z"][0].as_py() == "07"
    assert table["t"][1].as_py() == "1"
    with pytest.raises(
        DataError, match=rf"t.csv, line {many + 2}: column 'x' holds '2.5', which is not a whole number"
    ):
        joined(read, {}, 65_536)
    assert joined(read, types_of(table), 65_536).equals(table)


def test_misleading_first_values(tmp_path) -> None:
    """More columns than are tried one by one; the last values are not in the first block of Arrow's reader."""
    first, last = (
        ["", "1", "true", "2020-01-01", "10:00", "1", "1.5"],
        ["3", "2.5", "x", "2020-01-01 10:00:00", "z", "y", "w"],
    )
    many = 60_000
    text = "\n".join(["a,b,c,d,e,f,g", *[",".join(first)] * many, ",".join(last)])
    table = source(written(tmp_path, "t.csv", text)).read()
    assert [str(field.type) for field in table.schema] == [
        *("int64", "double", "string", "timestamp[us]", "string", "string", "string"),
    ]
    for column, value, other in zip(table.columns[4:], first[4:], last[4:], strict=True):
        assert [column[0].as_py(), column[many].as_py()] == [value, other]
    assert table["c"][0].as_py() == "true"
    assert table["d"][many].as_py() == datetime.datetime(2020, 1, 1, 10)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.feather"])
def test_batches_take_memory_that_does_not_grow(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(reading_csv, "BLOCK_BYTES", (1 << 16,))
    many = 100_000
    table = pa.table({"text": [f"{row:0200}" for row in range(many)], "x": [float(row) for row in range(many)]})
    path = tmp_path / name
    if name == "t.parquet":
        pyarrow.parquet.write_table(table, path, use_dictionary=False, row_group_size=many)
    elif name == "t.feather":
        pyarrow.feather.write_feather(table, str(path), chunksize=4096)
    else:
        write_rows(path, table)
    size, types = table.nbytes, types_of(table)
    del table
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in source(path).batches(types=types, rows=1000):
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == many
    assert most < size / 3


def test_texts_of_values(tmp_path) -> None:
    text = "a, b,c,d,e,f\n1, 1.5,TRUE,1e400,10:30,yes\n 2 ,2 ,false,-inf,11:00,no\n,NA, ,nan,,NULL\n"
    table = source(written(tmp_path, "t.csv", text)).read()
    assert table.to_pydict() == {
        "a": [1, 2, None],
        "b": [1.5, 2.0, None],
        "c": [True, False, None],
        "d": [math.inf, -math.inf, None],
        "e": ["10:30", "11:00", None],
        "f": ["yes", "no", "NULL"],  # a class may have this name
    }


def test_given_missing_values(tmp_path) -> None:
    path = written(tmp_path, "t.csv", "a,b\n1,NA\n?,?\n,\n")
    assert source(path, null_values=["?"]).read().to_pydict() == {"a": [1, None, None], "b": ["NA", None, None]}


def test_decimal_commas(tmp_path) -> None:
    path = written(tmp_path, "t.csv", "a;b\n1,5;2\n-2,25;3\n")
    read = source(path)
    assert read.read().to_pydict() == {"a": [1.5, -2.25], "b": [2, 3]}
    path.write_text("a;b\n1,5;2\n-2,25;x\n")
    assert source(path).read().to_pydict() == {"a": [1.5, -2.25], "b": ["2", "x"]}
    path.write_text("a;b;c\n1,5;2,0;1\n2;3.5;2\n")
    with pytest.raises(DataError, match=r"t.csv, line 3: column 'b' holds '3.5', which is not a number"):
        source(path, decimal=",").read(types={"a": pa.float64(), "b": pa.float64()})


def test_other_encodings(tmp_path) -> None:
    for encoding in ("latin-1", "utf-16", "cp1252"):
        path = written(tmp_path, "t.csv", "größe,b\n1,é\n2,ü\n".encode(encoding))
        read = source(path, encoding=encoding)
        assert read.read().to_pydict() == {"größe": [1, 2], "b": ["é", "ü"]}
        assert read.place(1) == "t.csv, line 3"


def test_given_types_take_what_means_the_same(tmp_path) -> None:
    text = "i,f,b,t\n2.0,3,1, 2020-01-01\n 3,4.5,TRUE,2020-01-02 10:00:00Z\n"
    types = {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "t": TIMESTAMP}
    path = written(tmp_path, "t.csv", text)
    expected = [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2, 10)]
    with pytest.raises(DataError, match="line 3: column 't' holds '2020-01-02 10:00:00Z', which is not a date"):
        source(path).read(types=types)  # one with a zone, one without
    path.write_text(text.replace(" 10:00:00Z", ""))
    read = source(path)
    table = read.read(types=types)
    assert table.to_pydict() == {
        "i": [2, 3],
        "f": [3.0, 4.5],
        "b": [True, True],
        "t": [expected[0], datetime.datetime(2020, 1, 2)],
    }
    assert types_of(table) == types
    assert joined(read, types, 1).equals(table)


def test_batches_continue_after_a_value_of_another_type(tmp_path) -> None:
    many = 400_000
    lines = ["i,x"] + [f"{row},{row}.5" for row in range(many)] + ["7.0,1", "8,2"]
    read = source(written(tmp_path, "t.csv", "\n".join(lines)))
    table = joined(read, {"i": pa.int64(), "x": pa.float64()}, 50_000)
    assert table["i"].to_pylist() == [*range(many), 7, 8]
    assert table["x"].to_pylist() == [*(row + 0.5 for row in range(many)), 1.0, 2.0]


def test_rows_longer_than_a_block(tmp_path) -> None:
    long = "x" * 3_000_000
    read = source(written(tmp_path, "t.csv", f'a,b\n1,short\n2,"{long}"\n3,y\n'))
    for table in (read.read(), joined(read, {"a": pa.int64(), "b": pa.string()}, 2)):
        assert table["a"].to_pylist() == [1, 2, 3]
        assert table["b"].to_pylist() == ["short", long, "y"]


def test_lines_of_rows_with_breaks_and_empty_lines(tmp_path) -> None:
    read = source(written(tmp_path, "t.csv", '\n"a\nb",c\n1,x\n\n2,"y\n\nz"\n3,w\n'))
    assert read.column_names == ["a\nb", "c"]
    assert read.read()["c"].to_pylist() == ["x", "y\n\nz", "w"]
    assert [read.place(row) for row in range(3)] == [f"t.csv, line {line}" for line in (4, 6, 9)]


def test_a_folder_is_one_table(tmp_path) -> None:
    written(tmp_path, "rows/2.csv", "b,a\nx,3\n")
    written(tmp_path, "rows/1.csv", "a,b\n1,p\n2,q\n")
    written(tmp_path, "rows/more/3.tsv", "a\tb\n4\ty\n")
    written(tmp_path, "rows/_SUCCESS.csv", "")
    written(tmp_path, "rows/.hidden/4.csv", "")
    written(tmp_path, "rows/README.md", "words")
    read = source(tmp_path / "rows")
    assert read.name == "rows (3 files)"
    assert read.read().to_pydict() == {"a": [1, 2, 3, 4], "b": ["p", "q", "x", "y"]}
    assert joined(read, {"a": pa.int64(), "b": pa.string()}, 10)["a"].to_pylist() == [1, 2, 3, 4]
    assert [read.place(row) for row in (0, 1, 2, 3)] == [
        "1.csv, line 2",
        "1.csv, line 3",
        "2.csv, line 2",
        "more/3.tsv, line 2",
    ]
    assert source(tmp_path / "rows" / "*.csv").read()["a"].to_pylist() == [1, 2, 3]
    assert source(str(tmp_path / "**" / "*.tsv")).read()["a"].to_pylist() == [4]
    with pytest.raises(IndexError):
        read.place(4)


def test_files_that_seem_of_different_types(tmp_path) -> None:
    written(tmp_path, "1.csv", "i,f,t,n,d,b\n1,1,007,,2020-01-01,true\n")
    written(tmp_path, "2.csv", "i,f,t,n,d,b\n2,2.5,x,5,2020-01-02 10:00:00,1\n")
    table = source(tmp_path).read()
    assert table.to_pydict() == {
        "i": [1, 2],
        "f": [1.0, 2.5],
        "t": ["007", "x"],
        "n": [None, 5],
        "d": [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2, 10)],
        "b": ["true", "1"],
    }
    written(tmp_path, "0.csv", "i;f;t;n;d;b\n3;1,5;y;;;\n")
    assert source(tmp_path).read()["f"].to_pylist() == [1.5, 1.0, 2.5]


def test_parquet_files_of_different_types(tmp_path) -> None:
    pyarrow.parquet.write_table(pa.table({"x": pa.array([1], pa.int8()), "s": ["a"]}), tmp_path / "1.parquet")
    second = pa.table({"s": pa.array(["b"]).dictionary_encode(), "x": pa.array([0.5], pa.float32())})
    pyarrow.parquet.write_table(second, tmp_path / "2.parquet")
    read = source(tmp_path)
    assert read.read().to_pydict() == {"x": [1.0, 0.5], "s": ["a", "b"]}
    assert joined(read, {}, 5).equals(read.read())
    assert read.place(1) == "2.parquet, row 1"


def test_no_columns_and_columns_twice(tmp_path) -> None:
    read = source(write_rows(tmp_path / "t.csv"))
    assert read.read([]).num_columns == 0
    assert read.read(["count", "count"]).column_names == ["count"]


def test_rows_in_memory() -> None:
    memory = MemorySource(ROWS, "a table")
    assert memory.read().equals(ROWS)
    assert joined(memory, {}, 2).equals(ROWS)
    assert memory.place(4) == "row 5"
    assert memory.read(["count"], {"count": pa.float64()})["count"].type == pa.float64()
    with pytest.raises(DataError, match="a table, row 1: column 'word' holds 'a', which is not a number"):
        memory.read(types={"word": pa.float64()})
    with pytest.raises(IndexError):
        memory.place(5)
    with pytest.raises(DataError, match="no rows"):
        MemorySource(ROWS.slice(0, 0), "a table").read()


def test_a_missing_column(tmp_path) -> None:
    read = source(write_rows(tmp_path / "t.csv"))
    with pytest.raises(
        DataError, match=r"t.csv has no column 'cuont'; did you mean 'count'. Its columns are: number, co"
    ):
        read.read(["cuont"])
    with pytest.raises(DataError, match="no column 'cuont'"):
        next(read.batches(["cuont"]))
    assert "and 10 more" in str(missing_column("t", "x", [f"c{number}" for number in range(30)]))
    assert "did you mean 'ID'" in str(missing_column("t", "id", ["ID", "b"]))
    assert "seem to be values" in str(missing_column("t", "species", ["5.1", "3.5", "setosa"]))
    assert "seem to be values" not in str(missing_column("t", "species", ["0", "1", "inf", "nan"]))
