"""Faults in the configuration of a table, with the message that the user sees."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from support.table_faults import TABLE, accepted, fault_of, faults_of, nested

from mlp_lightning.config import CsvConfig, parse_config
from mlp_lightning.config.inference import (
    CsvAsTrained,
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    PredictConfig,
    RowsConfig,
    ThresholdConfig,
    idle_options,
)
from mlp_lightning.config.names import data_sets
from mlp_lightning.config.parsing import parse_section
from mlp_lightning.errors import ConfigError, Fault

# ---- options of every data set ---------------------------------------------------------------------------

OF_TABLES = {
    "data.val_path": "val.csv",
    "data.test_path": "test.csv",
    "data.target": ["y", "z"],
    "data.weight_column": "w",
    "data.class_weight": "balanced",
    "data.group_column": "g",
    "data.time_column": "t",
    "data.split_column": "s",
    "data.columns": {"x": {"kind": "numeric"}},
    "data.cv.folds": 5,
    "data.scaling": "robust",
    "task": "binary",
    "model.numeric_embedding": "periodic",
}


@pytest.mark.parametrize("name", ["table", "wine", "iris", "xor", "moons"])
@pytest.mark.parametrize("key", OF_TABLES)
def test_every_data_set_is_a_table(key: str, name: str) -> None:
    plain = nested({**(TABLE if name == "table" else {"data.name": name, "trainer.max_steps": 1}), key: OF_TABLES[key]})
    if name == "xor" and key in ("data.group_column", "data.time_column"):
        with pytest.raises(ConfigError, match="has no effect: no rows are split off"):
            parse_config(plain)
        plain["data"]["cv"] = {"folds": 2}
    assert parse_config(plain) != parse_config(nested(TABLE))


@pytest.mark.parametrize("name", ["wine", "xor"])
def test_how_text_is_read_where_none_is(name: str) -> None:
    settings = {"data.name": name, "trainer.max_steps": 1, "data.csv.decimal": ","}
    with pytest.raises(ConfigError) as caught:
        parse_config(nested(settings))
    rule = f"has no effect: data.name = {name!r} brings its own rows"
    assert caught.value.faults == (Fault("data.csv.decimal", ",", rule, "leave it out"),)
    parse_config(nested({**settings, "data.test_path": "test.csv"}))


# ---- path and target -------------------------------------------------------------------------------------


def test_path_is_missing() -> None:
    hint = "name a CSV, TSV, Parquet or Feather file, a folder or a pattern"
    assert fault_of(**{"data.path": None}) == Fault("data.path", None, "is missing", hint)


def test_target_is_missing() -> None:
    assert fault_of(**{"data.target": None}) == Fault("data.target", None, "is missing", "name the column to predict")


def test_path_and_target_are_missed_at_once() -> None:
    assert [one.key for one in faults_of(**{"data.path": None, "data.target": None})] == ["data.path", "data.target"]


@pytest.mark.parametrize("name", [one for one in data_sets() if one != "table"])
def test_tables_that_bring_their_rows(name: str) -> None:
    accepted(**{"data.name": name, "data.path": None, "data.target": None})
    # A path beside them would not be read.
    fault = fault_of(**{"data.name": name, "data.target": None})
    rule = f"contradicts data.name = {name!r}, which brings its own rows"
    assert fault == Fault("data.path", "rows.csv", rule, "choose data=table")


@pytest.mark.parametrize("target", ["y", ["y"], ["y", "z"]])
def test_targets(target: str | list[str]) -> None:
    assert accepted(**{"data.target": target}).data.target == target


# ---- ways to split ---------------------------------------------------------------------------------------

WAYS = ("split_column", "group_column", "time_column")


@pytest.mark.parametrize("way", WAYS)
def test_one_way_to_split(way: str) -> None:
    assert getattr(accepted(**{f"data.{way}": "c"}).data, way) == "c"


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(WAYS, 2)))
def test_two_ways_to_split(one: str, other: str) -> None:
    fault = fault_of(**{f"data.{one}": "a", f"data.{other}": "b"})
    assert fault == Fault(f"data.{one}", "a", f"contradicts data.{other}", "split in one way")


def test_three_ways_to_split() -> None:
    assert fault_of(**{f"data.{way}": "a" for way in WAYS}).key == "data.split_column"


@pytest.mark.parametrize(
    ("paths", "key", "other"),
    [
        ({"path": "rows/a.csv", "test_path": "rows/./a.csv"}, "test_path", "path"),
        ({"path": "-", "val_path": "-"}, "val_path", "path"),
        ({"path": "rows", "val_path": "held.parquet", "test_path": "held.parquet"}, "test_path", "val_path"),
    ],
)
def test_one_table_is_not_for_two_splits(paths: dict[str, str], key: str, other: str) -> None:
    fault = fault_of(**{f"data.{name}": path for name, path in paths.items()})
    rule = f"is the table of data.{other}, too: the same rows would be in both splits"
    hint = f"name other rows, or leave it out and set data.{key.replace('path', 'fraction')}"
    assert fault == Fault(f"data.{key}", paths[key], rule, hint)
    accepted(**{f"data.{name}": path for name, path in {**paths, key: "new.csv"}.items()})


@pytest.mark.parametrize("key", ["data.val_path", "data.test_path"])
def test_files_of_splits_against_a_split_column(key: str) -> None:
    fault = fault_of(**{"data.split_column": "s", key: "other.csv"})
    assert fault == Fault(key, "other.csv", "contradicts data.split_column", "leave one of them out")
    for way in ("group_column", "time_column"):
        accepted(**{f"data.{way}": "c", key: "other.csv"})


@pytest.mark.parametrize("rows", [{"data.val_path": "v.csv"}, {"data.split_column": "s"}, {"data.val_fraction": 0.1}])
@pytest.mark.parametrize(
    "watcher",
    [
        {"callbacks.checkpoint.monitor": "loss/val"},
        {"callbacks.early_stopping.monitor": "accuracy/val"},
        {"scheduler.name": "plateau", "scheduler.monitor": "loss/val"},
    ],
)
def test_validation_rows_from_a_file_or_a_column(watcher: dict[str, Any], rows: dict[str, Any]) -> None:
    without = {"data.val_fraction": 0.0}
    accepted(**watcher, **{**without, **rows})
    assert "needs validation rows" in fault_of(**watcher, **without).rule


@pytest.mark.parametrize("key", ["data.val_fraction", "data.test_fraction"])
def test_parity_has_only_training_rows(key: str) -> None:
    parity = {"data.name": "parity", "data.path": None, "data.target": None}
    assert fault_of(**parity, **{key: 0.2}) == Fault(key, 0.2, "must be 0 for parity, whose rows are all training rows")
    accepted(**parity)


@pytest.mark.parametrize(
    ("key", "deciding"),
    [
        ("data.val_fraction", {"data.val_path": "v.csv"}),
        ("data.val_fraction", {"data.split_column": "s"}),
        ("data.test_fraction", {"data.test_path": "t.csv"}),
        ("data.test_fraction", {"data.split_column": "s"}),
        ("data.test_fraction", {"data.cv.folds": 3}),
    ],
)
def test_fractions_of_rows_that_something_else_decides(key: str, deciding: dict[str, Any]) -> None:
    assert getattr(accepted(**deciding).data, key.removeprefix("data.")) > 0  # the default of a table gives way
    fault = fault_of(**deciding, **{key: 0.2})
    rule = f"has no effect: {next(iter(deciding))} decides these rows"
    assert fault == Fault(key, 0.2, rule, "leave one of them out")
    accepted(**deciding, **{key: 0.0})


@pytest.mark.parametrize("way", ["group_column", "time_column"])
def test_ways_to_split_nothing(way: str) -> None:
    nothing = {"data.val_fraction": 0.0, "data.test_fraction": 0.0, f"data.{way}": "c"}
    assert fault_of(**nothing).rule == "has no effect: no rows are split off"
    accepted(**nothing, **{"data.cv.folds": 3})
    files = {"data.val_path": "v.csv", "data.test_path": "t.csv", f"data.{way}": "c"}
    assert fault_of(**files).key == f"data.{way}"


# ---- cross-validation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [0, 3])
def test_fold_of_no_folds(fold: int) -> None:
    rule = "needs data.cv.folds, the number of folds"
    assert fault_of(**{"data.cv.fold": fold}) == Fault("data.cv.fold", fold, rule, "for example 5")


def test_fold_that_is_not_there() -> None:
    fault = fault_of(**{"data.cv.folds": 5, "data.cv.fold": 5})
    assert fault == Fault("data.cv.fold", 5, "must be less than data.cv.folds = 5", "folds count from 0")
    for fold in (None, 0, 4):
        assert accepted(**{"data.cv.folds": 5, "data.cv.fold": fold}).data.cv.fold == fold


@pytest.mark.parametrize("fold", [None, 1])
@pytest.mark.parametrize("key", ["data.split_column", "data.test_path"])
def test_test_rows_contradict_folds(key: str, fold: int | None) -> None:
    fault = fault_of(**{"data.cv.folds": 3, "data.cv.fold": fold, key: "other"})
    rule = "contradicts data.cv.folds: each fold holds out its own test rows"
    assert fault == Fault(key, "other", rule, "leave one of them out")


@pytest.mark.parametrize("key", ["data.group_column", "data.time_column", "data.val_path", "data.weight_column"])
def test_what_goes_with_folds(key: str) -> None:
    accepted(**{"data.cv.folds": 3, key: "other"})


def test_folds_are_predicted_with_models_that_are_kept() -> None:
    without: dict[str, Any] = {"data.cv.folds": 3, "callbacks.checkpoint": None}
    rule = "keeps no model to predict the rows of a fold with"
    assert fault_of(**without) == Fault("callbacks.checkpoint", None, rule, "keep it")
    accepted(**without, **{"data.cv.fold": 0})


def test_a_checkpoint_is_one_run() -> None:
    several = {"data.cv.folds": 3, "ckpt_path": "last"}
    rule = "is one run, and data.cv.folds are several"
    assert fault_of(**several) == Fault("ckpt_path", "last", rule, "choose data.cv.fold")
    accepted(**several, **{"data.cv.fold": 2})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"data.val_path": "v.csv"},
        {"data.test_fraction": 0.2, "data.time_column": "t"},
        {"data.split_column": "s"},
        {"data.cv.folds": 3, "data.time_column": "t"},
    ],
)
def test_a_split_that_is_not_drawn_has_no_seed(settings: dict[str, Any]) -> None:
    base = {"data.val_fraction": 0.0, "data.test_fraction": 0.0, **settings}
    faults = faults_of(**base, **{"data.split_seed": 7})
    (fault,) = (one for one in faults if one.key == "data.split_seed")
    rule, hint = "has no effect: nothing is drawn to split these rows", "leave it out, or set data.val_fraction"
    assert fault == Fault("data.split_seed", 7, rule, f"{hint} or data.test_fraction")
    assert not accepted(**base).data.split_follows_seed


@pytest.mark.parametrize(
    "settings",
    [{"data.val_fraction": 0.2}, {"data.test_fraction": 0.2, "data.val_path": "v.csv"}, {"data.cv.folds": 3}],
)
def test_the_seed_of_a_split(settings: dict[str, Any]) -> None:
    base = {"data.val_fraction": 0.0, "data.test_fraction": 0.0, **settings}
    assert accepted(**base).data.split_follows_seed
    assert not accepted(**base, **{"data.split_seed": 7}).data.split_follows_seed


def test_all_contradictions_of_a_table_at_once() -> None:
    faults = faults_of(
        **{
            "data.path": None,
            "data.split_column": "s",
            "data.time_column": "t",
            "data.val_path": "v.csv",
            "data.cv.folds": 2,
            "data.cv.fold": 2,
        }
    )
    assert [one.key for one in faults] == [
        "data.path",
        "data.split_column",
        "data.val_path",
        "data.cv.fold",
        "data.split_column",
    ]


# ---- sections alone --------------------------------------------------------------------------------------


def test_section_alone() -> None:
    plain = {"ckpt_path": "best", "data": {"path": "new.csv", "csv": {"decimal": ","}}, "output": "p.csv"}
    options = parse_section(PredictConfig, plain, {"ckpt_path": "name one", "data.path": "name it"})
    assert (options.ckpt_path, options.data.path, options.output, options.overwrite) == (
        "best",
        "new.csv",
        "p.csv",
        False,
    )
    assert options.data.csv == CsvAsTrained(decimal=",")
    assert parse_section(ExportConfig, {}) == ExportConfig()


@pytest.mark.parametrize(
    ("command", "given", "key"),
    [
        (EvaluateConfig(data=RowsConfig("new.csv"), split="val"), ["data.path", "split"], "split"),
        (EvaluateConfig(data=RowsConfig(csv=CsvAsTrained(decimal=","))), ["data.csv.decimal"], "data.csv.decimal"),
        (EvaluateConfig(resamples=0, confidence=0.9), ["resamples", "confidence"], "confidence"),
        (EvaluateConfig(resamples=0, seed=3), ["resamples", "seed"], "seed"),
        (EvaluateConfig(threshold=ThresholdConfig(value=0.3, recall=0.7)), [], "threshold.recall"),
        (EvaluateConfig(threshold=ThresholdConfig(precision=0.8, recall=0.7)), [], "threshold.recall"),
        (EvaluateConfig(threshold=ThresholdConfig(false_negative_cost=3)), [], "threshold.false_positive_cost"),
        (EvaluateConfig(threshold=ThresholdConfig(false_positive_cost=3)), [], "threshold.false_negative_cost"),
        (
            EvaluateConfig(threshold=ThresholdConfig(false_positive_cost=0, false_negative_cost=0)),
            [],
            "threshold.false_positive_cost",
        ),
        (
            EvaluateConfig(threshold=ThresholdConfig(recall=0.5, false_positive_cost=2, false_negative_cost=1)),
            [],
            "threshold.false_positive_cost",
        ),
        (ExplainConfig(data=RowsConfig("new.csv"), split="val"), ["data.path", "split"], "split"),
        (ExplainConfig(data=RowsConfig(csv=CsvAsTrained(decimal=","))), ["data.csv.decimal"], "data.csv.decimal"),
    ],
)
def test_options_of_a_command_without_effect(
    command: EvaluateConfig | ExplainConfig, given: list[str], key: str
) -> None:
    (fault,) = idle_options(command, given)
    assert fault.key == key
    if given:
        assert idle_options(command, ["data.path"]) == []


def test_every_fault_of_a_section_at_once() -> None:
    plain = {"data": {"csv": {"delimiter": "tabs"}}, "splt": "val", "verbosity": "much"}
    required = {"ckpt_path": "name a run", "data.path": "name a table", "data.csv.decimal": "say it"}
    with pytest.raises(ConfigError) as caught:
        parse_section(EvaluateConfig, plain, required)
    assert [(one.key, one.value, one.hint) for one in caught.value.faults] == [
        ("splt", "val", "did you mean split?"),
        ("data.csv.delimiter", "tabs", "did you mean tab?"),
        ("verbosity", "much", ""),
        ("ckpt_path", None, "name a run"),
        ("data.path", None, "name a table"),
        ("data.csv.decimal", None, "say it"),
    ]


@pytest.mark.parametrize("plain", [{}, {"data": None}, {"data": 5}, {"data": {"path": None}}])
def test_required_key_that_is_not_there(plain: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(PredictConfig, plain, {"data.path": "name it"})
    assert Fault("data.path", None, "is missing", "name it") in caught.value.faults


# ---- text files as in the training -----------------------------------------------------------------------

TRAINED = CsvConfig(delimiter=";", decimal=",", encoding="latin-1", null_values=["?"])


def test_text_files_are_read_as_in_the_training() -> None:
    assert CsvAsTrained().over(TRAINED) == TRAINED
    assert CsvAsTrained().over(CsvConfig()) == CsvConfig()


@pytest.mark.parametrize(
    ("name", "value"), [("delimiter", "tab"), ("decimal", "."), ("encoding", "utf-8"), ("null_values", ["-"])]
)
def test_what_is_given_wins_over_the_training(name: str, value: Any) -> None:
    read = CsvAsTrained(**{name: value}).over(TRAINED)
    assert getattr(read, name) == value
    others = {"delimiter", "decimal", "encoding", "null_values"} - {name}
    assert all(getattr(read, one) == getattr(TRAINED, one) for one in others)


def test_an_empty_list_of_missing_values_wins_over_the_training() -> None:
    assert CsvAsTrained(null_values=[]).over(TRAINED).null_values == []
