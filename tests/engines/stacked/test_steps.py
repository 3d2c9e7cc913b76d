"""The rows of several runs at once: the same as each run sees alone."""

from __future__ import annotations

import random
import types
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.stack_members import make_rows
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor

from mlp_lightning.data import IrisDataModule
from mlp_lightning.data.training import TrainingDataModule
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import TrainingSteps


def steps(
    seed: int = 0, rows_seed: int = 0, task: str = "multiclass", count: int = 20, **options: Any
) -> TrainingSteps:
    return TrainingSteps(make_rows(task, rows_seed, count), **{"batch_size": 7, "seed": seed, **options})


def of_member(batch: Tensor, member: int, stacked: StackedSteps) -> Tensor:
    return batch if stacked.shared else batch[member]


def assert_rows_of_each(stacked: StackedSteps, members: Sequence[TrainingSteps], first: int, count: int) -> None:
    """Every batch of every member is the one that it sees alone."""
    together = list(stacked.batches(first, count))
    assert len(together) == count
    for member, one in enumerate(members):
        for (features, targets, weights), (features_BF, own, _) in zip(
            together, one.batches(first, count), strict=True
        ):
            assert_same_bits(of_member(features, member, stacked), features_BF)
            assert_same_bits(of_member(targets, member, stacked), own)
            assert weights is None
    for step, (features, _, _) in enumerate(together, first):
        assert stacked.rows_at(step) == features.shape[-2]


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"batch_size": None},
        {"batch_size": 3, "accumulate_grad_batches": 2},
        {"batch_size": 5},
        {"batch_size": 1},
        {"batch_size": 100},
    ],
    ids=str,
)
def test_every_member_sees_its_own_rows_in_its_own_order(options: dict[str, Any], task: str) -> None:
    distinct = [steps(seed, seed % 2, task, **options) for seed in range(3)]
    indices = [2, 0, 0, 1, 2]
    stacked = StackedSteps(distinct, indices)
    members = [distinct[one] for one in indices]
    assert not stacked.shared
    assert stacked.steps_per_epoch == members[0].steps_per_epoch
    assert (stacked.batch_size, stacked.rows_per_step) == (members[0].batch_size, members[0].rows_per_step)
    for first, count in ((0, 13), (2, 1), (5, 9), (0, 3), (29, 4)):
        assert_rows_of_each(stacked, members, first, count)
    for some in ([1, 4], [3], [4, 0, 1]):
        assert_rows_of_each(stacked.select(some), [members[one] for one in some], 1, 8)


@pytest.mark.parametrize(
    ("distinct", "shared"),
    [
        ([steps(1), steps(1)], True),
        ([steps(1), steps(2)], False),
        ([steps(1, shuffle=False), steps(2, shuffle=False)], True),
        ([steps(1, batch_size=None), steps(2, batch_size=None)], True),
        ([steps(1, batch_size=20), steps(2, batch_size=20)], True),
        ([steps(1, 0, batch_size=None), steps(1, 1, batch_size=None)], False),
        ([steps(1, 0), steps(1, 1)], False),
        ([steps(1)], True),
    ],
)
def test_equal_steps_are_shared(distinct: list[TrainingSteps], shared: bool) -> None:
    stacked = StackedSteps(distinct, range(len(distinct)))
    assert stacked.shared is shared
    features, targets, _ = next(stacked.batches(0, 1))
    assert (features.dim(), targets.dim()) == ((2, 1) if shared else (3, 2))
    assert_rows_of_each(stacked, distinct, 0, 7)


def test_other_targets_of_the_same_features_are_not_shared() -> None:
    one, other = steps(1), steps(1)
    other.rows.targets[0] = (other.rows.targets[0] + 1) % 3
    assert not StackedSteps([one, other], [0, 1]).shared


def test_shared_rows_are_kept_once() -> None:
    stacked = StackedSteps([steps(seed // 2) for seed in range(6)], range(6))
    assert len(stacked.distinct) == 3
    assert stacked.of_member == [0, 0, 1, 1, 2, 2]
    assert stacked.select([0, 4, 5]).of_member == [0, 1, 1]
    assert len(stacked.select([0, 4, 5]).distinct) == 2
    assert stacked.select([2, 3]).shared


def test_steps_that_no_member_takes_are_left_out() -> None:
    # The second has another number of rows, but no member uses it.
    assert StackedSteps([steps(0), steps(1, count=5), steps(2)], [0, 2]).of_member == [0, 1]


def test_a_full_batch_is_made_once() -> None:
    stacked = StackedSteps([steps(0, 0, batch_size=None), steps(1, 1, batch_size=None)], [0, 1])
    batches = [*stacked.batches(0, 3), *stacked.batches(7, 1)]
    assert all(one is batches[0] for one in batches)


@pytest.mark.parametrize(
    "other", [steps(1, 1, count=22), steps(1, 1, batch_size=6), steps(1, 1, accumulate_grad_batches=2)]
)
def test_members_of_unequal_steps_are_refused(other: TrainingSteps) -> None:
    with pytest.raises(ValueError, match="as many steps per epoch and equal batches"):
        StackedSteps([steps(0), other], [0, 1])


def test_rows_of_random_stacks() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        options = {"batch_size": draw.choice([None, 1, 4, 7, 20]), "accumulate_grad_batches": draw.randint(1, 3)}
        distinct = [steps(draw.randrange(3), draw.randrange(2), **options) for _ in range(4)]
        members = [draw.choice(distinct) for _ in range(6)]
        stacked = StackedSteps(distinct, [distinct.index(one) for one in members])
        assert_rows_of_each(stacked, members, draw.randrange(9), draw.randint(1, 9))


# ---- the data module ---------------------------------------------------------------------------------------


def iris(seed: int, **options: Any) -> IrisDataModule:
    data = IrisDataModule(batch_size=32, val_fraction=0.2, test_fraction=0.2, seed=seed, **options)
    data.setup()
    return data


@pytest.mark.parametrize("scaling", ["standard", "none"])
def test_each_member_has_its_split_scaled_by_its_own_rows(scaling: str) -> None:
    modules = [iris(seed, scaling=scaling) for seed in (3, 4)]
    data = TrainingDataModule(modules, [1, 0, 1], 7, 1)
    assert data.splits == ("train", "val", "test")
    assert data.steps_per_epoch == 3
    members = [one.training_steps for one in (modules[1], modules[0], modules[1])]
    assert_rows_of_each(data.stacked_training_steps(), members, 0, 7)
    for split in data.splits:
        features, targets, _ = next(data.stacked_rows(split).batches(0, 1))
        for member, one in enumerate((modules[1], modules[0], modules[1])):
            rows = one.splits[split]
            assert_same_bits(features[member], rows.features_BF)
            assert_same_bits(targets[member], rows.targets)
    if scaling == "standard":
        features, _, _ = next(data.stacked_rows("train").batches(0, 1))
        assert_close(features.mean(1), torch.zeros(3, 4), atol=1e-5)


def test_evaluation_takes_all_rows_in_their_order() -> None:
    data = TrainingDataModule([iris(3)], [0, 0], 1, 1)
    assert data.stacked_rows("val").shared
    (batch,) = data.stacked_rows("val").batches(0, 1)
    assert_same_bits(batch[0], data.distinct[0].splits["val"].features_BF)


@pytest.mark.parametrize(
    ("first", "last", "at_once", "expected"),
    [
        (0, 7, 3, [(0, 3), (3, 6), (6, 7)]),
        (4, 7, 3, [(4, 6), (6, 7)]),  # one that continues ends its executions where it would have ended them before
        (6, 7, 3, [(6, 7)]),
        (0, 2, 5, [(0, 2)]),
    ],
)
def test_executions_end_at_multiples(first: int, last: int, at_once: int, expected: list[tuple[int, int]]) -> None:
    data: Any = TrainingDataModule([iris(0)], [0], last, at_once)
    data.trainer = types.SimpleNamespace(global_step=first)
    assert [tuple(one) for one in data.train_dataloader()] == expected
