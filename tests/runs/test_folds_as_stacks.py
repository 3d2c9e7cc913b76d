"""Members of a stack with different weights or numbers of rows: each trains as it does alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.run_folders import assert_same_content, assert_same_run
from support.stack_members import Group, Member, assert_each_as_alone, make_rows
from support.tables import generator, mixed_table
from support.tolerances import assert_close, assert_same_bits

import mlp_lightning
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import TrainingSteps
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.build import build_data

MEMBERS = [Member((5,), 0.1, 0), Member((3,), 0.05, 1), Member((4,), 0.2, 2), Member((5,), 0.1, 1)]


@dataclasses.dataclass(frozen=True)
class Uneven(Group):
    """Each seed has different rows: 20 + seed of them.

    Attributes:
        weighted: seeds whose rows have weights.
        least: number of rows of seed 0.
    """

    weighted: Sequence[int] = ()
    least: int = 20

    def steps_of(self, member: Member) -> TrainingSteps:
        seed = member.seed
        rows = make_rows(self.task, seed, self.least + seed, self.dtype)
        if seed in self.weighted:
            weights_B = torch.rand(len(rows), generator=generator(seed), dtype=self.dtype)
            weights_B[::5] = 0.0
            rows = dataclasses.replace(rows, weights_B=weights_B)
        return TrainingSteps(rows, self.batch_size, self.accumulate, seed=seed)


# ---- rows --------------------------------------------------------------------------------------------------


def steps(count: int, seed: int, weights: bool = False, **options: Any) -> TrainingSteps:
    rows = make_rows("multiclass", seed, count)
    if weights:
        rows = dataclasses.replace(rows, weights_B=torch.arange(1.0, count + 1))
    return TrainingSteps(rows, **{"batch_size": 7, "seed": seed, **options})


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"batch_size": None}, {"batch_size": 30}], ids=str)
def test_missing_rows_are_filled_up_with_rows_of_weight_zero(options: dict[str, Any]) -> None:
    members = [steps(20, 0, **options), steps(21, 1, True, **options), steps(16, 2, **options), steps(20, 0, **options)]
    stacked = StackedSteps(members, range(4))
    assert len(stacked.distinct) == 3
    together = list(stacked.batches(1, 8))
    for number, (features_KBF, targets_KB, weights_KB) in enumerate(together, 1):
        assert weights_KB is not None
        assert stacked.rows_at(number) == features_KBF.shape[1]
        own_K = stacked.own_rows_at(number)
        assert own_K is not None
        for member, one in enumerate(members):
            ((features_BF, targets, weights_B),) = one.batches(number, 1)
            own = own_K[member]
            assert own == len(features_BF)
            assert_same_bits(features_KBF[member, :own], features_BF)
            assert_same_bits(targets_KB[member, :own], targets)
            assert_same_bits(weights_KB[member, :own], torch.ones(own) if weights_B is None else weights_B)
            assert not features_KBF[member, own:].any()
            assert not weights_KB[member, own:].any()


def test_alike_members_need_no_weights() -> None:
    stacked = StackedSteps([steps(20, 0), steps(20, 1)], [0, 1])
    assert next(stacked.batches(0, 1))[2] is None
    assert stacked.own_rows_at(0) is None
    # And when those with fewer rows have ended, the others need no weights any more.
    assert next(StackedSteps([steps(20, 0), steps(21, 1)], [0, 1]).select([0]).batches(0, 1))[2] is None


def test_rows_of_other_weights_are_other_rows() -> None:
    one, other = steps(20, 0, True), steps(20, 0, True)
    assert StackedSteps([one, other], [0, 1]).shared
    assert other.rows.weights_B is not None
    other.rows.weights_B[3] = 7.0
    assert not StackedSteps([one, other], [0, 1]).shared
    assert not StackedSteps([one, steps(20, 0)], [0, 1]).shared


# ---- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize(
    "group",
    [
        Uneven(MEMBERS),
        Uneven(MEMBERS, weighted=(0, 2)),
        Uneven(MEMBERS, batch_size=7, weighted=(1,), least=15),
        Uneven(MEMBERS, batch_size=3, accumulate=2, least=19, weighted=(0, 1, 2)),
        Uneven(MEMBERS[:1] * 2, weighted=(0,)),
        Uneven(MEMBERS[:1] * 2, batch_size=7, weighted=(0,)),
    ],
)
def test_each_trains_as_alone(group: Uneven, task: str) -> None:
    assert_each_as_alone(group.but(task=task), 12, 1e-5)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_each_drops_the_units_that_it_drops_alone(batch_size: int | None) -> None:
    members = [dataclasses.replace(one, widths=(*one.widths, 3), dropout=0.3) for one in MEMBERS]
    assert_each_as_alone(Uneven(members, batch_size=batch_size, least=15), 12, 1e-5)


def test_metrics_of_steps_are_those_of_each_alone() -> None:
    group = Uneven(MEMBERS, weighted=(0, 2), batch_size=7, least=15)
    for outcome, member in zip(assert_each_as_alone(group, 9, 1e-5), MEMBERS, strict=True):
        from support.stack_members import alone

        assert_close(outcome.metrics, alone(group, member, 9).metrics, 1e-5)


# ---- runs --------------------------------------------------------------------------------------------------

TABLE = [
    *("data=table", "data.target=y", "model.hidden_units=6", "model.depth=1", "trainer.max_epochs=6"),
    *("logger.graph=false", "data.batch_size=16", "data.max_one_hot=20", "model.dropout=0.0", "data.test_fraction=0"),
]
FOLDS = ["data.cv.folds=3"]
CASES: dict[str, list[str]] = {
    "classes": [],
    "without validation rows": ["data.val_fraction=0"],
    "all rows in a step": ["data.batch_size=null"],
    "classes that count the same": ["data.class_weight=balanced"],
    "weights": ["data.weight_column=w"],
    "a regression": ["data.target=far"],
    "a regression of two targets, weighted": [
        "data.target=[near,far]",
        "data.weight_column=w",
        "data.scaling=standard",
    ],
    "best training loss": ["data.val_fraction=0", "callbacks.checkpoint.every_n_steps=5", "report_weights=best"],
    "dropout": ["model.dropout=0.2", "model.depth=2", "data.batch_size=null"],
    "best weights": ["report_weights=best", "data.class_weight=balanced"],
}


@pytest.fixture
def path(tmp_path) -> Path:
    """A table of 61 rows, which three folds cannot share equally."""
    import pyarrow as pa
    import pyarrow.parquet

    draw = np.random.default_rng(0)
    # Without the town: some are in no training rows of a fold. Every other column is known in every fold.
    table = mixed_table(61).drop_columns(["town"])
    table = table.append_column("far", pa.array(1e4 + 300 * draw.normal(size=61)))
    table = table.append_column("near", pa.array(draw.exponential(size=61)))
    table = table.append_column("w", pa.array(draw.random(61)))
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def assert_folds_as_alone(tmp_path: Path, compose_config: Callable[..., Any], overrides: Sequence[str]) -> None:
    configs = [compose_config(*overrides, f"data.cv.fold={fold}") for fold in (0, 2)]
    data = [build_data(one) for one in configs]
    assert [len(one.splits["test"]) for one in data] == [21, 20]
    assert len(data[0].splits["train"]) != len(data[1].splits["train"]) or "val" in data[0].splits
    stacked = train_stack(configs, [tmp_path / "stack" / str(fold) for fold in (0, 2)], data=data)
    for config, one, fold in zip(configs, stacked, (0, 2), strict=True):
        alone = mlp_lightning.train(config, tmp_path / "alone" / str(fold), has_card=False)
        assert set(one.metrics) == set(alone.metrics)
        assert_same_content(one.metrics, alone.metrics)
        assert_same_run(one.run_dir, alone.run_dir)


@pytest.mark.parametrize("name", CASES)
def test_folds_of_unequal_sizes_train_together_as_alone(tmp_path, path, compose_config, name: str) -> None:
    assert_folds_as_alone(tmp_path, compose_config, [*TABLE, f"data.path={path}", *FOLDS, *CASES[name]])
