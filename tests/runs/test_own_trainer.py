"""A Trainer of the user's own: what its loggers get, what it counts, and what it is refused."""

from __future__ import annotations

import csv
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, Logger
from support.commands import environment
from support.module_training import EXECUTIONS, MakeTrainer, Traces, fitted, hand_written, module_for
from support.tolerances import assert_same_bits, assert_same_weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlp_lightning.config import OptimizerConfig
from mlp_lightning.config.schedules import StepSchedule
from mlp_lightning.data import IrisDataModule
from mlp_lightning.data.own_trainer import trainer_faults
from mlp_lightning.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small


class Kept(Logger):
    """Keeps what it is given, as the loggers of services send it away."""

    def __init__(self) -> None:
        super().__init__()
        self.hyperparameters: list[dict[str, Any]] = []
        self.metrics: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "kept"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.hyperparameters.append(dict(params))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))


# ---- loggers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
def test_a_logger_gets_losses_at_true_steps_and_hyperparameters_once(
    make_trainer: MakeTrainer, steps_per_execution: int
) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, seed=7, steps_per_execution=steps_per_execution)
    module = module_for(data, scheduler=StepSchedule(step_size=2, gamma=0.5))
    logger, traces = Kept(), Traces()
    fitted(
        make_trainer,
        data,
        module,
        max_epochs=6,
        check_val_every_n_epoch=3,
        num_sanity_val_steps=0,
        log_every_n_steps=5,
        logger=logger,
        callbacks=[traces],
    )
    losses = torch.stack(traces.losses).tolist()
    assert len(losses) == 24
    training = [(step, one) for step, one in logger.metrics if "loss/train" in one]
    assert [(step, one["loss/train"]) for step, one in training] == [(step, losses[step]) for step in range(0, 24, 5)]
    assert [one["learning_rate"] for _, one in training] == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert all(0 <= one["accuracy/train"] <= 1 for _, one in training)
    assert [step for step, one in logger.metrics if "loss/val" in one] == [12, 24]
    (given,) = logger.hyperparameters
    assert given["model"]["hidden_units"] == [8, 5]
    assert given["optimizer"]["lr"] == 0.1
    assert given["seed"] == 3
    assert (given["data"]["name"], given["data"]["batch_size"], given["data"]["seed"]) == ("iris", 30, 7)
    assert "preprocessing" not in given


def test_csv_and_tensorboard_have_the_training_loss(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = IrisDataModule(batch_size=30, steps_per_execution=7)
    loggers = [CSVLogger(tmp_path, "csv"), pl.loggers.TensorBoardLogger(tmp_path, "tensorboard")]
    fitted(make_trainer, data, module_for(data), max_steps=20, log_every_n_steps=4, logger=loggers)
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(one["step"]) for one in rows if one["loss/train"]] == [0, 4, 8, 12, 16]
    assert "hidden_units" in (tmp_path / "csv" / "version_0" / "hparams.yaml").read_text(encoding="utf-8")
    events = EventAccumulator(str(tmp_path / "tensorboard" / "version_0")).Reload()
    scalars = events.Scalars("loss/train")
    assert [one.step for one in scalars] == [0, 4, 8, 12, 16]
    assert [one.value for one in scalars] == pytest.approx([float(one["loss/train"]) for one in rows])


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_what_a_callback_logs_has_the_true_step_also_after_a_resume(
    make_trainer: MakeTrainer, tmp_path: Path, steps_per_execution: int
) -> None:
    class Logging(Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
            pl_module.log("mine", float(trainer.global_step))

    logger = Kept()
    settings = {"log_every_n_steps": 1, "logger": logger}
    for max_steps, checkpoint in ((8, None), (20, tmp_path / "a.ckpt")):
        data = IrisDataModule(batch_size=30, steps_per_execution=steps_per_execution)
        trainer = fitted(
            make_trainer, data, module_for(data), checkpoint, max_steps=max_steps, callbacks=[Logging()], **settings
        )
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    found = [(step, one["mine"]) for step, one in logger.metrics if "mine" in one]
    # Lightning numbers what is logged after a step by the steps before the batch is over.
    assert found[-1][1] == 20
    assert all(step is not None and 0 <= after - step <= steps_per_execution for step, after in found)


def test_early_stopping_and_checkpoints_can_watch_the_training_loss(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Stopping(EarlyStopping):
        def __init__(self) -> None:
            super().__init__("loss/train", patience=2, min_delta=10.0)
            self.epochs: list[int] = []

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.epochs.append(trainer.current_epoch)
            super().on_train_epoch_end(trainer, pl_module)

    data = IrisDataModule(batch_size=30, steps_per_execution=1000)
    stopping = Stopping()
    best = ModelCheckpoint(tmp_path, monitor="loss/train", save_top_k=1, filename="best")
    trainer = fitted(
        make_trainer, data, module_for(data), max_epochs=50, enable_checkpointing=True, callbacks=[stopping, best]
    )
    assert stopping.epochs == [0, 1, 2]  # the first is the best, and two more are not better
    assert trainer.global_step == 15
    assert (tmp_path / "best.ckpt").is_file()


def test_without_logging_and_in_a_bare_trainer(make_trainer: MakeTrainer) -> None:
    for settings in ({"log_every_n_steps": 0}, {"fast_dev_run": 2, "logger": Kept()}):
        data, traces = IrisDataModule(batch_size=24, val_fraction=0.2, steps_per_execution=50), Traces()
        fitted(make_trainer, data, module_for(data), max_epochs=1, callbacks=[traces], **settings)
        assert len(traces.losses) == (2 if "fast_dev_run" in settings else 5)


# ---- what is counted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
@pytest.mark.parametrize("name", ["limit_train_batches", "overfit_batches"])
@pytest.mark.parametrize("batches", [1, 2, 3, 100])
def test_epochs_of_some_batches_are_those_of_a_plain_loop(
    make_trainer: MakeTrainer, name: str, batches: int, steps_per_execution: int
) -> None:
    data = IrisDataModule(batch_size=32, scaling="standard", steps_per_execution=steps_per_execution)
    module = module_for(data, optimizer=OptimizerConfig("SGD", 0.1))
    traces = Traces()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Total length of .list. across ranks is zero")  # no validation rows
        trainer = fitted(make_trainer, data, module, max_epochs=4, callbacks=[traces], **{name: batches})
    reference, rows, losses = hand_written(), data.splits["train"], []
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for epoch in range(4):
        order = torch.arange(150) if name == "overfit_batches" else data.training_steps.order(epoch)
        for here in order.split(32)[:batches]:
            optimizer.zero_grad()
            loss = F.cross_entropy(reference(rows.features_BF[here]), rows.targets[here])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    assert_same_bits(torch.stack(traces.losses), torch.stack(losses))
    assert_same_weights(module, reference)
    assert (trainer.global_step, trainer.current_epoch) == (len(losses), 4)


def test_limited_batches_are_counted_before_they_are_accumulated(make_trainer: MakeTrainer) -> None:
    data, traces = IrisDataModule(batch_size=10, accumulate_grad_batches=3, steps_per_execution=50), Traces()
    fitted(make_trainer, data, module_for(data), max_epochs=2, callbacks=[traces], limit_train_batches=7)
    assert len(traces.losses) == 6  # 3 + 3 + 1 batches in each epoch
    assert data.training_steps.rows_per_epoch == 70


@pytest.mark.parametrize("steps_per_execution", [1, 50])
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_checkpoints_are_saved_at_every_step_that_is_asked_for(
    make_trainer: MakeTrainer, tmp_path: Path, steps_per_execution: int
) -> None:
    data = IrisDataModule(batch_size=30, steps_per_execution=steps_per_execution)
    callbacks = [
        ModelCheckpoint(tmp_path, "a-{step}", save_top_k=-1, every_n_train_steps=6),
        ModelCheckpoint(tmp_path, "b-{epoch}", save_top_k=-1, every_n_epochs=2),
    ]
    fitted(make_trainer, data, module_for(data), max_epochs=6, enable_checkpointing=True, callbacks=callbacks)
    expected = ["a-step=12", "a-step=18", "a-step=24", "a-step=30", "a-step=6", "b-epoch=1", "b-epoch=3", "b-epoch=5"]
    assert sorted(one.stem for one in tmp_path.glob("*.ckpt")) == expected


@pytest.mark.parametrize("steps_per_execution", [1, 50])
def test_hooks_of_epochs_are_called_in_every_epoch(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    class Epochs(Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seen.append(trainer.current_epoch)

    data, epochs = IrisDataModule(batch_size=30, steps_per_execution=steps_per_execution), Epochs()
    fitted(make_trainer, data, module_for(data), max_epochs=7, callbacks=[epochs])
    assert epochs.seen == list(range(7))


def test_an_interval_of_validations_in_steps(make_trainer: MakeTrainer) -> None:
    class Validated(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.steps.append(trainer.global_step)

    data, seen = IrisDataModule(batch_size=30, val_fraction=0.2), Validated()
    settings = {"val_check_interval": 3, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    fitted(make_trainer, data, module_for(data), max_steps=14, callbacks=[seen], **settings)
    assert seen.steps[:4] == [3, 6, 9, 12]


# ---- what is refused ---------------------------------------------------------------------------------------


class Clipping(Callback):
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val = 0\.5 clips nothing.*MLPModule\(…, gradient_clip_val=0\.5\)"),
        (
            {"gradient_clip_val": 2.0, "gradient_clip_algorithm": "value"},
            r"give MLPModule\(…, gradient_clip_val=2\.0, gradient_clip_algorithm='value'\)",
        ),
        ({"accumulate_grad_batches": 4}, r"give IrisDataModule\(…, accumulate_grad_batches=4\)"),
        ({"limit_train_batches": 0.5}, r"limit_train_batches = 0\.5 is a share.*limit_train_batches=10"),
        ({"overfit_batches": 0.1}, r"overfit_batches = 0\.1 is a share.*overfit_batches=10"),
        ({"val_check_interval": 0.25}, r"val_check_interval = 0\.25 is a share of an epoch"),
        ({"val_check_interval": 4}, r"would count executions of 20 steps; give check_val_every_n_epoch, or IrisData"),
        (
            {"precision": "64-true"},
            r"= '64-true' does not fit rows of torch\.float32; give Iris.*dtype=torch\.float64\)",
        ),
        ({"precision": "bf16-true"}, r"= 'bf16-true' is not supported; give Trainer\(precision=\"bf16-mixed\"\)"),
        ({"callbacks": [Clipping()]}, r"'Clipping' has on_after_backward, which is never called"),
        ({"callbacks": [EMAWeightAveraging()]}, r"'EMAWeightAveraging' would be called once for 20 steps"),
        ({"callbacks": [LearningRateMonitor()], "logger": Kept()}, r"the learning rate is logged without it"),
    ],
)
def test_what_would_have_no_effect_or_another_is_refused(
    make_trainer: MakeTrainer, settings: dict[str, Any], message: str
) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, steps_per_execution=20)
    with pytest.raises(ConfigError, match=message):
        fitted(make_trainer, data, module_for(data), max_steps=4, **settings)


def test_rows_of_another_precision_than_the_trainer(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(dtype=torch.float64)
    with pytest.raises(
        ConfigError, match=r"does not fit rows of torch\.float64; give Iris.*dtype=torch\.float32\), or"
    ):
        fitted(make_trainer, data, module_for(data), max_steps=2)


def test_a_time_interval_of_checkpoints_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    import datetime

    data = IrisDataModule()
    saving = ModelCheckpoint(tmp_path, train_time_interval=datetime.timedelta(seconds=1))
    with pytest.raises(ConfigError, match="train_time_interval, by which Lightning saves nothing"):
        fitted(make_trainer, data, module_for(data), max_steps=4, enable_checkpointing=True, callbacks=[saving])


def test_all_faults_are_named_together(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(steps_per_execution=2)
    asked = {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2, "limit_train_batches": 0.5}
    with pytest.raises(ConfigError) as caught:
        fitted(make_trainer, data, module_for(data), max_steps=4, **asked)
    assert [one.key.removeprefix("Trainer.") for one in caught.value.faults] == list(asked)


def test_several_processes_are_refused() -> None:
    data = IrisDataModule()
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module_for(data))
    (fault,) = trainer_faults(trainer, data, 1)
    assert str(fault).startswith("Trainer.world_size = 2 is not supported: each process would train the same")


_TWO_PROCESSES = """
import lightning.pytorch as pl
from mlp_lightning import IrisDataModule, MLPModule

if __name__ == "__main__":
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, logger=False)
    trainer.fit(MLPModule(4, 3, "multiclass"), datamodule=IrisDataModule())
"""


@pytest.mark.slow
def test_a_script_with_two_processes_ends_with_the_fault(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_TWO_PROCESSES, encoding="utf-8")
    words = [sys.executable, str(script)]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode != 0
    assert "Trainer.world_size = 2 is not supported" in done.stderr
