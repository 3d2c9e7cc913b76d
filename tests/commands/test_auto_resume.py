"""``auto_resume=true``: the same command again and again, killed between."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
from support.commands import start_forked, train_forked
from support.sweep_folders import assert_same_tables

import mlp_lightning
from mlp_lightning.commands.auto_resume import configuration_lock, earlier_runs, sweep_name
from mlp_lightning.errors import ConfigError, RunFolderError
from mlp_lightning.runs.run_folder import claim

WORDS = ["data=xor", "seed=5", "trainer.max_steps=9000", "trainer.engine=explicit", "trainer.print_every_n_steps=500"]
WORDS += ["callbacks.checkpoint.every_n_steps=500"]
AUTO = [*WORDS, "auto_resume=true"]


def runs(folder: Path, name: str = "xor") -> list[Path]:
    return sorted(one for one in (folder / "lightning_logs" / name).iterdir() if one.is_dir())


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_what_there_is_to_continue(tmp_path, compose_config) -> None:
    config = compose_config("data=iris", "seed=3")
    assert earlier_runs(config, tmp_path) == earlier_runs(config, tmp_path / "none")
    other = claim(tmp_path / "other", dataclasses.replace(config, seed=4))
    other.write_result({"status": "finished"})
    killed = claim(tmp_path / "killed", config)
    assert earlier_runs(config, tmp_path).checkpoint is None
    killed.last_checkpoint.parent.mkdir()
    torch.save({}, killed.last_checkpoint)
    failed = claim(tmp_path / "failed", dataclasses.replace(config, name="called_otherwise"))
    failed.write_result({"status": "failed"})
    found = earlier_runs(config, tmp_path)
    assert (found.finished, found.checkpoint, found.fault) == (None, killed.last_checkpoint, "")
    torch.save({}, killed.best_checkpoint)
    killed.last_checkpoint.write_bytes(killed.last_checkpoint.read_bytes()[:-9])
    found = earlier_runs(config, tmp_path)
    assert found.checkpoint == killed.best_checkpoint
    assert str(killed.last_checkpoint) in found.fault
    killed.write_result({"status": "finished"})
    found = earlier_runs(config, tmp_path)
    assert (found.finished, found.checkpoint) == (killed.path, None)


def test_lock_of_a_configuration(tmp_path, compose_config) -> None:
    config = compose_config("data=xor", "seed=8")
    with configuration_lock(config, tmp_path):
        with (
            pytest.raises(RunFolderError, match="trains exactly this configuration"),
            configuration_lock(config, tmp_path),
        ):
            pass
        with configuration_lock(dataclasses.replace(config, seed=9), tmp_path):
            pass
    with configuration_lock(config, tmp_path):
        pass


def test_name_of_a_sweep_follows_from_its_command(compose_config) -> None:
    config = compose_config("data=xor")
    name = sweep_name(config, ["data=xor", "seed=1,2", "auto_resume=true", "verbosity=0"])
    assert name == sweep_name(config, ["seed=1,2", "data=xor", "++auto_resume=true"])
    assert name != sweep_name(config, ["seed=1,2,3", "data=xor"])
    assert name != sweep_name(dataclasses.replace(config, seed=1), ["seed=1,2", "data=xor"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ckpt_path=last"], "contradicts ckpt_path"),
        (["hydra.run.dir=mine"], "contradicts hydra.run.dir"),
    ],
)
@pytest.mark.slow
def test_contradictions(words, message, tmp_path) -> None:
    done = train_forked("auto_resume=true", *words, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_refused_in_python(tmp_path) -> None:
    with pytest.raises(ConfigError, match="auto_resume = True belongs to the command"):
        mlp_lightning.train({"data": {"name": "xor"}, "auto_resume": True}, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.posix
def test_killed_terminated_finished(tmp_path) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start_forked(*AUTO, folder=tmp_path)
        process.wait_for(r"step +[2-9]\d{3} " if number == signal.SIGKILL else r"step +[4-9]\d{3} ")
        if number == signal.SIGKILL:
            process.send_signal(signal.SIGSTOP)
            second = train_forked(*AUTO, folder=tmp_path)
            assert second.returncode == 1
            assert second.stderr.startswith("Another process trains exactly this configuration")
        process.send_signal(number)
        process.finished(60)
    done = train_forked(*AUTO, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = runs(tmp_path)
    assert not (first / "result.json").exists()
    assert result(second)["status"] == "interrupted"
    for run, earlier in ((second, first), (third, second)):
        assert Path(result(run)["resumed_from"]).resolve() == earlier / "checkpoints" / "last.ckpt"
    assert train_forked(*WORDS, "name=whole", folder=tmp_path).returncode == 0
    assert_same_tables(third / "metrics.csv", runs(tmp_path, "whole")[0] / "metrics.csv")
    again = train_forked(*AUTO, folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith(f"Finished before, nothing to do: {third.relative_to(tmp_path)}")
    assert runs(tmp_path) == [first, second, third]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [[], ["data.cv.folds=2"], ["ensemble.members=2"], ["data.test_path=test.csv", "data.test_fraction=0"]]
)
def test_a_finished_run_and_a_table_that_has_changed(tmp_path, kind) -> None:
    def write(name: str, first: int, rows: int = 40) -> None:
        lines = [
            f"{row * 7 % 11},{'left' if row % 3 else 'right'},{'uv'[row % 2]}" for row in range(first, first + rows)
        ]
        (tmp_path / name).write_text("\n".join(["a,b,y", *lines]) + "\n", encoding="utf-8")

    words = ["data=table", "data.path=t.csv", "data.target=y", "data.val_fraction=0", "trainer.max_epochs=1", *kind]
    words += ["auto_resume=true"] + ([] if kind else ["data.test_fraction=0.25"])
    write("t.csv", 0)
    write("test.csv", 100)
    assert train_forked(*words, folder=tmp_path).returncode == 0
    (run,) = runs(tmp_path, "table")
    (tmp_path / "t.csv").touch()  # the same rows
    same = train_forked(*words, folder=tmp_path)
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout.startswith(f"Finished before, nothing to do: {run.relative_to(tmp_path)}")
    write("test.csv" if "data.test_path=test.csv" in kind else "t.csv", 1)
    other = train_forked(*words, folder=tmp_path)
    assert other.returncode == 2
    of = "in data.test_path, " if "data.test_path=test.csv" in kind else ""
    assert (
        f"{run.relative_to(tmp_path)} has finished, on other rows than t.csv has now: {of}other values" in other.stderr
    )
    assert runs(tmp_path, "table") == [run]


@pytest.mark.slow
def test_sweep_continues(tmp_path) -> None:
    words = ["-m", "data=xor", "seed=1,2", "trainer.max_steps=50", "auto_resume=true"]
    assert train_forked(*words, folder=tmp_path).returncode == 0
    (sweep,) = runs(tmp_path)
    assert sweep.name.startswith("auto-")
    (sweep / "1" / "result.json").unlink()
    done = train_forked(*words[::-1], folder=tmp_path)
    assert done.returncode == 0
    assert "1 done before" in done.stdout
    assert runs(tmp_path) == [sweep]
    assert (sweep / "superseded").is_dir()
    assert "All 2 runs were done before" in train_forked(*words, folder=tmp_path).stdout
