from __future__ import annotations

import random

import pytest
import torch
from support.tolerances import assert_same_bits

from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import (
    Execution,
    ExecutionLimits,
    ExecutionLoader,
    TrainingSteps,
    cut,
    span_end,
)


def numbered_rows(count: int) -> Rows:
    """Row i has the feature i and the target -i, so that a batch shows which rows it holds."""
    numbers_B1 = torch.arange(count, dtype=torch.float32).unsqueeze(1)
    return Rows(numbers_B1, -numbers_B1)


def visited(steps: TrainingSteps, first_step: int, count: int) -> list[list[int]]:
    """The row numbers of each batch; on the way, features and targets are checked to belong together."""
    found = []
    for features_BF, targets, weights_B in steps.batches(first_step, count):
        assert_same_bits(targets, -features_BF)
        assert weights_B is None
        found.append([int(one) for one in features_BF[:, 0]])
    return found


# ---- which rows a step sees --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulate", "steps_per_epoch"),
    [(10, 3, 1, 4), (10, 3, 2, 2), (10, 5, 1, 2), (10, 1, 1, 10), (10, 4, 3, 1), (10, 10, 1, 1), (10, None, 1, 1)],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_any_cut_gives_the_same_batches(
    rows: int, batch_size: int | None, accumulate: int, steps_per_epoch: int, shuffle: bool
) -> None:
    steps = TrainingSteps(numbered_rows(rows), batch_size, accumulate, shuffle, seed=3)
    assert steps.steps_per_epoch == steps_per_epoch
    total = 5 * steps_per_epoch + 1
    whole = visited(steps, 0, total)
    assert len(whole) == total
    draw = random.Random(0)
    for _ in range(20):
        pieces: list[list[int]] = []
        while len(pieces) < total:
            count = draw.randint(1, total - len(pieces))
            pieces += visited(steps, len(pieces), count)
        assert pieces == whole


def test_a_step_depends_on_seed_epoch_and_position_alone() -> None:
    steps = TrainingSteps(numbered_rows(10), batch_size=3, seed=3)
    whole = visited(steps, 0, 20)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    for step in reversed(range(20)):
        again = TrainingSteps(numbered_rows(10), batch_size=3, seed=3)
        assert visited(again, step, 1) == [whole[step]]
    # The global generator belongs to dropout: drawing an order must not move it.
    assert_same_bits(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_visits_each_row_once_and_keeps_the_last_partial_batch(accumulate: int, shuffle: bool) -> None:
    steps = TrainingSteps(numbered_rows(11), batch_size=2, accumulate_grad_batches=accumulate, shuffle=shuffle)
    sizes = [2, 2, 2, 2, 2, 1] if accumulate == 1 else [4, 4, 3]
    for epoch in range(5):
        batches = visited(steps, epoch * steps.steps_per_epoch, steps.steps_per_epoch)
        assert [len(batch) for batch in batches] == sizes
        assert sorted(row for batch in batches for row in batch) == list(range(11))


def test_batches_follow_the_order_of_their_epoch() -> None:
    steps = TrainingSteps(numbered_rows(10), batch_size=4, seed=9)
    for epoch in range(3):
        order = steps.order(epoch).tolist()
        assert visited(steps, 3 * epoch, 3) == [order[:4], order[4:8], order[8:]]


def test_orders_differ_between_epochs_and_seeds_and_are_no_rotation_of_each_other() -> None:
    orders = {
        tuple(TrainingSteps(numbered_rows(50), batch_size=5, seed=seed).order(epoch).tolist())
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100


def test_a_shuffled_row_is_equally_likely_at_every_position() -> None:
    steps = TrainingSteps(numbered_rows(4), batch_size=1)
    first_rows = torch.bincount(torch.stack([steps.order(epoch) for epoch in range(2000)])[:, 0], minlength=4)
    # 500 expected of each; the standard deviation is 19.
    assert ((first_rows - 500).abs() < 100).all()


def test_without_shuffling_rows_come_in_their_order_in_every_epoch() -> None:
    steps = TrainingSteps(numbered_rows(5), batch_size=2, shuffle=False)
    assert visited(steps, 0, 6) == [[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(None, 1), (6, 1), (1000, 1), (2, 3), (4, 2), (1, 1000)])
def test_a_full_batch_is_never_reordered_or_copied(batch_size: int | None, accumulate: int) -> None:
    rows = numbered_rows(6)
    steps = TrainingSteps(rows, batch_size, accumulate, shuffle=True)
    assert steps.steps_per_epoch == 1
    assert steps.rows_per_step == 6
    batches = list(steps.batches(3, 4))
    assert len(batches) == 4
    for features_BF, targets, _ in batches:
        assert features_BF is rows.features_BF
        assert targets is rows.targets


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "used_batch_size", "rows_per_step"),
    [(3, 1, 3, 3), (3, 2, 3, 6), (3, 4, 3, 10), (30, 2, 10, 10), (None, 2, 10, 10), (1, 10, 1, 10)],
)
def test_rows_per_step(batch_size: int | None, accumulate: int, used_batch_size: int, rows_per_step: int) -> None:
    steps = TrainingSteps(numbered_rows(10), batch_size, accumulate)
    assert (steps.batch_size, steps.rows_per_step) == (used_batch_size, rows_per_step)


def test_no_steps_are_no_batches() -> None:
    assert visited(TrainingSteps(numbered_rows(10), batch_size=3), 7, 0) == []
    assert visited(TrainingSteps(numbered_rows(10)), 7, 0) == []


@pytest.mark.parametrize(("batch_size", "shuffle"), [(3, True), (3, False), (None, True)])
def test_weights_go_with_their_rows(batch_size: int | None, shuffle: bool) -> None:
    numbers = numbered_rows(10)
    rows = Rows(numbers.features_BF, numbers.targets, numbers.features_BF[:, 0] + 0.5)
    steps = TrainingSteps(rows, batch_size, shuffle=shuffle, seed=2)
    batches = list(steps.batches(1, 9))
    assert len(batches) == 9
    for features_BF, _, weights_B in batches:
        assert weights_B is not None
        assert_same_bits(weights_B, features_BF[:, 0] + 0.5)


def test_an_execution_is_a_window_on_the_steps() -> None:
    steps = TrainingSteps(numbered_rows(10), batch_size=3, seed=2)
    execution = Execution(steps, first_step=2, count=7)
    found = [[int(one) for one in features_BF[:, 0]] for features_BF, _, _ in execution.batches()]
    assert found == visited(steps, 0, 9)[2:]


# ---- where executions and spans end ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "steps_per_epoch", "limits", "end"),
    [
        (0, 10, ExecutionLimits(1), 10),
        (0, 10, ExecutionLimits(9), 10),
        (0, 10, ExecutionLimits(25), 20),
        (20, 10, ExecutionLimits(25), 40),
        (25, 10, ExecutionLimits(25), 40),
        (0, 10, ExecutionLimits(25, last_step=13), 13),
        (0, 10, ExecutionLimits(100, epochs_between_validations=3), 30),
        (40, 10, ExecutionLimits(100, epochs_between_validations=3), 60),
        (0, 1, ExecutionLimits(1000, last_step=10_001), 1000),
        (10_000, 1, ExecutionLimits(1000, last_step=10_001), 10_001),
        (0, 1, ExecutionLimits(1000, epochs_between_validations=1), 1),
        (0, 10, ExecutionLimits(100, steps_between_checkpoints=7), 100),
    ],
)
def test_span_end_by_hand(step: int, steps_per_epoch: int, limits: ExecutionLimits, end: int) -> None:
    assert span_end(step, steps_per_epoch, limits) == end


@pytest.mark.parametrize(
    ("step", "end", "limits", "executions"),
    [
        (0, 5, ExecutionLimits(2), [(0, 2), (2, 2), (4, 1)]),
        (3, 5, ExecutionLimits(1000), [(3, 2)]),
        (0, 10, ExecutionLimits(4, steps_between_checkpoints=5), [(0, 4), (4, 1), (5, 4), (9, 1)]),
        (8, 12, ExecutionLimits(4, steps_between_checkpoints=10), [(8, 2), (10, 2)]),
        (5, 5, ExecutionLimits(4), []),
        (6, 5, ExecutionLimits(4), []),
    ],
)
def test_cut_by_hand(step: int, end: int, limits: ExecutionLimits, executions: list[tuple[int, int]]) -> None:
    assert list(cut(step, end, limits)) == executions


def random_run(draw: random.Random) -> tuple[int, int, ExecutionLimits]:
    """First step, steps per epoch and limits of a run."""
    last_step = draw.randint(1, 200)
    limits = ExecutionLimits(
        steps_per_execution=draw.choice([1, 2, 3, 7, 10, 50, 1000]),
        epochs_between_validations=draw.choice([None, 1, 2, 3, 5]),
        steps_between_checkpoints=draw.choice([None, 1, 2, 7, 10, 33]),
        last_step=last_step,
    )
    return draw.choice([0, draw.randrange(last_step)]), draw.randint(1, 12), limits


@pytest.mark.parametrize("number", range(100))
def test_executions_tile_the_run_and_end_where_they_must(number: int) -> None:
    start, steps_per_epoch, limits = random_run(random.Random(number))
    last_step = limits.last_step
    assert last_step is not None
    step = start
    while step < last_step:
        end = span_end(step, steps_per_epoch, limits)
        assert step < end <= last_step
        assert end % steps_per_epoch == 0 or end == last_step
        first_epoch, last_epoch = step // steps_per_epoch, (end - 1) // steps_per_epoch
        if limits.epochs_between_validations is not None:
            period = limits.epochs_between_validations
            assert first_epoch // period == last_epoch // period
        if last_epoch > first_epoch:
            assert end - step <= limits.steps_per_execution
        for first_step, count in cut(step, end, limits):
            assert first_step == step
            assert 1 <= count <= limits.steps_per_execution
            step = first_step + count
            reasons = [step == end, count == limits.steps_per_execution]
            if limits.steps_between_checkpoints is not None:
                interval = limits.steps_between_checkpoints
                assert first_step // interval == (step - 1) // interval
                reasons.append(step % interval == 0)
            # Shorter than it need be would be slow.
            assert any(reasons)
        assert step == end
    assert step == last_step


@pytest.mark.parametrize("number", range(50))
def test_a_span_holds_as_many_epochs_as_fit(number: int) -> None:
    start, steps_per_epoch, limits = random_run(random.Random(number))
    end = span_end(start, steps_per_epoch, limits)
    first_epoch, end_epoch = start // steps_per_epoch, -(-end // steps_per_epoch)
    period = limits.epochs_between_validations
    one_more_epoch = (end_epoch + 1 - first_epoch) * steps_per_epoch
    assert (
        end == limits.last_step
        or one_more_epoch > limits.steps_per_execution
        or (period is not None and end_epoch % period == 0)
    )


# ---- what Lightning sees -----------------------------------------------------------------------------------


def test_each_pass_over_the_loader_is_one_span_from_the_current_step() -> None:
    steps = TrainingSteps(numbered_rows(10), batch_size=5)
    limits = ExecutionLimits(steps_per_execution=3, last_step=5)
    made = 0
    loader = ExecutionLoader(steps, lambda: limits, lambda: made)

    def one_pass() -> list[tuple[int, int]]:
        return [(execution.first_step, execution.count) for execution in loader]

    assert one_pass() == [(0, 2)]
    assert one_pass() == [(0, 2)]
    made = 4
    assert one_pass() == [(4, 1)]
    # Called again at each pass: a run may be made longer between two of them.
    limits = ExecutionLimits(steps_per_execution=3, last_step=8)
    assert one_pass() == [(4, 2)]
    made = 8
    assert one_pass() == []


def test_the_loader_holds_executions_of_its_training_steps_and_has_no_length() -> None:
    steps = TrainingSteps(numbered_rows(10), batch_size=5)
    loader = ExecutionLoader(steps, ExecutionLimits, lambda: 0)
    assert all(execution.training_steps is steps for execution in loader)
    # Lightning would take a length for the number of executions of every span.
    assert not hasattr(loader, "__len__")
