"""Every kind of fault that a configuration can have, with what the user is told about it."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Collection
from typing import Any

import pytest

from mlp_lightning.config import parse_config
from mlp_lightning.config.names import DATA_SETS
from mlp_lightning.config.schema import Config
from mlp_lightning.errors import ConfigError, Fault, MLPLightningError

# The least that makes a valid configuration: a run has to end.
VALID: dict[str, Any] = {"trainer": {"max_steps": 1}}
# For contradictions that concern validation rows: a data set that can be split.
SPLIT: dict[str, Any] = {"data": {"name": "iris", "val_fraction": 0.2}}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dicts, on top of ``VALID``."""
    plain = copy.deepcopy(VALID)
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = plain
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return plain


def faults_of(settings: dict[str, Any], explicit: Collection[str] = ()) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        parse_config(nested(settings), explicit)
    return list(caught.value.faults)


def fault_of(settings: dict[str, Any], explicit: Collection[str] = ()) -> Fault:
    (fault,) = faults_of(settings, explicit)
    return fault


def accepted(settings: dict[str, Any], explicit: Collection[str] = ()) -> Config:
    return parse_config(nested(settings), explicit)


# ---- unknown keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "place", "hint"),
    [
        ("modle", "of the configuration (name, seed, task, model, ", "did you mean model?"),
        ("model.hiden_units", "of model (hidden_units, depth, ", "did you mean model.hidden_units?"),
        ("data.val_frac", "of data (name, as_table, batch_size, ", "did you mean data.val_fraction?"),
        ("trainer.max_step", "of trainer (accelerator, precision, ", "did you mean trainer.max_steps?"),
        ("logger.tensorbord", "of logger (tensorboard, csv, graph)", "did you mean logger.tensorboard?"),
        ("callbacks.histogram", "of callbacks (checkpoint, early_stopping, ", ""),
        (
            "callbacks.checkpoint.every_n_step",
            "of callbacks.checkpoint (monitor, every_n_steps, every_n_seconds)",
            "did you mean callbacks.checkpoint.every_n_steps?",
        ),
        ("optimizer.momentun", "of optimizer (name, lr, momentum, ", "did you mean optimizer.momentum?"),
        ("scheduler.gamma", "of scheduler (name)", ""),
        ("model.qqq", "of model (hidden_units, ", ""),
    ],
)
def test_unknown_key(key: str, place: str, hint: str) -> None:
    fault = fault_of({key: 5})
    assert (fault.key, fault.value) == (key, 5)
    assert fault.rule.startswith(f"is not a key {place}")
    assert fault.hint == hint


def test_known_keys_of_the_optimizer_are_those_of_its_class() -> None:
    fault = fault_of({"optimizer.name": "Adam", "optimizer.momentum": 0.9})
    assert fault.rule == "is not a key of optimizer (name, lr, betas, eps, weight_decay, amsgrad, fused)"
    assert accepted({"optimizer.name": "SGD", "optimizer.momentum": 0.9}).optimizer.options == {"momentum": 0.9}


def test_known_keys_of_the_scheduler_are_those_of_the_schedule() -> None:
    fault = fault_of({"scheduler.name": "cosine", "scheduler.eta_mn": 0.1})
    assert fault.rule == "is not a key of scheduler (name, eta_min)"
    assert fault.hint == "did you mean scheduler.eta_min?"


def test_arguments_of_an_optimizer_without_a_file_are_left_to_torch() -> None:
    config = accepted({"optimizer.name": "Adamax", "optimizer.anything": [1, "x"]})
    assert config.optimizer.options == {"anything": [1, "x"]}


def test_a_key_that_is_no_text_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"model\.5 = 1 is not a key of model"):
        parse_config({"model": {5: 1}})


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
        ("name", 5, "must be a text"),
        ("ckpt_path", 5, "must be a text or null"),
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
        ("data.suggested_lr", {"sgd": "fast"}, "must be a mapping of names to numbers"),
        ("data.suggested_lr", {"sgd": True}, "must be a mapping of names to numbers"),
        ("data.batch_size", "all", "must be a whole number or auto or null"),
        ("data.target", 5, "must be a text or a list of texts or null"),
        ("data.target", ["a", 5], "must be a text or a list of texts or null"),
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


@pytest.mark.parametrize("value", ["auot", "Auto"])
def test_mistyped_auto(value: str) -> None:
    fault = fault_of({"trainer.steps_per_execution": value})
    assert fault == Fault("trainer.steps_per_execution", value, "must be a whole number or auto", "did you mean auto?")


def test_every_accepted_type_is_named() -> None:
    fault = fault_of({"trainer.print_every_n_steps": "never"})
    assert sorted(fault.rule.removeprefix("must be ").split(" or ")) == ["a whole number", "auto", "null"]


@pytest.mark.parametrize("value", [5, "wide", None, [1], True])
@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ("data.csv", "its keys are delimiter, decimal, encoding, null_values"),
        ("data.cv", "its keys are folds, fold"),
        ("model", "its keys are hidden_units, depth, "),
        ("data", "its keys are name, as_table, batch_size, "),
        ("optimizer", "its keys are name, lr"),
        ("trainer", "its keys are accelerator, "),
        ("callbacks", "its keys are checkpoint, "),
        ("logger", "its keys are tensorboard, csv, graph"),
        ("scheduler", "choose one with scheduler=cosine"),
    ],
)
def test_section_that_is_not_a_mapping(section: str, hint: str, value: Any) -> None:
    fault = fault_of({section: value})
    assert (fault.key, fault.value, fault.rule) == (section, value, "must be a section")
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
def test_nan_is_no_number(key: str) -> None:
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
        ("trainer.threads", 0, "must be at least 1"),
        ("trainer.print_every_n_steps", 0, "must be at least 1"),
        ("data.batch_size", 0, "must be at least 1"),
        ("model.hidden_units", 0, "must be at least 1"),
        ("model.depth", -1, "must be at least 0"),
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
        ("name", "", "must be the name of a folder, relative and without .."),
        ("name", "  ", "must be the name of a folder, relative and without .."),
        ("name", "../elsewhere", "must be the name of a folder, relative and without .."),
        ("name", "/elsewhere", "must be the name of a folder, relative and without .."),
        ("name", "???", "must be the name of a folder, relative and without .."),
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
        ("model.embedding_size", 0, "must be at least 1"),
        ("model.embedding_frequencies", 0, "must be at least 1"),
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
    place: Any = accepted({key: value})
    for name in key.split("."):
        place = getattr(place, name)
    assert place == value


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


# ---- unknown options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "first", "hint"),
    [
        ("model.activation", "rleu", "identity, sigmoid, tanh, relu", "did you mean relu?"),
        ("model.activation", "ReLU", "identity, sigmoid, tanh, relu", "did you mean relu?"),
        ("model.activation", "xyz", "identity, sigmoid, tanh, relu", ""),
        ("model.norm", "batchnorm", "none, batch, layer", "did you mean batch?"),
        ("model.init", "xavier", "default, xavier_uniform", "did you mean xavier_normal?"),
        ("data.name", "irs", ", ".join(DATA_SETS), "did you mean iris?"),
        ("data.name", "XOR", ", ".join(DATA_SETS), "did you mean xor?"),
        ("data.name", "sklearn", ", ".join(DATA_SETS), ""),
        ("data.scaling", "standart", "standard, robust, quantile, none", "did you mean standard?"),
        ("data.class_weight", "balance", "none, balanced", "did you mean balanced?"),
        ("data.csv.delimiter", "tabs", "auto, ,, ;, tab, |, space", "did you mean tab?"),
        ("data.csv.decimal", ";", "auto, ., ,", ""),
        ("model.numeric_embedding", "periodical", "none, periodic, piecewise_linear", "did you mean periodic?"),
        ("task", "multi", "auto, binary, multiclass, regression", "did you mean multiclass?"),
        ("optimizer.name", "adam", "ASGD, Adadelta", "did you mean Adam?"),
        ("optimizer.name", "LBFGS", "ASGD, Adadelta", ""),
        ("scheduler.name", "cosin", "none, cosine, one_cycle, step, plateau", "did you mean cosine?"),
        ("trainer.accelerator", "GPU", "auto, cpu, gpu, mps", "did you mean gpu?"),
        ("trainer.gradient_clip_algorithm", "norms", "norm, value", "did you mean norm?"),
        ("callbacks.checkpoint.monitor", "loss/vl", "auto, loss/train, loss/val", "did you mean loss/val?"),
        ("callbacks.early_stopping.monitor", "loss/train", "loss/val, accuracy/val", "did you mean loss/val?"),
        ("report_weights", "lst", "last, best", "did you mean last?"),
    ],
)
def test_unknown_option(key: str, value: str, first: str, hint: str) -> None:
    fault = fault_of({key: value})
    assert (fault.key, fault.value, fault.hint) == (key, value, hint)
    assert fault.rule.startswith(f"must be one of {first}")


@pytest.mark.parametrize("value", [None, 5, ["step"], {"step": 1}])
def test_schedule_whose_name_is_no_text(value: Any) -> None:
    fault = fault_of({"scheduler.name": value})
    assert (fault.key, fault.value) == ("scheduler.name", value)


@pytest.mark.parametrize(("given", "meant"), [(64, "64"), ("64", "64"), (32, "32"), ("bf16-mixed", "bf16-mixed")])
def test_precision_may_be_given_as_a_number(given: int | str, meant: str) -> None:
    assert accepted({"trainer.precision": given}).trainer.precision == meant


@pytest.mark.parametrize("given", [16, 64.5, True])
def test_precision_that_is_none(given: Any) -> None:
    assert fault_of({"trainer.precision": given}).key == "trainer.precision"


# ---- contradictions --------------------------------------------------------------------------------------


def test_depth_against_listed_widths() -> None:
    fault = fault_of({"model.hidden_units": [3, 4], "model.depth": 3}, explicit=["model.depth"])
    assert fault == Fault(
        "model.depth",
        3,
        "contradicts model.hidden_units = [3, 4], which lists 2",
        "leave model.depth out when you list the widths",
    )


def test_depth_of_a_file_gives_way_to_listed_widths() -> None:
    assert accepted({"model.hidden_units": [3, 4], "model.depth": 3}).model.depth == 2


def test_depth_0_against_a_width() -> None:
    fault = fault_of({"model.hidden_units": 5, "model.depth": 0})
    assert (fault.key, fault.value) == ("model.hidden_units", 5)
    assert fault.rule == "contradicts model.depth = 0: a linear model has no hidden layer"
    assert fault.hint == "choose another model, or set model.depth to 1 or more"


@pytest.mark.parametrize("depth", [1, 3, None])
def test_no_width_needs_depth_0(depth: int | None) -> None:
    fault = fault_of({"model.hidden_units": None, "model.depth": depth})
    assert fault == Fault("model.hidden_units", None, "must be given unless model.depth is 0", "for example 10")


@pytest.mark.parametrize(("key", "value", "idle"), [("dropout", 0.1, "0.0"), ("norm", "layer", "none")])
def test_parts_of_hidden_layers_without_one(key: str, value: Any, idle: str) -> None:
    linear = {"model.hidden_units": None, "model.depth": 0}
    fault = fault_of({**linear, f"model.{key}": value})
    assert fault == Fault(f"model.{key}", value, "has no effect without hidden layers", f"set it to {idle}")
    assert accepted(linear).model.layer_widths == []
    assert getattr(accepted({f"model.{key}": value}).model, key) == value


def test_batch_norm_of_one_row() -> None:
    fault = fault_of({"model.norm": "batch", "data.batch_size": 1})
    assert fault == Fault("data.batch_size", 1, "contradicts model.norm = 'batch', which needs 2 rows", "use 2 or more")
    accepted({"model.norm": "batch", "data.batch_size": 2})
    accepted({"model.norm": "layer", "data.batch_size": 1})


@pytest.mark.parametrize("key", ["data.val_fraction", "data.test_fraction"])
def test_split_of_a_data_set_that_has_none(key: str) -> None:
    fault = fault_of({key: 0.2})
    assert fault == Fault(key, 0.2, "must be 0 for xor, whose rows are all training rows")
    accepted({"data.name": "iris", key: 0.2})


def test_fractions_that_leave_no_training_rows() -> None:
    fault = fault_of({"data.name": "iris", "data.val_fraction": 0.5, "data.test_fraction": 0.5})
    assert fault == Fault(
        "data.val_fraction",
        0.5,
        "and data.test_fraction = 0.5 leave no training rows",
        "their sum must be less than 1",
    )
    accepted({"data.name": "iris", "data.val_fraction": 0.5, "data.test_fraction": 0.4})


@pytest.mark.parametrize("monitor", ["loss/val", "accuracy/val"])
def test_early_stopping_without_validation_rows(monitor: str) -> None:
    stopping = {"callbacks.early_stopping.monitor": monitor}
    assert fault_of(stopping) == Fault(
        "callbacks.early_stopping.monitor",
        monitor,
        "needs validation rows and there are none",
        "set data.val_fraction above 0",
    )
    accepted({**SPLIT, **stopping})


@pytest.mark.parametrize("monitor", ["loss/val", "accuracy/val"])
def test_checkpoint_monitor_without_validation_rows(monitor: str) -> None:
    watching = {"callbacks.checkpoint.monitor": monitor}
    assert fault_of(watching) == Fault(
        "callbacks.checkpoint.monitor",
        monitor,
        "needs validation rows and there are none",
        "set data.val_fraction above 0, or watch loss/train",
    )
    accepted({**SPLIT, **watching})


def test_plateau_monitor_without_validation_rows() -> None:
    watching = {"scheduler.name": "plateau", "scheduler.monitor": "loss/val"}
    fault = fault_of(watching)
    assert (fault.key, fault.rule) == ("scheduler.monitor", "needs validation rows and there are none")
    accepted({**SPLIT, **watching})


@pytest.mark.parametrize("monitor", ["auto", "loss/train"])
def test_monitors_that_need_no_validation_rows(monitor: str) -> None:
    accepted({"scheduler.name": "plateau", "scheduler.monitor": monitor, "callbacks.checkpoint.monitor": monitor})


def test_run_without_an_end() -> None:
    fault = fault_of({"trainer.max_steps": None})
    assert fault == Fault(
        "trainer.max_steps", None, "and trainer.max_epochs = None give the run no end", "set one of the two"
    )
    accepted({"trainer.max_steps": None, "trainer.max_epochs": 1})


def test_nesterov_without_momentum() -> None:
    fault = fault_of({"optimizer.nesterov": True, "optimizer.momentum": 0.0})
    assert fault == Fault("optimizer.nesterov", True, "needs optimizer.momentum above 0", "for example 0.9")
    accepted({"optimizer.nesterov": True, "optimizer.momentum": 0.9})


def test_nesterov_with_dampening() -> None:
    settings = {"optimizer.nesterov": True, "optimizer.momentum": 0.9, "optimizer.dampening": 0.1}
    assert fault_of(settings) == Fault("optimizer.nesterov", True, "needs optimizer.dampening = 0")
    accepted({**settings, "optimizer.nesterov": False})


def test_best_weights_without_checkpoints() -> None:
    fault = fault_of({"report_weights": "best", "callbacks.checkpoint": None})
    assert fault == Fault("report_weights", "best", "needs callbacks.checkpoint, which is null", "use last")
    accepted({"report_weights": "best"})
    accepted({"report_weights": "last", "callbacks.checkpoint": None})


def test_histograms_without_tensorboard() -> None:
    fault = fault_of({"callbacks.histograms_every_n_steps": 5, "logger.tensorboard": False})
    assert fault == Fault(
        "callbacks.histograms_every_n_steps", 5, "needs logger.tensorboard, which is false", "use null"
    )
    accepted({"callbacks.histograms_every_n_steps": 5})


def test_all_contradictions_at_once() -> None:
    faults = faults_of(
        {
            "model.hidden_units": [3],
            "model.depth": 2,
            "data.val_fraction": 0.2,
            "trainer.max_steps": None,
            "optimizer.nesterov": True,
            "report_weights": "best",
            "callbacks.checkpoint": None,
        },
        explicit=["model.depth"],
    )
    keys = [fault.key for fault in faults]
    assert sorted(keys) == [
        "data.val_fraction",
        "model.depth",
        "optimizer.nesterov",
        "report_weights",
        "trainer.max_steps",
    ]


# ---- all at once, and the error itself -------------------------------------------------------------------

MANY: dict[str, Any] = {
    "modle": 1,
    "seed": True,
    "model.hidden_units": [4, 0],
    "model.activation": "rleu",
    "model.drop": 0.1,
    "optimizer.momentun": 0.9,
    "scheduler.name": "cosin",
    "trainer.max_steps": 0,
    "callbacks.checkpoint": 5,
    "report_weights": "first",
}
MANY_KEYS = [
    "modle",
    "seed",
    "model.drop",
    "model.hidden_units",
    "model.activation",
    "optimizer.momentun",
    "scheduler.name",
    "trainer.max_steps",
    "callbacks.checkpoint",
    "report_weights",
]


def test_all_faults_at_once_in_the_order_of_the_schema() -> None:
    faults = faults_of(MANY)
    assert [fault.key for fault in faults] == MANY_KEYS
    assert {fault.key: fault.value for fault in faults} == MANY
    assert all(fault.rule for fault in faults)


def test_message_shows_key_value_rule_and_hint_of_every_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(nested(MANY))
    title, *lines = str(caught.value).splitlines()
    assert title == f"The configuration has {len(MANY)} faults:"
    assert [line.split(" = ")[0] for line in lines] == [f"  {key}" for key in MANY_KEYS]
    assert "  seed = True must be a whole number" in lines
    assert "  scheduler.name = 'cosin' must be one of none, cosine, one_cycle, step, plateau; did you mean cosine?" in (
        lines
    )
    assert "  trainer.max_steps = 0 must be at least 1" in lines


def test_message_of_a_single_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(nested({"trainer.max_steps": 0}))
    assert str(caught.value) == "The configuration has a fault:\n  trainer.max_steps = 0 must be at least 1"


def test_error_can_be_caught_by_its_families() -> None:
    assert issubclass(ConfigError, MLPLightningError)
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_error_survives_being_sent_to_another_process(duplicate: Any) -> None:
    """Launchers run jobs in other processes and send back what these raise."""
    error = ConfigError([Fault("seed", True, "must be a whole number"), Fault("modle", 1, "is not a key", "model?")])
    other = duplicate(error)
    assert type(other) is ConfigError
    assert other.faults == error.faults
    assert str(other) == str(error)


def test_faults_may_come_from_any_iterable() -> None:
    error = ConfigError(Fault(key, 1, "is wrong") for key in ("a", "b"))
    assert [fault.key for fault in error.faults] == ["a", "b"]
    assert str(error).count("is wrong") == 2


def test_parsing_leaves_its_argument_alone() -> None:
    plain = nested({"optimizer.momentum": 0.9, "model.hidden_units": [3, 4]})
    before = copy.deepcopy(plain)
    parse_config(plain)
    assert plain == before
