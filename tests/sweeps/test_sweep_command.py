"""Sweeps by the real command: their files, output and exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.commands import TRAIN, only_run, run_forked, start, train, train_forked
from support.sweep_folders import (
    assert_same_runs,
    assert_same_tables,
    leaderboard,
    numbers,
    result,
    statuses,
    times_of_change,
)

pytestmark = pytest.mark.slow

Train = Callable[..., subprocess.CompletedProcess[str]]
SWEEP = ("-m", "data=iris", "model.hidden_units=3,5", "optimizer.lr=0.1,0.03", "trainer.max_epochs=30")


def made(folder: Path, name: str, *overrides: str, command: Train = train_forked) -> Path:
    done = command(*SWEEP, f"sweep.name={name}", *overrides, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    sweep = folder / "lightning_logs" / "iris" / name
    assert numbers(sweep) == ["0", "1", "2", "3"]
    (sweep / "printed.txt").write_text(done.stdout)
    return sweep


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep with default options."""
    return made(tmp_path_factory.mktemp("stacked"), "stacked")


# ---- the same runs with every launcher -------------------------------------------------------------------


def test_runs_are_those_of_the_basic_launcher(stacked: Path) -> None:
    basic = made(stacked.parents[2], "basic", "hydra/launcher=basic")
    assert "Trained as one of 4 members of a stack" in (stacked / "0" / "train.log").read_text()
    assert "of a stack" not in (basic / "0" / "train.log").read_text()
    assert_same_runs(stacked, basic)
    assert_same_tables(stacked / "leaderboard.csv", basic / "leaderboard.csv", ignored=("wall_time_s",))


def test_keys_of_a_swept_group_are_recorded_with_every_launcher(tmp_path: Path) -> None:
    words = ("-m", "data=xor", "model=wide,wide_deep", "optimizer.lr=0.5,1", "trainer.max_steps=20")
    recorded = []
    for launcher in ("vectorized", "basic"):
        done = train_forked(*words, f"hydra/launcher={launcher}", f"sweep.name={launcher}", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        folder = tmp_path / "lightning_logs" / "xor" / launcher
        recorded.append([yaml.safe_load((folder / n / "config.yaml").read_text())["sweep"]["keys"] for n in "0123"])
    assert recorded[0] == recorded[1]
    assert {"model.hidden_units", "model.depth", "optimizer.lr"} <= set(recorded[0][0])


def test_runs_are_those_of_two_processes(stacked: Path) -> None:
    spread = made(stacked.parents[2], "spread", "hydra.launcher.n_jobs=2", command=train)
    assert "4 in 2 stacks" in (spread / "printed.txt").read_text()
    assert_same_runs(stacked, spread)
    assert_same_tables(stacked / "leaderboard.csv", spread / "leaderboard.csv", ignored=("wall_time_s",))


@pytest.mark.extras
def test_runs_are_those_of_the_joblib_launcher(stacked: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    joblib = made(stacked.parents[2], "joblib", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", command=train)
    assert_same_runs(stacked, joblib)
    assert_same_tables(stacked / "leaderboard.csv", joblib / "leaderboard.csv", ignored=("wall_time_s",))


def test_files_and_output_of_a_sweep(stacked: Path) -> None:
    names = {re.sub(r"\d+", "N", one.name) for one in stacked.iterdir()}
    assert names == {
        "N",
        ".lock",
        "multirun.yaml",
        "sweep.log",
        "leaderboard.csv",
        "leaderboard.png",
        "events.out.tfevents.N.leaderboard",
        "printed.txt",
    }
    first, *_ = printed = (stacked / "printed.txt").read_text().splitlines()
    assert first == "Sweep of 4 runs: 4 in 1 stack. Folder: lightning_logs/iris/stacked"
    described = [one for one in printed if one.startswith(("150 rows; predicts ", "numeric: "))]
    assert len(described) == 2
    for run in "0123":
        log = (stacked / run / "train.log").read_text().splitlines()
        assert [one.partition("[INFO] ")[2] for one in log[:2]] == described, "as in the log of a run alone"
    assert not any(re.match("step +[0-9]", line) for line in printed), "runs of a sweep are shown together"
    assert "Sweep of 4 runs: 4 in 1 stack" in (stacked / "sweep.log").read_text()
    rows = leaderboard(stacked)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    for row in rows:
        config = yaml.safe_load((stacked / row["run"] / "config.yaml").read_text())
        assert (config["model"]["hidden_units"], config["optimizer"]["lr"]) == (
            int(row["model.hidden_units"]),
            float(row["optimizer.lr"]),
        )
        assert float(row["loss/val"]) == result(stacked / row["run"])["metrics"]["val"]["loss"]


# ---- failures --------------------------------------------------------------------------------------------

EXPERIMENTS = {
    "healthy": {},
    "huge_lr": {"optimizer": {"lr": 1e30}},
    # 90 training rows leave a batch of one row, which is only known when the data is loaded.
    "odd_batch": {"model": {"norm": "batch"}, "data": {"batch_size": 89}},
}


def test_two_failures_and_a_result(tmp_path: Path) -> None:
    for name, values in EXPERIMENTS.items():
        file = tmp_path / "mine" / "experiment" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{yaml.safe_dump(values)}")
    words = ["--config-dir", "mine", "-m", "data=iris", f"experiment={','.join(EXPERIMENTS)}", "trainer.max_epochs=30"]
    done = train_forked(*words, folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    causes = {
        "1": "The training loss became nan at step",
        "2": "data.batch_size = 89 leaves a batch with 1 of the 90 training rows",
    }
    stderr, leaderboard_text = done.stderr, done.stdout.partition("Leaderboard of iris: best")[2]
    for number, name in (("1", "huge_lr"), ("2", "odd_batch")):
        assert f"Run {number} (data=iris experiment={name} trainer.max_epochs=30) failed: {causes[number]}" in stderr
        assert f"run {number} (experiment={name}) failed: {causes[number]}" in leaderboard_text
    sweep = only_run(tmp_path, "iris")
    assert statuses(sweep) == ["finished", "failed", "failed"]
    rows = {row["run"]: row for row in leaderboard(sweep)}
    assert {number: row["status"] for number, row in rows.items()} == {"0": "finished", "1": "failed", "2": "failed"}
    for number, cause in causes.items():
        assert rows[number]["error"].startswith(cause)
        assert cause in result(sweep / number)["error"]
        assert cause in (sweep / "sweep.log").read_text()
    assert float(rows["0"]["loss/val"]) < 1


def test_contradiction_in_one_run_only(tmp_path: Path) -> None:
    """Each value is valid with the first value of the other key, so only the composed run has a fault."""
    words = ["data=iris", "data.val_fraction=0.2,0.6", "data.test_fraction=0.2,0.6", "trainer.max_epochs=3"]
    done = train_forked("-m", *words, folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    sweep = only_run(tmp_path, "iris")
    assert statuses(sweep) == ["finished", "finished", "finished", "failed"]
    cause = "data.val_fraction = 0.6 and data.test_fraction = 0.6 leave no training rows"
    assert re.search(rf"Run 3 \(.*\) failed: The configuration has a fault: {cause}", done.stderr)
    assert cause in done.stdout.partition("Not finished")[2]
    assert cause in result(sweep / "3")["error"]
    assert sorted(one.name for one in (sweep / "3" / ".hydra").iterdir()) == [
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    ]
    assert [row["status"] for row in leaderboard(sweep)] == ["finished"] * 3 + ["failed"]


def test_silent_but_for_errors(tmp_path: Path) -> None:
    done = train_forked(
        "-m", "data=iris", "optimizer.lr=0.1,1e30", "trainer.max_epochs=20", "verbosity=0", folder=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "Run 1 (data=iris optimizer.lr=1e+30 trainer.max_epochs=20 verbosity=0) failed: The training"
    )
    sweep = only_run(tmp_path, "iris")
    assert statuses(sweep) == ["finished", "failed"]
    assert line in (sweep / "sweep.log").read_text()
    assert len(leaderboard(sweep)) == 2


def test_fail_fast_ends_at_the_first_failure(tmp_path: Path) -> None:
    # The run with two layers comes after the stack of those with one.
    words = ["data=xor", "model.depth=1,2", "optimizer.lr=0,0.1,0.2", "trainer.max_steps=20000"]
    started = time.monotonic()
    done = train_forked("-m", *words, "sweep.fail_fast=true", folder=tmp_path)
    assert done.returncode == 1
    assert time.monotonic() - started < 60
    sweep = only_run(tmp_path, "xor")
    rows = {row["run"]: row for row in leaderboard(sweep)}
    assert rows["0"]["status"] == "failed"
    assert [rows[number]["status"] for number in ("1", "2")] == ["interrupted"] * 2
    assert int(rows["1"]["steps"]) < 20000
    assert numbers(sweep) == ["0", "1", "2"], "no further run was started"
    assert [rows[number]["status"] for number in ("3", "4", "5")] == ["unended"] * 3


def test_full_traceback_of_an_unexpected_error(tmp_path: Path) -> None:
    """A layer that does not fit into any memory."""
    words = [TRAIN[-1], "-m", "data=xor", "model.hidden_units=10000000", "model.depth=3", "seed=0,1"]
    short = run_forked(*words, folder=tmp_path)
    assert short.returncode == 1
    assert "Traceback" not in short.stdout + short.stderr
    assert len(re.findall(r"Run [01] \(.*\) failed: RuntimeError: ", short.stdout + short.stderr)) == 2
    logs = re.findall(r"The full traceback is in (.*); HYDRA_FULL_ERROR=1 shows it here", short.stdout + short.stderr)
    assert logs
    assert all("Traceback" in Path(log).read_text(encoding="utf-8") for log in logs)
    full = run_forked(*words, folder=tmp_path, HYDRA_FULL_ERROR="1")
    assert full.returncode == 1
    assert "Traceback" in full.stderr
    assert "RuntimeError" in full.stderr


# ---- backends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "rule"),
    [
        ("loki", "is not known to joblib; use loky, ray or dask"),
        ("ray", "is not installed; pip install 'mlp-lightning["),
    ],
)
def test_unavailable_backend(backend: str, rule: str, tmp_path: Path) -> None:
    if backend == "ray":
        try:
            import ray  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("ray is installed")
    words = ["data=xor", "seed=0,1", "trainer.max_steps=5", f"hydra.launcher.backend={backend}"]
    done = train_forked("-m", *words, "hydra.launcher.n_jobs=2", folder=tmp_path)
    assert done.returncode == 2
    title, fault, *_ = done.stderr.splitlines()
    assert title == "The configuration has a fault:"
    assert fault.startswith(f"  hydra.launcher.backend = '{backend}' {rule}")
    assert "Leaderboard" not in done.stdout, "there is none"
    assert not list(tmp_path.glob("lightning_logs/xor/*")), "no run was started"


# ---- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.mark.posix
def test_ctrl_c_and_a_second_sweep_meanwhile(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    words = ["-m", "data=xor", "seed=0,1", "model.depth=1,2", "trainer.max_steps=100000000"]
    words += ["model.hidden_units=30", "sweep.name=long"]
    process = start(*words, folder=tmp_path)
    request.addfinalizer(process.kill)
    sweep = tmp_path / "lightning_logs" / "xor" / "long"
    deadline = time.monotonic() + 60
    while not (sweep / "2" / "config.yaml").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = times_of_change(sweep)
    second = train_forked(*words, "sweep.resume=true", folder=tmp_path)
    assert second.returncode == 1
    assert second.stderr.startswith("Another process runs a sweep in ")
    assert "Traceback" not in second.stderr
    assert times_of_change(sweep) == before, "it changed nothing"

    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    rows = {row["run"]: row for row in leaderboard(sweep)}
    assert {number: row["status"] for number, row in rows.items()} == {
        "0": "interrupted",
        "1": "unended",
        "2": "interrupted",
        "3": "unended",
    }
    assert numbers(sweep) == ["0", "2"], "no further run was started"

    steps = result(sweep / "2")["steps"]
    assert 0 < steps < 100000000
    checkpoint = sweep / "2" / "checkpoints" / "last.ckpt"
    further = ["data=xor", "seed=1", "model.depth=1", "model.hidden_units=30", f"trainer.max_steps={steps + 100}"]
    further += [f"ckpt_path={checkpoint}"]
    assert train_forked(*further, "name=further", folder=tmp_path).returncode == 0
    continued = result(only_run(tmp_path, "further"))
    assert (continued["status"], continued["steps"]) == ("finished", steps + 100)


def test_callbacks_of_single_jobs_are_refused(tmp_path: Path) -> None:
    """Jobs of a stack do not start or end one by one: such a callback would never be called."""
    target = "hydra.experimental.callbacks.PickleJobInfoCallback"
    done = train_forked("-m", "data=xor", "seed=0,1", f"+hydra.callbacks.jobs._target_={target}", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"hydra.callbacks.jobs = '{target}' has hooks for single jobs" in done.stderr
    assert "use hydra/launcher=basic" in done.stderr
    assert "Traceback" not in done.stderr
    called = train_forked(
        *("-m", "data=xor", "seed=0,1", "trainer.max_steps=5", "hydra/launcher=basic", "sweep.name=basic"),
        f"+hydra.callbacks.jobs._target_={target}",
        folder=tmp_path,
    )
    assert called.returncode == 0
    assert len(list(tmp_path.rglob("job_return.pickle"))) == 2
