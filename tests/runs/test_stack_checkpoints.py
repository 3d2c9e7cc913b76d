"""A stack that was killed continues from its file bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.configurations import ComposeConfig

from mlp_lightning import TrainingResult
from mlp_lightning.config import Config
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs import metric_files, train_stack, training
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.stack_checkpoints import SavedStack, save_stack

COMMON = [
    *("data=iris", "trainer=cpu", "data.batch_size=16", "logger.graph=false", "trainer.log_every_n_steps=1"),
    *("trainer.steps_per_execution=4", "callbacks.checkpoint.every_n_seconds=0"),
]
MEMBERS = [["seed=0"], ["seed=1", "optimizer.lr=0.02"], ["seed=1", "model.hidden_units=17"], ["optimizer.lr=0.3"]]
CASES: dict[str, list[str]] = {
    "SGD": ["trainer.max_epochs=4"],
    "momentum, ends within an epoch": ["trainer.max_steps=20", "optimizer.momentum=0.9"],
    "adam, clipping": ["optimizer=adam", "trainer.max_epochs=4", "trainer.gradient_clip_val=0.5"],
    "dropout": ["optimizer=adam", "model.dropout=0.3", "trainer.max_epochs=4"],
    "one_cycle": ["optimizer=adamw", "scheduler=one_cycle", "trainer.max_epochs=4"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.1", "trainer.max_epochs=5"],
    "training plateau": [
        *("scheduler=plateau", "scheduler.monitor=loss/train", "scheduler.patience=0", "scheduler.threshold=0.1"),
        "trainer.max_epochs=5",
    ],
    "best weights": ["optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=8", "report_weights=best"],
    "lattice of training losses": [
        *("trainer.max_steps=22", "callbacks.checkpoint.monitor=loss/train", "callbacks.checkpoint.every_n_steps=5"),
        "callbacks.checkpoint.every_n_seconds=null",
    ],
    "residual blocks, batch norm": ["model=resnet", "model.hidden_units=8", "model.depth=2", "trainer.max_epochs=4"],
    "numeric embedding": ["model.numeric_embedding=piecewise_linear", "optimizer=adam", "trainer.max_epochs=3"],
    "snapshots": ["trainer.max_epochs=4", "callbacks.snapshots=9"],
    "double precision": ["optimizer=adam", "trainer.precision=64", "trainer.max_epochs=3"],
}
EARLY = [
    *("optimizer=adam", "trainer.max_epochs=12", "callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
    *("callbacks.checkpoint.every_n_seconds=0", "callbacks.early_stopping.min_delta=0.02"),
    "callbacks.snapshots=12",
]


class Killed(Exception):  # noqa: N818  # no error, but the end of a process
    pass


Kill = Callable[[int], Any]


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """Ends the process, as it were, once the state was written so often; returns the steps at which it was."""

    def patched(saves: int | None) -> list[int]:
        steps: list[int] = []

        def save(path: Path, content: Any) -> None:
            save_stack(path, content)
            steps.append(content["step"])
            if len(steps) == saves:
                raise Killed

        monkeypatch.setattr(training, "save_stack", save)
        return steps

    return patched


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Nested dicts and lists that are equal, tensors to the bit."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected) or bool(actual.isnan().any())
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same_bits(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same_bits(one, other)
    else:
        assert actual == expected


def assert_same_runs(continued: Sequence[TrainingResult], whole: Sequence[TrainingResult]) -> None:
    for one, other in zip(continued, whole, strict=True):
        assert (one.status, one.steps, one.metrics, one.best, one.stopped_by) == (
            *(other.status, other.steps, other.metrics, other.best, other.stopped_by),
        )
        assert (one.run_dir / "metrics.csv").read_bytes() == (other.run_dir / "metrics.csv").read_bytes()
        for name in ("last", "best"):
            files = [run.run_dir / "checkpoints" / f"{name}.ckpt" for run in (one, other)]
            assert files[0].is_file() == files[1].is_file()  # a run that failed at once has none
            if files[1].is_file():
                assert_same_bits(*map(read_checkpoint, files))


def folders(path: Path, count: int) -> list[Path]:
    return [path / str(number) for number in range(count)]


@pytest.mark.parametrize("name", CASES)
def test_same_bits_whenever_it_was_killed(
    name: str, tmp_path: Path, compose_config: ComposeConfig, kill_after: Callable[[int | None], list[int]]
) -> None:
    configs = [compose_config(*COMMON, *CASES[name], *own) for own in MEMBERS]
    file = tmp_path / "a.stack"
    steps = kill_after(None)
    whole = train_stack(configs, folders(tmp_path / "whole", 4), checkpoint=file)
    assert not file.exists()
    assert len(steps) > 2
    for saves in sorted({1, 2, len(steps) // 2, len(steps)}):
        kill_after(saves)
        with pytest.raises(Killed):
            train_stack(configs, folders(tmp_path / f"killed-{saves}", 4), checkpoint=file)
        assert SavedStack.read(file).step == steps[saves - 1]
        kill_after(None)
        # The runs may come in another order.
        continued = train_stack(configs[::-1], folders(tmp_path / f"continued-{saves}", 4), checkpoint=file)[::-1]
        assert_same_runs(continued, whole)
        assert {one.resumed_from for one in continued} == {str(file)}
        assert not file.exists()


ENDING: dict[str, list[list[str]]] = {
    "early stopping": [[*EARLY, lr] for lr in ("optimizer.lr=1e-3", "optimizer.lr=0.5", "optimizer.lr=1e-9")]
    + [[*EARLY, "optimizer.lr=0.01"]],
    "early stopping of batch norm": [
        [*EARLY, "model.norm=batch", lr] for lr in ("optimizer.lr=1e-3", "optimizer.lr=0.5", "optimizer.lr=1e-9")
    ]
    + [[*EARLY, "model.norm=batch", "model.hidden_units=5"]],
    # Without the members that fail, a stack of plain SGD could compute by another rule.
    "failures of large learning rates": [
        ["trainer.max_epochs=4", f"optimizer.lr={lr}", f"seed={seed}"]
        for seed, lr in enumerate(("1e7", "1e30", "0.02", "0.3"))
    ],
    "weight decay of those that end": [
        [*EARLY[1:], "optimizer.momentum=0.0", f"optimizer.weight_decay={decay}", f"optimizer.lr={lr}"]
        for decay, lr in ((0.1, 1e-7), (0.1, 1e-8), (0.0, 0.05), (0.0, 0.1))
    ],
}


@pytest.mark.parametrize("name", ENDING)
def test_members_that_have_ended_are_not_trained_again(
    name: str, tmp_path: Path, compose_config: ComposeConfig, kill_after: Callable[[int | None], list[int]]
) -> None:
    configs = [compose_config(*COMMON, *one) for one in ENDING[name]]
    steps = kill_after(None)
    whole = train_stack(configs, folders(tmp_path / "whole", 4))
    ends = [one.steps for one in whole]
    assert len(set(ends)) > 1
    train_stack(configs, folders(tmp_path / "seen", 4), checkpoint=tmp_path / "seen.stack")
    seen = list(steps)
    for saves, step in enumerate(seen, start=1):
        ended = [number for number, end in enumerate(ends) if end <= step]
        if not ended:
            continue
        kill_after(saves)
        file = tmp_path / f"{saves}.stack"
        with pytest.raises(Killed):
            train_stack(configs, folders(tmp_path / f"killed-{saves}", 4), checkpoint=file)
        kill_after(None)
        left = [number for number in range(4) if number not in ended]
        new = [tmp_path / f"continued-{saves}" / str(number) for number in left]
        continued = train_stack([configs[one] for one in left], new, checkpoint=file)
        assert_same_runs(continued, [whole[one] for one in left])


@pytest.mark.parametrize("live", [False, True], ids=["written at the end", "written while it trains"])
def test_members_that_ended_after_the_stack_was_saved(
    live: bool,
    tmp_path: Path,
    compose_config: ComposeConfig,
    kill_after: Callable[[int | None], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their folders are complete: nothing of them is written, and the others still compute with their slots."""
    if live:
        monkeypatch.setattr(metric_files, "_SECONDS_BETWEEN_WRITES", 0)
        monkeypatch.setattr(metric_files, "_SHARE_OF_TIME", float("inf"))
    configs = [compose_config(*COMMON, *CASES["dropout"], *own) for own in MEMBERS]
    kill_after(None)
    whole = train_stack(configs, folders(tmp_path / "whole", 4))
    kill_after(2)
    file = tmp_path / "a.stack"
    with pytest.raises(Killed):
        train_stack(configs, folders(tmp_path / "killed", 4), checkpoint=file)
    kill_after(None)
    left = [1, 3]
    continued = train_stack([configs[one] for one in left], folders(tmp_path / "continued", 2), checkpoint=file)
    assert_same_runs(continued, [whole[one] for one in left])
    assert len(list((tmp_path / "continued").iterdir())) == 2


def test_an_interrupted_stack_keeps_its_file(tmp_path: Path, compose_config: ComposeConfig) -> None:
    configs = [compose_config(*COMMON, *CASES["dropout"], "trainer.steps_per_execution=5", *own) for own in MEMBERS]
    whole = train_stack(configs, folders(tmp_path / "whole", 4))

    class Progress:
        steps = 0

        def steps_made(self, steps: int, members: int) -> None:
            self.steps += steps
            if self.steps == 10 and steps:  # in the middle of the second epoch
                signal.raise_signal(signal.SIGINT)

        def run_ended(self, number: int, result: TrainingResult) -> bool:
            return True

    file = tmp_path / "a.stack"
    stopped = train_stack(configs, folders(tmp_path / "stopped", 4), Progress(), checkpoint=file)
    assert {(one.status, one.steps) for one in stopped} == {("interrupted", 10)}
    continued = train_stack(configs, folders(tmp_path / "continued", 4), checkpoint=file)
    assert_same_runs(continued, whole)


def test_what_is_refused(
    tmp_path: Path, compose_config: ComposeConfig, kill_after: Callable[[int | None], list[int]]
) -> None:
    configs: list[Config] = [compose_config(*COMMON, *CASES["SGD"], *own) for own in MEMBERS]
    file = tmp_path / "a.stack"
    kill_after(2)
    with pytest.raises(Killed):
        train_stack(configs, folders(tmp_path / "killed", 4), checkpoint=file)
    other = compose_config(*COMMON, *CASES["SGD"], "seed=9")
    with pytest.raises(CheckpointError, match="holds other runs than these"):
        train_stack([*configs[:3], other], folders(tmp_path / "other", 4), checkpoint=file)
    whole = file.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="Remove it to train its runs from the start"):
            train_stack(configs, folders(tmp_path / "damaged", 4), checkpoint=file)
    torch.save({"format": "another"}, file)
    with pytest.raises(CheckpointError, match="is not the state of a stack of this version"):
        train_stack(configs, folders(tmp_path / "damaged", 4), checkpoint=file)
    assert not (tmp_path / "damaged").exists()


def test_other_rows_are_refused(
    tmp_path: Path, compose_config: ComposeConfig, kill_after: Callable[[int | None], list[int]]
) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{number % 7},{number % 5},{'ab'[number % 2]}" for number in range(60)]
    table.write_text("\n".join(["x,y,kind", *rows]))
    case = [*COMMON[1:], "data=table", f"data.path={table}", "data.target=kind", "trainer.max_epochs=4"]
    configs = [compose_config(*case, f"seed={seed}") for seed in range(2)]
    kill_after(2)
    with pytest.raises(Killed):
        train_stack(configs, folders(tmp_path / "killed", 2), checkpoint=tmp_path / "a.stack")
    kill_after(None)
    table.write_text("\n".join(["x,y,kind", *rows[:-1], "6,4,a"]))
    with pytest.raises(CheckpointError, match=r"was trained on other rows than .*table\.csv has now"):
        train_stack(configs, folders(tmp_path / "other", 2), checkpoint=tmp_path / "a.stack")
    table.write_text("\n".join(["x,y,kind", *rows]))
    done = train_stack(configs, folders(tmp_path / "same", 2), checkpoint=tmp_path / "a.stack")
    assert [one.status for one in done] == ["finished"] * 2


def test_state_that_cannot_be_saved(
    tmp_path: Path, compose_config: ComposeConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs are trained nevertheless."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "save_stack", full)
    configs = [compose_config(*COMMON, *CASES["SGD"], *own) for own in MEMBERS]
    done = train_stack(configs, folders(tmp_path, 4), checkpoint=tmp_path / "a.stack")
    assert [one.status for one in done] == ["finished"] * 4
    assert capsys.readouterr().err.count("No space left on device") == 1
