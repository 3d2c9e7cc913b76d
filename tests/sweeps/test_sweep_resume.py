"""Resuming a sweep: finished runs are kept, others train again, and the result is that of an uninterrupted sweep."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import TRAIN, run_forked, start, start_forked, train_forked
from support.sweep_folders import leaderboard, leaderboard_without_times, numbers, result, statuses, times_of_change

pytestmark = pytest.mark.slow

# Four stacks of different depths, which train one after another.
MANY = ("-m", "data=xor", "seed=range(0,16)", "model.depth=1,2,3,4", "trainer.max_steps=500", "sweep.name=many")
KILLS = 6


class Clock:
    """Shortest measured time of the sweep, from the first line of its log to its end."""

    seconds = float("inf")


def run_until_killed(folder: Path, kill_after: float | None, clock: Clock) -> bool:
    """Start or resume the sweep; kill it ``kill_after`` seconds after its first log line. Whether it was killed."""
    log = folder / "lightning_logs" / "xor" / "many" / "sweep.log"
    before = size(log)
    process = start_forked(*MANY, "sweep.resume=true", folder=folder)
    try:
        while process.poll() is None and size(log) == before:
            time.sleep(0.01)
        begun = time.monotonic()
        done = process.finished(kill_after)
    except subprocess.TimeoutExpired:
        return True
    finally:
        process.kill()
    assert done.returncode == 0, done.stderr
    clock.seconds = min(clock.seconds, time.monotonic() - begun)
    return False


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Path:
    """An uninterrupted sweep of 64 runs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert not run_until_killed(folder, None, clock)
    sweep = folder / "lightning_logs" / "xor" / "many"
    assert "64 in 4 stacks" in (sweep / "sweep.log").read_text()
    assert statuses(sweep) == ["finished"] * 64
    return sweep


def test_killed_at_random_moments(undisturbed: Path, clock: Clock, tmp_path: Path) -> None:
    draw = random.Random(0)
    kills = attempts = 0
    while kills < KILLS:
        attempts += 1
        assert attempts < 3 * KILLS, "sweeps end before they are killed"
        folder = tmp_path / str(attempts)
        folder.mkdir()
        sweep = folder / "lightning_logs" / "xor" / "many"
        while kills < KILLS and run_until_killed(folder, draw.uniform(0.0, 1.0) * clock.seconds, clock):
            kills += 1
        if kills == KILLS:
            assert not run_until_killed(folder, None, clock)
        assert statuses(sweep) == ["finished"] * 64
        assert leaderboard_without_times(sweep) == leaderboard_without_times(undisturbed)


def test_killed_before_it_has_started(tmp_path: Path) -> None:
    """While Python imports."""
    process = start("-m", "data=xor", "seed=0,1", "trainer.max_steps=5", "sweep.name=early", folder=tmp_path)
    time.sleep(0.2)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


KILLING = """
import os, pathlib, runpy, signal, sys
kill_at, sys.argv = int(sys.argv[1]), sys.argv[2:]
renames, rename = 0, pathlib.Path.replace

def replace(self, target):
    global renames
    if pathlib.Path(target).name == "result.json":
        renames += 1
        if renames == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

pathlib.Path.replace = replace
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("kill_at", "done_before"), [(1, 16), (16, 16), (40, 48)])
def test_killed_while_results_are_renamed(
    undisturbed: Path, kill_at: int, done_before: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A stack of 16 is done or not done as a whole, so the remaining runs train in the same stacks."""
    script = tmp_path_factory.mktemp("killing") / "killing.py"
    script.write_text(KILLING)
    killed = run_forked(str(script), str(kill_at), TRAIN[-1], *MANY, folder=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    sweep = tmp_path / "lightning_logs" / "xor" / "many"
    assert len(list(sweep.glob("[0-9]*/result.json"))) == kill_at - 1
    done = train_forked(*MANY, "sweep.resume=true", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Sweep of {64 - done_before} runs, {done_before} done before" in done.stdout
    assert statuses(sweep) == ["finished"] * 64
    assert leaderboard_without_times(sweep) == leaderboard_without_times(undisturbed)


# ---- in the middle of a stack ----------------------------------------------------------------------------

LONG = (
    *("-m", "data=xor", "model=wide_deep", "seed=range(0,8)", "optimizer.lr=1,2", "model.dropout=0.1"),
    *("trainer.max_steps=3000", "trainer.steps_per_execution=100", "callbacks.checkpoint.every_n_seconds=0"),
    *("sweep.name=many", "logger.graph=false"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted sweep of one stack."""
    folder = tmp_path_factory.mktemp("whole")
    done = train_forked(*LONG, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "lightning_logs" / "xor" / "many"


def killed_in_its_stack(folder: Path) -> Path:
    """A sweep that was killed while its stack trained; returns its folder."""
    sweep = folder / "lightning_logs" / "xor" / "many"
    process = start_forked(*LONG, "sweep.resume=true", folder=folder)
    while not list((sweep / "stacks").glob("*.stack")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.finished(60)
    assert len(numbers(sweep)) == 16
    assert list(sweep.glob("*/result.json")) == []
    return sweep


def test_killed_while_a_stack_trains(whole: Path, tmp_path: Path) -> None:
    """It continues from the last state of the stack, to the same bits."""
    sweep = killed_in_its_stack(tmp_path)
    done = train_forked(*LONG, "sweep.resume=true", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("Continuing a stack of 16 runs from step ")]
    assert 0 < int(line.rpartition(" ")[2].replace(",", "")) < 3000
    assert statuses(sweep) == ["finished"] * 16
    assert leaderboard_without_times(sweep) == leaderboard_without_times(whole)
    for number in numbers(whole):
        assert (sweep / number / "metrics.csv").read_bytes() == (whole / number / "metrics.csv").read_bytes()
        assert result(sweep / number)["resumed_from"].endswith(".stack")
    assert not (sweep / "stacks").exists()


def test_state_that_cannot_be_read(whole: Path, tmp_path: Path) -> None:
    sweep = killed_in_its_stack(tmp_path)
    (file,) = (sweep / "stacks").glob("*.stack")
    file.write_bytes(file.read_bytes()[:1000])
    done = train_forked(*LONG, "sweep.resume=true", folder=tmp_path)
    assert done.returncode == 0
    assert f"{file} cannot be read as the state of a stack" in done.stderr
    assert "its runs are trained from the start" in done.stderr
    assert leaderboard_without_times(sweep) == leaderboard_without_times(whole)
    assert [one.name for one in (sweep / "stacks").iterdir()] == [f"{file.name}.unreadable"]


def test_stack_with_runs_that_are_not_part_of_the_sweep(tmp_path: Path) -> None:
    """The saved state is kept, so that a later sweep can continue all of its runs."""
    sweep = killed_in_its_stack(tmp_path)
    (file,) = (sweep / "stacks").glob("*.stack")
    fewer = [one.replace("range(0,8)", "0,1") for one in LONG]
    done = train_forked(*fewer, "sweep.resume=true", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not continued, as some of its runs are not part of this sweep" in done.stdout
    assert list((sweep / "stacks").iterdir()) == [file]


# ---- failed runs, further runs ---------------------------------------------------------------------------

FEW = ("-m", "data=iris", "seed=0,1", "trainer.max_epochs=20", "sweep.name=few")


def test_resume_and_extend(tmp_path: Path) -> None:
    sweep = tmp_path / "lightning_logs" / "iris" / "few"
    first = train_forked(*FEW, "optimizer.lr=0.1,1e30", folder=tmp_path)
    assert first.returncode == 1
    assert statuses(sweep) == ["finished", "failed", "finished", "failed"]
    before = {number: times_of_change(sweep / number) for number in numbers(sweep)}

    # Again without sweep.resume: refused, and nothing changes.
    everything = times_of_change(sweep)
    refused = train_forked(*FEW, "optimizer.lr=0.1,1e30", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    _, fault = refused.stderr.splitlines()
    assert fault.startswith("  sweep.name = 'few' already exists (lightning_logs/iris/few); continue it with")
    assert times_of_change(sweep) == everything

    # With sweep.resume: finished runs are unchanged, failed runs are trained again.
    again = train_forked(*FEW, "optimizer.lr=0.1,1e30", "sweep.resume=true", folder=tmp_path)
    assert again.returncode == 1
    assert "Sweep of 2 runs, 2 done before" in again.stdout
    assert statuses(sweep) == ["finished", "failed", "finished", "failed"]
    after = {number: times_of_change(sweep / number) for number in numbers(sweep)}
    for number in ("0", "2"):
        assert after[number] == before[number]
    assert {one.name for one in (sweep / "superseded").iterdir()} == {"1-1", "3-1"}
    assert times_of_change(sweep / "superseded" / "1-1") == before["1"]
    assert len(leaderboard(sweep)) == 4

    # With two further learning rates, the first of them before the one that is done.
    more = train_forked(*FEW, "optimizer.lr=0.03,0.1,0.2", "sweep.resume=true", folder=tmp_path)
    assert (more.returncode, more.stderr) == (0, "")
    assert "Sweep of 4 runs, 2 done before" in more.stdout
    assert {number: times_of_change(sweep / number) for number in after} == after
    assert len(numbers(sweep)) == 8
    rows = leaderboard(sweep)
    assert sorted((row["seed"], row["optimizer.lr"]) for row in rows if row["status"] == "finished") == [
        (seed, lr) for seed in "01" for lr in ("0.03", "0.1", "0.2")
    ]
    for row in rows:
        if row["status"] == "finished":
            assert float(row["loss/val"]) == result(sweep / row["run"])["metrics"]["val"]["loss"]


def test_all_done_before(tmp_path: Path, undisturbed: Path) -> None:
    sweep = tmp_path / "lightning_logs" / "xor" / "many"
    shutil.copytree(undisturbed, sweep)
    before = {number: times_of_change(sweep / number) for number in numbers(sweep)}
    done = train_forked(*MANY, "sweep.resume=true", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "All 64 runs were done before" in done.stdout
    assert {number: times_of_change(sweep / number) for number in numbers(sweep)} == before
    assert leaderboard_without_times(sweep) == leaderboard_without_times(undisturbed)


def test_resume_needs_a_name(tmp_path: Path) -> None:
    done = train_forked("-m", "data=xor", "seed=0,1", "sweep.resume=true", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sweep.resume = True needs sweep.name" in done.stderr
    assert list(tmp_path.iterdir()) == []
