"""``mlp-inspect``: a run in the terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, environment, run_forked, train_forked

SCRIPT = str(ROOT / "scripts" / "inspect_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("inspect")
    done = train_forked("data=iris", "trainer.max_epochs=15", "hydra.run.dir=run", "verbosity=0", folder=made)
    assert done.returncode == 0, done.stderr
    many = ("-m", "data=iris", "seed=0,1", "trainer.max_epochs=3", "sweep.store=packed", "sweep.name=s", "verbosity=0")
    assert train_forked(*many, folder=made).returncode == 0
    return made


def inspect(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_forked(SCRIPT, *words, folder=folder)


def test_a_run_shows_its_status_metrics_and_curves(folder) -> None:
    shown = inspect("run", folder=folder)
    assert shown.returncode == 0, shown.stderr
    assert "run: finished, 15 steps in" in shown.stdout
    assert "Overrides: data=iris trainer.max_epochs=15" in shown.stdout
    for words in ("validation", "baseline", "1.09861", "loss", "accuracy", "step 15"):
        assert words in shown.stdout


def test_a_run_of_a_packed_sweep_has_no_folder_and_is_shown(folder) -> None:
    shown = inspect("lightning_logs/iris/s/1", folder=folder)
    assert shown.returncode == 0, shown.stderr
    assert "finished, 3 steps" in shown.stdout
    assert "accuracy" in shown.stdout
    assert not (folder / "lightning_logs/iris/s/1").exists()


def test_a_run_that_was_killed_is_shown_as_far_as_it_came(folder, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text((folder / "run" / "config.yaml").read_text())
    shown = inspect(str(tmp_path), folder=folder)
    assert shown.returncode == 0, shown.stderr
    assert "trains, or was killed: no step logged yet" in shown.stdout
    (tmp_path / "metrics.csv").write_text("step,loss/train\n0,1.0\n7,0.5\n")
    assert "step 7" in inspect(str(tmp_path), folder=folder).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere is not the folder of a run"),
        (("lightning_logs/iris/s/7",), "is not the folder of a run"),
        (("--watch", "run"), "--watch needs a terminal"),
        (("--every", "0", "run"), "0 is not between 0.1 and 3600"),
        (("--every", "soon", "run"), "invalid"),
        ((), "RUN"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_line(folder, words, message) -> None:
    done = inspect(*words, folder=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_above_runs_names_one(folder) -> None:
    done = inspect(".", folder=folder)
    assert done.returncode == 2
    assert "name one of them, for example run" in done.stderr


def test_a_damaged_result_is_an_error_of_one_line(folder, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text((folder / "run" / "config.yaml").read_text())
    (tmp_path / "result.json").write_text("{")
    done = inspect(str(tmp_path), folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_watching_ends_with_the_run(folder, tmp_path) -> None:
    """In a pseudo-terminal; the run ends when its ``result.json`` appears."""
    import pty

    (tmp_path / "config.yaml").write_text((folder / "run" / "config.yaml").read_text())
    (tmp_path / "metrics.csv").write_text("step,loss/train\n0,1.0\n7,0.5\n")
    ours, theirs = pty.openpty()
    words = [sys.executable, SCRIPT, "--watch", "--every", "0.1", str(tmp_path)]
    variables = {**environment(), "TERM": "xterm", "COLUMNS": "400"}
    seen = b""

    def read_until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 65536)
            assert len(seen) < 10**6, seen[-2000:]

    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        read_until(b"was killed")
        partial = tmp_path / "result.part"
        partial.write_text((folder / "run" / "result.json").read_text())
        partial.replace(tmp_path / "result.json")
        read_until(b"finished, 15 steps")
        assert process.wait(20) == 0
    os.close(ours)
