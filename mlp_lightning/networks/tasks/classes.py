"""What tasks have in common whose target has one class in each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.networks.tasks.base import Evaluation, Floats, Task
from mlp_lightning.tables.targets import Target


class OneOfClasses(Task):
    """A task with one target, of which each row has one class."""

    metric_name = "accuracy"

    @classmethod
    def labels(cls, numbers_BT: Floats) -> NDArray[np.int64] | None:
        return numbers_BT[:, 0].astype(np.int64)

    def decisions(self, predictions_BC: Tensor) -> Tensor | None:
        return predictions_BC.argmax(-1, keepdim=True)

    @classmethod
    def prediction_names(cls, target: Target) -> list[str]:
        return [f"probability_{one}" for one in target.class_names]

    def evaluation(
        self, target: Target, truths_BT: Floats, predictions_BC: Floats, weights_B: Floats | None = None
    ) -> Evaluation:
        from mlp_lightning.networks.tasks import metrics  # of scikit-learn, which is slow to import

        names, predicted_B = target.class_names, predictions_BC.argmax(axis=1)
        labels_B = truths_BT[:, 0].astype(np.int64)
        of_all = metrics.classification_metrics(labels_B, predictions_BC, weights_B)
        parts = metrics.per_class(labels_B, predicted_B, names, weights_B)
        return Evaluation(of_all, "class", parts, [metrics.confusion_matrix(labels_B, predicted_B, len(names))])
