"""Fisher's iris: 150 flowers of three species."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.data.datamodule import TabularDataModule


class IrisDataModule(TabularDataModule):
    """Sepal length and width, petal length and width in cm; the species as one of three classes.

    Source: R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936, as scikit-learn
    ships it.
    """

    task = "multiclass"
    class_names = ("setosa", "versicolor", "virginica")
    feature_names = ("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm")
    target_name = "species"

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        from sklearn.datasets import load_iris

        features_BF, labels_B = load_iris(return_X_y=True)
        return np.asarray(features_BF, dtype=np.float32), np.asarray(labels_B, dtype=np.int64)
