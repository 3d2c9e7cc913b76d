"""Whether the description of an exported model is one and fits the tensors, before anything is built of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mlp_lightning.config import parse_complete
from mlp_lightning.errors import CheckpointError, ConfigError
from mlp_lightning.inference.export.description import describe, shortened
from mlp_lightning.inference.loading import TrainedModel, rebuilt
from mlp_lightning.runs.ensembles import refuse_other_ensemble
from mlp_lightning.runs.network import refuse_misfit

_STRUCTURE = {
    "task": str,
    "target": dict,
    "columns": list,
    "sha256": str,
    "hyperparameters": dict,
    "config": dict,
}
_HYPERPARAMETERS = {"in_features": int, "out_features": int, "task": str, "preprocessing": dict}
_COLUMN = {"name": str, "kind": str, "type": str, "vocabulary": list, "parts": list}
_TARGET = {"task": str, "columns": list}
_TARGET_COLUMN = {"name": str, "type": str, "classes": list}
# Of the hyperparameters: what the configuration says too, and only there is checked against the rules of each option.
_CONFIGURED = ("model", "seed")


def check_description(content: Mapping[str, Any], path: Path) -> None:
    """Check the structure of a whole description, and the configuration in it by the rules of all options.

    Raises:
        CheckpointError: naming the file, the place and what is wrong.
    """
    _check(content, _STRUCTURE, "", path)
    hyperparameters = content["hyperparameters"]
    if "members" in hyperparameters:
        _check_ensemble(content, path)
        return
    _check(hyperparameters, _HYPERPARAMETERS, "hyperparameters.", path)
    _check_preprocessing(hyperparameters["preprocessing"], "hyperparameters.preprocessing", path)
    for name in _CONFIGURED:
        if not _are_alike(hyperparameters.get(name), content["config"].get(name)):
            raise CheckpointError(f"{path}: hyperparameters.{name} is not config.{name}. Export the model again.")


def _check_ensemble(content: Mapping[str, Any], path: Path) -> None:
    """Check the structure of an ensemble, and the network of each member by the rules of all options."""
    hyperparameters = content["hyperparameters"]
    _check(hyperparameters, {"members": list, "preprocessings": list, "weights": list}, "hyperparameters.", path)
    for number, preprocessing in enumerate(hyperparameters["preprocessings"]):
        _check_preprocessing(preprocessing, f"hyperparameters.preprocessings[{number}]", path)
    for number, member in enumerate(hyperparameters["members"]):
        place = f"hyperparameters.members[{number}]"
        _check(member, {**_HYPERPARAMETERS, "preprocessing": int, "model": dict}, f"{place}.", path)
        network = {**member["model"], **member["model"].get("options", {})}
        network.pop("options", None)
        if "_target_" in network:  # as a configuration has it, without the options that only our own network has
            network = content["config"].get("model")
        try:
            parse_complete({**content["config"], "model": network}, is_stored=True)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {place}.model is not valid. {error}") from None


def _check_preprocessing(preprocessing: Any, place: str, path: Path) -> None:
    _check(preprocessing, {"columns": list, "target": dict}, f"{place}.", path)
    for number, column in enumerate(preprocessing["columns"]):
        _check(column, _COLUMN, f"{place}.columns[{number}].", path)
    target = preprocessing["target"]
    _check(target, _TARGET, f"{place}.target.", path)
    for number, column in enumerate(target["columns"]):
        _check(column, _TARGET_COLUMN, f"{place}.target.columns[{number}].", path)


def _are_alike(hyperparameter: Any, configured: Any) -> bool:
    """Whether both say the same; a configuration has the arguments of an own network among its options."""
    if not isinstance(hyperparameter, dict) or "_target_" not in hyperparameter:
        return hyperparameter == configured
    given = {"_target_": hyperparameter["_target_"], **dict(hyperparameter.get("options") or {})}
    return isinstance(configured, dict) and all(configured.get(name) == value for name, value in given.items())


def _check(value: Any, names: Mapping[str, type], place: str, path: Path) -> None:
    if not isinstance(value, dict):
        raise _wrong(path, place.rstrip("."), value, dict)
    for name, kind in names.items():
        if name not in value:
            raise CheckpointError(f"{path} is not the description of an exported model: it has no {place}{name}.")
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise _wrong(path, f"{place}{name}", value[name], kind)


def _wrong(path: Path, place: str, value: Any, kind: type) -> CheckpointError:
    what = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}[kind]
    return CheckpointError(
        f"{path} is not the description of an exported model: {place} is {shortened(json.dumps(value))}, and must be"
        f" {what}."
    )


def rebuilt_model(
    content: Mapping[str, Any], state: Mapping[str, Tensor], path: Path, own: Mapping[str, Any]
) -> TrainedModel:
    """The model of a description and its tensors.

    Raises:
        CheckpointError: the two do not fit together.
        KeyError, TypeError, RuntimeError, ValueError: they do not belong to a module of this version.
    """
    try:
        config = parse_complete(dict(content["config"]), is_stored=True)
    except ConfigError as error:
        raise CheckpointError(f"{path.with_suffix('.json')} has a configuration that is not valid. {error}") from None
    hyperparameters = content["hyperparameters"]
    try:
        (refuse_other_ensemble if "members" in hyperparameters else refuse_misfit)(hyperparameters, state)
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit its description: {shortened(error)}. Export it again.") from None
    model = TrainedModel.of(rebuilt(hyperparameters, state, own), config, path)
    says = {name: value for name, value in describe(model).items() if name != "versions"}
    differing = [name for name, value in says.items() if json.loads(json.dumps(value)) != content.get(name)]
    if differing:
        raise CheckpointError(
            f"{path.with_suffix('.json')} contradicts itself: {', '.join(differing)} and hyperparameters do not say the"
            " same. Export the model again."
        )
    return model
