"""Which runs are done, read from their folders, and that no folder is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlp_lightning.config import Config, parse_config
from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.run_folder import RunFolder, claim
from mlp_lightning.sweeps.ledger import Ledger, Placement, sweep_lock


def config(seed: int = 0, **sections: object) -> Config:
    return parse_config({"seed": seed, "trainer": {"max_steps": 5}, **sections})


def made(folder: Path, of: Config, status: str | None = "finished") -> Path:
    """The folder of a run with the given final status; ``None`` for one that has not ended."""
    claimed = claim(folder, of)
    if status is not None:
        claimed.write_result({"status": status, "metrics": {"train": {"loss": 0.5}}, "steps": 5})
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def placed(ledger: Ledger, *wanted: tuple[Config, int]) -> list[tuple[str, bool]]:
    """For each run its number and whether it is done."""
    placements = [ledger.place(of, ledger.folder / str(number)) for of, number in wanted]
    assert all(one.folder.parent == ledger.folder for one in placements)
    return [(one.folder.name, one.done is not None) for one in placements]


def test_new_sweep(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "sweep", resume=False)
    assert placed(ledger, (config(1), 0), (config(2), 1)) == [("0", False), ("1", False)]
    assert not (tmp_path / "sweep").exists(), "place() creates nothing"


# ---- done or not -----------------------------------------------------------------------------------------


def test_finished_run_is_done(tmp_path: Path) -> None:
    folder = made(tmp_path / "0", config())
    before = content(tmp_path)
    placement = Ledger(tmp_path, resume=True).place(config(), tmp_path / "0")
    assert placement.folder == folder
    assert placement.done is not None
    assert (placement.done.status, placement.done.metrics) == ("finished", {"train": {"loss": 0.5}})
    assert content(tmp_path) == before


@pytest.mark.parametrize("status", ["failed", "interrupted", None])
def test_run_that_is_not_done_moves_away(status: str | None, tmp_path: Path) -> None:
    made(tmp_path / "4", config(), status)
    before = content(tmp_path / "4")
    assert Ledger(tmp_path, resume=True).place(config(), tmp_path / "0") == Placement(tmp_path / "4")
    assert content(tmp_path / "superseded" / "4-1") == before
    claim(tmp_path / "4", config())  # it is free


def test_every_attempt_is_kept(tmp_path: Path) -> None:
    kept = []
    for attempt in (1, 2, 3):
        made(tmp_path / "0", config(), "failed")
        (tmp_path / "0" / "train.log").write_text(f"attempt {attempt}")
        assert placed(Ledger(tmp_path, resume=True), (config(), 0)) == [("0", False)]
        kept = [tmp_path / "superseded" / f"0-{number}" / "train.log" for number in range(1, attempt + 1)]
    assert [one.read_text() for one in kept] == ["attempt 1", "attempt 2", "attempt 3"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"status": "perhaps"}', '{"status": "finished", "metrics": {"train": {"loss": "low"}}}', "\xff"],
)
def test_run_with_a_damaged_result_is_not_done(text: str, tmp_path: Path) -> None:
    made(tmp_path / "0", config(), None)
    RunFolder(tmp_path / "0").result.write_text(text, encoding="latin-1")
    assert placed(Ledger(tmp_path, resume=True), (config(), 0)) == [("0", False)]
    assert (tmp_path / "superseded" / "0-1" / "result.json").read_text(encoding="latin-1") == text


@pytest.mark.parametrize("text", ["", "seed: [", "seed: minus\n", "- seed\n", "\xff", "seed: 0\nmodel: 3\n"])
def test_run_with_a_damaged_configuration_is_trained_again(text: str, tmp_path: Path) -> None:
    """Like a run that was killed while it claimed its folder."""
    made(tmp_path / "0", config())
    RunFolder(tmp_path / "0").config.write_text(text, encoding="latin-1")
    made(tmp_path / "1", config(1))
    ledger = Ledger(tmp_path, resume=True)
    assert placed(ledger, (config(), 0), (config(1), 1)) == [("0", False), ("1", True)]
    assert not (tmp_path / "0").exists()
    assert (tmp_path / "superseded" / "0-1" / "config.yaml").read_text(encoding="latin-1") == text


def test_other_folders_are_ignored(tmp_path: Path) -> None:
    made(tmp_path / "superseded" / "0-1", config())
    (tmp_path / "0" / ".hydra").mkdir(parents=True)  # killed before it was claimed
    (tmp_path / "multirun.yaml").touch()
    assert placed(Ledger(tmp_path, resume=True), (config(), 0)) == [("0", False)]
    claim(tmp_path / "0", config())


def test_without_resume_nothing_is_done(tmp_path: Path) -> None:
    made(tmp_path / "0", config())
    before = content(tmp_path)
    assert placed(Ledger(tmp_path, resume=False), (config(), 0)) == [("1", False)]
    assert content(tmp_path) == before


# ---- what makes a run the same ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"verbosity": 0},
        {"sweep": {"name": "mine", "resume": True, "fail_fast": True}},
        {"logger": {"tensorboard": False, "graph": False}},
        {"trainer": {"max_steps": 5, "print_every_n_steps": 1}},
        {"data": {"suggested_lr": {"adam": 1.0}}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_name_and_output_of_a_run_do_not_matter(sections: dict[str, object], tmp_path: Path) -> None:
    made(tmp_path / "0", config())
    assert config(**sections) != config()
    assert placed(Ledger(tmp_path, resume=True), (config(**sections), 0)) == [("0", True)]


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"model": {"hidden_units": 11}},
        {"model": {"activation": "tanh"}},
        {"optimizer": {"lr": 0.1000001}},
        {"optimizer": {"weight_decay": 0.1}},
        {"trainer": {"max_steps": 6}},
        {"data": {"name": "iris"}},
        {"report_weights": "best"},
        {"callbacks": {"lr_monitor": False}},
    ],
    ids=str,
)
def test_any_other_value_is_another_run(sections: dict[str, object], tmp_path: Path) -> None:
    made(tmp_path / "0", config())
    before = content(tmp_path)
    other = parse_config({"seed": 0, "trainer": {"max_steps": 5}, **sections})
    assert placed(Ledger(tmp_path, resume=True), (other, 0)) == [("1", False)]
    assert content(tmp_path) == before


# ---- numbers ---------------------------------------------------------------------------------------------


def test_numbers_stay_when_a_sweep_is_extended(tmp_path: Path) -> None:
    for number in (0, 1):
        made(tmp_path / str(number), config(number))
    wanted = [(config(seed), number) for number, seed in enumerate((5, 0, 6, 1, 7))]
    numbers = placed(Ledger(tmp_path, resume=True), *wanted)
    assert numbers[1] == ("0", True)
    assert numbers[3] == ("1", True)
    new = [number for number, done in numbers if not done]
    assert len(set(new)) == 3
    assert not set(new) & {"0", "1"}


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_sweep_continues_with_new_runs_only(count: int, tmp_path: Path) -> None:
    """New runs get unused, distinct numbers."""
    for number in (0, 1):
        made(tmp_path / str(number), config(number))
    wanted = [(config(10 + number), number) for number in range(count)]
    numbers = placed(Ledger(tmp_path, resume=True), *wanted)
    assert sorted(int(number) for number, _ in numbers) == list(range(2, 2 + count))
    assert not any(done for _, done in numbers)
    assert not (tmp_path / "superseded").exists()


def test_repeated_run_and_new_runs_have_different_folders(tmp_path: Path) -> None:
    made(tmp_path / "0", config(0), "failed")
    made(tmp_path / "1", config(1))
    numbers = placed(Ledger(tmp_path, resume=True), (config(7), 0), (config(0), 1), (config(1), 2))
    assert numbers[1:] == [("0", False), ("1", True)]
    assert numbers[0][0] not in ("0", "1")


def test_new_run_does_not_take_the_number_of_a_repeated_one(tmp_path: Path) -> None:
    made(tmp_path / "0", config(0), "failed")
    assert placed(Ledger(tmp_path, resume=True), (config(0), 1), (config(7), 0)) == [("0", False), ("1", False)]
    assert [one.name for one in (tmp_path / "superseded").iterdir()] == ["0-1"]


def test_equal_runs_keep_their_numbers(tmp_path: Path) -> None:
    """A sweep may have a run twice; each counts once."""
    made(tmp_path / "0", config())
    made(tmp_path / "1", config(), "failed")
    wanted = [(config(), 0), (config(), 1), (config(), 2)]
    assert placed(Ledger(tmp_path, resume=True), *wanted) == [("0", True), ("1", False), ("2", False)]
    assert (tmp_path / "superseded" / "1-1" / "result.json").is_file()


def test_run_that_cannot_be_composed_takes_no_folder_of_another(tmp_path: Path) -> None:
    made(tmp_path / "0", config())
    before = content(tmp_path)
    ledger = Ledger(tmp_path, resume=True)
    assert ledger.free(tmp_path / "0") == tmp_path / "1"
    assert ledger.free(tmp_path / "5") == tmp_path / "5"
    assert content(tmp_path) == before


# ---- one process at a time -------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from mlp_lightning.sweeps.ledger import sweep_lock
with sweep_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs a sweep in the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "sweep")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_process_is_refused(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    for _ in range(2):
        with (
            pytest.raises(RunFolderError, match="Another process runs a sweep in ") as raised,
            sweep_lock(folder),
        ):
            pass
        assert "sweep.name" in str(raised.value), "the message has a remedy"
    with sweep_lock(tmp_path / "other"):
        pass


def test_lock_ends_with_its_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait(10)
    with sweep_lock(tmp_path / "sweep"):
        pass


def test_lock_is_free_after_its_context(tmp_path: Path) -> None:
    with pytest.raises(KeyError), sweep_lock(tmp_path / "sweep"):
        raise KeyError
    for _ in range(2):
        with sweep_lock(tmp_path / "sweep"):
            pass
    # On POSIX the file is kept: another process may already hold this lock.
    if os.name == "posix":
        assert [path.name for path in (tmp_path / "sweep").iterdir()] == [".lock"]
