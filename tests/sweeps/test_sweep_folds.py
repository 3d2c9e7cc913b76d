"""Sweeps of cross-validations, and the split that the seeds of a sweep share."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.commands import train_forked
from support.leaderboard_records import nested, run
from support.sweep_folders import leaderboard, result

from mlp_lightning.config import SweepConfig, parse_config
from mlp_lightning.ensembles.cross_validation import cross_validate
from mlp_lightning.runs.build import build_data
from mlp_lightning.sweeps.composition import ComposedJob
from mlp_lightning.sweeps.folds import of_fold, with_keys
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards
from mlp_lightning.sweeps.leaderboard.repeat import repeat_command
from mlp_lightning.sweeps.parts import Runs, SweepRun, loss_of
from mlp_lightning.sweeps.records import RunRecord, objective, read_records
from mlp_lightning.sweeps.worker import Outcome

QUICK = ("logger=none", "trainer.max_epochs=8", "trainer.accelerator=cpu", "optimizer.lr=0.02")


@pytest.mark.parametrize("chosen", [[], ["optimizer.lr"]])
def test_a_run_has_of_the_sweep_what_names_it_and_nothing_else(chosen: list[str]) -> None:
    """What says how runs belong together has no effect on one, and ``train`` refuses it."""
    config = parse_config({"sweep": {"name": "w", "resume": True, "fail_fast": True, "keys": chosen}, "seed": 3})
    known: dict[tuple[str, ...], SweepConfig] = {}
    one, other = (with_keys(config, ["seed"], known) for _ in range(2))
    assert one.sweep == SweepConfig(keys=chosen or ["seed"])
    assert one.sweep is other.sweep
    assert one.seed == 3


def noise(folder: Path) -> Path:
    """A table whose target has nothing to do with its columns: the more a network fits it, the worse it predicts."""
    draw = np.random.default_rng(3)
    with (folder / "noise.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["one", "two", "three", "four", "drawn"])
        writer.writerows([*draw.normal(size=4).round(4), ["heads", "tails"][draw.integers(2)]] for _ in range(90))
    return folder / "noise.csv"


def table(*overrides: str) -> list[str]:
    return ["data=table", "data.path=noise.csv", "data.target=drawn", "data.cv.folds=3", *QUICK, *overrides]


def made(folder: Path, *words: str, code: int = 0) -> tuple[Path, str]:
    """The folder and the output of a sweep called ``s``."""
    done = train_forked("-m", *words, "name=n", "sweep.name=s", folder=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return folder / "lightning_logs" / "n" / "s", done.stdout


def held_out_losses(sweep: Path, job: int) -> list[float]:
    return [result(sweep / str(job) / f"fold-{fold}")["metrics"]["test"]["loss"] for fold in range(3)]


# ---- the real command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep over widths of which the widest learns the noise by heart."""
    folder = tmp_path_factory.mktemp("folds")
    noise(folder)
    return made(folder, *table("data.val_fraction=0", "model.hidden_units=2,300", "trainer.max_epochs=60"))


@pytest.mark.slow
def test_rows_held_out_decide_and_not_training_losses(overfitted: tuple[Path, str]) -> None:
    sweep, printed = overfitted
    held_out = [statistics.fmean(held_out_losses(sweep, job)) for job in (0, 1)]
    trained = [
        statistics.fmean(result(sweep / str(job) / f"fold-{fold}")["metrics"]["train"]["loss"] for fold in range(3))
        for job in (0, 1)
    ]
    assert held_out[0] < held_out[1], "the test needs a network that overfits"
    assert trained[0] > trained[1]
    lines = printed.splitlines()
    assert "Sweep of 6 runs (folds of 2 cross-validations)" in lines[0]
    first = lines[lines.index("Leaderboard of noise.csv: best held-out loss first, mean ± sd over folds") + 2]
    sd = statistics.stdev(held_out_losses(sweep, 0))
    assert first.split()[:3] == ["1", "2", "3"]
    assert f"{held_out[0]:.4g} ± {sd:.2g}" in first
    repeat = lines[lines.index("Repeat the best combination (model.hidden_units=2):") + 1]
    assert "-m" not in repeat.split()
    assert "data.cv.fold=" not in repeat
    rows = leaderboard(sweep)
    assert {row["run"] for row in rows} == {f"{job}/fold-{fold}" for job in (0, 1) for fold in range(3)}
    assert [float(row["loss/test"]) for row in rows] == sorted(float(row["loss/test"]) for row in rows)


@pytest.mark.slow
def test_a_job_is_the_cross_validation_that_its_command_makes(
    overfitted: tuple[Path, str], compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = overfitted
    monkeypatch.chdir(sweep.parents[2])
    overrides = ("data.val_fraction=0", "model.hidden_units=2", "trainer.max_epochs=60", "name=n")
    alone = cross_validate(compose_config(*table(*overrides)), tmp_path / "cv")
    for fold, loss in enumerate(held_out_losses(sweep, 0)):
        of_alone = json.loads((tmp_path / "cv" / f"fold-{fold}" / "result.json").read_text())
        assert math.isclose(of_alone["metrics"]["test"]["loss"], loss, rel_tol=1e-4)
    whole = result(sweep / "0")
    assert whole["status"] == alone.status == "finished"
    assert whole["metrics"]["accuracy"]["mean"] == pytest.approx(alone.metrics["accuracy"]["mean"])
    assert whole["metrics"]["accuracy"]["sd"] == pytest.approx(alone.metrics["accuracy"]["sd"])
    of_job, of_alone = (yaml.safe_load((one / "config.yaml").read_text()) for one in (sweep / "0", tmp_path / "cv"))
    assert {**of_job, "sweep": None, "verbosity": None} == {**of_alone, "sweep": None, "verbosity": None}


@pytest.mark.slow
def test_folds_by_hand_are_ranked_like_folds(overfitted: tuple[Path, str], tmp_path: Path) -> None:
    noise(tmp_path)
    words = table("data.val_fraction=0", "model.hidden_units=2,300", "trainer.max_epochs=60", "data.cv.fold=range(3)")
    sweep, printed = made(tmp_path, *words)
    assert "best held-out loss first, mean ± sd over folds" in printed
    by_hand = sorted((row["model.hidden_units"], row["data.cv.fold"], row["loss/test"]) for row in leaderboard(sweep))
    whole = sorted(
        (row["model.hidden_units"], row["data.cv.fold"], row["loss/test"]) for row in leaderboard(overfitted[0])
    )
    for one, other in zip(by_hand, whole, strict=True):
        assert one[:2] == other[:2]
        assert float(one[2]) == pytest.approx(float(other[2]), rel=1e-4)


@pytest.mark.slow
def test_only_the_folds_that_are_not_done_are_trained(tmp_path: Path) -> None:
    noise(tmp_path)
    words = table("model.hidden_units=3,4")
    sweep, _ = made(tmp_path, *words)
    times = {file: file.stat().st_mtime_ns for file in sweep.rglob("fold-*/result.json")}
    unfinished = sweep / "1" / "fold-2"
    (unfinished / "result.json").unlink()
    (sweep / "1" / "result.json").unlink()
    before = leaderboard(sweep)
    sweep, printed = made(tmp_path, *words, "sweep.resume=true")
    assert "Sweep of 1 run (folds of 1 cross-validation), 5 done before" in printed
    assert (sweep / "superseded" / "1-fold-2-1" / "config.yaml").is_file()
    changed = [file for file, time in times.items() if file.stat().st_mtime_ns != time]
    assert changed == [unfinished / "result.json"]
    assert result(sweep / "1")["status"] == "finished"
    assert [(row["run"], row["status"]) for row in leaderboard(sweep)] == [(one["run"], "finished") for one in before]
    _, printed = made(tmp_path, *words, "sweep.resume=true")
    assert "All 6 runs were done before" in printed


@pytest.mark.slow
def test_other_launchers_leave_the_same_folders(tmp_path: Path) -> None:
    noise(tmp_path)
    sweep, printed = made(tmp_path, *table("model.hidden_units=3,4", "seed=1,2", "hydra/launcher=basic"))
    assert "best held-out loss first, mean ± sd over folds and seeds" in printed
    assert {row["run"] for row in leaderboard(sweep)} == {f"{job}/fold-{fold}" for job in range(4) for fold in range(3)}
    for record in read_records([sweep]):
        assert record.config["data"]["split_seed"] == 0
    assert len({tuple(rows) for rows in folds_of(sweep)}) == 3


def folds_of(sweep: Path) -> list[list[int]]:
    """The rows that each fold of each job held out."""
    rows: dict[tuple[str, str], list[int]] = {}
    for file in sweep.glob("*/out_of_fold.csv"):
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                rows.setdefault((file.parent.name, row["fold"]), []).append(int(row["row"]))
    return list(rows.values())


@pytest.mark.slow
def test_a_failed_fold_is_named_and_its_combination_comes_last(tmp_path: Path) -> None:
    noise(tmp_path)
    done = train_forked("-m", *table("optimizer.lr=0.01,1e30", "name=n", "sweep.name=s"), folder=tmp_path)
    assert done.returncode == 1
    assert "Run 1, fold 0 (" in done.stderr
    sweep = tmp_path / "lightning_logs" / "n" / "s"
    assert (result(sweep / "0")["status"], result(sweep / "1")["status"]) == ("finished", "failed")
    assert result(sweep / "1")["metrics"] == {}
    assert "Not finished" in done.stdout


@pytest.mark.slow
def test_a_search_does_not_choose_the_easiest_fold(tmp_path: Path) -> None:
    noise(tmp_path)
    done = train_forked("-m", *table("data.cv.fold=range(3)", "search=random"), folder=tmp_path)
    assert done.returncode == 2
    assert "data.cv.folds trains all of them" in done.stderr


def test_a_search_minimises_the_mean_loss_of_the_rows_held_out(compose_config: Any, tmp_path: Path) -> None:
    config = compose_config("data=moons", "data.cv.folds=2")
    job = ComposedJob(0, (), tmp_path, config.to_dict(), None, None)

    def outcome(held_out: float) -> Outcome:
        losses = {"train": 1 - held_out, "val": 7.0, "test": held_out}
        return Outcome("finished", {split: {"loss": loss} for split, loss in losses.items()})

    runs: Runs = [(SweepRun(job, tmp_path, of_fold(config, fold), fold, outcome(0.25 + fold)), None) for fold in (0, 1)]
    assert loss_of(runs) == 0.75
    runs[1][0].outcome = Outcome("failed", {})
    assert loss_of(runs) == math.inf
    assert objective({"train": {"loss": 0.5}, "val": {"loss": 0.6}, "test": {"loss": 0.7}}, held_out=False) == 0.6
    assert objective({"train": {"loss": 0.5}}, held_out=False) == 0.5


# ---- one split for all seeds -----------------------------------------------------------------------------


@pytest.mark.slow
def test_seeds_of_a_sweep_share_their_split(tmp_path: Path, compose_config: Any) -> None:
    words = ("data=moons", "data.samples=60", "trainer.max_epochs=2", "logger=none")
    sweep, printed = made(tmp_path, *words, "seed=3,4", "model.hidden_units=2,3")
    assert "12 runs" not in printed
    configs = [record.config for record in read_records([sweep])]
    assert [(one["seed"], one["data"]["split_seed"]) for one in configs] == [(3, 0), (3, 0), (4, 0), (4, 0)]
    repeat = next(line for line in printed.splitlines() if " data.split_seed=0" in line)
    assert " -m " in repeat
    assert "seed=3,4" in repeat
    plain = [compose_config(*words, "seed=3"), compose_config(*words, "seed=0"), compose_config(*words, "seed=4")]
    fixed = [compose_config(*words, f"seed={seed}", "data.split_seed=0") for seed in (3, 4)]
    rows = [build_data(one).row_numbers["val"].tolist() for one in (*plain, *fixed)]
    assert rows[0] != rows[1] != rows[2], "by default the seed decides the split of a single run"
    assert rows[3] == rows[4] == rows[1]


@pytest.mark.slow
def test_a_split_that_follows_the_seed_can_be_asked_for(tmp_path: Path) -> None:
    words = ("data=moons", "data.samples=60", "trainer.max_epochs=2", "logger=none", "data.split_seed=${seed}")
    sweep, printed = made(tmp_path, *words, "seed=3,4")
    assert [one.config["data"]["split_seed"] for one in read_records([sweep])] == [3, 4]
    assert "'data.split_seed=${seed}'" in printed
    # Where nothing is drawn, nothing is fixed.
    other = tmp_path / "other"
    other.mkdir()
    sweep, _ = made(other, "data=xor", "seed=3,4", "trainer.max_steps=20", "logger=none")
    assert [one.config["data"]["split_seed"] for one in read_records([sweep])] == [None, None]


def test_the_seed_of_a_run_changes_neither_its_split_nor_its_folds(compose_config: Any) -> None:
    for options in ((), ("data.cv.folds=4", "data.cv.fold=2")):
        words = ("data=moons", "data.samples=80", *options)
        first, second = (build_data(compose_config(*words, f"seed={seed}", "data.split_seed=9")) for seed in (1, 2))
        for split, rows in first.row_numbers.items():
            np.testing.assert_array_equal(rows, second.row_numbers[split])
        alone = build_data(compose_config(*words, "seed=9"))
        np.testing.assert_array_equal(alone.row_numbers["train"], first.row_numbers["train"])


# ---- lines over folds and seeds --------------------------------------------------------------------------


def fold(number: int, fold: int, held_out: float, folds: int = 3, **swept: Any) -> RunRecord:
    """A fold of a job, whose training loss says the opposite of its held-out loss."""
    record = run(number, 1 - held_out, None, **swept)
    config: dict[str, Any] = nested({"data.name": "iris", "data.cv.folds": folds, "data.cv.fold": fold, "seed": 0})
    for key, value in record.config.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    metrics = {**record.metrics, "test": {"loss": held_out}}
    folder = record.folder / f"fold-{fold}"
    return RunRecord(number, folder, "finished", record.overrides, config, metrics)


def three_folds(*jobs: tuple[int, Sequence[float]], **swept: Any) -> list[RunRecord]:
    records = []
    for number, losses in jobs:
        records += [fold(number, one, loss, model__depth=number, **swept) for one, loss in enumerate(losses)]
    return records


def test_how_far_the_best_is_from_the_next() -> None:
    """Folds differ much from each other, and little in how much better the best is: that counts."""
    first, second = [0.1, 0.5, 0.3], [0.13, 0.54, 0.32]
    (board,) = build_leaderboards(three_folds((0, second), (1, first)), Path("/logs"))
    assert board.ranked_by == "loss/test"
    assert [line.values["model.depth"] for line in board.lines] == [1, 0]
    assert board.gap is not None
    differences = [b - a for a, b in zip(first, second, strict=True)]
    assert board.gap.difference == pytest.approx(np.mean(differences))
    assert board.gap.standard_error == pytest.approx(np.std(differences, ddof=1) / np.sqrt(3))
    assert board.gap.count == 3


def test_seeds_on_the_same_folds_are_no_further_evidence() -> None:
    records = three_folds((0, [0.1, 0.5, 0.3]), (1, [0.2, 0.55, 0.34]))
    (once,) = build_leaderboards(records, Path("/logs"))
    again = [fold(one.number or 0, i % 3, one.metrics["test"]["loss"]) for i, one in enumerate(records)]
    configs = [
        {**one.config, "seed": 1, "data": {**one.config["data"], "split_seed": 0}, "model": one.config["model"]}
        for one in records
    ]
    first = [
        RunRecord(one.number, one.folder, one.status, one.overrides, {**config, "seed": 0}, one.metrics)
        for one, config in zip(records, configs, strict=True)
    ]
    more = [
        RunRecord(9 + (one.number or 0), one.folder, one.status, (*one.overrides, "seed=1"), config, other.metrics)
        for one, config, other in zip(records, configs, again, strict=True)
    ]
    (twice,) = build_leaderboards([*first, *more], Path("/logs"))
    assert [len(line.runs) for line in twice.lines] == [6, 6]
    assert once.gap is not None
    assert twice.gap is not None
    assert (twice.gap.count, twice.gap.standard_error) == (3, pytest.approx(once.gap.standard_error))


def test_without_the_hardest_fold_a_combination_is_not_the_best() -> None:
    records = three_folds((0, [0.1, 0.2, 0.9]), (1, [0.3, 0.3, 0.3]))
    lost = records[2]
    records[2] = RunRecord(lost.number, lost.folder, "failed", lost.overrides, lost.config, {}, error="nan")
    records = [*records, *three_folds((2, [0.4, 0.4, 0.4]))]
    (board,) = build_leaderboards(records, Path("/logs"))
    assert [line.values["model.depth"] for line in board.lines] == [1, 2, 0]
    assert board.lines[2].unfinished == 1


def test_command_of_a_combination() -> None:
    records = [fold(0, one, 0.5) for one in range(3)]
    (board,) = build_leaderboards(records, Path("/logs"))
    assert repeat_command(board.lines[0], "p") == "p data=iris"
    some = [
        RunRecord(i, one.folder, "finished", (f"data.cv.fold={i}",), one.config, one.metrics)
        for i, one in enumerate(records[:2])
    ]
    (board,) = build_leaderboards(some, Path("/logs"))
    assert repeat_command(board.lines[0], "p hydra.mode=RUN") == "p -m data.cv.fold=0,1"
