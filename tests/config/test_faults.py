"""Unknown keys and options, and the error that lists all faults, with the message that the user sees."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from support.configuration_faults import accepted, fault_of, faults_of, nested

from mlp_lightning.config import parse_config
from mlp_lightning.config.names import data_sets
from mlp_lightning.errors import ConfigError, Fault, MLPLightningError

# ---- unknown keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "keys", "hint"),
    [
        ("modle", "of the configuration (name, seed, task, model, ", "did you mean model?"),
        ("model.hiden_units", "of model (hidden_units, depth, ", "did you mean model.hidden_units?"),
        ("data.val_frac", "of data (name, batch_size, ", "did you mean data.val_fraction?"),
        ("trainer.max_step", "of trainer (accelerator, precision, ", "did you mean trainer.max_steps?"),
        ("logger.tensorbord", "of logger (tensorboard, csv, graph)", "did you mean logger.tensorboard?"),
        (
            "callbacks.histogram",
            "of callbacks (checkpoint, early_stopping, ",
            "did you mean callbacks.histograms_every_n_steps?",
        ),
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
def test_unknown_key(key: str, keys: str, hint: str) -> None:
    fault = fault_of({key: 5})
    assert (fault.key, fault.value) == (key, 5)
    assert fault.rule.startswith(f"is not a key {keys}")
    assert fault.hint == hint


def test_known_keys_of_the_optimizer_are_those_of_its_class() -> None:
    fault = fault_of({"optimizer.name": "Adam", "optimizer.momentum": 0.9})
    assert fault.rule == "is not a key of optimizer (name, lr, betas, eps, weight_decay, amsgrad, fused)"
    sgd = accepted({"optimizer.name": "SGD", "optimizer.momentum": 0.9}).optimizer
    assert sgd.options == {"momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}


def test_known_keys_of_the_scheduler_are_those_of_the_schedule() -> None:
    fault = fault_of({"scheduler.name": "cosine", "scheduler.eta_mn": 0.1})
    assert fault.rule == "is not a key of scheduler (name, eta_min)"
    assert fault.hint == "did you mean scheduler.eta_min?"


def test_arguments_of_an_optimizer_without_a_file_are_those_of_its_class() -> None:
    config = accepted({"optimizer.name": "Adamax", "optimizer.betas": [0.5, 0.6]})
    assert config.optimizer.options == {"betas": [0.5, 0.6]}
    fault = fault_of({"optimizer.name": "Rprop", "optimizer.momentum": 0.0})
    assert fault.rule.startswith("is not a key of optimizer (name, lr, etas, step_sizes,")
    assert fault.hint == "leave it out with '~optimizer.momentum'"


def test_a_key_that_is_not_a_text_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"model\.5 = 1 is not a key of model"):
        parse_config({"model": {5: 1}})


# ---- unknown options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "first", "hint"),
    [
        ("model.activation", "rleu", "identity, sigmoid, tanh, relu", "did you mean relu?"),
        ("model.activation", "ReLU", "identity, sigmoid, tanh, relu", "did you mean relu?"),
        ("model.activation", "xyz", "identity, sigmoid, tanh, relu", ""),
        ("model.norm", "batchnorm", "none, batch, layer", "did you mean batch?"),
        ("model.init", "xavier", "default, xavier_uniform", "did you mean xavier_normal?"),
        ("data.name", "irs", ", ".join(data_sets()), "did you mean iris?"),
        ("data.name", "XOR", ", ".join(data_sets()), "did you mean xor?"),
        ("data.name", "sklearn", ", ".join(data_sets()), ""),
        ("data.scaling", "standart", "standard, robust, quantile, none", "did you mean standard?"),
        ("data.class_weight", "balance", "none, balanced", "did you mean balanced?"),
        ("data.csv.delimiter", "tabs", "auto, ,, ;, tab, |, space", "did you mean tab?"),
        ("data.csv.decimal", ";", "auto, ., ,", ""),
        ("model.numeric_embedding", "periodical", "none, periodic, piecewise_linear", "did you mean periodic?"),
        ("task", "multi-class", "auto, binary, multiclass, multilabel, regression", "did you mean multiclass?"),
        ("optimizer.name", "adam", "ASGD, Adadelta", "did you mean Adam?"),
        ("optimizer.name", "LBFGS", "ASGD, Adadelta", ""),
        ("scheduler.name", "cosin", "none, cosine, one_cycle, step, inverse_time, plateau", "did you mean cosine?"),
        ("trainer.accelerator", "GPU", "auto, cpu, gpu, mps", "did you mean gpu?"),
        ("trainer.gradient_clip_algorithm", "norms", "norm, value", "did you mean norm?"),
        ("callbacks.checkpoint.monitor", "loss/vl", "auto, loss/train, loss/val", "did you mean loss/val?"),
        ("callbacks.early_stopping.monitor", "loss/trai", "loss/val, accuracy/val", "did you mean loss/train?"),
        ("report_weights", "lst", "auto, last, best", "did you mean last?"),
    ],
)
def test_unknown_option(key: str, value: str, first: str, hint: str) -> None:
    fault = fault_of({key: value})
    assert (fault.key, fault.value, fault.hint) == (key, value, hint)
    assert fault.rule.startswith(f"must be one of {first}")


@pytest.mark.parametrize("value", [None, 5, ["step"], {"step": 1}])
def test_schedule_whose_name_is_not_a_text(value: Any) -> None:
    fault = fault_of({"scheduler.name": value})
    assert (fault.key, fault.value) == ("scheduler.name", value)


@pytest.mark.parametrize(("given", "meant"), [(64, "64"), ("64", "64"), (32, "32"), ("bf16-mixed", "bf16-mixed")])
def test_precision_may_be_given_as_a_number(given: int | str, meant: str) -> None:
    assert accepted({"trainer.precision": given}).trainer.precision == meant


@pytest.mark.parametrize("given", [16, 64.5, True])
def test_unknown_precision(given: Any) -> None:
    assert fault_of({"trainer.precision": given}).key == "trainer.precision"


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
    rule = "must be one of none, cosine, one_cycle, step, inverse_time, plateau"
    assert f"  scheduler.name = 'cosin' {rule}; did you mean cosine?" in lines
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
    """Launchers run jobs in other processes and send back their exceptions."""
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
