"""The leaderboard as text: the table, the baseline below it, and what is said of the best."""

from __future__ import annotations

import dataclasses

from support.leaderboard_records import above, failed, grid, run
from support.leaderboards import FOLDER, build_leaderboard, printed

from mlp_lightning.sweeps.leaderboard.repeat import repeat_command

TRAIN = "python scripts/train.py"


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


# ---- what the losses say of the models


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


def test_what_it_is_to_have_solved_it() -> None:
    """Every row right of those trained on and of those that decide; only beside other runs of the combination."""

    def board(pairs, **keys):
        records = [
            dataclasses.replace(
                run(i, seed=i, **keys),
                metrics={"train": {"loss": 0.5, "accuracy": one[0]}, "val": {"loss": 0.5, "accuracy": one[1]}},
            )
            for i, one in enumerate(pairs)
        ]
        return build_leaderboard(records, FOLDER)

    spirals = board([(1.0, 1.0), (1.0, 1.0), (0.6, 0.5), (1.0, 0.97), (0.99, 1.0)])
    assert spirals.solved(spirals.lines) == (2, 5)
    assert "2 of 5" in printed(spirals)
    iris = board([(0.97, 1.0), (0.98, 0.97), (0.96, 1.0)])
    assert iris.solved(iris.lines) is None
    values = [dataclasses.replace(run(i, seed=i), metrics={"train": {"loss": 0.1, "mae": float(i)}}) for i in range(3)]
    regression = build_leaderboard(values, FOLDER)
    assert regression.solved(regression.lines) is None


def test_baselines_are_below_the_lines() -> None:
    records = [
        above(run(2 * w + s, 0.1, 0.1 + w / 4 + s / 10, model__hidden_units=w, seed=s), train=0.69, val=0.45 + s / 10)
        for w in (1, 2)
        for s in (0, 1)
    ]
    board = build_leaderboard(records, FOLDER)
    lines = printed(board).splitlines()
    (row,) = [line for line in lines if line.split()[:1] == ["baseline"]]
    assert row.split() == ["baseline", "0.69", *["0.5", "±", "0.058"]]
    assert lines.index(row) == 5, "below both combinations"
    assert "1 of 2 combinations are not better than the baseline" in printed(board)
    weighted = [
        dataclasses.replace(one, config={**one.config, "data": {"name": "iris", "class_weight": "balanced"}})
        for one in records
    ]
    assert "Warning" not in printed(build_leaderboard(weighted, FOLDER)), "not what they learn"
    # The same shares, added up in another order, are the same baseline.
    rounded = [above(one, train=0.69, val=0.7 - 1e-16 * number) for number, one in enumerate(records)]
    (row,) = [one for one in printed(build_leaderboard(rounded, FOLDER)).splitlines() if one.startswith("  baseline")]
    assert row.split() == ["baseline", "0.69", "0.7"]
    unknown = build_leaderboard([*records[:3], dataclasses.replace(records[3], baseline={})], FOLDER)
    assert "baseline" not in "".join(printed(unknown).split("Repeat")[0].split("Warning")[0])
    single = build_leaderboard([above(run(0, 0.8, 0.9), train=0.5, val=0.6)], FOLDER)
    assert "Warning: It is not better than the baseline" in printed(single)
