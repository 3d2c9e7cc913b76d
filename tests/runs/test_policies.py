"""At which steps something happens besides training."""

from __future__ import annotations

import pytest

from mlp_lightning.runs.milestones import Milestones


@pytest.mark.parametrize(
    ("last_step", "every", "expected"),
    [
        (9, 3, [3, 6, 9]),  # epochs of 3 steps, each with a validation
        (12, 6, [6, 12]),
        (8, 3, [3, 6, 8]),  # the end within an epoch
        (9, 6, [6]),  # the end of an epoch without one
        (10, 6, [6, 10]),
        (9, None, []),
    ],
)
def test_validations(last_step: int, every: int | None, expected: list[int]) -> None:
    milestones = Milestones(last_step, 3, every, None)
    assert [step for step in range(1, last_step + 1) if milestones.validates(step)] == expected
    # The engine is stopped at each of them.
    reached, step = [], 0
    while step < last_step:
        step = milestones.next_after(step)
        reached.append(step)
    assert set(expected) <= set(reached)
    assert reached[-1] == last_step


def test_engine_stops_at_checkpoints_and_where_something_must_have_changed() -> None:
    milestones = Milestones(250, 1000, None, 70)
    assert milestones.next_after(0) == 70
    assert milestones.next_after(70) == 100
    assert [milestones.next_after(step) for step in (100, 140, 210)] == [140, 210, 250]
    assert [step for step in (69, 70, 71, 140) if milestones.is_checkpoint(step)] == [70, 140]
    assert [milestones.changes_by(step) for step in (99, 100)] == [False, True]
    assert Milestones(3, 1, None, None).changes_by(3)
