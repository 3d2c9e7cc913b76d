"""Tables, checkpoints and accelerators that are not there are reported with all other faults; nothing is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import ROOT, environment

from mlp_lightning import cross_validate, train
from mlp_lightning.commands.resources import missing_device, missing_tables
from mlp_lightning.errors import DeviceError

HAS_GPU = torch.cuda.is_available() or torch.backends.mps.is_available()


def run(folder: Path, script: str, *words: str) -> list[str]:
    """The faults that a command reports, by their keys, in order; it ends with exit code 2 and leaves nothing."""
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert sorted(folder.rglob("*")) == before
    return [line.strip() for line in done.stderr.splitlines()[1:]]


def keys(faults: list[str]) -> list[str]:
    return sorted(one.split(" = ")[0] for one in faults)


@pytest.mark.slow
def test_tables_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "flowers.csv").write_text("a,b\n1,2\n")
    words = ["data=table", "data.path=flower.csv", "data.test_path=none/*.csv", "data.target=b", "optimizer.lr=-1"]
    faults = run(tmp_path, "train.py", *words)
    assert keys(faults) == ["data.path", "data.test_path", "optimizer.lr"]
    said = next(one for one in faults if one.startswith("data.path"))
    assert said.startswith("data.path = 'flower.csv' does not exist: there is no 'flower.csv' in ")
    assert "did you mean" in said
    assert "flowers.csv" in said
    swept = run(tmp_path, "train.py", "-m", "data=table", "data.path=flowers.csv,rows.csv", "data.target=b", "seed=1,x")
    assert keys(swept) == ["data.path", "seed"]


@pytest.mark.slow
def test_tables_and_models_that_are_not_there(tmp_path: Path) -> None:
    words = ["data.path=rows.parquet", "ckpt_path=a.ckpt", "verbosity=x"]
    assert keys(run(tmp_path, "evaluate.py", *words)) == ["ckpt_path", "data.path", "verbosity"]
    assert keys(run(tmp_path, "predict.py", *words)) == ["ckpt_path", "data.path", "output", "verbosity"]
    assert keys(run(tmp_path, "export.py", "ckpt_path=a.ckpt", "format=x")) == ["ckpt_path", "format"]


@pytest.mark.slow
@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_an_accelerator_that_is_not_there(tmp_path: Path) -> None:
    for script, *words in (
        ("train.py", "data=iris", "trainer=gpu"),
        ("train.py", "-m", "data=iris", "trainer.accelerator=cpu,mps", "trainer.max_steps=3"),
        ("train.py", "data=iris", "data.cv.folds=3", "trainer.accelerator=gpu"),
    ):
        (said,) = run(tmp_path, script, *words)
        assert said.startswith("trainer.accelerator = ")
        assert said.endswith("torch finds none on this machine; use trainer.accelerator=auto to take what it has")
    assert keys(run(tmp_path, "evaluate.py", "ckpt_path=a.ckpt", "accelerator=gpu")) == ["accelerator", "ckpt_path"]


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "mps"])
def test_python_leaves_nothing_either(accelerator: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"data": {"name": "iris"}, "trainer": {"accelerator": accelerator}, "verbosity": 0}
    with pytest.raises(DeviceError, match=r"Use trainer\.accelerator=auto"):
        train(config, tmp_path / "run")
    with pytest.raises(DeviceError, match=r"Use trainer\.accelerator=auto"):
        cross_validate({**config, "data": {"name": "iris", "cv": {"folds": 3}}}, tmp_path / "folds")
    assert not list(tmp_path.iterdir())


def test_what_is_not_asked_for(tmp_path: Path) -> None:
    """Standard input and addresses are not read here, and arguments of a function of your own may be anything."""
    for data in ({"path": "-"}, {"path": "s3://rows/x.csv"}, {"path": None}, {"_target_": "a.b", "path": "x"}, "iris"):
        assert missing_tables({"data": data}) == []
    (tmp_path / "x.csv").write_text("a\n1\n")
    assert missing_tables({"data": {"path": str(tmp_path / "*.csv"), "val_path": str(tmp_path)}}) == []
    assert missing_device("accelerator", "auto") == missing_device("accelerator", "cpu") == []
