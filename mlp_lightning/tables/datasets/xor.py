"""Exclusive or: the smallest data set that no linear model can learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.config import DataConfig


def load(options: DataConfig) -> tuple[pa.Table, list[str]]:
    """The four points (0,0), (0,1), (1,0), (1,1) with their exclusive or: 2 features, 1 binary target."""
    return pa.table({"x1": [0.0, 0.0, 1.0, 1.0], "x2": [0.0, 1.0, 0.0, 1.0], "xor": [0, 1, 1, 0]}), ["xor"]


def describe_predictions(predictions_BC: NDArray[np.float32], targets_BT: NDArray[np.float32]) -> str:
    """The four hypotheses, the classes they mean, and their accuracy, as the source prints them."""
    predictions_BC = predictions_BC[:, 1:]
    predicted_BT = (predictions_BC > 0.5).astype(np.float32)
    accuracy = float((predicted_BT == targets_BT).mean())
    with np.printoptions(precision=8, suppress=True):
        return f"\nHypothesis:  {predictions_BC}\nPrediction:  {predicted_BT}\nAccuracy:  {accuracy}"
