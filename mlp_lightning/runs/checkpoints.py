"""Checkpoints: writing them whole, keeping the last and the best, and going on from one."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mlp_lightning.config import CheckpointConfig, Config
from mlp_lightning.engines.rows import EvaluationBatches
from mlp_lightning.engines.trace import StepTrace
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.run_folder import RunFolder

CONFIG_KEY = "config"
# Sections of the configuration that a run may change when it goes on from a checkpoint.
_MAY_CHANGE = ("name", "verbosity", "sweep", "ckpt_path", "report_weights", "logger", "callbacks")
_MAY_CHANGE_IN_TRAINER = (
    "accelerator",
    "max_steps",
    "max_epochs",
    "log_every_n_steps",
    "print_every_n_steps",
    "steps_per_execution",
    "threads",
)


class StopRequested(Exception):  # noqa: N818 - a signal for unwinding, not an error
    """Unwinds a run that was asked to stop, after its state has been saved. Never reaches the user."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, brings it to the disk and renames it; loads only plain data."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_write(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; never runs code that may be in the file.

    Raises:
        CheckpointError: if there is no such file, or it is not a checkpoint of this package.
    """
    if not path.is_file():
        raise CheckpointError(f"ckpt_path: there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"ckpt_path: {path} cannot be read as a checkpoint ({type(error).__name__}). The file is damaged, or it"
            " holds more than numbers and plain data and is not opened for safety."
        ) from error
    if not isinstance(content, dict) or CONFIG_KEY not in content or "state_dict" not in content:
        raise CheckpointError(f"ckpt_path: {path} is not a checkpoint of a training run of this package")
    return content


def check_same_run(checkpoint: Mapping[str, Any], path: Path, config: Config) -> None:
    """A run goes on only with what the checkpoint was trained with.

    Raises:
        CheckpointError: naming every key that differs, with both values.
    """
    before, now = _decisive(checkpoint[CONFIG_KEY]), _decisive(config.to_dict())
    # A schedule over the whole run is another one when the run has another length.
    if config.scheduler.name in ("cosine", "one_cycle"):
        for key in ("max_steps", "max_epochs"):
            before[f"trainer.{key}"] = checkpoint[CONFIG_KEY]["trainer"][key]
            now[f"trainer.{key}"] = config.to_dict()["trainer"][key]
    different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if different:
        lines = "\n".join(f"  {key}: {before.get(key)!r} in the checkpoint, {now.get(key)!r} now" for key in different)
        raise CheckpointError(
            f"ckpt_path: {path} was trained with other settings than these:\n{lines}\n"
            "Give the same settings to go on with that run, or leave ckpt_path out to start a new one."
        )


def _decisive(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have to stay the same, flat."""
    flat: dict[str, Any] = {}
    for section, content in plain.items():
        if section in _MAY_CHANGE:
            continue
        if isinstance(content, Mapping):
            skipped = _MAY_CHANGE_IN_TRAINER if section == "trainer" else ("suggested_lr",)
            flat.update({f"{section}.{key}": value for key, value in content.items() if key not in skipped})
        else:
            flat[section] = content
    return flat


class CheckpointKeeper(Checkpoint):
    """Keeps ``last.ckpt`` and ``best.ckpt``, and ends a run that was asked to stop.

    A checkpoint is only ever taken between two steps, and where an epoch ends with a validation, after it; so
    a run that goes on from it finds everything as it would have been. (A run that ends within an epoch is
    validated once more; that is after its last checkpoint and leaves no trace in it.) The best checkpoint is
    kept in memory until the next ``last.ckpt`` is written: on the disk the two always belong together, and a
    run that is killed finds its later bests again when it goes on.

    Args:
        folder: of the run.
        config: of the run; ``None`` in ``config.callbacks.checkpoint`` keeps nothing.
        has_validation: whether there are validation rows.
        last_step: number of steps of the whole run.
    """

    def __init__(self, folder: RunFolder, config: Config, has_validation: bool, last_step: int) -> None:
        super().__init__()
        self._folder = folder
        self._config = config.to_dict()
        self._options: CheckpointConfig | None = config.callbacks.checkpoint
        self._has_validation = has_validation
        self._last_step = last_step
        monitor = self._options.monitor if self._options is not None else "auto"
        self.monitor = ("loss/val" if has_validation else "loss/train") if monitor == "auto" else monitor
        self.best_value: float | None = None
        self.best_step: int | None = None
        self._pending_best: dict[str, Any] | None = None
        self._last_saved_at = time.monotonic()
        self._due = False

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "best_value": self.best_value, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Without the file of the best weights its figure is of no use: the next best shall be kept.
        if state_dict["monitor"] == self.monitor and self._folder.best_checkpoint.is_file():
            self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[CONFIG_KEY] = self._config

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_saved_at = time.monotonic()

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: MLPModule, outputs: Mapping[str, StepTrace], *_: Any
    ) -> None:
        trace, step = outputs["trace"], trainer.global_step
        on_lattice, at_end = self._on_lattice(step), step >= self._last_step
        if self.monitor == "loss/train" and on_lattice and trace.steps:
            self._consider(trainer, _training_loss(trainer, pl_module))
        self._due = on_lattice or at_end or pl_module.stop_requested or self._is_time()
        if trace.steps and self._validation_is_regular(trainer):
            return
        self._save_if_due(trainer)
        if pl_module.stop_requested and step < self._last_step:
            raise StopRequested

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or not self._validation_is_regular(trainer):
            return
        if self.monitor.endswith("/val"):
            self._consider(trainer, float(trainer.callback_metrics[self.monitor]))
        self._due = self._due or trainer.should_stop
        self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: MLPModule) -> None:  # type: ignore[override]  # meets only our module
        # Without any better moment the end is the best. After last.ckpt: a run that goes on from there has not
        # ended here.
        if self._options is not None and self.monitor == "loss/train" and self.best_value is None:
            self._consider(trainer, _training_loss(trainer, pl_module))
            self._write_best(trainer)

    def _on_lattice(self, step: int) -> bool:
        interval = self._options.every_n_steps if self._options is not None else None
        return interval is not None and step % interval == 0

    def _is_time(self) -> bool:
        interval = self._options.every_n_seconds if self._options is not None else None
        return interval is not None and time.monotonic() - self._last_saved_at >= interval

    def _validation_is_regular(self, trainer: pl.Trainer) -> bool:
        """Whether the steps made so far end with a validation that belongs to an epoch's end."""
        epochs, position = divmod(trainer.global_step, trainer.datamodule.steps_per_epoch)  # type: ignore[attr-defined]  # train sets it
        interval = trainer.check_val_every_n_epoch or 1
        return self._has_validation and position == 0 and epochs % interval == 0

    def _consider(self, trainer: pl.Trainer, value: float) -> None:
        """Keep the present state if it is the best so far."""
        higher_is_better = self.monitor.startswith("accuracy")
        better = self.best_value is None or (value > self.best_value if higher_is_better else value < self.best_value)
        if better and self._options is not None:
            self.best_value, self.best_step = value, trainer.global_step
            self._pending_best = _snapshot(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if not self._due or self._options is None:
            return
        # First what belongs to the steps before the checkpoint, so that a run that goes on from it has no gap.
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self._folder.last_checkpoint)
        self._write_best(trainer)
        self._due = False
        self._last_saved_at = time.monotonic()

    def _write_best(self, trainer: pl.Trainer) -> None:
        if self._pending_best is not None:
            trainer.strategy.checkpoint_io.save_checkpoint(self._pending_best, self._folder.best_checkpoint)
            self._pending_best = None


@torch.no_grad()
def _training_loss(trainer: pl.Trainer, pl_module: MLPModule) -> float:
    """Loss of the present weights over all training rows.

    The losses of the steps are no measure of them: each was measured before an update, on one batch.
    """
    rows = trainer.datamodule.rows_on_device("train")  # type: ignore[attr-defined]  # train sets it
    pl_module.eval()
    total = 0.0
    for features_BF, targets in EvaluationBatches(rows):  # in parts: the layers' outputs of all rows take memory
        loss = pl_module.task.loss(pl_module.mlp(pl_module.prepared(features_BF)), targets)
        total += loss.item() * (len(targets) / len(rows))
    pl_module.train()
    return total


def _snapshot(value: Any) -> Any:
    """A copy of a checkpoint that training on does not change; ten times as fast as ``copy.deepcopy``."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _snapshot(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_snapshot(one) for one in value)
    return value


class RandomState(pl.Callback):
    """Saves the state of the random number generators in every checkpoint and restores it when a run goes on."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        version, numbers, gauss = random.getstate()
        _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        state: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
            "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
        }
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        if torch.backends.mps.is_available():
            state["mps"] = torch.mps.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here and not when loading: what comes between (the model graph, say) may draw random numbers.
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        torch.set_rng_state(state["torch"].cpu())
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers.tolist()), gauss))
        keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
        if "cuda" in state and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(state["cuda"].cpu())
        if "mps" in state and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"].cpu())
