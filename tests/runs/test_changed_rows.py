"""Rows that are not those that a run was trained on, and runs whose rows differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from support.configurations import ComposeConfig

import mlp_lightning
from mlp_lightning.config import parse_config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import CheckpointError, DataError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.sweeps.grouping import group_runs
from mlp_lightning.sweeps.sizes import SizesOf

FRAME: dict[str, Any] = {
    "data": {"name": "table", "target": "y", "val_fraction": 0, "test_fraction": 0},
    "model": {"hidden_units": 4, "depth": 1},
    "scheduler": "none",
    "trainer": {"max_steps": 6, "accelerator": "cpu"},
    "logger": {"graph": False},
    "verbosity": 0,
}


def rows(scale: float = 1.0) -> pa.Table:
    draw = np.random.default_rng(0)
    return pa.table({"a": draw.normal(size=40) * scale, "y": [*"ab"] * 20})


def test_a_run_does_not_continue_on_rows_of_another_scale(tmp_path: Path) -> None:
    first = mlp_lightning.train(FRAME, tmp_path / "first", frame=rows())
    longer = {**FRAME, "trainer": {**FRAME["trainer"], "max_steps": 9}}
    longer["ckpt_path"] = str(first.run_dir / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match="than frame has now: other values in the column 'a'"):
        mlp_lightning.train(longer, tmp_path / "second", frame=rows(scale=-1000))
    assert mlp_lightning.train(longer, tmp_path / "third", frame=rows()).steps == 9


def test_a_checkpoint_without_a_fingerprint_is_compared_by_its_scales(tmp_path: Path) -> None:
    first = mlp_lightning.train(FRAME, tmp_path / "first", frame=rows())
    path = first.run_dir / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    del content["fingerprint"]
    torch.save(content, path)
    longer = {**FRAME, "trainer": {**FRAME["trainer"], "max_steps": 9}, "ckpt_path": str(path)}
    with pytest.raises(CheckpointError, match="columns, categories, scales or targets differ"):
        mlp_lightning.train(longer, tmp_path / "second", frame=rows(scale=-1000))
    assert mlp_lightning.train(longer, tmp_path / "third", frame=rows()).steps == 9


TOWNS = ["Bergen", "Turku", "Malmo", "Aarhus"]


def write_towns(path: Path, count: int = 48, first: int = 0, extra: str = "") -> None:
    """Texts alone: no scale changes, and every category was there before."""
    lines = [f"{TOWNS[row % 4]},{'wet' if row % 3 else 'dry'},{'ab'[row % 2]}" for row in range(first, first + count)]
    path.write_text("\n".join(["town,weather,y", *lines]) + f"\n{extra}", encoding="utf-8")


def towns(path: Path, steps: int = 4, **data: Any) -> dict[str, Any]:
    section = {"name": "table", "path": str(path), "target": "y", "val_fraction": 0.25, "test_fraction": 0.25, **data}
    return {**FRAME, "data": section, "trainer": {"max_steps": steps, "accelerator": "cpu"}}


def test_a_run_continues_on_the_same_rows_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another path, format and way of writing; other rows there are refused, and so is another table for a split."""
    here, there, third = (tmp_path / name for name in ("here.csv", "there.parquet", "third.csv"))
    write_towns(here)
    pq.write_table(pyarrow.csv.read_csv(here), there)
    with third.open("w", encoding="latin-1") as file:
        file.write("\n".join(";".join(line.split(",")) for line in here.read_text(encoding="utf-8").splitlines()))
    last = mlp_lightning.train(towns(here), tmp_path / "first").run_dir / "checkpoints" / "last.ckpt"

    def continued(path: Path, to: str, **data: Any) -> Any:
        config = {**towns(path, steps=7, **data), "ckpt_path": str(last), "verbosity": 1}
        return mlp_lightning.train(config, tmp_path / to)

    on_same = continued(here, "same")
    for name, path, data in (("parquet", there, {}), ("text", third, {"csv": {"delimiter": ";"}})):
        capsys.readouterr()
        assert continued(path, name, **data).metrics == on_same.metrics
        assert f"data.path: {path} has the same rows as {here} had before" in capsys.readouterr().out
    write_towns(third, first=1)
    with pytest.raises(
        CheckpointError, match=r"trained on other rows than .*third\.csv has now: the same rows in another"
    ):
        continued(third, "other")
    write_towns(third)
    with pytest.raises(CheckpointError, match=r"test_fraction: 0\.25 in the checkpoint, 0\.0 now"):
        continued(here, "split", test_path=str(third), test_fraction=0)
    content = torch.load(last, weights_only=True)
    del content["fingerprint"]  # of an earlier version: then the path has to be the same
    torch.save(content, last)
    with pytest.raises(CheckpointError, match=r"data\.path: '.*here\.csv' in the checkpoint, '.*there\.parquet' now"):
        continued(there, "old")


CHANGES = {
    "grown": ({"count": 49}, "49 rows instead of 48"),
    "other order": ({"first": 1}, "the same rows in another order"),
    "replaced": ({"count": 47, "extra": "Turku,dry,b\n"}, r"other values in the column"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_texts_that_have_changed(tmp_path: Path, case: str) -> None:
    """Training, evaluation and continuing by Python; the split of a changed table is another one."""
    path, (change, message) = tmp_path / "towns.csv", CHANGES[case]
    write_towns(path)
    first = mlp_lightning.train(towns(path), tmp_path / "first")
    fingerprint = json.loads((tmp_path / "first" / "result.json").read_text())["fingerprint"]
    assert fingerprint["data"]["rows"] == 48
    last = first.run_dir / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["fingerprint"] == fingerprint
    write_towns(path, **change)
    longer = {**towns(path, steps=8), "ckpt_path": str(last)}
    with pytest.raises(CheckpointError, match=message):
        mlp_lightning.train(longer, tmp_path / "second")
    assert not (tmp_path / "second").exists()
    for split in ("train", "val", "test"):
        with pytest.raises(CheckpointError, match=message):
            evaluate(last, tmp_path / "evaluation", split=split)
    assert evaluate(last, tmp_path / "evaluation", data_path=str(path)).rows == 48 + (case == "grown")
    with pytest.raises(DataError, match=message):
        mlp_lightning.train(towns(path), tmp_path / "third", rows=fingerprint)
    write_towns(path)
    assert mlp_lightning.train(longer, tmp_path / "fourth", rows=fingerprint).steps == 8
    evaluate(last, tmp_path / "evaluation", split="val")


def test_a_member_of_a_stack_does_not_continue_on_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    write_towns(path)
    configs = [parse_config({**towns(path), "seed": seed}) for seed in range(2)]
    train_stack(configs, [tmp_path / "0", tmp_path / "1"])
    fingerprints = [json.loads((tmp_path / one / "result.json").read_text())["fingerprint"] for one in "01"]
    assert fingerprints[0] == fingerprints[1]  # whatever the seed has split off
    last = tmp_path / "1" / "checkpoints" / "last.ckpt"
    longer = {**towns(path, steps=8), "seed": 1, "ckpt_path": str(last)}
    write_towns(path, count=49)
    with pytest.raises(CheckpointError, match="49 rows instead of 48"):
        mlp_lightning.train(longer, tmp_path / "refused")
    write_towns(path)
    assert mlp_lightning.train(longer, tmp_path / "continued").steps == 8


def test_a_column_that_is_to_be_ignored_may_change(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    write_towns(path)
    options: dict[str, Any] = {"columns": {"weather": {"kind": "ignored"}}}
    first = mlp_lightning.train(towns(path, **options), tmp_path / "first")
    path.write_text(path.read_text().replace("dry", "fog"))
    last = first.run_dir / "checkpoints" / "last.ckpt"
    longer = {**towns(path, steps=8, **options), "ckpt_path": str(last)}
    assert mlp_lightning.train(longer, tmp_path / "second").steps == 8


def test_the_same_values_that_are_written_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "heights.csv"
    numbers = [f"{row}.{row % 7}5" for row in range(48)]

    def write(separator: str, mark: str) -> None:
        lines = [f"{one.replace('.', mark)}{separator}{'ab'[row % 2]}" for row, one in enumerate(numbers)]
        path.write_text("\n".join([f"h{separator}y", *lines]) + "\n", encoding="utf-8")

    write(",", ".")
    first = mlp_lightning.train(towns(path), tmp_path / "first")
    last = first.run_dir / "checkpoints" / "last.ckpt"
    write(";", ",")
    with pytest.raises(CheckpointError, match="the same values, but numbers or dates are written in another way"):
        mlp_lightning.train({**towns(path, steps=8), "ckpt_path": str(last)}, tmp_path / "second")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_file_for_one_split_that_has_changed(tmp_path: Path, split: str) -> None:
    path, own = tmp_path / "towns.csv", tmp_path / "own.csv"
    write_towns(path)
    write_towns(own, count=12)
    options = {f"{split}_path": str(own), f"{split}_fraction": 0}
    first = mlp_lightning.train(towns(path, **options), tmp_path / "first")
    write_towns(own, count=12, first=1)
    last = first.run_dir / "checkpoints" / "last.ckpt"
    message = f"in data.{split}_path, the same rows in another order"
    with pytest.raises(CheckpointError, match=message):
        mlp_lightning.train({**towns(path, steps=8, **options), "ckpt_path": str(last)}, tmp_path / "second")
    with pytest.raises(CheckpointError, match=message):
        evaluate(last, tmp_path / "evaluation", split="train")


def test_folds_of_a_table_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    write_towns(path)
    config = towns(path, cv={"folds": 3}, val_fraction=0, test_fraction=0)
    mlp_lightning.cross_validate(config, tmp_path / "folds")
    records = [tmp_path / "folds" / "result.json", *(tmp_path / "folds").glob("fold-*/result.json")]
    assert len(records) == 4
    assert len({json.dumps(json.loads(one.read_text())["fingerprint"]) for one in records}) == 1
    fold = tmp_path / "folds" / "fold-1" / "checkpoints" / "last.ckpt"
    evaluate(fold, tmp_path / "evaluation")
    write_towns(path, count=50)
    with pytest.raises(CheckpointError, match="50 rows instead of 48"):
        evaluate(fold, tmp_path / "evaluation")


def test_a_trainer_of_your_own(tmp_path: Path) -> None:
    def fit(data: TabularDataModule, epochs: int, checkpoint: str | None = None) -> pl.Trainer:
        module = MLPModule(data.in_features, 1, "binary", preprocessing=data.preprocessing)
        options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            max_epochs=epochs,
            default_root_dir=tmp_path,
            enable_model_summary=False,
            enable_checkpointing=False,
            **options,
        )
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return trainer

    path, last = tmp_path / "towns.csv", str(tmp_path / "last.ckpt")
    write_towns(path)
    fit(data_of(path), 1).save_checkpoint(last)
    write_towns(path, first=1)
    with pytest.raises(CheckpointError, match="the same rows in another order"):
        fit(data_of(path), 2, last)
    trainer = fit(data_of(path), 1)
    trainer.validate(datamodule=data_of(path), ckpt_path=last, verbose=False, weights_only=True)  # other rows may be
    write_towns(path)
    assert fit(data_of(path), 2, last).current_epoch == 2


def data_of(path: Path) -> TabularDataModule:
    data = TabularDataModule(path=str(path), target="y", val_fraction=0.25)
    data.setup()
    return data


def test_runs_with_other_numbers_of_folds_have_other_rows(tmp_path: Path, compose_config: ComposeConfig) -> None:
    case = ["data=iris", "trainer.max_steps=5", "logger.graph=false", "trainer.threads=1", "data.val_fraction=0"]
    configs = [compose_config(*case, f"data.cv.folds={folds}", "data.cv.fold=0") for folds in (3, 10)]
    alone = [mlp_lightning.train(one, tmp_path / f"alone{number}") for number, one in enumerate(configs)]
    stacked = train_stack(configs, [tmp_path / "a", tmp_path / "b"])
    for one, other in zip(stacked, alone, strict=True):
        assert one.metrics["test"]["loss"] == pytest.approx(other.metrics["test"]["loss"], rel=1e-5)
    assert stacked[0].metrics["test"]["loss"] != pytest.approx(stacked[1].metrics["test"]["loss"], rel=1e-3)


def test_runs_with_other_epochs_are_other_stacks(tmp_path: Path, compose_config: ComposeConfig) -> None:
    """Groups of rows stay together, so that splits have other numbers of rows."""
    groups = np.repeat(np.arange(6), [3, 40, 8, 30, 5, 25])
    draw = np.random.default_rng(0)
    text = "".join(f"{draw.normal():.4f},{'ab'[number % 2]},g{group}\n" for number, group in enumerate(groups))
    (tmp_path / "rows.csv").write_text("x,y,g\n" + text)
    case = ["data=table", f"data.path={tmp_path / 'rows.csv'}", "data.target=y", "data.group_column=g"]
    case += ["data.batch_size=16", "trainer.max_steps=6", "model=wide", "data.test_fraction=0"]
    configs = [compose_config(*case, f"seed={seed}") for seed in range(6)]
    grouping = group_runs(configs, SizesOf(), 10**9)
    epochs = {one.steps_per_epoch for one in map(SizesOf(), configs)}
    assert len(epochs) > 1
    assert len(grouping.stacks) + len(grouping.alone) >= len(epochs)
    for number, stack in enumerate(grouping.stacks):
        folders = [tmp_path / f"{number}-{index}" for index in stack]
        assert {one.status for one in train_stack([configs[index] for index in stack], folders)} == {"finished"}
