"""The description of an exported model, as plain data for JSON."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlp_lightning.errors import LONGEST_VALUE, CheckpointError
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.runs.run_folder import versions
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN

FORMAT_VERSION = 3
#: Of a JSON file that is read; a million categories of 100 characters are no more.
MOST_BYTES = 1 << 28
_DIGEST = "description_sha256"


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


def description_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON for people and programs, with a digest of what it says."""
    return (json.dumps({**content, _DIGEST: digest_of(content)}, indent=2, ensure_ascii=False) + "\n").encode()


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a description says, however it is written: in one line, names sorted, without the digest."""
    said = {name: value for name, value in content.items() if name != _DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_description(path: Path) -> dict[str, Any]:
    """What the JSON of an export says, whole and of this version.

    Raises:
        CheckpointError: it cannot be read, is damaged or too large, or another version wrote it.
    """
    with named(path):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise CheckpointError(f"{path} has {size:,} bytes, and the limit for a description is {MOST_BYTES:,}.")
        written = path.read_bytes()
    try:
        content = json.loads(written)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not describe an exported model ({type(error).__name__}: {shortened(error)}). Export the model"
            " again."
        ) from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {shortened(version)}, and this version of the package reads {FORMAT_VERSION}."
            " Export the model again with this version."
        )
    if content.get(_DIGEST) != digest_of(content):
        raise CheckpointError(f"{path} is damaged, or was changed: its digest is another one. Export the model again.")
    return content


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = str(value)[: LONGEST_VALUE + 1]
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file into an error that names it.

    Raises:
        CheckpointError: with path and cause.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None


def _unit(column: Column) -> dict[str, str]:
    return {"unit": "seconds since 1970-01-01 00:00"} if column.kind == "datetime" else {}
