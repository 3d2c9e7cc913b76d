"""Searches by the real command: which trials train, which leave, and what a killed search ends with."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import time
from pathlib import Path

import pytest
import torch
from support.commands import start_forked, train_forked
from support.sweep_folders import leaderboard, leaderboard_without_times, numbers, result, statuses

from mlp_lightning import load_sweep

pytestmark = pytest.mark.slow

IRIS = ("-m", "data=iris", "trainer.max_epochs=45", "sweep.name=s")
# Two depths are two stacks.
HALVING = (*IRIS, "search=halving", "search.trials=12", "model.depth=1,2", "trainer.max_epochs=900")


def searched(folder: Path, *overrides: str, name: str = "iris") -> Path:
    done = train_forked(*overrides, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    sweep = folder / "lightning_logs" / name / "s"
    (sweep / "printed.txt").write_text(done.stdout)
    return sweep


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("halved"), *HALVING)


# ---- random ----------------------------------------------------------------------------------------------


def test_random_trials_are_those_of_a_sweep_over_the_same_points(tmp_path: Path) -> None:
    sweep = searched(tmp_path, *IRIS, "search=random", "search.trials=4", "search.batch=3", "search.seed=5")
    rows = sorted(leaderboard(sweep), key=lambda row: int(row["run"]))
    assert (sweep / "printed.txt").read_text().count("Sweep of ") == 2
    assert [row["status"] for row in rows] == ["finished"] * 4
    assert not (sweep / "compared.jsonl").exists()
    for row in rows:
        assert 0.001 <= float(row["optimizer.lr"]) <= 1
        assert 4 <= int(row["model.hidden_units"]) <= 64
    repeated = (sweep / "printed.txt").read_text().split("Repeat the best run")[1].splitlines()[1].split("train.py ")[1]
    alone = train_forked(*repeated.split(), "name=alone", folder=tmp_path)
    assert alone.returncode == 0
    (run,) = (tmp_path / "lightning_logs" / "alone").iterdir()
    best = min(rows, key=lambda row: float(row["loss/val"]))
    assert result(run)["metrics"]["val"]["loss"] == pytest.approx(float(best["loss/val"]), abs=1e-5)
    assert result(run)["config_hash"] == result(sweep / best["run"])["config_hash"]


def test_a_search_with_folds_ranks_by_the_rows_held_out(tmp_path: Path) -> None:
    folds = ("data.cv.folds=3", "trainer.max_epochs=10")
    sweep = searched(
        tmp_path,
        *IRIS,
        *folds,
        "search=random",
        "search.trials=3",
        "search/space=none",
        "optimizer.lr=interval(0.01,1)",
    )
    means = {}
    for number in ("0", "1", "2"):
        losses = [result(sweep / number / f"fold-{fold}")["metrics"]["test"]["loss"] for fold in range(3)]
        means[number] = sum(losses) / 3
    best = leaderboard(sweep)
    assert {row["status"] for row in best} == {"finished"}
    printed = (sweep / "printed.txt").read_text()
    assert "best held-out loss first" in printed
    winner = min(means, key=lambda number: means[number])
    assert result(sweep / winner)["metrics"]["loss"]["mean"] == pytest.approx(means[winner])
    (rate,) = {row["optimizer.lr"] for row in best if row["run"].startswith(f"{winner}/")}
    assert f"optimizer.lr={rate}" in printed.split("Repeat the best")[1]


# ---- halving ---------------------------------------------------------------------------------------------


def test_trials_that_fall_behind_leave_their_stack(halved: Path) -> None:
    status = {number: result(halved / number)["status"] for number in numbers(halved)}
    finished, pruned = ([one for one in status if status[one] == which] for which in ("finished", "pruned"))
    assert len(finished) + len(pruned) == 12
    assert 1 <= len(finished) <= 4
    compared = [json.loads(line) for line in (halved / "compared.jsonl").read_text().splitlines()]
    # 12 trials: two looks, after 1/9 and 1/3 of 900 epochs.
    assert {one["progress"][0] for one in compared} == {100, 300}
    for number in pruned:
        content = result(halved / number)
        assert content["metrics"] == {}
        assert content["epochs"] in (100, 300)
        assert f"after {content['epochs']} of 900 epochs: rank " in content["stopped_by"]
        assert (halved / number / "checkpoints" / "last.ckpt").is_file()
    rows = leaderboard(halved)
    assert [row["status"] for row in rows] == ["finished"] * len(finished) + ["pruned"] * len(pruned)
    for row in rows[len(finished) :]:
        assert row["rank"] == row["loss/val"] == ""
        assert "go further" in row["error"]
    frame = load_sweep(halved, library="pyarrow").to_pylist()
    assert {row["run"] for row in frame if row["status"] == "pruned"} == {int(one) for one in pruned}
    assert all((row["loss/val"] is None) == (row["status"] == "pruned") for row in frame)
    printed = (halved / "printed.txt").read_text()
    assert f"{len(pruned)} trials were pruned" in printed
    assert "Not finished" not in printed


def test_halving_repeats_and_continues(halved: Path, tmp_path: Path) -> None:
    """The same trials end with the same bits, wherever the search was killed."""
    began = time.monotonic()
    again = searched(tmp_path, *HALVING)
    seconds = time.monotonic() - began
    assert leaderboard_without_times(again) == leaderboard_without_times(halved)
    draw, kills, attempt = random.Random(1), 0, 0
    while kills < 4:
        attempt += 1
        folder = tmp_path / f"killed-{attempt}"
        folder.mkdir()
        while kills < 4:
            process = start_forked(*HALVING, "sweep.resume=true", folder=folder)
            try:
                done = process.finished(draw.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
            assert (done.returncode, done.stderr) == (0, "")
            break
        else:
            assert train_forked(*HALVING, "sweep.resume=true", folder=folder).returncode == 0
        sweep = folder / "lightning_logs" / "iris" / "s"
        assert leaderboard_without_times(sweep) == leaderboard_without_times(halved)
        best = leaderboard(sweep)[0]["run"]
        for name, tensor in weights(halved / best).items():
            assert torch.equal(tensor, weights(sweep / best)[name])
    assert statuses(sweep) == statuses(halved)


def test_another_search_does_not_continue_in_its_folder(halved: Path) -> None:
    changes = {
        "search.trials=13": "search.trials",
        "search.seed=3": "search.seed",
        "model.depth=1,3": "search/space",
        "trainer.max_epochs=90": "overrides",
    }
    for change, key in changes.items():
        done = train_forked(*HALVING, change, "sweep.resume=true", folder=halved.parents[2])
        assert done.returncode == 2
        assert f"  {key} = " in done.stderr
        assert "when this search began; ask for the same, or begin anew" in done.stderr
    assert len(leaderboard(halved)) == 12


# ---- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search=random", "seed=1,2"), "seed = 1 would be searched for the luckiest"),
        (("search=random", "data.val_fraction=0.2,0.4"), "would be searched for the rows that are easiest"),
        (("search=random", "data=iris,moons"), "would be searched for the rows that are easiest"),
        (("search=random", "verbosity=1,2"), "cannot be searched: it says nothing of the model"),
        (("search=halving", "data.cv.folds=3"), "compares them by the rows that are held out; use search=random"),
        (("search=random", "search.pruner=median", "data.cv.folds=3"), "use search.pruner=none"),
        (("search=random", "search.pruner=asha", "data.val_fraction=0"), "there are no validation rows"),
        (("search=halving", "trainer.max_epochs=1"), "compares trials at validations before their last"),
        (("search=halving", "search.time_limit_s=9"), "search.time_limit_s = 9.0 has no effect"),
        (("search=random", "search.trials=9", "search.time_limit_s=9"), "all 9 trials are one batch"),
        (("search=random", "search.reduction_factor=4"), "search.pruner is none"),
        (("search=random", "optimizer.lr=0.1", "model.hidden_units=5"), "every key has one value"),
        (("search=random", "search/space=none", "model.hidden_units=1,2"), "more than the 2 points"),
        (("search=random", "optimizer.lr=tag(log,interval(0,1))"), "its lower end must be above 0"),
        (("search=random", "optimizer.lr=interval(-1,1)"), "optimizer.lr = -1.0 must be at least 0"),
        (("search=random", "hydra/launcher=basic"), "hydra/launcher = 'basic' contradicts search=random"),
        (("search=random", "search.pruner=asha", "hydra.launcher.n_jobs=2"), "use 1, or search.pruner=none"),
        (("search.trials=4",), "search.trials = 4 is of a search"),
        (("search=random", "search.trials=0"), "search.trials = 0 must be between 1 and"),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = train_forked(*IRIS, *words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.skipif(importlib.util.find_spec("optuna") is not None, reason="Optuna is installed")
def test_what_to_install(tmp_path: Path) -> None:
    done = train_forked(*IRIS, "search=optuna", folder=tmp_path)
    said = "search = 'optuna' needs Optuna, which is not installed; pip install 'mlp-lightning[optuna]'"
    assert (done.returncode, said in done.stderr) == (2, True)
    assert not (tmp_path / "lightning_logs").exists()


def test_a_packed_search_is_one_with_folders(tmp_path: Path) -> None:
    words = (*IRIS, "search=random", "search.pruner=hyperband", "search.trials=9")
    rows = []
    for store in ("folders", "packed"):
        (tmp_path / store).mkdir()
        sweep = searched(tmp_path / store, *words, f"sweep.store={store}")
        rows.append(leaderboard_without_times(sweep))
    assert rows[0] == rows[1]
    assert b"pruned" in rows[0]
    again = train_forked(*words, "sweep.store=packed", "sweep.resume=true", folder=tmp_path / "packed")
    assert "All 9 runs were done before" in again.stdout
    assert leaderboard_without_times(sweep) == rows[0]


def test_a_single_run_does_not_search(tmp_path: Path) -> None:
    done = train_forked("search=random", "data=iris", folder=tmp_path)
    assert done.returncode == 2
    assert "search = 'random' has no effect: this is a single run; add -m for a sweep" in done.stderr
    assert not (tmp_path / "lightning_logs").exists()
