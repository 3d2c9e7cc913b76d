"""Several targets of two classes each, which a row has independently of one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.errors import DataError
from mlp_lightning.networks.tasks.base import Evaluation, Floats, logit
from mlp_lightning.networks.tasks.binary import BinaryTask
from mlp_lightning.tables.columns import Origin
from mlp_lightning.tables.targets import Target, are_classes, classes_of


class MultilabelTask(BinaryTask):
    """One logit per target, for its second class. Loss: binary cross-entropy, as a mean over the targets.

    The classes of a target are in ascending order: the second of ``no`` and ``yes`` is ``yes``, that of 0 and 1 is 1.
    """

    name = "multilabel"

    @classmethod
    def poses(cls, columns: Sequence[pa.ChunkedArray]) -> bool:
        return len(columns) > 1 and all(are_classes(one) and len(one.unique()) <= 2 for one in columns)

    @classmethod
    def target(cls, table: pa.Table, names: Sequence[str], origin: Origin) -> Target:
        if len(names) < 2:
            raise DataError(
                f"{origin.name}: task=multilabel needs several targets, and data.target has one. Name them all, as in"
                " 'data.target=[rain,wind]', or use task=binary."
            )
        columns = tuple(classes_of(table, name, origin) for name in names)
        for one in columns:
            if len(one.classes) != 2:
                raise DataError(
                    f"{origin.name}: task=multilabel needs two classes in every target, and {one.name!r} has"
                    f" {len(one.classes)}. Leave it out of data.target, or train a model for it alone."
                )
        target = Target(cls.name, columns)
        given = cls.prediction_names(target)
        if len(set(given)) < len(given):
            twice = next(one for one in given if given.count(one) > 1)
            raise DataError(f"{origin.name}: two targets would both be predicted as {twice!r}. Rename one of them.")
        return target

    @classmethod
    def out_features(cls, target: Target) -> int:
        return len(target.columns)

    @classmethod
    def labels(cls, numbers_BT: Floats) -> NDArray[np.int64] | None:
        return numbers_BT.astype(np.int64)

    def predictions(self, logits_BC: Tensor) -> Tensor:
        """The probability of the second class of each target, ``(B, T)``."""
        return torch.sigmoid(logits_BC)

    def logits(self, predictions_BC: Tensor) -> Tensor:
        return logit(predictions_BC.double())

    def decisions(self, predictions_BC: Tensor) -> Tensor | None:
        return (predictions_BC > 0.5).long()

    @classmethod
    def prediction_names(cls, target: Target) -> list[str]:
        return [f"probability_{one.name}_{one.class_names[1]}" for one in target.columns]

    def evaluation(
        self, target: Target, truths_BT: Floats, predictions_BC: Floats, weights_B: Floats | None = None
    ) -> Evaluation:
        """Means over the targets, where ``macro_f1`` is that of F1 of class 1; and ``exact_match``, the share of the
        rows of which every target is predicted rightly. Of each target the metrics of its class 1.
        """
        from mlp_lightning.networks.tasks import metrics  # of scikit-learn, which is slow to import

        metrics.check(predictions_BC, "probability", weights_B)
        labels_BT, predicted_BT = truths_BT.astype(np.int64), (predictions_BC > 0.5).astype(np.int64)
        parts, confusion, of_each = [], [], []
        for number, column in enumerate(target.columns):
            labels_B, predicted_B = labels_BT[:, number], predicted_BT[:, number]
            of_second_B = predictions_BC[:, number]
            both_B2 = np.stack([1 - of_second_B, of_second_B], axis=1)
            here = metrics.classification_metrics(labels_B, both_B2, weights_B)
            of_class = metrics.per_class(labels_B, predicted_B, column.class_names, weights_B)[1]
            of_each.append({**here, "macro_f1": of_class["f1"]})
            further = {key: here[key] for key in ("accuracy", "roc_auc", "log_loss")}
            parts.append({"label": column.name, **of_class, **further})
            confusion.append(metrics.confusion_matrix(labels_B, predicted_B, 2))
        right_B = (predicted_BT == labels_BT).all(axis=1)
        exact = float(np.average(right_B, weights=weights_B))
        means = {key: _mean([one[key] for one in of_each]) for key in of_each[0] if key != "rows"}
        return Evaluation({"rows": len(labels_BT), "exact_match": exact, **means}, "label", parts, confusion)


def _mean(values: Sequence[float | None]) -> float | None:
    """``None`` where one is not defined."""
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
