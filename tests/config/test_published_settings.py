"""The published settings are exactly those of their sources."""

from __future__ import annotations

import dataclasses

import pytest
from support.configurations import ComposeConfig

from mlp_lightning.config import ModelConfig


@pytest.mark.parametrize(("model", "widths"), [("mlp", [2]), ("wide_deep", [10, 10, 10])])
def test_xor_is_exactly_as_published(model: str, widths: list[int], compose_config: ComposeConfig) -> None:
    config = compose_config(f"model={model}", "data=xor")
    assert config.model == ModelConfig(
        hidden_units=widths[0],
        depth=len(widths),
        activation="sigmoid",
        dropout=0.0,
        norm="none",
        bias=True,
        init="default",
    )
    assert config.model.layer_widths == widths
    assert (config.optimizer.name, config.optimizer.lr) == ("SGD", 1.0)
    assert not any(config.optimizer.options.values())
    assert config.scheduler.name == "none"
    assert config.seed == 777
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (10001, None)
    assert (config.trainer.log_every_n_steps, config.trainer.print_every_n_steps) == (100, 100)
    assert (config.trainer.precision, config.trainer.accumulate_grad_batches) == ("32", 1)
    assert config.trainer.gradient_clip_val is None
    assert (config.data.name, config.data.batch_size, config.data.scaling) == ("xor", None, "none")
    assert (config.data.val_fraction, config.data.test_fraction) == (0.0, 0.0)


@pytest.mark.parametrize("model", ["mlp", "wide_deep"])
def test_published_xor_experiments_are_their_model_and_data(model: str, compose_config: ComposeConfig) -> None:
    experiment = compose_config(f"experiment=lab8_2_{model}")
    assert experiment.name == f"lab8_2_{model}"
    assert dataclasses.replace(experiment, name="xor") == compose_config(f"model={model}", "data=xor")


def test_the_default_is_the_small_published_xor_run(compose_config: ComposeConfig) -> None:
    assert compose_config() == compose_config("model=mlp", "data=xor")


def test_iris_experiment_is_exactly_as_published(compose_config: ComposeConfig) -> None:
    config = compose_config("experiment=iris_hidden_units")
    assert config.name == "iris_hidden_units"
    assert config.data.name == "iris"
    assert (config.data.val_fraction, config.data.test_fraction) == (0.0, 0.0)
    assert config.data.scaling == "none"
    assert config.data.batch_size is None
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (None, 100)
    assert (config.optimizer.name, config.optimizer.lr) == ("SGD", 0.1)
    assert not any(config.optimizer.options.values())
    assert (config.model.layer_widths, config.model.activation) == ([100], "relu")
    assert config.scheduler.name == "none"


@pytest.mark.parametrize("units", [5, 100, 1000])
def test_iris_experiment_takes_the_swept_width(units: int, compose_config: ComposeConfig) -> None:
    config = compose_config("experiment=iris_hidden_units", f"model.hidden_units={units}")
    assert config.model.layer_widths == [units]
    assert config.name == "iris_hidden_units"
