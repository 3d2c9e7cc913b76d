"""The leaderboard: swept keys, ranks, lines over seeds, the file and the table."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import shlex
import statistics
from pathlib import Path

import pytest
from support.leaderboard_records import above, failed, grid, nested, run
from support.leaderboards import FOLDER, build_leaderboard, printed, rows_of

from mlp_lightning.config.overrides import check_overrides
from mlp_lightning.runs.console import short_path
from mlp_lightning.sweeps.leaderboard.csv_file import write_csv
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards
from mlp_lightning.sweeps.leaderboard.repeat import repeat_command

TRAIN = "python scripts/train.py"


# ---- swept keys


def test_swept_keys_are_those_that_differ() -> None:
    board = build_leaderboard([run(0, model__hidden_units=5, seed=1), run(1, model__hidden_units=7, seed=1)], FOLDER)
    assert board.keys == ("model.hidden_units",)
    assert [line.values for line in board.lines] == [{"model.hidden_units": 5}, {"model.hidden_units": 7}]


def test_two_spellings_of_a_value_are_one() -> None:
    records = [run(0), run(1)]
    for number, text in enumerate(("1e-3", "0.001")):
        config = nested({"optimizer.lr": 0.001})
        records[number] = dataclasses.replace(records[number], overrides=(f"optimizer.lr={text}",), config=config)
    assert build_leaderboard(records, FOLDER).keys == ()


def test_run_without_the_override_shows_its_configuration() -> None:
    plain = dataclasses.replace(run(0), config=nested({"data.name": "iris", "seed": 0, "model.hidden_units": 10}))
    board = build_leaderboard([plain, run(1, model__hidden_units=7)], FOLDER)
    assert [one.values["model.hidden_units"] for one in board.finished] == [10, 7]


def test_choice_of_a_group_is_a_key() -> None:
    records = [
        dataclasses.replace(run(number), overrides=overrides, config=nested({"model.hidden_units": 3}))
        for number, overrides in enumerate([("model=wide",), ("model=deep",), ()])
    ]
    board = build_leaderboard(records, FOLDER)
    assert [one.values for one in board.finished] == [{"model": "wide"}, {"model": "deep"}, {"model": ""}]
    assert "(default)" in printed(board)


def test_what_is_never_shown() -> None:
    hidden = ["ckpt_path={}", "name=a{}", "verbosity={}", "sweep.members={}", "hydra.job.num={}", "hydra/launcher=l{}"]
    records = [
        dataclasses.replace(
            run(number, seed=number), overrides=(*(one.format(number) for one in hidden), f"+seed={number}")
        )
        for number in range(2)
    ]
    assert build_leaderboard(records, FOLDER).keys == ("seed",)


def test_without_overrides_the_configurations_decide() -> None:
    records = [
        dataclasses.replace(
            run(number),
            overrides=(),
            config=nested(
                {"name": f"n{number}", "seed": 0, "model.hidden_units": 5 + number, "logger.csv": number > 0}
            ),
        )
        for number in range(2)
    ]
    board = build_leaderboard(records, FOLDER)
    assert board.keys == ("model.hidden_units",)
    assert f"Configuration of the best run (run 0): {short_path(FOLDER / '0' / 'config.yaml')}" in printed(board)


def test_runs_on_another_drive_are_named_by_their_whole_path(monkeypatch) -> None:
    """As on Windows, where no relative path leads from one drive to another."""

    def refused(path: Path, start: Path) -> str:
        raise ValueError(f"path is on mount {path!r}, start on mount {start!r}")

    monkeypatch.setattr(os.path, "relpath", refused)
    records = [run(0, sweep="a"), run(0, sweep="b")]
    board = build_leaderboard(records, FOLDER)
    assert {one.label for one in board.finished} == {one.folder.as_posix() for one in records}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), ([32, 16], "[32,16]"), (1e-5, "1e-05"), ("relu", "relu"), ({"a": 1.0}, "{a:1.0}")],
)
def test_value_text(value, text) -> None:
    assert value_text(value) == text


# ---- ranks and lines


def test_lines_agree_with_statistics() -> None:
    records = grid()
    board = build_leaderboard(records, FOLDER)
    assert len(board.lines) == 3
    for line in board.lines:
        alike = [
            one
            for one in records
            if one.status == "finished" and one.config["model"] == {"hidden_units": line.values["model.hidden_units"]}
        ]
        for split in ("train", "val"):
            losses = [one.metrics[split]["loss"] for one in alike]
            spread = line.metrics[f"loss/{split}"]
            assert spread.mean == pytest.approx(sum(losses) / 4, rel=1e-15)
            assert spread.sd == pytest.approx(statistics.stdev(losses), rel=1e-15)
            assert spread.count == 4
    means = [line.metrics["loss/val"].mean for line in board.lines]
    assert means == sorted(means)


def test_ranks_are_those_of_a_sort() -> None:
    records = grid()
    board = build_leaderboard(records, FOLDER)
    expected = sorted((one for one in records if one.metrics), key=lambda one: one.metrics["val"]["loss"])
    assert [one.record for one in board.finished] == expected
    assert [one.rank for one in board.finished] == list(range(1, 13))
    assert [one.record.number for one in board.others] == [12]


def test_the_best_is_the_combination_and_not_the_luckiest_run() -> None:
    """Width 5 has the lowest single loss, width 7 the lower mean."""
    losses = {(5, 0): 0.1, (5, 1): 0.9, (7, 0): 0.3, (7, 1): 0.2}
    records = [run(i, val=v, model__hidden_units=w, seed=s) for i, ((w, s), v) in enumerate(losses.items())]
    board = build_leaderboard(records, FOLDER)
    assert board.best is not None
    assert board.best.values == {"model.hidden_units": 7}
    assert repeat_command(board.best, TRAIN) == f"{TRAIN} -m data=iris model.hidden_units=7 seed=0,1"
    assert "Repeat the best combination (model.hidden_units=7):" in printed(board)


def test_training_losses_do_not_compete_with_validation_losses() -> None:
    records = [run(0, 0.2, 0.9, seed=0), run(1, 0.1, None, seed=1)]
    boards = build_leaderboards(records, FOLDER)
    assert [one.ranked_by for one in boards] == ["loss/val", "loss/train"]
    assert [[run.record.number for run in one.finished] for one in boards] == [[0], [1]]


def test_non_finite_losses_sort_last_and_ties_by_number() -> None:
    losses = [math.nan, 0.5, math.inf, -math.inf, 0.5, 0.25]
    board = build_leaderboard([run(i, val=v, model__depth=i) for i, v in enumerate(losses)], FOLDER)
    assert [one.record.number for one in board.finished] == [5, 1, 4, 0, 2, 3]
    assert [line.runs[0].record.number for line in board.lines] == [5, 1, 4, 0, 2, 3]


def test_line_with_a_diverged_seed_sorts_below() -> None:
    records = [run(0, val=0.1, model__depth=1, seed=0), run(1, val=math.nan, model__depth=1, seed=1)]
    board = build_leaderboard([*records, run(2, val=0.9, model__depth=2, seed=0)], FOLDER)
    assert [line.values["model.depth"] for line in board.lines] == [2, 1]
    assert math.isnan(board.lines[1].metrics["loss/val"].mean)
    assert board.best is board.lines[0]


def test_no_best_without_a_finite_loss() -> None:
    assert build_leaderboards([], FOLDER) == []
    for records in ([failed(0)], [run(0, val=math.nan)]):
        assert build_leaderboard(records, FOLDER).best is None


# ---- the file


def test_csv(tmp_path) -> None:
    records = grid()
    board = build_leaderboard(records, FOLDER)
    rows = rows_of(board, tmp_path)
    assert list(rows[0]) == [
        *("rank", "run", "status", "model.hidden_units", "seed", "loss/train", "accuracy/train"),
        *("loss/val", "accuracy/val", "steps", "wall_time_s", "error"),
    ]
    for row, one in zip(rows, board.finished, strict=False):
        record = records[int(row["run"])]
        assert record is one.record
        assert float(row["loss/val"]) == record.metrics["val"]["loss"]
        assert int(row["seed"]) == record.config["seed"]
        assert (row["status"], row["steps"], row["error"]) == ("finished", "100", "")
    assert rows[-1]["error"] == "NonFiniteLossError: nan at step 3"
    assert (rows[-1]["rank"], rows[-1]["status"], rows[-1]["loss/val"]) == ("", "failed", "")


def test_csv_has_the_same_bytes_in_any_order(tmp_path) -> None:
    records = grid()
    contents = set()
    for seed in range(5):
        random.Random(seed).shuffle(records)
        contents.add(write_csv(build_leaderboards(records, tmp_path)).read_bytes())
        assert printed(build_leaderboard(records, FOLDER)) == printed(build_leaderboard(grid(), FOLDER))
    assert len(contents) == 1


def test_runs_of_several_sweeps_are_named_by_their_folders() -> None:
    board = build_leaderboard([run(0, sweep="b"), run(0, sweep="a")], Path("/logs"))
    assert [one.label for one in board.finished] == ["a/0", "b/0"]


def test_awkward_values_survive_the_file(tmp_path) -> None:
    lists = [run(i, model__hidden_units=v) for i, v in enumerate([[32, 16], None, 5])]
    rows = rows_of(
        build_leaderboard([*lists, failed(3, 'a "quote", a comma\nline 2', model__hidden_units=5)], FOLDER), tmp_path
    )
    assert [row["model.hidden_units"] for row in rows] == ["[32,16]", "null", "5", "5"]
    assert rows[3]["error"] == 'a "quote", a comma'


def test_baselines_have_columns(tmp_path) -> None:
    records = [above(run(0, 0.5, seed=1), train=0.75, val=0.625), run(1, 0.25, 0.3, seed=2), failed(2, seed=3)]
    rows = rows_of(build_leaderboard(records, FOLDER), tmp_path)
    assert [row["run"] for row in rows] == ["1", "0", "2"]
    assert [row["baseline/loss/train"] for row in rows] == ["", "0.75", ""]
    assert [row["baseline/loss/val"] for row in rows] == ["", "0.625", ""]
    assert "baseline/accuracy/val" not in rows[0]
    assert not any("baseline" in name for name in rows_of(build_leaderboard(records[1:], FOLDER), tmp_path)[0])


# ---- the command


def test_repeat_command_is_read_back_by_shell_and_hydra() -> None:
    overrides = (
        "data=iris",
        "model.hidden_units=[32,16]",
        "+seed=3",
        "hydra.sweep.dir=x",
        "hydra/launcher=y",
        "sweep.z=1",
    )
    record = dataclasses.replace(run(0), overrides=overrides, config=nested({"seed": 3}))
    (line,) = build_leaderboard([record], FOLDER).lines
    words = shlex.split(repeat_command(line, TRAIN))
    assert words == ["python", "scripts/train.py", "data=iris", "model.hidden_units=[32,16]", "+seed=3"]
    config = check_overrides(words[2:4])
    assert config.model.hidden_units == [32, 16]
