"""What the estimators keep of a training: the loss of every epoch and the metrics of every validation.

Shapes: ``K`` members, ``S`` steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.engines.steps import TrainingSteps
from mlp_lightning.runs.training_module import Outputs, TrainingModule


@dataclasses.dataclass
class Curves:
    """The curves of one run.

    Attributes:
        losses: of all steps, ``(S,)`` in parts.
        validations: metrics of each validation, by name.
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
    """Fills the curves of the runs of a training."""

    def __init__(self, curves: Sequence[Curves]) -> None:
        self._curves = curves

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: TrainingModule, outputs: Mapping[str, Outputs], *_: Any
    ) -> None:
        for trace, members in outputs["outputs"].traces:
            if trace.steps:
                for losses_S, member in zip(trace.losses_SK.unbind(1), members, strict=True):
                    self._curves[member].losses.append(losses_S)
        for one in outputs["outputs"].validations:
            for slot, member in enumerate(one.members):
                self._curves[member].validations.append({name: values[slot] for name, values in one.metrics.items()})
