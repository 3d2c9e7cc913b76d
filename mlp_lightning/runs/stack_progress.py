"""What a stack reports to while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import lightning.pytorch as pl

from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.training import Training
from mlp_lightning.runs.training_module import Outputs, TrainingModule


class StackProgress(Protocol):
    """What a stack reports to."""

    def steps_made(self, steps: int, members: int) -> None:
        """``steps`` more optimizer steps were made by each of ``members`` members."""

    def run_ended(self, number: int, result: TrainingResult) -> bool:
        """The run with this number in the list has ended; its folder is complete.

        Returns:
            Whether the others continue.
        """
        ...


class StackHost:
    """What is heard of several runs."""

    def __init__(self, progress: StackProgress | None) -> None:
        self._progress = progress

    def begins(self, training: Training) -> Sequence[pl.Callback]:
        return [] if self._progress is None else [_StepCounter(self._progress)]

    def starts(self, training: Training) -> None:
        pass

    def ended(self, number: int, result: TrainingResult, details: str) -> bool:
        return self._progress is None or self._progress.run_ended(number, result)


class _StepCounter(pl.Callback):
    """Reports how many steps were made."""

    def __init__(self, progress: StackProgress) -> None:
        self._progress = progress

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: TrainingModule, outputs: Mapping[str, Outputs], *_: Any
    ) -> None:
        for trace, members in outputs["outputs"].traces:
            self._progress.steps_made(trace.steps, len(members))
