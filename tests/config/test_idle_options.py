"""Every option either always has an effect, or is refused where it has none."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.configuration_faults import accepted, fault_of, faults_of
from support.tables import set_up

from mlp_lightning.config import parse_config, schedules, schema
from mlp_lightning.data.reading import Given
from mlp_lightning.errors import ConfigError
from mlp_lightning.runs.build import build_data
from mlp_lightning.tables.reading.memory import MemorySource

TABLE: dict[str, Any] = {"data.name": "table", "data.path": "t.csv", "data.target": "y", "data.val_fraction": 0.2}
IRIS: dict[str, Any] = {"data.name": "iris", "data.val_fraction": 0.2, "data.test_fraction": 0.0}
LINEAR: dict[str, Any] = {"model.hidden_units": None, "model.depth": 0}
PLAIN_TABLE = {key: value for key, value in TABLE.items() if key != "data.val_fraction"}

# Options that decide something in every run that they can be set in.
ALWAYS = {
    *("name", "seed", "task", "verbosity", "ckpt_path", "auto_resume"),
    *("model.bias", "model.init", "model._target_", "data._target_", "optimizer._target_", "optimizer.name"),
    *("data.name", "data.batch_size", "scheduler.name", "scheduler.eta_min", "scheduler.pct_start"),
    *("scheduler.div_factor", "scheduler.final_div_factor", "scheduler.max_lr", "scheduler.step_size"),
    *("scheduler.gamma", "scheduler.interval", "scheduler.factor", "scheduler.patience", "scheduler.threshold"),
    *("scheduler.decay_rate", "scheduler.power"),
    *("scheduler.min_lr", "data.target", "data.columns.kind", "data.cv.folds", "data.weight_column"),
    *("trainer.accelerator", "trainer.precision", "trainer.max_epochs", "trainer.log_every_n_steps"),
    "trainer.print_every_n_steps",  # without output they are in train.log
    *("trainer.steps_per_execution", "trainer.gradient_clip_val", "trainer.threads", "trainer.engine"),
    *("callbacks.early_stopping.patience", "callbacks.early_stopping.min_delta", "callbacks.lr_monitor"),
    *("callbacks.checkpoint.every_n_steps", "callbacks.checkpoint.every_n_seconds", "callbacks.extra"),
    *("logger.tensorboard", "logger.csv", "ensemble.members", "preset.name"),
}
# What says how a command proceeds or how files are written, and no run has to make use of.
SAYS = {
    "sweep.name": "of a sweep, and refused for a single run, by tests/runs/test_options.py and tests/commands",
    "sweep.fail_fast": "likewise",
    "search.name": "likewise, by tests/sweeps/search",
    "sweep.store": "likewise",
    "sweep.keys": "filled in by the sweep",
    "allow_targets": "a permission",
    "trainer.max_steps": "the shorter of two lengths counts",
    "data.class_weight": "refused where the rows have no classes to balance, by tests/tables/test_targets.py",
    "trainer.label_smoothing": "refused for a regression, by tests/runs/test_options.py",
}
# For each other option the settings with which it has no effect; the option is refused under its key, or another one.
REFUSED: dict[str, dict[str, Any]] = {
    "model.hidden_units": {"model.hidden_units": 5, "model.depth": 0},
    "model.depth": {"model.hidden_units": [3, 4], "model.depth": 1},
    "model.activation": {**LINEAR, "model.activation": "tanh"},
    "model.dropout": {**LINEAR, "model.dropout": 0.25},
    "model.norm": {**LINEAR, "model.norm": "layer"},
    "model.residual": {**LINEAR, "model.residual": True},
    "model.embedding_frequencies": {"model.embedding_frequencies": 5},
    "model.embedding_sigma": {"model.numeric_embedding": "piecewise_linear", "model.embedding_sigma": 0.3},
    "data.val_fraction": {**TABLE, "data.val_path": "v.csv"},
    "data.test_fraction": {**TABLE, "data.test_fraction": 0.1, "data.test_path": "v.csv"},
    "data.split_seed": {"data.split_seed": 3},
    "data.shuffle": {**IRIS, "data.batch_size": None, "data.shuffle": False},
    "data.suggested_lr": {**IRIS, "data.suggested_lr": {"sgd": 0.3}, "optimizer.lr": 0.2},
    "data.path": {"data.path": "t.csv"},
    "data.val_path": {**PLAIN_TABLE, "data.split_column": "s", "data.val_path": "v.csv"},
    "data.test_path": {**PLAIN_TABLE, "data.cv.folds": 4, "data.test_path": "v.csv"},
    "data.group_column": {**PLAIN_TABLE, "data.val_fraction": 0.0, "data.test_fraction": 0.0, "data.group_column": "g"},
    "data.time_column": {**PLAIN_TABLE, "data.val_fraction": 0.0, "data.test_fraction": 0.0, "data.time_column": "g"},
    "data.split_column": {**PLAIN_TABLE, "data.cv.folds": 4, "data.split_column": "s"},
    "data.columns.format": {**TABLE, "data.columns": {"a": {"kind": "numeric", "format": "%d.%m.%Y"}}},
    **{
        f"data.csv.{key}": {**IRIS, "data.csv": {key: value}}
        for key, value in {"delimiter": ";", "decimal": ",", "thousands": "space", "encoding": "latin-1"}.items()
    },
    "data.csv.null_values": {**IRIS, "data.csv": {"null_values": ["-999"]}},
    "data.cv.held_out_as": {**IRIS, "data.cv.held_out_as": "val"},
    "data.cv.fold": {**IRIS, "data.cv.fold": 1},
    "data.samples": {**IRIS, "data.samples": 50},
    "data.noise": {**IRIS, "data.noise": 0.3},
    "data.sample_seed": {**IRIS, "data.sample_seed": 5},
    "data.bits": {**IRIS, "data.bits": 5},
    "optimizer.lr": {**IRIS, "optimizer.lr": 0.3, "scheduler.name": "one_cycle", "scheduler.max_lr": 0.2},
    "optimizer.dampening": {"optimizer.dampening": 0.5},
    "optimizer.decoupled_weight_decay": {"optimizer.name": "NAdam", "optimizer.decoupled_weight_decay": True},
    "scheduler.monitor": {"scheduler.name": "plateau", "scheduler.monitor": "loss/val"},
    "trainer.check_val_every_n_epoch": {"trainer.check_val_every_n_epoch": 3},
    "trainer.gradient_clip_algorithm": {"trainer.gradient_clip_algorithm": "value"},
    "trainer.accumulate_grad_batches": {**IRIS, "data.batch_size": None, "trainer.accumulate_grad_batches": 2},
    "callbacks.early_stopping.monitor": {"callbacks.early_stopping": {"monitor": "accuracy/val"}},
    "callbacks.checkpoint.monitor": {"callbacks.checkpoint.monitor": "loss/val"},
    "callbacks.histograms_every_n_steps": {"logger.tensorboard": False, "callbacks.histograms_every_n_steps": 5},
    "callbacks.snapshots": {"callbacks.checkpoint": None, "callbacks.snapshots": 9},
    "logger.graph": {"logger.tensorboard": False, "logger.graph": True},
    "preset.candidates": {"preset.candidates": 4},
    "preset.time_limit_s": {"preset.time_limit_s": 5.0},
    "preset.fixed": {"preset.fixed": ["model.depth"]},
    "sweep.resume": {"sweep.resume": True},
    "search.trials": {"search.trials": 4},
    "search.batch": {"search.name": "halving", **IRIS, "search.batch": 4},
    "search.seed": {"search.seed": 3},
    "search.pruner": {"search.name": "halving", **IRIS, "search.pruner": "median"},
    "search.reduction_factor": {"search.name": "random", "search.reduction_factor": 4},
    "search.time_limit_s": {"search.name": "random", "search.trials": 9, "search.time_limit_s": 60.0},
    "report_weights": {"report_weights": "best", "callbacks.checkpoint": None},
}
NUMBERS = pa.table({"a": np.arange(40) * 1.5, "b": np.arange(40) % 7 * 0.1})
WORDS = pa.table({"a": ["left", "right"] * 20, "b": ["up", "down", "up", "up"] * 10})
# By the columns of the table.
REFUSED_BY_ROWS: dict[str, tuple[Any, pa.Table]] = {
    "data.scaling": ("robust", WORDS),
    "data.max_one_hot": (3, NUMBERS),
    "data.max_categories": (50, NUMBERS),
    "model.numeric_embedding": ("periodic", WORDS),
    "model.embedding_size": (4, NUMBERS),
}


def options(cls: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all options of a dataclass and of its sections."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        inner = [
            one for one in typing.get_args(hints[field.name]) or [hints[field.name]] if dataclasses.is_dataclass(one)
        ]
        if field.name == "options" or hints[field.name] == list[schema.OwnCallbackConfig]:
            if field.name != "options":
                yield f"{prefix}{field.name}"
            continue
        for one in inner:
            yield from options(typing.cast("type", one), f"{prefix}{field.name}.")
        if not inner:
            yield f"{prefix}{field.name}"


def test_every_option_is_listed() -> None:
    own = {"model": schema.OwnModelConfig, "data": schema.OwnDataConfig, "optimizer": schema.OwnOptimizerConfig}
    known = {*options(schema.Config), *(key for name, cls in own.items() for key in options(cls, f"{name}."))}
    refused = REFUSED.keys() | REFUSED_BY_ROWS.keys()
    # Arguments of torch's optimizers, which the schema does not list.
    assert known | {"optimizer.dampening", "optimizer.decoupled_weight_decay"} == ALWAYS | SAYS.keys() | refused
    assert not ALWAYS & refused
    assert not SAYS.keys() & (ALWAYS | refused)
    assert len(schedules.SCHEDULES) == len(typing.get_args(schedules.ScheduleConfig))


@pytest.mark.parametrize("key", REFUSED)
def test_an_option_without_effect_is_refused(key: str) -> None:
    settings = REFUSED[key]
    concerned = {fault.key for fault in faults_of(settings)}
    section = key.rpartition(".")[0]
    others = {"data.columns.format": "data.columns.a.format", "model.depth": "model.depth"}
    assert {key, section, others.get(key, key)} & concerned, concerned


@pytest.mark.parametrize("key", [key for key in REFUSED if key.split(".")[-1] not in ("depth", "hidden_units")])
def test_a_default_is_not_refused(key: str) -> None:
    """What makes the option idle is valid without it."""
    needed = {"report_weights", "data.path", "data.csv", "data.cv.fold"}
    settings = {one: value for one, value in REFUSED[key].items() if one != key and not one.startswith(key)}
    settings.pop("data.csv", None)
    if key not in needed and "data.columns" not in settings and "callbacks.early_stopping" not in settings:
        accepted(settings)


@pytest.mark.parametrize(
    ("key", "value", "with_effect"),
    [
        ("data.shuffle", False, {**IRIS, "data.batch_size": 20}),
        ("trainer.accumulate_grad_batches", 3, {**IRIS, "data.batch_size": 20}),
        ("trainer.gradient_clip_algorithm", "value", {"trainer.gradient_clip_val": 1.0}),
        ("trainer.check_val_every_n_epoch", 2, IRIS),
        ("model.embedding_sigma", 0.3, {"model.numeric_embedding": "periodic"}),
        ("model.embedding_frequencies", 4, {"model.numeric_embedding": "piecewise_linear"}),
        ("optimizer.lr", 0.3, {"scheduler.name": "one_cycle"}),
        ("optimizer.dampening", 0.5, {"optimizer.momentum": 0.9}),
        ("optimizer.decoupled_weight_decay", True, {"optimizer.name": "NAdam", "optimizer.weight_decay": 0.3}),
    ],
)
def test_options_with_an_effect_are_taken(key: str, value: Any, with_effect: dict[str, Any]) -> None:
    accepted({**with_effect, key: value})


def test_what_is_said_of_an_option_without_effect() -> None:
    fault = fault_of({**IRIS, "data.batch_size": None, "data.shuffle": False})
    assert str(fault) == (
        "data.shuffle = False has no effect: data.batch_size = None makes one batch of all rows; set data.batch_size,"
        " or leave it out"
    )
    # A sweep or a file of conf/ may say what is the case anyway, and what nobody set is no fault.
    accepted({**IRIS, "data.batch_size": None, "data.shuffle": True, "trainer.accumulate_grad_batches": 1})
    accepted({**IRIS, "data.batch_size": None, "data.shuffle": False}, explicit=["data.batch_size"])


@pytest.mark.parametrize("key", REFUSED_BY_ROWS)
def test_an_option_of_columns_that_a_table_lacks_is_refused(key: str) -> None:
    value, table = REFUSED_BY_ROWS[key]
    table = table.append_column("y", pa.array(["n", "y", "y", "n"] * 10))
    section, _, name = key.partition(".")
    plain = {"data": {"name": "table", "path": "-", "target": "y"}, "trainer": {"max_steps": 1}}
    given = Given(MemorySource(table, "the table"))
    build_data(parse_config(plain), given)
    plain.setdefault(section, {})[name] = value  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=rf"{key} = '?{value}'? has no effect: no column"):
        build_data(parse_config(plain), given)


@pytest.mark.parametrize("key", [key for key in REFUSED_BY_ROWS if key.startswith("data.")])
def test_a_data_module_refuses_it_itself(key: str) -> None:
    value, table = REFUSED_BY_ROWS[key]
    set_up(table.append_column("y", pa.array(["n", "y"] * 20)))
    with pytest.raises(ConfigError, match=rf"{key} = '?{value}'? has no effect: no column"):
        set_up(table.append_column("y", pa.array(["n", "y"] * 20)), **{key.removeprefix("data."): value})


def test_a_batch_of_all_rows_is_not_shuffled() -> None:
    table = NUMBERS.append_column("y", pa.array(["n", "y"] * 20))
    note = "data.shuffle=false has no effect: all 40 training rows are one batch"
    assert note in set_up(table, batch_size=64, shuffle=False).describe()
    assert note not in set_up(table, batch_size=8, shuffle=False).describe()
