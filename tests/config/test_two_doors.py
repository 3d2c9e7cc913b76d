"""Python and the command line give the same run for the same words."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.configurations import ComposeConfig

from mlp_lightning import train
from mlp_lightning.config import Config, conf_dir, names, parse_complete, parse_config
from mlp_lightning.errors import ConfigError

# What a data set cannot do without.
COMPANIONS: dict[str, dict[str, Any]] = {"table": {"path": "rows.csv", "target": "species"}}
# What a part of the user's own cannot do without.
OWN = {
    ("model", "own"): {"_target_": "my_package.parts.GatedNet"},
    ("optimizer", "own"): {"_target_": "my_package.parts.SignDescent"},
}
GROUPS = ("model", "optimizer", "scheduler", "trainer", "callbacks", "logger", "experiment")


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


def data_words(name: str) -> list[str]:
    """What a command says to train on a data set."""
    words = [f"data.{key}={value}" for key, value in COMPANIONS.get(name, {}).items()]
    return [f"data={name}", *words] if name in options("data") else ["data=sklearn", f"data.name={name}"]


@pytest.mark.parametrize("name", names.data_sets())
def test_every_data_set(name: str, compose_config: ComposeConfig) -> None:
    given = {"data": {"name": name, **COMPANIONS.get(name, {})}, "verbosity": 0}
    assert parse_config(given) == compose_config(*data_words(name))


@pytest.mark.parametrize(
    ("model", "data"),
    [*((one, "iris") for one in options("model") if one != "own"), *itertools.product(["wide_deep"], options("data"))],
)
def test_every_model_on_data(model: str, data: str, compose_config: ComposeConfig) -> None:
    section = {"option": data, **COMPANIONS.get(data, {})}
    assert parse_config({"data": section, "model": model, "verbosity": 0}) == compose_config(
        f"model={model}", f"data={data}", *data_words(data)[1:]
    )


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in GROUPS for option in options(group)],
    ids=lambda name: name,
)
def test_every_option_by_its_name(group: str, option: str, compose_config: ComposeConfig) -> None:
    data = {} if group == "experiment" else {"data": "iris"}
    words = [f"{name}={one}" for name, one in {**data, group: option}.items()]
    if option == "iris_hidden_units":  # a sweep of it
        data, words = {"model": {"hidden_units": 5}}, [*words, "model.hidden_units=5"]
    given: dict[str, Any] = {**data, group: option, "verbosity": 0}
    if (own := OWN.get((group, option))) is not None:
        words += [*(f"{group}.{key}={value}" for key, value in own.items()), "allow_targets=[my_package]"]
        given = {**given, group: own, "allow_targets": ["my_package"]}
    assert parse_config(given) == compose_config(*words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, []),
        ({"data": "moons"}, ["data=moons"]),
        ({"data": {"name": "iris", "val_fraction": 0.3}}, ["data=iris", "data.val_fraction=0.3"]),
        ({"data": {"option": "sklearn", "name": "digits"}}, ["data=sklearn", "data.name=digits"]),
        ({"model": {"hidden_units": 7}}, ["model.hidden_units=7"]),
        ({"data": "iris", "model": {"dropout": 0.1}}, ["data=iris", "model.dropout=0.1"]),
        ({"model": {"option": "wide", "dropout": 0.1}}, ["model=wide", "model.dropout=0.1"]),
        ({"model": {"option": "wide_deep", "hidden_units": [3, 5]}}, ["model=wide_deep", "model.hidden_units=[3,5]"]),
        ({"optimizer": {"name": "Adam"}}, ["optimizer=adam"]),
        ({"optimizer": {"name": "AdamW", "lr": 0.01}, "data": "wine"}, None),
        ({"optimizer": {"lr": 0.01}, "data": "moons"}, ["optimizer.lr=0.01", "data=moons"]),
        ({"optimizer": {"name": "SGD", "momentum": 0.9}}, ["optimizer=sgd", "optimizer.momentum=0.9"]),
        ({"data": {"suggested_lr": {"sgd": 0.5}}}, ["data.suggested_lr.sgd=0.5"]),
        ({"scheduler": {"name": "step", "gamma": 0.5}}, ["scheduler=step", "scheduler.gamma=0.5"]),
        ({"data": "moons", "scheduler": {"pct_start": 0.2}}, ["data=moons", "scheduler.pct_start=0.2"]),
        ({"data": "iris", "trainer": {"max_steps": 9}}, ["data=iris", "trainer.max_steps=9"]),
        ({"trainer": {"option": "debug", "max_steps": 3}}, ["trainer=debug", "trainer.max_steps=3"]),
        ({"callbacks": {"checkpoint": None}}, ["callbacks.checkpoint=null"]),
        (
            {"data": "iris", "callbacks": {"early_stopping": {"patience": 3}}},
            ["data=iris", "callbacks=early_stopping", "callbacks.early_stopping.patience=3"],
        ),
        (
            {"experiment": "iris_hidden_units", "model": {"hidden_units": 5}, "name": "mine"},
            ["experiment=iris_hidden_units", "model.hidden_units=5", "name=mine"],
        ),
        ({"experiment": "lab8_2_mlp", "model": "deep", "seed": 0}, ["experiment=lab8_2_mlp", "model=deep", "seed=0"]),
        ({"experiment": None, "ckpt_path": None, "seed": 1}, ["seed=1"]),
    ],
)
def test_the_same_words(given: dict[str, Any], words: list[str] | None, compose_config: ComposeConfig) -> None:
    if words is None:  # wine's optimizer is the option table, which has the same class
        config = compose_config("data=sklearn", "data.name=wine", "optimizer=adamw", "optimizer.lr=0.01")
        given = {**given, "data": {"name": "wine"}}
    else:
        config = compose_config(*words)
    assert parse_config({**given, "verbosity": 0}) == config


def test_an_optimizer_without_a_file_keeps_what_is_given() -> None:
    optimizer = parse_config({"optimizer": {"name": "Adadelta", "rho": 0.5}}).optimizer
    assert (optimizer.name, optimizer.lr, optimizer.options) == ("Adadelta", 0.1, {"rho": 0.5})


# ---- a configuration that is complete --------------------------------------------------------------------


@pytest.mark.parametrize("words", [["data=iris"], data_words("table"), ["callbacks=none", "scheduler=step"]])
def test_a_complete_configuration_is_not_changed(words: list[str], compose_config: ComposeConfig) -> None:
    config = compose_config(*words)
    assert parse_config(config.to_dict()) == parse_complete(config.to_dict()) == config
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_what_is_null_stays_null(compose_config: ComposeConfig) -> None:
    """Also where the file of the data set has a value."""
    plain = compose_config("data=iris", "trainer.max_steps=5", "data.val_fraction=0", "data.suggested_lr={}").to_dict()
    plain["trainer"]["print_every_n_steps"] = plain["data"]["batch_size"] = plain["callbacks"]["checkpoint"] = None
    plain["data"]["suggested_lr"] = {}
    assert parse_config(plain).to_dict() == plain


def test_the_files_are_not_changed_by_a_configuration() -> None:
    config = parse_config({"data": "xor"})
    config.data.suggested_lr["sgd"] = 9.0
    config.to_dict()["data"]["suggested_lr"]["sgd"] = 9.0
    assert parse_config({"data": "xor"}).data.suggested_lr == {"sgd": 1.0}


# ---- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key", "hint"),
    [
        ({"model": "wide_dep"}, "model", "did you mean wide_deep?"),
        ({"model": {"option": "wid", "dropout": 0.1}}, "model.option", "did you mean wide?"),
        ({"data": "irs"}, "data", "did you mean iris?"),
        ({"optimizer": "Adam"}, "optimizer", "did you mean adam?"),
        ({"scheduler": {"option": None}}, "scheduler.option", ""),
        ({"experiment": "lab8"}, "experiment", ""),
        ({"experiment": {"name": "x"}}, "experiment", ""),
    ],
)
def test_an_option_that_is_not_there(given: dict[str, Any], key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(given)
    (fault,) = caught.value.faults
    assert (fault.key, fault.hint) == (key, hint)
    assert fault.rule == "must be one of " + ", ".join(options(key.partition(".")[0]))


def test_wrong_options_hide_no_other_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": "wid", "data": "irs", "seed": -1, "trainer": {"max_stps": 3}, "search": "optuna"})
    assert {fault.key for fault in caught.value.faults} == {"model", "data", "seed", "trainer.max_stps", "search"}


def test_a_table_without_a_path_is_asked_for_it() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"data": {"name": "table"}})
    assert [fault.key for fault in caught.value.faults] == ["data.path", "data.target"]


@pytest.mark.parametrize(
    ("key", "value", "data", "hint"),
    [
        ("samples", 5, "xor", "choose data=moons, or leave it out"),
        ("noise", 0.2, "parity", "choose data=moons, or leave it out"),
        ("sample_seed", 1, "iris", "choose data=moons, or leave it out"),
        ("bits", 3, "moons", "choose data=parity, or leave it out"),
    ],
)
def test_options_of_synthetic_sets_alone(key: str, value: Any, data: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"data": {"name": data, key: value}})
    (fault,) = caught.value.faults
    assert (fault.key, fault.value, fault.hint) == (f"data.{key}", value, hint)


# ---- what is trained -------------------------------------------------------------------------------------


def test_a_run_from_python_is_the_run_of_the_command_line(tmp_path: Path, compose_config: ComposeConfig) -> None:
    """Loss for loss; tests/test_published_runs.py compares the command line with the published ones."""
    short = {"trainer": {"max_steps": 20}, "logger": "none", "verbosity": 0}
    python = train({"data": {"name": "xor"}, "model": "wide_deep", **short}, tmp_path / "python")
    config = compose_config("model=wide_deep", "data=xor", "trainer.max_steps=20", "logger=none")
    command = train(config, tmp_path / "command")
    assert isinstance(config, Config)
    assert python.metrics == command.metrics
    files = [(tmp_path / name / "config.yaml").read_text(encoding="utf-8") for name in ("python", "command")]
    assert files[0] == files[1]


def test_no_file_is_read_by_an_import() -> None:
    code = "from mlp_lightning.config import conf_files as c; print(c.conf_text.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_an_experiment_that_is_a_sweep_is_not_one_run() -> None:
    with pytest.raises(ConfigError, match=r"is a sweep of model\.hidden_units, and this is one run; set model"):
        parse_config({"experiment": "iris_hidden_units"})


def test_what_an_earlier_version_left_has_the_defaults_of_what_came_later() -> None:
    """Not those of the files of its data set: it was trained without."""
    plain = parse_config({"data": "moons"}).to_dict()
    assert plain["trainer"].pop("label_smoothing") == "auto"
    del plain["model"]["residual"]
    config = parse_config(plain)
    assert (config.trainer.label_smoothing, config.model.residual) == (0.0, False)


def test_numbers_of_numpy_are_numbers() -> None:
    betas = list(np.linspace(0.8, 0.9, 2))
    config = parse_config({"optimizer": {"option": "adam", "betas": betas, "lr": np.float64(0.1)}})
    assert yaml.safe_load(yaml.safe_dump(config.to_dict()))["optimizer"]["betas"] == betas
