"""A signal between any two steps: no trained step is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from support.configurations import ComposeConfig
from support.run_folders import assert_same_run, files

import mlp_lightning
from mlp_lightning.runs import train_stack

pytestmark = pytest.mark.posix

CASE = ["data=iris", "data.batch_size=32", "optimizer=adam", "logger.graph=false", "trainer.threads=1"]
CASE += ["trainer.max_steps=40", "trainer.steps_per_execution=10"]
Sender = Callable[[int], list[pl.Callback]]


class Sends(pl.Callback):
    """Raises a signal in this process once, as if it came in a callback of the user."""

    def __init__(self, number: int, step: int) -> None:
        self.number = number
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(self.number)


@pytest.fixture(params=["SIGINT in a callback", "SIGTERM in a callback", "SIGTERM in Lightning"])
def send_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Sender:
    """Callbacks that send a signal after some step; the last kind sends it after our module's last check."""
    name, _, where = request.param.partition(" in ")
    number = getattr(signal, name)
    if where == "a callback":
        return lambda step: [Sends(number, step)]

    def in_lightning(step: int) -> list[pl.Callback]:
        update, sent = _TrainingEpochLoop.update_lr_schedulers, []

        def sending(self: Any, interval: str, update_plateau_schedulers: bool) -> None:
            update(self, interval, update_plateau_schedulers)
            # Lightning calls this several times after a step; this is the first after our module's last check.
            if update_plateau_schedulers and self.trainer.global_step == step and not sent:
                sent.append(step)
                signal.raise_signal(number)

        monkeypatch.setattr(_TrainingEpochLoop, "update_lr_schedulers", sending)
        return []

    return in_lightning


def status(folder: Path) -> str:
    return json.loads((folder / "result.json").read_text())["status"]


def test_single_run_is_saved_and_continues(send_at: Sender, tmp_path: Path, compose_config: ComposeConfig) -> None:
    whole = mlp_lightning.train(compose_config(*CASE), tmp_path / "whole")
    stopped = mlp_lightning.train(compose_config(*CASE), tmp_path / "stopped", callbacks=send_at(20))
    assert (stopped.status, stopped.steps, status(stopped.run_dir)) == ("interrupted", 20, "interrupted")
    last = stopped.run_dir / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 20
    continued = mlp_lightning.train(compose_config(*CASE, f"ckpt_path={last}"), tmp_path / "continued")
    assert continued.metrics == whole.metrics
    assert (continued.run_dir / "metrics.csv").read_text() == (whole.run_dir / "metrics.csv").read_text()


def test_single_run_at_its_last_step_is_finished(
    send_at: Sender, tmp_path: Path, compose_config: ComposeConfig
) -> None:
    whole = mlp_lightning.train(compose_config(*CASE), tmp_path / "whole")
    late = mlp_lightning.train(compose_config(*CASE), tmp_path / "late", callbacks=send_at(40))
    assert (late.status, late.metrics) == ("finished", whole.metrics)
    assert_same_run(late.run_dir, whole.run_dir)


def members(compose_config: ComposeConfig) -> list[mlp_lightning.Config]:
    return [compose_config(*CASE, f"seed={seed}") for seed in range(3)]


def test_stack_is_saved_and_continues(send_at: Sender, tmp_path: Path, compose_config: ComposeConfig) -> None:
    configs, file = members(compose_config), tmp_path / "a.stack"
    whole = train_stack(configs, [tmp_path / "whole" / str(one) for one in range(3)])
    folders = [tmp_path / "stopped" / str(one) for one in range(3)]
    stopped = train_stack(configs, folders, callbacks=send_at(20), checkpoint=file)
    assert {(one.status, one.steps) for one in stopped} == {("interrupted", 20)}
    assert file.is_file()
    continued = train_stack(configs, [tmp_path / "continued" / str(one) for one in range(3)], checkpoint=file)
    assert [one.metrics for one in continued] == [one.metrics for one in whole]


def test_stack_at_its_last_step_is_finished(send_at: Sender, tmp_path: Path, compose_config: ComposeConfig) -> None:
    """The signal may be meant for more than this stack: it is passed on when all folders are complete."""
    configs = members(compose_config)
    whole = train_stack(configs, [tmp_path / "whole" / str(one) for one in range(3)])
    folders = [tmp_path / "late" / str(one) for one in range(3)]
    with pytest.raises(KeyboardInterrupt):
        train_stack(configs, folders, callbacks=send_at(40), checkpoint=tmp_path / "a.stack")
    assert not (tmp_path / "a.stack").exists()
    for late, one in zip(folders, whole, strict=True):
        assert status(late) == "finished"
        assert files(late) == files(one.run_dir)
