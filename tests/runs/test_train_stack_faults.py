"""A failure of one run of a stack is recorded for that run only; stopped runs can be continued."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from support.commands import Forked
from support.run_folders import (
    assert_same_content,
    assert_same_run,
    checkpoint,
    files,
    is_number,
    metrics,
    scalars,
    session,
)
from tensorboard.plugins.hparams import api_pb2

import mlp_lightning
from mlp_lightning.errors import DeviceError, NonFiniteLossError, NoParameterChangedError, RunFolderError
from mlp_lightning.runs import train_stack

IRIS = ["data=iris", "data.batch_size=32", "data.scaling=standard", "logger.graph=false"]
# With a least rate, as of losses that no longer change rounding says which is the best.
PLATEAU = ["scheduler=plateau", "scheduler.monitor=loss/train", "scheduler.patience=0", "scheduler.min_lr=0.001"]
GOOD = [
    ["model.hidden_units=[4,3]", "optimizer.lr=0.03"],
    ["model.hidden_units=[2,5]", "optimizer.lr=0.01", "seed=1"],
    ["model.hidden_units=[6,2]", "optimizer.lr=0.05", "seed=2"],
]
BAD = ["model.hidden_units=[5,5]", "optimizer.lr=1e30"]
IDLE = ["model.hidden_units=[5,5]", "optimizer.lr=0.0", "seed=1"]


class Progress:
    """Asks for a stop when a run has ended; records the runs that have."""

    def __init__(self, continues: bool) -> None:
        self.continues = continues
        self.ended: list[tuple[int, str]] = []

    def steps_made(self, steps: int, members: int) -> None:
        pass

    def run_ended(self, number: int, result: mlp_lightning.TrainingResult) -> bool:
        self.ended.append((number, result.status))
        return self.continues


@pytest.mark.parametrize("options", [["optimizer=adam"], ["optimizer.momentum=0.9", *PLATEAU]], ids=str)
@pytest.mark.parametrize("bad", [[BAD, IDLE], [BAD, IDLE, BAD, BAD, BAD]], ids=["two", "most"])
def test_bad_runs_fail_and_the_others_are_not_affected(bad, options, tmp_path, compose_config) -> None:
    common = [*IRIS, "trainer.max_steps=130", *options, "optimizer.weight_decay=0.001"]
    # Adam alone works with any learning rate: its updates have the size of the rate, and sigmoids saturate.
    # An epoch has 3 steps, so with 2 in an execution the stack is also cut down within an epoch.
    common = [*common, "model.activation=relu", "trainer.steps_per_execution=2"]
    runs = [bad[0], *GOOD[:2], *bad[1:], GOOD[2]]
    configs = [compose_config(*common, *one) for one in runs]
    together = train_stack(configs, [tmp_path / "with" / str(number) for number in range(len(runs))])
    kept = [number for number, one in enumerate(runs) if one in GOOD]
    without = train_stack([configs[one] for one in kept], [tmp_path / "without" / str(one) for one in kept])
    for number, expected in zip(kept, without, strict=True):
        assert together[number].status == "finished"
        assert_same_run(together[number].run_dir, expected.run_dir)
    for number, result in enumerate(together):
        if number in kept:
            continue
        assert result.status == "failed"
        assert result.metrics == {}
        recorded = json.loads((result.run_dir / "result.json").read_text())
        assert (recorded["status"], recorded["error"]) == ("failed", result.error)
        assert result.error in (result.run_dir / "train.log").read_text()
        assert session(result.run_dir)[1] == api_pb2.STATUS_FAILURE
        if runs[number] is BAD:
            assert result.error.startswith("NonFiniteLossError: The training loss became ")
            assert f"at step {result.steps} (" in result.error
            assert "learning rate 1e+30" in result.error
            assert result.steps < 100
        else:
            assert result.error.startswith("NoParameterChangedError: No parameter changed in steps 0 to 99")
            assert result.steps == 100


def test_what_a_failed_run_leaves_ends_before_its_failure(tmp_path, compose_config) -> None:
    common = [*IRIS, "trainer.max_steps=30", "trainer.log_every_n_steps=1", "model.activation=relu"]
    failed, good = train_stack(
        [compose_config(*common, *one) for one in (BAD, GOOD[0])], [tmp_path / "a", tmp_path / "b"]
    )
    assert failed.status == "failed"
    rows = metrics(failed.run_dir)
    assert [row[0] for row in rows if row[1] is not None] == list(range(failed.steps))
    assert all(is_number(value) for row in rows for value in row if value is not None)
    assert [step for step, _ in scalars(failed.run_dir)["loss/train"]] == list(range(failed.steps))
    assert len(metrics(good.run_dir)) == 30 + 10 + 1
    assert files(failed.run_dir) == ["config.yaml", "events", "metrics.csv", "result.json", "train.log"]


def test_a_run_whose_final_metrics_are_nan_leaves_the_same_files_as_alone(tmp_path, compose_config) -> None:
    """Its one loss was a number; the update after it was not."""
    configs = [compose_config(*IRIS, "trainer.max_steps=1", "model.activation=relu", *one) for one in (BAD, GOOD[0])]
    failed, good = train_stack(configs, [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(NonFiniteLossError, match="The metrics after the last step") as alone:
        mlp_lightning.train(configs[0], tmp_path / "alone")
    assert failed.error.partition(":")[0] == "NonFiniteLossError"
    assert failed.error.partition(": ")[2].partition("{")[0] == str(alone.value).partition("{")[0]
    assert good.status == "finished"
    assert files(failed.run_dir) == files(tmp_path / "alone")


@pytest.mark.parametrize("init", ["default", "zeros"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_that_cannot_learn_has_the_same_error_as_alone(optimizer, init, tmp_path, compose_config) -> None:
    """Learning rate 0, and ReLUs that all start at zero, without biases: there is no gradient."""
    common = ["data=xor", "model.depth=2", "model.bias=false", f"model.init={init}", "trainer.max_steps=50"]
    own = [["optimizer.lr=0.0"], ["optimizer.lr=0.1", "seed=1"], ["optimizer.lr=1e-30"]]
    configs = [compose_config(*common, f"optimizer={optimizer}", *one) for one in own]
    results = train_stack(configs, [tmp_path / str(number) for number in range(3)])
    for number, (config, result) in enumerate(zip(configs, results, strict=True)):
        if init == "default" and number == 1:
            assert result.status == "finished"
            continue
        with pytest.raises(NoParameterChangedError) as alone:
            mlp_lightning.train(config, tmp_path / "alone" / str(number))
        assert result.error == f"NoParameterChangedError: {alone.value}"
        assert result.steps == 50


def test_a_learning_rate_that_a_run_alone_survives_is_survived_in_a_stack(tmp_path, compose_config) -> None:
    """Sigmoids saturate: alone, this run ends with large but finite metrics."""
    common = ["data=xor", "model.depth=2", "model.hidden_units=4", "model.activation=sigmoid", "trainer.max_steps=50"]
    configs = [compose_config(*common, f"optimizer.lr={lr}") for lr in ("1e25", "0.1")]
    stacked = train_stack(configs, [tmp_path / "a", tmp_path / "b"])
    assert [one.status for one in stacked] == ["finished", "finished"]
    assert mlp_lightning.train(configs[0], tmp_path / "alone").status == "finished"


# ---- folders -----------------------------------------------------------------------------------------------


def test_a_folder_of_another_run_is_left_alone(tmp_path, compose_config) -> None:
    taken = tmp_path / "taken"
    mlp_lightning.train(compose_config("data=xor", "trainer.max_steps=20"), taken)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in taken.rglob("*") if file.is_file()}
    configs = [compose_config("data=xor", "trainer.max_steps=20", f"seed={seed}") for seed in range(3)]
    with pytest.raises(RunFolderError, match="already belongs to another run"):
        train_stack(configs, [tmp_path / "a", taken, tmp_path / "c"])
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in taken.rglob("*") if file.is_file()}
    assert after == before
    # The others were not started: their folders can be used.
    results = train_stack(configs, [tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert {one.status for one in results} == {"finished"}


def test_nothing_is_claimed_for_a_device_that_is_not_there(tmp_path, compose_config) -> None:
    with pytest.raises(DeviceError):
        train_stack([compose_config("data=xor", "trainer.accelerator=mps", "trainer.max_steps=5")], [tmp_path / "a"])
    assert not (tmp_path / "a" / "config.yaml").exists()


# ---- stopping ----------------------------------------------------------------------------------------------


def assert_continues_like(stopped: Path, overrides: list[str], tmp_path: Path, compose_config) -> None:
    """An interrupted run that continues ends like one that was never stopped."""
    path = stopped / "checkpoints" / "last.ckpt"
    assert checkpoint(stopped)["global_step"] == json.loads((stopped / "result.json").read_text())["steps"]
    resumed = mlp_lightning.train(compose_config(*overrides, f"ckpt_path={path}"), tmp_path / f"{stopped.name}-on")
    whole = mlp_lightning.train(compose_config(*overrides), tmp_path / f"{stopped.name}-whole")
    assert_same_content(resumed.metrics, whole.metrics)
    assert_same_content(metrics(resumed.run_dir), metrics(whole.run_dir))
    assert_same_content(scalars(resumed.run_dir), scalars(whole.run_dir))
    last, expected = checkpoint(resumed.run_dir), checkpoint(whole.run_dir)
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same_content(last[part], expected[part], part)


@pytest.mark.parametrize(
    "options",
    [
        ["optimizer=adam", "model.dropout=0.2"],
        ["optimizer=adam", "scheduler=cosine"],
        # Three learning rates, then the remaining two.
        ["optimizer=adam", "scheduler=one_cycle"],
    ],
    ids=str,
)
def test_the_others_can_be_stopped_when_one_has_ended(options, tmp_path, compose_config) -> None:
    common = [*IRIS, *options, "trainer.max_steps=60", "trainer.steps_per_execution=5"]
    # Updates of this size are infinite after a few steps.
    runs = [*GOOD[:2], [*BAD, "optimizer.lr=1e38"]]
    configs = [compose_config(*common, *one) for one in runs]
    progress = Progress(continues=False)
    results = train_stack(configs, [tmp_path / str(number) for number in range(3)], progress)
    assert progress.ended == [(2, "failed"), (0, "interrupted"), (1, "interrupted")]
    assert [one.status for one in results] == ["interrupted", "interrupted", "failed"]
    for result in results[:2]:
        assert 0 < result.steps < 60
        assert result.metrics == {}
        assert session(result.run_dir)[1] == api_pb2.STATUS_FAILURE
        assert "ckpt_path=" in (result.run_dir / "train.log").read_text()
    assert_continues_like(results[1].run_dir, [*common, *runs[1]], tmp_path, compose_config)


def test_the_others_continue_if_progress_asks_for_it(tmp_path, compose_config) -> None:
    progress = Progress(continues=True)
    configs = [compose_config(*IRIS, "trainer.max_steps=12", "model.activation=relu", *one) for one in (BAD, *GOOD)]
    train_stack(configs, [tmp_path / str(number) for number in range(4)], progress)
    assert progress.ended == [(0, "failed"), (1, "finished"), (2, "finished"), (3, "finished")]


SCRIPT = """
import sys
from pathlib import Path
from support.configurations import plain_config
from mlp_lightning.config import parse_config
from mlp_lightning.runs import train_stack

class Progress:
    def steps_made(self, steps, members):
        print(steps, flush=True)
    def run_ended(self, number, result):
        return True

folder, count = Path(sys.argv[1]), 2
configs = [parse_config(plain_config([*sys.argv[2:], f"seed={seed}", "verbosity=0"])) for seed in range(count)]
results = train_stack(configs, [folder / str(seed) for seed in range(count)], Progress())
print(*(one.status for one in results), flush=True)
"""


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_runs_with_their_state_saved(number, tmp_path, compose_config) -> None:
    common = [
        *IRIS,
        "optimizer.lr=0.003",
        "model.dropout=0.1",
        "trainer.steps_per_execution=50",
        "trainer.max_epochs=null",
    ]
    stack = tmp_path / "stack"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = Forked([str(script), str(stack), *common, "trainer.max_steps=1000000"], tmp_path)
    process.wait_for("[0-9]+$")
    time.sleep(0.1)
    process.send_signal(number)
    done = process.finished(60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "interrupted interrupted"
    for seed in range(2):
        result = json.loads((stack / str(seed) / "result.json").read_text())
        assert result["status"] == "interrupted"
        assert checkpoint(stack / str(seed))["global_step"] == result["steps"] > 0
    longer = [*common, "seed=1", f"trainer.max_steps={result['steps'] + 30}"]
    assert_continues_like(stack / "1", longer, tmp_path, compose_config)
