from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch

from mlp_lightning.engines.sizing import auto_steps_per_execution, auto_threads, cpu_threads

WIDTHS = (1, 4, 30, 300, 3000)
ROWS = (1, 4, 150, 10_000, 1_000_000)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_networks_take_a_thousand_steps_at_a_time_at_most() -> None:
    assert 500 < auto_steps_per_execution([2, 2, 1], 4) <= 1000


def test_huge_networks_take_one_step_at_a_time() -> None:
    assert auto_steps_per_execution([1000, 10_000, 10_000, 10], 100_000) == 1


@pytest.mark.parametrize("rows", ROWS)
def test_a_larger_network_never_takes_more_steps(rows: int) -> None:
    found = [auto_steps_per_execution([4, width, width, 3], rows) for width in WIDTHS]
    assert found == sorted(found, reverse=True)
    assert all(type(one) is int and 1 <= one <= 1000 for one in found)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_larger_batch_never_takes_more_steps(width: int) -> None:
    found = [auto_steps_per_execution([4, width, 3], rows) for rows in ROWS]
    assert found == sorted(found, reverse=True)


def test_a_deeper_network_never_takes_more_steps() -> None:
    found = [auto_steps_per_execution([4, *[300] * depth, 3], 150) for depth in range(8)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_the_steps_of_an_execution_are_a_function_of_sizes_alone() -> None:
    assert len({auto_steps_per_execution([4, 300, 3], 1000) for _ in range(10)}) == 1


@pytest.mark.usefixtures("two_threads")
def test_small_matrices_get_one_thread_and_large_ones_all() -> None:
    assert auto_threads([2, 10, 10, 10, 1], 4) == 1
    assert auto_threads([4, 1000, 3], 150) == 1
    assert auto_threads([1000, 1000, 1], 10_000) == 2


@pytest.mark.usefixtures("two_threads")
def test_the_largest_matrix_decides_about_threads() -> None:
    for order in itertools.permutations([5, 2000, 2000, 7]):
        large = any(a == b == 2000 for a, b in itertools.pairwise(order))
        assert auto_threads(list(order), 10) == (2 if large else 1)
    assert auto_threads([300] * 50, 10) == 1
    draw = random.Random(0)
    for _ in range(50):
        widths = [draw.randint(1, 2000) for _ in range(4)]
        counts = [auto_threads(widths, rows) for rows in (1, 10, 100, 1000, 10_000)]
        assert counts == sorted(counts)


@pytest.mark.usefixtures("two_threads")
def test_the_thread_count_holds_inside_and_is_given_back() -> None:
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
        with cpu_threads(3):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_the_thread_count_is_given_back_after_an_error() -> None:
    with pytest.raises(KeyError), cpu_threads(1):
        raise KeyError("from inside")
    assert torch.get_num_threads() == 2
