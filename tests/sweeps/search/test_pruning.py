"""Which trials leave a search, by losses that are given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from mlp_lightning.runs.pruning import Progress
from mlp_lightning.sweeps.search.pruning import TrialPruner


def pruner(folder: Path, rule: str = "asha", factor: int = 3, rungs: int = 3, count: int = 100) -> TrialPruner:
    made = TrialPruner(rule, factor, folder / "compared.jsonl", rungs)
    made.numbers = {f"t{number}": number for number in range(count)}
    return made


def at(validation: int, validations: int = 81, epochs: float = 1.0) -> Progress:
    return Progress(validation * epochs, validations * epochs, validation, validations)


def looks(one: TrialPruner, validations: int) -> list[int]:
    return [number for number in range(1, validations + 1) if one.is_due(at(number, validations))]


@pytest.mark.parametrize(
    ("rule", "factor", "rungs", "validations", "expected"),
    [
        ("asha", 3, 3, 81, [3, 9, 27]),
        ("asha", 3, 4, 81, [1, 3, 9, 27]),
        ("asha", 3, 3, 10, [1, 2, 4]),
        ("asha", 4, 2, 100, [7, 25]),
        ("asha", 2, 3, 2, [1]),
        ("hyperband", 3, 3, 81, [3, 9, 27]),
        ("median", 3, 3, 20, [2, 4, 6, 8, 10, 12, 14, 16, 18]),
        ("median", 3, 3, 3, [1, 2]),
        ("asha", 3, 3, 1, []),
        ("median", 3, 3, 1, []),
    ],
)
def test_when_it_looks(
    rule: str, factor: int, rungs: int, validations: int, expected: list[int], tmp_path: Path
) -> None:
    assert looks(pruner(tmp_path, rule, factor, rungs), validations) == expected


def reference_halving(losses: Mapping[str, float], factor: int, rungs: int) -> Iterator[set[str]]:
    """Successive halving as it is written down: at each rung the best ``1/factor`` stays."""
    alive = set(losses)
    for _ in range(rungs):
        alive = set(sorted(alive, key=lambda one: losses[one])[: max(1, len(alive) // factor)])
        yield alive


@pytest.mark.parametrize(("factor", "count"), [(2, 16), (3, 27), (3, 50), (4, 7)])
def test_of_one_stack_it_is_successive_halving(factor: int, count: int, tmp_path: Path) -> None:
    losses = {f"t{n}": float(loss) for n, loss in enumerate(np.random.default_rng(0).permutation(count))}
    one, alive = pruner(tmp_path, factor=factor), dict(losses)
    for validation, expected in zip(looks(one, 81), reference_halving(losses, factor, 3), strict=False):
        gone = one.pruned(at(validation), alive)
        alive = {name: loss for name, loss in alive.items() if name not in gone}
        assert set(alive) == expected


def test_later_stacks_are_compared_with_earlier_ones(tmp_path: Path) -> None:
    one = pruner(tmp_path)
    assert set(one.pruned(at(3), {"t0": 0.1, "t1": 0.2, "t2": 0.3})) == {"t1", "t2"}
    # Two of six go further; one of them has.
    gone = one.pruned(at(3), {"t3": 0.15, "t4": 0.4, "t5": 0.05})
    assert set(gone) == {"t3", "t4"}
    assert gone["t3"] == "loss 0.15 of validation rows after 3 of 81 epochs: rank 3 of 6 trials, and 2 go further"


def test_only_trials_of_equal_lengths_are_compared(tmp_path: Path) -> None:
    one = pruner(tmp_path)
    one.pruned(at(3), {"t0": 0.1, "t1": 0.2})
    for other in (at(6, 162), at(3, 81, 2.0), at(9)):
        assert one.pruned(other, {"t5": 9.0}) == {}


def test_what_is_no_number_leaves_first(tmp_path: Path) -> None:
    gone = pruner(tmp_path).pruned(at(3), {"t0": math.nan, "t1": 5.0, "t2": math.inf})
    assert set(gone) == {"t0", "t2"}


def test_equal_losses_are_decided_by_number(tmp_path: Path) -> None:
    for order in itertools.permutations(("t9", "t10", "t2")):
        folder = tmp_path / "-".join(order)
        folder.mkdir()
        assert set(pruner(folder).pruned(at(3), dict.fromkeys(order, 1.0))) == {"t9", "t10"}


def test_hyperband_spares_each_bracket_another_number_of_looks(tmp_path: Path) -> None:
    one = pruner(tmp_path, "hyperband")
    alive = {f"t{n}": float(n) for n in range(24)}  # six trials in each of four brackets
    left = []
    for validation in looks(one, 81):
        gone = one.pruned(at(validation), alive)
        alive = {name: loss for name, loss in alive.items() if name not in gone}
        left.append([sum(int(name[1:]) % 4 == bracket for name in alive) for bracket in range(4)])
    assert left == [[2, 6, 6, 6], [1, 2, 6, 6], [1, 1, 2, 6]]


def test_the_median_of_trials_that_finished(tmp_path: Path) -> None:
    one = pruner(tmp_path, "median")
    first = {f"t{n}": float(n) for n in range(5)}
    assert one.pruned(at(9), first) == {}
    assert one.pruned(at(9), {"t5": 99.0}) == {}  # none of them has finished
    one.finished = {*first}
    assert set(one.pruned(at(9), {"t6": 2.0, "t7": 2.1})) == {"t7"}
    assert one.pruned(at(17), {"t6": 9.0}) == {}  # nobody was looked at there


def test_it_decides_the_same_after_a_kill(tmp_path: Path) -> None:
    losses = {f"t{n}": float(n * 7 % 10) for n in range(10)}
    one = pruner(tmp_path)
    before = one.pruned(at(3), losses)
    text = (tmp_path / "compared.jsonl").read_text()
    # Killed while it wrote the next line; some that left are not there any more, others come again.
    (tmp_path / "compared.jsonl").write_text(text + '{"progress": [9, 81')
    again = pruner(tmp_path)
    assert again.pruned(at(3), losses) == before
    assert again.curve("t4") == {3.0: 8.0}
    rest = {name: loss for name, loss in losses.items() if name not in ("t1", "t2")}
    assert again.pruned(at(3), rest) == {name: why for name, why in before.items() if name in rest}
    again.pruned(at(9), {"t0": 0.5})
    assert pruner(tmp_path).curve("t0") == {3.0: 0.0, 9.0: 0.5}
