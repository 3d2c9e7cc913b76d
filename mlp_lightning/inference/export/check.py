"""Whether an exported model predicts as the checkpoint does: rows to compare, and the difference of two predictions.

Shapes: ``B`` rows, ``F`` columns, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.errors import ExportError
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import encode
from mlp_lightning.tables.targets import Target

#: Sizes of the batches that are predicted.
BATCH_SIZES = (1, 7, 1000)
#: How far an exported model may be from PyTorch.
TOLERANCE = 1e-5
_SHARE_OF_MISSING = 0.1
# Of the rows: if many numbers are extreme at once, rounding alone makes predictions differ.
_SHARE_OF_EXTREMES = 0.05
# Deviations from the middle of the training rows.
_EXTREME = 1e6
# No moment of the check is further from 1970, so that every year can be written.
_LATEST = 250 * 365 * 86_400.0


@dataclasses.dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        rows: that were compared.
        largest_difference: see :func:`difference`.
    """

    rows: int
    largest_difference: float


def check(
    model: TrainedModel,
    predict: Callable[[pa.Table, NDArray[np.float64]], NDArray[Any]],
    tolerance: float = TOLERANCE,
    complete: Collection[str] = (),
) -> Checked:
    """Compare an exported model with the original, batch by batch.

    Args:
        model: of the checkpoint.
        predict: takes rows as a table and as raw numbers ``(B, F)``; returns the predictions of the exported model,
            ``(B, C)``.
        tolerance: the largest difference allowed.
        complete: columns in which the format has no missing values.

    Raises:
        ExportError: they differ.
    """
    table = rows_to_check(model, complete)
    largest, first = 0.0, 0
    for size in BATCH_SIZES:
        batch = table.slice(first, size)
        first += size
        raw_BF = encode(batch, model.columns, lambda row: f"row {row + 1}")
        found = difference(predict(batch, raw_BF), model.predict(raw_BF), model.target)
        largest = max(largest, found)
    if largest > tolerance:
        raise ExportError(
            f"The exported model does not predict as {model.path} does: predictions of {first:,} rows differ by up to"
            f" {largest:.3g}, and {tolerance:g} is allowed. Nothing was written; please report this with the model."
        )
    return Checked(first, largest)


def difference(actual: NDArray[Any], expected: NDArray[np.float64], target: Target) -> float:
    """The largest difference of predictions; infinite if they differ in shape or in where they are NaN.

    For probabilities the difference itself; for values, in units of the target's deviation, or of the value's distance
    from the target's mean if that is larger. (Not of the value: a target of 5,000,000 ± 1,000 would hide all errors.)
    """
    if actual.shape != expected.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if not np.isfinite(actual[finite]).all() or not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    unit = 1.0
    if target.scale:
        unit = np.maximum(np.array(target.scale), np.abs(expected - np.array(target.mean)))
    apart = np.abs(np.where(finite, actual, 0.0) - np.where(finite, expected, 0.0)) / unit
    return float(apart.max(initial=0.0, where=finite))


def rows_to_check(model: TrainedModel, complete: Collection[str] = (), rows: int = sum(BATCH_SIZES)) -> pa.Table:
    """Rows like those of the training, with missing values, unknown categories and extreme numbers among them.

    The same at every call; no value is missing in the columns ``complete``.
    """
    random = np.random.default_rng(0)
    middles, scales = _statistics(model)
    columns = {}
    for column in model.columns:
        if column.kind == "categorical":
            values = pa.array(_categories(column, rows, random), type=column.arrow_type)
        elif column.kind == "boolean":
            values = pa.array(random.random(rows) < 0.5).cast(column.arrow_type)
        else:
            middle, scale = middles[column.name], scales[column.name]
            share = _SHARE_OF_EXTREMES / len(model.columns)
            values = _numbers(column, middle + scale * random.standard_normal(rows), scale, share, random)
        missing_B = random.random(rows) < _SHARE_OF_MISSING
        if column.name not in complete:
            values = values.take(pa.array(np.arange(rows), mask=missing_B))
        columns[column.name] = values
    return pa.table(columns)


def _statistics(model: TrainedModel) -> tuple[dict[str, float], dict[str, float]]:
    """Middle and deviation of each column of numbers in the training rows."""
    middles: dict[str, float] = {}
    scales: dict[str, float] = {}
    for part in model.preprocessors:
        names = part.feature_names[: part.numeric_features]
        middles |= dict(zip(names, part.median_N.tolist(), strict=True))
        # Where training rows have one value and gaps, the scale is infinite.
        finite = [scale if math.isfinite(scale) else 1.0 for scale in part.scale_N.tolist()]
        scales |= dict(zip(names, finite, strict=True))
    return middles, scales


def _numbers(
    column: Column, numbers_B: NDArray[np.float64], scale: float, share: float, random: np.random.Generator
) -> pa.Array:
    """Numbers of a column, of which about ``share`` are extreme."""
    extreme_B = random.random(len(numbers_B)) < share
    sign_B = np.where(random.random(len(numbers_B)) < 0.5, -1.0, 1.0)
    numbers_B = np.where(extreme_B, numbers_B + sign_B * scale * _EXTREME, numbers_B)
    if column.kind == "datetime":
        numbers_B = np.clip(numbers_B, -_LATEST, _LATEST)
        return pa.array((numbers_B * 1e6).astype(np.int64)).cast(column.arrow_type)
    return pa.array(numbers_B)


def _categories(column: Column, rows: int, random: np.random.Generator) -> list[str | int | bool]:
    """Values of the vocabulary, and some that are not in it."""
    known = list(column.vocabulary)
    unknown: list[str | int | bool]
    if column.type == "bool":
        unknown = [value for value in (False, True) if value not in known]
    elif column.type == "int64":
        unknown = [next(number for number in range(2**40, 2**40 + len(known) + 1) if number not in known)]
    else:
        unknown = ["no category " + "".join(map(str, known))]
    values = [*known, *unknown]
    return [values[index] for index in random.integers(0, len(values), rows)]
