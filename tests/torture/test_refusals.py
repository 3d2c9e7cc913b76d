"""A command that is refused, however late, leaves nothing and ends with exit code 2 and one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import only_run, train_forked

TABLE = [
    "data=table",
    "data.path=table.csv",
    "data.target=y",
    "trainer.max_steps=6",
    "logger.graph=false",
    "scheduler=none",
]


def write_table(folder: Path, rows: int) -> None:
    lines = [f"{number % 7},{number % 5},{'ab'[number % 2]}\n" for number in range(rows)]
    (folder / "table.csv").write_text("x,z,y\n" + "".join(lines))


def files(folder: Path) -> dict[Path, bytes | None]:
    return {one: one.read_bytes() if one.is_file() else None for one in folder.rglob("*")}


@pytest.mark.parametrize(
    ("words", "rows", "message"),
    [
        (["trainer.max_steps=9"], 41, "was trained on other rows than table.csv has now: 41 rows instead of 40"),
        (["trainer.max_steps=9", "optimizer.lr=0.3"], 40, "was trained with other settings than these"),
        ([], 40, "was taken after 6 steps, and the run is to end there or before"),
        (["trainer.max_steps=9", "data.target=q"], 40, "table.csv has no column 'q'"),
        (["trainer.max_steps=9", "hydra.run.dir=here/and/there"], 41, "41 rows instead of 40"),
    ],
)
def test_a_run_that_cannot_continue(words: list[str], rows: int, message: str, tmp_path: Path) -> None:
    write_table(tmp_path, 40)
    assert train_forked(*TABLE, folder=tmp_path).returncode == 0
    last = only_run(tmp_path, "table") / "checkpoints" / "last.ckpt"
    write_table(tmp_path, rows)
    before = files(tmp_path)
    done = train_forked(*TABLE, f"ckpt_path={last}", *words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.target=nothing"], "table.csv has no column 'nothing'. Its columns are: x, z, y."),
        (["data.columns.z.kind=datetime"], "'z'"),
        (["data.columns.w.kind=numeric"], "'w'"),
        (["trainer.max_steps=4", "data.batch_size=8", "report_weights=best", "name=new"], "report_weights = 'best'"),
    ],
)
def test_a_table_that_cannot_be_learned(words: list[str], message: str, tmp_path: Path) -> None:
    write_table(tmp_path, 60)
    before = files(tmp_path)
    done = train_forked(*TABLE, *words, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert files(tmp_path) == before


@pytest.mark.parametrize("words", [["--cfg", "job", "--package", "no.such"], ["-c", "hydra", "-p", "data.cv.folds=3"]])
def test_a_part_of_the_configuration_that_is_not_there(words: list[str], tmp_path: Path) -> None:
    done = train_forked(*words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"package '{words[-1]}' not found in config\n"
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 201, "é" * 101, "a/" * 101])
@pytest.mark.parametrize("key", ["name", "sweep.name"])
def test_a_name_that_no_file_system_takes(name: str, key: str, tmp_path: Path) -> None:
    sweep = ["-m", "seed=1,2"] if key == "sweep.name" else []
    done = train_forked("data=xor", f"{key}='{name}'", *sweep, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "must be the name of a folder, relative and without .., of at most 200 bytes" in done.stderr
    assert not files(tmp_path)


@pytest.mark.parametrize("value", ["d" * 256, "é" * 128, "d/" * 2001, "here/" + "d" * 5000])
@pytest.mark.parametrize("key", ["run.dir", "sweep.dir", "sweep.subdir", "output_subdir"])
def test_a_folder_that_no_file_system_takes(key: str, value: str, tmp_path: Path) -> None:
    sweep = ["-m", "seed=1,2"] if "sweep" in key else []
    done = train_forked("data=xor", "trainer.max_steps=2", f"hydra.{key}='{value}'", *sweep, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"hydra.{key} = " in done.stderr
    assert "must have at most 4,000 bytes, and 255 between two slashes; choose a shorter one" in done.stderr
    assert len(done.stderr) < 1000
    assert not files(tmp_path)


def test_the_longest_name(tmp_path: Path) -> None:
    name = "é" * 100
    done = train_forked("data=xor", f"name='{name}'", "trainer.max_steps=2", "optimizer=adam", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (only_run(tmp_path, name) / "result.json").is_file()
