"""Texts like clocks are durations where no time of day fits, times of day where all fit, and never categories."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from support.tables import set_up

from mlp_lightning.config import ColumnConfig, CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import DataError
from mlp_lightning.estimators import MLPRegressor
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.reading.frames import arrow_table
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import FileSource, TableSource

ROWS = 60


def csv_of(texts: list[str], path: Path, mark: str = ",") -> str:
    rows = (f'"{texts[row % len(texts)]}"{mark}{row % 7}{mark}{"ab"[row % 3 // 2]}' for row in range(ROWS))
    path.write_text("\n".join([mark.join("xzy"), *rows]) + "\n", encoding="utf-8")
    return str(path)


def data_of(texts: list[str], folder: Path, kind: str = "auto", form: str | None = None, **options: Any) -> Any:
    columns = {"x": ColumnConfig(kind, form)} if kind != "auto" or form is not None else {}
    return set_up(path=csv_of(texts, folder / "t.csv"), columns=columns, **options)


def numbers(data: TabularDataModule, source: TableSource | str) -> list[float]:
    opened = FileSource.open(source, CsvConfig()) if isinstance(source, str) else source
    column = next(one for one in data.preprocessor.columns if one.name == "x")
    batches = encoded_batches(opened, [column], None, Surprises(), trained=data.rows.forms)
    return np.concatenate([one.raw_BF for one in batches])[:, 0].tolist()


def in_seconds(text: str) -> float:
    """By Python's own arithmetic: hours, minutes and seconds, or two parts in units of the second."""
    days, _, clock = text.rpartition(" ")
    parts = [float(one.replace(",", ".")) for one in clock.strip("+-").split(":")]
    sign = -1 if clock.startswith("-") else 1
    whole = datetime.timedelta(days=int(days.split()[0]) if days else 0)
    units = (3600, 60, 1)[-len(parts) :]
    return whole.total_seconds() + sign * sum(unit * part for unit, part in zip(units, parts, strict=True))


DURATIONS = {
    "m:s": ["25:10", "59:59", "0:07", "131:00"],
    "h:m:s": ["26:00:01", "3:59:59", "00:00:30"],
    "both": ["45:20", "1:15:00", "2:00:59"],
    "fractions": ["1:02.25", "0:58.5", "2:00.125"],
    "commas": ["1:02,25", "0:58,5"],
    "signs": ["-0:45", "1:30", "-2:15"],
    "pandas": ["0 days 02:03:04", "1 days 00:00:00.500000", "-1 days +23:59:00"],
    "python": ["1 day, 2:03:04", "0:30:00", "12 days, 0:00:01"],
}


@pytest.mark.parametrize("texts", DURATIONS.values(), ids=DURATIONS)
@pytest.mark.parametrize("way", ["csv", "semicolons", "parquet", "frame"])
def test_durations_are_seconds(texts: list[str], way: str, tmp_path: Path) -> None:
    path = csv_of(texts, tmp_path / "t.csv", ";" if way == "semicolons" else ",")
    table = pa.table({"x": texts * 15, "z": np.arange(15 * len(texts)) % 7, "y": ["a", "b", "a"] * 5 * len(texts)})
    if way == "parquet":
        pyarrow.parquet.write_table(table, path := str(tmp_path / "t.parquet"))
    data = set_up(table) if way == "frame" else set_up(path=path)
    lines = data.describe()
    assert "numeric: x, z" in lines
    shown = f"x: {texts[0]!r} is read as a duration, {in_seconds(texts[0]):.12g} (in units of its last part)"
    assert f"{shown}; data.columns.x.kind=categorical if it is none" in lines
    expected = [in_seconds(one) for one in texts]
    found = numbers(data, MemorySource(table, "new") if way == "frame" else path)
    assert found[: len(texts)] == expected
    # The order of new rows is theirs, whatever their file is, and missing values are missing.
    new = MemorySource(pa.table({"x": [*texts[::-1], None, "-"]}), "new")
    assert numbers(data, new)[:-2] == expected[::-1]
    assert np.isnan(numbers(data, new)[-2:]).all()


@pytest.mark.parametrize("texts", [["8:15", "9:25", "23:59"], ["08:15:30", "19:25:00"]])
def test_times_of_day(texts: list[str], tmp_path: Path) -> None:
    line = "x: taken as times of day; data.columns.x.kind=numeric if these are durations"
    data = data_of(texts, tmp_path)
    assert {line, "datetime: x (%H:%M)"} < set(data.describe())
    for options in ({"kind": "datetime"}, {"form": "%H:%M"}):
        asked = data_of(texts, tmp_path, **options).describe()
        assert line not in asked
        assert "datetime: x (%H:%M)" in asked
    durations = data_of(texts, tmp_path, "numeric")
    assert "numeric: x, z" in durations.describe()
    assert numbers(durations, str(tmp_path / "t.csv"))[: len(texts)] == [in_seconds(one) for one in texts]


def test_what_may_be_both_is_refused_until_it_is_said(tmp_path: Path) -> None:
    texts = ["18:35", "1:02:03", "19:59"]
    with pytest.raises(DataError, match=r"t\.csv, line 2: column 'x' has '18:35', and '1:02:03' elsewhere") as caught:
        data_of(texts, tmp_path)
    assert "data.columns.x.kind=numeric for durations, data.columns.x.kind=datetime for times" in str(caught.value)
    assert numbers(data_of(texts, tmp_path, "numeric"), str(tmp_path / "t.csv"))[:3] == [1115, 3723, 1199]
    hours = numbers(data_of(texts, tmp_path, "datetime"), str(tmp_path / "t.csv"))[:3]
    assert hours == [18 * 3600 + 35 * 60, 3723, 19 * 3600 + 59 * 60]


@pytest.mark.parametrize("odd", ["DNF", "47", "1:75", "2021-05-01"])
def test_another_value_among_durations(odd: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"t\.csv, line 4: column 'x' has durations \(such as '25:10'\), but '{odd}'"):
        data_of(["25:10", "31:00", odd, "29:29"], tmp_path)
    missing = CsvConfig(null_values=[odd])
    data = data_of(["25:10", "31:00", odd, "29:29"], tmp_path, csv=missing)
    assert "numeric: x (with gaps), z" in data.describe()
    assert "categorical: x (4)" in data_of(["25:10", "31:00", odd, "29:29"], tmp_path, "categorical").describe()


def test_the_end_of_a_day_and_dates_among_times_of_day(tmp_path: Path) -> None:
    for odd in ("24:00", "2021-05-01"):
        with pytest.raises(DataError, match=rf"holds moments in the form %H:%M, but '{odd}' here") as caught:
            data_of(["8:15", "12:30", odd, "23:00"], tmp_path)
        assert "if these are durations, set data.columns.x.kind=numeric" in str(caught.value)


@pytest.mark.parametrize("texts", [["3:2", "0:1"], ["1:4", "16:9"], ["a 28:35", "b 28:35"], ["28:35:10:00", "1:2:3:4"]])
def test_what_is_no_clock_is_categories(texts: list[str], tmp_path: Path) -> None:
    assert "categorical: x (2)" in data_of(texts, tmp_path).describe()


def test_new_rows_have_the_parts_of_the_training(tmp_path: Path) -> None:
    """``28:35`` may be minutes or hours where the training rows had three parts."""
    of_three, of_two = data_of(DURATIONS["h:m:s"], tmp_path), data_of(DURATIONS["m:s"], tmp_path)
    both = data_of(DURATIONS["both"], tmp_path)
    new = {name: csv_of(texts, tmp_path / "new.csv") for name, texts in DURATIONS.items() if name == "m:s"}["m:s"]
    words = r"new\.csv, line 2: column 'x' holds '25:10', which is no duration as the training rows have them \(h:m:s\)"
    with pytest.raises(DataError, match=words):
        numbers(of_three, new)
    assert numbers(both, new)[:2] == numbers(of_two, new)[:2] == [1510, 3599]
    csv_of(DURATIONS["h:m:s"], tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"holds '26:00:01', which is no duration as .* \(m:s\)"):
        numbers(of_two, new)
    for stored in ([1510, 3599], [1510.5, None], ["1510", "3599"]):
        with pytest.raises(DataError, match=r"'1510.*', which is no duration as the training rows have them"):
            numbers(of_two, MemorySource(pa.table({"x": stored}), "new"))
    plain = data_of(["1510", "3599", "20"], tmp_path)
    with pytest.raises(DataError, match="'25:10', which is not a number"):
        numbers(plain, csv_of(DURATIONS["m:s"], tmp_path / "new.csv"))


@pytest.mark.parametrize("kind", ["auto", "numeric"])
def test_targets(kind: str, tmp_path: Path) -> None:
    texts = ["25:10", "59:59", "0:07"] if kind == "auto" else ["15:10", "19:59", "0:07"]
    rows = [f"{row % 9},{texts[row % 3]}" for row in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    asked: Any = {"columns": {"y": ColumnConfig("numeric")}} if kind == "numeric" else {"task": "regression"}
    data = set_up(path=str(tmp_path / "t.csv"), val_fraction=0.0, **asked)
    assert data.task == "regression"
    learned = data.splits["train"].targets[:3, 0].numpy() * data.target.scale[0] + data.target.mean[0]
    np.testing.assert_allclose(learned, [in_seconds(one) for one in texts], rtol=1e-5)
    if kind == "numeric":
        with pytest.raises(DataError, match=r"If these are durations, set data\.columns\.y\.kind=numeric"):
            set_up(path=str(tmp_path / "t.csv"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_stored_durations(unit: str, tmp_path: Path) -> None:
    seconds = np.arange(ROWS) % 11 * 90
    stored = pa.array(seconds * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]).cast(pa.duration(unit))
    table = pa.table({"x": stored, "z": np.arange(ROWS) % 7, "y": ["a", "b", "a"] * 20})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for data in (set_up(table), set_up(path=str(tmp_path / "t.parquet"))):
        assert "numeric: x, z" in data.describe()
        assert numbers(data, MemorySource(table, "new")) == seconds.tolist()
    frame = pd.DataFrame({"x": pd.to_timedelta(seconds, "s"), "z": table["z"], "y": table["y"]})
    assert numbers(set_up(arrow_table(frame, "frame")), str(tmp_path / "t.parquet")) == seconds.tolist()


def test_cells_of_a_workbook(tmp_path: Path) -> None:
    """Excel shows both as clocks, and stores less than a day as a time."""
    cells = [datetime.timedelta(hours=30, minutes=1), datetime.time(2, 30), datetime.timedelta(days=2)]
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["x", "z", "y"])
    for row in range(ROWS):
        sheet.append([cells[row % 3], row % 7, "ab"[row % 3 // 2]])
    book.save(tmp_path / "t.xlsx")
    data = set_up(path=str(tmp_path / "t.xlsx"))
    assert numbers(data, str(tmp_path / "t.xlsx"))[:3] == [30 * 3600 + 60, 9000, 2 * 86_400]


@pytest.mark.parametrize("way", ["texts", "timedelta", "objects", "array"])
def test_estimators(way: str) -> None:
    texts = ["25:10", "59:59", "0:07", "40:00", "33:20", "12:12"] * 20
    y = np.array([in_seconds(one) for one in texts])
    stored = pd.to_timedelta(y, "s")
    rows: dict[str, Any] = {
        "texts": pd.DataFrame({"x": texts}),
        "timedelta": pd.DataFrame({"x": stored}),
        "objects": pd.DataFrame({"x": list(stored.to_pytimedelta())}, dtype=object),
        "array": np.array([[one] for one in texts], dtype=object),
    }
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=300, random_state=0).fit(rows[way], y)
    assert model.score(rows[way], y) > 0.9
    assert model.predict(rows[way]).shape == (120,)
    if way in ("texts", "array"):
        with pytest.raises(DataError, match="no duration as the training rows have them"):
            model.predict(np.array([["1:00:00"]], dtype=object) if way == "array" else pd.DataFrame({"x": ["1:00:00"]}))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["8:35", "1:02:03"], r"durations or times of day \(such as '1:02:03', '8:35'\)"),
        (["28:35", "DNF", "27:10"], "'28:35'\\), but 'DNF' in row 2"),
    ],
)
def test_estimators_refuse_what_is_open(texts: list[str], words: str) -> None:
    frame = pd.DataFrame({"x": texts * 20})
    with pytest.raises(DataError, match=rf"X: column 'x' has .*{words}.*pandas\.to_timedelta for durations"):
        MLPRegressor(max_iter=2).fit(frame, np.arange(20.0 * len(texts)))
    y = np.tile(np.arange(float(len(texts))), 20)
    model = MLPRegressor(max_iter=100, random_state=0).fit(frame.astype("category"), y)
    assert "categorical" in repr(model.module_.hparams["preprocessing"])


def test_an_array_of_numbers_with_units_is_predicted_as_it_was_trained() -> None:
    X = np.array([[f"${row}.50"] for row in range(12)] * 5, dtype=object)
    y = np.tile(np.arange(12.0), 5)
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=300, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    with pytest.raises(DataError, match="no unit"):
        model.predict(np.array([["3.5"]], dtype=object))
