"""Engines that are extras, each against a real local cluster, and searching with Optuna."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import TRAIN, environment, start_forked, train_forked

pytestmark = [pytest.mark.slow, pytest.mark.extras]
SWEEP = ("-m", "data=xor", "model.hidden_units=4,5,6,7", "seed=1,2", "trainer.max_steps=200", "sweep.name=s")


def run(*overrides: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [*TRAIN, *overrides],
        cwd=folder,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def leaderboard_rows(folder: Path, name: str = "xor") -> list[dict[str, str]]:
    """The rows of the leaderboard by run, without the times."""
    with (folder / "lightning_logs" / name / "s" / "leaderboard.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "wall_time_s"} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: int(row["run"]))


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("one")
    assert train_forked(*SWEEP, folder=folder).returncode == 0
    return leaderboard_rows(folder)


def assert_same(rows: list[dict[str, str]], others: list[dict[str, str]]) -> None:
    assert len(rows) == len(others) == 8
    for row, other in zip(rows, others, strict=True):
        assert row["status"] == other["status"] == "finished"
        assert row["model.hidden_units"] == other["model.hidden_units"]
        assert float(row["loss/train"]) == pytest.approx(float(other["loss/train"]), abs=1e-5)


@pytest.fixture
def ray_cluster() -> Iterator[str]:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    quiet = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    start = ["start", "--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--disable-usage-stats"]
    started = subprocess.run([*command, *start], env=quiet, capture_output=True, text=True, timeout=200)
    assert started.returncode == 0, started.stdout + started.stderr
    yield "auto"
    subprocess.run([*command, "stop"], env=quiet, capture_output=True, timeout=100, check=True)


def test_ray(ray_cluster, in_one_process, tmp_path) -> None:
    launcher = ("hydra.launcher.n_jobs=2", "hydra.launcher.backend=ray")
    run(*SWEEP, *launcher, folder=tmp_path, RAY_ADDRESS=ray_cluster, RAY_AUTH_MODE="disabled")
    assert_same(leaderboard_rows(tmp_path), in_one_process)


@pytest.fixture
def dask_cluster(tmp_path_factory) -> Iterator[str]:
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    address = folder / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli"]
    out = (folder / "log").open("w")
    common = {"stdout": out, "stderr": subprocess.STDOUT, "cwd": folder}
    scheduler = [*dask[:2], "distributed.cli.dask_scheduler", "--port=0", "--dashboard-address=:0"]
    worker = [*dask[:2], "distributed.cli.dask_worker", "--nworkers=2", "--nthreads=1", "--dashboard-address=:0"]
    processes = [subprocess.Popen([*scheduler, f"--scheduler-file={address}"], **common)]
    deadline = time.monotonic() + 60
    while not address.exists():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.2)
    processes.append(subprocess.Popen([*worker, f"--scheduler-file={address}"], **common))
    yield json.loads(address.read_text())["address"]
    for process in reversed(processes):
        process.terminate()
        process.wait(60)
    out.close()


def test_dask(dask_cluster, in_one_process, tmp_path) -> None:
    launcher = ("hydra.launcher.n_jobs=2", "hydra.launcher.backend=dask")
    run(*SWEEP, *launcher, folder=tmp_path, DASK_SCHEDULER_ADDRESS=dask_cluster)
    assert_same(leaderboard_rows(tmp_path), in_one_process)


OPTUNA = ("search=optuna", "search.trials=8", "search.batch=4", "sweep.name=s")


def test_optuna_trials_of_a_batch_train_as_one_stack(tmp_path) -> None:
    pytest.importorskip("optuna")
    out = run("-m", *OPTUNA, "search.pruner=none", "data=iris", "trainer.max_epochs=20", folder=tmp_path)
    assert out.count("Sweep of 4 runs: ") == 2
    assert " stack" in out
    rows = leaderboard_rows(tmp_path, "iris")
    assert [row["run"] for row in rows] == [str(number) for number in range(8)]
    assert len({row["optimizer.lr"] for row in rows}) == 8
    best = min(rows, key=lambda row: float(row["loss/val"]))
    assert best["rank"] == "1"
    study = loaded_study(tmp_path)
    assert (study.best_trial.number, study.best_value) == (int(best["run"]), float(best["loss/val"]))
    assert [str(one.params["optimizer.lr"]) for one in study.trials] == [row["optimizer.lr"] for row in rows]


def loaded_study(folder: Path):
    """Read by Optuna's own means."""
    optuna = pytest.importorskip("optuna")
    file = folder / "lightning_logs" / "iris" / "s" / "optuna.journal"
    backend = optuna.storages.journal.JournalFileBackend(str(file))
    return optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))


def test_trials_that_leave_are_reported_to_optuna(tmp_path) -> None:
    pytest.importorskip("optuna")
    run("-m", *OPTUNA, "data=iris", "trainer.max_epochs=54", folder=tmp_path)
    rows, study = leaderboard_rows(tmp_path, "iris"), loaded_study(tmp_path)
    states = {"finished": "COMPLETE", "pruned": "PRUNED"}
    assert [one.state.name for one in study.trials] == [states[row["status"]] for row in rows]
    assert {row["status"] for row in rows} == {"finished", "pruned"}
    for one, row in zip(study.trials, rows, strict=True):
        # By epochs, which are one step each.
        assert [*one.intermediate_values] == [epochs for epochs in (2, 6, 18) if epochs <= int(row["steps"])]
        if row["status"] == "pruned":
            assert f"loss {one.intermediate_values[one.last_step]:.6g} of validation rows" in row["error"]


def test_a_killed_search_continues_to_the_same_trials(tmp_path) -> None:
    pytest.importorskip("optuna")
    words = ("-m", *OPTUNA, "search.trials=12", "data=iris", "trainer.max_epochs=900", "sweep.resume=true")
    assert train_forked(*words, folder=tmp_path).returncode == 0
    rows = leaderboard_rows(tmp_path, "iris")
    for batch in (0, 1, 2):
        folder = tmp_path / f"killed-{batch}"
        folder.mkdir()
        process, study = (
            start_forked(*words, folder=folder),
            folder / "lightning_logs" / "iris" / "s" / "optuna.journal",
        )
        # It has asked for the trials of this batch, and trains them.
        while process.poll() is None and not (study.exists() and asked(study) > 4 * batch):
            time.sleep(0.01)
        time.sleep(0.2 * batch)
        process.kill()
        study.write_bytes(study.read_bytes() + b'{"op_code":5,"work')  # a line that it was writing
        assert train_forked(*words, folder=folder).returncode == 0
        assert leaderboard_rows(folder, "iris") == rows
        assert [one.state.is_finished() for one in loaded_study(folder).trials] == [True] * 12


def asked(study: Path) -> int:
    return study.read_text(encoding="utf-8").count('"op_code":4,')


def test_optuna_searches_a_cross_validation(tmp_path) -> None:
    pytest.importorskip("optuna")
    folds = ("data.cv.folds=3", "data.val_fraction=0", "trainer.max_epochs=10")
    run("-m", *OPTUNA, "search.trials=5", "data=iris", *folds, folder=tmp_path)
    sweep = tmp_path / "lightning_logs" / "iris" / "s"
    for one in loaded_study(tmp_path).trials:
        losses = [
            json.loads((sweep / str(one.number) / f"fold-{fold}" / "result.json").read_text())["metrics"]["test"][
                "loss"
            ]
            for fold in range(3)
        ]
        assert one.value == pytest.approx(sum(losses) / 3)


def test_a_trial_that_fails_does_not_end_a_search(tmp_path) -> None:
    pytest.importorskip("optuna")
    space = "optimizer.lr=tag(log,interval(0.01,1e38))"
    command = [*TRAIN, "-m", *OPTUNA, space, "search.pruner=none", "data=iris", "trainer.max_epochs=5"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    rows = leaderboard_rows(tmp_path, "iris")
    assert {row["status"] for row in rows} >= {"failed"}
    assert [one.state.name == "FAIL" for one in loaded_study(tmp_path).trials] == [
        row["status"] == "failed" for row in rows
    ]
