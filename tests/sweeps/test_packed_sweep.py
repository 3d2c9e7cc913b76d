"""Packed sweeps by the commands: nothing that reads a sweep can tell them from those with folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import ROOT, TRAIN, run_forked, train_forked
from support.sweep_folders import leaderboard_without_times

from mlp_lightning import load_sweep
from mlp_lightning.sweeps.packing import PACKED_ABOVE, is_packed
from mlp_lightning.sweeps.records import read_records

pytestmark = pytest.mark.slow

SWEEP = ("-m", "data=iris", "trainer.max_epochs=8", "model.hidden_units=3,5", "seed=0,1", "optimizer.lr=0.1")
UNPACK, LEADERBOARD, EVALUATE, PREDICT, EXPORT = (
    str(ROOT / "scripts" / f"{name}.py") for name in ("unpack", "leaderboard", "evaluate", "predict", "export")
)
OF_TIMES = ["wall_time_s", "folder", "sweep.store"]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same sweep twice, ``folders`` and ``packed``."""
    folder = tmp_path_factory.mktemp("sweeps")
    for store in ("folders", "packed"):
        (folder / store).mkdir()
        words = *SWEEP, "sweep.name=s", f"sweep.store={store}"
        done = train_forked(*words, folder=folder / store)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def packed(sweeps: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the packed sweep in the folder of a command."""
    shutil.copytree(sweeps / "packed", tmp_path / "work")
    yield tmp_path / "work" / "lightning_logs" / "iris" / "s"
    shutil.rmtree(tmp_path / "work")


def sweep_of(folder: Path) -> Path:
    return folder / "lightning_logs" / "iris" / "s"


def names(sweep: Path) -> list[str]:
    return sorted(one.name for one in sweep.iterdir() if one.is_dir())


def test_leaderboards_are_equal(sweeps: Path) -> None:
    assert names(sweep_of(sweeps / "packed")) == ["packed"]
    assert names(sweep_of(sweeps / "folders")) == ["0", "1", "2", "3"]
    boards = [leaderboard_without_times(sweep_of(sweeps / store)) for store in ("folders", "packed")]
    assert boards[0] == boards[1]
    done = run_forked(LEADERBOARD, "lightning_logs/iris/s", folder=sweeps / "packed")
    assert done.returncode == 0, done.stderr
    assert leaderboard_without_times(sweep_of(sweeps / "packed")) == boards[0]


@pytest.mark.parametrize("curves", [False, True])
def test_data_frames_are_equal(curves: bool, sweeps: Path) -> None:
    frames = [load_sweep(sweep_of(sweeps / one), curves=curves, library="pandas") for one in ("folders", "packed")]
    first, second = (one.drop(columns=[name for name in OF_TIMES if name in one]) for one in frames)
    assert len(first) > 4 if curves else len(first) == 4
    assert first.equals(second)
    one = sweep_of(sweeps / "packed") / "2"
    assert load_sweep(one, library="pyarrow")["model.hidden_units"].to_pylist() == [5]


def test_records_say_where_a_run_would_be(sweeps: Path) -> None:
    both = [read_records([sweep_of(sweeps / store)]) for store in ("folders", "packed")]
    for one, other in zip(*both, strict=True):
        assert (one.number, one.status, one.metrics) == (other.number, other.status, other.metrics)
        assert [*other.overrides[:-1], "sweep.store=folders"] == list(one.overrides)
        assert one.folder.name == other.folder.name
        assert not other.folder.exists()


def test_a_sweep_is_resumed(packed: Path) -> None:
    files = sorted(one.name for one in (packed / "packed").iterdir())
    words = *SWEEP[:-2], "seed=0,1,2", "optimizer.lr=0.1", "sweep.name=s", "sweep.store=packed", "sweep.resume=true"
    done = train_forked(*words, folder=packed.parents[2])
    assert done.returncode == 0, done.stderr
    assert "Sweep of 2 runs, 4 done before" in done.stdout
    assert {one.name for one in (packed / "packed").iterdir()} >= {*files}
    records = read_records([packed])
    assert [(one.number, one.config["seed"], one.config["model"]["hidden_units"]) for one in records] == [
        *((0, 0, 3), (1, 1, 3), (2, 0, 5), (3, 1, 5)),
        *((4, 2, 3), (5, 2, 5)),
    ]
    again = train_forked(*words, folder=packed.parents[2])
    assert "were done before" in again.stdout
    assert len(read_records([packed])) == 6


def test_unpack(packed: Path, sweeps: Path) -> None:
    folder = packed.parents[2]
    for words, message in {
        ("lightning_logs/iris/s",): "Name the runs",
        ("lightning_logs/iris/s", "0", "--all"): "Name the runs",
        ("lightning_logs/iris/s", "0", "--best", "1"): "Name the runs",
        ("lightning_logs/iris/s", "--best", "0"): "Name the runs",
        ("lightning_logs/iris/s", "0", "11"): "'11' is not one of the 4 there",
        ("lightning_logs/iris", "0"): "not the folder of a packed sweep",
    }.items():
        done = run_forked(UNPACK, *words, folder=folder)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert names(packed) == ["packed"]
    assert run_forked(UNPACK, "lightning_logs/iris/s", "2", "0", folder=folder).stdout.count("Unpacked: ") == 2
    assert names(packed) == ["0", "2", "packed"]
    done = run_forked(UNPACK, "lightning_logs/iris/s", "2", folder=folder)
    assert (done.returncode, "has its folder already" in done.stderr) == (2, True)
    done = run_forked(UNPACK, "lightning_logs/iris/s", "--best", "1", "--out", "elsewhere", folder=folder)
    losses = {one.folder.name: one.metrics["val"]["loss"] for one in read_records([packed]) if one.folder.name in "13"}
    assert [one.name for one in (folder / "elsewhere").iterdir()] == [min(losses, key=losses.__getitem__)], done.stderr
    shutil.rmtree(folder / "elsewhere")
    assert run_forked(UNPACK, "lightning_logs/iris/s", "--all", folder=folder).returncode == 0
    assert names(packed) == ["0", "1", "2", "3", "packed"]
    hydra = [(one / "2" / ".hydra" / "config.yaml").read_text() for one in (packed, sweep_of(sweeps / "folders"))]
    assert hydra[0] == hydra[1].replace("store: folders", "store: packed")
    assert len(read_records([packed])) == 4
    done = run_forked(LEADERBOARD, "lightning_logs/iris/s", folder=folder)
    assert leaderboard_without_times(packed) == leaderboard_without_times(sweep_of(sweeps / "folders"))


def test_commands_take_a_packed_run(packed: Path, sweeps: Path) -> None:
    folder, run = packed.parents[2], "lightning_logs/iris/s"
    reports = [
        run_forked(EVALUATE, f"ckpt_path={run}/1", f"output={store}", folder=where)
        for store, where in (("out", folder), ("out", sweeps / "folders"))
    ]
    assert [one.returncode for one in reports] == [0, 0], reports[0].stderr
    metrics = [json.loads((one / "out" / "metrics.json").read_text()) for one in (folder, sweeps / "folders")]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]
    (folder / "new.csv").write_text(
        "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm\n5,3,1,0.2\n", encoding="utf-8"
    )
    words = f"ckpt_path={run}/2/checkpoints/last.ckpt", "data.path=new.csv", "output=p.csv"
    done = run_forked(PREDICT, *words, folder=folder)
    assert done.returncode == 0, done.stderr
    done = run_forked(EXPORT, f"ckpt_path={run}/3", folder=folder)
    assert (done.returncode, (packed / "3" / "model.safetensors").is_file()) == (0, True), done.stderr
    options = "data=iris", "data.split_seed=0", "trainer.max_epochs=10", "model.hidden_units=3", "optimizer.lr=0.1"
    done = train_forked(*options, f"ckpt_path={run}/0", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "Continuing from step 8 of" in done.stdout
    assert names(packed) == ["0", "1", "2", "3", "packed"]
    done = run_forked(EVALUATE, f"ckpt_path={run}/4", folder=folder)
    assert done.returncode == 2
    assert "is not a file" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "data=iris", "seed=0,1", "sweep.store=packed", "hydra/launcher=basic"], "makes a folder for every run"),
        (["-m", "data=iris", "seed=0,1", "sweep.store=packed", "data.cv.folds=3"], "keeps its folds in folders"),
        (["data=iris", "sweep.store=packed"], "this is a single run"),
        (["-m", "data=iris", "seed=0,1", "sweep.store=zip"], "auto, folders, packed"),
    ],
)
def test_refusals(words: list[str], message: str, tmp_path: Path) -> None:
    done = run_forked(TRAIN[-1], *words, folder=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_runs_decides() -> None:
    assert is_packed("auto", PACKED_ABOVE + 1, has_folds=False)
    assert not is_packed("auto", PACKED_ABOVE, has_folds=False)
    assert not is_packed("auto", PACKED_ABOVE + 1, has_folds=True)
    assert not is_packed("folders", 10**6, has_folds=False)
    assert is_packed("packed", 1, has_folds=False)


def test_a_run_that_is_not_in_a_stack_has_a_folder(tmp_path: Path) -> None:
    words = "-m", "data=iris", "trainer.max_epochs=2", "sweep.store=packed", "sweep.name=s"
    done = train_forked(*words, "seed=0", "optimizer.lr=0.1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert names(sweep_of(tmp_path)) == ["0"]


def test_runs_that_cannot_begin_have_folders(tmp_path: Path) -> None:
    """The table has a class with a single row, until it is mended."""
    table = tmp_path / "t.csv"
    rows = [f"{row / 3},{'ab'[row % 2]}" for row in range(40)]
    table.write_text("\n".join(["x,y", *rows, "1.5,c"]) + "\n")
    words = ["-m", "data=table", f"data.path={table}", "data.target=y", "trainer.max_epochs=2", "name=iris"]
    words += ["trainer.accelerator=cpu", "sweep.store=packed", "sweep.name=s", "seed=0,1"]
    done = train_forked(*words, folder=tmp_path)
    assert done.returncode == 1
    records = read_records([sweep_of(tmp_path)])
    assert [(one.number, one.status) for one in records] == [(0, "failed"), (1, "failed")]
    table.write_text("\n".join(["x,y", *rows]) + "\n")
    done = train_forked(*words, "sweep.resume=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one.status for one in read_records([sweep_of(tmp_path)])].count("finished") == 2
