"""How much each row of a table counts in the training loss.

Shapes: ``B`` rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlp_lightning.config import DataConfig
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.tables.columns import Origin, converted
from mlp_lightning.tables.targets import Target


def row_weights(
    table: pa.Table,
    target: Target,
    targets_BT: NDArray[np.float64],
    train: NDArray[np.int64],
    options: DataConfig,
    origin: Origin,
) -> NDArray[np.float64] | None:
    """The weight of every row, of mean 1 over the training rows; ``None`` if all count the same.

    Args:
        table: has the weight column, if there is one.
        target: what is predicted.
        targets_BT: class numbers, or values.
        train: numbers of the training rows.
        options: ``weight_column`` and ``class_weight``.
        origin: of the table, for messages.

    Raises:
        ConfigError: there are no classes to balance.
        DataError: a weight is not a number of at least 0, or all of them are 0.
    """
    weights_B = given_weights(table, options, origin)
    if options.class_weight == "balanced":
        if not target.columns[0].classes:
            rule, hint = "needs a target that has classes", "use none, or data.weight_column for weights of your own"
            raise ConfigError([Fault("data.class_weight", "balanced", rule, hint)])
        base_B = np.ones(len(targets_BT)) if weights_B is None else weights_B
        weights_B = base_B
        # Weights of several targets are multiplied, as scikit-learn's compute_sample_weight does.
        for labels_B in targets_BT.T.astype(np.int64):
            of_class_C = np.bincount(labels_B[train], base_B[train], minlength=labels_B.max() + 1)
            weights_B = weights_B / np.where(of_class_C > 0, of_class_C, 1.0)[labels_B]
    if weights_B is None:
        return None
    mean = weights_B[train].mean()
    if not mean > 0:
        raise DataError(f"{origin.name}: data.weight_column {options.weight_column!r} is 0 in all training rows.")
    return weights_B / mean


def given_weights(table: pa.Table, options: DataConfig, origin: Origin) -> NDArray[np.float64] | None:
    """What the weight column says of every row, at most 1; ``None`` without one.

    Raises:
        DataError: a weight is not a number of at least 0.
    """
    name = options.weight_column
    if name is None:
        return None
    values = table.column(name)
    weights_B = pc.fill_null(converted(name, values, pa.float64(), origin.place), np.nan).to_numpy()
    bad = ~(np.isfinite(weights_B) & (weights_B >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{origin.place(row)}: data.weight_column {name!r} is {values[row].as_py()!r}; a weight is a number of at"
            " least 0."
        )
    # Only their ratios count; sums of huge ones would be infinite.
    return weights_B / (weights_B.max() or 1.0)
