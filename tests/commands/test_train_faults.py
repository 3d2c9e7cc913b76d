"""Faults and questions (--help, --cfg): the real command answers without creating files or importing torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import TRAIN, environment


def run(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command in ``folder``, and the top-level packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *TRAIN[1:], *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    imported = re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("import time:"))
    return done, {name.split(".")[0] for name in imported}


def assert_light(folder: Path, imported: set[str]) -> None:
    """Nothing was left in the folder, and torch was not imported."""
    assert list(folder.iterdir()) == []
    assert "hydra" in imported, "the imports were not read"
    assert not imported & {"torch", "lightning"}


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    words = ["model=wid", "data.val_frction=0.1", "optimizer.lr=-1", "trainer.max_steps=0", "seed=true", "name=[1,"]
    done, imported = run(tmp_path, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    title, *lines = done.stderr.splitlines()
    assert title == "The configuration has 6 faults:"
    keys = ["data.val_frction", "model", "name", "optimizer.lr", "seed", "trainer.max_steps"]
    assert sorted(line.split(" = ")[0].strip() for line in lines) == keys
    assert "did you mean wide?" in done.stderr
    assert "did you mean data.val_fraction?" in done.stderr
    assert_light(tmp_path, imported)


def test_options_of_sweeps_have_no_effect_on_a_single_run(tmp_path: Path) -> None:
    done, imported = run(tmp_path, "sweep.name=widths", "sweep.fail_fast=true", "seed=3")
    assert done.returncode == 2
    said = "has no effect: this is a single run; add -m for a sweep, or leave it out"
    assert f"sweep.name = 'widths' {said}" in done.stderr
    assert f"sweep.fail_fast = True {said}" in done.stderr
    assert_light(tmp_path, imported)


def test_fault_in_a_later_run_of_a_sweep_starts_no_run(tmp_path: Path) -> None:
    done, imported = run(tmp_path, "-m", "model=mlp,wide", "model.hidden_units=5,0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "The configuration has a fault:",
        "  model.hidden_units = 0 must be at least 1",
    ]
    assert_light(tmp_path, imported)


@pytest.mark.parametrize(
    ("words", "key", "text"),
    [
        # Hydra would refuse these too, but with a new folder and a traceback or a page of advice.
        (["model.hidden_units=1,2"], "model.hidden_units", "--multirun"),
        (["data=iris", "callbacks.early_stopping.patience=3"], "callbacks.early_stopping.patience", "+callbacks"),
        (["ckpt_path=last"], "ckpt_path", "train one first"),
        (["ckpt_path=nowhere.ckpt"], "ckpt_path", "is not a file"),
        (["-m", "ckpt_path=last", "seed=1,2"], "ckpt_path", "a sweep starts several"),
    ],
    ids=["sweep without -m", "key of a section that is null", "no run yet", "no such file", "checkpoint of a sweep"],
)
def test_wrong_use(words: list[str], key: str, text: str, tmp_path: Path) -> None:
    done, imported = run(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    title, fault = done.stderr.splitlines()
    assert title == "The configuration has a fault:"
    assert fault.startswith(f"  {key} = ")
    assert text in fault
    assert_light(tmp_path, imported)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--help"], "wide, wide_deep"),
        (["--cfg", "job", "model=wide_deep", "data=iris"], "hidden_units: 10"),
        (["--cfg", "job", "--resolve", "optimizer=adam"], "lr: 0.001"),
    ],
    ids=["help", "cfg", "cfg resolved"],
)
def test_questions_are_answered(words: list[str], text: str, tmp_path: Path) -> None:
    done, imported = run(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout
    assert_light(tmp_path, imported)
