"""The stacked engine refuses options that it does not support, and such a run trains alone, with autograd."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.configurations import ComposeConfig

from mlp_lightning.config import Config, ModelConfig, schedules, schema
from mlp_lightning.engines import support
from mlp_lightning.engines.choice import Work, choose_engine
from mlp_lightning.engines.support import stacked_refuses
from mlp_lightning.errors import ConfigError
from mlp_lightning.networks import MLP
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.runs import module, module_config, train, train_stack
from mlp_lightning.sweeps.grouping import Sizes, group_runs

CASE = ["data=iris", "model=wide_deep", "trainer=cpu", "logger=none", "trainer.max_epochs=2"]


@dataclasses.dataclass(frozen=True)
class TwiceModel(ModelConfig):
    """A new option without parameters: a stack without it would have weights of the same shapes."""

    twice: bool = True


class TwiceMLP(MLP):
    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            out = layer(features_BF)
            features_BF = features_BF + out if out.shape == features_BF.shape else out
        return features_BF


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch, compose_config: ComposeConfig) -> Config:
    """A run with the new option, which networks and schema have and no engine supports."""
    build = module.build_mlp

    def build_mlp(*arguments: Any) -> Any:
        built = build(*arguments)
        built.__class__ = TwiceMLP
        return built

    monkeypatch.setattr(module, "build_mlp", build_mlp)
    monkeypatch.setattr(module_config, "ModelConfig", TwiceModel)
    config = compose_config(*CASE)
    return dataclasses.replace(config, model=TwiceModel(**dataclasses.asdict(config.model)))


def test_new_option_is_refused(twice, tmp_path) -> None:
    assert stacked_refuses(twice) == "model.twice = True is not stacked"
    sizes = Sizes(in_features=4, out_features=3, rows_per_step=90, rows=150, steps=2)
    runs = [dataclasses.replace(twice, seed=seed) for seed in range(3)]
    grouping = group_runs(runs, lambda _: sizes, memory=2**30)
    assert grouping.stacks == []
    assert grouping.alone == [(index, "model.twice = True is not stacked") for index in range(3)]
    with pytest.raises(ValueError, match=r"cannot be a member of a stack: model\.twice"):
        train_stack(runs, [tmp_path / str(seed) for seed in range(3)])
    assert list(tmp_path.iterdir()) == []


def test_value_does_not_matter(twice) -> None:
    """An option that is off by default is refused too: the engine cannot know what off means."""
    off = dataclasses.replace(twice, model=dataclasses.replace(twice.model, twice=False))
    assert stacked_refuses(off) == "model.twice = False is not stacked"


def test_new_option_trains_with_autograd(twice, compose_config, tmp_path) -> None:
    with_it = train(twice, tmp_path / "twice")
    content = torch.load(with_it.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert (with_it.engine, content["engine"]) == ("autograd", "autograd")
    assert content["hyper_parameters"]["model"]["twice"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TwiceMLP, "forward", MLP.forward)
        without = train(twice, tmp_path / "plain")
    assert with_it.metrics["train"]["loss"] != without.metrics["train"]["loss"]


@pytest.mark.parametrize("section", ["trainer", "callbacks", "scheduler"])
def test_sections_beside_the_model(section, compose_config) -> None:
    config = compose_config(*CASE)
    before = getattr(config, section)
    further = dataclasses.make_dataclass(
        "Further", [("new", int, dataclasses.field(default=3))], bases=(type(before),), frozen=True
    )
    fields = {field.name: getattr(before, field.name) for field in dataclasses.fields(before)}
    changed = dataclasses.replace(config, **{section: further(**fields)})
    assert stacked_refuses(config) == ""
    assert stacked_refuses(changed) == f"{section}.new = 3 is not stacked"


def test_unknown_argument_of_an_optimizer(compose_config) -> None:
    config = compose_config(*CASE, "optimizer=adam")
    options = {**config.optimizer.options, "lookahead": 5}
    changed = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, options=options))
    assert stacked_refuses(changed) == "optimizer.lookahead = 5 is not stacked"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_is_stacked_if_its_gradient_is_written_out(activation, compose_config) -> None:
    refusal = stacked_refuses(compose_config(*CASE, f"model.activation={activation}"))
    written_out = ACTIVATIONS[activation].written_out is not None
    assert refusal == ("" if written_out else f"the gradient of model.activation = {activation} is not written out")


def test_activation_without_a_written_out_gradient_trains_with_autograd(compose_config, tmp_path) -> None:
    assert train(compose_config(*CASE, "model.activation=mish"), tmp_path / "run").engine == "autograd"
    with pytest.raises(ConfigError, match=r"'stacked' cannot train this run: the gradient of .* mish"):
        train(compose_config(*CASE, "model.activation=mish", "trainer.engine=stacked"), tmp_path / "refused")


def test_nothing_stale_is_listed() -> None:
    """Every listed option exists: a renamed option would otherwise be refused for ever."""
    there = {
        "model": {field.name for field in dataclasses.fields(schema.ModelConfig)},
        "scheduler": {field.name for one in schedules.SCHEDULES.values() for field in dataclasses.fields(one)},
        "trainer": {field.name for field in dataclasses.fields(schema.TrainerConfig)},
        "callbacks": {field.name for field in dataclasses.fields(schema.CallbacksConfig)},
    }
    assert {section: set(names) for section, names in support._TAUGHT.items()} == there
    assert set(support._EXPLICIT["scheduler.name"]) == set(schedules.SCHEDULES)


@pytest.mark.parametrize(
    ("words", "wanted", "advised"),
    [
        (["model.norm=batch"], "compiled", "stacked"),
        (["model.residual=true", "model.hidden_units=5", "model.depth=2"], "compiled", "stacked"),
        (["model.activation=mish"], "compiled", "autograd"),
        (["model.activation=mish"], "explicit", "autograd"),
        (["trainer.precision=bf16-mixed"], "stacked", "autograd"),
    ],
)
def test_a_refusal_advises_an_engine_that_takes_the_run(
    words: list[str], wanted: str, advised: str, compose_config: ComposeConfig
) -> None:
    config = compose_config(*CASE, *words, f"trainer.engine={wanted}")
    work = Work([4, 5, 3], 100, 10)
    with pytest.raises(ConfigError, match=rf"cannot train this run: .*; use trainer\.engine={advised}"):
        choose_engine(config, 1, work)
    taken = compose_config(*CASE, *words, f"trainer.engine={advised}")
    assert choose_engine(taken, 1, work).name == advised
