"""The data set of docs/own_parts.md, from the command line, from Python and in a sweep."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from my_package.data import load_tides
from support.own_page import PAGE, command, of_page
from support.tolerances import assert_same_state

from mlp_lightning import cross_validate, train
from mlp_lightning.config import parse_config
from mlp_lightning.config.overrides import check_overrides
from mlp_lightning.errors import CheckpointError, ConfigError, DataError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.export.formats import export_model
from mlp_lightning.inference.predict import predict
from mlp_lightning.runs.build import build_data

LOAD = "my_package.data.load_tides"
FUNCTIONS = "support.own_data"


def config(target: Any = LOAD, **data: Any) -> dict[str, Any]:
    return {
        "data": {"_target_": target, "target": "height", **data},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "allow_targets": ["my_package", "support"],
        "verbosity": 0,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(hours=200), tmp_path_factory.mktemp("data") / "run").run_dir


def test_command_of_the_page(tmp_path: Path) -> None:
    done = command("train.py", *of_page("A data set"), "hydra.run.dir=run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"on {LOAD} (280 train, 60 val, 60 test rows)" in done.stdout
    refused = command("evaluate.py", "ckpt_path=run", "split=test", folder=tmp_path)
    assert refused.returncode == 2
    assert f"data._target_ = '{LOAD}' is not imported" in refused.stderr
    assert "add allow_targets=[my_package]" in refused.stderr
    evaluated = command("evaluate.py", "ckpt_path=run", "split=test", "allow_targets=[my_package]", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"60 test rows of {LOAD}" in evaluated.stdout
    trained = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["metrics"]["test"]
    found = json.loads((tmp_path / "run" / "evaluation" / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert found["metrics"]["mae"] == pytest.approx(trained["mae"], rel=1e-5)


def test_sweep_of_the_page_is_stacked(tmp_path: Path) -> None:
    part = PAGE[PAGE.index("A data set of your own is no reason") :]
    line = part[part.index("python scripts/") :].split("\n\n")[0].replace("\\\n", " ")
    words = [*shlex.split(line)[2:], "sweep.name=s"]

    def sweep(*more: str) -> subprocess.CompletedProcess[str]:
        return command("train.py", *words, *more, folder=tmp_path)

    done = sweep()
    assert done.returncode == 0, done.stdout + done.stderr
    results = sorted((tmp_path / "lightning_logs" / "table" / "s").glob("*/result.json"))
    assert [json.loads(one.read_text(encoding="utf-8"))["engine"] for one in results] == ["stacked"] * 4
    # Other arguments are other rows, which are ranked apart.
    for hours in (200, 400):
        assert f"Leaderboard of {LOAD}, arguments={{hours:{hours}}}" in done.stdout
    again = sweep("sweep.resume=true", "seed=0,1")
    assert again.returncode == 0, again.stdout + again.stderr  # the rows of the runs before are compared


def test_the_rows_are_those_of_the_function() -> None:
    data = build_data(parse_config(config(hours=50, val_fraction=0.0, test_fraction=0.0, scaling="none")))
    expected = load_tides(50)
    rows = data.splits["train"]
    assert data.table_name == LOAD
    np.testing.assert_allclose(rows.features_BF[:, 2].numpy(), expected["wind"], rtol=1e-6)


def test_function_as_object_gives_the_bits_of_its_path(run: Path, tmp_path: Path) -> None:
    asked = config(load_tides, hours=200)
    del asked["allow_targets"]
    given, named = train(asked, tmp_path / "a"), train(config(hours=200), tmp_path / "b")
    assert_same_state(given.module.state_dict(), named.module.state_dict())
    kept = (given.run_dir / "config.yaml").read_text(encoding="utf-8")
    assert kept == (run / "config.yaml").read_text(encoding="utf-8")
    assert {"_target_": LOAD, "hours": 200, "name": "table"}.items() <= yaml.safe_load(kept)["data"].items()


def test_only_the_own_rows_of_a_model_need_the_function(run: Path, tmp_path: Path) -> None:
    path, table = run / "checkpoints" / "best.ckpt", tmp_path / "new.csv"
    load_tides(30).to_csv(table, index=False)
    evaluate(path, tmp_path / "evaluation", str(table))
    predict(path, str(table), tmp_path / "predicted.csv")
    export_model(path, "safetensors", tmp_path / "exported")
    with pytest.raises(ConfigError, match=r"data\._target_ = .* is not imported"):
        evaluate(path, tmp_path / "evaluation", split="val")
    evaluate(path, tmp_path / "evaluation", split="val", allow_targets=["my_package"])


def test_changed_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(config(f"{FUNCTIONS}.growing"), tmp_path / "run").run_dir
    path = run / "checkpoints" / "last.ckpt"
    evaluate(path, tmp_path / "before", split="train", allow_targets=["support"])
    monkeypatch.setattr("support.own_data.ROWS", 41)
    with pytest.raises(CheckpointError, match=r"was trained on other rows than support\.own_data\.growing has now"):
        evaluate(path, tmp_path / "after", split="train", allow_targets=["support"])


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_frames_of_every_library(kind: str) -> None:
    if kind == "polars":
        pytest.importorskip("polars")
    data = build_data(parse_config(config(f"{FUNCTIONS}.frame", kind=kind)))
    assert sum(len(one) for one in data.splits.values()) == 40


def test_folds(tmp_path: Path) -> None:
    assert cross_validate(config(hours=100, cv={"folds": 2}), tmp_path / "cv").status == "finished"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"hour": 3}, r"failed with the arguments \{'hour': 3\} \(TypeError: .*hour"),
        ({"harbour": "pond"}, r"failed with the arguments .*KeyError"),
        ({"_target_": "my_package.data.load_tide"}, r"did you mean my_package\.data\.load_tides\?"),
        ({"_target_": "my_package.parts.Path"}, r"is defined in pathlib, which is not in allow_targets"),
        ({"_target_": "my_package.data.__doc__"}, r"must be the import path of a class or function"),
        ({"_target_": f"{FUNCTIONS}.ROWS"}, r"must be a function"),
        ({"_target_": "os.listdir"}, r"is not imported: its module is not in allow_targets"),
        ({"_target_": None}, r"data\._target_ = None is missing; name the function"),
        ({"path": "x.csv"}, r"data\.path = 'x.csv' contradicts data\._target_"),
        ({"name": "moons"}, r"contradicts data\.name = 'moons'; choose data=table"),
        ({"target": None}, r"data\.target = None is missing"),
        ({"samples": 1000}, r"data\.samples = 1000 is an option of our synthetic data sets"),
        ({"csv": {"decimal": ","}}, r"data\.csv\.decimal = .*has no effect: data\._target_ = .* brings its own rows"),
        ({"hours": {"_target_": "os.listdir"}}, r"data\.hours\._target_ = 'os.listdir' is not an argument"),
    ],
)
def test_faults(data: dict[str, Any], message: str) -> None:
    asked = config()
    asked["data"] |= data
    with pytest.raises(ConfigError, match=message):
        build_data(parse_config(asked))


def test_what_is_no_frame_and_a_frame_beside_a_function(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"what support\.own_data\.no_frame returns is a list, and must be a data f"):
        build_data(parse_config(config(f"{FUNCTIONS}.no_frame")))
    with pytest.raises(ConfigError, match=r"data\._target_ = .* contradicts frame"):
        train(config(), tmp_path / "run", frame=load_tides(20))


def test_both_doors_ask_for_the_same() -> None:
    words = ["data=table", f"data._target_={LOAD}", "data.target=height", "data.hours=20", "allow_targets=[my_package]"]
    asked = {"data": {"_target_": LOAD, "target": "height", "hours": 20}, "allow_targets": ["my_package"]}
    assert check_overrides(words) == parse_config(asked)
