"""Whole runs of the explicit engine, against the same runs of autograd."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from support.configurations import ComposeConfig
from support.tables import mixed_table
from support.tolerances import assert_close, assert_same_bits, assert_same_state

from mlp_lightning.config import Config, names
from mlp_lightning.engines.support import explicit_refuses
from mlp_lightning.errors import ConfigError
from mlp_lightning.runs import train
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.run_folder import RunFolder

SHORT = ("trainer=cpu", "logger=none", "trainer.threads=1")
IRIS = ("data=iris", "trainer.max_epochs=20")
# Of what is elementwise, and so may be updated as one tensor.
OPTIMIZERS = {
    "sgd": ["optimizer.lr=0.1"],
    "sgd, decay": ["optimizer.weight_decay=0.01"],
    "sgd, momentum": ["optimizer.momentum=0.9", "optimizer.nesterov=true"],
    "adam": ["optimizer=adam", "optimizer.weight_decay=0.01"],
    "adam, amsgrad": ["optimizer=adam", "optimizer.amsgrad=true"],
    "adamw": ["optimizer=adamw", "optimizer.lr=0.01"],
    "adagrad": ["optimizer=adagrad"],
    "nadam": ["optimizer=nadam"],
    "rmsprop": ["optimizer=rmsprop"],
}
OPTIONS = {
    "step": ["scheduler=step", "scheduler.step_size=5"],
    "inverse_time": ["scheduler=inverse_time", "scheduler.decay_rate=0.5"],
    "cosine": ["scheduler=cosine"],
    "one_cycle": ["scheduler=one_cycle"],
    "plateau of validation": ["scheduler=plateau", "scheduler.patience=1"],
    "plateau of training": ["scheduler=plateau", "scheduler.monitor=loss/train", "scheduler.patience=0"],
    "batches": ["data.batch_size=16"],
    "accumulated": ["data.batch_size=8", "trainer.accumulate_grad_batches=3"],
    "norm clipped": ["trainer.gradient_clip_val=0.1"],
    "values clipped": ["trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
    "smoothed": ["trainer.label_smoothing=0.1", "data.batch_size=20"],
    "dropout": ["model.dropout=0.3", "data.batch_size=16"],
    "dropout, accumulation": ["model.dropout=0.3", "data.batch_size=7", "trainer.accumulate_grad_batches=3"],
    "batch norm": ["model.norm=batch", "data.batch_size=16"],
    "layer norm": ["model.norm=layer"],
    "residual": ["model=resnet"],
    "early stopping": ["callbacks=early_stopping", "callbacks.early_stopping.patience=2", "optimizer.lr=2"],
}


# Networks whose parts are written out, for the rows of a table with columns of every kind.
NETWORKS = {
    "categories": [],
    "periodic": ["model.numeric_embedding=periodic", "model.embedding_size=5"],
    "piecewise linear": ["model.numeric_embedding=piecewise_linear", "model.embedding_frequencies=6"],
    "batch norm": ["model.norm=batch", "model.activation=gelu"],
    "layer norm": ["model.norm=layer", "model.bias=false"],
    "residual": ["model.residual=true", "model.dropout=0"],
    "residual, batch norm, dropout": ["model.residual=true", "model.norm=batch", "model.activation=relu"],
    "residual, layer norm": ["model.residual=true", "model.norm=layer", "model.numeric_embedding=periodic"],
    "clipped": ["model.numeric_embedding=piecewise_linear", "trainer.gradient_clip_val=0.1"],
    "linear": ["model.depth=0", "model.hidden_units=null", "model.dropout=0", "model.numeric_embedding=periodic"],
}


def weights_of(config: Config, folder: Path, frame: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last checkpoint and the metrics of a run."""
    result = train(config, folder, frame=frame)
    return read_checkpoint(RunFolder(folder).last_checkpoint), result.metrics


def compare(compose_config: ComposeConfig, overrides: Sequence[str], tmp_path: Path) -> None:
    found = {}
    for engine in ("autograd", "explicit"):
        config = compose_config(*SHORT, *overrides, "trainer.precision=64", f"trainer.engine={engine}")
        found[engine] = weights_of(config, tmp_path / engine)
    (expected, metrics), (checkpoint, other_metrics) = found["autograd"], found["explicit"]
    assert checkpoint["engine"] == "explicit"
    assert checkpoint["global_step"] == expected["global_step"]
    for name, weight in expected["state_dict"].items():
        assert_close(checkpoint["state_dict"][name], weight, atol=1e-9)
    for split, values in metrics.items():
        assert_close(list(other_metrics[split].values()), list(values.values()), atol=1e-9)
    (states,), (expected_states,) = checkpoint["optimizer_states"], expected["optimizer_states"]
    assert states["state"].keys() == expected_states["state"].keys()
    for number, state in expected_states["state"].items():
        assert states["state"][number].keys() == state.keys()
        for name, value in state.items():
            if value is not None:
                assert_close(states["state"][number][name], value, atol=1e-9)
    assert states["param_groups"] == expected_states["param_groups"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str, compose_config: ComposeConfig, tmp_path: Path) -> None:
    compare(compose_config, [*IRIS, *OPTIMIZERS[name], "data.batch_size=40"], tmp_path)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name: str, compose_config: ComposeConfig, tmp_path: Path) -> None:
    compare(compose_config, [*IRIS, *OPTIONS[name]], tmp_path)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=wide_deep", "data=xor", "trainer.max_steps=400"],
        ["data=sklearn", "data.name=diabetes", "optimizer=table", "model.numeric_embedding=periodic"],
        ["data=sklearn", "data.name=linnerud", "model.hidden_units=3"],
        ["data=moons", "data.samples=100", "data.batch_size=32"],
    ],
)
def test_every_task(overrides: list[str], compose_config: ComposeConfig, tmp_path: Path) -> None:
    length = [] if "data=xor" in overrides else ["trainer.max_epochs=10"]
    compare(compose_config, [*overrides, *length], tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "optimizer", "atol"), [("64", "adamw", 1e-9), ("32", "sgd", 1e-5)])
def test_every_network_after_300_steps(
    name: str, precision: str, optimizer: str, atol: float, compose_config: ComposeConfig, tmp_path: Path
) -> None:
    common = [*SHORT, "data=table", "data.name=frame", "data.target=y", "data.batch_size=7", "trainer.max_steps=300"]
    common += ["trainer.max_epochs=null", "scheduler=none", f"trainer.precision={precision}", "model.hidden_units=8"]
    common += [f"optimizer={optimizer}", "optimizer.lr=0.002", *NETWORKS[name]]
    found = {}
    for engine in ("autograd", "explicit"):
        config = compose_config(*common, f"trainer.engine={engine}")
        found[engine], _ = weights_of(config, tmp_path / engine, mixed_table(90))
    assert found["explicit"]["engine"] == "explicit"
    assert found["explicit"]["global_step"] == found["autograd"]["global_step"] == 300
    assert any("tables" in one for one in found["explicit"]["state_dict"])
    for key, weight in found["autograd"]["state_dict"].items():
        assert_close(found["explicit"]["state_dict"][key], weight, atol=atol)


@pytest.mark.parametrize("per_execution", [1, 7])
@pytest.mark.parametrize("rows", ["null", "16"])
def test_steps_per_execution_change_no_bit(
    per_execution: int, rows: str, compose_config: ComposeConfig, tmp_path: Path
) -> None:
    common = (*SHORT, *IRIS, "optimizer=adam", f"data.batch_size={rows}", "trainer.engine=explicit", "logger=default")
    found = []
    for number, steps in enumerate(("auto", str(per_execution))):
        folder = tmp_path / str(number)
        found.append(weights_of(compose_config(*common, f"trainer.steps_per_execution={steps}"), folder))
    assert_same_state(found[0][0]["state_dict"], found[1][0]["state_dict"])
    curves = [(tmp_path / one / "metrics.csv").read_text() for one in "01"]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("name", ["adam, amsgrad", "sgd, momentum", "nadam"])
@pytest.mark.parametrize("engines", [("explicit", "explicit"), ("autograd", "explicit"), ("explicit", "autograd")])
def test_a_run_continues(name: str, engines: tuple[str, str], compose_config: ComposeConfig, tmp_path: Path) -> None:
    common = [*SHORT, "data=iris", *OPTIMIZERS[name], "data.batch_size=40", "model.dropout=0.1", "trainer.precision=64"]

    def config(engine: str, epochs: int) -> Config:
        return compose_config(*common, f"trainer.engine={engine}", f"trainer.max_epochs={epochs}")

    whole, _ = weights_of(config(engines[1], 9), tmp_path / "whole")
    train(config(engines[0], 4), tmp_path / "part")
    rest = dataclasses.replace(config(engines[1], 9), ckpt_path=str(RunFolder(tmp_path / "part").last_checkpoint))
    continued, _ = weights_of(rest, tmp_path / "rest")
    for key, weight in whole["state_dict"].items():
        if engines == ("explicit", "explicit"):
            assert_same_bits(continued["state_dict"][key], weight)
        else:
            assert_close(continued["state_dict"][key], weight, atol=1e-9)


@pytest.mark.parametrize("steps", ["1", "7"])
def test_hooks_are_called(steps: str, compose_config: ComposeConfig, tmp_path: Path) -> None:
    class Watching(pl.Callback):
        """From the third execution to the fifth, a hook counts the forward passes in training."""

        def __init__(self) -> None:
            self.executions = self.calls = 0

        def count(self, module: torch.nn.Module, *_: Any) -> None:
            self.calls += module.training

        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            self.executions += 1
            if self.executions == 3:
                self.handle = module.model.mlp.layers[0].register_forward_hook(self.count)
            if self.executions == 6:
                self.handle.remove()

    found = []
    for engine in ("autograd", "explicit"):
        overrides = [*SHORT, *IRIS, "data.batch_size=16", "optimizer=adam", f"trainer.steps_per_execution={steps}"]
        config = compose_config(*overrides, "trainer.precision=64", f"trainer.engine={engine}")
        watching = Watching()
        result = train(config, tmp_path / engine, callbacks=[watching])
        found.append((watching.calls, result.metrics["train"]["loss"]))
    assert found[0][0] == found[1][0] > 0
    assert_close(found[1][1], found[0][1], atol=1e-9)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("optimizer=own optimizer._target_=torch.optim.SGD allow_targets=[torch]", "optimizer._target_"),
        ("model.activation=mish", "model.activation = mish"),
        ("trainer.precision=bf16-mixed", "trainer.precision = bf16-mixed"),
        ("logger=default callbacks.histograms_every_n_steps=5", "callbacks.histograms_every_n_steps"),
        ("optimizer.name=Adafactor ~optimizer.momentum ~optimizer.dampening ~optimizer.nesterov", "Adafactor"),
        ("data.batch_size=8 trainer.accumulate_grad_batches=2 model.norm=batch", "model.norm = batch"),
    ],
)
def test_refused(override: str, reason: str, compose_config: ComposeConfig, tmp_path: Path) -> None:
    config = compose_config(*SHORT, *IRIS, *override.split())
    assert reason in explicit_refuses(config)
    chosen = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, engine="explicit"))
    with pytest.raises(ConfigError, match=r"trainer\.engine = 'explicit' cannot train this run"):
        train(chosen, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_every_stackable_optimizer_is_elementwise() -> None:
    """What the engine takes as one flat tensor: an update of the parts is the update of the whole."""
    for name in names.STACKABLE_OPTIMIZERS:
        whole, parts = (
            torch.nn.Parameter(torch.arange(6.0)),
            [torch.nn.Parameter(torch.arange(3.0) + n) for n in (0, 3)],
        )
        make = getattr(torch.optim, name)
        for parameters in ([whole], parts):
            optimizer = make(parameters, lr=0.1)
            for step in range(3):
                for one in parameters:
                    one.grad = one.detach() * (step + 1)
                optimizer.step()
        assert_close(whole, torch.cat([one.detach() for one in parts]))
