"""Curves are on the disk while a run trains, alone or as a member of a stack, and the same at the end."""

from __future__ import annotations

import csv
import json
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from support.configurations import ComposeConfig
from support.run_folders import assert_same_run, scalars

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.runs import metric_files, train, train_stack, training_module

CASE = ["data=iris", "data.batch_size=32", "trainer.max_steps=30", "trainer.steps_per_execution=6"]
CASE += ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
# The second stops early and so ends while the others train; the third fails.
MEMBERS = [["optimizer.lr=0.1"], ["optimizer.lr=1e-9"], ["optimizer.lr=1e30"], ["optimizer.lr=0.2", "seed=1"]]
LIVE = {"_SECONDS_BETWEEN_WRITES": 0, "_SHARE_OF_TIME": float("inf")}


class Watches(pl.Callback):
    """What is on the disk after each execution: the steps of the training loss in the events and in the CSV file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[list[int], list[int]]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        path = self.folder / "metrics.csv"
        rows = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
        events = scalars(self.folder).get("loss/train", [])
        self.seen.append(([step for step, _ in events], [int(row["step"]) for row in rows if row["loss/train"]]))


def single(configs: list[Config], folder: Path, watches: Watches) -> None:
    train(configs[0], folder / "0", callbacks=[watches])


def together(configs: list[Config], folder: Path, watches: Watches) -> None:
    train_stack(configs, [folder / str(number) for number in range(len(configs))], callbacks=[watches])


@pytest.mark.parametrize("train_all", [single, together], ids=["single", "stack"])
def test_curves_grow_while_a_run_trains(
    train_all: Callable[..., None], tmp_path: Path, compose_config: ComposeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [compose_config(*CASE, "trainer.log_every_n_steps=2", *own) for own in MEMBERS]
    monkeypatch.setattr(training_module, "SLOW", math.inf)  # on any machine; what is slow is written sooner
    late = Watches(tmp_path / "late" / "0")
    train_all(configs, tmp_path / "late", late)
    for name, value in LIVE.items():
        monkeypatch.setattr(metric_files, name, value)
    live = Watches(tmp_path / "live" / "0")
    train_all(configs, tmp_path / "live", live)
    # A run of seconds is written at its end; another one after every execution, up to the steps that were made.
    assert late.seen == [([], [])] * 5
    assert live.seen == [(list(range(0, end, 2)), list(range(0, end, 2))) for end in (6, 12, 18, 24, 30)]
    for folder in (tmp_path / "late").iterdir():
        assert_same_run(tmp_path / "live" / folder.name, folder)


@pytest.mark.parametrize("callbacks", ["default", "none"])
def test_error_after_the_curves_are_written_does_not_write_them_twice(
    callbacks: str, tmp_path: Path, compose_config: ComposeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> str:
        raise RuntimeError("cannot describe")

    monkeypatch.setattr(TabularDataModule, "describe_predictions", breaks)
    with pytest.raises(RuntimeError, match="cannot describe"):
        train(compose_config("data=xor", "trainer.max_steps=12", f"callbacks={callbacks}"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert [step for step, _ in scalars(tmp_path / "run")["loss/train"]] == steps
    (events,) = (tmp_path / "run").glob("events.out.tfevents.*")
    assert events.read_bytes().count(b"_hparams_/session_end_info") == 1


@pytest.mark.parametrize("interval", [1, 4])
def test_histograms_are_not_kept_until_the_losses_are_measured(
    interval: int, tmp_path: Path, compose_config: ComposeConfig
) -> None:
    """They are copies of all weights and gradients."""
    kept: list[weakref.ref[torch.Tensor]] = []
    most = []

    class Counts(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
            for trace, _members in outputs["outputs"].traces:
                kept.extend(weakref.ref(value) for one in trace.histograms for value in one.weights.values())
            most.append(sum(one() is not None for one in kept))

    case = ["data=xor", "trainer.max_steps=40", "trainer.steps_per_execution=4"]
    case += [f"callbacks.histograms_every_n_steps={interval}"]
    train(compose_config(*case), tmp_path / "run", callbacks=[Counts()])
    assert len(kept) == 40 // interval * 4
    assert max(most) == 4 // interval * 4
