"""Training on a data frame: what a file with the same rows gives."""

from __future__ import annotations

import dataclasses
import decimal
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from support.run_folders import checkpoint
from support.tables import mixed_table

import mlp_lightning
from mlp_lightning.config import parse_config
from mlp_lightning.data import IrisDataModule
from mlp_lightning.errors import CheckpointError, ConfigError, DataError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict

CONFIG: dict[str, Any] = {
    "data": {"name": "table", "target": "y", "val_fraction": 0.2},
    "model": {"hidden_units": 8},
    "optimizer": {"name": "Adam", "lr": 0.01},
    "scheduler": "none",
    "trainer": {"max_steps": 20, "accelerator": "cpu"},
    "logger": {"graph": False},
    "verbosity": 0,
}


def with_data(**options: Any) -> dict[str, Any]:
    return {**CONFIG, "data": {**CONFIG["data"], **options}}


def pandas_frame(table: pa.Table) -> Any:
    frame = table.to_pandas()
    return frame.set_index(frame.index * 3)  # the index says nothing


def polars_frame(table: pa.Table) -> Any:
    return pytest.importorskip("polars").from_arrow(table)


FRAMES = {"pandas": pandas_frame, "polars": polars_frame, "pyarrow": lambda table: table}


@pytest.mark.parametrize("library", FRAMES)
def test_same_as_the_file(library: str, tmp_path: Path) -> None:
    table = mixed_table().drop_columns(["flag", "whole"])  # with gaps, pandas keeps these as objects and as floats
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")
    of_file = mlp_lightning.train(with_data(path=str(tmp_path / "rows.csv")), tmp_path / "file")
    of_frame = mlp_lightning.train(CONFIG, tmp_path / "frame", frame=FRAMES[library](table))
    assert of_frame.status == "finished"
    assert of_frame.metrics == of_file.metrics
    assert json.loads((of_frame.run_dir / "result.json").read_text())["metrics"] == of_file.metrics
    assert checkpoint(of_frame.run_dir)["config"]["data"]["name"] == "frame"


def test_what_is_left_out_is_as_for_a_table() -> None:
    files = parse_config({"data": {"name": "table", "path": "rows.csv", "target": "y"}})
    frame = parse_config({"data": {"name": "frame", "target": "y"}})
    data = dataclasses.replace(files.data, name="frame", path=None)
    assert frame == dataclasses.replace(files, data=data, name="frame")


def test_a_model_of_a_frame_predicts_a_file(tmp_path: Path) -> None:
    table = mixed_table()
    result = mlp_lightning.train(CONFIG, tmp_path / "run", frame=table)
    path = result.run_dir / "checkpoints" / "last.ckpt"
    assert load_model(path).target.class_names == ("no", "yes")
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")
    assert 0 <= evaluate(path, tmp_path / "out", str(tmp_path / "rows.csv")).metrics["accuracy"] <= 1
    # Its own rows are gone.
    with pytest.raises(ConfigError, match=r"data\.name = 'frame' has its rows in memory, and they are not here"):
        evaluate(path, tmp_path / "own", split="val")


def test_it_continues_with_the_same_frame_only(tmp_path: Path) -> None:
    table = mixed_table()
    whole = mlp_lightning.train(CONFIG, tmp_path / "whole", frame=table)
    shorter = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_steps": 9}}
    first = mlp_lightning.train(shorter, tmp_path / "first", frame=table)
    continued = {**CONFIG, "ckpt_path": str(first.run_dir / "checkpoints" / "last.ckpt")}
    assert mlp_lightning.train(continued, tmp_path / "second", frame=table).metrics == whole.metrics
    with pytest.raises(CheckpointError, match="was trained on other rows"):
        mlp_lightning.train(continued, tmp_path / "third", frame=mixed_table(seed=9))


@pytest.mark.parametrize(
    ("options", "key"),
    [({"name": "xor"}, "data.name"), ({"path": "rows.csv"}, "data.path"), ({"target": None}, "data.target")],
)
def test_options_that_contradict_a_frame(options: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        mlp_lightning.train(with_data(**options), tmp_path / "run", frame=mixed_table())
    assert [one.key for one in caught.value.faults] == [key]


def test_what_a_configuration_says_of_a_frame(tmp_path: Path) -> None:
    table = mixed_table()
    by_mapping = mlp_lightning.train(CONFIG, tmp_path / "mapping", frame=table)
    config = parse_config({**CONFIG, "data": {**CONFIG["data"], "path": "never read"}})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=None), allow_targets=["mine"])
    assert mlp_lightning.train(config, tmp_path / "config", frame=table).metrics == by_mapping.metrics
    with pytest.raises(ConfigError, match=r"data\.target"):
        mlp_lightning.train({**CONFIG, "data": "table"}, tmp_path / "text", frame=table)
    with pytest.raises(ConfigError, match="must be a section"):
        mlp_lightning.train({**CONFIG, "data": None}, tmp_path / "null", frame=table)
    data = IrisDataModule()
    data.setup()
    with pytest.raises(ValueError, match="data or frame, not both"):
        mlp_lightning.train(CONFIG, tmp_path / "both", data=data, frame=table)


def test_categories_that_are_numbers_stay_categories(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"zip": pandas.Categorical([10115, 20095, 80331] * 10), "y": [*"ab"] * 15})
    result = mlp_lightning.train(CONFIG, tmp_path / "run", frame=frame)
    (column,) = load_model(result.run_dir / "checkpoints" / "last.ckpt").columns
    assert (column.kind, column.vocabulary) == ("categorical", ("10115", "20095", "80331"))
    as_numbers = {**CONFIG, "data": {**CONFIG["data"], "columns": {"zip": {"kind": "numeric"}}}}
    result = mlp_lightning.train(as_numbers, tmp_path / "numbers", frame=frame)
    assert load_model(result.run_dir / "checkpoints" / "last.ckpt").columns[0].kind == "numeric"


def test_what_is_not_a_frame(tmp_path: Path) -> None:
    lazy = polars_frame(pa.table({"x": [1, 2], "y": [3, 4]})).lazy()
    with pytest.raises(DataError, match="frame is a LazyFrame, and must be a data frame"):  # and polars does not warn
        mlp_lightning.train(CONFIG, tmp_path / "lazy", frame=lazy)
    with pytest.raises(DataError, match="frame is a ndarray, and must be a data frame: of pandas, polars or pyarrow"):
        mlp_lightning.train(CONFIG, tmp_path / "run", frame=np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="train\\(config, run_dir, frame=…\\)"):
        mlp_lightning.train(with_data(name="frame"), tmp_path / "other")


def test_columns_of_objects_in_polars(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")

    def frame(values: list[Any]) -> Any:
        held = polars.Series("o", values * 20, dtype=polars.Object)
        return polars.DataFrame({"o": held, "number": list(range(40)), "y": ["u", "v"] * 20})

    class Own:
        pass

    refused: dict[str, list[Any]] = {
        "column 'o' has 7 (a number) in row 1, but 'w' (a text) in row 2": [7, "w"],
        "in row 1, which is of the type Own": [Own(), Own()],
        "which is of the type bytes": [b"7", b"8"],
    }
    config = {**CONFIG, "data": {"name": "frame", "target": "y"}}
    for number, (text, values) in enumerate(refused.items()):
        with pytest.raises(DataError, match=re.escape(text)) as caught:
            mlp_lightning.train(config, tmp_path / str(number), frame=frame(values))
        assert "binary" not in str(caught.value)
        left_out = {**config, "data": {**config["data"], "columns": {"o": {"kind": "ignored"}}}}
        mlp_lightning.train(left_out, tmp_path / f"without {number}", frame=frame(values))
    for name, values in (("texts", ["left", None]), ("decimals", [decimal.Decimal("1.5"), decimal.Decimal(7)])):
        result = mlp_lightning.train(config, tmp_path / name, frame=frame(values))
        kinds = {one.name: one.kind for one in load_model(result.run_dir / "checkpoints" / "last.ckpt").columns}
        assert kinds["o"] == {"texts": "categorical", "decimals": "numeric"}[name]


def test_options_of_text_files_beside_a_frame(tmp_path: Path) -> None:
    config = {**CONFIG, "data": {"name": "frame", "target": "y", "csv": {"decimal": ",", "null_values": ["?"]}}}
    with pytest.raises(ConfigError) as caught:
        mlp_lightning.train(config, tmp_path / "run", frame=mixed_table(20))
    assert {one.key: one.value for one in caught.value.faults} == {
        "data.csv.decimal": ",",
        "data.csv.null_values": ["?"],
    }


def test_weights_with_thousands_of_a_split(tmp_path) -> None:
    """``evaluate split=`` reads the weights as the training did."""
    table = mixed_table(60)
    count = np.arange(60) * 211 + 900
    for name, values in (("number", count), ("text", [f"{one:,}" for one in count])):
        pyarrow.csv.write_csv(table.append_column("count", pa.array(values)), tmp_path / f"{name}.csv")
    found = []
    for name in ("number", "text"):
        config = with_data(path=str(tmp_path / f"{name}.csv"), weight_column="count")
        result = mlp_lightning.train(config, tmp_path / name)
        found.append(
            evaluate(result.run_dir / "checkpoints" / "last.ckpt", tmp_path / f"{name}-metrics", split="val").metrics
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "polars"])
def test_frames_are_evaluated_and_predicted_as_files(tmp_path, library: str) -> None:
    table = mixed_table(50)
    checkpoint_path = mlp_lightning.train(CONFIG, tmp_path / "run", frame=table).run_dir / "checkpoints" / "last.ckpt"
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    frame: Any = table
    if library == "pandas":
        frame = pandas_frame(table).assign(further=[[1, 2], "x"] * 25)  # no column that the model sees
    elif library == "polars":
        frame = pytest.importorskip("polars").from_arrow(table)
    files = evaluate(checkpoint_path, tmp_path / "a", str(tmp_path / "rows.parquet"))
    frames = evaluate(checkpoint_path, tmp_path / "b", frame=frame)
    assert frames.metrics == files.metrics
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["split"] is None
    predict(checkpoint_path, str(tmp_path / "rows.parquet"), tmp_path / "file.parquet", id_columns=["town", "number"])
    predict(checkpoint_path, output=tmp_path / "frame.parquet", frame=frame, id_columns=["town", "number"])
    by_file, by_frame = (pyarrow.parquet.read_table(tmp_path / f"{one}.parquet") for one in ("file", "frame"))
    assert by_frame.column_names == by_file.column_names
    assert by_frame.to_pydict() == by_file.to_pydict()


def test_what_contradicts_a_frame_to_evaluate_or_predict(tmp_path) -> None:
    table, there = mixed_table(20), str(tmp_path / "rows.csv")
    for call in (
        lambda: evaluate("never read", tmp_path / "a", there, frame=table),
        lambda: predict("never read", there, tmp_path / "p.csv", frame=table),
    ):
        with pytest.raises(ConfigError, match=r"data\.path = .*contradicts frame, which has the rows"):
            call()
    with pytest.raises(ConfigError, match=r"output = None is missing"):
        predict("never read", there)


def test_folds_of_a_frame_and_of_a_function(tmp_path) -> None:
    table = mixed_table(60)
    config = with_data(cv={"folds": 3}, val_fraction=0.0)
    by_frame = mlp_lightning.cross_validate(config, tmp_path / "frame", frame=table)
    returns = with_data(cv={"folds": 3}, val_fraction=0.0, _target_=lambda: table)
    by_function = mlp_lightning.cross_validate(returns, tmp_path / "function")
    assert by_frame.metrics == by_function.metrics
    with pytest.raises(ConfigError, match=r"model\.activation = .* is imported for every fold"):
        mlp_lightning.cross_validate({**config, "model": {"activation": torch.nn.Mish}}, tmp_path / "m", frame=table)


def test_a_function_has_no_effect_beside_rows(tmp_path) -> None:
    def load() -> pa.Table:
        raise AssertionError("it is not asked for")

    data = IrisDataModule()
    data.setup()
    with pytest.raises(ConfigError, match=r"data\._target_ = .*load' contradicts data, which has the rows"):
        mlp_lightning.train(with_data(_target_=load), tmp_path / "run", data=data)
