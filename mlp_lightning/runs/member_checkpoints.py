"""The checkpoints of the members of a stack: what a run by itself would have saved at the same step."""

from __future__ import annotations

import functools
import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer
from mlp_lightning.runs.build import build_early_stopping, build_module, module_config
from mlp_lightning.runs.checkpoints import CONFIG_KEY, CheckpointKeeper, RandomState
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.stack_keeper import Best, Moment
from mlp_lightning.tables.randomness import derived_seed


def member_checkpoint(
    config: Config,
    data: TabularDataModule,
    model: StackedMLP,
    optimizer: StackedOptimizer,
    place: int,
    tensors: Mapping[str, Tensor],
    moment: Moment,
    member: int,
    monitor: str,
    best: Best,
    after_training: bool = False,
) -> dict[str, Any]:
    """The content of a checkpoint.

    Args:
        config: of the member.
        data: its rows.
        model: the stack.
        optimizer: of the stack.
        place: of the member in the stack as it is now.
        tensors: weights and the optimizer's state, laid out like the stack's parameter, on the CPU.
        moment: everything else, when they were so.
        member: number of the member.
        monitor: metric of the best checkpoint.
        best: the best so far at that moment.
        after_training: whether the Trainer had ended its last epoch then.
    """
    # Copies: a view would be saved with all the numbers of the whole stack.
    parts = {
        name: [one.clone(memory_format=torch.contiguous_format) for one in model.parts(flat_N, place)]
        for name, flat_N in tensors.items()
    }
    then = moment.places[member]
    alone, group = moment.schedules[then]
    names = parameter_names(model.depth, model.has_bias)
    weights = dict(zip(names, parts.pop("weights"), strict=True))
    state = {**moment.common, **parts}
    epoch = max(moment.step - 1, 0) // data.steps_per_epoch + after_training
    return {
        "epoch": epoch,
        "global_step": moment.step,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": OrderedDict(
            {
                **{f"preprocessor.{name}": one for name, one in data.preprocessor_state(model.flat_N.dtype).items()},
                **weights,
            }
        ),
        "callbacks": _callbacks(config, moment, then, epoch - after_training, monitor, best, model.flat_N.dtype),
        "optimizer_states": [optimizer.alone(place, state, group)],
        "lr_schedulers": [alone] if alone else [],
        "hparams_name": None,
        "hyper_parameters": module_config(config, data).to_dict(),
        CONFIG_KEY: config.to_dict(),
        "epoch_loss": moment.epoch_losses[then],
    }


def member_module(config: Config, data: TabularDataModule, model: StackedMLP, place: int, flat_N: Tensor) -> MLPModule:
    """The module of a member by itself, on the CPU.

    Args:
        config: of the member.
        data: its rows.
        model: the stack.
        place: of the member in the stack as it is now.
        flat_N: its weights, laid out like the stack's parameter.
    """
    module = build_module(config, data).to(flat_N.dtype)
    with torch.no_grad():
        for parameter, part in zip(module.mlp.parameters(), model.parts(flat_N, place), strict=True):
            parameter.copy_(part)
    return module


def parameter_names(depth: int, bias: bool) -> list[str]:
    """Names of the parameters of a module with ``depth`` hidden layers, in order."""
    layers = [*(f"mlp.layers.linear_{number}" for number in range(1, depth + 1)), "mlp.layers.output"]
    return [f"{layer}.{part}" for layer in layers for part in (("weight", "bias") if bias else ("weight",))]


def _callbacks(
    config: Config, moment: Moment, then: int, epoch: int, monitor: str, best: Best, dtype: torch.dtype
) -> dict[str, Any]:
    """The states of the callbacks that a run by itself has."""
    states: dict[str, Any] = {RandomState.__qualname__: _random_state(config.seed)}
    if moment.generators is not None:
        states[RandomState.__qualname__] = {**_random_state(config.seed), "torch": moment.generators[then]}
    stopping = build_early_stopping(config)
    if stopping is not None:
        stopping.wait_count, score, has_stopped = moment.stopping[then]
        stopping.best_score = torch.tensor(score, dtype=dtype)
        if has_stopped:
            stopping.stopped_epoch = epoch
            stopping.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED
            stopping.stopping_reason_message = (
                f"Monitored metric {stopping.monitor} did not improve in the last {stopping.wait_count} records."
                f" Best score: {score:.3f}. Signaling Trainer to stop."
            )
        states[stopping.state_key] = stopping.state_dict()
    states[CheckpointKeeper.__qualname__] = {"monitor": monitor, "best_value": best.value, "best_step": best.step}
    return states


@functools.lru_cache(maxsize=4096)
def _random_state(seed: int) -> dict[str, Any]:
    """The state of the generators as a run finds them: nothing but dropout draws from them."""
    own = derived_seed(seed, "training")
    version, numbers, gauss = random.Random(own).getstate()
    _, keys, position, has_gauss, cached = np.random.RandomState(own % 2**32).get_state(legacy=True)
    return {
        "torch": torch.Generator().manual_seed(own).get_state(),
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
    }
