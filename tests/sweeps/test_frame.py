"""A sweep as a data frame."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pandas
import polars
import pyarrow
import pytest
from support.leaderboard_records import above, failed, run, write_run

from mlp_lightning import load_sweep, train
from mlp_lightning.errors import RunFolderError


def test_one_row_for_every_run(tmp_path: Path) -> None:
    records = [run(0, 0.25, 0.5, model__hidden_units=5), run(1, 0.125, 0.75, model__hidden_units=7)]
    for record in (*records, failed(2, "nan", model__hidden_units=9)):
        write_run(tmp_path, record)
    frame = load_sweep(tmp_path / "sweep")
    assert isinstance(frame, pandas.DataFrame)
    assert frame["run"].tolist() == [0, 1, 2]
    assert frame["sweep"].tolist() == ["sweep"] * 3
    assert frame["model.hidden_units"].tolist() == [5, 7, 9]
    assert frame["loss/val"].tolist()[:2] == [0.5, 0.75]
    assert frame["loss/val"].isna().tolist() == [False, False, True]
    assert frame["status"].tolist() == ["finished", "finished", "failed"]
    assert frame["error"][2] == "nan"
    assert frame["folder"][1] == str(tmp_path / "sweep" / "1")
    polars_frame = load_sweep(tmp_path / "sweep", library="polars")
    assert isinstance(polars_frame, polars.DataFrame)
    assert polars_frame["model.hidden_units"].to_list() == [5, 7, 9]
    table = load_sweep(tmp_path / "sweep", library="pyarrow")
    assert isinstance(table, pyarrow.Table)
    assert table.column_names == list(frame.columns) == polars_frame.columns


def test_options_of_several_types_are_as_in_overrides(tmp_path: Path) -> None:
    for number, width in enumerate((5, [32, 16], None)):
        write_run(tmp_path, run(number, model__hidden_units=width, optimizer__lr=(1, 0.5, None)[number]))
    frame = load_sweep(tmp_path, library="pyarrow")
    assert frame["model.hidden_units"].to_pylist() == ["5", "[32,16]", None]
    assert frame["optimizer.lr"].to_pylist() == [1.0, 0.5, None]


def test_baselines_are_beside_the_metrics(tmp_path: Path) -> None:
    for record in (above(run(0), train=0.75, val=0.875), run(1), failed(2)):
        write_run(tmp_path, record)
    frame = load_sweep(tmp_path, library="pyarrow")
    assert frame["baseline/loss/train"].to_pylist() == [0.75, None, None]
    assert frame["baseline/loss/val"].to_pylist() == [0.875, None, None]


def test_several_sweeps(tmp_path: Path) -> None:
    for sweep in ("a", "b"):
        write_run(tmp_path, run(0, sweep=sweep, seed=3))
    frame = load_sweep(tmp_path / "a", tmp_path / "b")
    assert frame["sweep"].tolist() == ["a", "b"]


def test_curves(tmp_path: Path) -> None:
    for seed in (3, 4):
        config = {
            "seed": seed,
            "data": {"name": "iris", "val_fraction": 0.2},
            "trainer": {"max_epochs": 6, "log_every_n_steps": 2},
            "verbosity": 0,
        }
        train(config, tmp_path / str(seed))
    frame = load_sweep(tmp_path, curves=True)
    for seed in (3, 4):
        with (tmp_path / str(seed) / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        own = frame[frame["seed"] == seed]
        assert own["step"].tolist() == [int(row["step"]) for row in rows]
        assert own["loss/train"].dropna().tolist() == [float(row["loss/train"]) for row in rows if row["loss/train"]]
        assert own["loss/val"].dropna().tolist() == [float(row["loss/val"]) for row in rows if row["loss/val"]]


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFolderError, match="There is no run"):
        load_sweep(tmp_path)
    write_run(tmp_path, run(0))
    with pytest.raises(ValueError, match="must be pandas, polars or pyarrow"):
        load_sweep(tmp_path, library="dask")  # type: ignore[arg-type]  # that is the fault
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars, or use"):
        load_sweep(tmp_path, library="polars")
    assert load_sweep(tmp_path, library="pyarrow").num_rows == 1
