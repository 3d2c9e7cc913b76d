"""Parts of a sweep whose stack raises: every run gets an outcome."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from support.configurations import ComposeConfig

import mlp_lightning.runs
from mlp_lightning.engines.explicit.loop import ExplicitLoop
from mlp_lightning.engines.stacked.loop import StackedLoop
from mlp_lightning.sweeps.worker import Outcome, train_part


class RecordingProgress:
    def __init__(self) -> None:
        self.outcomes: list[tuple[int, str]] = []

    def steps_made(self, steps: int, members: int) -> None: ...

    def ended(self, index: int, outcome: Outcome) -> bool:
        self.outcomes.append((index, outcome.status))
        return True


def test_stack_that_raises_fails_its_runs(compose_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_stack(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(mlp_lightning.runs, "train_stack", no_stack)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    configs = [compose_config("data=xor", f"seed={seed}") for seed in (0, 1)]
    folders = [tmp_path / "0", tmp_path / "1"]
    outcomes = train_part(configs, folders)
    assert [one.status for one in outcomes] == ["failed", "failed"]
    for folder, outcome in zip(folders, outcomes, strict=True):
        assert outcome.error.startswith("ZeroDivisionError: a bug")
        assert json.loads((folder / "result.json").read_text())["status"] == "failed"
        named = re.search(r"The full traceback is in (.*); HYDRA_FULL_ERROR=1", outcome.error)
        assert named is not None
        assert "Traceback" in Path(named[1]).read_text(encoding="utf-8")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ZeroDivisionError):
        train_part(configs, [tmp_path / "2", tmp_path / "3"])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate")])
def test_stack_that_does_not_fit_is_halved(
    error: Exception, compose_config: ComposeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sizes = StackedLoop.run, []

    def limited(self: StackedLoop, *args: int) -> object:
        sizes.append(self.model.members)
        if self.model.members > 2:
            raise error
        return run(self, *args)

    monkeypatch.setattr(StackedLoop, "run", limited)
    case = ["data=xor", "trainer.max_steps=30", "trainer=cpu", "logger.graph=false"]
    configs = [compose_config(*case, f"seed={seed}") for seed in range(5)]
    progress = RecordingProgress()
    folders = [tmp_path / str(seed) for seed in range(5)]
    outcomes = train_part(configs, folders, progress, tmp_path / "a.stack")
    # Its first step is a piece of each training; of the second half's halves, one is a run alone.
    assert sizes == [5, 2, 2, 3, 2, 2]
    assert [one.status for one in outcomes] == ["finished"] * 5
    assert sorted(progress.outcomes) == [(index, "finished") for index in range(5)]
    for config, folder, outcome in zip(configs, folders, outcomes, strict=True):
        alone = mlp_lightning.train(config, tmp_path / "alone" / folder.name)
        assert outcome.metrics["train"] == pytest.approx(alone.metrics["train"], abs=1e-5)
    assert list(tmp_path.glob("*.stack")) == []


def test_single_run_that_does_not_fit_fails(
    compose_config: ComposeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(StackedLoop, "run", full)
    monkeypatch.setattr(ExplicitLoop, "make_steps", full)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    configs = [compose_config("data=xor", "trainer.max_steps=30", f"seed={seed}") for seed in range(2)]
    outcomes = train_part(configs, [tmp_path / "0", tmp_path / "1"])
    assert [one.status for one in outcomes] == ["failed", "failed"]
    assert all("full" in one.error for one in outcomes)


CASE = ["data=iris", "trainer.max_epochs=6", "trainer=cpu", "logger.graph=false", "trainer.steps_per_execution=1"]


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), torch.OutOfMemoryError("full")])
def test_runs_that_have_ended_keep_their_outcome(
    error: Exception, compose_config: ComposeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member fails alone; later the stack of the others raises."""
    run, broken = StackedLoop.run, []

    def breaking(self: StackedLoop, first_step: int, count: int) -> object:
        if first_step >= 3 and not broken:
            broken.append(first_step)
            raise error
        return run(self, first_step, count)

    monkeypatch.setattr(StackedLoop, "run", breaking)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    learning_rates = ("0.1", "1e38", "0.2", "0.05")
    configs = [compose_config(*CASE, f"optimizer.lr={lr}") for lr in learning_rates]
    progress = RecordingProgress()
    outcomes = train_part(configs, [tmp_path / str(index) for index in range(4)], progress, tmp_path / "a.stack")
    others = "finished" if isinstance(error, torch.OutOfMemoryError) else "failed"
    assert [one.status for one in outcomes] == [others, "failed", others, others]
    assert "loss became" in outcomes[1].error
    assert sorted(progress.outcomes) == [(index, one.status) for index, one in enumerate(outcomes)]
    for index, outcome in enumerate(outcomes):
        assert json.loads((tmp_path / str(index) / "result.json").read_text())["status"] == outcome.status


def test_stack_that_cannot_be_continued_is_restarted(
    compose_config: ComposeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [compose_config(*CASE, "callbacks.checkpoint.every_n_seconds=0", f"seed={seed}") for seed in range(3)]
    saved = tmp_path / "a.stack"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlp_lightning.runs.training.Training._remove_state", lambda self: None)
        expected = train_part(configs, [tmp_path / "first" / str(index) for index in range(3)], None, saved)
    content = torch.load(saved, weights_only=True)
    tensors = content["engine"]["tensors"]
    tensors["weights"] = tensors["weights"][:-1]
    torch.save(content, saved)
    outcomes = train_part(configs, [tmp_path / "second" / str(index) for index in range(3)], None, saved)
    assert [one.metrics for one in outcomes] == [one.metrics for one in expected]
    assert "could not be continued" in capsys.readouterr().err
    assert [one.name for one in tmp_path.glob("*.stack*")] == ["a.stack.unreadable"]


def test_fail_fast_between_halves(
    compose_config: ComposeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StackedLoop.run

    def limited(self: StackedLoop, *args: int) -> object:
        if self.model.members > 2:
            raise torch.OutOfMemoryError("full")
        return run(self, *args)

    class StopAfterFirst(RecordingProgress):
        def ended(self, index: int, outcome: Outcome) -> bool:
            super().ended(index, outcome)
            return False

    monkeypatch.setattr(StackedLoop, "run", limited)
    configs = [compose_config(*CASE, f"seed={seed}") for seed in range(4)]
    progress = StopAfterFirst()
    outcomes = train_part(configs, [tmp_path / str(index) for index in range(4)], progress)
    assert [one.status for one in outcomes] == ["finished", "finished", "interrupted", "interrupted"]
