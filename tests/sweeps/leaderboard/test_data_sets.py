"""Which runs are ranked together: those on the same rows, wherever these are."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.leaderboard_records import failed, nested, run
from support.leaderboards import FOLDER, build_leaderboard, printed, rows_of

from mlp_lightning.sweeps.leaderboard.csv_file import write_csv
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards


def of_table(rows: int = 60, as_set: str = "0" * 16, **columns: str) -> dict[str, Any]:
    return {"rows": rows, "columns": columns or {"x": "aa", "y": "bb"}, "as_set": as_set}


def on(record, path: str, table: Mapping[str, Any] | None, **more: Any):
    """The run on a table of a path, with the fingerprint of that table."""
    record = configured(record, data__path=path, data__name="table", data__target="y", **more)
    return dataclasses.replace(record, fingerprint=None if table is None else {"data": table})


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
        (
            [{"data__path": "a/x.csv"}, {"data__path": "b/y.csv"}],
            ["x.csv", "y.csv"],
        ),
        ([{"data__target": "y"}, {"data__target": "z"}], ["iris, data.target=y", "iris, data.target=z"]),
        ([{"data__noise": 0.1}, {"data__noise": 0.2}], ["iris, data.noise=0.1", "iris, data.noise=0.2"]),
        ([{"data__sample_seed": 1}, {"data__sample_seed": 2}], ["iris"]),
        (
            [{"preset__name": "default"}, {"preset__name": "best"}, {}],
            ["iris, preset.name=default", "iris, preset.name=best"],
        ),
        (
            [{"data__cv__folds": 5}, {"data__cv__folds": 8, "data__cv__held_out_as": "val"}],
            [
                "iris, data.cv.folds=5, data.cv.held_out_as=test",
                "iris, data.cv.folds=8, data.cv.held_out_as=val",
            ],
        ),
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


# ---- rows


def test_other_rows_at_the_same_path_are_another_data_set(tmp_path) -> None:
    """Two sweeps in two folders, each with its own ``x.csv``."""
    records = [
        on(run(number, val=loss, sweep=sweep, model__depth=number), "x.csv", of_table(rows))
        for sweep, rows, losses in (("a", 60, (0.5, 0.4)), ("b", 99, (0.2, 0.3)))
        for number, loss in enumerate(losses)
    ]
    boards = build_leaderboards(records, tmp_path)
    assert [one.data for one in boards] == ["x.csv (60 rows)", "x.csv (99 rows)"]
    assert [[line.values["model.depth"] for line in one.lines] for one in boards] == [[1, 0], [0, 1]]
    assert all("the same table, which has changed" in printed(one) for one in boards)
    # As many rows with other values are another data set, too.
    records = [
        on(run(number, model__depth=number), "x.csv", of_table(60, f"{number:016x}", x="aa", y=f"{number}"))
        for number in (10**15, 10**16)
    ]
    names = [one.data for one in build_leaderboards(records, tmp_path)]
    assert names == ["x.csv (60 rows 00038d7e)", "x.csv (60 rows 002386f2)"]


def test_the_same_rows_at_two_paths_are_one_data_set(tmp_path) -> None:
    first = [on(run(i, val=0.5 + i, model__depth=i), "old/x.csv", of_table()) for i in (1, 2)]
    second = [on(run(i, val=0.1 + i, sweep="b", model__depth=i), "new/z.parquet", of_table()) for i in (2, 3)]
    board = build_leaderboard([*first, *second], tmp_path)
    assert board.line_keys == ("model.depth",)
    assert [(line.values["model.depth"], len(line.runs)) for line in board.lines] == [(1, 1), (2, 2), (3, 1)]
    assert not board.has_changed
    moved = [on(one, "new/z.parquet", of_table(x="aa", y="bb", z="cc")) for one in second]
    assert len(build_leaderboards([*first, *moved], tmp_path)) == 2, "another column more"
    assert len(build_leaderboards([*first, *(configured(one, data__target="x") for one in second)], tmp_path)) == 2


def test_columns_of_a_table_that_a_sweep_leaves_out_are_not_other_rows(tmp_path) -> None:
    whole = on(run(0), "x.csv", of_table(x="aa", z="cc", y="bb"))
    without = on(run(1), "x.csv", of_table(x="aa", y="bb"), data__columns={"z": {"kind": "ignored"}})
    as_text = on(run(2), "x.csv", of_table(x="dd", z="cc", y="bb"), data__columns={"x": {"kind": "categorical"}})
    assert len(build_leaderboards([whole, without, as_text], tmp_path)) == 1
    grown = on(run(3), "x.csv", of_table(61, x="aa", y="bb"), data__columns={"z": {"kind": "ignored"}})
    assert [one.data for one in build_leaderboards([whole, grown], tmp_path)] == ["x.csv (60 rows)", "x.csv (61 rows)"]


def test_samples_of_a_synthetic_data_set_are_one_line(tmp_path) -> None:
    records = [
        dataclasses.replace(run(i, data__sample_seed=i // 2, seed=i), fingerprint={"data": of_table(x=str(i // 2))})
        for i in range(6)
    ]
    assert [len(line.runs) for line in build_leaderboard(records, tmp_path).lines] == [6]


def test_of_a_file_for_one_split_the_columns_that_are_read_depend_on_the_seed(tmp_path) -> None:
    records = [
        dataclasses.replace(one, fingerprint={**one.fingerprint, "val": of_table(9, **{"y": "ee", f"x{number}": "ff"})})
        for number, one in enumerate(on(run(i, seed=i), "x.csv", of_table(), data__val_path="v.csv") for i in range(4))
    ]
    assert [len(line.runs) for line in build_leaderboard(records, tmp_path).lines] == [4]
    other = dataclasses.replace(records[0], fingerprint={**records[0].fingerprint, "val": of_table(8, y="ee")})
    assert len(build_leaderboards([*records[1:], other], tmp_path)) == 2


def test_a_run_that_read_no_rows_belongs_to_its_sweep(tmp_path) -> None:
    done = [on(run(0, sweep=sweep), "x.csv", of_table(rows)) for sweep, rows in (("a", 60), ("b", 99))]
    broken = on(failed(1, seed=3), "x.csv", None)
    broken = dataclasses.replace(broken, folder=Path("/logs/b/1"))
    boards = build_leaderboards([*done, broken], tmp_path)
    assert [len(one.others) for one in boards] == [0, 1]
    elsewhere = dataclasses.replace(on(failed(1, seed=3), "y.csv", None), folder=Path("/logs/b/1"))
    assert [one.data for one in build_leaderboards([*done[:1], elsewhere], tmp_path)] == ["x.csv", "y.csv"]
