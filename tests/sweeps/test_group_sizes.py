"""How large stacks are: zeros for padding, memory, processes; the same in any order of the runs."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from support.grouped_runs import SIZES, assert_complete, grouped, runs, with_value

from mlp_lightning.config import Config
from mlp_lightning.sweeps.grouping import Grouping

# ---- padding ---------------------------------------------------------------------------------------------


def arithmetic(widths: Sequence[int]) -> int:
    return sum(a * b for a, b in itertools.pairwise([SIZES.in_features, *widths, SIZES.out_features]))


def padding(configs: Sequence[Config], stack: Sequence[int]) -> float:
    """How much of a stack's arithmetic is done on zeros."""
    widths = [configs[index].model.layer_widths for index in stack]
    widest = [max(one) for one in zip(*widths, strict=True)]
    return 1 - sum(map(arithmetic, widths)) / (len(stack) * arithmetic(widest))


@pytest.mark.parametrize("seed", range(30))
def test_zeros_take_at_most_half(seed: int) -> None:
    draw = random.Random(seed)
    depth, most = draw.randint(1, 4), 2 ** draw.randint(1, 12)
    widths = [[draw.randint(1, most) for _ in range(depth)] for _ in range(draw.randint(1, 60))]
    configs = runs(widths)
    grouping = grouped(configs)
    assert_complete(grouping, len(configs))
    assert all(padding(configs, stack) <= 0.5 for stack in grouping.stacks)
    if depth == 1:
        # Stacks are not cut without need: the widths double from one to the next.
        assert len(grouping.stacks) + len(grouping.alone) <= 13


@pytest.mark.parametrize(("narrow", "wide"), [(1, 1), (1, 2), (1, 30), (2, 1), (30, 1), (30, 30)])
def test_4_and_4096_are_never_together(narrow: int, wide: int) -> None:
    grouping = grouped(runs([4] * narrow + [4096] * wide))
    assert_complete(grouping, narrow + wide)
    for stack in grouping.stacks:
        assert len({index < narrow for index in stack}) == 1


def test_similar_widths_are_together() -> None:
    assert grouped(runs([20, 24, 28, 32])).stacks == [[0, 1, 2, 3]]


# ---- memory, processes -----------------------------------------------------------------------------------


def test_stacks_fit_into_memory() -> None:
    configs = runs([100] * 40)
    weights = 4 * 100 + 100 + 100 * 3 + 3
    least = 4 * (weights + 2 * weights + SIZES.rows_per_step * 100)  # weights, Adam's state, one layer's activations
    count = []
    for memory in (10 * least, 40 * least, 160 * least):
        grouping = grouped(configs, memory)
        assert_complete(grouping, 40)
        assert all(len(stack) * least <= memory for stack in grouping.stacks)
        count.append(len(grouping.stacks) + len(grouping.alone))
    assert count[0] > count[1] > count[2] >= 1
    assert grouped(configs).stacks == [list(range(40))]


def test_run_that_does_not_fit_into_memory_is_alone() -> None:
    grouping = grouped(runs([100] * 3), memory=1)
    assert grouping.stacks == []
    assert [index for index, _ in grouping.alone] == [0, 1, 2]


def test_double_precision_takes_twice_the_memory() -> None:
    single = runs([100] * 64)
    double = [with_value(one, "trainer.precision", "64") for one in single]
    memory = 60_000_000
    sizes = [max(map(len, grouped(configs, memory).stacks)) for configs in (single, double)]
    assert sizes[0] == pytest.approx(2 * sizes[1], abs=1)


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 16])
def test_parts_for_processes(processes: int) -> None:
    configs = runs([10] * 16)
    grouping = grouped(configs, stacks_at_least=processes)
    assert_complete(grouping, 16)
    parts = [*map(len, grouping.stacks), *(1 for _ in grouping.alone)]
    assert len(parts) == processes
    assert max(parts) <= 2 * -(-16 // processes), "no process gets most of the work"


def test_more_processes_than_runs() -> None:
    grouping = grouped(runs([10] * 3), stacks_at_least=8)
    assert grouping.stacks == []
    assert_complete(grouping, 3)


# ---- a function of its arguments -------------------------------------------------------------------------


def mixture(seed: int) -> list[Config]:
    """Distinct runs of several groups, some of which cannot be stacked."""
    draw = random.Random(seed)
    configs = []
    for number in range(60):
        widths = draw.choice([[4], [5], [60], [70], [3000], [4, 5], [90, 2]])
        config = with_value(
            runs([widths], depth=len(widths))[0], "optimizer.name", draw.choice(["SGD", "Adam", "Rprop"])
        )
        configs.append(with_value(config, "seed", number))
    return configs


@pytest.mark.parametrize("seed", range(5))
def test_same_every_time_and_in_any_order(seed: int) -> None:
    configs = mixture(seed)
    expected = grouped(configs)
    assert_complete(expected, len(configs))
    assert grouped(configs) == expected
    assert len(expected.stacks) > 3
    order = list(range(len(configs)))
    random.Random(seed).shuffle(order)
    shuffled = grouped([configs[index] for index in order])
    assert_complete(shuffled, len(configs))
    stacks = {frozenset(stack) for stack in expected.stacks}
    assert {frozenset(order[index] for index in stack) for stack in shuffled.stacks} == stacks
    assert {(order[index], reason) for index, reason in shuffled.alone} == set(expected.alone)


def test_cuts_do_not_depend_on_the_order() -> None:
    """Runs of equal width are interchangeable: only the widths of the stacks matter."""
    configs = runs([10, 50, 10, 50, 400, 10, 400, 50] * 4)
    shapes = []
    for order in (configs, configs[::-1]):
        stacks = grouped(order, memory=20_000_000, stacks_at_least=3).stacks
        shapes.append(Counter(tuple(sorted(order[index].model.layer_widths[0] for index in one)) for one in stacks))
    assert shapes[0] == shapes[1]


def test_nothing_to_group() -> None:
    assert grouped([]) == Grouping([], [])
