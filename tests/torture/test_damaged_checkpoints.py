"""Damaged files: refused, or read as they were written; what else there is takes their place, and it is said."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.configurations import ComposeConfig
from support.plain import plain

import mlp_lightning
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs import train_stack, training
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.stack_checkpoints import SavedStack, save_stack

SMALL = ["data=xor", "model.hidden_units=3", "model.depth=1", "optimizer=adam", "logger.graph=false"]
SMALL += ["trainer.threads=1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, compose_config: ComposeConfig) -> bytes:
    run = tmp_path_factory.mktemp("whole") / "run"
    result = mlp_lightning.train(compose_config(*SMALL, "trainer.max_steps=5"), run)
    return (result.run_dir / "checkpoints" / "last.ckpt").read_bytes()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, compose_config: ComposeConfig) -> bytes:
    folder, kept = tmp_path_factory.mktemp("stack"), []

    def save(path: Path, content: Any) -> None:
        save_stack(path, content)
        kept.append(path.read_bytes())

    case = [*SMALL, "trainer.max_steps=8", "trainer.steps_per_execution=4", "callbacks.checkpoint.every_n_seconds=0"]
    configs = [compose_config(*case, f"seed={seed}") for seed in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save_stack", save)
        train_stack(configs, [folder / "0", folder / "1"], checkpoint=folder / "a.stack")
    return kept[0]


def of_stack(path: Path) -> Any:
    return SavedStack.read(path).content


READERS: dict[str, Callable[[Path], Any]] = {"checkpoint": read_checkpoint, "stack": of_stack}


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_flipped_bits(kind: str, tmp_path: Path, request: pytest.FixtureRequest, torture: int) -> None:
    whole, read, path = request.getfixturevalue(kind), READERS[kind], tmp_path / "file"
    path.write_bytes(whole)
    expected, generator, counts = plain(read(path)), random.Random(kind), {"refused": 0, "the same": 0}
    for _ in range(500 * torture):
        bit = generator.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            content = read(path)
        except CheckpointError:
            counts["refused"] += 1
        else:
            assert plain(content) == expected, bit
            counts["the same"] += 1
    # The rest lies between the members of the archive.
    assert counts["refused"] > 0.7 * sum(counts.values()), counts


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_truncated(kind: str, tmp_path: Path, request: pytest.FixtureRequest, torture: int) -> None:
    whole, read, path = request.getfixturevalue(kind), READERS[kind], tmp_path / "file"
    lengths = {*range(0, len(whole), max(1, 200 // torture)), *range(len(whole) - 60, len(whole))}
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read(path)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    content[len(content) // 3] ^= 4
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def test_last_falls_back_to_what_is_intact(
    tmp_path: Path, compose_config: ComposeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    case = ["data=iris", "data.batch_size=16", "logger.graph=false", "trainer.threads=1", "optimizer=adam"]
    more = [*case, "trainer.max_steps=24", "ckpt_path=last"]
    runs = [mlp_lightning.train(compose_config(*case, f"trainer.max_steps={n}"), tmp_path / f"{n}") for n in (6, 13)]
    files = [runs[1].run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
    files.append(runs[0].run_dir / "checkpoints" / "last.ckpt")
    whole = mlp_lightning.train(compose_config(*case, "trainer.max_steps=24"), tmp_path / "whole" / "run")
    for number, (broken, intact) in enumerate([(files[0], files[1]), (files[1], files[2])]):
        damage(broken)
        folder = tmp_path / f"resumed{number}"
        result = mlp_lightning.train(compose_config(*more), folder)
        said = capsys.readouterr().err
        assert f"{broken} cannot be read as a checkpoint: the file is damaged" in said
        assert f"Continuing from {intact}." in said
        assert (result.resumed_from, result.metrics) == (str(intact), whole.metrics)
        folder.rename(tmp_path / "whole" / f"{number}")
    damage(files[2])
    damage(runs[0].run_dir / "checkpoints" / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"no run in .* has a last\.ckpt that is intact"):
        mlp_lightning.train(compose_config(*more), tmp_path / "none")
    assert not (tmp_path / "none").exists()


# 6 steps an epoch: the last checkpoint is of the step of the best, or of a later one.
@pytest.mark.parametrize(("steps", "kind"), [(12, "damaged"), (15, "damaged"), (15, "missing"), (12, "missing")])
def test_a_lost_best_is_counted_again(
    steps: int, kind: str, tmp_path: Path, compose_config: ComposeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    case = ["data=iris", "data.batch_size=16", "logger.graph=false", "trainer.threads=1", "optimizer=adam"]
    case += ["report_weights=auto"]
    end = "trainer.max_steps=30"
    whole = mlp_lightning.train(compose_config(*case, end), tmp_path / "whole")
    first = mlp_lightning.train(compose_config(*case, f"trainer.max_steps={steps}"), tmp_path / "first")
    last, best = (first.run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    assert first.best is not None
    assert first.best["step"] == 12
    if kind == "missing":
        best.unlink()
    else:
        damage(best)
    capsys.readouterr()
    result = mlp_lightning.train(compose_config(*case, end, f"ckpt_path={last}"), tmp_path / "resumed")
    said = capsys.readouterr().err
    if steps == 12:  # its weights are those of the last checkpoint
        assert not said
    else:
        assert f"The best weights, of step 12, are lost, and the best is counted again from step {steps} on: " in said
        assert (f"{best} cannot be read" if kind == "damaged" else f"there is none in {best.parent}.") in said
    assert (result.metrics, result.best) == (whole.metrics, whole.best)
    for name in ("last", "best"):
        contents = [read_checkpoint(one.run_dir / "checkpoints" / f"{name}.ckpt") for one in (result, whole)]
        assert plain(contents[0]["state_dict"]) == plain(contents[1]["state_dict"])
    # A run that has no later best has none: nothing is reported that cannot be loaded.
    ending = ["trainer.max_steps=17", f"ckpt_path={last}"]
    short = mlp_lightning.train(compose_config(*case, *ending), tmp_path / "short")
    best = short.run_dir / "checkpoints" / "best.ckpt"
    assert best.is_file() == (short.best is not None) == (steps == 12)
    recorded = json.loads((short.run_dir / "result.json").read_text())
    assert (recorded["best"], recorded["weights"]) == ((None, "last") if steps > 12 else (first.best, "best"))


@pytest.mark.posix
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("loop", "is a symbolic link that leads back to itself"),
        ("pipe", "is a pipe, and not a file"),
        ("folder", r"is a folder \(its last checkpoint is .*last\.ckpt\)"),
        ("device", "is a device or a socket, and not a file"),
        ("secret", r"may not be read by this user \(permission denied\)"),
        ("nothing", "there is no file"),
    ],
)
def test_paths_that_are_no_files(
    kind: str, message: str, tmp_path: Path, compose_config: ComposeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "checkpoints").mkdir(parents=True)
        (path / "checkpoints" / "last.ckpt").touch()
    elif kind == "secret":
        path.touch(mode=0)
        if os.geteuid() == 0:  # may read everything
            monkeypatch.setattr(Path, "open", _denied)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
    monkeypatch.undo()
    if kind == "folder":  # training continues from the last checkpoint of a run folder
        (path / "checkpoints" / "last.ckpt").unlink()
        message = "is a folder"
    if kind != "secret":
        with pytest.raises(CheckpointError, match=message):
            mlp_lightning.train(compose_config(*SMALL, f"ckpt_path={path}"), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def _denied(path: Path, *_: Any) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_killed_write_is_removed_once_its_process_is_dead(tmp_path: Path, compose_config: ComposeConfig) -> None:
    case = [*SMALL, "trainer.max_steps=9"]
    first = mlp_lightning.train(compose_config(*case, "trainer.max_steps=4"), tmp_path / "first")
    folder = first.run_dir / "checkpoints"
    with atomic_write(folder / "last.ckpt") as own:
        (living,) = folder.glob("*.tmp")
        own.write((folder / "best.ckpt").read_bytes())
        process = str(os.getpid())
        assert f".{process}." in living.name
        dead = living.with_name(living.name.replace(f".{process}.", ".999999999."))
        elsewhere = living.with_name(f".last.ckpt.other-host.{process}.abc.tmp")
        old = living.with_name(".last.ckpt.abcdefgh.tmp")
        for one in (dead, elsewhere, old):
            one.write_bytes(b"half")
        os.utime(old, (0, 0))
        mlp_lightning.train(compose_config(*case, f"ckpt_path={folder / 'best.ckpt'}"), tmp_path / "second")
        assert {*folder.glob("*.tmp")} == {living, elsewhere}
