"""The user's own parts of a run, imported only where whoever trains or loads allows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import nn
from torch.optim import Optimizer

from mlp_lightning.config import Config
from mlp_lightning.config.targets import argument_faults, import_target, is_import_path, name_of_object
from mlp_lightning.data.own_trainer import OF_LIGHTNING_STEPS, overridden_hooks
from mlp_lightning.errors import ConfigError, Fault

_MAY_BE_OBJECTS = (("model", "_target_"), ("model", "activation"), ("optimizer", "_target_"), ("data", "_target_"))


def network_class(
    model: Any, allowed: Sequence[str], given: Callable[..., nn.Module] | None = None
) -> Callable[..., nn.Module] | None:
    """What makes a network of the user's own; ``None`` for an MLP.

    Args:
        model: the section of the configuration, or the mapping that a checkpoint has of it.
        allowed: packages and modules that may be imported.
        given: what the caller has, so that nothing is imported.

    Raises:
        ConfigError: it may not, or cannot, be imported, or would get arguments that are not plain data.
    """
    stored = isinstance(model, Mapping)
    path = model.get("_target_") if stored else getattr(model, "_target_", None)
    if path is None:
        return None
    options = model.get("options", {}) if stored else model.options
    # Before the import: those of a checkpoint are what its file says.
    faults = [*argument_faults("model", options)]
    for name in ("in_features", "out_features"):
        if isinstance(options, Mapping) and name in options:
            faults.append(Fault(f"model.{name}", options[name], "follows from the rows", "leave it out"))
    if faults:
        raise ConfigError(faults)
    return given or import_target("model._target_", path, allowed, nn.Module)


def activation_class(model: Any, allowed: Sequence[str]) -> type[nn.Module] | None:
    """The class of an activation of the user's own; ``None`` for one of ours. As :func:`network_class`."""
    stored = isinstance(model, Mapping)
    is_own = "_target_" in model if stored else hasattr(model, "_target_")
    path = None if is_own else model.get("activation") if stored else getattr(model, "activation", None)
    return import_target("model.activation", str(path), allowed, nn.Module) if is_import_path(path) else None


def optimizer_class(config: Config) -> type[Optimizer] | None:
    """The class of an optimizer of the user's own; ``None`` for one of torch's."""
    path = getattr(config.optimizer, "_target_", None)
    return None if path is None else import_target("optimizer._target_", path, config.allow_targets, Optimizer)


def model_parts(model: Any, allowed: Sequence[str]) -> dict[str, Any]:
    """What a module of this section needs beside it, as arguments of :class:`~mlp_lightning.runs.module.MLPModule`."""
    return {"network": network_class(model, allowed), "activation_class": activation_class(model, allowed)}


@dataclasses.dataclass(frozen=True)
class OwnParts:
    """The user's own parts of a run: classes, or other things that make them. ``None``: ours."""

    network: Callable[..., nn.Module] | None = None
    activation: Callable[..., nn.Module] | None = None
    optimizer: Callable[..., Optimizer] | None = None

    @classmethod
    def of(cls, config: Config, objects: Mapping[str, Any]) -> OwnParts:
        """Those of a configuration.

        Args:
            config: of a run.
            objects: what the caller has, by the key of its import path; the others are imported.

        Raises:
            ConfigError: one may not, or cannot, be imported.
        """
        model, allowed = config.model, config.allow_targets
        activation, optimizer = objects.get("model.activation"), objects.get("optimizer._target_")
        return cls(
            network_class(model, allowed, objects.get("model._target_")),
            activation or activation_class(model, allowed),
            optimizer or optimizer_class(config),
        )


def without_objects(config: Any) -> tuple[Any, dict[str, Any]]:
    """A configuration whose classes, or what else makes a part, are their names, and these things by key.

    Python may give ``optimizer._target_``, ``model._target_``, ``model.activation`` and ``data._target_`` themselves,
    as nothing has to be imported then.
    """
    if not isinstance(config, Mapping):
        return config, {}
    plain, objects = dict(config), {}
    for section, name in _MAY_BE_OBJECTS:
        content = plain.get(section)
        part = content.get(name) if isinstance(content, Mapping) else None
        if isinstance(content, Mapping) and callable(part):
            objects[f"{section}.{name}"] = part
            plain[section] = {**content, name: name_of_object(part)}
    return plain, objects


def own_callbacks(config: Config) -> list[pl.Callback]:
    """The callbacks that a configuration names, in order.

    Raises:
        ConfigError: one may not, or cannot, be imported, does not take its arguments, or has a hook that is never
            called.
    """
    made = []
    for number, one in enumerate(config.callbacks.extra):
        key = f"callbacks.extra.{number}"
        callback_class = import_target(f"{key}._target_", one._target_, config.allow_targets, pl.Callback)
        try:
            callback = callback_class(**one.options)
            refuse_validation_hooks([callback])
        except Exception as error:  # the class is code of the user's own
            rule = f"cannot be made with {dict(one.options)} ({type(error).__name__}: {error})"
            raise ConfigError([Fault(key, one._target_, rule)]) from error
        made.append(callback)
    return made


def refuse_validation_hooks(callbacks: Sequence[pl.Callback]) -> None:
    """Refuse callbacks with hooks that are never called.

    Raises:
        ValueError: naming the first.
    """
    for one in callbacks:
        for name in dir(pl.Callback):
            of_step = name in OF_LIGHTNING_STEPS
            unused = of_step or "validation" in name or "_test_" in name or "sanity" in name
            if not unused or not overridden_hooks(one, [name]):
                continue
            if of_step:
                reason, instead = "optimizer steps", 'Read outputs["outputs"].traces in on_train_batch_end.'
            else:
                reason = "validations"
                instead = (
                    'Read outputs["outputs"].validations in on_train_batch_end, or use MLPModule with your own Trainer.'
                )
            raise ValueError(
                f"{type(one).__name__}.{name} is never called: {reason} are made inside of training_step. {instead}"
            )
