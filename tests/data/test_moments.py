"""Columns of dates and times on their way to a model, from files and frames, and kinds of targets."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlp_lightning.config import ColumnConfig
from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.reading.frames import arrow_table
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource

ROWS = 90
MOMENTS = [datetime.datetime(2019, 3, 1, 6, 30) + datetime.timedelta(days=17 * row, hours=row) for row in range(ROWS)]
SECONDS = [(one - datetime.datetime(1970, 1, 1)).total_seconds() for one in MOMENTS]
ORDER = np.random.default_rng(3).permutation(ROWS)
FORM = "%d.%m.%Y %H:%M"


def written(form: str = FORM) -> dict[str, Any]:
    """Rows in another order than that of time."""
    draw = np.random.default_rng(4)
    when = [MOMENTS[row].strftime(form) for row in ORDER]
    return {"when": when, "x": draw.normal(size=ROWS).round(3).tolist(), "y": draw.choice(["u", "v"], ROWS).tolist()}


def to_csv(columns: dict[str, Any], path: Path) -> str:
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


def module_of(table: pa.Table | str, **options: Any) -> TabularDataModule:
    if isinstance(table, str):
        data = TabularDataModule(name="table", path=table, **{"target": "y", **options})
    else:
        data = TabularDataModule(given=Given(MemorySource(table, "t")), **{"target": "y", **options})
    data.setup()
    return data


def column_of(data: TabularDataModule) -> Column:
    return next(one for one in data.preprocessor.columns if one.name == "when")


def raw_seconds(data: TabularDataModule, source: Any) -> list[float]:
    batches = list(encoded_batches(source, [column_of(data)], None, Surprises()))
    return np.concatenate([one.raw_BF for one in batches])[:, 0].tolist()


@pytest.mark.parametrize("way", ["csv", "parquet", "pandas", "polars"])
def test_texts_of_moments_are_moments(tmp_path, way: str) -> None:
    columns = written()
    table: Any = pa.table(columns)
    if way == "csv":
        table = to_csv(columns, tmp_path / "t.csv")
    elif way == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
        table = str(tmp_path / "t.parquet")
    elif way == "pandas":
        table = arrow_table(pd.DataFrame(columns), "frame")
    else:
        table = arrow_table(pl.DataFrame(columns), "frame")
    data = module_of(table)
    column = column_of(data)
    assert (column.kind, column.format) == ("datetime", "%d.%m.%Y")
    assert "datetime: when (%d.%m.%Y)" in data.describe()
    # New rows have the form of the training, even if they alone could be read otherwise, or are moments already.
    again = Column.from_dict(column.to_dict())
    assert again == column
    new = {"when": ["3.4.2021", "4.3.2021 01:00", None]}
    expected = [datetime.datetime(2021, 4, 3), datetime.datetime(2021, 3, 4, 1)]
    stamps = [(one - datetime.datetime(1970, 1, 1)).total_seconds() for one in expected]
    path = tmp_path / "new.csv"
    path.write_text('when\n3.4.2021\n4.3.2021 01:00\n""\n')
    pyarrow.parquet.write_table(pa.table({"when": [*expected, None]}), tmp_path / "new.parquet")
    for source in (
        MemorySource(pa.table(new), "new"),
        FileSource.open(str(path), CsvConfig()),
        FileSource.open(str(tmp_path / "new.parquet"), CsvConfig()),
    ):
        found = raw_seconds(data, source)
        assert found[:2] == stamps
        assert np.isnan(found[2])


def test_new_rows_of_another_form_are_refused(tmp_path) -> None:
    data = module_of(to_csv(written(), tmp_path / "t.csv"))
    path = to_csv({"when": ["13.4.2021", "4.13.2021"]}, tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"new\.csv, line 3: column 'when' has '4\.13\.2021'.*%d\.%m\.%Y"):
        raw_seconds(data, FileSource.open(path, CsvConfig()))


@pytest.mark.parametrize("form", [FORM, "%m/%d/%Y %I:%M %p", "%d %b %Y %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%MZ"])
@pytest.mark.parametrize("is_file", [True, False])
def test_rows_are_split_in_the_order_of_time(tmp_path, form: str, is_file: bool) -> None:
    columns = written(form)
    table = to_csv(columns, tmp_path / "t.csv") if is_file else pa.table(columns)
    data = module_of(table, time_column="when", val_fraction=0.2, test_fraction=0.2)
    assert [one.name for one in data.preprocessor.columns] == ["x"]
    rank_of_row = ORDER.tolist()
    ranks = {split: sorted(rank_of_row[row] for row in rows) for split, rows in data.row_numbers.items()}
    assert ranks == {"train": list(range(54)), "val": list(range(54, 72)), "test": list(range(72, 90))}


def test_the_form_of_times_is_printed_and_can_be_given(tmp_path) -> None:
    columns = {**written(), "when": [f"{1 + row % 12:02}/{1 + row % 7:02}/2020" for row in range(ROWS)]}
    path = to_csv(columns, tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"data\.columns\.when\.format=%d/%m/%Y"):
        module_of(path, time_column="when", val_fraction=0.2)
    given = {"when": ColumnConfig(format="%m/%d/%Y")}
    data = module_of(path, time_column="when", val_fraction=0.2, columns=given)
    assert "in the order of when (%m/%d/%Y)" in data.describe()
    assert [one.name for one in data.preprocessor.columns] == ["x"]
    months = [1 + row % 12 for row in range(ROWS)]
    assert max(months[row] for row in data.row_numbers["train"]) <= min(months[row] for row in data.row_numbers["val"])


def test_times_without_a_zone_among_others_are_told() -> None:
    columns = {**written("%Y-%m-%d %H:%M"), "z": 0}
    when = [f"{text}Z" if row % 2 else text for row, text in enumerate(columns["when"])]
    data = module_of(pa.table({**written(), "when": when}))
    assert "when: times without a zone are taken as UTC, as others have a zone" in data.describe()


def test_numbers_can_be_dates_where_a_format_says_so(tmp_path) -> None:
    path = to_csv(written("%Y%m%d"), tmp_path / "t.csv")
    assert column_of(module_of(path)).kind == "numeric"
    data = module_of(path, columns={"when": ColumnConfig(format="%Y%m%d")})
    assert (column_of(data).kind, column_of(data).format) == ("datetime", "%Y%m%d")
    days = [86_400.0 * (SECONDS[row] // 86_400) for row in ORDER]
    assert raw_seconds(data, FileSource.open(path, CsvConfig())) == days


def test_a_format_of_what_is_a_moment_already_has_no_effect(tmp_path) -> None:
    path = to_csv(written("%Y-%m-%d"), tmp_path / "t.csv")
    with pytest.raises(ConfigError, match=r"data\.columns\.when\.format.*has no effect"):
        module_of(path, columns={"when": ColumnConfig(format="%d/%m/%Y")})


# ---- kinds of targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "task", "classes"),
    [("categorical", "multiclass", ("1", "2", "3")), ("numeric", "regression", ()), ("auto", "multiclass", (1, 2, 3))],
)
def test_the_kind_of_the_target_decides_the_task(tmp_path, kind: str, task: str, classes: tuple[Any, ...]) -> None:
    path = to_csv({"x": np.arange(60) % 7 / 3, "y": np.arange(60) % 3 + 1}, tmp_path / "t.csv")
    data = module_of(path, columns={"y": ColumnConfig(kind)})
    assert (data.task, data.target.columns[0].classes) == (task, classes)


def test_truth_values_of_a_target(tmp_path) -> None:
    path = to_csv({"x": np.arange(60) % 7 / 3, "y": np.arange(60) % 2}, tmp_path / "t.csv")
    data = module_of(path, columns={"y": ColumnConfig("boolean")})
    assert (data.task, data.target.columns[0].classes) == ("binary", (False, True))


def test_many_whole_numbers_can_be_classes(tmp_path) -> None:
    path = to_csv({"x": np.arange(120) % 7 / 3, "y": np.arange(120) % 30}, tmp_path / "t.csv")
    assert module_of(path).task == "regression"
    assert len(module_of(path, columns={"y": ColumnConfig("categorical")}).target.columns[0].classes) == 30


def test_the_target_of_a_set_that_names_it_itself() -> None:
    with pytest.raises(ConfigError, match=r"data\.columns\.species\.kind = 'ignored' contradicts data\.target"):
        TabularDataModule(name="iris", columns={"species": ColumnConfig("ignored")}).setup()


# ---- columns that are left out ---------------------------------------------------------------------------


def test_columns_that_are_left_out_are_not_read(tmp_path) -> None:
    table = pa.table({"x": np.arange(40) % 9 / 4, "v": [[1.0, 2.0]] * 40, "b c": [{"p": 1}] * 40, "y": ["u", "v"] * 20})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    left_out = {"v": ColumnConfig("ignored"), "b c": ColumnConfig("ignored")}
    for given in (str(tmp_path / "t.parquet"), table):
        with pytest.raises(DataError, match=r"leave it out with data\.columns\.v\.kind=ignored"):
            module_of(given)
        with pytest.raises(DataError, match=r"""leave it out with 'data\.columns=\{"b c": \{kind: ignored\}\}'"""):
            module_of(given, columns={"v": ColumnConfig("ignored")})
        data = module_of(given, columns=left_out)
        assert data.rows.report.ignored == {"v": "as asked", "b c": "as asked"}


@pytest.mark.parametrize("way", ["csv", "frame"])
@pytest.mark.parametrize("form", ["%d.%m.%Y", "%Y-%m-%d", "%H:%M", "%b %Y"])
def test_dates_are_no_target_unless_somebody_says_so(tmp_path, form: str, way: str) -> None:
    columns = {"x": np.arange(ROWS) % 7, "z": np.arange(ROWS) % 11, "due": written(form)["when"]}
    table = to_csv(columns, tmp_path / "t.csv") if way == "csv" else arrow_table(pd.DataFrame(columns), "t")
    with pytest.raises(
        DataError, match=r"the target 'due' holds dates or times \(such as .* data\.columns\.due\.kind=cat"
    ):
        module_of(table, target="due")
    data = module_of(table, target="due", columns={"due": ColumnConfig("categorical")})
    assert data.task == "multiclass"


def seasons(first: int, last: int, mark: str = "-") -> list[str]:
    return [f"{year}{mark}{(year + 1) % 100:02}" for year in range(first, last + 1)]


@pytest.mark.parametrize("mark", ["-", "/"])
def test_seasons_are_categories_or_asked_for(tmp_path, mark: str) -> None:
    def table(values: list[str]) -> str:
        some = (values * ROWS)[:ROWS]
        return to_csv({"season": some, "x": np.arange(ROWS) % 7, "y": ["u", "v", "v"] * 30}, tmp_path / "t.csv")

    for certain in (seasons(2003, 2019, mark), seasons(1995, 2004, mark), seasons(2011, 2012, mark)):
        assert module_of(table(certain)).preprocessor.columns[0].kind == "categorical"
    open_ones = table(seasons(2003, 2010, mark))
    words = rf"t\.csv, line 2: column 'season' has '2003{mark}04', .*these are seasons, or months"
    with pytest.raises(DataError, match=words) as caught:
        module_of(open_ones)
    assert f"season.format=%Y{mark}%m for months" in str(caught.value)
    kinds = {"categorical": ColumnConfig("categorical"), "datetime": ColumnConfig("auto", f"%Y{mark}%m")}
    for kind, column in kinds.items():
        assert module_of(open_ones, columns={"season": column}).preprocessor.columns[0].kind == kind
    months = [f"20{10 + row // 5}{mark}{row % 12 + 1:02}" for row in range(20)]
    assert module_of(table(months)).preprocessor.columns[0].kind == "datetime"
