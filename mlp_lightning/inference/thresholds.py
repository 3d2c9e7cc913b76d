"""From which probability on a row is of the second class, where that is not one half.

Shapes: ``T`` targets of two classes each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.tasks.base import Floats

#: The key of ``metrics.json`` that has thresholds.
SECTION = "threshold"


def with_thresholds(model: TrainedModel, given: float | str | Path | None, key: str) -> TrainedModel:
    """The model, deciding by these thresholds: a number for all targets, or the ``metrics.json`` of an evaluation.

    Args:
        model: of one or several targets of two classes.
        given: ``None``: the model as it is.
        key: the option, for messages.

    Raises:
        ConfigError: the model has other targets, or there is no such number or file, or it is of another model.
    """
    if given is None:
        return model
    refuse_other_targets(model, given, key)
    if isinstance(given, (str, Path)):
        return dataclasses.replace(model, thresholds_T=_of_file(model, Path(given).expanduser(), key))
    if not 0 <= given <= 1:
        raise ConfigError([Fault(key, given, "must be between 0 and 1", "a probability is")])
    return dataclasses.replace(model, thresholds_T=np.full(len(model.target.columns), float(given)))


def refuse_other_targets(model: TrainedModel, given: Any, key: str) -> None:
    """Refuse a threshold for a model whose targets do not have two classes each.

    Raises:
        ConfigError: it has others.
    """
    for one in model.target.columns:
        if len(one.classes) != 2:
            has = f"has {len(one.classes):,} classes" if one.classes else "is a number"
            rule = f"is for targets of two classes, and {one.name!r} {has}"
            raise ConfigError([Fault(key, given, rule, "leave it out")])


def model_digest(model: TrainedModel) -> str:
    """The SHA-256 of the checkpoint: a threshold is of one model and no other."""
    return hashlib.sha256(model.path.read_bytes()).hexdigest()


def _of_file(model: TrainedModel, path: Path, key: str) -> Floats:
    path = path / "metrics.json" if path.is_dir() else path
    hint = "name a number, or the metrics.json of an evaluation that chose thresholds"
    try:
        section = json.loads(path.read_text(encoding="utf-8"))[SECTION]
        values, digest = section["values"], section["model"]
        found = [float(values[name]) for name in model.target.names]
    except OSError as error:
        raise ConfigError([Fault(key, str(path), f"cannot be read: {error.strerror}", hint)]) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError([Fault(key, str(path), "has no thresholds of these targets", hint)]) from error
    if not all(map(math.isfinite, found)):
        raise ConfigError([Fault(key, str(path), "has a threshold that is not a finite number", hint)])
    if digest != model_digest(model):
        rule = f"has the thresholds of another model than {model.path}"
        raise ConfigError([Fault(key, str(path), rule, "evaluate this one, or give the number")])
    return np.array(found)
