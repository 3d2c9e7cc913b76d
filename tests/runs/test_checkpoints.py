"""Checkpoints are written whole or not at all, hold only plain data, and match their names."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

import mlp_lightning
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs import checkpoints, writer
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.files import atomic_write

MINI_BATCHES = ["data=iris", "data.batch_size=16", "optimizer=adam"]


def test_file_appears_only_when_complete(tmp_path) -> None:
    target = tmp_path / "file"
    with atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file(tmp_path, failure) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_write(target) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_temporary_file_is_in_the_folder_of_its_target_and_reaches_the_disk(tmp_path, monkeypatch) -> None:
    synced: list[Path] = []
    folder = tmp_path / "folder"

    def watched(handle: int, sync=os.fsync) -> None:
        synced.extend(one for one in (folder, *folder.iterdir()) if os.path.samestat(one.stat(), os.fstat(handle)))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with atomic_write(folder / "file") as file:
        file.write(b"content")
    # The file before its rename, then the folder, which holds the name (Windows cannot sync a folder).
    assert [one.parent for one in synced] == ([folder, tmp_path] if os.name == "posix" else [folder])
    assert synced[0].name.startswith(".file.")


def test_checkpoints_hold_only_plain_data(tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, "callbacks=early_stopping", "scheduler=plateau", "trainer.max_epochs=3", "model.norm=batch"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "run")
    for name in ("last", "best"):
        content = torch.load(result.run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "config"} <= content.keys()
        assert content["config"] == compose_config(*case).to_dict()


def test_module_can_be_loaded_from_its_checkpoint_alone(tmp_path, compose_config) -> None:
    result = mlp_lightning.train(compose_config(*MINI_BATCHES, "trainer.max_epochs=5"), tmp_path / "run")
    loaded = mlp_lightning.MLPModule.load_from_checkpoint(
        result.run_dir / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True
    )
    rows = torch.tensor([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
    assert result.module is not None
    assert torch.equal(loaded.eval()(rows), result.module.eval()(rows))
    # Raw centimetres go in: the first flower is a setosa, the second a virginica.
    assert loaded(rows).argmax(1).tolist() == [0, 2]


def test_best_is_the_best_validation(tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, "optimizer.lr=0.3", "trainer.max_epochs=12"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "last")
    table = [line.split(",") for line in (result.run_dir / "metrics.csv").read_text().splitlines()]
    column = table[0].index("loss/val")
    losses = {int(row[0]): float(row[column]) for row in table[1:] if row[column]}
    step = min(losses, key=lambda one: (losses[one], one))
    assert step < result.steps, "this case needs its best before its end"
    assert result.best == {"monitor": "loss/val", "value": pytest.approx(losses[step]), "step": step}
    reported = mlp_lightning.train(compose_config(*case, "report_weights=best"), tmp_path / "best")
    assert reported.weights == "best"
    assert reported.metrics["val"]["loss"] == pytest.approx(losses[step], rel=1e-6)
    assert reported.metrics["val"]["loss"] < result.metrics["val"]["loss"]


@pytest.mark.parametrize("every_n_steps", ["null", "1"])
def test_best_training_loss_is_that_of_the_weights_in_the_file(every_n_steps, tmp_path, compose_config) -> None:
    """The first step of this run throws the loss from 1.2 to 50; no step's loss is that of the weights after it."""
    case = ["experiment=iris_hidden_units", "model.hidden_units=1000", "trainer.max_epochs=6", "report_weights=best"]
    config = compose_config(*case, f"callbacks.checkpoint.every_n_steps={every_n_steps}")
    result = mlp_lightning.train(config, tmp_path / "run")
    assert result.best is not None
    assert result.best["monitor"] == "loss/train"
    assert result.metrics["train"]["loss"] == pytest.approx(result.best["value"], rel=1e-6)


def test_accuracy_is_best_when_highest(tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, "callbacks.checkpoint.monitor=accuracy/val", "trainer.max_epochs=8"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "run")
    table = [line.split(",") for line in (result.run_dir / "metrics.csv").read_text().splitlines()]
    column = table[0].index("accuracy/val")
    assert result.best is not None
    assert result.best["value"] == pytest.approx(max(float(row[column]) for row in table[1:] if row[column]))


def test_no_checkpoints(tmp_path, compose_config) -> None:
    result = mlp_lightning.train(compose_config("callbacks=none", "trainer.max_steps=5"), tmp_path / "run")
    assert not (result.run_dir / "checkpoints").exists()
    assert result.best is None


def test_time_also_saves(tmp_path, compose_config, monkeypatch) -> None:
    saved: list[int] = []
    write = checkpoints.write_checkpoint
    for module in (checkpoints, writer):
        monkeypatch.setattr(
            module,
            "write_checkpoint",
            lambda path, content: (saved.append(content["global_step"]), write(path, content)),
        )
    case = ["trainer.max_steps=30", "trainer.steps_per_execution=10", "callbacks.checkpoint.every_n_seconds=0"]
    mlp_lightning.train(compose_config(*case), tmp_path / "run")
    assert saved == [1, 10, 20, 30, 30]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint", "cannot be read as a checkpoint"),
        (b"", "cannot be read as a checkpoint"),
        (pickle.dumps(os.system), "cannot be read as a checkpoint"),
        ({"state_dict": {}}, "is not a checkpoint of a training run"),
        (None, "there is no file"),
    ],
)
def test_files_that_are_not_checkpoints_are_refused(content, message, tmp_path) -> None:
    path = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": {}, "config": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="not opened for safety"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_truncated_checkpoint_is_refused(tmp_path, compose_config) -> None:
    result = mlp_lightning.train(compose_config("trainer.max_steps=5"), tmp_path / "run")
    whole = (result.run_dir / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        mlp_lightning.train(
            compose_config("trainer.max_steps=9", f"ckpt_path={tmp_path}/cut.ckpt"), tmp_path / "second"
        )
