"""Folds, ensembles and presets that were killed continue where they were, and end with the same model."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.commands import start_forked, train_forked

from mlp_lightning import cross_validate, train_best
from mlp_lightning.errors import DataError

SMALL = ["data=iris", "trainer.accelerator=cpu", "verbosity=0", "data.batch_size=16", "logger=none"]
SMALL += ["callbacks.checkpoint.every_n_seconds=0", "auto_resume=true", "model.hidden_units=6"]
KINDS = {
    "ensemble": ["ensemble.members=3", "trainer.max_epochs=40"],
    "folds": ["data.cv.folds=3", "trainer.max_epochs=40"],
    "folds of ensembles": ["data.cv.folds=2", "ensemble.members=2", "trainer.max_epochs=40"],
    "best": ["preset=best", "data.cv.folds=3", "preset.candidates=3", "trainer.max_epochs=12", "optimizer=table"],
}


def state(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "lightning_logs" / "iris").glob("*/checkpoints/best.ckpt")
    content = torch.load(file, weights_only=True)
    weights = torch.tensor(content["ensemble"]["weights"] + [content["ensemble"]["temperature"]])
    return {**content["state_dict"], "weights": weights}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, tmp_path: Path) -> None:
    """Again and again, until it finishes."""
    words = [*SMALL, *KINDS[kind]]
    (tmp_path / "whole").mkdir()
    done = train_forked(*words, folder=tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "killed"
    folder.mkdir()
    killed = 0
    for moment in (0.3, 0.7, 1.2, 1.9, 2.8):
        process = start_forked(*words, folder=folder)
        try:
            deadline = time.monotonic() + 60
            while not list(folder.rglob("train.log")) and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moment / 3)
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            killed += 1
        finally:
            process.kill()
    done = train_forked(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    assert killed
    assert len(list((folder / "lightning_logs" / "iris").iterdir())) <= 2  # the run, and the lock of auto_resume
    expected, found = state(tmp_path / "whole"), state(folder)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    again = train_forked(*words, "verbosity=1", folder=folder)
    assert again.returncode == 0, again.stderr
    assert "Finished before, nothing to do" in again.stdout


def test_what_has_finished_is_not_trained_again(tmp_path: Path) -> None:
    words = [*SMALL, *KINDS["ensemble"]]
    assert train_forked(*words, folder=tmp_path).returncode == 0
    # Python 3.10 finds files with "*/", too.
    (run,) = (one for one in (tmp_path / "lightning_logs" / "iris").iterdir() if one.is_dir())
    expected = state(tmp_path)
    (run / "result.json").unlink()
    (run / "checkpoints" / "best.ckpt").unlink()
    shutil.rmtree(run / "members" / "1")
    kept = run / "members" / "2" / "result.json"
    before = kept.stat().st_mtime_ns
    done = train_forked(*words, "verbosity=1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 done" in done.stdout
    assert kept.stat().st_mtime_ns == before
    for name, value in expected.items():
        torch.testing.assert_close(state(tmp_path)[name], value, rtol=1e-4, atol=1e-5)


def test_a_run_of_another_configuration_is_not_continued(tmp_path: Path) -> None:
    from mlp_lightning import train_ensemble
    from mlp_lightning.errors import RunFolderError

    config = {"data": {"name": "xor"}, "trainer": {"max_steps": 20}, "verbosity": 0, "ensemble": {"members": 2}}
    train_ensemble(config, tmp_path / "run")
    for other in (config, {**config, "seed": 3}):
        with pytest.raises(RunFolderError, match="is not an unfinished run of this configuration"):
            train_ensemble(other, tmp_path / "run", continues=True)
    with pytest.raises(RunFolderError, match="already belongs to another run"):
        train_ensemble(config, tmp_path / "run")


def days(path: Path, first: int = 0) -> None:
    lines = [f"{row % 7},{row % 5},{row % 2},{row % 3 == 0:d}" for row in range(first, first + 60)]
    path.write_text("\n".join(["u,v,rain,frost", *lines]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("case", ["another order", "an earlier version"])
def test_folds_of_other_rows_are_not_mixed(case: str, tmp_path: Path) -> None:
    """One fold is missing; the others were trained on other rows, or with folds that were drawn in another way."""
    table, folder = tmp_path / "days.csv", tmp_path / "folds"
    data = {"name": "table", "path": str(table), "target": ["rain", "frost"], "cv": {"folds": 3}, "val_fraction": 0}
    config = {"data": {**data, "test_fraction": 0}, "trainer": {"max_epochs": 2}, "logger": "none", "verbosity": 0}
    days(table)
    whole = cross_validate(config, folder).metrics
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "fold-2")
    results = {file: file.read_text() for file in folder.glob("fold-*/result.json")}
    if case == "another order":
        days(table, first=4)
    for file, text in results.items() if case == "an earlier version" else ():
        content = json.loads(text)
        assert content["fingerprint"]["data"].pop("split") == "by labels"
        file.write_text(json.dumps(content))
    said = "Fold 0 in .*fold-0 was trained on other rows than .*days.csv has now: (other values|the same rows)"
    with pytest.raises(DataError, match=said):
        cross_validate(config, folder, continues=True)
    days(table)
    for file, text in results.items():
        file.write_text(text)
    again = cross_validate(config, folder, continues=True)
    assert again.status == "finished"
    for name, one in whole.items():
        assert again.metrics[name]["mean"] == pytest.approx(one["mean"], rel=1e-4)


def damaged_result(fold: Path) -> None:
    content = json.loads((fold / "result.json").read_text())
    (fold / "result.json").write_text(json.dumps({name: one for name, one in content.items() if name != "steps"}))


def cut_checkpoint(fold: Path) -> None:
    weights = json.loads((fold / "result.json").read_text())["weights"]
    file = fold / "checkpoints" / f"{weights}.ckpt"
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize("damage", [damaged_result, cut_checkpoint])
def test_a_member_that_is_damaged_is_trained_from_the_start(
    damage: Callable[[Path], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = {
        "data": {"name": "iris", "cv": {"folds": 3}},
        "model": {"hidden_units": 4},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    expected = cross_validate(config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    damage(tmp_path / "run" / "fold-1")
    found = cross_validate(config, tmp_path / "run", continues=True)
    assert "Fold 1 is trained from the start." in capfd.readouterr().err
    for name, one in expected.metrics.items():
        assert found.metrics[name]["mean"] == pytest.approx(one["mean"], rel=1e-5)


@pytest.mark.parametrize("text", ["", "x", "-3"])
def test_a_damaged_count_of_candidates_is_decided_again(text: str, tmp_path: Path) -> None:
    config = {
        "data": {"name": "iris", "cv": {"folds": 2, "held_out_as": "val"}},
        "preset": {"name": "best", "time_limit_s": 1e-3},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "verbosity": 0,
    }
    train_best(config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "candidates.txt").write_text(text, encoding="utf-8")
    assert len(train_best(config, tmp_path / "run", continues=True).members) == 1
