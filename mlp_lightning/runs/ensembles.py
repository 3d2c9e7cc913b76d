"""Trained modules as one ensemble, and what its checkpoint says of it.

An ensemble is described by ``members``: the hyperparameters of each module, where ``preprocessing`` is a number in
``preprocessings``, since members that were trained on the same rows share theirs; and by their ``weights``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlp_lightning.errors import shown
from mlp_lightning.networks.ensemble import Ensemble
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.network import refuse_misfit
from mlp_lightning.tables.targets import Target

_PREPROCESSING = "preprocessing"


def combined(modules: Sequence[MLPModule], weights: Sequence[float], temperature: float = 1.0) -> Ensemble:
    """An ensemble of trained modules, which shares their networks.

    Args:
        modules: of one task, each with its preprocessing.
        weights: of each in the mean, in proportion; one of weight 0 is left out.
        temperature: of the mean.

    Raises:
        ValueError: a module does not prepare raw rows, or they do not fit together.
    """
    total = sum(weights)
    kept = [(module, weight / total) for module, weight in zip(modules, weights, strict=True) if weight != 0]
    return assembled([module for module, _ in kept], [weight for _, weight in kept], temperature)


def assembled(modules: Sequence[MLPModule], weights: Sequence[float], temperature: float = 1.0) -> Ensemble:
    """The same of weights whose sum is 1, to the same bits."""
    groups: list[MLPModule] = []
    members, group_K = [], []
    for module in modules:
        group = _group_of(groups, module)
        group_K.append(group)
        members.append({**module.hparams, _PREPROCESSING: group})
    hparams = {
        "members": members,
        "preprocessings": [one.hparams[_PREPROCESSING] for one in groups],
        "weights": list(weights),
        "temperature": temperature,
    }
    networks, tasks = [module.mlp for module in modules], [module.task for module in modules]
    preprocessors = [one.preprocessor for one in groups if isinstance(one.preprocessor, Preprocessor)]
    if len(preprocessors) < len(groups):
        raise ValueError("a member does not say what its columns are")
    of_first = hparams, modules[0].own_parts, temperature
    return Ensemble(preprocessors, networks, group_K, tasks, hparams["weights"], *of_first).eval()


class SharedPreprocessing:
    """Modules that prepare rows alike share what prepares them from the moment they are here, not K copies of it."""

    def __init__(self) -> None:
        self._groups: list[MLPModule] = []

    def shared(self, module: MLPModule) -> MLPModule:
        """The module, with the preprocessing of an earlier one if that is the same."""
        group = self._groups[_group_of(self._groups, module)]
        module.preprocessor = group.preprocessor
        module.config.preprocessing = module.hparams[_PREPROCESSING] = group.hparams[_PREPROCESSING]
        module._hparams_initial = module.hparams  # type: ignore[assignment]  # a deep copy by Lightning, for its loggers
        return module


def _group_of(groups: list[MLPModule], module: MLPModule) -> int:
    """The number of the first that prepares rows as ``module`` does; it is added if none does."""
    number = next((number for number, one in enumerate(groups) if _prepare_alike(one, module)), len(groups))
    groups += [module] if number == len(groups) else []
    return number


def _prepare_alike(one: MLPModule, other: MLPModule) -> bool:
    if one.preprocessor is other.preprocessor:
        return True
    if one.hparams[_PREPROCESSING] != other.hparams[_PREPROCESSING]:
        return False
    state, of_other = one.preprocessor.state_dict(), other.preprocessor.state_dict()
    return all(torch.equal(value, of_other[name]) for name, value in state.items())


def parts_of(
    described: Mapping[str, Any], state: Mapping[str, Tensor]
) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """The hyperparameters and the state of the module of each member.

    Raises:
        ValueError: they do not belong together.
        KeyError, TypeError: they are none of an ensemble.
    """
    preprocessings, weights = described["preprocessings"], described["weights"]
    if not 0 < len(described["members"]) == len(weights) <= len(state):
        raise ValueError(f"it has {len(described['members']):,} members and {len(weights):,} weights")
    by_prefix: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        part, number, inner = name.split(".", 2)
        by_prefix.setdefault(f"{part}.{number}", {})[inner] = value
    found, used = [], set[str]()
    for number, member in enumerate(described["members"]):
        group = member[_PREPROCESSING]
        if not 0 <= group < len(preprocessings):
            raise ValueError(f"member {number} has preprocessing {group}, and there are {len(preprocessings)}")
        prefixes = {"preprocessor": f"preprocessors.{group}", "mlp": f"networks.{number}"}
        part = {
            f"{prefix}.{name}": value
            for prefix, stored in prefixes.items()
            for name, value in by_prefix.get(stored, {}).items()
        }
        found.append(({**member, _PREPROCESSING: preprocessings[group]}, part))
        used |= set(prefixes.values())
    if idle := [name for name in by_prefix if name not in used]:
        raise ValueError(f"it has tensors of {shown(idle[0])}, which no member has")
    return found


def refuse_other_ensemble(described: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Compare what a file says of an ensemble with its tensors, as :func:`refuse_misfit` does of a module."""
    parts = parts_of(described, state)
    for hyperparameters, part in parts:
        refuse_misfit(hyperparameters, part)
    targets = [Target.from_dict(one["target"]) for one in described["preprocessings"]]
    if len({tuple((one.name, one.type, one.classes) for one in target.columns) for target in targets}) > 1:
        raise ValueError("its members learned different targets")
