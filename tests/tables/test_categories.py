"""Categories and classes: blanks, words for missing, whole numbers, rare values, values without training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from support.tables import set_up

from mlp_lightning.config import CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import DataError
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.categories import frequent, positions, tidied
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN, Surprises
from mlp_lightning.tables.reading.sources import FileSource

ROWS = 40


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def table_of(path: Path, values: list[str], header: str = "x,y", end: str = "") -> Path:
    """A column of texts, and two classes."""
    return write(path, header + "\n" + "".join(f"{one},{'ab'[row % 2]}{end}\n" for row, one in enumerate(values)))


def codes_of(data: TabularDataModule, path: Path) -> tuple[list[float], list[str]]:
    """The codes of the first column in new rows, and what is said of them."""
    surprises = Surprises()
    source = FileSource.open(str(path), CsvConfig())
    parts = list(encoded_batches(source, data.preprocessor.columns, None, surprises, trained=data.rows.forms))
    return np.concatenate([one.raw_BF[:, 0] for one in parts]).tolist(), surprises.lines()


# ---- the same value, whatever stands around it -----------------------------------------------------------------


def test_blanks_around_texts_are_no_part_of_them(tmp_path) -> None:
    train = write(tmp_path / "t.csv", "job, city, y\n" + "baker, Bonn, yes \nsmith, Ulm , no\n" * 20)
    data = set_up(path=str(train))
    assert [one.vocabulary for one in data.preprocessor.columns] == [("baker", "smith"), ("Bonn", "Ulm")]
    assert data.target.class_names == ("no", "yes")
    new = write(tmp_path / "new.csv", "job,city,y\nsmith,Ulm,no\n  baker ,  Bonn,yes\n")
    data = set_up(path=str(train), test_path=str(new))
    assert data.splits["test"].targets[:, 0].tolist() == [0, 1]
    assert data.splits["test"].features_BF.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    frame = pa.table({"job": ["baker", " baker", "smith\t", "smith"] * 5, "y": [" u", "u", "v ", "v"] * 5})
    assert set_up(frame).target.class_names == ("u", "v")
    assert set_up(frame).preprocessor.columns[0].vocabulary == ("baker", "smith")


def test_groups_differ_by_more_than_blanks() -> None:
    table = pa.table({"x": np.arange(40.0), "g": ["p", " p", "q", "q "] * 10, "y": ["a", "b", "b", "a"] * 10})
    data = set_up(table, group_column="g", val_fraction=0.5)
    groups = [{table["g"][row].as_py().strip() for row in rows} for rows in data.row_numbers.values()]
    assert sorted(map(len, groups)) == [1, 1]


@pytest.mark.parametrize(("before", "after"), [("10115", "10115.0"), ("10115.0", "10115")])
def test_whole_numbers_as_categories_in_both_spellings(tmp_path, before: str, after: str) -> None:
    train = table_of(tmp_path / "t.csv", [before, before.replace("10", "20")] * 10)
    data = set_up(path=str(train), kinds={"x": "categorical"})
    assert data.preprocessor.columns[0].vocabulary == ("10115", "20115")
    codes, lines = codes_of(data, table_of(tmp_path / "new.csv", [after, "10116"]))
    assert codes == [FIRST_CATEGORY, UNKNOWN]
    assert len(lines) == 1


def test_versions_and_codes_stay_as_they_are() -> None:
    for texts in (["1.0", "1.1", "2.0"], ["007", "7", "x"], ["1.0", "a", "1"]):
        values = pa.chunked_array([texts])
        assert tidied(values).to_pylist() == texts
        found, missing = positions(values, pa.array(sorted(texts)))
        assert found.to_pylist() == [sorted(texts).index(one) for one in texts]
        assert not any(missing.to_pylist())


# ---- words for missing -----------------------------------------------------------------------------------------


def test_a_class_may_be_called_none(tmp_path) -> None:
    path = table_of(tmp_path / "t.csv", [f"{row}.5" for row in range(ROWS)])
    path.write_text(path.read_text().replace(",a\n", ",None\n"))
    data = set_up(path=str(path))
    assert data.target.class_names == ("None", "b")
    assert data.rows.dropped == 0
    (line,) = (line for line in data.describe() if line.startswith("y: "))
    assert line == "y: 'None' is kept as a text (20 rows); \"data.csv.null_values=['None']\" takes it as missing"
    asked = TabularDataModule(data.options, csv=CsvConfig(null_values=["None"]))
    with pytest.raises(DataError, match="one class only"):
        asked.setup()


def test_words_are_missing_among_numbers_and_moments_and_texts_elsewhere(tmp_path) -> None:
    rows = [f"{row}.5,2020-01-{row % 28 + 1:02},{('red', 'null')[row % 2]}" for row in range(ROWS)]
    path = table_of(tmp_path / "t.csv", [*rows, "NA,null,", "NULL,NA,NA"], "n,d,c,y")
    data = set_up(path=str(path))
    numbers, moments, colours = data.preprocessor.columns
    assert (numbers.kind, numbers.missing, moments.kind, moments.missing) == ("numeric", True, "datetime", True)
    assert (colours.vocabulary, colours.missing) == (("NA", "null", "red"), True)
    # A word that no training row has as a text stands for a missing value.
    new = table_of(tmp_path / "new.csv", ["None,2020-01-01,None"], "n,d,c,y")
    surprises = Surprises()
    (batch,) = encoded_batches(FileSource.open(str(new), CsvConfig()), data.preprocessor.columns, None, surprises)
    assert np.isnan(batch.raw_BF[0, 0])
    assert batch.raw_BF[0, 2] == MISSING


@pytest.mark.parametrize("every", [False, True])
def test_where_texts_are_in_quotes_a_bare_word_is_missing(tmp_path, every: bool) -> None:
    """As R writes it: NA is missing, "NA" is a text. Missing numbers and moments may be quoted, too."""
    empty = '""' if every else ""
    lines = ['"n","d","c","y"', f'{empty},"2020-01-02","NA","u"', f'"1.5",{empty},NA,"v"', '2.5,"2020-01-03","x","u"']
    source = FileSource.open(str(write(tmp_path / "t.csv", "\n".join(lines) + "\n")), CsvConfig())
    table = source.read()
    assert [str(one) for one in table.schema.types[:3]] == ["double", "timestamp[us]", "string"]
    assert table["n"].to_pylist() == [None, 1.5, 2.5]
    assert table["c"].to_pylist() == ["NA", None, "x"]
    types = {field.name: field.type for field in table.schema}
    assert pa.Table.from_batches(source.batches(types=types)).equals(table)


# ---- rare values and free text ---------------------------------------------------------------------------------


def test_the_rarest_of_many_categories_are_one(tmp_path) -> None:
    towns = ["ulm"] * 6 + ["bonn"] * 5 + ["kiel"] * 5 + ["jena"] * 2 + ["celle"] * 2
    data = set_up(path=str(table_of(tmp_path / "t.csv", towns)), max_categories=3, max_one_hot=2)
    (column,) = data.preprocessor.columns
    assert (column.vocabulary, column.encoding, column.is_capped) == (("bonn", "kiel", "ulm"), "embedding", True)
    text = "x: 5 different values; the 3 most frequent are categories, and the others are one (data.max_categories)"
    assert text in data.describe()
    assert sorted(set(data.splits["train"].features_BF[:, -1].tolist())) == [UNKNOWN, *range(2, 5)]
    assert type(column).from_dict(column.to_dict()) == column
    codes, lines = codes_of(data, table_of(tmp_path / "new.csv", ["jena", "mainz", "ulm"]))
    assert codes == [UNKNOWN, UNKNOWN, FIRST_CATEGORY + 2]
    assert lines == ["x: 2 values that are rare or new (taken as one)"]


def test_the_most_frequent_values() -> None:
    values = pa.chunked_array([["b", "a", "b", None, "c", "a", "d"]])
    assert frequent(values, 4) == (["a", "b", "c", "d"], 0)
    found, share = frequent(values, 3)  # of two equally frequent ones the first
    assert (found, share) == (["a", "b", "c"], pytest.approx(1 / 7))


def test_free_text_is_left_out_and_many_categories_are_said(tmp_path) -> None:
    remarks = [f"remark {row // 3 * 2 if row % 3 else row} about this house" for row in range(120)]
    names = [f"street{row if row % 4 else 0}" for row in range(120)]
    rows = [f"{one},{two},{row % 7}" for row, (one, two) in enumerate(zip(remarks, names, strict=True))]
    data = set_up(path=str(table_of(tmp_path / "t.csv", rows, "remark,street,n,y")))
    assert data.rows.report.ignored == {"remark": "free text, of which hardly any value occurs twice"}
    (line,) = (line for line in data.describe() if line.startswith("street: "))
    assert line.startswith(
        "street: 91 categories in 120 rows, so that most occur once; data.columns.street.kind=ignored"
    )
    asked = set_up(path=str(tmp_path / "t.csv"), kinds={"remark": "categorical"})
    assert asked.preprocessor.columns[0].kind == "categorical"


# ---- what no training row has ----------------------------------------------------------------------------------


def split_table(**columns: Any) -> pa.Table:
    parts = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    return pa.table({"x": np.arange(20.0), "part": parts, **columns})


def test_classes_without_training_rows_are_named() -> None:
    table = split_table(y=["a", "b"] * 6 + ["c", "a", "c", "b", "d", "a", "c", "b"])
    lines = set_up(table, split_column="part").describe()
    assert "no training row has the class 'c', so the model never predicts it (2 val and 1 test rows have it)" in lines
    assert "no training row has the class 'd', so the model never predicts it (1 test rows have it)" in lines


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match="all training rows are of the class 'a': there is nothing to learn"):
        set_up(split_table(y=["a"] * 12 + ["b"] * 8), split_column="part")


def test_categories_that_only_held_out_rows_have_are_counted() -> None:
    table = split_table(c=["r", "s"] * 6 + ["r", "t", "t", None] + ["s"] * 4, y=["a", "b"] * 10)
    lines = set_up(table, split_column="part").describe()
    assert "val: c: 2 values that no training row has (taken as unknown)" in lines
    assert any(line.startswith("val: c: 1 missing values") for line in lines)
    assert not any(line.startswith("test: ") for line in lines)


@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile"])
@pytest.mark.parametrize("values", [[7.5, None], [True, None], [pa.scalar(10**15, pa.timestamp("us")).as_py(), None]])
def test_of_one_value_and_gaps_only_the_gaps_count(values: list[Any], scaling: str) -> None:
    """The weight of the value itself is never trained; another value must not be multiplied with it."""
    table = pa.table({"z": np.arange(40.0), "x": values * 20, "y": ["a", "b"] * 20})
    data = set_up(table, scaling=scaling)
    column = data.preprocessor.feature_names.index("x")
    assert any(line.startswith("x: always ") for line in data.describe())
    for new in (0.0, 1.0, 8.0, -1e9):
        features_BF = data.preprocessor(torch.tensor([[3.0, new], [3.0, float("nan")]], dtype=torch.float64))
        assert features_BF[:, column].abs().max() < 1e-6
        assert features_BF[:, data.preprocessor.feature_names.index("x missing")].tolist() == [0, 1]
