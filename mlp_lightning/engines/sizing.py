"""What ``auto`` means: steps per execution and CPU threads, from the size of the model and its batches.

Both are functions of sizes alone, never of measured time, so that a run is cut the same way every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

# A step of a small network costs about this much before any arithmetic (Python and operator dispatch)…
_SECONDS_PER_STEP = 3e-4
# …and one core does about this many multiply-adds a second on matrices of moderate size.
_MULTIPLY_ADDS_PER_SECOND = 1e10
# An execution should take about this long: the Trainer's bookkeeping is a few milliseconds per execution,
# and the progress display moves once per execution.
_SECONDS_PER_EXECUTION = 0.25
# In a batch of matrix products, one of a member of a stack costs at least as much as this many multiply-adds.
_LEAST_MULTIPLY_ADDS = 1000
# Below this size of the largest matrix product, handing work to other threads costs more than it saves.
_MULTIPLY_ADDS_FOR_THREADS = 2e6

# Of a stack: torch multiplies many matrices faster than one at a time, and what it does number by number counts.
_SECONDS_PER_STACKED_STEP = 1e-4
_STACKED_MULTIPLY_ADDS_PER_SECOND = 4e10
_LEAST_OF_STACK = 4000
_SECONDS_PER_NUMBER = 4e-9
# Of the explicit engine, likewise.
_SECONDS_PER_EXPLICIT_STEP = 5e-5
_SECONDS_PER_EXPLICIT_NUMBER = 1e-9
# Dropout is in none of these: it moves none of them past another (benchmarks/dropout.py).
# Of the compiled kernel, about: lanes, cycles a second, and cycles of an activation and its gradient.
_LANES = 16
_CYCLES_PER_SECOND = 4e9
_CYCLES_PER_UNIT = 20


def auto_steps_per_execution(layer_widths: list[int], rows_per_step: int) -> int:
    """How many optimizer steps of a network take about a quarter of a second, at least 1.

    Args:
        layer_widths: all widths, from the input features to the outputs.
        rows_per_step: rows that one optimizer step sees.
    """
    # Forward, gradient of the inputs and gradient of the weights: three products of the same size.
    multiply_adds = 3 * rows_per_step * sum(a * b for a, b in pairwise(layer_widths))
    seconds = _SECONDS_PER_STEP + multiply_adds / _MULTIPLY_ADDS_PER_SECOND
    return max(1, int(_SECONDS_PER_EXECUTION / seconds))


def auto_threads(layer_widths: list[int], rows_per_batch: int) -> int:
    """One thread for small matrices, as many as torch would take otherwise."""
    largest = max(rows_per_batch * a * b for a, b in pairwise(layer_widths))
    return 1 if largest < _MULTIPLY_ADDS_FOR_THREADS else torch.get_num_threads()


def explicit_seconds(layer_widths: Sequence[int], rows_per_step: int) -> float:
    """About how long a step of the explicit engine takes on one core."""
    multiply_adds = 3 * rows_per_step * sum(a * b for a, b in pairwise(layer_widths))
    numbers = rows_per_step * sum(layer_widths[1:])
    seconds = _SECONDS_PER_EXPLICIT_STEP + numbers * _SECONDS_PER_EXPLICIT_NUMBER
    return seconds + multiply_adds / _STACKED_MULTIPLY_ADDS_PER_SECOND


def stack_seconds(members: int, layer_widths: Sequence[int], rows_per_step: int) -> float:
    """About how long a step of a stack of ``members`` networks takes that are padded to ``layer_widths``."""
    products = [max(rows_per_step * a * b, _LEAST_OF_STACK) for a, b in pairwise(layer_widths)]
    numbers = rows_per_step * sum(layer_widths[1:])
    of_member = 3 * sum(products) / _STACKED_MULTIPLY_ADDS_PER_SECOND + numbers * _SECONDS_PER_NUMBER
    return _SECONDS_PER_STACKED_STEP + members * of_member


def stack_steps_per_execution(members: int, layer_widths: Sequence[int], rows_per_step: int) -> int:
    """How many steps of a stack take about a quarter of a second, at least 1."""
    return max(1, int(_SECONDS_PER_EXECUTION / stack_seconds(members, layer_widths, rows_per_step)))


def stack_threads(members: int, layer_widths: Sequence[int], rows_per_batch: int) -> int:
    """Threads for a stack: the products of one layer are made for all members at once."""
    largest = max(max(rows_per_batch * a * b, _LEAST_MULTIPLY_ADDS) for a, b in pairwise(layer_widths))
    return 1 if members * largest < _MULTIPLY_ADDS_FOR_THREADS else torch.get_num_threads()


def compiled_seconds(members: int, layer_widths: Sequence[int], rows_per_step: int) -> float:
    """About how long a step of the compiled kernel takes on one core; no processor is asked."""
    blocks = -(-members // _LANES)
    weights = sum(a * b for a, b in pairwise(layer_widths))
    # Weights that do not fit into the nearest cache are waited for.
    waiting = max(1.0, 1.4 * (weights / 6000) ** 0.3)
    # Three products with two multiply-adds in a cycle; and an update of each weight.
    cycles = waiting * rows_per_step * (1.5 * weights + _CYCLES_PER_UNIT * sum(layer_widths[1:])) + 4 * weights
    return blocks * cycles / _CYCLES_PER_SECOND


def compiled_steps_per_execution(members: int, layer_widths: Sequence[int], rows_per_step: int) -> int:
    """How many steps of the compiled kernel take about a quarter of a second, at least 1."""
    return max(1, int(_SECONDS_PER_EXECUTION / compiled_seconds(members, layer_widths, rows_per_step)))


def compiled_threads(members: int) -> int:
    """A thread for each block of members, as many as torch would take otherwise."""
    return min(-(-members // _LANES), torch.get_num_threads())


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the context, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
