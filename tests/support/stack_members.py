"""Groups of small runs, each trained alone by the step loop and all together by the stacked one.

Shapes: ``K`` members, ``B`` rows, ``F`` features, ``C`` outputs, ``S`` steps.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlp_lightning.config import (
    ConstantSchedule,
    CosineSchedule,
    InverseTimeSchedule,
    OneCycleSchedule,
    OptimizerConfig,
    PlateauSchedule,
    ScheduleConfig,
    StepSchedule,
)
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.dropout import DropoutMasks
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.loop import StackedLoop
from mlp_lightning.engines.stacked.network import StackedNetwork
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer, StackedSchedule
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.optimizers import build_optimizer, build_schedule
from mlp_lightning.networks.tasks import make_task
from support.tolerances import assert_close

ROWS, FEATURES = 40, 4
STACKED_ACTIVATIONS = [name for name, one in ACTIVATIONS.items() if one.written_out is not None]
# Name, options, learning rates, weight decays.
OPTIMIZERS: list[tuple[str, dict[str, Any], tuple[float, ...], tuple[float | None, ...]]] = [
    ("SGD", {}, (0.01, 0.03, 0.1), (None,)),
    ("SGD", {}, (0.01, 0.03, 0.1), (0.0, 0.01, 0.1)),
    ("SGD", {"momentum": 0.9}, (0.01, 0.02), (None,)),
    ("SGD", {"momentum": 0.9, "nesterov": True}, (0.01, 0.02), (0.0, 0.01)),
    ("SGD", {"momentum": 0.5, "dampening": 0.3}, (0.01, 0.1), (0.0, 0.01)),
    ("Adam", {}, (0.001, 0.003, 0.01), (None, 0.01)),
    ("Adam", {"amsgrad": True, "betas": [0.8, 0.99]}, (0.001, 0.01), (0.0, 0.1)),
    ("AdamW", {}, (0.001, 0.003, 0.01), (None, 0.0, 0.3)),
    ("AdamW", {"amsgrad": True}, (0.001, 0.01), (0.3,)),
    ("RMSprop", {}, (0.001, 0.003), (0.0, 0.01)),
    ("RMSprop", {"momentum": 0.5, "alpha": 0.9}, (0.001, 0.003), (None,)),
    ("Adagrad", {"lr_decay": 0.01}, (0.01, 0.1), (0.0, 0.01)),
    ("Adagrad", {"initial_accumulator_value": 0.1}, (0.01, 0.1), (None,)),
    ("NAdam", {}, (0.001, 0.003), (0.0, 0.01)),
    ("NAdam", {"decoupled_weight_decay": True}, (0.001, 0.01), (0.0, 0.3)),
    ("RAdam", {}, (0.001, 0.003, 0.01), (0.0, 0.01)),
    ("RAdam", {"decoupled_weight_decay": True}, (0.001, 0.01), (0.0, 0.3)),
    ("Adamax", {}, (0.001, 0.003, 0.01), (0.0, 0.01)),
    ("Adadelta", {}, (0.03, 0.3, 1.0), (0.0, 0.01)),
]
OPTIMIZER_NAMES = [f"{name}-{number}" for number, (name, *_) in enumerate(OPTIMIZERS)]
SCHEDULES: dict[str, ScheduleConfig] = {
    "none": ConstantSchedule(),
    "cosine": CosineSchedule(eta_min=0.0005),
    "one_cycle": OneCycleSchedule(),
    "one_cycle to one learning rate": OneCycleSchedule(max_lr=0.01, pct_start=0.5),
    "step": StepSchedule(step_size=7, gamma=0.8, interval="step"),
    "epoch": StepSchedule(step_size=2, gamma=0.7, interval="epoch"),
    "inverse_time": InverseTimeSchedule(decay_rate=0.3, power=0.7, interval="step"),
    "inverse_time of epochs": InverseTimeSchedule(decay_rate=90.0),
    "plateau": PlateauSchedule(monitor="loss/train", factor=0.5, patience=0, threshold=0.05),
    "plateau of validation": PlateauSchedule(monitor="loss/val", factor=0.5, patience=1, threshold=0.05, min_lr=0.0005),
}

OUTPUTS = {"binary": 1, "multiclass": 3, "multilabel": 3, "regression": 2}


def make_rows(task: str, seed: int = 0, count: int = ROWS, dtype: torch.dtype = torch.float32) -> Rows:
    """A table that can be learned in part: noise keeps the gradients away from zero."""
    draw = torch.Generator().manual_seed(seed)
    features_BF = torch.randn(count, FEATURES, generator=draw)
    scores_BC = features_BF @ torch.randn(FEATURES, OUTPUTS[task], generator=draw)
    scores_BC = scores_BC + torch.randn(scores_BC.shape, generator=draw)
    if task == "multiclass":
        return Rows(features_BF.to(dtype), scores_BC.argmax(1))
    return Rows(features_BF.to(dtype), ((scores_BC > 0) if task in ("binary", "multilabel") else scores_BC).to(dtype))


@dataclasses.dataclass(frozen=True)
class Member:
    """What may differ within a stack."""

    widths: tuple[int, ...] = (5,)
    lr: float = 0.1
    seed: int = 0
    weight_decay: float | None = None
    dropout: float = 0.0


@dataclasses.dataclass(frozen=True)
class Group:
    """What the members of a stack have in common; with ``own_rows`` each seed has another table."""

    members: Sequence[Member]
    optimizer: str = "SGD"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ConstantSchedule)
    activation: str = "tanh"
    task: str = "multiclass"
    bias: bool = True
    batch_size: int | None = None
    accumulate: int = 1
    own_rows: bool = False
    clip_val: float | None = None
    clip_algorithm: str = "norm"
    dtype: torch.dtype = torch.float32
    loop: type[StackedLoop] = StackedLoop

    @property
    def validates(self) -> bool:
        return isinstance(self.schedule, PlateauSchedule) and self.schedule.monitor == "loss/val"

    def steps_of(self, member: Member) -> TrainingSteps:
        rows = make_rows(self.task, member.seed if self.own_rows else 0, dtype=self.dtype)
        return TrainingSteps(rows, self.batch_size, self.accumulate, seed=member.seed)

    def optimizer_of(self, member: Member) -> OptimizerConfig:
        decay = {} if member.weight_decay is None else {"weight_decay": member.weight_decay}
        return OptimizerConfig(self.optimizer, member.lr, {**self.options, **decay})

    def network(self, member: Member) -> MLP:
        torch.manual_seed(member.seed)
        outputs = OUTPUTS[self.task]
        return MLP(FEATURES, outputs, member.widths, self.activation, member.dropout, bias=self.bias).to(self.dtype)

    def but(self, **changes: Any) -> Group:
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass
class Outcome:
    """The training of one member: figures of every step, and the weights at the end."""

    losses: Tensor
    metrics: Tensor
    learning_rates: Tensor
    weights: list[Tensor]


def parts_of(group: Group, count: int) -> list[tuple[int, int]]:
    """The steps as (first, count): epoch by epoch where there are validations between them."""
    if not group.validates:
        return [(0, count)]
    length = group.steps_of(group.members[0]).steps_per_epoch
    return [(first, min(length, count - first)) for first in range(0, count, length)]


def alone(group: Group, member: Member, count: int) -> Outcome:
    """One member alone."""
    network, task = group.network(member), make_task(group.task, OUTPUTS[group.task])
    optimizer = build_optimizer(network.parameters(), group.optimizer_of(member))
    schedule = build_schedule(optimizer, group.schedule, count, group.validates)
    clip = {"clip_val": group.clip_val, "clip_algorithm": group.clip_algorithm}
    loop = StepLoop(network, task, optimizer, schedule, 1, **clip, seed=member.seed)
    steps, validation, traces = group.steps_of(member), make_rows(group.task, 99, dtype=group.dtype), []
    for first, part in parts_of(group, count):
        traces.append(loop.run(Execution(steps, first, part)))
        if group.validates:
            network.eval()
            with torch.no_grad():
                loss = task.loss(network(validation.features_BF), validation.targets)
            network.train()
            assert schedule is not None
            schedule.scheduler.step(loss.item())  # type: ignore[arg-type]  # a plateau scheduler takes the loss
    logged = [one for trace in traces for one in trace.logged]
    return Outcome(
        torch.cat([one.losses_S() for one in traces]),
        torch.tensor([one.metric for one in logged]),
        torch.tensor([one.lr for one in logged], dtype=torch.float64),
        [one.detach() for one in network.parameters()],
    )


def stacked_loop(group: Group, count: int, as_networks: bool = False, **options: Any) -> StackedLoop:
    """The loop over all members; ``count`` is the length of the whole run.

    With ``as_networks``, they are differentiated by autograd.
    """
    members = group.members
    networks, rates = [group.network(one) for one in members], [one.dropout for one in members]
    model = StackedNetwork(networks, rates) if as_networks else StackedMLP.stack(networks, group.activation, rates)
    gradient_N = torch.zeros_like(model.flat_N.detach())
    configs = [group.optimizer_of(one) for one in members]
    optimizer = StackedOptimizer(model, gradient_N, configs, group.clip_val, group.clip_algorithm)
    schedule = StackedSchedule(group.schedule, [one.lr for one in members], count, group.validates)
    optimizer.set_learning_rates(schedule.learning_rates())
    dropout = None
    if any(one.dropout for one in members):
        dropout = DropoutMasks([one.seed for one in members], rates, model.widest_dropped, model.flat_N.detach())
    steps = StackedSteps([group.steps_of(one) for one in members], range(len(members)))
    task = make_task(group.task, OUTPUTS[group.task])
    return group.loop(model, task, steps, optimizer, schedule, dropout, **options)


def together(group: Group, count: int, loop: StackedLoop | None = None) -> list[Outcome]:
    """All members as one stack."""
    loop = stacked_loop(group, count) if loop is None else loop
    validation, traces = make_rows(group.task, 99, dtype=group.dtype), []
    for first, part in parts_of(group, count):
        traces.append(loop.run(first, part))
        if group.validates:
            with torch.no_grad():
                losses_K = loop.task.loss(loop.model(validation.features_BF), validation.targets)
            loop.step_on_validation(losses_K.tolist())
    losses_SK = torch.cat([one.losses_SK for one in traces])
    metrics_SK = torch.cat([one.logged_SK3[..., 1] for one in traces]).float()
    learning_rates_SK = torch.cat([one.logged_SK3[..., 2] for one in traces])
    return [
        Outcome(
            losses_SK[:, place],
            metrics_SK[:, place],
            learning_rates_SK[:, place],
            [one.detach().clone() for one in loop.model.parts(loop.model.flat_N, place)],
        )
        for place in range(len(group.members))
    ]


def assert_same_training(actual: Outcome, expected: Outcome, atol: float) -> None:
    """The same losses and rates at every step and the same final weights."""
    assert_close(actual.losses, expected.losses, atol)
    assert_close(actual.learning_rates, expected.learning_rates, 1e-12)
    for one, other in zip(actual.weights, expected.weights, strict=True):
        assert_close(one, other, atol)


def assert_each_as_alone(group: Group, count: int, atol: float) -> list[Outcome]:
    """Every member of the stack trains as it does alone."""
    outcomes = together(group, count)
    for outcome, member in zip(outcomes, group.members, strict=True):
        assert_same_training(outcome, alone(group, member, count), atol)
    return outcomes


def padding(model: StackedMLP, flat_N: Tensor) -> Tensor:
    """The numbers of a tensor laid out like the parameter that belong to no member."""
    belongs_N = torch.zeros_like(flat_N, dtype=torch.bool)
    for member in range(model.members):
        for part in model.parts(belongs_N, member):
            part.fill_(True)
    return flat_N[~belongs_N]


def some_members(
    draw: random.Random, count: int, depth: int, rates: Sequence[float], decays: Sequence[float | None] = (None,)
) -> list[Member]:
    """Members that differ in everything that may differ, but for dropout."""
    return [
        Member(
            tuple(draw.randint(1, 7) for _ in range(depth)), draw.choice(rates), draw.randrange(3), draw.choice(decays)
        )
        for _ in range(count)
    ]


def random_group(
    draw: random.Random,
    members: Sequence[Member],
    optimizer: str,
    options: Mapping[str, Any],
    batch_sizes: Sequence[int | None],
) -> Group:
    """These members with all other settings at random, in double precision."""
    return Group(
        members,
        optimizer,
        options,
        SCHEDULES[draw.choice(list(SCHEDULES))],
        activation=draw.choice(STACKED_ACTIVATIONS),
        task=draw.choice(list(OUTPUTS)),
        bias=draw.random() < 0.7,
        batch_size=draw.choice(batch_sizes),
        accumulate=draw.choice([1, 1, 2, 3]),
        own_rows=draw.random() < 0.5,
        clip_val=draw.choice([None, None, 0.05, 1.0]),
        clip_algorithm=draw.choice(["norm", "value"]),
        dtype=torch.float64,
    )
