"""Fixtures for the tests of the models."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import pytest

from mlp_lightning.training.sizing import cpu_threads


class NoEndInSight(pl.Callback):
    """Fails a run that misses its end, which would go on forever."""

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        assert batches < 2000, f"{batches} batches, step {trainer.global_step}, epoch {trainer.current_epoch}"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices as small as those here only lose by a second thread."""
    with cpu_threads(1):
        yield


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., pl.Trainer]:
    """A quiet Trainer on the CPU; keyword arguments are those of ``pl.Trainer``."""

    def made(**settings: Any) -> pl.Trainer:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        callbacks = [*settings.pop("callbacks", []), NoEndInSight()]
        with warnings.catch_warnings():
            # On a machine with a GPU, Lightning recommends it.
            warnings.filterwarnings("ignore", message="GPU available but not used")
            return pl.Trainer(accelerator="cpu", devices=1, **{**quiet, **settings}, callbacks=callbacks)

    return made
