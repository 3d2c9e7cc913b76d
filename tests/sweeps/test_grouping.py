"""Which runs train as one stack: depends only on their configurations and sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from support.grouped_runs import PLENTY, SIZES, base, grouped, runs, with_value

from mlp_lightning.config import Config
from mlp_lightning.config.names import STACKABLE_OPTIMIZERS, TORCH_OPTIMIZERS
from mlp_lightning.config.schedules import SCHEDULES
from mlp_lightning.config.schema import OwnCallbackConfig
from mlp_lightning.errors import DataError
from mlp_lightning.sweeps.grouping import Grouping, Sizes, group_runs, why_alone

# The options that may differ in one stack. If you add one, test that a stack trains each run as it trains alone.
MAY_DIFFER = {
    "auto_resume",  # decides what is trained, and is no part of it
    "name",
    "seed",
    "verbosity",
    "sweep.name",
    "sweep.resume",
    "sweep.fail_fast",
    "sweep.keys",
    "sweep.store",
    *(f"search.{key}" for key in ("name", "trials", "batch", "seed", "pruner", "reduction_factor", "time_limit_s")),
    "data.suggested_lr",
    "data.cv.folds",
    "data.cv.fold",
    "data.split_seed",
    "model.hidden_units",
    "model.init",
    "model.dropout",
    "optimizer.lr",
    "optimizer.weight_decay",
    "trainer.label_smoothing",
    "allow_targets",  # a member of a stack has nothing to import
}


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option of a configuration with its value."""
    for field in dataclasses.fields(section):
        name, value = field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{name}.")
        elif name == "options":
            yield from ((f"{prefix}options.{one}", inner) for one, inner in value.items())
        else:
            yield f"{prefix}{name}", value


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, dict):
        return {"sgd": 0.5}
    if isinstance(value, list):
        return [OwnCallbackConfig("mine.Callback")]
    return 3 if value is None else f"{value}2"


OPTIONS = sorted({(key, name) for name, one in SCHEDULES.items() for key, _ in leaves(base(one)) if key != "name"})


# ---- what may differ -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "schedule"), OPTIONS, ids=lambda one: one)
def test_every_option_may_differ_or_separates_runs(key: str, schedule: str) -> None:
    config = base(SCHEDULES[schedule])
    value = dict(leaves(config))[key]
    other = with_value(config, key, another(value))
    together = grouped([config, other, config]).stacks
    assert together == ([[0, 1, 2]] if key.replace(".options", "") in MAY_DIFFER else [[0, 2]])


def test_every_option_is_tested() -> None:
    """MAY_DIFFER names existing options, and the test above covers the options of all sections."""
    keys = {key.replace(".options", "") for key, _ in OPTIONS} | {"name"}
    assert keys >= MAY_DIFFER
    sections = {key.rpartition(".")[0] for key in keys} - {""}
    fields = {field.name for field in dataclasses.fields(Config)}
    assert {one.split(".")[0] for one in sections} | {one for one in keys if "." not in one} == fields
    assert {"callbacks.checkpoint", "callbacks.early_stopping"} < sections


def test_schedules_are_not_mixed() -> None:
    configs = [base(one) for one in SCHEDULES.values()] * 2
    count = len(SCHEDULES)
    assert grouped(configs).stacks == [[index, index + count] for index in range(count)]


def test_depths_are_not_mixed() -> None:
    configs = [with_value(base(), "model.depth", depth) for depth in (1, 2, 1, 2, 3)]
    assert grouped(configs) == Grouping([[0, 2], [1, 3]], [(4, "no other run has its shape")])


def test_linear_models() -> None:
    configs = [with_value(one, "seed", seed) for seed, one in enumerate(runs([None] * 3, depth=0))]
    assert grouped(configs).stacks == [[0, 1, 2]]


def test_lists_of_widths_by_their_length(compose_config) -> None:
    """As on the command line: a list overrides the depth in the model's file."""
    given = ["[4,8]", "[8,4,4]", "[5,8]", "[8,4,5]", "5"]
    configs = [compose_config("data=iris", f"model.hidden_units={one}") for one in given]
    assert grouped(configs).stacks == [[0, 2], [1, 3]]


def test_one_width_and_a_list_as_deep(compose_config) -> None:
    configs = [compose_config("data=iris", "model.depth=2", f"model.hidden_units={one}") for one in ("5", "[4,8]")]
    assert [one.model.layer_widths for one in configs] == [[5, 5], [4, 8]]
    assert grouped(configs).stacks == [[0, 1]]


# ---- what is never stacked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("ckpt_path", "run/last.ckpt", "continues from a checkpoint"),
        ("trainer.precision", "bf16-mixed", "trainer.precision = bf16-mixed"),
        ("callbacks.histograms_every_n_steps", 5, "callbacks.histograms_every_n_steps"),
        *[("optimizer.name", name, name) for name in sorted(set(TORCH_OPTIMIZERS) - set(STACKABLE_OPTIMIZERS))],
        *[
            (f"optimizer.options.{name}", True, f"optimizer.{name} = True")
            for name in ("maximize", "capturable", "differentiable", "centered")
        ],
        ("optimizer.options.eps", 0, "optimizer.eps = 0"),
        ("optimizer.options.eps", 0.0, "optimizer.eps = 0"),
    ],
)
def test_reason_to_be_alone(key: str, value: Any, reason: str) -> None:
    config = with_value(base(), key, value)
    assert reason in why_alone(config)
    alone = grouped([config, base(), config, base()])
    assert alone == Grouping([[1, 3]], [(0, why_alone(config)), (2, why_alone(config))])


@pytest.mark.parametrize("name", STACKABLE_OPTIMIZERS)
def test_no_reason_to_be_alone(name: str) -> None:
    # fused and foreach change how torch computes the update, not the update.
    for options in ({"foreach": False, "fused": None, "maximize": False}, {"foreach": True}, {"fused": True}):
        config = with_value(with_value(base(), "optimizer.name", name), "optimizer.options", {"eps": 1e-8, **options})
        assert why_alone(config) == ""
        assert grouped([config, config]).stacks == [[0, 1]]


def test_run_whose_data_cannot_be_used_does_not_affect_others() -> None:
    calls = []

    def sizes_of(config: Config) -> Sizes:
        calls.append(config.data.batch_size)
        if config.data.batch_size == 7:
            raise DataError("7 rows make no batch")
        return SIZES

    configs = [with_value(base(), "data.batch_size", size) for size in (7, 5, 7, 5, 6)]
    grouping = group_runs(configs, sizes_of, PLENTY)
    assert grouping.stacks == [[1, 3]]
    reasons = dict(grouping.alone)
    assert reasons[0] == reasons[2] == "its data cannot be used"
    assert reasons[4] == "no other run has its shape"
    assert set(calls) == {5, 6, 7}


# ---- tables ----------------------------------------------------------------------------------------------


def of_folds(folds: int) -> list[Config]:
    """A run for each fold of a table."""
    start = with_value(with_value(base(), "data.name", "wine"), "data.cv.folds", folds)
    return [with_value(start, "data.cv.fold", fold) for fold in range(folds)]


def test_folds_of_a_table_are_one_stack_if_their_shapes_are_equal() -> None:
    assert grouped(of_folds(5)).stacks == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("what", ["in_features", "out_features", "steps"])
def test_runs_of_a_table_with_other_shapes_are_other_stacks(what: str) -> None:
    """The features of a table depend on its training rows, so sizes_of is called for each run."""
    calls = []

    def sizes_of(config: Config) -> Sizes:
        fold = config.data.cv.fold or 0
        calls.append(fold)
        return dataclasses.replace(SIZES, **{what: 7 + fold % 2})

    grouping = group_runs(of_folds(5), sizes_of, PLENTY)
    assert grouping == Grouping([[0, 2, 4], [1, 3]], [])
    assert calls == [0, 1, 2, 3, 4]


def test_runs_of_a_table_that_differ_only_in_their_number_of_rows_are_one_stack() -> None:
    def sizes_of(config: Config) -> Sizes:
        return dataclasses.replace(SIZES, rows=SIZES.rows + (config.data.cv.fold or 0))

    assert group_runs(of_folds(3), sizes_of, PLENTY).stacks == [[0, 1, 2]]


def test_runs_that_embed_other_columns_are_other_stacks() -> None:
    def sizes_of(config: Config) -> Sizes:
        return dataclasses.replace(SIZES, embedded=(4, 0) if config.data.cv.fold in (1, 3) else (3, 1))

    assert group_runs(of_folds(5), sizes_of, PLENTY) == Grouping([[0, 2, 4], [1, 3]], [])


@pytest.mark.parametrize(
    ("key", "value"),
    [("norm", "batch"), ("norm", "layer"), ("residual", True), ("numeric_embedding", "periodic")],
)
def test_parts_that_differ_are_other_stacks(key: str, value: Any) -> None:
    config = with_value(base(), f"model.{key}", value)
    assert grouped([config, base(), config, base()]) == Grouping([[0, 2], [1, 3]], [])


def test_batches_of_batch_norm_are_not_accumulated() -> None:
    config = with_value(with_value(base(), "model.norm", "batch"), "trainer.accumulate_grad_batches", 2)
    assert "model.norm = batch treats the batches" in why_alone(config)
    assert why_alone(with_value(config, "model.norm", "layer")) == ""


def test_fold_whose_rows_cannot_be_used_does_not_affect_others() -> None:
    def sizes_of(config: Config) -> Sizes:
        if config.data.cv.fold in (0, 2):
            raise DataError("a class is missing")
        return SIZES

    grouping = group_runs(of_folds(4), sizes_of, PLENTY)
    assert grouping == Grouping([[1, 3]], [(0, "its data cannot be used"), (2, "its data cannot be used")])
