"""The one place that builds a Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint

from mlp_lightning.config import Config
from mlp_lightning.errors import DeviceError
from mlp_lightning.runs.checkpoints import AtomicCheckpointIO

_PRECISIONS = {"32": "32-true", "64": "64-true", "bf16-mixed": "bf16-mixed"}


def refuse_missing_device(config: Config) -> None:
    """Refuse an accelerator that this machine does not have, before anything is made for a run.

    Raises:
        DeviceError: naming it.
    """
    accelerator = config.trainer.accelerator
    is_there = torch.backends.mps.is_available() or (accelerator == "gpu" and torch.cuda.is_available())
    if accelerator in ("gpu", "mps") and not is_there:
        raise DeviceError(
            f"trainer.accelerator = {accelerator!r}: torch finds none on this machine. Use trainer.accelerator=auto to"
            " take what it has."
        )


def build_trainer(config: Config, folder: Path, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """The Trainer that a configuration asks for. Validation, loggers and checkpoints are not Lightning's.

    Raises:
        DeviceError: if this machine does not have the accelerator, or not with that precision.
    """
    options = config.trainer
    try:
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=1,
            precision=_PRECISIONS[options.precision],  # type: ignore[arg-type]  # Lightning wants a literal
            max_steps=-1 if options.max_steps is None else options.max_steps,
            max_epochs=-1 if options.max_epochs is None else options.max_epochs,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=options.log_every_n_steps,
            callbacks=list(callbacks),
            logger=False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder,
            enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise DeviceError(
            f"trainer.accelerator = {options.accelerator!r} with trainer.precision = {options.precision!r}:"
            f" {error} Use trainer.accelerator=auto to take what this machine has."
        ) from error
