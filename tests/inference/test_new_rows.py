"""New rows are read in the encoding of the training, in Python as by the commands, and never in another one unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from mlp_lightning import evaluate, predict, train
from mlp_lightning.config import CsvConfig
from mlp_lightning.config.inference import CsvAsTrained
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, DataError


def rows(names: tuple[str, str], count: int = 60) -> str:
    return "town,x,y\n" + "".join(f"{names[row % 2]},{row % 11 / 4},{'ab'[row % 3 // 2]}\n" for row in range(count))


def trained_on(path: Path, encoding: str, folder: Path) -> Path:
    config = {
        "data": {"name": "table", "path": str(path), "target": "y", "csv": {"encoding": encoding}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    return train(config, folder / "run").run_dir


@pytest.mark.parametrize(("encoding", "names"), [("latin-1", ("Århus", "Fåborg")), ("cp1250", ("Łódź", "Kraków"))])
def test_rows_of_utf8_for_a_model_of_another_encoding(encoding: str, names: tuple[str, str], tmp_path: Path) -> None:
    for name, code in (("old.csv", encoding), ("same.csv", encoding), ("new.csv", "utf-8")):
        (tmp_path / name).write_text(rows(names), encoding=code)
    (tmp_path / "ascii.csv").write_text(rows(("Bergen", "Oslo")), encoding="utf-8")
    model = trained_on(tmp_path / "old.csv", encoding, tmp_path) / "checkpoints" / "last.ckpt"

    def surprises(name: str, csv: Any = None) -> tuple[list[str], list[str]]:
        path, output = str(tmp_path / name), tmp_path / "out.csv"
        predicted = predict(model, path, output, csv, overwrite=True)
        return predicted.surprises, evaluate(model, tmp_path / "out", path, csv).surprises

    assert surprises("same.csv") == ([], [])
    assert surprises("same.csv", CsvAsTrained(delimiter=",")) == ([], [])
    assert all("town: 60 values that no training row has" in one[0] for one in surprises("ascii.csv"))
    for csv in (CsvAsTrained(encoding="utf-8"), CsvConfig(), CsvConfig(encoding="utf-8")):
        assert surprises("new.csv", csv) == ([], [])
    (tmp_path / "out.csv").unlink()
    words = rf"new\.csv is UTF-8, and the model was trained with data\.csv\.encoding={encoding}, which would read other"
    for csv in (None, CsvAsTrained(), CsvAsTrained(delimiter=",")):
        with pytest.raises(DataError, match=words):
            predict(model, str(tmp_path / "new.csv"), tmp_path / "out.csv", csv)
        with pytest.raises(DataError, match=words):
            evaluate(model, tmp_path / "other", str(tmp_path / "new.csv"), csv)
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "other").exists()


def test_how_text_is_written_where_the_new_rows_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(rows(("Gent", "Brugge")), encoding="utf-8")
    model = trained_on(tmp_path / "old.csv", "utf-8", tmp_path) / "checkpoints" / "last.ckpt"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "old.csv"), tmp_path / "new.parquet")
    path = str(tmp_path / "new.parquet")
    assert predict(model, path, tmp_path / "out.csv").rows == 60
    for csv in (CsvAsTrained(decimal=","), CsvConfig(decimal=",")):
        with pytest.raises(ConfigError, match=r"data\.csv\.decimal = ',' has no effect: new\.parquet is no text"):
            predict(model, path, tmp_path / "out.csv", csv, overwrite=True)
        with pytest.raises(ConfigError, match=r"data\.csv\.decimal = ',' has no effect"):
            evaluate(model, tmp_path / "out", path, csv)


@pytest.mark.parametrize("part", ["val_path", "test_path", "path"])
@pytest.mark.parametrize("of_training", ["latin-1", "utf-8"])
def test_files_of_one_table_in_two_encodings(part: str, of_training: str, tmp_path: Path) -> None:
    other = {"latin-1": "utf-8", "utf-8": "latin-1"}[of_training]
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "a.csv").write_text(rows(("Mâcon", "Nîmes")), encoding=of_training)
    (folder / "b.csv").write_text(rows(("Béziers", "Alès")), encoding=other)
    options: dict[str, Any] = {"path": str(folder)}
    if part != "path":
        options = {"path": str(folder / "a.csv"), part: str(folder / "b.csv"), "val_fraction": 0.0}

    def set_up(encoding: str) -> TabularDataModule:
        data = TabularDataModule(**options, target="y", csv=CsvConfig(encoding=encoding))
        data.setup()
        return data

    with pytest.raises(DataError, match=r"Save all files in one encoding|not text in the encoding utf-8"):
        set_up(of_training)
    with pytest.raises(DataError, match=r"(a|b)\.csv is UTF-8 and (a|b)\.csv is not, and data.csv.encoding=latin-1"):
        set_up("latin-1")
    with pytest.raises(DataError, match="not text in the encoding utf-8"):
        set_up("utf-8")
    for name in ("a.csv", "b.csv"):  # ASCII is the same in both
        before = (folder / name).read_bytes()
        (folder / name).write_text(rows(("Lyon", "Paris")), encoding="ascii")
        assert set_up("utf-8" if name == ("b.csv" if of_training == "utf-8" else "a.csv") else "latin-1").task
        (folder / name).write_bytes(before)
