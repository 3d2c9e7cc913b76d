"""What members are measured for when they finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.runs.result import TrainingResult

#: Metrics by name, one value per slot.
Metrics = Mapping[str, Sequence[float]]


class Measured(NamedTuple):
    """Metrics and predictions of members that finish; one value or row per slot.

    Attributes:
        splits: metrics of every split, of the weights that are reported.
        validation: metrics of the validation rows, of the ``best`` and the ``last`` weights; empty where validation
            decides no best.
        predictions: of the training rows; ``None`` if they are not described.
        held_out: of the validation rows, for :mod:`mlp_lightning.runs.calibration`; ``None`` if that keeps nothing.
        last_losses: training loss of the last weights.
    """

    splits: Mapping[str, Metrics]
    validation: Mapping[str, Metrics]
    predictions: NDArray[np.float64] | None
    held_out: NDArray[np.float64] | None
    last_losses: Sequence[float] = ()

    def validation_of(self, slot: int, result: TrainingResult) -> dict[str, dict[str, float]] | None:
        """What ``result.json`` says of the validation rows.

        Args:
            slot: of the member.
            result: of it.
        """
        if not self.validation or result.best is None:
            return None
        steps = {"best": result.best["step"], "last": result.steps}
        return {which: {"step": steps[which], **of_slot(one, slot)} for which, one in self.validation.items()}


def of_slot(metrics: Metrics, slot: int) -> dict[str, float]:
    """The metrics of one member."""
    return {name: values[slot] for name, values in metrics.items()}
