"""What the estimators remember of a training: the loss of every epoch and the figures of every validation.

Shapes: ``K`` members of a stack, ``S`` steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.engines.steps import TrainingSteps
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.stacked_module import StackedModule


@dataclasses.dataclass
class Curves:
    """How one run got on.

    Attributes:
        losses: of all steps, ``(S,)`` in parts.
        validations: figures of each validation, by name.
    """

    losses: list[Tensor] = dataclasses.field(default_factory=list)
    validations: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def of_epochs(self, steps: TrainingSteps) -> list[float]:
        """The mean training loss of each epoch, in which every row counts the same."""
        if not self.losses:
            return []
        losses_S: NDArray[np.float64] = torch.cat(self.losses).double().cpu().numpy()
        per_epoch, rows = steps.steps_per_epoch, steps.rows_per_step
        sizes = [rows] * (per_epoch - 1) + [len(steps.rows) - rows * (per_epoch - 1)]
        epochs = losses_S[: len(losses_S) // per_epoch * per_epoch].reshape(-1, per_epoch)
        return np.average(epochs, axis=1, weights=sizes).tolist()


class CurveRecorder(pl.Callback):
    """Fills the curves of a run by itself."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: MLPModule, outputs: Any, *_: Any
    ) -> None:
        if outputs["trace"].steps:
            self._curves.losses.append(outputs["trace"].losses_S())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = {
            name.removesuffix("/val"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.endswith("/val")
        }
        self._curves.validations.append(figures)


class StackCurveRecorder(pl.Callback):
    """Fills the curves of the members of a stack."""

    def __init__(self, curves: list[Curves]) -> None:
        self._curves = curves

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: StackedModule, outputs: Any, *_: Any
    ) -> None:
        if outputs["trace"].steps:
            for losses_S, member in zip(outputs["trace"].losses_SK.unbind(1), pl_module.present, strict=True):
                self._curves[member].losses.append(losses_S)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: StackedModule) -> None:  # type: ignore[override]  # meets only our module
        figures = {name: values_K.tolist() for name, values_K in pl_module.validation.items()}
        for place, member in enumerate(pl_module.present):
            self._curves[member].validations.append({name: values[place] for name, values in figures.items()})
