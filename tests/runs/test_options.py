"""Options of a run, and what a run gives back to its caller."""

from __future__ import annotations

import csv
import random
import signal
import threading
import warnings

import numpy as np
import pytest
import torch

import mlp_lightning
from mlp_lightning.config import parse_config
from mlp_lightning.errors import ConfigError, DeviceError

IRIS = ["data=iris", "data.batch_size=16"]


def weights(result: mlp_lightning.TrainingResult) -> list[torch.Tensor]:
    assert result.module is not None
    return [one.detach() for one in result.module.parameters()]


def test_precision_64(tmp_path, compose_config) -> None:
    single = mlp_lightning.train(compose_config("trainer.max_steps=200"), tmp_path / "32")
    double = mlp_lightning.train(compose_config("trainer.max_steps=200", "trainer.precision=64"), tmp_path / "64")
    assert all(one.dtype == torch.float64 for one in weights(double))
    for one, other in zip(weights(single), weights(double), strict=True):
        assert torch.allclose(one.double(), other, atol=1e-4)
        assert other.float().double().ne(other).any() or other.eq(other.round()).all()


def test_bf16_mixed(tmp_path, compose_config) -> None:
    case = [*IRIS, "optimizer=adam", "optimizer.lr=0.01", "trainer.max_epochs=20"]
    full = mlp_lightning.train(compose_config(*case), tmp_path / "32")
    mixed = mlp_lightning.train(compose_config(*case, "trainer.precision=bf16-mixed"), tmp_path / "bf16")
    assert all(one.dtype == torch.float32 for one in weights(mixed))
    assert not all(torch.equal(one, other) for one, other in zip(weights(full), weights(mixed), strict=True))
    # Three decimal digits of bf16: the same training, roughly.
    assert mixed.metrics["train"]["loss"] == pytest.approx(full.metrics["train"]["loss"], rel=0.05)


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_cut_into_executions_does_not_matter(precision, tmp_path, compose_config) -> None:
    case = [*IRIS, "model.dropout=0.3", f"trainer.precision={precision}", "trainer.max_steps=40"]
    results = [
        mlp_lightning.train(compose_config(*case, f"trainer.steps_per_execution={count}"), tmp_path / count)
        for count in ("1", "7", "auto")
    ]
    for other in results[1:]:
        for one, two in zip(weights(results[0]), weights(other), strict=True):
            assert one.numpy().tobytes() == two.numpy().tobytes()
        assert results[0].metrics == other.metrics
        assert (results[0].run_dir / "metrics.csv").read_text() == (other.run_dir / "metrics.csv").read_text()


def test_accumulated_batches_are_one_large_batch(tmp_path, compose_config) -> None:
    small = [*IRIS, "data.batch_size=10", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=10"]
    large = [*IRIS, "data.batch_size=30", "trainer.max_epochs=10"]
    one = mlp_lightning.train(compose_config(*small), tmp_path / "small")
    two = mlp_lightning.train(compose_config(*large), tmp_path / "large")
    assert one.steps == two.steps == 30
    for first, second in zip(weights(one), weights(two), strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_clipping_bounds_each_update(tmp_path, compose_config) -> None:
    case = ["trainer.max_steps=1", "trainer.gradient_clip_val=0.001"]
    initial = mlp_lightning.MLPModule(2, 1, "binary", compose_config().model, seed=777)
    result = mlp_lightning.train(compose_config(*case), tmp_path / "run")
    assert result.module is not None
    moved = torch.cat(
        [
            (after - before).flatten()
            for after, before in zip(result.module.parameters(), initial.parameters(), strict=True)
        ]
    )
    # SGD with learning rate 1 moves the weights by the clipped gradient.
    assert moved.norm().item() == pytest.approx(0.001, rel=1e-3)


def test_early_stopping_counts_validations(tmp_path, compose_config) -> None:
    case = [*IRIS, "optimizer=adam", "optimizer.lr=0.3", "callbacks=early_stopping", "trainer.max_epochs=100"]
    result = mlp_lightning.train(compose_config(*case, "callbacks.early_stopping.patience=4"), tmp_path / "run")
    assert result.best is not None
    assert result.epochs == result.best["step"] / 6 + 4
    assert result.epochs < 100
    assert result.stopped_by == "loss/val did not improve in 4 validations"


@pytest.mark.parametrize("rows", [["data.val_fraction=0"], ["trainer.check_val_every_n_epoch=2"]], ids=" ".join)
@pytest.mark.parametrize("cut", ["auto", "5"])
def test_early_stopping_by_the_training_loss_counts_epochs(rows, cut, tmp_path, compose_config) -> None:
    """The mean over an epoch of the losses that each step logs."""
    rule = ["callbacks.early_stopping.monitor=loss/train", "callbacks.early_stopping.min_delta=0.03"]
    case = [*IRIS, "optimizer=adam", "optimizer.lr=0.03", "callbacks=early_stopping", "trainer.max_epochs=100", *rule]
    case += ["callbacks.early_stopping.patience=3", "trainer.log_every_n_steps=1", f"trainer.steps_per_execution={cut}"]
    result = mlp_lightning.train(compose_config(*case, *rows), tmp_path / "run")
    with (result.run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(line["loss/train"]) for line in csv.DictReader(file) if line["learning_rate"]]
    epochs = np.array(losses).reshape(result.epochs, -1).mean(axis=1)
    best, wait, stopped = np.inf, 0, []
    for epoch, loss in enumerate(epochs, start=1):
        best, wait = (loss, 0) if loss < best - 0.03 else (best, wait + 1)
        stopped += [epoch] if wait == 3 else []
    assert stopped == [result.epochs]
    assert result.epochs < 100
    assert result.stopped_by == "loss/train did not improve in 3 epochs"


def test_validation_every_third_epoch(tmp_path, compose_config) -> None:
    case = [*IRIS, "trainer.check_val_every_n_epoch=3", "trainer.max_epochs=9"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "run")
    lines = [line.split(",") for line in (result.run_dir / "metrics.csv").read_text().splitlines()]
    assert [int(line[0]) for line in lines[1:] if line[lines[0].index("loss/val")]] == [18, 36, 54]


def test_state_of_the_caller_is_restored(tmp_path, compose_config) -> None:
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    threads, handlers = torch.get_num_threads(), [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    filters = list(warnings.filters)
    mlp_lightning.train(
        compose_config(*IRIS, "model.dropout=0.5", "trainer.threads=1", "trainer.max_steps=10"), tmp_path / "run"
    )
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert torch.get_num_threads() == threads
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert warnings.filters == filters


def test_result_does_not_depend_on_the_caller(tmp_path, compose_config) -> None:
    case = [*IRIS, "model.dropout=0.5", "trainer.max_steps=20"]
    torch.manual_seed(1)
    one = mlp_lightning.train(compose_config(*case), tmp_path / "one")
    torch.manual_seed(2)
    two = mlp_lightning.train(compose_config(*case), tmp_path / "two")
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_seed_decides(tmp_path, compose_config) -> None:
    results = [
        mlp_lightning.train(compose_config("trainer.max_steps=5", f"seed={seed}"), tmp_path / str(seed))
        for seed in (0, 1)
    ]
    assert not torch.equal(weights(results[0])[0], weights(results[1])[0])


def test_training_in_a_thread(tmp_path, compose_config) -> None:
    """Outside the main thread there are no signal handlers; everything else works."""
    results = []
    config = compose_config("trainer.max_steps=5")
    thread = threading.Thread(target=lambda: results.append(mlp_lightning.train(config, tmp_path / "run")))
    thread.start()
    thread.join()
    assert results[0].status == "finished"


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there(tmp_path, compose_config) -> None:
    with pytest.raises(DeviceError, match=r"trainer\.accelerator = 'gpu'.*Use trainer\.accelerator=auto"):
        mlp_lightning.train(compose_config("trainer=gpu", "trainer.max_steps=5"), tmp_path / "run")


def test_plain_dict_is_taken_as_configuration(tmp_path) -> None:
    config = {"trainer": {"max_steps": 3}, "verbosity": 0, "logger": {"tensorboard": False, "csv": False}}
    assert mlp_lightning.train(config, tmp_path / "run").steps == 3


@pytest.mark.parametrize("batch_size", [1, 89])
def test_batch_norm_needs_two_rows_in_every_batch(batch_size, tmp_path, compose_config) -> None:
    """Of 90 training rows, batches of 89 leave one with a single row."""
    config = compose_config("data=iris", "model.norm=layer", f"data.batch_size={batch_size}", "trainer.max_epochs=1")
    plain = config.to_dict()
    assert mlp_lightning.train(config, tmp_path / "layer").status == "finished"
    plain["model"]["norm"] = "batch"
    with pytest.raises(ValueError, match=r"data\.batch_size = (1 |89 leaves a batch with 1 of the 90)"):
        mlp_lightning.train(plain, tmp_path / "batch")


@pytest.mark.parametrize("train", [mlp_lightning.train, mlp_lightning.cross_validate])
@pytest.mark.parametrize(
    "sweep", [{"name": "widths"}, {"name": "rates", "resume": True}, {"fail_fast": True}], ids=lambda one: [*one][-1]
)
def test_options_of_sweeps_are_refused(sweep, train, tmp_path) -> None:
    plain = {"data": {"name": "iris", "cv": {"folds": 3}}, "verbosity": 0}
    with pytest.raises(ConfigError) as caught:
        train({**plain, "sweep": sweep}, tmp_path / "run")
    assert [(one.key, one.value) for one in caught.value.faults] == [(f"sweep.{key}", sweep[key]) for key in sweep]
    assert "has no effect: it is for a sweep of the command (--multirun)" in str(caught.value)
    with pytest.raises(ConfigError) as again:
        train(parse_config({**plain, "sweep": sweep}), tmp_path / "run")
    assert again.value.faults == caught.value.faults
    assert not list(tmp_path.iterdir())


def test_what_a_sweep_would_have_by_default_is_taken(tmp_path) -> None:
    sweep = {"name": None, "resume": False, "fail_fast": False, "keys": ["seed"]}
    plain = {"data": {"name": "xor"}, "trainer": {"max_steps": 5}, "verbosity": 0, "sweep": sweep}
    assert mlp_lightning.train(plain, tmp_path / "run").status == "finished"
