"""What a run writes into its folder, and that no two runs share one."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from support.commands import start

import mlp_lightning
from mlp_lightning.config import parse_config
from mlp_lightning.errors import RunFolderError, TrainingError
from mlp_lightning.runs.run_folder import RunFolder, claim, config_hash, new_run_dir, newest_checkpoint

SHORT = ["data=iris", "trainer.max_epochs=3"]


def test_folder_of_a_finished_run(tmp_path, compose_config) -> None:
    config = compose_config(*SHORT)
    result = mlp_lightning.train(config, tmp_path / "run")
    names = {file.relative_to(result.run_dir).as_posix() for file in result.run_dir.rglob("*") if file.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        "config.yaml",
        "train.log",
        "metrics.csv",
        "result.json",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    assert parse_config(yaml.safe_load((result.run_dir / "config.yaml").read_text())) == config
    written = json.loads((result.run_dir / "result.json").read_text())
    assert written["status"] == "finished"
    assert written["metrics"] == result.metrics
    assert set(written["metrics"]) == {"train", "val", "test"}
    assert written["steps"] == written["epochs"] == 3
    assert written["seed"] == 0
    assert written["config_hash"] == config_hash(config)
    assert {"python", "torch", "lightning", "mlp-lightning"} <= set(written["versions"])
    assert written["wall_time_s"] > written["fit_time_s"] > 0
    assert written["device"] == "cpu"


def test_result_is_the_last_file(tmp_path, compose_config, monkeypatch) -> None:
    seen: list[set[str]] = []
    original = RunFolder.write_result

    def watching(self: RunFolder, content: dict[str, object]) -> None:
        seen.append({file.name for file in self.path.rglob("*")})
        original(self, content)

    monkeypatch.setattr(RunFolder, "write_result", watching)
    result = mlp_lightning.train(compose_config(*SHORT), tmp_path / "run")
    (before,) = seen
    assert {file.name for file in result.run_dir.rglob("*")} - before == {"result.json"}


def test_result_of_a_failed_run(tmp_path, compose_config) -> None:
    with pytest.raises(TrainingError):
        mlp_lightning.train(compose_config("data=xor", "optimizer.lr=0"), tmp_path / "run")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["status"] == "failed"
    assert written["metrics"] == {}
    assert written["error"].startswith("NoParameterChangedError: No parameter changed")
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


def test_unexpected_error_is_recorded_too(tmp_path, compose_config, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("mlp_lightning.runs.progress.ProgressDisplay.on_train_batch_end", broken)
    with pytest.raises(ZeroDivisionError):
        mlp_lightning.train(compose_config(*SHORT), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["error"] == "ZeroDivisionError: surprise"


def test_interruption_that_does_not_wait_is_recorded_as_one(tmp_path, compose_config, monkeypatch) -> None:
    """A second Ctrl-C."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlp_lightning.runs.progress.ProgressDisplay.on_train_batch_end", interrupted)
    with pytest.raises(SystemExit):
        mlp_lightning.train(compose_config(*SHORT), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"


def test_folder_of_another_run_is_refused_and_untouched(tmp_path, compose_config) -> None:
    first = mlp_lightning.train(compose_config(*SHORT), tmp_path / "run")
    before = {file: file.read_bytes() for file in first.run_dir.rglob("*") if file.is_file()}
    with pytest.raises(RunFolderError, match="already belongs to another run"):
        mlp_lightning.train(compose_config(*SHORT), tmp_path / "run")
    assert {file: file.read_bytes() for file in first.run_dir.rglob("*") if file.is_file()} == before


def test_of_many_claims_one_succeeds(tmp_path, compose_config) -> None:
    config = compose_config(*SHORT)
    barrier = threading.Barrier(8)

    def try_to_claim(_: int) -> bool:
        barrier.wait()
        try:
            claim(tmp_path / "run", config)
        except RunFolderError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_to_claim, range(8))) == 1


def test_new_folders_are_all_different(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_dir(tmp_path), range(200)))
    assert len(set(made)) == 200
    assert all(folder.is_dir() for folder in made)


@pytest.mark.slow
def test_two_commands_started_at_once(tmp_path) -> None:
    both = [start("data=xor", "trainer.max_steps=300", "verbosity=0", folder=tmp_path) for _ in range(2)]
    for process in both:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, printed
        assert printed == ""
    runs = list((tmp_path / "lightning_logs" / "xor").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert json.loads((run / "result.json").read_text())["status"] == "finished"
        assert len((run / "metrics.csv").read_text().splitlines()) == 5
        assert (run / ".hydra" / "overrides.yaml").is_file()


def test_hash_depends_on_what_changes_results(compose_config) -> None:
    base = config_hash(compose_config("data=xor"))
    assert base == config_hash(compose_config("data=xor", "name=other", "logger=none", "verbosity=2"))
    assert base != config_hash(compose_config("data=xor", "seed=1"))
    assert base != config_hash(compose_config("data=xor", "model.hidden_units=3"))


def test_newest_checkpoint_is_that_of_the_run_started_last(tmp_path) -> None:
    assert newest_checkpoint([tmp_path], "last") is None
    for age, name in enumerate(("c", "b", "a")):  # a is the newest
        config = tmp_path / name / "config.yaml"
        config.parent.mkdir()
        config.touch()
        os.utime(config, (age, age))
    for name in ("c", "b"):
        file = tmp_path / name / "checkpoints" / "last.ckpt"
        file.parent.mkdir()
        file.touch()
        os.utime(file, (100 if name == "c" else 0,) * 2)
    assert newest_checkpoint([tmp_path], "last") == tmp_path / "b" / "checkpoints" / "last.ckpt"
    assert newest_checkpoint([tmp_path], "best") is None


def test_newest_checkpoint_of_a_finished_run(tmp_path) -> None:
    """A run that still trains, or that failed, may have a best already."""
    for age, (name, status) in enumerate((("a", "finished"), ("b", "finished"), ("c", "failed"), ("d", None))):
        folder = tmp_path / "name" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "best.ckpt").touch()
        (folder / "config.yaml").touch()
        os.utime(folder / "config.yaml", (age, age))
        if status is not None:
            (folder / "result.json").write_text(json.dumps({"status": status}))
    parents = [tmp_path / "name", tmp_path / "nothing"]
    for prefers_finished, expected in ((True, "b"), (False, "d")):
        found = newest_checkpoint(parents, "best", prefers_finished)
        assert found == tmp_path / "name" / expected / "checkpoints" / "best.ckpt"
    for name in "ab":
        (tmp_path / "name" / name / "result.json").write_text("{")
    assert newest_checkpoint(parents, "best", True) == tmp_path / "name" / "d" / "checkpoints" / "best.ckpt"
