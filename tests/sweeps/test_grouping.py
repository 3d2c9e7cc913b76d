"""Which runs train as one stack: depends only on their configurations and sizes."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mlp_lightning.config import Config
from mlp_lightning.config.names import STACKABLE_OPTIMIZERS, TORCH_OPTIMIZERS
from mlp_lightning.config.schedules import SCHEDULES
from mlp_lightning.config.schema import EarlyStoppingConfig, OwnCallbackConfig
from mlp_lightning.errors import DataError
from mlp_lightning.sweeps.grouping import Grouping, Sizes, group_runs, why_alone

PLENTY = 2**40
# Enough rows that the arithmetic of every matrix product counts.
SIZES = Sizes(in_features=4, out_features=3, rows_per_step=1000, rows=1500, steps=100)
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


def with_value(config: Any, key: str, value: Any) -> Any:
    """The configuration with another value at a dotted key."""
    first, _, rest = key.partition(".")
    if isinstance(config, dict):
        return {**config, first: value}
    return dataclasses.replace(config, **{first: with_value(getattr(config, first), rest, value) if rest else value})


def base(schedule: type = SCHEDULES["none"]) -> Config:
    """A run that can be stacked, in which no section is null."""
    config = with_value(Config(), "callbacks.early_stopping", EarlyStoppingConfig())
    options = {"weight_decay": 0.0, "momentum": 0.9, "nesterov": False}
    return with_value(with_value(config, "optimizer.options", options), "scheduler", schedule())


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


def runs(widths: Sequence[Any], **model: Any) -> list[Config]:
    start = with_value(base(), "model", dataclasses.replace(base().model, **model))
    return [with_value(start, "model.hidden_units", one) for one in widths]


def grouped(configs: Sequence[Config], memory: int = PLENTY, stacks_at_least: int = 1) -> Grouping:
    return group_runs(configs, lambda _: SIZES, memory, stacks_at_least)


def assert_complete(grouping: Grouping, count: int) -> None:
    """Every run occurs once, stacks have several runs, and everything is sorted."""
    indices = [*itertools.chain(*grouping.stacks), *(index for index, _ in grouping.alone)]
    assert sorted(indices) == list(range(count))
    assert all(len(stack) > 1 for stack in grouping.stacks)
    assert grouping.stacks == sorted(sorted(stack) for stack in grouping.stacks)
    assert grouping.alone == sorted(grouping.alone)
    assert all(reason for _, reason in grouping.alone)


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
