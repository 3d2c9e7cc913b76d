"""A stack writes for each of its runs the folder that the run would have written alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_iris
from support.run_folders import (
    AFTER_A_RUN,
    assert_same_content,
    assert_same_run,
    checkpoint,
    events,
    files,
    metrics,
    result,
    scalars,
    session,
)
from support.tolerances import assert_close
from tensorboard.plugins.hparams import api_pb2

import mlp_lightning
from mlp_lightning.config import Config
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.policies import Policies

# 90 training rows, 30 for validation, 30 for the test; with 32 a batch an epoch has 3 steps, the last of 26 rows.
# Drawing the graph takes as long as all the rest; it is left to a few.
IRIS = ["data=iris", "data.batch_size=32", "data.scaling=standard", "logger.graph=false"]
GRAPH = ["logger.graph=true"]
ADAM = ["optimizer=adam"]
# With a lowest learning rate: rounding decides which of several equal losses is the best.
TRAINING_PLATEAU = [
    "scheduler=plateau",
    "scheduler.monitor=loss/train",
    "scheduler.patience=0",
    "scheduler.min_lr=0.001",
]
LATTICE = ["callbacks.checkpoint.monitor=loss/train", "callbacks.checkpoint.every_n_steps=7"]
STOPPING = ["callbacks=early_stopping"]
FOUR = [
    ["model.hidden_units=[4,3]", "optimizer.lr=0.03"],
    ["model.hidden_units=[2,5]", "optimizer.lr=0.01", "seed=1"],
    ["model.hidden_units=[3,3]", "optimizer.lr=0.02"],
    ["model.hidden_units=[6,2]", "optimizer.lr=0.005", "seed=2"],
]
TWO = FOUR[:2]
# What the runs have in common, and what differs.
CASES: dict[str, tuple[list[str], list[list[str]]]] = {
    "xor": (["data=xor", "model.activation=sigmoid", "trainer.max_steps=300", "optimizer.momentum=0.9"], FOUR[:3]),
    "one run": (["data=xor", "trainer.max_steps=60"], FOUR[:1]),
    "linear": ([*IRIS, *GRAPH, "model=linear", "trainer.max_epochs=5"], [["seed=1"], ["optimizer.lr=0.3"]]),
    "epochs, adam": ([*IRIS, *ADAM, "trainer.max_epochs=12", "optimizer.weight_decay=0.01"], FOUR[:3]),
    "ends within an epoch": ([*IRIS, "trainer.max_steps=20"], TWO),
    "plateau": ([*IRIS, *ADAM, "trainer.max_epochs=12", "scheduler=plateau", "scheduler.patience=0"], TWO),
    "plateau, ends within an epoch": (
        [*IRIS, *ADAM, "trainer.max_steps=20", "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.1"],
        TWO,
    ),
    "training plateau within an epoch": (
        [*IRIS, "trainer.max_steps=40", *TRAINING_PLATEAU],
        TWO,
    ),
    "cosine": ([*IRIS, *ADAM, "trainer.max_epochs=8", "scheduler=cosine"], TWO),
    "one_cycle of three learning rates": ([*IRIS, *ADAM, "trainer.max_epochs=8", "scheduler=one_cycle"], FOUR[:3]),
    "one_cycle of two learning rates": ([*IRIS, *ADAM, "trainer.max_epochs=8", "scheduler=one_cycle"], TWO),
    "step": ([*IRIS, "trainer.max_epochs=8", "scheduler=step", "scheduler.step_size=3"], TWO),
    "dropout": (
        [*IRIS, *ADAM, *GRAPH, "trainer.max_epochs=8", "trainer.accumulate_grad_batches=2"],
        [[*FOUR[0], "model.dropout=0.3"], [*FOUR[1], "model.dropout=0.1"], FOUR[2]],
    ),
    "two probabilities of dropout": (
        [*IRIS, *GRAPH, "trainer.max_epochs=2"],
        [["model.dropout=0.3"], ["model.dropout=0.1", "seed=1"]],
    ),
    "clipping": ([*IRIS, "trainer.max_epochs=5", "trainer.gradient_clip_val=0.1"], TWO),
    "every second epoch": ([*IRIS, "trainer.max_epochs=7", "trainer.check_val_every_n_epoch=2"], TWO),
    "best accuracy": ([*IRIS, *ADAM, "trainer.max_epochs=8", "callbacks.checkpoint.monitor=accuracy/val"], TWO),
    "best weights": ([*IRIS, *ADAM, "trainer.max_epochs=25", "report_weights=best", "optimizer.weight_decay=0.0"], TWO),
    "lattice of training losses": (
        [*IRIS, *ADAM, *LATTICE, "trainer.max_steps=40"],
        TWO,
    ),
    "best training loss at the end": (
        [*IRIS, "trainer.max_steps=20", "callbacks.checkpoint.monitor=loss/train", "report_weights=best"],
        TWO,
    ),
    "double precision": ([*IRIS, *ADAM, "trainer.max_epochs=6", "trainer.precision=64"], TWO),
    "nothing kept": (
        [*IRIS, "trainer.max_epochs=4", "logger.tensorboard=false", "logger.csv=false", "callbacks.checkpoint=null"],
        TWO,
    ),
    "no learning rates": ([*IRIS, "trainer.max_epochs=4", "callbacks.lr_monitor=false"], TWO),
    "log interval": ([*IRIS, "trainer.max_epochs=4", "trainer.log_every_n_steps=5", "trainer.max_steps=11"], TWO),
    "single steps": ([*IRIS, "trainer.max_epochs=3", "trainer.steps_per_execution=1"], TWO),
}
Runs = tuple[list[mlp_lightning.TrainingResult], list[mlp_lightning.TrainingResult]]


@pytest.fixture
def train_both(tmp_path, compose_config) -> Callable[..., Runs]:
    """The runs as one stack, in ``stack/0`` and so on, and each alone, in ``alone/0``."""

    def trained(common: Sequence[str], own: Sequence[Sequence[str]]) -> Runs:
        configs = [compose_config(*common, *one) for one in own]
        together = train_stack(configs, [tmp_path / "stack" / str(number) for number in range(len(own))])
        return together, [
            mlp_lightning.train(config, tmp_path / "alone" / str(number)) for number, config in enumerate(configs)
        ]

    return trained


def assert_same_runs(runs: Runs) -> None:
    for stacked, alone in zip(*runs, strict=True):
        assert_same_run(stacked.run_dir, alone.run_dir)
        assert_same_content(stacked.metrics, alone.metrics)
        assert (stacked.status, stacked.steps, stacked.epochs) == (alone.status, alone.steps, alone.epochs)
        assert stacked.device == alone.device
        assert 0 <= stacked.fit_time_s <= stacked.wall_time_s


@pytest.mark.parametrize("name", CASES)
def test_folders_are_those_of_each_run_alone(name, train_both) -> None:
    runs = train_both(*CASES[name])
    assert {one.status for one in runs[0]} == {"finished"}
    assert_same_runs(runs)


def test_what_is_switched_off_leaves_nothing(tmp_path, train_both) -> None:
    (first, _), _ = train_both(*CASES["nothing kept"])
    assert files(first.run_dir) == ["config.yaml", "result.json", "train.log"]
    assert first.best is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_how_a_run_ended_is_recorded_in_tensorboard(train_both) -> None:
    runs, _ = train_both(["data=xor", "trainer.max_steps=20"], TWO)
    for run in runs:
        hyperparameters, status = session(run.run_dir)
        assert status == api_pb2.STATUS_SUCCESS
        assert "model.hidden_units" in hyperparameters
        assert events(run.run_dir).Tags()["graph"]
        assert len(scalars(run.run_dir)["loss/train"]) == len(metrics(run.run_dir))


def test_checkpoints_load_and_predict(train_both) -> None:
    stacked, alone = train_both(*CASES["epochs, adam"])
    raw_BF = torch.from_numpy(load_iris().data)
    for one, other in zip(stacked, alone, strict=True):
        for which in ("last", "best"):
            paths = [run.run_dir / "checkpoints" / f"{which}.ckpt" for run in (one, other)]
            modules = [MLPModule.load_from_checkpoint(path, weights_only=True).eval() for path in paths]
            with torch.no_grad():
                logits_BC, expected_BC = (module(raw_BF) for module in modules)
            assert_close(logits_BC, expected_BC, 5 * AFTER_A_RUN)
            # Numbers of this member alone, not views into those of all.
            assert abs(paths[0].stat().st_size - paths[1].stat().st_size) < 8000


GOING_ON = {
    "momentum": ["optimizer.momentum=0.9"],
    "adam": ADAM,
    "plateau": [*ADAM, "scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5"],
    "training plateau": [*ADAM, *TRAINING_PLATEAU],
    "step": ["scheduler=step", "scheduler.step_size=2"],
    "dropout": [*ADAM, "model.dropout=0.2"],
    "early stopping ahead": ["callbacks=early_stopping", "callbacks.early_stopping.patience=30"],
    "early stopping by the training loss": [*STOPPING, "callbacks.early_stopping.monitor=loss/train"],
    "lattice": LATTICE,
}


@pytest.mark.parametrize("name", GOING_ON)
def test_a_run_of_a_stack_can_be_continued(name, tmp_path, compose_config, train_both) -> None:
    """20 steps end within an epoch."""
    common = [*IRIS, *GOING_ON[name]]
    configs = [compose_config(*common, *own, "trainer.max_steps=20") for own in TWO]
    _, stacked = train_stack(configs, [tmp_path / "0", tmp_path / "1"])
    alone = mlp_lightning.train(configs[1], tmp_path / "alone")
    resumed = []
    for first in (stacked, alone):
        path = first.run_dir / "checkpoints" / "last.ckpt"
        longer = compose_config(*common, *TWO[1], "trainer.max_steps=50", f"ckpt_path={path}")
        resumed.append(mlp_lightning.train(longer, tmp_path / f"{first.run_dir.name}-on"))
    # The folders name different checkpoints to continue from; otherwise they are the same.
    one, other = (run.run_dir for run in resumed)
    assert resumed[0].steps == 50
    assert_same_content(resumed[0].metrics, resumed[1].metrics)
    assert_same_content(metrics(one), metrics(other))
    assert_same_content(scalars(one), scalars(other))
    assert_same_content(result(one)["best"], result(other)["best"])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert_same_content(checkpoint(one)[part], checkpoint(other)[part], part)


# ---- early stopping ----------------------------------------------------------------------------------------

# With little or no progress: the slow ones stop first, at different steps.
STOPPED_AT_DIFFERENT_STEPS = [
    ["model.hidden_units=[3,4]", "optimizer.lr=0.003"],
    ["model.hidden_units=[4,4]", "optimizer.lr=0.1", "seed=1"],
    ["model.hidden_units=[5,4]", "optimizer.lr=0.3", "seed=2"],
    ["model.hidden_units=[6,4]", "optimizer.lr=0.03"],
]
EARLY = [*IRIS, *STOPPING, "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=0.02"]
EARLY += ["trainer.max_epochs=20"]


@pytest.fixture
def sizes(monkeypatch) -> list[list[int]]:
    """The members of the stack each time that it shrinks."""
    found: list[list[int]] = []
    leave_out = Policies._leave_out

    def recorded(self: Policies, active: Sequence[int]) -> None:
        leave_out(self, active)
        found.append(list(self.present))

    monkeypatch.setattr(Policies, "_leave_out", recorded)
    return found


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["callbacks.early_stopping.monitor=accuracy/val", "callbacks.checkpoint.monitor=accuracy/val"],
        ["report_weights=best", "trainer.check_val_every_n_epoch=2"],
        ["callbacks.early_stopping.monitor=loss/train"],
        ["callbacks.early_stopping.monitor=loss/train", "data.val_fraction=0"],
        ["callbacks.early_stopping.monitor=loss/train", "trainer.check_val_every_n_epoch=2", *LATTICE],
        ["scheduler=plateau", "scheduler.patience=1", "optimizer.weight_decay=0.01"],
        ["scheduler=plateau", "scheduler.patience=1", "scheduler.monitor=loss/train"],
        ["model.dropout=0.2", "scheduler=cosine", "optimizer.momentum=0.2"],
        LATTICE,
        ["callbacks.checkpoint.monitor=loss/train"],
        ["trainer.precision=64"],
    ],
    ids=lambda one: " ".join(one) or "as it is",
)
def test_each_run_stops_separately(options, train_both, sizes) -> None:
    runs = train_both([*EARLY, *options], STOPPED_AT_DIFFERENT_STEPS)
    assert_same_runs(runs)
    steps = [one.steps for one in runs[0]]
    assert len(set(steps)) > 1
    assert all(one.stopped_by for one in runs[0] if one.steps < 60)
    # As soon as half of the stack has ended, it shrinks to the members that have not.
    expected, present = [], [0, 1, 2, 3]
    for step in sorted(set(steps) - {60}):
        left = [number for number in present if steps[number] > step]
        if left and 2 * len(left) <= len(present):
            expected.append(left)
            present = left
    assert sizes == expected
    assert sizes


def test_the_others_are_not_affected(tmp_path, compose_config, train_both, sizes) -> None:
    """Members that continue have the results of a stack in which none stops."""
    stacked, _ = train_both(EARLY, STOPPED_AT_DIFFERENT_STEPS)
    remaining = [number for number, one in enumerate(stacked) if not one.stopped_by]
    assert sizes[-1] == remaining == [1]
    configs = [compose_config(*EARLY, *STOPPED_AT_DIFFERENT_STEPS[one]) for one in remaining]
    again = train_stack(configs, [tmp_path / "again" / str(one) for one in remaining])
    for number, one in zip(remaining, again, strict=True):
        assert_same_run(stacked[number].run_dir, one.run_dir)


def test_a_stop_at_the_validation_that_ends_the_run(train_both) -> None:
    """A run that ends within an epoch is validated once more, and that may be one validation too many."""
    assert_same_runs(train_both([*EARLY, "trainer.max_steps=8"], STOPPED_AT_DIFFERENT_STEPS[:2]))


# ---- the process -------------------------------------------------------------------------------------------


def test_the_state_of_the_caller_is_restored(tmp_path, compose_config) -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    configs: list[Config] = [compose_config(*CASES["dropout"][0], *one) for one in CASES["dropout"][1]]
    first = train_stack(configs, [tmp_path / f"a{number}" for number in range(3)])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    torch.manual_seed(4)
    second = train_stack(configs, [tmp_path / f"b{number}" for number in range(3)])
    for one, other in zip(first, second, strict=True):
        assert (one.run_dir / "metrics.csv").read_bytes() == (other.run_dir / "metrics.csv").read_bytes()
        assert one.metrics == other.metrics


def test_progress_receives_steps_and_runs_that_have_ended(tmp_path, compose_config) -> None:
    received: list[Any] = []

    class Progress:
        def steps_made(self, steps: int, members: int) -> None:
            received.append((steps, members))

        def run_ended(self, number: int, result: mlp_lightning.TrainingResult) -> bool:
            assert (Path(result.run_dir) / "result.json").is_file()
            received.append(number)
            return True

    configs = [compose_config(*EARLY, *one) for one in STOPPED_AT_DIFFERENT_STEPS]
    results = train_stack(configs, [tmp_path / str(number) for number in range(4)], Progress())
    ended = [one for one in received if isinstance(one, int)]
    assert sorted(ended) == [0, 1, 2, 3]
    assert [results[one].steps for one in ended] == sorted(one.steps for one in results)
    steps = [one for one in received if not isinstance(one, int)]
    assert sum(count for count, _ in steps) == max(one.steps for one in results)
    members = [count for _, count in steps]
    assert members[0] == 4
    assert members == sorted(members, reverse=True)
