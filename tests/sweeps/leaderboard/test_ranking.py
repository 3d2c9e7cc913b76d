"""The leaderboard: swept keys, ranks, lines over seeds, the file and the table."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import os
import random
import shlex
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.leaderboard_records import failed, nested, run

from mlp_lightning.config.overrides import check_overrides
from mlp_lightning.runs.console import short_path
from mlp_lightning.sweeps.leaderboard.keys import value_text
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards, write_csv
from mlp_lightning.sweeps.leaderboard.repeat import repeat_command
from mlp_lightning.sweeps.leaderboard.table import print_leaderboard

FOLDER = Path("/logs/sweep")
TRAIN = "python scripts/train.py"


def grid():
    """Three widths by four seeds with drawn losses, and one run more that failed."""
    draw = random.Random(1)
    records = [
        run(number, draw.random(), draw.random(), model__hidden_units=width, seed=seed)
        for number, (width, seed) in enumerate(itertools.product((5, 100, 1000), range(4)))
    ]
    return [*records, failed(12, model__hidden_units=3, seed=0)]


def build_leaderboard(records, folder):
    """The leaderboard of runs that can be compared."""
    (board,) = build_leaderboards(records, folder)
    return board


def rows_of(board, folder) -> list[dict[str, str]]:
    path = write_csv([dataclasses.replace(board, folder=folder)])
    return list(csv.DictReader(io.StringIO(path.read_text())))


def printed(board, *, terminal: bool = False, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_leaderboard(board, Console(file=file, force_terminal=terminal, width=width, color_system=None), TRAIN)
    file.seek(0)
    return file.read()


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


# ---- the table


def test_plain_table() -> None:
    board = build_leaderboard(grid(), FOLDER)
    text = printed(board)
    lines = text.splitlines()
    start = lines.index("Leaderboard of iris: best validation loss first, mean ± sd over seeds")
    assert lines[start + 1].split("  ") != []
    for name in ("model.hidden_units", "training loss", "validation loss", "training accuracy", "validation accuracy"):
        assert name in lines[start + 1]
    assert len({len(line) for line in lines[start + 1 : start + 5]}) == 1
    for line, shown in zip(board.lines, lines[start + 2 :], strict=False):
        spread = line.metrics["loss/val"]
        assert shown.split()[1:3] == [str(line.values["model.hidden_units"]), "4"]
        assert f"{spread.mean:.4g} ± {spread.sd:.2g}" in shown
    assert "  run 12 (model.hidden_units=3 seed=0) failed: NonFiniteLossError: nan at step 3" in lines
    assert board.best is not None
    assert lines[-1] == f"  {repeat_command(board.best, TRAIN)}"


def test_long_sweep_is_cut() -> None:
    finished = [run(i, val=i / 100, model__depth=i) for i in range(30)]
    others = [failed(100 + i, model__depth=i) for i in range(25)]
    text = printed(build_leaderboard([*finished, *others], FOLDER))
    assert "  … 10 more in leaderboard.csv" in text
    assert "  … 5 more in leaderboard.csv" in text
    assert text.count("failed: ") == 20


def test_command_stays_on_one_line_in_a_narrow_terminal() -> None:
    board = build_leaderboard([run(0, model__hidden_units=[7] * 60), run(1, model__hidden_units=[5])], FOLDER)
    text = printed(board, terminal=True, width=60)
    assert f"  {repeat_command(board.lines[0], TRAIN)}" in text.splitlines()


def test_narrow_terminal_keeps_the_losses_whole() -> None:
    board = build_leaderboard(grid(), FOLDER)
    wide, narrow = printed(board, terminal=True, width=100), printed(board, terminal=True, width=65)
    assert "accuracy" in wide
    assert "accuracy" not in narrow
    for text in (wide, narrow):
        assert f"{board.lines[0].metrics['loss/val'].mean:.4g} ± " in text
        assert " training " in text
        assert " loss " in text
    assert max(map(len, narrow.splitlines()[2:8])) <= 65


def test_drawn_values_are_short_in_the_table_and_whole_in_the_command() -> None:
    text = printed(build_leaderboard([run(0, optimizer__lr=1 / 3), run(1, optimizer__lr=1.0)], FOLDER))
    assert [line.split()[1] for line in text.splitlines()[3:5]] == ["0.333333", "1"]
    assert text.splitlines()[-1].endswith("optimizer.lr=0.3333333333333333")


def test_console_without_unicode() -> None:
    lines = printed(build_leaderboard(grid(), FOLDER), encoding="ascii").splitlines()
    assert lines[1].endswith("mean +/- sd over seeds")
    assert len({len(line) for line in lines[2:6]}) == 1


def test_only_failures() -> None:
    text = printed(build_leaderboard([failed(0), dataclasses.replace(failed(1, ""), status="unended")], FOLDER))
    assert "run 0 failed: NonFiniteLossError: nan at step 3" in text
    assert "run 1 unended: it has no result.json: killed, or still running" in text
    assert "No run finished with a finite training loss." in text


def test_runs_on_different_rows_are_not_averaged() -> None:
    """A table has changed between runs that differ in the seed alone."""

    def on(count: int) -> dict[str, dict[str, Any]]:
        return {"data": {"rows": count, "columns": {"a": f"{count:016x}"}, "as_set": "0" * 16}}

    records = [run(number, 0.1, 0.2, seed=number) for number in range(4)]
    mixed = [dataclasses.replace(one, fingerprint=on(60 + number // 2)) for number, one in enumerate(records)]
    board = build_leaderboard(mixed, FOLDER)
    assert [len(line.runs) for line in board.lines] == [2, 2]
    assert "were trained on different rows" in printed(board)
    board = build_leaderboard([dataclasses.replace(one, fingerprint=on(60)) for one in records], FOLDER)
    assert [len(line.runs) for line in board.lines] == [4]
    assert "different rows" not in printed(board)
    # Of a file for one split the columns that are read depend on the seed.
    own = [{**on(60), "val": {**on(9 + number)["data"], "rows": 9}} for number in range(4)]
    board = build_leaderboard(
        [dataclasses.replace(one, fingerprint=two) for one, two in zip(records, own, strict=True)], FOLDER
    )
    assert [len(line.runs) for line in board.lines] == [4]


# ---- several sweeps


def configured(record, **keys):
    """The run with further options in its configuration, which are no overrides."""
    added = nested({key.replace("__", "."): value for key, value in keys.items()})
    sections = {name: {**record.config.get(name, {}), **some} for name, some in added.items() if isinstance(some, dict)}
    return dataclasses.replace(record, config={**record.config, **added, **sections})


def test_several_sweeps_show_every_key_in_which_they_differ(tmp_path) -> None:
    """Even those that no command names, such as the seed and the schedule of an experiment's file."""
    first = [
        configured(run(i, model__hidden_units=5 + i), scheduler__name="none", data__suggested_lr={}) for i in (0, 1)
    ]
    second = configured(run(0, sweep="b", model__hidden_units=5), scheduler__name="cosine", seed=777, name="other")
    board = build_leaderboard([*first, second], Path("/logs"))
    assert set(board.keys) == {"model.hidden_units", "scheduler.name", "seed"}
    assert set(board.line_keys) == {"model.hidden_units", "scheduler.name"}
    rows = rows_of(board, tmp_path)
    assert {(row["run"], row["seed"]) for row in rows} == {("sweep/0", "0"), ("sweep/1", "0"), ("b/0", "777")}
    assert board.sweeps == "b, sweep"


def test_data_sets_are_not_ranked_together(tmp_path) -> None:
    records = [
        run(number, val=loss, data__name=name, model__hidden_units=width)
        for number, (name, width, loss) in enumerate(
            [("moons", 3, 0.1), ("moons", 9, 0.2), ("friedman", 3, 0.9), ("friedman", 9, 0.8)]
        )
    ]
    records.append(failed(4, data__name="friedman", model__hidden_units=27))
    boards = build_leaderboards(records, tmp_path)
    assert [one.data for one in boards] == ["moons", "friedman"]
    assert [[line.values for line in one.lines] for one in boards] == [
        [{"model.hidden_units": 3}, {"model.hidden_units": 9}],
        [{"model.hidden_units": 9}, {"model.hidden_units": 3}],
    ]
    assert [len(one.others) for one in boards] == [0, 1]
    rows = list(csv.DictReader(io.StringIO(write_csv(boards).read_text())))
    assert [(row["rank"], row["data.name"]) for row in rows] == [
        *(("1", "moons"), ("2", "moons"), ("1", "friedman"), ("2", "friedman"), ("", "friedman"))
    ]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            [{"data__path": "a/x.csv"}, {"data__path": "b/x.csv"}],
            ["x.csv, data.path=a/x.csv", "x.csv, data.path=b/x.csv"],
        ),
        ([{"data__target": "y"}, {"data__target": "z"}], ["iris, data.target=y", "iris, data.target=z"]),
        ([{"data__noise": 0.1}, {"data__noise": 0.2}], ["iris, data.noise=0.1", "iris, data.noise=0.2"]),
        ([{"data__sample_seed": 1}, {"data__sample_seed": 2}], ["iris"]),
        ([{"data__val_fraction": 0.1}, {"data__val_fraction": 0.2}], ["iris"]),
    ],
)
def test_what_makes_a_data_set(options, names) -> None:
    boards = build_leaderboards([run(number, **one) for number, one in enumerate(options)], FOLDER)
    assert [one.data for one in boards] == names


def test_a_job_that_could_not_be_composed_is_listed_with_the_others() -> None:
    broken = dataclasses.replace(failed(1, "ConfigError: no", model__depth=2), config={})
    board = build_leaderboard([run(0, model__depth=1), broken], FOLDER)
    assert [one.record.number for one in board.others] == [1]


def test_runs_that_solved_it() -> None:
    def solving(number, accuracy, **keys):
        metrics = {"train": {"loss": 1.1 - accuracy, "accuracy": accuracy}}
        return dataclasses.replace(run(number, **keys), metrics=metrics)

    records = [solving(i, 1.0 if i < 3 else 0.5, seed=i) for i in range(5)]
    text = printed(build_leaderboard([*records, failed(5, seed=5)], FOLDER))
    assert "3 of 6" in text
    assert "solved" in text
    assert "solved" not in printed(build_leaderboard(records[:3], FOLDER)), "where all do, it says nothing"
    assert "solved" not in printed(build_leaderboard(grid(), FOLDER)), "validation rows say more"


def test_what_is_said_of_the_distance_to_the_next() -> None:
    def board(*losses):
        return build_leaderboard(
            [
                run(4 * d + s, val=v, model__depth=d, seed=s)
                for d, some in enumerate(losses)
                for s, v in enumerate(some)
            ],
            FOLDER,
        )

    text = printed(board([0.1, 0.2, 0.3, 0.2], [0.2, 0.3, 0.35, 0.35]))
    # Differences 0.1, 0.1, 0.05 and 0.15: mean 0.1, standard error 0.0204.
    assert "The best is 4.9 standard errors better than the next (0.1 ± 0.02 over 4 seeds)." in text
    close = printed(board([0.1, 0.2, 0.3, 0.2], [0.2, 0.1, 0.2, 0.35]))
    assert "chance may have decided between them" in close
    uneven = printed(board([0.1, 0.2, 0.3, 0.2], [0.5, 0.7, 0.6]))
    # Welch: 0.4 beside the root of 0.0816²/4 + 0.1²/3.
    assert "The best is 5.7 standard errors better than the next (0.4 ± 0.07 over 3 seeds)." in uneven
    assert "standard errors" not in printed(board([0.1], [0.2]))
