"""Runs that are killed at every point at which they change the disk, and continued: the result is that of one run."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import run_folders
from support.configurations import ComposeConfig
from support.kill_points import KILLED, forked
from support.plain import plain

import mlp_lightning
from mlp_lightning.config import Config
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.packed.resolving import unpacked
from mlp_lightning.runs.run_folder import newest_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one with threads")

# 6 steps an epoch; saved within epochs and at their ends, and the best changes between two of these.
CASE = [
    *("data=iris", "data.batch_size=16", "optimizer=adam", "optimizer.lr=0.03", "model.dropout=0.2"),
    *("trainer.threads=1", "trainer.steps_per_execution=5", "trainer.log_every_n_steps=1", "logger.graph=false"),
    "callbacks.checkpoint.every_n_steps=6",
]
CASES = {
    "ends within an epoch": [*CASE, "trainer.max_steps=20"],
    "the end is saved": [*CASE, "trainer.max_epochs=3", "report_weights=best"],
    "early stopping": [
        *(*CASE, "trainer.max_epochs=9", "callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
        *("callbacks.early_stopping.min_delta=0.2", "callbacks.checkpoint.every_n_steps=6"),
    ],
    "by training loss": [*CASE, "trainer.max_steps=14", "callbacks.checkpoint.monitor=loss/train"],
}
EXHAUSTIVE = "ends within an epoch"  # the others as often in a long run alone


def content(run: Path) -> dict[str, Any]:
    """All that a run leaves but for times, names of machines and what it continued from."""
    read: dict[str, Any] = {"result": {**run_folders.result(run), "resumed_from": None}}
    read["metrics"], read["scalars"] = (run / "metrics.csv").read_text(), run_folders.scalars(run)
    for name in ("last", "best"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        del checkpoint["config"]["ckpt_path"], checkpoint["config"]["sweep"]
        read[name] = checkpoint
    return read


def again(config: Config, folder: Path, number: int) -> None:
    """What the user does: continue the newest run if it can be, else start again."""
    has_one = newest_checkpoint([folder], "last") is not None
    mlp_lightning.train(dataclasses.replace(config, ckpt_path="last" if has_one else None), folder / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_single_run_killed_at_every_point(
    name: str, tmp_path: Path, compose_config: ComposeConfig, torture: int
) -> None:
    config, runs = compose_config(*CASES[name]), tmp_path / "runs"
    mlp_lightning.train(config, tmp_path / "imports")  # once for all processes
    runs.mkdir()
    code, points = forked(lambda: mlp_lightning.train(config, runs / "whole"), runs)
    assert code == 0, (tmp_path / "output").read_text()
    whole = plain(content(runs / "whole"))
    assert whole["result"]["status"] == "finished"
    tried = range(0, len(points), 1 if name == EXHAUSTIVE else max(1, 6 // torture))
    killed, changed = 0, []
    for number in tried:
        point = points[number]
        folder = tmp_path / f"{number}"
        folder.mkdir()
        code, _ = forked(lambda folder=folder: mlp_lightning.train(config, folder / "0"), folder, number)
        killed += code == KILLED
        if (folder / "0" / "result.json").exists():
            continue  # only what comes after the end was lost
        continues = newest_checkpoint([folder], "last") is not None
        code, _ = forked(lambda folder=folder: again(config, folder, 1), folder)
        assert code == 0, f"{number} {point}\n{(tmp_path / 'output').read_text()}"
        now = plain(content(folder / "1"))
        changed += [f"{number} {point}: {key}" for key in whole if now[key] != whole[key]]
        changed += [f"{number} {point}: left {one}" for one in folder.rglob(".*.tmp") if continues]
    assert not changed
    assert killed == len(tried)
    assert len(points) > 30


SWEEP = [
    *("data=iris", "data.batch_size=16", "optimizer=adam", "trainer.max_steps=20", "trainer.steps_per_execution=5"),
    *(
        "trainer.threads=1",
        "trainer.log_every_n_steps=1",
        "logger.graph=false",
        "callbacks.checkpoint.every_n_seconds=0",
    ),
    *("seed=1,2,3", "sweep.name=killed", "verbosity=0"),
]


def command(folder: Path, *words: str) -> None:
    """``mlp-train`` in a folder, in this process."""
    from mlp_lightning.commands.train import main

    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    sys.argv = ["mlp-train", "-m", *words]
    main()


def of_sweep(folder: Path) -> dict[str, Any]:
    """What each run of the sweep has left."""
    runs = [unpacked(folder / "lightning_logs/iris/killed" / str(number)) for number in range(3)]
    return {one.name: plain(content(one)) for one in runs}


# Members that end one after another.
EARLY = [
    *("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=0.09"),
    *("callbacks.checkpoint.every_n_seconds=0", "trainer.max_steps=40"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["sweep.store=folders"], ["sweep.store=packed"], ["sweep.store=packed", *EARLY]], ids=str
)
def test_sweep_killed_at_every_point(
    options: list[str], tmp_path: Path, compose_config: ComposeConfig, torture: int
) -> None:
    """A stack of three runs, by the command, which is given again with ``sweep.resume=true``."""
    sweep = [
        *(one for one in SWEEP if one.partition("=")[0] not in {own.partition("=")[0] for own in options}),
        *options,
    ]
    configs = [compose_config(*SWEEP[:-3], f"seed={seed}") for seed in (1, 2, 3)]
    train_stack(configs, [tmp_path / f"imports{number}" for number in range(3)], checkpoint=tmp_path / "a.stack")
    for one in ("hydra.main", "mlp_lightning.commands.train", "mlp_lightning.sweeps.leaderboard.figure"):
        importlib.import_module(one)
    code, points = forked(lambda: command(tmp_path / "whole", *sweep), tmp_path / "whole")
    assert code == 0, (tmp_path / "output").read_text()
    whole = of_sweep(tmp_path / "whole")
    changed = []
    tried = range(0, len(points), max(1, 12 // torture))
    for number in tried:
        folder, where = tmp_path / f"{number}", f"{number} {points[number]}"
        code, _ = forked(lambda folder=folder: command(folder, *sweep), folder, number)
        assert code == KILLED
        words = [*sweep, "sweep.resume=true"]
        code, _ = forked(lambda folder=folder, words=words: command(folder, *words), folder)
        assert code == 0, f"{where}\n{(tmp_path / 'output').read_text()}"
        now = of_sweep(folder)
        changed += [f"{where}: {run}, {key}" for run in whole for key in whole[run] if now[run][key] != whole[run][key]]
        changed += [f"{where}: left {one}" for kind in ("tmp", "stack", "journal") for one in folder.rglob(f"*.{kind}")]
        alone = (one for one in folder.rglob("*.safetensors") if not one.with_suffix(".parquet").exists())
        changed += [f"{where}: left {one}" for one in alone]
    assert not changed, "\n".join(changed)
    assert len(points) > 40
