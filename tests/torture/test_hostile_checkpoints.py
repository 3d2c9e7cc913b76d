"""Hostile checkpoints by every way in which one is read: one message, no code run, no memory taken, nothing left."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.configurations import ComposeConfig
from support.hostile_checkpoints import NAMES, write
from support.hostile_commands import ACCEPTED, COMMANDS, REFUSED, command_outcome, limit_memory
from support.kill_points import forked

import mlp_lightning
from mlp_lightning.errors import CheckpointError, ConfigError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.export.formats import export_model
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one with threads")

CASE = ["data=iris", "data.batch_size=16", "optimizer=adam", "model.hidden_units=3", "model.depth=1"]
CASE += ["logger.graph=false", "trainer.threads=1"]
TRAINING = [*CASE, "trainer.max_steps=24"]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory, compose_config: ComposeConfig) -> Path:
    """A real checkpoint in the middle of its run."""
    run = tmp_path_factory.mktemp("genuine") / "run"
    result = mlp_lightning.train(compose_config(*CASE, "trainer.max_steps=12"), run)
    return result.run_dir / "checkpoints" / "last.ckpt"


def table(folder: Path) -> Path:
    path = folder / "flowers.csv"
    names = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm"
    path.write_text(f"{names},species\n5.1,3.5,1.4,0.2,setosa\n6.3,3.3,6.0,2.5,virginica\n")
    return path


def ways(path: Path, folder: Path, compose_config: ComposeConfig) -> Iterator[tuple[str, Callable[[], Any]]]:
    """How a checkpoint is read, each of which writes below ``folder`` alone, if at all."""
    config = compose_config(*CASE, "trainer.max_steps=24", f"ckpt_path={path}")
    yield "train", lambda: mlp_lightning.train(config, folder / "lightning_logs" / "run")
    yield "load_model", lambda: load_model(path)
    yield "load_from_checkpoint", lambda: mlp_lightning.MLPModule.load_from_checkpoint(path)
    yield "evaluate", lambda: evaluate(path, folder / "evaluation")
    yield "predict", lambda: predict(path, str(table(folder.parent)), str(folder / "predictions.csv"))
    yield "export", lambda: export_model(path, "safetensors", folder / "model.safetensors")


def outcome(task: Callable[[], Any]) -> int:
    """The exit code for what a task does under a limit of memory; it prints its message."""
    limit_memory()
    try:
        task()
    except (CheckpointError, ConfigError) as error:
        print(error)
        return REFUSED
    return ACCEPTED


# What only a run that continues comes to use, or looks at the rows for.
USED_BY = {
    "moments of another shape": ("train",),
    "generators too short": ("train",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_way_refuses(
    name: str, genuine: Path, tmp_path: Path, compose_config: ComposeConfig, torture: int
) -> None:
    path, marker = tmp_path / "hostile.ckpt", tmp_path / "ran"
    write(name, genuine, path, marker)
    before = path.stat()
    chosen = list(ways(path, tmp_path / "left", compose_config))
    if torture == 1:  # two of them for each, and all in a long run
        number = NAMES.index(name)
        chosen = [chosen[number % len(chosen)], chosen[(number // 6 + number + 3) % len(chosen)]]
    for way, task in chosen:
        code, _ = forked(lambda task=task: outcome(task), tmp_path / "left")
        said = (tmp_path / "output").read_text()
        accepts = way not in USED_BY.get(name, (way,))
        accepts |= way == "load_from_checkpoint" and code == ACCEPTED  # it reads less
        assert code == (ACCEPTED if accepts else REFUSED), f"{way}: {said}"
        assert "Traceback" not in said, way
        assert len(said) < 3000, way
        assert not marker.exists(), way
        if name in USED_BY:  # what a run found out when it had begun is in its folder
            shutil.rmtree(tmp_path / "left", ignore_errors=True)
        assert not (tmp_path / "left").exists(), way
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_command_refuses(name: str, genuine: Path, tmp_path: Path, torture: int) -> None:
    path, marker, folder = tmp_path / "hostile.ckpt", tmp_path / "ran", tmp_path / "left"
    write(name, genuine, path, marker)
    rows = table(tmp_path)
    folder.mkdir()
    number = NAMES.index(name)
    for command in [list(COMMANDS)[number % len(COMMANDS)]] if torture == 1 else COMMANDS:
        code, _ = forked(lambda command=command: command_outcome(command, path, rows, folder, TRAINING), folder)
        said = (tmp_path / "output").read_text()
        is_used = name not in USED_BY or command == "train"
        assert code == (REFUSED if is_used else ACCEPTED), f"{command}: {said}"
        assert "Traceback" not in said, command
        assert len(said) < 3000, command
        assert not marker.exists(), command
        if is_used:
            assert said.strip(), command
            assert not list(folder.iterdir()), command
        shutil.rmtree(folder)
        folder.mkdir()
