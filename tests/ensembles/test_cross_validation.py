"""Cross-validation: every row is held out once, by a model that did not see it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, log_loss
from support.commands import ROOT, run_forked

from mlp_lightning import cross_validate, evaluate, train
from mlp_lightning.config import Config
from mlp_lightning.config.overrides import check_overrides
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.runs.build import build_data
from mlp_lightning.sweeps.folds import of_fold

QUICK = ["trainer.max_epochs=4", "logger=none", "verbosity=0", "data.val_fraction=0", "trainer.accelerator=cpu"]


def flowers(folder: Path, rows: int = 61) -> Path:
    """A table of three classes with a group and a moment for every row."""
    generator = np.random.default_rng(0)
    with (folder / "flowers.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "length", "colour", "plant", "day", "species"])
        for row in range(rows):
            kind = row % 3
            width, length = generator.normal(kind, 0.5), generator.normal(-kind, 0.5)
            colour = ["red", "white"][int(generator.integers(2))]
            writer.writerow([width, length, colour, f"plant {row // 4}", row // 2, ["a", "b", "c"][kind]])
    return folder / "flowers.csv"


def configured(path: Path, *overrides: str, folds: int = 3) -> Config:
    base = ["data=table", f"data.path={path}", "data.target=species", f"data.cv.folds={folds}"]
    return check_overrides([*base, "data.columns.plant.kind=ignored", *QUICK, *overrides])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("columns", [[], ["data.group_column=plant"]], ids=["stratified", "grouped"])
def test_every_row_is_held_out_once(columns: list[str], tmp_path: Path) -> None:
    path = flowers(tmp_path)
    result = cross_validate(configured(path, *columns), tmp_path / "cv")
    assert result.status == "finished"
    assert result.out_of_fold is not None
    found = rows_of(result.out_of_fold)
    assert [int(one["row"]) for one in found] == list(range(1, 62))
    assert [one["species"] for one in found] == [one["species"] for one in rows_of(path)]
    if columns:
        plants: dict[str, set[str]] = {}
        for one, row in zip(found, rows_of(path), strict=True):
            plants.setdefault(row["plant"], set()).add(one["fold"])
        assert all(len(folds) == 1 for folds in plants.values())


@pytest.mark.parametrize(
    ("target", "shown"),
    [("fold", "true_fold"), ("row", "true_row"), ("predicted_predicted_y", "predicted_predicted_y")],
)
def test_a_target_called_like_a_column_of_the_predictions(target: str, shown: str, tmp_path: Path) -> None:
    path = flowers(tmp_path)
    path.write_text(path.read_text().replace("species", target, 1))
    result = cross_validate(configured(path, f"data.target={target}"), tmp_path / "cv")
    assert result.out_of_fold is not None
    found = rows_of(result.out_of_fold)
    assert list(found[0])[:4] == ["row", "fold", shown, f"predicted_{target}"]
    assert [int(one["row"]) for one in found] == list(range(1, 62))
    assert {one["fold"] for one in found} == {"0", "1", "2"}
    assert [one[shown] for one in found] == [one[target] for one in rows_of(path)]


def test_targets_called_like_predictions_of_each_other(tmp_path: Path) -> None:
    path = flowers(tmp_path)
    path.write_text(path.read_text().replace("width,length", "y,predicted_y", 1))
    result = cross_validate(configured(path, "data.target=[y,predicted_y]"), tmp_path / "cv")
    assert result.out_of_fold is not None
    found, rows = rows_of(result.out_of_fold), rows_of(path)
    for shown, name in (("y", "y"), ("true_predicted_y", "predicted_y")):
        assert [float(one[shown]) for one in found] == pytest.approx([float(one[name]) for one in rows], abs=1e-5)


def test_metrics_are_those_of_the_file(tmp_path: Path) -> None:
    result = cross_validate(configured(flowers(tmp_path)), tmp_path / "cv")
    assert result.out_of_fold is not None
    found = rows_of(result.out_of_fold)
    accuracies, losses = [], []
    for fold in range(3):
        part = [one for one in found if int(one["fold"]) == fold]
        truth = [one["species"] for one in part]
        accuracies.append(accuracy_score(truth, [one["predicted_species"] for one in part]))
        losses.append(log_loss(truth, [[float(one[f"probability_{name}"]) for name in "abc"] for one in part]))
    assert result.metrics["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert result.metrics["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert result.metrics["log_loss"]["mean"] == pytest.approx(np.mean(losses))
    written = json.loads((tmp_path / "cv" / "result.json").read_text())
    assert written["metrics"] == result.metrics
    assert written["status"] == "finished"


def test_a_stacked_fold_is_the_fold_alone(tmp_path: Path) -> None:
    config = configured(flowers(tmp_path))
    whole = cross_validate(config, tmp_path / "cv")
    alone = train(configured(tmp_path / "flowers.csv", "data.cv.fold=1"), tmp_path / "alone")
    metrics = json.loads((whole.run_dir / "fold-1" / "result.json").read_text())["metrics"]
    for split, of_split in alone.metrics.items():
        for name, value in of_split.items():
            assert math.isclose(metrics[split][name], value, rel_tol=1e-4), (split, name)


def test_time_only_looks_ahead(tmp_path: Path) -> None:
    path = flowers(tmp_path)
    days = np.array([int(one["day"]) for one in rows_of(path)])
    for fold in range(3):
        data: Any = build_data(configured(path, "data.time_column=day", f"data.cv.fold={fold}"))
        assert days[data.row_numbers["train"]].max() < days[data.row_numbers["test"]].min()


def test_a_regression_is_evaluated_in_the_units_of_its_target(tmp_path: Path) -> None:
    config = check_overrides(["data=sklearn", "data.name=diabetes", "data.cv.folds=3", *QUICK, "trainer.max_epochs=30"])
    result = cross_validate(config, tmp_path / "cv")
    assert result.metrics["r2"]["mean"] > 0.3
    assert 40 < result.metrics["rmse"]["mean"] < 70


def test_baselines_are_those_of_the_training_rows_of_each_fold(tmp_path: Path) -> None:
    config = configured(flowers(tmp_path), "data.group_column=plant")
    result = cross_validate(config, tmp_path / "cv")
    assert result.out_of_fold is not None
    found = rows_of(result.out_of_fold)
    losses, accuracies = [], []
    for fold in range(3):
        trained = [one["species"] for one in found if one["fold"] != str(fold)]
        held_out = [one["species"] for one in found if one["fold"] == str(fold)]
        shares = [trained.count(one) / len(trained) for one in "abc"]
        losses.append(log_loss(held_out, [shares] * len(held_out), labels=["a", "b", "c"]))
        accuracies.append(accuracy_score(held_out, ["abc"[shares.index(max(shares))]] * len(held_out)))
    assert result.baseline["log_loss"]["mean"] == pytest.approx(np.mean(losses))
    assert result.baseline["log_loss"]["sd"] == pytest.approx(np.std(losses, ddof=1))
    assert result.baseline["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    written = json.loads((tmp_path / "cv" / "result.json").read_text())
    assert written["baseline"] == result.baseline


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_models_below_the_baseline_are_warned_of(weights: str, tmp_path: Path) -> None:
    """Of classes that have nothing to do with the features many hidden units learn the noise."""
    generator = np.random.default_rng(3)
    with (tmp_path / "noise.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["x", "z", "species"], *([*generator.normal(size=2), "ab"[i % 5 == 0]] for i in range(80))]
        )
    words = ["data=table", f"data.path={tmp_path / 'noise.csv'}", "data.target=species", "data.cv.folds=4", *QUICK]
    words += ["verbosity=1", "trainer.max_epochs=60", "optimizer.lr=0.1", f"data.class_weight={weights}"]
    console = Console(file=io.StringIO(), width=200)
    cross_validate(check_overrides(words), tmp_path / "cv", console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]  # the one above
    (row,) = [line for line in printed.splitlines() if line.split()[:1] == ["baseline"]]
    assert row.split()[1] == f"{-0.2 * math.log(0.2) - 0.8 * math.log(0.8):.5g}", "every fold has a fifth of them"
    assert ("Warning: On these rows the model is worse than one that" in printed) == (weights == "none")


def test_embedded_categories_are_trained_one_after_another(tmp_path: Path) -> None:
    result = cross_validate(configured(flowers(tmp_path), "data.max_one_hot=1"), tmp_path / "cv")
    assert len(result.folds) == 3


@pytest.mark.parametrize("columns", [[], ["data.group_column=plant"]], ids=["stratified", "grouped"])
def test_folds_may_validate_with_what_they_hold_out(columns: list[str], tmp_path: Path) -> None:
    """Test rows are split off before and are the same for all folds; every other row validates one fold."""
    asked = configured(flowers(tmp_path), *columns, "data.test_fraction=0.2", "data.cv.held_out_as=val", folds=4)
    result = cross_validate(asked, tmp_path / "cv")
    parts = [build_data(of_fold(asked, fold)).row_numbers for fold in range(4)]
    (test,) = {tuple(one["test"]) for one in parts}
    held_out = np.concatenate([one["val"] for one in parts])
    assert sorted([*test, *held_out]) == list(range(61))
    assert all(not set(one["train"]) & {*one["val"], *test} for one in parts)
    assert result.out_of_fold is not None
    assert [int(one["row"]) - 1 for one in rows_of(result.out_of_fold)] == sorted(held_out)
    report = evaluate(tmp_path / "cv" / "checkpoints" / "best.ckpt", tmp_path / "measured")
    assert result.test is not None
    assert report.metrics == pytest.approx(result.test, nan_ok=True, rel=1e-5)


def test_the_folds_of_time_validate_with_later_rows(tmp_path: Path) -> None:
    options = ["data.time_column=day", "data.test_fraction=0.2", "data.cv.held_out_as=val"]
    parts = [build_data(of_fold(configured(flowers(tmp_path), *options), fold)).row_numbers for fold in range(3)]
    for one in parts:
        assert max(one["train"]) < min(one["val"])
        assert max(one["val"]) < min(one["test"])


def test_a_table_with_too_few_rows_is_refused_before_any_folder_is_created(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.cv\.folds = 40"):
        cross_validate(configured(flowers(tmp_path), folds=40), tmp_path / "cv")
    assert not (tmp_path / "cv").exists()


def test_what_is_noted_of_a_single_fold_is_said(tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", io.StringIO()
    rows = [
        f"{row / 7:.3f},{'west' if row < 12 else f'site {row % 4}'},{'rare' if row < 12 else 'ab'[row % 2]}"
        for row in range(60)
    ]
    path.write_text("\n".join(["x,plant,species", *rows]) + "\n", encoding="utf-8")
    config = configured(path, "data.group_column=plant", "verbosity=1")
    cross_validate(config, tmp_path / "cv", Console(file=out, width=200))
    note = "no training row has the class 'rare', so the model never predicts it (12 test rows have it)"
    (held_out,) = {int(one["fold"]) for one in rows_of(tmp_path / "cv" / "out_of_fold.csv")[:12]}
    (line,) = [one for one in out.getvalue().splitlines() if "no training row" in one]
    assert line == (note if held_out == 0 else f"fold {held_out}: {note}")
    logs = [(tmp_path / "cv" / f"fold-{fold}" / "train.log").read_text() for fold in range(3)]
    assert [note in one for one in logs] == [fold == held_out for fold in range(3)]


def test_one_training_is_not_several() -> None:
    with pytest.raises(ConfigError, match="cross_validate"):
        build_data(check_overrides(["data=sklearn", "data.cv.folds=3", *QUICK]))


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    flowers(tmp_path)
    script = str(ROOT / "scripts" / "train.py")
    words = ["data=table", "data.path=flowers.csv", "data.target=species", "data.cv.folds=3", "trainer.max_epochs=3"]
    words.append("data.columns.plant.kind=ignored")
    done = run_forked(script, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Training 3 folds as one stack" in done.stdout
    assert "accuracy: " in done.stdout
    assert " ± " in done.stdout
    (folder,) = (tmp_path / "lightning_logs" / "table").iterdir()
    assert {one.name for one in folder.glob("fold-*")} == {"fold-0", "fold-1", "fold-2"}
    assert (folder / "out_of_fold.csv").is_file()


def test_numbers_are_kept_as_the_table_has_them(tmp_path: Path) -> None:
    """The file of predictions has the true values to their last digit, though networks learn in single precision."""
    table = tmp_path / "exact.csv"
    values = [f"{1e6 + row / 7!r}" for row in range(40)]
    table.write_text("a,y\n" + "".join(f"{row % 9},{value}\n" for row, value in enumerate(values)))
    asked = check_overrides(["data=table", f"data.path={table}", "data.target=y", "data.cv.folds=3", *QUICK])
    result = cross_validate(asked, tmp_path / "cv")
    assert result.out_of_fold is not None
    assert [float(one["y"]) for one in rows_of(result.out_of_fold)] == [float(one) for one in values]
