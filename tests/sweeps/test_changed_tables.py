"""A sweep meets its table again, and the table has changed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.commands import start_forked, train_forked
from support.configurations import ComposeConfig
from support.sweep_folders import statuses

from mlp_lightning.sweeps.worker import train_part

SWEEP = ("-m", "data=table", "data.target=kind", "trainer.max_steps=4", "logger=none", "name=t")


def write(path: Path, count: int, first: int = 0) -> None:
    lines = [f"{row % 7},{row % 5},{'ab'[row % 2]}" for row in range(first, first + count)]
    path.write_text("\n".join(["u,v,kind", *lines]) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_runs_on_other_rows_do_not_join_a_sweep(tmp_path: Path) -> None:
    table, sweep = tmp_path / "rows.csv", tmp_path / "lightning_logs" / "t" / "both"
    write(table, 60)
    command = (*SWEEP, "data.path=rows.csv", "sweep.name=both")
    assert train_forked(*command, "seed=3,4", folder=tmp_path).returncode == 0
    leaderboard = (sweep / "leaderboard.csv").read_bytes()
    write(table, 90)
    refused = train_forked(*command, "seed=3,4,5", "sweep.resume=true", folder=tmp_path)
    assert refused.returncode == 2
    message = "Runs 0, 1 of lightning_logs/t/both trained on other rows than rows.csv has now: 90 rows instead"
    assert message in refused.stderr
    assert (sweep / "leaderboard.csv").read_bytes() == leaderboard
    assert statuses(sweep) == ["finished"] * 2
    # Runs of the folder that are not part of the command count too, and order alone matters.
    write(table, 60, first=1)
    other = train_forked(*command, "seed=9", "sweep.resume=true", folder=tmp_path)
    assert other.returncode == 2
    assert "the same rows in another order" in other.stderr or "other values" in other.stderr
    # What is done is compared, too, and another table is none of its business.
    done = train_forked(*command, "seed=3,4", "sweep.resume=true", folder=tmp_path)
    assert done.returncode == 2
    assert "Runs 0, 1 of lightning_logs/t/both trained on other rows than rows.csv has now" in done.stderr
    write(tmp_path / "other.csv", 40)
    elsewhere = (*SWEEP, "data.path=other.csv", "sweep.name=both", "seed=3", "sweep.resume=true")
    assert train_forked(*elsewhere, folder=tmp_path).returncode == 0
    write(table, 60)
    assert train_forked(*command, "seed=3,4,5", "sweep.resume=true", folder=tmp_path).returncode == 0
    assert statuses(sweep) == ["finished"] * 4


def test_a_table_that_changes_while_a_sweep_trains(tmp_path: Path, compose_config: ComposeConfig) -> None:
    table = tmp_path / "rows.csv"
    write(table, 60)
    case = [*SWEEP[1:], f"data.path={table}", "verbosity=0"]
    configs = [compose_config(*case, f"seed={seed}") for seed in range(3)]
    first, *_ = train_part(configs[:1], [tmp_path / "0"])
    rows = json.loads((tmp_path / "0" / "result.json").read_text())["fingerprint"]
    assert first.status == "finished"
    write(table, 61)
    for members, folders in (configs[1:2], ["1"]), (configs[1:], ["2", "3"]):
        outcomes = train_part(members, [tmp_path / one for one in folders], rows=rows)
        assert [one.status for one in outcomes] == ["failed"] * len(folders)
        assert all("has other rows now than before: 61 rows instead of 60" in one.error for one in outcomes)
        results = [json.loads((tmp_path / one / "result.json").read_text()) for one in folders]
        assert [one["status"] for one in results] == ["failed"] * len(folders)


@pytest.mark.slow
def test_a_saved_stack_of_other_rows(tmp_path: Path) -> None:
    """The state is kept: the table can be brought back."""
    table, sweep = tmp_path / "rows.csv", tmp_path / "lightning_logs" / "t" / "killed"
    write(table, 60)
    command = [*SWEEP, "data.path=rows.csv", "sweep.name=killed", "seed=3,4", "trainer.max_steps=3000"]
    command += ["callbacks.checkpoint.every_n_seconds=0", "trainer.steps_per_execution=10", "model=wide"]
    process = start_forked(*command, folder=tmp_path)
    while not list((sweep / "stacks").glob("*.stack")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.finished(60)
    (file,) = (sweep / "stacks").glob("*.stack")
    state = file.read_bytes()
    write(table, 60, first=3)
    refused = train_forked(*command, "sweep.resume=true", folder=tmp_path)
    assert refused.returncode == 2
    assert f"{file.name} trained on other rows than rows.csv has now" in refused.stderr
    assert file.read_bytes() == state
    write(table, 60)
    done = train_forked(*command, "sweep.resume=true", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Continuing a stack of 2 runs" in done.stdout
