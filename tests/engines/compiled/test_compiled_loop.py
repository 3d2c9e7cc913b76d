"""Members of a compiled stack train as each of them trains alone, and as in a stack that is not compiled."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
import torch
from support.stack_members import (
    OPTIMIZER_NAMES,
    OPTIMIZERS,
    SCHEDULES,
    STACKED_ACTIVATIONS,
    Group,
    Member,
    alone,
    assert_each_as_alone,
    assert_same_training,
    padding,
    random_group,
    some_members,
    stacked_loop,
    together,
)
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.engines.compiled.loop import CompiledLoop
from mlp_lightning.engines.compiled.updates import RULES

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT32, FLOAT64 = 1e-5, 1e-9
COMPILED = [number for number, (name, *_) in enumerate(OPTIMIZERS) if name in RULES]
IDS = [OPTIMIZER_NAMES[number] for number in COMPILED]
MEMBERS = [Member((5,), 0.1), Member((2,), 0.03, seed=1), Member((7,), 0.05, seed=1), Member((5,), 0.02)]
# More than there are lanes.
MANY = [Member((3 + number % 5,), 0.01 * (number + 1), seed=number % 3) for number in range(19)]


@pytest.mark.parametrize("number", COMPILED, ids=IDS)
def test_losses_and_weights_after_300_steps(number: int) -> None:
    name, options, learning_rates, decays = OPTIMIZERS[number]
    draw = random.Random(number)
    activation = draw.choice(["tanh", "sigmoid", "silu"])
    members = some_members(draw, 3, 2, learning_rates, decays)
    group = Group(members, name, options, activation=activation, batch_size=16, loop=CompiledLoop)
    assert_each_as_alone(group, 300, FLOAT32)
    assert_each_as_alone(group.but(dtype=torch.float64), 300, FLOAT64)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("number", COMPILED[::3], ids=IDS[::3])
def test_every_schedule(number: int, schedule: str) -> None:
    name, options, learning_rates, decays = OPTIMIZERS[number]
    members = some_members(random.Random(number), 3, 1, learning_rates, decays)
    batch_size = 16 if (number + list(SCHEDULES).index(schedule)) % 2 else None
    group = Group(members, name, options, SCHEDULES[schedule], batch_size=batch_size, dtype=torch.float64)
    outcomes = assert_each_as_alone(group.but(loop=CompiledLoop), 16, FLOAT64)
    if schedule != "none":
        assert len(set(outcomes[0].learning_rates.tolist())) > 1


@pytest.mark.parametrize("seed", range(40))
def test_random_groups(seed: int) -> None:
    draw = random.Random(seed)
    name, options, learning_rates, decays = OPTIMIZERS[draw.choice(COMPILED)]
    members = some_members(draw, draw.randint(1, 11), draw.choice([0, 1, 1, 2, 3]), learning_rates, decays)
    group = random_group(draw, members, name, options, [None, 40, 16, 7, 3, 1]).but(loop=CompiledLoop)
    assert_each_as_alone(group, 30, FLOAT64)


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_val": 0.05},
        {"clip_val": 0.01, "clip_algorithm": "value"},
        {"accumulate": 2},
        {"own_rows": True},
        {"own_rows": True, "batch_size": None},
        {"bias": False},
        {"task": "binary"},
        {"task": "regression", "own_rows": True, "batch_size": None},
        {"members": [Member((), 0.1), Member((), 0.03, seed=1)]},
        {"members": MEMBERS[1:2]},
        {"members": MANY},
        {"members": MANY, "batch_size": None, "activation": "sigmoid"},
        {"members": [Member((33, 40), 0.01), Member((37, 17), 0.02)]},
        *({"activation": one} for one in STACKED_ACTIVATIONS),
    ],
    ids=str,
)
def test_each_option_alone(changes: dict[str, Any]) -> None:
    group = Group(MEMBERS, batch_size=16, loop=CompiledLoop).but(**changes)
    outcomes = assert_each_as_alone(group, 100, FLOAT32)
    assert_close(outcomes[-1].metrics, alone(group, group.members[-1], 100).metrics, FLOAT32)


DROPPING = [
    Member((5, 6), 0.1, dropout=0.3),
    Member((2, 1), 0.03, seed=1),
    Member((7, 3), 0.05, seed=1, dropout=0.6),
    Member((5, 6), 0.02, dropout=0.1),
]


@pytest.mark.parametrize("batch_size", [None, 16, 3])
@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
def test_dropout(activation: str, batch_size: int | None) -> None:
    """The masks of each member alone, with activations that keep their input and others."""
    group = Group(DROPPING, "Adam", activation=activation, batch_size=batch_size, loop=CompiledLoop)
    assert_each_as_alone(group.but(dtype=torch.float64), 60, FLOAT64)


@pytest.mark.parametrize("number", COMPILED[::2], ids=IDS[::2])
def test_dropout_after_300_steps(number: int) -> None:
    name, options, learning_rates, decays = OPTIMIZERS[number]
    draw = random.Random(number)
    members = some_members(draw, 3, 2, learning_rates, decays)
    members = [dataclasses.replace(one, dropout=draw.choice([0.05, 0.2, 0.5])) for one in members]
    group = Group(members, name, options, activation="silu", batch_size=16, loop=CompiledLoop)
    assert_each_as_alone(group, 300, FLOAT32)
    assert_each_as_alone(group.but(dtype=torch.float64), 300, FLOAT64)


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"own_rows": True},
        {"own_rows": True, "batch_size": None},
        {"bias": False, "clip_val": 0.05},
        {"members": [Member((9,), 0.1, seed=4, dropout=0.9)]},
        {"members": [Member((), 0.1), Member((), 0.03, seed=1)]},
        {"members": [dataclasses.replace(one, dropout=0.05 * (n % 4)) for n, one in enumerate(MANY)]},
        {"members": [Member((33, 40, 5), 0.01, dropout=0.2), Member((37, 17, 8), 0.02, dropout=0.2)]},
        {"members": [Member((4,) * 6, 0.01, dropout=1e-9), Member((4,) * 6, 0.02, dropout=1 - 1e-9)]},
    ],
    ids=str,
)
def test_dropout_with_each_option(changes: dict[str, Any]) -> None:
    group = Group(DROPPING, batch_size=16, dtype=torch.float64, loop=CompiledLoop).but(**changes)
    assert_each_as_alone(group, 50, FLOAT64)


def test_with_dropout_a_member_has_the_same_bits_in_any_company_and_any_cut() -> None:
    members = [dataclasses.replace(one, dropout=0.1 * (number % 3)) for number, one in enumerate(MANY)]
    group = Group(members, "Adam", batch_size=16, loop=CompiledLoop)
    everyone = together(group, 40)
    for order in ([3, 1, 0, 2], [18, 2, 0], [4]):
        few = group.but(members=[members[one] for one in order])
        for outcome, one in zip(together(few, 40), order, strict=True):
            assert_same_bits(outcome.losses, everyone[one].losses)
    loop = stacked_loop(group, 40)
    cut = torch.cat([loop.run(first, count).losses_SK for first, count in ((0, 13), (13, 1), (14, 26))])
    for number, outcome in enumerate(everyone):
        assert_same_bits(cut[:, number], outcome.losses)


def test_a_diverged_member_does_not_affect_the_others_with_dropout() -> None:
    good = Group(DROPPING, batch_size=16, activation="relu", task="regression", loop=CompiledLoop)
    outcomes = together(good.but(members=[Member((3, 4), float("inf"), dropout=0.5), *DROPPING]), 60)
    assert not outcomes[0].losses.isfinite().all()
    for outcome, expected in zip(outcomes[1:], together(good, 60), strict=True):
        assert_same_bits(outcome.losses, expected.losses)


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_smoothed_labels_of_some_members(task: str, smoothing: float) -> None:
    found = []
    for loop_class in (None, CompiledLoop):
        group = Group(MEMBERS, task=task, batch_size=16, dtype=torch.float64)
        group = group if loop_class is None else group.but(loop=loop_class)
        loop = stacked_loop(group, 50, label_smoothing=[0.0, smoothing, 0.0, smoothing / 2])
        found.append(together(group, 50, loop))
    for one, other in zip(*found, strict=True):
        assert_same_training(one, other, FLOAT64)


@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
@pytest.mark.parametrize("number", COMPILED[::4], ids=IDS[::4])
def test_padding_never_learns(number: int, activation: str) -> None:
    name, options, learning_rates, _ = OPTIMIZERS[number]
    members = [Member((6, 1), learning_rates[0], weight_decay=0.1), Member((2, 5), learning_rates[-1], 1)]
    group = Group(members, name, options, activation=activation, batch_size=16, loop=CompiledLoop)
    loop = stacked_loop(group, 6)
    loop.run(0, 6)
    assert not padding(loop.model, loop.model.flat_N).any()


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("own_rows", [False, True])
def test_a_member_has_the_same_bits_in_any_company(batch_size: int | None, own_rows: bool) -> None:
    """Whatever lane it is in, and however many threads there are."""
    group = Group(MANY, "Adam", batch_size=batch_size, own_rows=own_rows, loop=CompiledLoop)
    everyone = together(group, 40)
    for order in ([3, 1, 0, 2], [18, 2, 0], list(range(18, -1, -1))):
        some = together(group.but(members=[MANY[one] for one in order]), 40)
        for outcome, one in zip(some, order, strict=True):
            assert_same_bits(outcome.losses, everyone[one].losses)
            for weight, other in zip(outcome.weights, everyone[one].weights, strict=True):
                assert_same_bits(weight, other)
    torch.set_num_threads(2)
    for outcome, other in zip(together(group, 40), everyone, strict=True):
        assert_same_bits(outcome.losses, other.losses)


def test_a_diverged_member_does_not_affect_the_others() -> None:
    good = Group(MEMBERS, batch_size=16, clip_val=1.0, activation="relu", task="regression", loop=CompiledLoop)
    mixed = good.but(members=[Member((3,), 1e30), *MEMBERS, Member((9,), float("inf"))])
    outcomes = together(mixed, 100)
    assert not outcomes[0].losses.isfinite().all()
    assert not outcomes[-1].losses.isfinite().all()
    for outcome, expected in zip(outcomes[1:-1], together(good, 100), strict=True):
        assert_same_bits(outcome.losses, expected.losses)


@pytest.mark.parametrize("schedule", ["none", "epoch", "plateau", "one_cycle"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_any_cut_into_executions_gives_the_same_bits(batch_size: int | None, schedule: str) -> None:
    group = Group(MEMBERS, "Adam", schedule=SCHEDULES[schedule], batch_size=batch_size, loop=CompiledLoop)
    found = []
    for cuts in ([31], [13, 1, 17], [1] * 31):
        loop, first, losses = stacked_loop(group, 31), 0, []
        for count in cuts:
            losses.append(loop.run(first, count).losses_SK)
            first += count
        found.append((torch.cat(losses), loop.model.flat_N.detach().clone()))
    for losses_SK, flat_N in found[1:]:
        assert_same_bits(losses_SK, found[0][0])
        assert_same_bits(flat_N, found[0][1])


def test_members_that_are_left_out_change_no_bit_of_the_others() -> None:
    members = [dataclasses.replace(one, dropout=0.3 * (number % 3 == 0)) for number, one in enumerate(MANY)]
    group = Group(members, "RMSprop", batch_size=16, loop=CompiledLoop)
    whole, part = stacked_loop(group, 40), stacked_loop(group, 40)
    whole.run(0, 40)
    part.run(0, 20)
    kept = [17, 4, 0, 11]
    chosen = part.model.select(kept)
    part = part.select(kept, chosen)
    part.run(20, 20)
    for place, member in enumerate(kept):
        pairs = zip(
            part.model.parts(part.model.flat_N, place), whole.model.parts(whole.model.flat_N, member), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)
