"""The one place that writes to the Trainer's private counters.

Lightning counts optimizer steps in ``LightningOptimizer.step``, batches and epochs in its loops, one at a time.
An execution makes many steps with torch's own optimizer, so it tells the Trainer afterwards; then
``trainer.global_step``, ``trainer.current_epoch``, ``max_steps`` and ``max_epochs`` count what they say, and what is
logged without a step has the true one.
``tests/runs/test_step_count.py`` holds these against the Lightning version in use.
"""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.loops.progress import _ProcessedTracker


def count_steps(trainer: pl.Trainer, steps: int) -> None:
    """Add ``steps`` optimizer steps to ``trainer.global_step``, in the batch that made them."""
    _add(trainer, steps)
    trainer.fit_loop.epoch_loop._batches_that_stepped -= 1  # Lightning adds the batch


def _add(trainer: pl.Trainer, steps: int) -> None:
    trainer.fit_loop.epoch_loop._batches_that_stepped += steps
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += steps
        tracker.completed += steps


def set_steps(trainer: pl.Trainer, steps: int) -> None:
    """Let ``trainer.global_step`` be ``steps``, as when a run continues from a checkpoint."""
    _add(trainer, steps - trainer.global_step)


def set_epoch(trainer: pl.Trainer, epoch: int) -> None:
    """Let ``trainer.current_epoch`` be ``epoch``.

    All counters move together, so their differences, by which Lightning knows where in an epoch it is,
    stay as they are.
    """
    progress = trainer.fit_loop.epoch_progress
    difference = epoch - trainer.current_epoch
    for tracker in (progress.total, progress.current):
        assert isinstance(tracker, _ProcessedTracker)
        tracker.ready += difference
        tracker.started += difference
        tracker.processed += difference
        tracker.completed += difference
