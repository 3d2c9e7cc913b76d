"""Updates and learning rates of a stack against torch's optimizers and schedulers, one for each member."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from support.stack_members import FEATURES
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

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
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.optimizer import StackedOptimizer, StackedSchedule
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.optimizers import build_optimizer, build_schedule

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

WIDTHS = [[4, 2], [2, 5], [3, 3]]
LEARNING_RATES = [0.1, 0.01, 0.03]
EXACT = 1e-12
# Name, options of all, weight decay of each: every way in which a state or a decay is kept.
CASES: list[tuple[str, dict[str, Any], list[float] | None]] = [
    ("SGD", {}, None),
    ("SGD", {"momentum": 0.9}, [0.0, 0.1, 0.3]),
    ("Adam", {"amsgrad": True}, [0.0, 0.1, 0.3]),
    ("AdamW", {}, None),
    ("AdamW", {}, [0.0, 0.1, 0.3]),
    ("RMSprop", {"momentum": 0.5}, None),
    ("Adagrad", {"initial_accumulator_value": 0.1, "lr_decay": 0.1}, [0.1, 0.0, 0.0]),
    ("NAdam", {}, [0.0, 0.1, 0.3]),
    ("RAdam", {"decoupled_weight_decay": True}, [0.0, 0.1, 0.3]),
    ("Adamax", {}, None),
    ("Adadelta", {}, None),
]
SCHEDULES: list[ScheduleConfig] = [
    ConstantSchedule(),
    CosineSchedule(eta_min=0.001),
    OneCycleSchedule(),
    OneCycleSchedule(max_lr=0.2, pct_start=0.5, div_factor=5.0),
    StepSchedule(step_size=3, gamma=0.5, interval="step"),
    StepSchedule(step_size=2, gamma=0.5, interval="epoch"),
    InverseTimeSchedule(decay_rate=0.5, interval="step"),
    InverseTimeSchedule(decay_rate=40.0, power=1.5),
    PlateauSchedule(monitor="loss/train", patience=1, factor=0.5),
    PlateauSchedule(monitor="loss/val", patience=0, factor=0.5, min_lr=0.004),
]


def configs(name: str, options: Mapping[str, Any], decays: Sequence[float] | None) -> list[OptimizerConfig]:
    return [
        OptimizerConfig(name, learning_rate, {**options, **({} if decays is None else {"weight_decay": decays[slot]})})
        for slot, learning_rate in enumerate(LEARNING_RATES)
    ]


class Pair:
    """A stack with its optimizer, and each member alone with its optimizer; both get the same gradients."""

    def __init__(self, of_members: Sequence[OptimizerConfig], clip: tuple[float | None, str] = (None, "norm")) -> None:
        torch.manual_seed(1)
        self.alone = [MLP(FEATURES, 3, one, "tanh").double() for one in WIDTHS]
        self.own = [build_optimizer(m.parameters(), c) for m, c in zip(self.alone, of_members, strict=True)]
        self.members = list(range(len(WIDTHS)))
        self.model = StackedMLP.stack(self.alone, "tanh")
        self.gradient_N = torch.zeros_like(self.model.flat_N.detach())
        self.clip = clip
        self.stacked = StackedOptimizer(self.model, self.gradient_N, of_members, *clip)

    def step(self, size: float = 1.0) -> None:
        """One update of all by random gradients."""
        factor = self.stacked.loss_factor_K11
        self.gradient_N.zero_()
        for slot, member in enumerate(self.members):
            parameters = list(self.alone[member].parameters())
            for part, parameter in zip(self.model.parts(self.gradient_N, slot), parameters, strict=True):
                parameter.grad = size * torch.randn_like(parameter)
                part.copy_(parameter.grad if factor is None else parameter.grad * factor.flatten()[slot])
            limit, algorithm = self.clip
            if limit is not None:
                (clip_grad_norm_ if algorithm == "norm" else clip_grad_value_)(parameters, limit)
            self.own[member].step()
        self.stacked.step()

    def check(self) -> None:
        for slot, member in enumerate(self.members):
            parts = self.model.parts(self.model.flat_N, slot)
            for part, parameter in zip(parts, self.alone[member].parameters(), strict=True):
                assert_close(part, parameter, EXACT)

    def keep(self, slots: Sequence[int]) -> None:
        chosen = self.model.select(slots)
        self.gradient_N = torch.zeros_like(chosen.flat_N.detach())
        self.stacked.select(slots, chosen, self.gradient_N)
        self.model, self.members = chosen, [self.members[one] for one in slots]

    def state_alone(self, slot: int, group: Mapping[str, Any]) -> dict[str, Any]:
        parts = {
            key: [one.clone() for one in self.model.parts(state_N, slot)]
            for key, state_N in self.stacked.state_tensors().items()
        }
        return self.stacked.alone(slot, {**self.stacked.common_state(), **parts}, dict(group))


def assert_same_content(actual: Any, expected: Any) -> None:
    """Nested dicts and lists of the same structure with the same numbers."""
    if isinstance(expected, Mapping):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same_content(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(actual) is type(expected)
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same_content(one, other)
    elif isinstance(expected, Tensor):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        assert_close(actual, expected, EXACT)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-12)
    else:
        assert actual == expected


# ---- updates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_updates_are_those_of_each_optimizer_alone(case: Any) -> None:
    pair = Pair(configs(*case))
    for _ in range(20):
        pair.step()
        pair.check()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_new_learning_rates_apply_from_the_next_update_on(case: Any) -> None:
    pair = Pair(configs(*case))
    for step in range(12):
        learning_rates = [learning_rate * 0.7**step for learning_rate in LEARNING_RATES]
        pair.stacked.set_learning_rates(learning_rates)
        for optimizer, learning_rate in zip(pair.own, learning_rates, strict=True):
            optimizer.param_groups[0]["lr"] = learning_rate
        pair.step()
    pair.check()
    assert_close(pair.stacked.learning_rates, torch.tensor(learning_rates, dtype=torch.float64), EXACT)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kept_members_continue_as_if_alone(case: Any) -> None:
    pair = Pair(configs(*case))
    for slots in ([2, 0], [1]):
        for _ in range(5):
            pair.step()
        pair.keep(slots)
        for _ in range(5):
            pair.step()
        pair.check()
    assert pair.members == [0]


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("limit", "algorithm"), [(0.5, "norm"), (3.0, "norm"), (0.1, "value")])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_each_gradient_is_clipped_separately(name: str, limit: float, algorithm: str, size: float) -> None:
    pair = Pair(configs(name, {}, [0.0, 0.1, 0.3]), (limit, algorithm))
    for _ in range(5):
        pair.step(size)
    pair.check()


def test_a_large_gradient_of_one_member_does_not_shrink_the_others() -> None:
    pair = Pair(configs("SGD", {}, None), (1.0, "norm"))
    before = [one.detach().clone() for one in pair.model.parts(pair.model.flat_N, 0)]
    pair.gradient_N.zero_()
    for part in pair.model.parts(pair.gradient_N, 0):
        part.fill_(1e-3)
    for part in pair.model.parts(pair.gradient_N, 1):
        part.fill_(float("inf"))
    pair.stacked.step()
    for part, old in zip(pair.model.parts(pair.model.flat_N, 0), before, strict=True):
        assert_close(part, old - LEARNING_RATES[0] * 1e-3, EXACT)


@pytest.mark.parametrize(
    ("options", "clip", "expected"),
    [
        ({}, None, True),
        ({"momentum": 0.0, "weight_decay": 0.0}, None, True),
        ({"momentum": 0.9}, None, False),
        ({"weight_decay": 0.1}, None, False),
        ({}, 1.0, False),
    ],
)
def test_only_a_plain_gradient_step_is_made_by_scaling_the_loss(
    options: Any, clip: float | None, expected: bool
) -> None:
    pair = Pair(configs("SGD", options, None), (clip, "norm"))
    assert pair.stacked.scales_loss is expected
    assert not Pair(configs("Adam", {}, None)).stacked.scales_loss


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_state_of_one_member_is_that_of_its_optimizer_alone(case: Any) -> None:
    pair = Pair(configs(*case))
    assert_same_content(pair.state_alone(1, {}), initial_state(pair.own[1], case[0]))
    for _ in range(3):
        pair.step()
    for slot, member in enumerate(pair.members):
        assert_same_content(pair.state_alone(slot, {}), pair.own[member].state_dict())
    pair.keep([2, 1])
    pair.step()
    for slot, member in enumerate(pair.members):
        assert_same_content(pair.state_alone(slot, {}), pair.own[member].state_dict())


def initial_state(optimizer: torch.optim.Optimizer, name: str) -> dict[str, Any]:
    assert bool(optimizer.state_dict()["state"]) is (name == "Adagrad")
    return optimizer.state_dict()


def test_the_state_taken_out_is_a_copy() -> None:
    pair = Pair(configs("Adam", {}, None))
    pair.step()
    taken = pair.state_alone(0, {})
    before = copy.deepcopy(taken)
    pair.step()
    assert_same_content(taken, before)


# ---- learning rates ----------------------------------------------------------------------------------------


def schedule_alone(config: ScheduleConfig, learning_rate: float, steps: int) -> Any:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=learning_rate)
    schedule = build_schedule(optimizer, config, steps, has_validation=True)
    optimizer.step()
    return optimizer, schedule


@pytest.mark.parametrize(
    "learning_rates", [LEARNING_RATES, [0.1, 0.01], [0.1, 0.1, 0.01], [0.1], [0.03, 0.01, 0.1, 0.3]], ids=str
)
@pytest.mark.parametrize("config", SCHEDULES, ids=lambda one: f"{one.name}")
def test_learning_rates_and_states_are_those_of_each_scheduler_alone(
    config: ScheduleConfig, learning_rates: list[float]
) -> None:
    stacked = StackedSchedule(config, learning_rates, 12, has_validation=True)
    each = [schedule_alone(config, learning_rate, 12) for learning_rate in learning_rates]
    assert stacked.moment == (None if each[0][1] is None else each[0][1].moment)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        assert_close(stacked.learning_rates(), [one.param_groups[0]["lr"] for one, _ in each], EXACT)
        for (alone, group), (optimizer, schedule) in zip(stacked.state(), each, strict=True):
            assert_same_content(alone, {} if schedule is None else schedule.scheduler.state_dict())
            own = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
            assert_same_content(group, own)
        losses = torch.rand(len(learning_rates), generator=generator).tolist()
        if isinstance(config, PlateauSchedule):
            stacked.step_on(losses, [True] * len(learning_rates))
            for (_, schedule), loss in zip(each, losses, strict=True):
                schedule.scheduler.step(loss)
        elif stacked.moment is not None:
            stacked.step()
            for _, schedule in each:
                schedule.scheduler.step()
    assert_close(stacked.learning_rates(), [one.param_groups[0]["lr"] for one, _ in each], EXACT)


@pytest.mark.parametrize("config", SCHEDULES, ids=lambda one: f"{one.name}")
def test_members_that_are_kept_keep_their_learning_rates(config: ScheduleConfig) -> None:
    def advanced(schedule: StackedSchedule, count: int, of: Sequence[int]) -> None:
        for step in range(count):
            if isinstance(config, PlateauSchedule):
                schedule.step_on([float((member + step) % 3) for member in of], [True] * len(of))
            elif schedule.moment is not None:
                schedule.step()

    whole, some = (StackedSchedule(config, LEARNING_RATES, 12, has_validation=True) for _ in range(2))
    advanced(whole, 9, [0, 1, 2])
    advanced(some, 4, [0, 1, 2])
    # Plateaus follow losses that depend on the member and the step: continue at the step of the others.
    some.select([2, 0])
    for step in range(4, 9):
        if isinstance(config, PlateauSchedule):
            some.step_on([float((member + step) % 3) for member in (2, 0)], [True, True])
        elif some.moment is not None:
            some.step()
    assert some.learning_rates() == [whole.learning_rates()[2], whole.learning_rates()[0]]
    assert_same_content([one for one, _ in some.state()], [whole.state()[2][0], whole.state()[0][0]])


def test_a_plateau_counts_only_for_members_that_are_active() -> None:
    config = PlateauSchedule(monitor="loss/train", patience=0, factor=0.5)
    schedule = StackedSchedule(config, LEARNING_RATES, 12, has_validation=False)
    assert schedule.moment == "epoch_loss"
    for _ in range(3):
        schedule.step_on([1.0, 1.0, float("nan")], [True, False, False])
    assert_close(schedule.learning_rates(), [LEARNING_RATES[0] / 4, LEARNING_RATES[1], LEARNING_RATES[2]], EXACT)


def test_learning_rates_are_logged_in_double_precision() -> None:
    pair = Pair(configs("SGD", {}, None))
    assert pair.stacked.learning_rates.dtype == torch.float64
    assert_same_bits(pair.stacked.learning_rates, torch.tensor(LEARNING_RATES, dtype=torch.float64))
