"""The description of an exported model, as plain data for JSON."""

from __future__ import annotations

import itertools
import json
from typing import Any

from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.runs.run_folder import versions
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN

FORMAT_VERSION = 2


def describe(model: TrainedModel) -> dict[str, Any]:
    """What the model predicts, from which columns in their order, and the versions that made it."""
    return {
        "format_version": FORMAT_VERSION,
        "task": model.target.task,
        "class_names": model.target.by_name([list(one.class_names) for one in model.target.columns]),
        "outputs": model.task.prediction_names(model.target),
        "target": model.target.to_dict(),
        "columns": [column.to_dict() for column in model.columns],
        "versions": versions(),
    }


def code_input(column: Column) -> dict[str, Any]:
    """How a column is given to a model that takes numbers and codes of categories."""
    if column.kind == "categorical":
        codes = {"missing": MISSING, "unknown": UNKNOWN, "first_category": FIRST_CATEGORY}
        return {"name": column.name, "type": "int64", **codes}
    return {"name": column.name, "type": "float64", "missing": "nan", **_unit(column)}


def value_input(column: Column) -> dict[str, Any]:
    """How a column is given to a model that takes values as they are in the table."""
    kind = value_type(column)
    missing = {"double": "nan", "string": missing_text(column), "int64": missing_integer(column), "bool": None}[kind]
    return {"name": column.name, "type": kind, "missing": missing, **_unit(column)}


def value_type(column: Column) -> str:
    """``double``, ``string``, ``int64`` or ``bool``.

    Truth values are doubles (0, 1, or NaN if missing), except a category that was never missing.
    """
    if column.kind != "categorical":
        return "double"
    if column.type == "bool":
        return "double" if column.missing else "bool"
    return column.type


def missing_text(column: Column) -> str:
    """The text for a missing value: the empty one, unless that is a category."""
    text = ""
    while text in column.vocabulary:
        text = f"<{text or 'missing'}>"
    return text


def missing_integer(column: Column) -> int:
    """The number for a missing category: the least one that is not a category."""
    return next(number for number in itertools.count(-(2**63)) if number not in column.vocabulary)


def json_bytes(content: Any) -> bytes:
    """JSON for people and programs."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _unit(column: Column) -> dict[str, str]:
    return {"unit": "seconds since 1970-01-01 00:00"} if column.kind == "datetime" else {}
