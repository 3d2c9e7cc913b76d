"""The names that a configuration may use against the code that implements them."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.configurations import ComposeConfig

from mlp_lightning import train
from mlp_lightning.config import CsvConfig, DataConfig, conf_dir, conf_files, names
from mlp_lightning.config.schedules import SCHEDULES
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError
from mlp_lightning.networks import MLP, make_task, mlp
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.runs.build import build_data, build_module
from mlp_lightning.runs.own_parts import OwnParts
from mlp_lightning.tables.datasets import load_dataset
from mlp_lightning.tables.datasets.synthetic import synthetic_table
from mlp_lightning.tables.reading.moments import FIELDS
from mlp_lightning.tables.reading.sources import FileSource

SHORT = ["trainer=cpu", "logger=none", "trainer.max_steps=2"]


LISTS = {name: one for name, one in vars(names).items() if isinstance(one, tuple) and name.isupper()}


@pytest.mark.parametrize("listed", [*LISTS.values(), names.data_sets()], ids=[*LISTS, "data_sets"])
def test_no_name_is_listed_twice(listed: Any) -> None:
    assert isinstance(listed, tuple)
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", names.OTHER_OPTIMIZERS)
def test_arguments_of_optimizers_without_a_file(name: str) -> None:
    assert conf_files.optimizer_option(name) is None
    accepted = inspect.signature(getattr(torch.optim, name)).parameters
    assert {"params", "lr", *names.OTHER_OPTIMIZERS[name]} == {*accepted}


def test_every_optimizer_has_its_arguments() -> None:
    without_file = {name for name in names.TORCH_OPTIMIZERS if conf_files.optimizer_option(name) is None}
    assert without_file == {*names.OTHER_OPTIMIZERS}


def test_activations() -> None:
    assert tuple(ACTIVATIONS) == names.activations()


def test_letters_of_moments() -> None:
    assert set(names.MOMENT_LETTERS) == set(FIELDS)


def test_norms() -> None:
    assert set(names.NORMS) == set(mlp.NORMS)


def test_inits() -> None:
    # "default" is the initialisation of torch.nn.Linear.
    assert set(names.INITS) == {"default", *mlp.INITS}


@pytest.mark.parametrize("activation", names.activations())
@pytest.mark.parametrize("init", names.INITS)
def test_every_init_goes_with_every_activation(activation: str, init: str) -> None:
    model = MLP(2, 1, [3], activation=activation, init=init)
    assert torch.isfinite(model(torch.ones(4, 2))).all()


def overrides_for(name: str, folder: Path) -> list[str]:
    """The overrides that train on a data set."""
    if name == "table":
        file = folder / "rows.csv"
        file.write_text("x,y\n" + "".join(f"{one / 3:.2f},{one % 2}\n" for one in range(20)), encoding="utf-8")
        return ["data=table", f"data.path={file}", "data.target=y"]
    return [f"data={name}"] if name in FILES else ["data=sklearn", f"data.name={name}"]


FILES = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (conf_dir() / "data").glob("*.yaml")}


@pytest.mark.parametrize("name", names.data_sets())
def test_data_sets(name: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    config = compose_config(*overrides_for(name, tmp_path))
    assert (config.data.name, config.name) == (name, name)
    data = TabularDataModule.from_config(config)
    data.setup()
    assert make_task(data.task, data.out_features, data.target.mean, data.target.scale).name == data.task
    assert data.task in names.tasks()


def test_each_data_set_has_a_file_that_names_it() -> None:
    """All but those of scikit-learn, which share one; it names one of them."""
    assert set(FILES) - {"sklearn"} == set(names.data_sets()) - set(names.SKLEARN_SETS) | {"iris"}
    for name, content in FILES.items():
        assert content["data"]["name"] == ("wine" if name == "sklearn" else name)


def test_tables() -> None:
    assert not set(names.SKLEARN_SETS) & set(names.SYNTHETIC_SETS)
    assert set(FILES) >= set(names.SYNTHETIC_SETS)


@pytest.mark.parametrize("name", names.SKLEARN_SETS)
def test_scikit_learn_ships_the_table(name: str) -> None:
    table, targets = load_dataset(DataConfig(name=name))
    assert table.column_names[-len(targets) :] == targets


@pytest.mark.parametrize("name", names.SYNTHETIC_SETS)
def test_drawn_tables(name: str) -> None:
    table, targets = synthetic_table(name, samples=12, noise=0.1, bits=3, seed=0)
    assert table.num_rows == (8 if name == "parity" else 12)
    assert table.column_names[-len(targets) :] == targets


@pytest.mark.parametrize("name", names.tasks())
def test_tasks(name: str) -> None:
    assert make_task(name, 3).name == name


def test_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match=", ".join(names.tasks())):
        make_task("ranking", 3)


@pytest.mark.parametrize("scaling", names.SCALINGS)
def test_scalings(scaling: str, compose_config: ComposeConfig) -> None:
    data = TabularDataModule.from_config(compose_config("data=moons", f"data.scaling={scaling}"))
    data.setup()
    assert torch.isfinite(data.splits["train"].features_BF).all()


@pytest.mark.parametrize("kind", names.NUMERIC_EMBEDDINGS)
def test_numeric_embeddings(kind: str, compose_config: ComposeConfig) -> None:
    config = compose_config("data=moons", f"model.numeric_embedding={kind}", "trainer.max_steps=1")
    module = build_module(config, build_data(config), OwnParts())
    embeds = any(type(one).__name__.endswith("Embedding") for one in module.modules())
    assert embeds == (kind != "none")


@pytest.mark.parametrize("kind", names.COLUMN_KINDS)
def test_column_kinds(kind: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    """A column of dates, zeros and ones can be what each kind says, and then is what it says."""
    values = [f"2024-01-0{1 + one % 9}" if kind in ("datetime", "auto") else str(one % 2) for one in range(20)]
    file = tmp_path / "rows.csv"
    file.write_text("a,b,y\n" + "".join(f"{one},{i},{i % 2}\n" for i, one in enumerate(values)), encoding="utf-8")
    config = compose_config("data=table", f"data.path={file}", "data.target=y", f"+data.columns.a.kind={kind}")
    data = TabularDataModule.from_config(config)
    data.setup()
    kinds = {one.name: one.kind for one in data.preprocessor.columns}
    assert kinds == {"b": "numeric", **({} if kind == "ignored" else {"a": "datetime" if kind == "auto" else kind})}


@pytest.mark.parametrize("delimiter", names.DELIMITERS)
def test_delimiters(delimiter: str, tmp_path: Path) -> None:
    character = {"auto": ";", "tab": "\t", "space": " "}.get(delimiter, delimiter)
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,x\n2,y\n".replace(",", character), encoding="utf-8")
    table = FileSource.open(str(file), CsvConfig(delimiter=delimiter)).read()
    assert table.to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


def test_export_formats() -> None:
    """Each has a separate file."""
    there = {file.stem for file in (conf_dir().parent / "mlp_lightning" / "inference" / "export").glob("*.py")}
    assert set(names.EXPORT_FORMATS) <= there


@pytest.mark.parametrize("name", names.DATA_SETS_WITHOUT_SPLIT)
def test_data_sets_without_split(name: str, compose_config: ComposeConfig) -> None:
    assert name in names.data_sets()
    with pytest.raises(ConfigError, match=f"must be 0 for {name}"):
        compose_config(f"data={name}", "data.test_fraction=0.1")
    data = compose_config(f"data={name}").data
    assert (data.val_fraction, data.test_fraction) == (0.0, 0.0)


@pytest.mark.parametrize("name", names.ACCELERATORS)
def test_lightning_knows_every_accelerator(name: str, tmp_path: Path) -> None:
    mps = MPSAccelerator.is_available()
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
