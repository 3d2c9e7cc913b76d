"""A run that continues from a checkpoint ends with the same bits as one that was never stopped."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from support.commands import only_run, start, start_forked, train_forked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mlp_lightning
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs.resume import belongs_to_history

# Iris has 90 training rows: with 16 a batch an epoch has 6 steps, so 30 ends an epoch and 31 is within one.
MINI_BATCHES = ["data=iris", "data.batch_size=16", "optimizer=adam", "optimizer.lr=0.05"]
CASES = {
    "shuffled sgd": ["data=iris", "data.batch_size=16", "optimizer.momentum=0.9"],
    "dropout, batch norm": [*MINI_BATCHES, "model.dropout=0.3", "model.norm=batch"],
    "validation plateau": [*MINI_BATCHES, "scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5"],
    "training plateau": [
        *MINI_BATCHES,
        "scheduler=plateau",
        "scheduler.monitor=loss/train",
        "scheduler.patience=0",
        "scheduler.factor=0.5",
    ],
    "steps": [*MINI_BATCHES, "scheduler=step", "scheduler.step_size=2", "scheduler.gamma=0.5"],
    "early stopping ahead": [*MINI_BATCHES, "callbacks=early_stopping", "callbacks.early_stopping.patience=3"],
    "early stopping by the training loss": [
        *(*MINI_BATCHES, "callbacks=early_stopping", "callbacks.early_stopping.patience=2"),
        *("callbacks.early_stopping.monitor=loss/train", "callbacks.early_stopping.min_delta=0.01"),
    ],
    "accumulation": [*MINI_BATCHES, "trainer.accumulate_grad_batches=4"],
    "no validation": ["data=xor", "optimizer=adam", "model=wide_deep", "model.dropout=0.2"],
}
STEPS = 80


def weights(result: mlp_lightning.TrainingResult) -> dict[str, bytes]:
    assert result.module is not None
    return {name: value.numpy().tobytes() for name, value in result.module.state_dict().items()}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard would show for a run: {tag: [(step, value), …]}, as it reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", CASES)
def test_same_bits_whether_stopped_or_not(name, tmp_path, compose_config) -> None:
    case = [*CASES[name], f"trainer.max_steps={STEPS}"]
    whole = mlp_lightning.train(compose_config(*case), tmp_path / "whole")
    for cut in (30, 31):
        first = mlp_lightning.train(compose_config(*case, f"trainer.max_steps={cut}"), tmp_path / f"{cut}")
        assert first.steps == cut
        checkpoint = first.run_dir / "checkpoints" / "last.ckpt"
        # Another cut into executions must not matter either.
        resumed = mlp_lightning.train(
            compose_config(*case, f"ckpt_path={checkpoint}", "trainer.steps_per_execution=3"), tmp_path / f"{cut}-on"
        )
        assert weights(resumed) == weights(whole), cut
        assert resumed.metrics == whole.metrics
        assert resumed.steps == whole.steps
        assert resumed.best == whole.best
        assert (resumed.run_dir / "metrics.csv").read_text() == (whole.run_dir / "metrics.csv").read_text()
        assert scalars(resumed.run_dir) == scalars(whole.run_dir)


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle"])
def test_schedule_over_the_whole_run(scheduler, tmp_path, compose_config) -> None:
    """The length may not change, so the run is cut by taking a checkpoint within it."""
    case = [*MINI_BATCHES, f"scheduler={scheduler}", "trainer.max_steps=40", "callbacks.checkpoint.every_n_steps=23"]
    whole = mlp_lightning.train(compose_config(*case), tmp_path / "whole")
    stopped = tmp_path / "stopped"
    interrupt_after(compose_config(*case), stopped, 23)
    checkpoint = stopped / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 23
    resumed = mlp_lightning.train(compose_config(*case, f"ckpt_path={checkpoint}"), tmp_path / "on")
    assert weights(resumed) == weights(whole)
    with pytest.raises(CheckpointError, match=r"trainer\.max_steps: 40 in the checkpoint, 50 now"):
        mlp_lightning.train(
            compose_config(*case, "trainer.max_steps=50", f"ckpt_path={checkpoint}"), tmp_path / "longer"
        )


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle"])
def test_a_run_trains_on_after_its_schedule_has_ended(scheduler, tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, f"scheduler={scheduler}", "trainer.log_every_n_steps=1"]
    interrupt_after(compose_config(*case, "trainer.max_steps=40"), tmp_path / "first", 23)
    within = tmp_path / "first" / "checkpoints" / "last.ckpt"
    whole = mlp_lightning.train(compose_config(*case, "trainer.max_steps=40"), tmp_path / "whole")
    last = whole.run_dir / "checkpoints" / "last.ckpt"
    # Neither as it is, nor longer, but the message says how.
    for steps in (40, 60):
        longer = compose_config(*case, f"trainer.max_steps={steps}", f"ckpt_path={last}")
        with pytest.raises(CheckpointError, match="spans the whole run") as caught:
            mlp_lightning.train(longer, tmp_path / f"refused{steps}")
    advice = ["scheduler=none", "optimizer.lr=0.005"]
    assert " ".join(advice) in str(caught.value)
    case += [*advice, "trainer.max_steps=60"]
    with pytest.raises(CheckpointError, match=r"scheduler\.name: '.*' in the checkpoint, 'none' now"):
        mlp_lightning.train(compose_config(*case, f"ckpt_path={within}"), tmp_path / "within")
    on = mlp_lightning.train(compose_config(*case, f"ckpt_path={last}"), tmp_path / "on")
    assert on.steps == 60
    assert "at the constant learning rate 0.005: its schedule has ended" in (on.run_dir / "train.log").read_text()
    rates = dict(scalars(on.run_dir)["learning_rate"])
    assert rates[20] == pytest.approx(dict(scalars(whole.run_dir)["learning_rate"])[20])
    assert [rates[step] for step in range(40, 60)] == pytest.approx([0.005] * 20)
    # Its own checkpoint continues like any other.
    part = mlp_lightning.train(compose_config(*case, "trainer.max_steps=50", f"ckpt_path={last}"), tmp_path / "part")
    again = mlp_lightning.train(
        compose_config(*case, f"ckpt_path={part.run_dir / 'checkpoints' / 'last.ckpt'}"), tmp_path / "again"
    )
    assert weights(again) == weights(on)


def interrupt_after(config: mlp_lightning.Config, run_dir: Path, step: int) -> mlp_lightning.TrainingResult:
    """Train in this process and send it Ctrl-C once ``step`` steps have been made."""
    from mlp_lightning.runs.policies import Policies

    original = Policies.between_steps

    def interrupting(self, at_step, stop_requested) -> bool:
        continues = original(self, at_step, stop_requested)
        if at_step >= step and not (run_dir / "sent").exists():
            (run_dir / "sent").touch()
            signal.raise_signal(signal.SIGINT)
        return continues

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policies, "between_steps", interrupting)
        return mlp_lightning.train(config, run_dir)


@pytest.mark.posix
@pytest.mark.parametrize("step", [12, 13])
def test_ctrl_c_saves_and_the_run_can_continue(step, tmp_path, compose_config) -> None:
    """12 steps end an epoch, whose validation still belongs to the checkpoint; 13 are within one."""
    case = [*MINI_BATCHES, "scheduler=plateau", "scheduler.patience=0", "model.dropout=0.2", "trainer.max_steps=40"]
    whole = mlp_lightning.train(compose_config(*case), tmp_path / "whole")
    single = [*case, "trainer.steps_per_execution=1"]
    stopped = interrupt_after(compose_config(*single), tmp_path / "stopped", step)
    assert stopped.status == "interrupted"
    assert stopped.steps == step
    assert json.loads((stopped.run_dir / "result.json").read_text())["status"] == "interrupted"
    resumed = mlp_lightning.train(compose_config(*case, "ckpt_path=last"), tmp_path / "on")
    assert weights(resumed) == weights(whole)
    assert scalars(resumed.run_dir) == scalars(whole.run_dir)


@pytest.mark.posix
@pytest.mark.slow
def test_killed_run_continues(tmp_path) -> None:
    """kill -9 in the middle; the same command with ckpt_path=last ends with the same bytes."""
    case = ["data=xor", "model=wide_deep", "optimizer=adam", "optimizer.lr=0.01", "trainer.max_steps=4000"]
    case += ["callbacks.checkpoint.every_n_steps=250", "trainer.steps_per_execution=50"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert train_forked(*case, folder=whole).returncode == 0
    process = start_forked(*case, folder=killed)
    process.wait_for("step +(9|[1-9][0-9])[0-9]{2} ")
    process.kill()
    assert process.returncode == -signal.SIGKILL
    first = only_run(killed, "xor")
    assert not (first / "result.json").exists()
    # A file that the kill left half written is removed.
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file() and file.suffix != ".tmp"}
    done = train_forked(*case, "ckpt_path=last", folder=killed)
    assert done.returncode == 0, done.stderr
    assert "Continuing from step" in done.stdout
    assert {file: file.read_bytes() for file in first.rglob("*") if file.is_file()} == before
    (second,) = set((killed / "lightning_logs" / "xor").iterdir()) - {first}
    reference = only_run(whole, "xor")
    assert (second / "metrics.csv").read_text() == (reference / "metrics.csv").read_text()
    assert scalars(second) == scalars(reference)
    states = [torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (second, reference)]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name])
    assert json.loads((second / "result.json").read_text())["resumed_from"] == str(first / "checkpoints" / "last.ckpt")


@pytest.mark.posix
@pytest.mark.slow
def test_terminated_command_says_how_to_continue(tmp_path) -> None:
    process = start("data=xor", "model=wide_deep", "trainer.max_steps=100000000", folder=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 130
    process.stdout.close()
    assert "Traceback" not in rest
    run = only_run(tmp_path, "xor")
    assert f"ckpt_path={run}/checkpoints/last.ckpt" in rest
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == result["steps"]


def test_a_run_continues_from_best(tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, "trainer.max_steps=60"]
    first = mlp_lightning.train(compose_config(*case), tmp_path / "first")
    assert first.best is not None
    best = torch.load(first.run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == first.best["step"]
    again = mlp_lightning.train(compose_config(*case, "ckpt_path=best"), tmp_path / "again")
    assert weights(again) == weights(first)
    assert again.best == first.best
    assert again.resumed_from == str(first.run_dir / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.hidden_units=7", r"model\.hidden_units: 100 in the checkpoint, 7 now"),
        ("optimizer.lr=0.5", r"optimizer\.lr: 0\.05 in the checkpoint, 0\.5 now"),
        ("seed=4", r"seed: 0 in the checkpoint, 4 now"),
        ("data.batch_size=8", r"data\.batch_size: 16 in the checkpoint, 8 now"),
        ("trainer.precision=64", r"trainer\.precision: '32' in the checkpoint, '64' now"),
        ("trainer.max_steps=12", r"taken after 12 steps, and the run is to end there"),
    ],
)
def test_only_the_same_run_continues(change, message, tmp_path, compose_config) -> None:
    first = mlp_lightning.train(compose_config(*MINI_BATCHES, "trainer.max_steps=12"), tmp_path / "first")
    checkpoint = first.run_dir / "checkpoints" / "last.ckpt"
    more = [*MINI_BATCHES, "trainer.max_steps=24", f"ckpt_path={checkpoint}", change]
    with pytest.raises(CheckpointError, match=message):
        mlp_lightning.train(compose_config(*more), tmp_path / "other" / "second")
    assert {one.name for one in tmp_path.iterdir()} == {"first"}


def test_a_schedule_over_the_whole_run_cannot_be_extended(tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, "scheduler=cosine"]
    mlp_lightning.train(compose_config(*case, "trainer.max_steps=12"), tmp_path / "first")
    with pytest.raises(CheckpointError, match="scheduler=cosine spans the whole run") as complete:
        mlp_lightning.train(compose_config(*case, "trainer.max_steps=12", "ckpt_path=last"), tmp_path / "second")
    assert "Raise" not in str(complete.value)
    assert "it can train on at a constant learning rate: scheduler=none optimizer.lr=" in str(complete.value)
    with pytest.raises(CheckpointError, match="scheduler=cosine spans the whole run"):
        mlp_lightning.train(
            compose_config(*case, "trainer.max_steps=24", f"ckpt_path={tmp_path / 'first/checkpoints/last.ckpt'}"),
            tmp_path / "third",
        )


def test_run_that_stopped_early_has_nothing_to_continue(tmp_path, compose_config) -> None:
    case = [*MINI_BATCHES, "optimizer.lr=1.0", "callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    first = mlp_lightning.train(compose_config(*case, "trainer.max_epochs=50"), tmp_path / "first")
    assert "did not improve" in first.stopped_by
    with pytest.raises(CheckpointError, match="stopped early"):
        mlp_lightning.train(compose_config(*case, "trainer.max_epochs=50", "ckpt_path=last"), tmp_path / "second")


@pytest.mark.parametrize(
    ("tag", "at_step", "kept"),
    [
        ("loss/train", 11, True),
        ("loss/train", 12, False),
        ("loss/val", 12, True),
        ("loss/val", 11, False),
        ("loss/val", 18, False),
        ("loss/test", 6, False),
        ("learning_rate", 12, False),
    ],
)
def test_history_of_a_checkpoint(tag, at_step, kept) -> None:
    assert belongs_to_history(tag, at_step, step=12, period=6) is kept


def test_masks_of_an_earlier_version(compose_config, tmp_path, capsys) -> None:
    """Such a run continues, and says that its masks are others from here on; one without dropout has none."""
    for name, dropout in (("with", "0.25"), ("without", "0")):
        case = [*MINI_BATCHES, f"model.dropout={dropout}", "verbosity=1"]
        first = mlp_lightning.train(compose_config(*case, "trainer.max_steps=12"), tmp_path / name)
        path = first.run_dir / "checkpoints" / "last.ckpt"
        content = torch.load(path, weights_only=True)
        for number, earlier in enumerate((False, True)):
            if earlier:
                del content["dropout_masks"]
                torch.save(content, path)
            capsys.readouterr()
            case_on = [*case, "trainer.max_steps=20", f"ckpt_path={path}"]
            resumed = mlp_lightning.train(compose_config(*case_on), tmp_path / f"{name}-{number}")
            assert resumed.steps == 20
            said = capsys.readouterr().out
            assert "Continuing from step 12" in said
            assert ("Its dropout masks came from another generator" in said) == (earlier and name == "with")
