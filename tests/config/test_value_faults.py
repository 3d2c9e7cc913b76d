"""Values of the wrong type or out of range, with the message that the user sees."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.configuration_faults import VALID, accepted, fault_of

from mlp_lightning.config import parse_config
from mlp_lightning.config.conf_files import option_names
from mlp_lightning.errors import ConfigError, Fault

# ---- wrong types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("seed", "x", "must be a whole number"),
        ("seed", 1.5, "must be a whole number"),
        ("seed", 1.0, "must be a whole number"),
        ("seed", True, "must be a whole number"),
        ("seed", None, "must be a whole number"),
        ("trainer.log_every_n_steps", None, "must be a whole number"),
        ("optimizer.lr", "fast", "must be a number"),
        ("optimizer.lr", "0.1", "must be a number"),
        ("optimizer.lr", True, "must be a number"),
        ("optimizer.lr", None, "must be a number"),
        ("optimizer.lr", [0.1], "must be a number"),
        ("model.bias", "yes", "must be true or false"),
        ("model.bias", 1, "must be true or false"),
        ("model.bias", None, "must be true or false"),
        ("model.activation", ["relu"], "must be a text"),
        ("model.activation", True, "must be a text"),
        ("model.activation", None, "must be a text"),
        ("name", ["a"], "must be a text"),
        ("ckpt_path", ["a"], "must be a text or null"),
        ("model.depth", 2.5, "must be a whole number or null"),
        ("model.depth", False, "must be a whole number or null"),
        ("model.hidden_units", "wide", "must be a whole number or a list of whole numbers or null"),
        ("model.hidden_units", [4, 2.5], "must be a whole number or a list of whole numbers or null"),
        ("model.hidden_units", [4, True], "must be a whole number or a list of whole numbers or null"),
        ("model.hidden_units", [[4]], "must be a whole number or a list of whole numbers or null"),
        ("model.hidden_units", {"first": 4}, "must be a whole number or a list of whole numbers or null"),
        ("trainer.gradient_clip_val", "1", "must be a number or null"),
        ("trainer.threads", [1], "must be a whole number or auto"),
        ("trainer.threads", None, "must be a whole number or auto"),
        ("data.suggested_lr", 0.1, "must be a mapping of names to numbers"),
        ("data.batch_size", "all", "must be a whole number or auto or null"),
        ("data.target", {"a": 1}, "must be a text or a list of texts or null"),
        ("data.target", ["a", None], "must be a text or a list of texts or null"),
        ("data.csv.null_values", ["?", 9], "must be a list of texts or auto"),
        ("data.csv.null_values", None, "must be a list of texts or auto"),
        ("data.cv.folds", 2.5, "must be a whole number or null"),
        ("trainer.label_smoothing", None, "must be a number or auto"),
        ("optimizer.momentum", "0.9", "must be a number"),
        ("optimizer.momentum", True, "must be a number"),
        ("optimizer.momentum", None, "must be a number"),
        ("optimizer.nesterov", 1, "must be true or false"),
        ("optimizer.name", ["SGD"], "must be a text"),
        ("optimizer.name", None, "must be a text"),
    ],
)
def test_wrong_type(key: str, value: Any, rule: str) -> None:
    assert fault_of({key: value}) == Fault(key, value, rule)


@pytest.mark.parametrize("value", ["fast", True])
def test_suggested_learning_rate_of_a_wrong_type(value: Any) -> None:
    fault = fault_of({"data.suggested_lr": {"sgd": value}, "optimizer.lr": 0.1})
    assert fault == Fault("data.suggested_lr", {"sgd": value}, "must be a mapping of names to numbers")


@pytest.mark.parametrize("value", ["auot", "Auto"])
def test_mistyped_auto(value: str) -> None:
    fault = fault_of({"trainer.steps_per_execution": value})
    assert fault == Fault("trainer.steps_per_execution", value, "must be a whole number or auto", "did you mean auto?")


def test_every_accepted_type_is_named() -> None:
    fault = fault_of({"trainer.print_every_n_steps": "never"})
    assert sorted(fault.rule.removeprefix("must be ").split(" or ")) == ["a whole number", "auto", "null"]


@pytest.mark.parametrize("value", [5, "nothing", None, [1], True])
@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ("data.csv", "its keys are delimiter, decimal, thousands, encoding, null_values"),
        ("data.cv", "its keys are folds, fold"),
        ("model", "its keys are hidden_units, depth, "),
        ("data", "its keys are name, batch_size, "),
        ("optimizer", "its keys are name, lr"),
        ("trainer", "its keys are accelerator, "),
        ("callbacks", "its keys are checkpoint, "),
        ("logger", "its keys are tensorboard, csv, graph"),
        ("scheduler", "choose one with scheduler=cosine"),
    ],
)
def test_section_that_is_not_a_mapping(section: str, hint: str, value: Any) -> None:
    fault = fault_of({section: value})
    assert (fault.key, fault.value) == (section, value)
    if isinstance(value, str) and "." not in section:  # a text is an option of the group
        assert fault.rule == "must be one of " + ", ".join(option_names(section))
    else:
        assert fault.rule == "must be a section"
        assert fault.hint.startswith(hint)


@pytest.mark.parametrize("section", ["callbacks.checkpoint", "callbacks.early_stopping"])
def test_optional_section(section: str) -> None:
    fault = fault_of({section: "on"})
    assert (fault.key, fault.rule) == (section, "must be a section")
    assert getattr(accepted({section: None}).callbacks, section.split(".")[1]) is None


@pytest.mark.parametrize("plain", [None, 5, [VALID]])
def test_configuration_that_is_not_a_mapping(plain: Any) -> None:
    with pytest.raises(ConfigError, match="must be a section"):
        parse_config(plain)


@pytest.mark.parametrize("key", ["seed", "model.dropout", "optimizer.lr", "optimizer.momentum", "trainer.threads"])
def test_nan_is_not_a_number(key: str) -> None:
    fault = fault_of({key: math.nan})
    assert fault.key == key
    assert "number" in fault.rule


def test_whole_numbers_are_numbers() -> None:
    config = accepted({"optimizer.lr": 1, "optimizer.momentum": 0})
    assert isinstance(config.optimizer.lr, float)
    assert isinstance(config.optimizer.options["momentum"], float)


# ---- values out of range ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("trainer.max_steps", 0, "must be at least 1"),
        ("trainer.max_epochs", -1, "must be at least 1"),
        ("trainer.threads", 0, "must be between 1 and 1024"),
        ("trainer.print_every_n_steps", 0, "must be at least 1"),
        ("data.batch_size", 0, "must be at least 1"),
        ("model.hidden_units", 0, "must be at least 1"),
        ("model.depth", -1, "must be between 0 and 10000"),
        ("optimizer.lr", -0.1, "must be at least 0"),
        ("optimizer.momentum", -0.1, "must be at least 0"),
        ("trainer.gradient_clip_val", 0, "must be greater than 0"),
        ("trainer.gradient_clip_val", -1.0, "must be greater than 0"),
        ("model.dropout", 1, "must be at least 0 and less than 1"),
        ("model.dropout", -0.01, "must be at least 0 and less than 1"),
        ("data.val_fraction", 1.0, "must be at least 0 and less than 1"),
        ("seed", -1, "must be at least 0 and less than 9223372036854775808"),
        ("seed", 2**63, "must be at least 0 and less than 9223372036854775808"),
        ("verbosity", -1, "must be between 0 and 2"),
        ("verbosity", 3, "must be between 0 and 2"),
        ("name", "", "must be the name of a folder, relative and without .., of at most 200 bytes"),
        ("name", "  ", "must be the name of a folder, relative and without .., of at most 200 bytes"),
        ("name", "../elsewhere", "must be the name of a folder, relative and without .., of at most 200 bytes"),
        ("name", "/elsewhere", "must be the name of a folder, relative and without .., of at most 200 bytes"),
        ("name", "???", "must be the name of a folder, relative and without .., of at most 200 bytes"),
        ("ckpt_path", "", "must be a text that is not empty"),
        ("optimizer.lr", float("inf"), "must be finite"),
        ("model.hidden_units", [4, 0], "must have only values at least 1"),
        ("data.suggested_lr", {"sgd": 0.1, "adam": 0.0}, "must have only values greater than 0"),
        ("data.max_one_hot", -1, "must be at least 0"),
        ("data.samples", 1, "must be at least 2"),
        ("data.noise", -0.1, "must be at least 0"),
        ("data.bits", 0, "must be between 1 and 16"),
        ("data.bits", 17, "must be between 1 and 16"),
        ("data.sample_seed", 2**32, "must be at least 0 and less than 4294967296"),
        ("data.cv.folds", 1, "must be at least 2"),
        ("data.cv.fold", -1, "must be at least 0"),
        ("data.target", "", "must be a text that is not empty"),
        ("data.target", ["a", " "], "must have only values a text that is not empty"),
        ("data.csv.encoding", "", "must be a text that is not empty"),
        ("model.embedding_size", 0, "must be between 1 and 10000"),
        ("model.embedding_frequencies", 0, "must be between 1 and 10000"),
        ("model.embedding_sigma", 0.0, "must be greater than 0"),
        ("trainer.label_smoothing", 1.0, "must be at least 0 and less than 1"),
    ],
)
def test_out_of_range(key: str, value: Any, rule: str) -> None:
    assert fault_of({key: value}) == Fault(key, value, rule)


@pytest.mark.parametrize("key", ["optimizer.lr", "optimizer.momentum", "trainer.gradient_clip_val", "model.dropout"])
def test_infinity_is_out_of_range(key: str) -> None:
    assert fault_of({key: math.inf}).key == key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.max_steps", 1),
        ("model.hidden_units", 1),
        ("optimizer.lr", 0.0),
        ("trainer.gradient_clip_val", 1e-9),
        ("model.dropout", 0.0),
        ("model.dropout", 0.999),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("verbosity", 0),
        ("verbosity", 2),
        ("trainer.threads", 1),
        ("trainer.threads", "auto"),
        ("data.batch_size", None),
        ("data.batch_size", "auto"),
        ("trainer.label_smoothing", "auto"),
        ("data.bits", 1),
        ("data.bits", 16),
        ("data.sample_seed", 2**32 - 1),
        ("data.max_one_hot", 0),
        ("callbacks.checkpoint.every_n_seconds", 0.0),
    ],
)
def test_the_ends_of_a_range_belong_to_it(key: str, value: Any) -> None:
    of_tables = {"data.bits": "parity", "data.sample_seed": "moons", "data.max_one_hot": "moons"}
    found: Any = accepted({"data.name": of_tables.get(key, "xor"), key: value})
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("momentum", "SGD", -1.0),
        ("weight_decay", "SGD", -1.0),
        ("eps", "Adam", -1e-8),
        ("alpha", "RMSprop", 1.0),
        ("lr_decay", "Adagrad", -1.0),
        ("initial_accumulator_value", "Adagrad", -1.0),
        ("momentum_decay", "NAdam", -1.0),
    ],
)
def test_optimizer_argument_out_of_range(key: str, name: str, value: float) -> None:
    fault = fault_of({"optimizer.name": name, f"optimizer.{key}": value})
    assert (fault.key, fault.value) == (f"optimizer.{key}", value)
    assert fault.rule.startswith("must be at least 0")


@pytest.mark.parametrize(
    "value", [[0.9], [0.9, 0.99, 0.999], [], 0.9, "0.9", None, [0.9, "x"], [0.9, True], [0.9, math.nan]]
)
def test_betas_are_two_numbers(value: Any) -> None:
    fault = fault_of({"optimizer.name": "Adam", "optimizer.betas": value})
    assert fault.key == "optimizer.betas"
    assert (fault.rule, fault.hint) == ("must be a list of 2 numbers", "for example [0.9, 0.999]")


@pytest.mark.parametrize("value", [[0.9, 1.0], [-0.1, 0.9]])
def test_betas_out_of_range(value: list[float]) -> None:
    fault = fault_of({"optimizer.name": "Adam", "optimizer.betas": value})
    assert fault == Fault("optimizer.betas", value, "must have only values at least 0 and less than 1")


@pytest.mark.parametrize("key", ["name", "ckpt_path", "data.target", "data.weight_column", "sweep.name"])
def test_a_whole_number_is_a_text_where_texts_are_taken(key: str) -> None:
    config = accepted({key: 2024})
    *sections, last = key.split(".")
    section = getattr(config, sections[0]) if sections else config
    assert getattr(section, last) == "2024"


@pytest.mark.parametrize("value", [2.5, True])
def test_other_values_have_to_be_quoted(value: Any) -> None:
    hint = fault_of({"data.target": value}).hint
    assert hint == f"""quote a text that looks like something else: 'data.target="{value}"'"""
