"""Members of a stack train as each of them trains alone.

Where rounding is compared, settings matter. Two orders of the same float32 sums differ by 1e-7, and some trainings
magnify this with any implementation: full batches with RMSprop or Adam walk along the bottom of a valley in steps of
the size of the learning rate, and momentum near the edge of stability does the same. There even double precision, which
starts 1e-16 apart, ends 1e-3 apart. Mini-batches of rows with noise and moderate learning rates do not.
"""

from __future__ import annotations

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
    Outcome,
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

from mlp_lightning.config import PlateauSchedule
from mlp_lightning.config.names import STACKABLE_OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

# The requirement: losses and weights after 300 steps. In double precision nothing but the algorithm can differ.
FLOAT32, FLOAT64 = 1e-5, 1e-9


def test_every_optimizer_that_may_be_stacked_is_tried() -> None:
    assert {name for name, *_ in OPTIMIZERS} == set(STACKABLE_OPTIMIZERS)


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)), ids=OPTIMIZER_NAMES)
def test_losses_and_weights_after_300_steps(number: int) -> None:
    name, options, learning_rates, decays = OPTIMIZERS[number]
    draw = random.Random(number)
    activation = draw.choice(["tanh", "sigmoid", "silu"])
    # The last batch of an epoch has 8 rows.
    group = Group(some_members(draw, 3, 2, learning_rates, decays), name, options, activation=activation, batch_size=16)
    assert_each_as_alone(group, 300, FLOAT32)
    assert_each_as_alone(group.but(dtype=torch.float64), 60, FLOAT64)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("number", range(len(OPTIMIZERS)), ids=OPTIMIZER_NAMES)
def test_every_schedule_of_every_optimizer(number: int, schedule: str) -> None:
    name, options, learning_rates, decays = OPTIMIZERS[number]
    draw = random.Random(number)
    members = some_members(draw, 3, 1, learning_rates, decays)
    batch_size = 16 if (number + list(SCHEDULES).index(schedule)) % 2 else None
    group = Group(members, name, options, SCHEDULES[schedule], batch_size=batch_size, dtype=torch.float64)
    outcomes = assert_each_as_alone(group, 16, FLOAT64)
    if schedule != "none":
        assert len(set(outcomes[0].learning_rates.tolist())) > 1


@pytest.mark.parametrize("seed", range(30))
def test_random_groups(seed: int) -> None:
    """All settings at random: tasks, depths, batches, clipping, dropout, rows."""
    draw = random.Random(seed)
    name, options, learning_rates, decays = draw.choice(OPTIMIZERS)
    depth = draw.choice([0, 1, 1, 2, 3])
    members = some_members(draw, draw.randint(1, 5), depth, learning_rates, decays)
    if depth and draw.random() < 0.4:
        members = [Member(m.widths, m.lr, m.seed, m.weight_decay, draw.choice([0.0, 0.2, 0.5])) for m in members]
    group = random_group(draw, members, name, options, [None, 40, 16, 7])
    assert_each_as_alone(group, 30, FLOAT64)


SGD_MEMBERS = [Member((5,), 0.1), Member((2,), 0.03, seed=1), Member((7,), 0.05, seed=1), Member((5,), 0.02)]
DROPPING = [
    Member((5, 3), 0.1, dropout=0.3),
    Member((2, 6), 0.03, seed=1),
    Member((5, 3), 0.05, dropout=0.3),  # the first one's masks
    Member((5, 3), 0.05, dropout=0.6),
    Member((5, 3), 0.05, seed=2, dropout=0.3),
]


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
        {"task": "regression"},
        {"task": "regression", "own_rows": True, "batch_size": None},
        {"members": [Member((), 0.1), Member((), 0.03, seed=1)]},
        {"members": [Member((4, 2, 5), 0.1), Member((1, 6, 2), 0.03, seed=1)]},
        {"members": SGD_MEMBERS[1:2]},
        {"members": DROPPING},
        {"members": DROPPING, "batch_size": None},
        {"members": DROPPING, "accumulate": 3, "batch_size": 7},
        {"members": DROPPING, "optimizer": "Adamax", "options": {"weight_decay": 0.01}},
        *({"activation": one} for one in STACKED_ACTIVATIONS),
    ],
    ids=str,
)
def test_each_option_alone(changes: dict[str, Any]) -> None:
    group = Group(SGD_MEMBERS, batch_size=16).but(**changes)
    outcomes = assert_each_as_alone(group, 100, FLOAT32)
    metrics = alone(group, group.members[-1], 100).metrics
    assert_close(outcomes[-1].metrics, metrics, FLOAT32)


@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
@pytest.mark.parametrize("number", range(len(OPTIMIZERS)), ids=OPTIMIZER_NAMES)
def test_padding_never_learns(number: int, activation: str) -> None:
    name, options, learning_rates, _ = OPTIMIZERS[number]
    members = [
        Member((6, 1), learning_rates[0], weight_decay=0.1),
        Member((2, 5), learning_rates[-1], 1, weight_decay=0.0),
    ]
    if number % 2:
        members = [Member(one.widths, one.lr, one.seed, one.weight_decay, dropout=0.2) for one in members]
    loop = stacked_loop(Group(members, name, options, activation=activation, batch_size=16), 6)
    before = loop.model.flat_N.detach().clone()
    loop.run(0, 6)
    assert not padding(loop.model, loop.model.flat_N).any()
    assert (loop.model.flat_N != before).any()
    for key, state_N in loop.optimizer.state_tensors().items():
        # Adagrad's sum starts above zero, Adamax's largest gradient has its eps added.
        if not (key == "sum" and options) and key != "exp_inf":
            assert not padding(loop.model, state_N).any(), key


# ---- other members -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "Adagrad", "own_rows": True},
        {"members": DROPPING},
        {"schedule": SCHEDULES["plateau"]},
        {"activation": "sigmoid", "batch_size": None, "clip_val": 0.05},
    ],
    ids=str,
)
def test_a_member_does_not_depend_on_the_others(changes: dict[str, Any]) -> None:
    group = Group(SGD_MEMBERS, batch_size=16).but(**changes)
    members = list(group.members)
    everyone = together(group, 100)
    wider = Member(tuple(20 for _ in members[0].widths), 0.01, seed=5)
    for order in ([3, 1, 0, 2], [2, 2, 0], [1], [0]):
        for company in ([], [wider]):
            some = together(group.but(members=[*company, *(members[one] for one in order)]), 100)
            for outcome, one in zip(some[len(company) :], order, strict=True):
                assert_same_training(outcome, everyone[one], FLOAT32)


def test_a_diverged_member_does_not_affect_the_others() -> None:
    good = Group(SGD_MEMBERS, batch_size=16, clip_val=1.0, activation="relu", task="regression")
    bad = [Member((3,), 1e30), Member((9,), float("inf"))]
    mixed = good.but(members=[bad[0], *SGD_MEMBERS, bad[1]])
    outcomes = together(mixed, 100)
    assert not outcomes[0].losses.isfinite().all()
    assert not outcomes[-1].losses.isfinite().all()
    for outcome, expected in zip(outcomes[1:-1], together(good, 100), strict=True):
        assert_same_training(outcome, expected, FLOAT32)


# ---- executions --------------------------------------------------------------------------------------------


def outcome_of(group: Group, cuts: list[int], **options: Any) -> tuple[list[Any], Outcome]:
    loop, first, traces = stacked_loop(group, sum(cuts), **options), 0, []
    for count in cuts:
        traces.append(loop.run(first, count))
        first += count
    flat = [loop.model.flat_N.detach().clone()]
    losses = torch.cat([one.losses_SK for one in traces])
    return traces, Outcome(losses, torch.cat([t.logged_SK3[..., 1] for t in traces]), torch.empty(0), flat)


@pytest.mark.parametrize("schedule", ["none", "epoch", "plateau", "one_cycle"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_any_cut_into_executions_gives_the_same_bits(batch_size: int | None, schedule: str) -> None:
    group = Group(DROPPING, schedule=SCHEDULES[schedule], batch_size=batch_size, optimizer="Adam")
    _, whole = outcome_of(group, [31])
    for cuts in ([13, 1, 17], [1] * 31):
        _, parts = outcome_of(group, cuts)
        assert_same_bits(parts.losses, whole.losses)
        assert_same_bits(parts.weights[0], whole.weights[0])


def test_few_logits_are_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(SGD_MEMBERS, batch_size=16)
    traces, whole = outcome_of(group, [25], log_interval=4)
    for numbers in (1, 500):
        monkeypatch.setattr("mlp_lightning.engines.stacked.loop._KEPT_NUMBERS", numbers)
        other_traces, other = outcome_of(group, [25], log_interval=4)
        assert_same_bits(other.losses, whole.losses)
        assert_same_bits(other.metrics, whole.metrics)
        assert other_traces[0].logged_steps == traces[0].logged_steps


@pytest.mark.parametrize("batch_size", [None, 16])
def test_logged_steps_are_multiples_of_the_interval(batch_size: int | None) -> None:
    group = Group(SGD_MEMBERS, schedule=SCHEDULES["step"], batch_size=batch_size)
    everything = together(group, 30)
    traces, _ = outcome_of(group, [5, 1, 17, 7], log_interval=4)
    assert [one.logged_steps for one in traces] == [[0, 4], [], [8, 12, 16, 20], [24, 28]]
    assert [(one.first_step, one.steps, one.next_step) for one in traces] == [
        (0, 5, 5),
        (5, 1, 6),
        (6, 17, 23),
        (23, 7, 30),
    ]
    for trace in traces:
        assert trace.logged_SK3.shape == (len(trace.logged_steps), len(everything), 3)
        for index, step in enumerate(trace.logged_steps):
            losses_K, metrics_K, learning_rates_K = trace.logged_SK3[index].unbind(-1)
            assert_same_bits(losses_K, trace.losses_SK[step - trace.first_step].double())
            for member, outcome in enumerate(everything):
                assert_close(metrics_K[member].float(), outcome.metrics[step])
                assert_close(learning_rates_K[member], outcome.learning_rates[step], 1e-12)


@pytest.mark.parametrize("made", [0, 1, 3, 11])
def test_a_requested_stop_ends_the_execution_between_two_steps(made: int) -> None:
    group = Group(SGD_MEMBERS, schedule=SCHEDULES["step"], batch_size=16)
    # It is asked before every step, and once more before each part of equal batches.
    stopped = stacked_loop(group, 30)
    stopped.stop_requested = lambda: int(stopped.optimizer_steps) >= made  # type: ignore[attr-defined]
    stopped.optimizer_steps = 0  # type: ignore[attr-defined]
    make_step = stopped.optimizer.step

    def counted() -> None:
        make_step()
        stopped.optimizer_steps += 1  # type: ignore[attr-defined]

    stopped.optimizer.step = counted  # type: ignore[method-assign]
    trace = stopped.run(0, 30)
    assert (trace.steps, len(trace.logged_steps), trace.next_step) == (made, made, made)
    expected = stacked_loop(group, 30)
    expected.run(0, made)
    assert_same_bits(stopped.model.flat_N.detach(), expected.model.flat_N.detach())
    assert stopped.schedule.learning_rates() == expected.schedule.learning_rates()


def test_a_plateau_stops_for_members_that_have_ended() -> None:
    group = Group(SGD_MEMBERS, schedule=PlateauSchedule(monitor="loss/train", patience=0, threshold=10.0, factor=0.5))
    loop = stacked_loop(group, 10)
    loop.active[1] = False
    trace = loop.run(0, 10)
    assert trace.logged_SK3[:, 1, 2].tolist() == [SGD_MEMBERS[1].lr] * 10
    assert trace.logged_SK3[-1, 0, 2] < SGD_MEMBERS[0].lr / 100


@pytest.mark.parametrize("as_networks", [False, True])
@pytest.mark.parametrize("kept", [[1], [3, 0], [0, 2, 1]], ids=str)
def test_members_that_are_left_keep_their_masks(kept: list[int], as_networks: bool) -> None:
    """Also if none of them has any."""
    group = Group(
        [Member((5, 3), 0.1, 4, dropout=0.3), Member((4, 6), 0.1, 1), Member((2, 2), 0.1, dropout=0.5), Member((6, 3))],
        batch_size=16,
        dtype=torch.float64,
    )
    loop = stacked_loop(group, 40, as_networks)
    loop.run(0, 15)
    loop = loop.select(kept, loop.model.select(kept))
    loop.run(15, 25)
    for place, number in enumerate(kept):
        weights = alone(group, group.members[number], 40).weights
        for one, other in zip(loop.model.parts(loop.model.flat_N, place), weights, strict=True):
            assert_close(one, other, 1e-9)
