"""What a page says of held-out rows: importances, dependences, predictions beside truths, and the rows most wrong.

Shapes: ``B`` rows, ``C`` outputs, ``T`` targets, ``G`` values of a grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_lightning.inference.explanation.dependence import Dependence, label, partial_dependence
from mlp_lightning.inference.explanation.importance import permutation_importances, predicted
from mlp_lightning.inference.explanation.rows import ExplainedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.tables.columns import Column

_REPEATS = 5
# Of columns: shown by importance, with their dependence, and beside the rows most wrong.
_MOST_IMPORTANT, _MOST_DEPENDENCES, _MOST_VALUES = 40, 4, 12
_MOST_CURVES, _MOST_OUTPUTS, _MOST_WRONG = 15, 6, 10
_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


def table_section(
    model: TrainedModel, rows: ExplainedRows, seed: int, shows_rows: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the templates and the scripts get of some rows.

    Args:
        model: to ask.
        rows: held-out ones, or those of the training where there are no others.
        seed: of the permutations.
        shows_rows: 0: the page holds no values of rows.

    Raises:
        DataError: a prediction is not a finite number.
    """
    importances = permutation_importances(model, rows, _REPEATS, seed)
    predictions_BC = predicted(model, rows.raw_BF)
    evaluation = model.task.evaluation(model.target, rows.targets_BT, predictions_BC, rows.weights_B)
    named = [
        {"name": one.column.name, "kind": one.column.kind, "mean": one.means[0], "sd": one.deviations[0]}
        for one in importances.columns
    ]
    top = [one.column.name for one in importances.columns[:_MOST_DEPENDENCES]]
    dependences = [_dependence(partial_dependence(model, rows, name, seed)) for name in top]
    names = [*_class_names(model), *model.target.names]
    content = {
        "rows": len(rows.raw_BF),
        "drawn_from": rows.drawn_from,
        "split": rows.split,
        "metrics": evaluation.metrics,
        "parts": evaluation.parts if len(evaluation.parts) > 1 else [],
        "loss": importances.loss,
        "repeats": _REPEATS,
        "importance": named[:_MOST_IMPORTANT],
        "columns": len(named),
        "confusion": [
            {"name": column.name, "classes": list(column.class_names), "counts": counts.tolist()}
            for column, counts in zip(model.target.columns, evaluation.confusion, strict=False)
            if len(column.class_names) <= 30
        ],
        "wrong": _most_wrong(model, rows, predictions_BC) if shows_rows else [],
        "wrong_columns": [one.name for one in model.columns[:_MOST_VALUES]],
        "has_curves": bool(evaluation.confusion),
    }
    first = 1 if model.target.task == "binary" else 0
    outputs = list(range(first, min(predictions_BC.shape[1], first + _MOST_OUTPUTS)))
    data = {
        "importance": named[:_MOST_IMPORTANT],
        "dependence": dependences,
        "task": model.target.task,
        "shown": outputs,
        "outputs": _outputs(model, names),
        "predictions": _rounded(predictions_BC[:, outputs].T),
        "truths": _truths(model, rows.targets_BT, outputs),
        "weights": None if rows.weights_B is None else _rounded(rows.weights_B),
    }
    return content, data


def _class_names(model: TrainedModel) -> list[str]:
    return [name for one in model.target.columns for name in one.class_names]


def _outputs(model: TrainedModel, names: list[str]) -> list[str]:
    return names if model.target.task in ("binary", "multiclass") else list(model.target.names)


def _truths(model: TrainedModel, targets_BT: Floats, outputs: list[int]) -> list[list[float]]:
    """Of each output: whether a row is of its class, or its value."""
    if model.target.task in ("binary", "multiclass"):
        return [(targets_BT[:, 0] == one).astype(int).tolist() for one in outputs]
    return _rounded(targets_BT[:, outputs].T)


def _dependence(one: Dependence) -> dict[str, Any]:
    is_number = one.column.kind == "numeric"
    chosen = np.unique(np.linspace(0, len(one.curves_IGC) - 1, min(_MOST_CURVES, len(one.curves_IGC))).astype(int))
    return {
        "name": one.column.name,
        "kind": one.column.kind,
        "grid": [float(value) for value in one.grid_G] if is_number else list(range(len(one.labels))),
        "labels": one.labels,
        "mean": _rounded(one.mean_GC[:, : _MOST_OUTPUTS + 1]),
        "low": _rounded(one.low_GC[:, : _MOST_OUTPUTS + 1]),
        "high": _rounded(one.high_GC[:, : _MOST_OUTPUTS + 1]),
        "curves": _rounded(one.curves_IGC[chosen][:, :, : _MOST_OUTPUTS + 1]),
    }


def _rounded(numbers: NDArray[Any]) -> Any:
    """Nested lists, in six digits."""
    if numbers.ndim > 1:
        return [_rounded(one) for one in numbers]
    return [float(f"{one:.6g}") for one in numbers.tolist()]


def _most_wrong(model: TrainedModel, rows: ExplainedRows, predictions_BC: Floats) -> list[dict[str, Any]]:
    """The rows with the greatest errors, with what the model saw of them."""
    errors_B = _errors(model, rows.targets_BT, predictions_BC)
    decisions_BT = _decisions(model, predictions_BC)
    found = []
    for place in np.argsort(-errors_B, kind="stable")[:_MOST_WRONG].tolist():
        raw_F = rows.raw_BF[place]
        found.append(
            {
                "row": int(rows.numbers_B[place]) + 1,
                "error": float(errors_B[place]),
                "truth": _named(model, rows.targets_BT[place]),
                "prediction": _named(model, decisions_BT[place]),
                "values": [_shown(one, value) for one, value in zip(model.columns[:_MOST_VALUES], raw_F, strict=False)],
            }
        )
    return found


def _shown(column: Column, value: float) -> str | None:
    """A raw number as a table shows it, ``None`` if it is missing."""
    is_number = column.kind == "numeric" and not np.isnan(value)
    return f"{value:.6g}" if is_number else label(column, value)


def _errors(model: TrainedModel, targets_BT: Floats, predictions_BC: Floats) -> Floats:
    """The loss of each row: of classes the negative logarithm of the probability of the right one."""
    task = model.target.task
    if task == "regression":
        scale_T = np.array(model.target.scale or [1.0] * targets_BT.shape[1])
        return np.square((predictions_BC - targets_BT) / scale_T).mean(axis=1)
    if task == "multilabel":
        right_BT = np.where(targets_BT > 0.5, predictions_BC, 1 - predictions_BC)
        return -np.log(np.maximum(right_BT, _LEAST_PROBABILITY)).mean(axis=1)
    right_B = np.take_along_axis(predictions_BC, targets_BT.astype(np.int64), axis=1)[:, 0]
    return -np.log(np.maximum(right_B, _LEAST_PROBABILITY))


def _decisions(model: TrainedModel, predictions_BC: Floats) -> Floats:
    task = model.target.task
    if task == "regression":
        return predictions_BC
    if task == "multilabel":
        return (predictions_BC > 0.5).astype(float)
    return predictions_BC.argmax(axis=1, keepdims=True).astype(float)


def _named(model: TrainedModel, values_T: Floats) -> str:
    columns = model.target.columns
    texts = [
        one.class_names[int(value)] if one.classes else f"{value:.6g}"
        for one, value in zip(columns, values_T.tolist(), strict=True)
    ]
    return ", ".join(texts)
