"""``python scripts/leaderboard.py``, as a command."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.commands import ROOT, environment, run_forked, train_forked
from support.leaderboard_records import failed, run, write_run

from mlp_lightning.sweeps.leaderboard.command import write_leaderboard
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards
from mlp_lightning.sweeps.records import read_records

SCRIPT = str(ROOT / "scripts" / "leaderboard.py")
FILES = {"leaderboard.csv", "leaderboard.png"}


def command(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_forked(SCRIPT, *map(str, arguments), folder=folder)


def files_in(folder: Path) -> set[str]:
    """Names of the files directly in ``folder``; of an event file what is not its time."""
    names = {one.name for one in folder.iterdir() if one.is_file()}
    return {"events.leaderboard" if name.startswith("events.") else name for name in names}


@pytest.fixture
def sweep(tmp_path) -> Path:
    for number, width in enumerate((5, 100)):
        write_run(tmp_path, run(number, 0.5 / width, 0.3, sweep="a", model__hidden_units=width))
    write_run(tmp_path, failed(2, sweep="a", model__hidden_units=7))
    return tmp_path / "a"


@pytest.mark.slow
def test_of_a_real_sweep(tmp_path) -> None:
    trained = train_forked(
        "-m", "data=iris", "model.hidden_units=5,20", "seed=0,1", "trainer.max_epochs=3", folder=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    (folder,) = (tmp_path / "lightning_logs" / "iris").iterdir()
    words = [sys.executable, SCRIPT, str(folder.relative_to(tmp_path))]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_in(folder) >= {*FILES, "events.leaderboard"}
    with (folder / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert {(row["model.hidden_units"], row["seed"]) for row in rows} == {(w, s) for w in ("5", "20") for s in "01"}
    # The printed command trains to the same metrics.
    shown = done.stdout.splitlines()
    repeat = shown[shown.index(next(line for line in shown if line.startswith("Repeat the best comb"))) + 1]
    repeat = shlex.split(repeat)
    assert (repeat[0], repeat[2]) == ("python", "-m")
    again = train_forked(*repeat[2:], "hydra.sweep.dir=again", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    (best,) = (line for line in build_leaderboards(read_records([folder]), folder)[0].lines[:1])
    repeated = read_records([tmp_path / "again"])
    assert len(repeated) == len(best.records) == 2
    for record, of_best in zip(repeated, best.records, strict=True):
        assert record.config == {**of_best.config, "sweep": record.config["sweep"]}
        assert record.metrics == {split: pytest.approx(some, abs=1e-5) for split, some in of_best.metrics.items()}


def test_is_repeatable(sweep) -> None:
    contents = []
    for _ in range(2):
        done = command(sweep, folder=sweep)
        assert (done.returncode, done.stderr) == (0, "")
        assert files_in(sweep) == {*FILES, "events.leaderboard"}
        contents.append([done.stdout, *((sweep / name).read_bytes() for name in sorted(FILES))])
    assert contents[0] == contents[1]
    assert "run 2 (model.hidden_units=7) failed: nan at step 3" in contents[0][0]
    repeat = next(line for line in contents[0][0].splitlines() if "train.py" in line)
    assert shlex.split(repeat)[-2:] == ["data=iris", "model.hidden_units=5"]


def test_in_memory_and_from_folders_are_the_same(sweep, tmp_path) -> None:
    records = read_records([sweep])
    write_leaderboard(reversed(records), tmp_path / "out", None, "mlp-train")
    assert command(sweep, folder=sweep).returncode == 0
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (sweep / name).read_bytes()


def test_several_sweeps_go_into_their_common_folder(sweep, tmp_path) -> None:
    write_run(tmp_path, run(0, 0.1, 0.1, sweep="b", model__hidden_units=9))
    done = command("a", "b", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path) == {*FILES, "events.leaderboard"}
    with (tmp_path / "leaderboard.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["b/0", "a/0", "a/1", "a/2"]


def test_out(sweep, tmp_path) -> None:
    assert command(sweep, "--out", "elsewhere/new", folder=tmp_path).returncode == 0
    assert files_in(tmp_path / "elsewhere" / "new") == {*FILES, "events.leaderboard"}
    assert files_in(sweep) == set()


def test_no_records_write_nothing(tmp_path) -> None:
    assert write_leaderboard([], tmp_path / "out", Console(quiet=True), "mlp-train") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: PATH"),
        (["nowhere", "a"], "nowhere: no such folder; give folders of sweeps"),
        (["empty"], "There is no run (a folder with config.yaml) at or below empty"),
        (["a", "--out", "a/0/config.yaml"], f"--out {Path('a/0/config.yaml')} is a file; give a folder"),
        (["a", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_use(sweep, arguments, message) -> None:
    (sweep.parent / "empty").mkdir()
    done = command(*arguments, folder=sweep.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert files_in(sweep) == set()


def test_damaged_run_is_reported(sweep) -> None:
    (sweep / "1" / "result.json").write_text("{")
    done = command(sweep, folder=sweep)
    assert done.returncode == 1
    assert f"{sweep / '1' / 'result.json'} is not valid JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_file_that_cannot_be_written_is_reported(sweep) -> None:
    (sweep / "leaderboard.csv").mkdir()
    done = command(sweep, folder=sweep)
    assert done.returncode == 1
    assert "leaderboard.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_output_is_not_an_error(sweep) -> None:
    process = subprocess.Popen(
        [sys.executable, SCRIPT, str(sweep)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()
    assert files_in(sweep) == {*FILES, "events.leaderboard"}


def test_needs_no_torch(sweep) -> None:
    code = (
        "import sys; from mlp_lightning.sweeps.leaderboard.command import main; main();"
        "print([one for one in ('torch', 'lightning', 'sklearn', 'hydra') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sweep)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
