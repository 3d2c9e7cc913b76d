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
        from mlp_lightning.networks.tasks import metrics  # of scikit-learn, which is slow to import

        return metrics.evaluation_of_labels(truths_BT, predictions_BC, target.columns, weights_B)
