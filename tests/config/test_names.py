"""The names that a configuration may use against the code that implements them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from conftest import ComposeConfig
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mlp_lightning import TabularDataModule, train
from mlp_lightning.config import conf_dir, names
from mlp_lightning.config.schema import SCHEDULES
from mlp_lightning.data import data_module_class
from mlp_lightning.models import MLP, make_task, mlp

SHORT = ["trainer=cpu", "logger=none", "trainer.max_steps=2"]


@pytest.mark.parametrize("name", [one for one in vars(names) if one.isupper()])
def test_no_name_is_listed_twice(name: str) -> None:
    listed = getattr(names, name)
    assert isinstance(listed, tuple)
    assert len(set(listed)) == len(listed)


def test_activations() -> None:
    assert set(names.ACTIVATIONS) == set(mlp.ACTIVATIONS)


def test_norms() -> None:
    assert set(names.NORMS) == set(mlp.NORMS)


def test_inits() -> None:
    # "default" is what torch.nn.Linear does by itself.
    assert set(names.INITS) == {"default", *mlp.INITS}


@pytest.mark.parametrize("activation", names.ACTIVATIONS)
@pytest.mark.parametrize("init", names.INITS)
def test_every_init_goes_with_every_activation(activation: str, init: str) -> None:
    model = MLP(2, 1, [3], activation=activation, init=init)
    assert torch.isfinite(model(torch.ones(4, 2))).all()


@pytest.mark.parametrize("name", names.DATA_SETS)
def test_data_sets(name: str) -> None:
    module_class = data_module_class(name)
    assert issubclass(module_class, TabularDataModule)
    data = module_class()
    data.setup()
    assert make_task(data.task, data.out_features).name == data.task


def test_each_data_set_has_a_file_that_names_it() -> None:
    files = {
        file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (conf_dir() / "data").glob("*.yaml")
    }
    assert set(files) == set(names.DATA_SETS)
    for name, content in files.items():
        assert content["data"]["name"] == name


@pytest.mark.parametrize("name", names.DATA_SETS_WITHOUT_SPLIT)
def test_data_sets_without_split(name: str, compose_config: ComposeConfig) -> None:
    assert name in names.DATA_SETS
    data = compose_config(f"data={name}").data
    assert (data.val_fraction, data.test_fraction) == (0.0, 0.0)


@pytest.mark.parametrize("name", names.ACCELERATORS)
def test_lightning_knows_every_accelerator(name: str, tmp_path: Path) -> None:
    mps = torch.backends.mps.is_available()
    here = {"auto": True, "cpu": True, "gpu": torch.cuda.is_available() or mps, "mps": mps}[name]
    # What Lightning knows and this machine lacks is a MisconfigurationException; a name it does not know is not.
    outcome = contextlib.nullcontext() if here else pytest.raises(MisconfigurationException)
    with outcome:
        pl.Trainer(accelerator=name, devices=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)


@pytest.mark.parametrize("precision", names.PRECISIONS)
def test_every_precision_trains(precision: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    result = train(compose_config(*SHORT, f"trainer.precision={precision}"), tmp_path / "run")
    assert result.steps == 2
    dtypes = {one.dtype for one in result.module.parameters()}
    assert dtypes == {torch.float64 if precision == "64" else torch.float32}


@pytest.mark.parametrize("monitor", names.MONITORS)
def test_every_monitor_chooses_a_best_checkpoint(monitor: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config("data=iris", *SHORT, f"callbacks.checkpoint.monitor={monitor}")
    result = train(config, tmp_path / "run")
    assert result.best is not None
    assert result.best["monitor"] == monitor
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("monitor", [one for one in names.MONITORS if one.endswith("/val")])
def test_every_validation_metric_can_stop_a_run(monitor: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    # With a learning rate of nearly 0 nothing improves by as much as min_delta: patience decides the length.
    config = compose_config(
        "data=iris",
        "callbacks=early_stopping",
        *SHORT[:2],
        "trainer.max_epochs=50",
        "optimizer.lr=1e-6",
        f"callbacks.early_stopping.monitor={monitor}",
        "callbacks.early_stopping.patience=3",
        "callbacks.early_stopping.min_delta=0.5",
    )
    result = train(config, tmp_path / "run")
    assert result.epochs == 4
    assert monitor in result.stopped_by


def test_schedules_are_known_by_their_own_name_and_have_a_file() -> None:
    assert {name: one().name for name, one in SCHEDULES.items()} == {name: name for name in SCHEDULES}
    assert {file.stem for file in (conf_dir() / "scheduler").glob("*.yaml")} == set(SCHEDULES)
