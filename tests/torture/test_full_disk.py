"""The disk is full from some point on: one message, the right exit code, no half file, and it continues later."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from pathlib import Path

import pytest
from support import run_folders
from support.kill_points import forked
from support.plain import plain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one with threads"),
]

# 6 steps an epoch.
CASE = ["data=iris", "data.batch_size=16", "optimizer=adam", "trainer.max_steps=15", "trainer.threads=1"]
CASE += ["trainer.steps_per_execution=4", "callbacks.checkpoint.every_n_steps=5", "logger.graph=false", "verbosity=0"]
SWEEP = [*CASE, "-m", "seed=1,2,3", "sweep.name=filled", "callbacks.checkpoint.every_n_seconds=0"]
KINDS = {"run": (CASE, "auto_resume=true", 14), "sweep": (SWEEP, "sweep.resume=true", 24)}


def command(folder: Path, *words: str) -> None:
    from mlp_lightning.commands.train import main

    os.chdir(folder)
    sys.argv = ["mlp-train", *words]
    main()


def finished(folder: Path) -> dict[int, object]:
    """What finished runs have measured, by their seeds."""
    found = [run_folders.result(one.parent) for one in folder.glob("lightning_logs/iris/**/result.json")]
    return {one["seed"]: plain(one["metrics"]) for one in found if one["status"] == "finished"}


@pytest.mark.parametrize("kind", KINDS)
def test_full_from_some_point_on(kind: str, tmp_path: Path, torture: int) -> None:
    words, again, interval = KINDS[kind]
    for one in ("hydra.main", "mlp_lightning.commands.train", "mlp_lightning.sweeps.leaderboard.figure"):
        importlib.import_module(one)
    folders = [tmp_path / "whole"]
    folders[0].mkdir()
    code, points = forked(lambda: command(folders[0], *words), folders[0])
    assert code == 0, (tmp_path / "output").read_text()
    whole = finished(folders[0])
    assert len(whole) == (3 if kind == "sweep" else 1)
    for number in range(0, len(points), max(1, interval // torture)):
        folder, where = tmp_path / f"{number}", f"{number} {points[number]}"
        folder.mkdir()
        code, _ = forked(lambda folder=folder: command(folder, *words), folder, full_at=number)
        said = (tmp_path / "output").read_text()
        assert "Traceback" not in said, where + said
        if finished(folder) != whole:
            assert code in (1, 2), where + said
            assert "No space left on device" in said, where + said
        for one in folder.rglob("*.ckpt"):
            assert zipfile.ZipFile(one).testzip() is None, where
        code, _ = forked(lambda folder=folder: command(folder, *words, again), folder)
        assert code == 0, where + (tmp_path / "output").read_text()
        assert finished(folder) == whole, where
