"""Engines for the members of a training: networks with their initial weights, optimizers, schedules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

from mlp_lightning.data.training import TrainingDataModule
from mlp_lightning.engines.autograd.engine import AutogradEngine
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.choice import EngineChoice, Work
from mlp_lightning.engines.dropout import DropoutMasks
from mlp_lightning.engines.explicit.engine import ExplicitEngine
from mlp_lightning.engines.explicit.loop import ExplicitLoop
from mlp_lightning.engines.explicit.optimizer import FlatOptimizer
from mlp_lightning.engines.protocol import Engine
from mlp_lightning.engines.sizing import (
    compiled_steps_per_execution,
    compiled_threads,
    stack_steps_per_execution,
    stack_threads,
)
from mlp_lightning.engines.stacked.engine import StackedEngine
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.loop import StackedLoop
from mlp_lightning.engines.stacked.network import StackedNetwork
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer, StackedSchedule
from mlp_lightning.engines.stacked.stack import Stack
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.optimizers import build_optimizer, build_schedule
from mlp_lightning.networks.tasks import Task, make_task
from mlp_lightning.runs.build import (
    build_module,
    histogram_interval,
    label_smoothing,
    layer_widths,
    steps_per_execution,
    threads,
)
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.network import build_embedding
from mlp_lightning.runs.training_module import TrainingModule


class Sizing(NamedTuple):
    """What ``auto`` means for a training.

    Attributes:
        engine: which it is for.
        threads: of the CPU.
        steps_per_execution: most steps in one execution.
    """

    engine: str
    threads: int
    steps_per_execution: int


def work_of(members: Sequence[Member], steps: int, needs_module: bool = False) -> Work:
    """What the training of these members has to do.

    Args:
        members: of the training.
        steps: of each.
        needs_module: whether somebody looks at the module of a run alone while it trains.
    """
    widths = [max(one) for one in zip(*(layer_widths(one.config, one.data) for one in members), strict=True)]
    return Work(widths, max(one.data.training_steps.rows_per_step for one in members), steps, needs_module)


def sizing(choice: EngineChoice, members: Sequence[Member], work: Work) -> Sizing:
    """Threads and steps per execution of the training of these members: as asked, or by sizes."""
    first, count, rows = members[0], len(members), work.rows_per_step
    if not choice.is_stack:
        return Sizing(choice.name, threads(first.config, first.data), steps_per_execution(first.config, first.data))
    options = first.config.trainer
    if choice.name == "compiled":
        auto_threads = compiled_threads(count)
        auto_steps = compiled_steps_per_execution(count, work.layer_widths, rows)
    else:
        auto_threads = stack_threads(count, work.layer_widths, rows)
        auto_steps = stack_steps_per_execution(count, work.layer_widths, rows)
    return Sizing(
        choice.name,
        auto_threads if options.threads == "auto" else int(options.threads),
        auto_steps if options.steps_per_execution == "auto" else int(options.steps_per_execution),
    )


def autograd_model(member: Member) -> MLPModule:
    """The module of a single run, with its initial weights."""
    return build_module(member.config, member.data, member.own)


def load_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the model of a single run the weights of its module.

    Args:
        model: that an engine trains.
        weights: state dict of a :class:`MLPModule`.
    """
    if isinstance(model, Stack):
        with torch.no_grad():
            model.flat_N.copy_(model.flat_of_state(weights))
    else:
        model.load_state_dict(weights)


def stacked_model(members: Sequence[Member]) -> Stack:
    """The stack with each member's own initial weights."""
    data, model = members[0].data, members[0].config.model
    models = [one.config.model for one in members]
    embeds = build_embedding(model, data.in_features, data.preprocessor) is not None
    if embeds or model.norm != "none" or model.residual:
        mlps_of_members = [cast("MLP", autograd_model(one).mlp) for one in members]
        return StackedNetwork(mlps_of_members, [one.dropout for one in models])
    # Runs that differ in what does not touch the initial weights draw them once.
    equal: dict[tuple[Any, ...], list[int]] = {}
    for number, config in enumerate(one.config for one in members):
        equal.setdefault((tuple(config.model.layer_widths), config.model.init, config.seed), []).append(number)
    stacked = StackedMLP(
        data.in_features,
        data.out_features,
        [one.layer_widths for one in models],
        model.activation,
        [one.dropout for one in models],
        model.bias,
    )
    mlps: dict[tuple[Any, ...], MLP] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for (widths, init, seed), numbers in equal.items():
            # torch.manual_seed is that and notes a traceback for GPUs every time, which takes longer than the weights.
            torch.default_generator.manual_seed(seed)
            if (widths, init) in mlps:
                mlps[widths, init].draw_weights()
            else:
                sizes = data.in_features, data.out_features, widths
                mlps[widths, init] = MLP(*sizes, model.activation, bias=model.bias, init=init)
            weights = list(mlps[widths, init].parameters())
            for number in numbers:
                for view, weight in zip(stacked.parts(stacked.flat_N, number), weights, strict=True):
                    view.copy_(weight)
    return stacked


def engine_maker(
    name: str, members: Sequence[Member], task: Task, data: TrainingDataModule
) -> Callable[[TrainingModule], Engine]:
    """What makes the engine of a training once its model is on the device.

    Args:
        name: of the engine.
        members: of the training.
        task: of all of them.
        data: their rows.
    """

    def make(module: TrainingModule) -> Engine:
        if isinstance(module.model, Stack):
            return _stacked_engine(name, module, module.model, members, task, data)
        assert isinstance(module.model, MLPModule)
        return _engine_of_one(name, module, module.model, members[0], data.last_step)

    return make


def task_of(members: Sequence[Member]) -> Task:
    """What all members learn; targets are standardised for each by its own training rows."""
    targets = [one.data.target for one in members]
    out_features = members[0].data.out_features
    alone = [make_task(one.task, out_features, one.mean, one.scale) for one in targets]
    return type(alone[0]).stack(alone)


def _engine_of_one(
    name: str, training: TrainingModule, module: MLPModule, member: Member, last_step: int
) -> AutogradEngine:
    config, data = member.config, member.data
    is_explicit = name == "explicit"
    flat = FlatOptimizer(list(module.parameters()), config.optimizer) if is_explicit else None
    optimizer = flat.optimizer if flat else build_optimizer(module.parameters(), config.optimizer, member.own.optimizer)
    make_loop = StepLoop if flat is None else functools.partial(ExplicitLoop, flat=flat)
    loop = make_loop(
        module.mlp,
        module.task,
        optimizer,
        build_schedule(optimizer, config.scheduler, last_step, "val" in data.splits),
        config.trainer.log_every_n_steps,
        histogram_interval(config, last_step),
        config.trainer.gradient_clip_val,
        config.trainer.gradient_clip_algorithm,
        lambda: training.stop_requested,
        label_smoothing=label_smoothing(config, data),
        seed=config.seed,
    )
    forward = training.trainer.precision_plugin.forward_context
    if isinstance(loop, ExplicitLoop):
        return ExplicitEngine(module, loop, data.training_steps, data.rows_on_device, forward)
    return AutogradEngine(module, loop, data.training_steps, data.rows_on_device, forward)


def _stacked_engine(
    name: str,
    training: TrainingModule,
    model: Stack,
    members: Sequence[Member],
    task: Task,
    data: TrainingDataModule,
) -> StackedEngine:
    engine_class: type[StackedEngine] = StackedEngine
    loop_class: type[StackedLoop] = StackedLoop
    if name == "compiled":  # needs llvmlite, which some platforms do not have
        from mlp_lightning.engines.compiled.engine import CompiledEngine
        from mlp_lightning.engines.compiled.loop import CompiledLoop

        engine_class, loop_class = CompiledEngine, CompiledLoop

    configs = [one.config for one in members]
    first = configs[0]
    optimizers = [one.optimizer for one in configs]
    clip = (first.trainer.gradient_clip_val, first.trainer.gradient_clip_algorithm)
    optimizer = StackedOptimizer(model, torch.zeros_like(model.flat_N.detach()), optimizers, *clip)
    schedule = StackedSchedule(first.scheduler, [one.lr for one in optimizers], data.last_step, "val" in data.splits)
    optimizer.set_learning_rates(schedule.learning_rates())
    steps = data.stacked_training_steps()
    seeds = [one.seed for one in configs]
    dropout = None
    if any(model.dropout):
        dropout = DropoutMasks(seeds, model.dropout, model.widest_dropped, model.flat_N.detach())
    loop = loop_class(
        model,
        task,
        steps,
        optimizer,
        schedule,
        dropout,
        first.trainer.log_every_n_steps,
        lambda: training.stop_requested,
        [label_smoothing(one.config, one.data) for one in members],
    )
    preprocessors = [
        {f"preprocessor.{name}": one for name, one in member.data.preprocessor.state_dict().items()}
        for member in members
    ]
    return engine_class(loop, data.stacked_rows, preprocessors, seeds)
