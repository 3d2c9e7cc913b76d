"""The files of conf/optimizer against the classes of torch.optim that they describe."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.configurations import ComposeConfig

from mlp_lightning.config import OptimizerConfig, conf_dir
from mlp_lightning.config.names import TORCH_OPTIMIZERS
from mlp_lightning.errors import ConfigError
from mlp_lightning.networks.optimizers import build_optimizer

# All but the one that chooses values for tables, and that for a class of the user's own.
FILES = sorted(file for file in (conf_dir() / "optimizer").glob("*.yaml") if file.stem not in ("table", "own"))
OPTIONS = [file.stem for file in FILES]


def content(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def torch_defaults(class_name: str) -> dict[str, Any]:
    """The arguments of an optimizer class with their defaults."""
    parameters = inspect.signature(getattr(torch.optim, class_name)).parameters
    return {name: one.default for name, one in parameters.items() if name != "params"}


def as_torch_has_it(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pytest.fixture
def parameters() -> list[torch.nn.Parameter]:
    """A weight and a bias, with gradients."""
    made = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3))]
    for one in made:
        one.grad = torch.full_like(one, 0.5)
    return made


@pytest.mark.parametrize("file", FILES, ids=OPTIONS)
def test_keys_are_arguments_and_values_are_the_defaults_of_torch(file: Path) -> None:
    described = content(file)
    defaults = torch_defaults(described.pop("name"))
    del described["lr"]
    assert described, "a file that lists no argument leaves nothing to override"
    assert set(described) <= set(defaults)
    for name, value in described.items():
        assert as_torch_has_it(value) == defaults[name], name
        # YAML reads 1e-8 (no point) as a text; 1 and True are equal, too.
        assert isinstance(value, bool) == isinstance(defaults[name], bool), name


@pytest.mark.parametrize("file", FILES, ids=OPTIONS)
def test_file_is_named_after_its_class(file: Path) -> None:
    assert content(file)["name"].lower() == file.stem


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_takes_the_learning_rate_suggested_for_it_alone(option: str, compose_config: ComposeConfig) -> None:
    own = compose_config(f"optimizer={option}", f"++data.suggested_lr.{option}=0.123").optimizer
    assert own.lr == 0.123
    others = [f"++data.suggested_lr.{other}=0.123" for other in OPTIONS if other != option]
    both = compose_config(f"optimizer={option}", *others, f"++data.suggested_lr.{option}=0.321").optimizer
    assert both.lr == 0.321
    with pytest.raises(
        ConfigError, match=r"data\.suggested_lr\.\w+ = 0\.123 has no effect: optimizer\.lr = .* is that"
    ):
        compose_config(f"optimizer={option}", *others)


@pytest.mark.parametrize("option", [one for one in OPTIONS if one != "sgd"])
def test_learning_rate_without_a_suggestion_is_the_default_of_torch(option: str, compose_config: ComposeConfig) -> None:
    # torch's SGD has 0.001, too slow to show anything; conf/optimizer/sgd.yaml says 0.1.
    optimizer = compose_config("data=xor", f"optimizer={option}").optimizer
    assert optimizer.lr == torch_defaults(optimizer.name)["lr"]


def test_sgd_learning_rate_without_a_suggestion(compose_config: ComposeConfig) -> None:
    assert compose_config("optimizer=sgd", "~data.suggested_lr").optimizer.lr == 0.1


@pytest.mark.parametrize("option", OPTIONS)
def test_the_optimizer_is_built_with_every_value(
    option: str, compose_config: ComposeConfig, parameters: list[torch.nn.Parameter]
) -> None:
    config = compose_config(f"optimizer={option}", "optimizer.lr=0.02", "optimizer.weight_decay=0.3").optimizer
    optimizer = build_optimizer(parameters, config)
    assert type(optimizer) is getattr(torch.optim, config.name)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    for name, value in config.options.items():
        assert group[name] == as_torch_has_it(value), name


def test_adamw_decays_weights_by_default(compose_config: ComposeConfig) -> None:
    """The one class whose weight decay is not 0: a file copied from Adam's would lose it."""
    assert compose_config("optimizer=adamw").optimizer.options["weight_decay"] == 0.01


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_every_optimizer_name_can_make_a_step(name: str, parameters: list[torch.nn.Parameter]) -> None:
    optimizer = build_optimizer(parameters, OptimizerConfig(name=name, lr=0.1))
    assert type(optimizer) is getattr(torch.optim, name)
    optimizer.step()
    for one in parameters:
        assert torch.isfinite(one).all()
        assert (one != 1).all()


def test_no_optimizer_of_torch_is_forgotten() -> None:
    classes = {
        name
        for name, one in vars(torch.optim).items()
        if isinstance(one, type) and issubclass(one, torch.optim.Optimizer) and one is not torch.optim.Optimizer
    }
    # They need a closure, sparse gradients, matrices only.
    unfit = {"LBFGS", "SparseAdam", "Muon"}
    assert classes - unfit <= set(TORCH_OPTIMIZERS)
    assert not unfit & set(TORCH_OPTIMIZERS)


def test_described_classes_are_valid_names() -> None:
    assert {content(file)["name"] for file in FILES} <= set(TORCH_OPTIMIZERS)
