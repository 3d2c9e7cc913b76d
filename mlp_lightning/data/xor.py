"""Exclusive or: the smallest data set that no linear model can learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.data.datamodule import TabularDataModule


class XORDataModule(TabularDataModule):
    """The four points (0,0), (0,1), (1,0), (1,1) with their exclusive or: 2 features, 1 binary target."""

    task = "binary"
    class_names = ("0", "1")
    feature_names = ("x1", "x2")
    target_name = "xor"

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features_BF = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
        targets_BT = np.array([[0], [1], [1], [0]], dtype=np.float32)
        return features_BF, targets_BT

    def describe_predictions(self, predictions_BC: NDArray[np.float32]) -> str:
        """The four hypotheses, the classes they mean, and their accuracy, as the source prints them."""
        _, targets_BT = self.load()
        correct_BT = (predictions_BC > 0.5).astype(np.float32)
        accuracy = float((correct_BT == targets_BT).mean())
        with np.printoptions(precision=8, suppress=True):
            return f"\nHypothesis:  {predictions_BC}\nCorrect:  {correct_BT}\nAccuracy:  {accuracy}"
