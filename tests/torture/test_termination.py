"""SIGTERM and, 5 seconds later, SIGKILL: there is a checkpoint whatever takes long, and it continues exactly."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import run_folders
from support.configurations import ComposeConfig
from support.kill_points import started
from support.plain import plain

import mlp_lightning
from mlp_lightning.config import Config
from mlp_lightning.engines.autograd.engine import AutogradEngine
from mlp_lightning.engines.explicit.optimizer import FlatOptimizer
from mlp_lightning.engines.stacked.engine import StackedEngine
from mlp_lightning.runs import train_stack, training_module
from mlp_lightning.runs.stack_checkpoints import SavedStack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one with threads")

# 6 steps an epoch; the last validation is within one.
CASE = [
    *("data=iris", "data.batch_size=16", "optimizer=adam", "model.dropout=0.2", "trainer.max_steps=14"),
    *("trainer.threads=1", "trainer.log_every_n_steps=1", "logger.graph=false", "trainer.steps_per_execution=1000"),
]
GRACE_S, SLOW_S = 5.0, 0.05


def slow(
    method: Callable[..., Any], waits: Path, at: int, counts: Callable[..., bool], seconds: float = SLOW_S
) -> Callable[..., Any]:
    """A method each call of which is slow, and one of which does not end."""
    calls = 0

    def called(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        if counts(*arguments, **named):
            calls += 1
            if calls == at:
                waits.touch()
                time.sleep(60)  # the handlers of signals run, and it continues
            time.sleep(seconds)
        return method(self, *arguments, **named)

    return called


#: What is slow, which of its calls does not end, and the steps that are not lost.
CASES = {
    "the second step": (FlatOptimizer, "step", 2, 1),
    "a step": (FlatOptimizer, "step", 9, 8),
    "the first validation": (AutogradEngine, "evaluate", 1, 6),
    "a validation": (AutogradEngine, "evaluate", 2, 12),
    "the last validation": (AutogradEngine, "evaluate", 3, 14),
    "the measurement at the end": (AutogradEngine, "evaluate", 4, 14),
}


def train_slowly(config: Config, folder: Path, waits: Path, case: str) -> None:
    """Train until something takes for ever; steps that are slow in a real run are slow here."""
    owner, name, at, _ = CASES[case]
    training_module.SLOW = SLOW_S / 2
    step: Any = slow(FlatOptimizer.step, waits, 0, lambda *_, **__: True)
    FlatOptimizer.step = step
    is_split = name == "evaluate"
    counts = (lambda split, *_, **__: split == "val" or at == 4) if is_split else (lambda *_, **__: True)
    setattr(owner, name, slow(getattr(owner, name), waits, at, counts))
    mlp_lightning.train(config, folder)


def wait_for(file: Path, most_s: float) -> None:
    deadline = time.monotonic() + most_s
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def terminate(work: Callable[[], None], folder: Path, waits: Path, saved: Path) -> None:
    """Let a process work until it waits, terminate it, and kill it once it has saved its state, or soon after."""
    process = started(work, folder)
    try:
        wait_for(waits, 60)
        os.kill(process, signal.SIGTERM)
        wait_for(saved, GRACE_S)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert saved.exists(), (folder.parent / "output").read_text()


def assert_same(one: mlp_lightning.TrainingResult, other: mlp_lightning.TrainingResult) -> None:
    """Equal results, curves and weights, to the last bit."""
    assert (one.metrics, one.best, one.validation) == (other.metrics, other.best, other.validation)
    assert (one.run_dir / "metrics.csv").read_text() == (other.run_dir / "metrics.csv").read_text()
    assert run_folders.scalars(one.run_dir) == run_folders.scalars(other.run_dir)
    for name in ("last", "best"):
        states = [run_folders.checkpoint(found.run_dir, name)["state_dict"] for found in (one, other)]
        assert plain(states[0]) == plain(states[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_terminated_within_what_takes_long(case: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    whole = mlp_lightning.train(compose_config(*CASE), tmp_path / "whole")
    folder, waits = tmp_path / "runs", tmp_path / "waits"
    folder.mkdir()
    last = folder / "run" / "checkpoints" / "last.ckpt"
    terminate(lambda: train_slowly(compose_config(*CASE), folder / "run", waits, case), folder, waits, last)
    assert torch.load(last, weights_only=True)["global_step"] == CASES[case][3]
    assert_same(mlp_lightning.train(compose_config(*CASE, f"ckpt_path={last}"), tmp_path / "resumed"), whole)


# The loss over all training rows may be the best: measured between fast steps, or after a fast validation.
LOSS = ["callbacks.checkpoint.monitor=loss/train"]
MEASURED = {"between steps": [*LOSS, "callbacks.checkpoint.every_n_steps=4"]}
MEASURED["after a validation"] = [*LOSS, "callbacks.checkpoint.every_n_steps=6"]


@pytest.mark.slow
@pytest.mark.parametrize("case", MEASURED)
@pytest.mark.parametrize("count", [1, 3])
def test_terminated_while_the_training_loss_is_measured(
    count: int, case: str, tmp_path: Path, compose_config: ComposeConfig
) -> None:
    words = [*CASE, *MEASURED[case]]
    configs = [compose_config(*words, f"seed={seed}") for seed in range(count)]
    folder, waits, state = tmp_path / "runs", tmp_path / "waits", tmp_path / "runs" / "a.stack"
    folder.mkdir()
    last = folder / "0" / "checkpoints" / "last.ckpt"
    owner: Any = AutogradEngine if count == 1 else StackedEngine

    def trained(parent: Path, **named: Any) -> list[mlp_lightning.TrainingResult]:
        folders = [parent / f"{number}" for number in range(count)]
        if count == 1:
            return [mlp_lightning.train(named.get("config", configs[0]), folders[0])]
        return train_stack(configs, folders, checkpoint=named.get("state"))

    def slowly() -> None:
        owner.evaluate = slow(owner.evaluate, waits, 1, lambda split, *_, **__: split == "train", 0)
        trained(folder, state=state)

    whole = trained(tmp_path / "whole")
    terminate(slowly, folder, waits, last if count == 1 else state)
    step = torch.load(last, weights_only=True)["global_step"] if count == 1 else SavedStack.read(state).step
    assert step == (4 if case == "between steps" else 6)
    resumed = trained(tmp_path / "resumed", state=state, config=compose_config(*words, f"ckpt_path={last}"))
    for one, other in zip(resumed, whole, strict=True):
        assert_same(one, other)


# One member ends early.
OF_STACK = [*CASE, "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "trainer.max_epochs=null"]
OF_STACK += ["callbacks.checkpoint.every_n_seconds=1000"]
SEEDS = range(5)
STACK_CASES = {
    "a step": ("run", 9, 8),
    "a validation": ("evaluate", 2, 12),
    "the measurement of a member that ends": ("evaluate", 3, 12),
    "the last validation": ("evaluate", 7, 14),
    "the measurement at the end": ("evaluate", 8, 14),
}
# Nothing else is slow, so that there is no copy of an earlier state.
FAST = "with fast steps: "
STACK_CASES |= {f"{FAST}{one}": STACK_CASES[one] for one in STACK_CASES if "measurement" in one}


def train_stack_slowly(configs: list[Config], folders: list[Path], state: Path, waits: Path, case: str) -> None:
    """The same for a stack, each execution of which makes one step."""
    name, at, _ = STACK_CASES[case]
    is_fast = case.startswith(FAST)
    training_module.SLOW = 60 if is_fast else SLOW_S / 2
    for one in ("run", "evaluate"):
        method: Any = getattr(StackedEngine, one)
        seconds = 0.0 if is_fast else SLOW_S
        setattr(StackedEngine, one, slow(method, waits, at if one == name else 0, lambda *_, **__: True, seconds))
    train_stack(configs, folders, checkpoint=state)


def folders_of(parent: Path) -> list[Path]:
    return [parent / f"{seed}" for seed in SEEDS]


@pytest.mark.slow
@pytest.mark.parametrize("case", STACK_CASES)
def test_a_stack_terminated_within_what_takes_long(case: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    configs = [compose_config(*OF_STACK, f"seed={seed}", f"optimizer.lr={0.3 / (seed + 1)}") for seed in SEEDS]
    whole = train_stack(configs, folders_of(tmp_path / "whole"))
    assert {one.steps for one in whole} == {12, 14}
    folder, waits, state = tmp_path / "runs", tmp_path / "waits", tmp_path / "runs" / "a.stack"
    folder.mkdir()
    killed = folders_of(folder / "killed")
    terminate(lambda: train_stack_slowly(configs, killed, state, waits, case), folder, waits, state)
    assert torch.load(state, weights_only=True)["step"] == STACK_CASES[case][2]
    ended = {number: one for number, one in enumerate(killed) if (one / "result.json").exists()}
    rest = [number for number in SEEDS if number not in ended]
    folders = [tmp_path / "resumed" / f"{number}" for number in rest]
    resumed = train_stack([configs[number] for number in rest], folders, checkpoint=state)
    for number, one in zip(rest, resumed, strict=True):
        assert_same(one, whole[number])
