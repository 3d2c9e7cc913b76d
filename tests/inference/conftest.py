"""Small trained models of tables, and of data sets that are not tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from support.inference_tables import flowers, in_threes

from mlp_lightning import train
from mlp_lightning.runs import TrainingResult


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run and the file that it was trained on."""

    result: TrainingResult
    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.result.run_dir / "checkpoints" / f"{self.result.weights}.ckpt"


def trained(folder: Path, target: str | list[str], table: pa.Table | None = None, **options: object) -> Trained:
    path = folder / "flowers.csv"
    pyarrow.csv.write_csv(flowers() if table is None else table, path)
    outputs = ["kind", "big", "price", "age", "weight"]
    data = {
        "name": "table",
        "path": str(path),
        "target": target,
        "batch_size": None,
        "val_fraction": 0.2,
        "test_fraction": 0.2,
        "columns": {name: {"kind": "ignored"} for name in ["id", *outputs] if name not in np.atleast_1d(target)},
        **options,
    }
    return Trained(_train(data, folder), path)


def _train(data: dict[str, object], folder: Path) -> TrainingResult:
    config = {
        "data": data,
        "model": {"hidden_units": 8, "depth": 1, "activation": "relu", "dropout": 0.0},
        "optimizer": {"name": "Adam", "lr": 0.05},
        "scheduler": "none",
        "trainer": {"max_steps": 60, "accelerator": "cpu", "label_smoothing": 0.0},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }
    return train(config, folder / "run")


@pytest.fixture(scope="session")
def kind_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of three classes that are texts."""
    return trained(tmp_path_factory.mktemp("kind"), "kind")


@pytest.fixture(scope="session")
def big_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of two classes that are truth values; rows have weights."""
    return trained(tmp_path_factory.mktemp("big"), "big", weight_column="weight")


@pytest.fixture(scope="session")
def labels_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of two targets that are truth values."""
    return trained(tmp_path_factory.mktemp("labels"), ["big", "wild"])


@pytest.fixture(scope="session")
def other_big_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of the same target as ``big_model``, without weights and with fewer columns."""
    return trained(tmp_path_factory.mktemp("other"), "big", columns=_ignored("width"))


@pytest.fixture(scope="session")
def longer_big_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """As ``other_big_model``, with one column more; of a copy of its table."""
    return trained(tmp_path_factory.mktemp("longer"), "big", columns=_ignored())


@pytest.fixture(scope="session")
def split_big_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """As ``other_big_model``, of the same table split by another seed."""
    return trained(tmp_path_factory.mktemp("split"), "big", columns=_ignored("width"), split_seed=5)


def _ignored(*more: str) -> dict[str, dict[str, str]]:
    return {name: {"kind": "ignored"} for name in ["id", "kind", "price", "age", "weight", *more]}


@pytest.fixture(scope="session")
def grouped_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of rows in groups."""
    columns = _ignored("width")
    return trained(tmp_path_factory.mktemp("grouped"), "big", in_threes(), columns=columns, group_column="plant")


@pytest.fixture(scope="session")
def price_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of two numbers."""
    return trained(tmp_path_factory.mktemp("price"), ["price", "age"])


@pytest.fixture(scope="session")
def other_price_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of the same two numbers, with another batch size."""
    return trained(tmp_path_factory.mktemp("other-price"), ["price", "age"], batch_size=32)


@pytest.fixture(scope="session")
def xor_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("xor")
    path = folder / "xor.csv"
    path.write_text("x1,x2,xor\n0,0,0\n0,1,1\n1,0,1\n1,1,0\n")
    return Trained(_train({"name": "xor", "scaling": "none"}, folder), path)


@pytest.fixture(scope="session")
def iris_model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("iris")
    return Trained(_train({"name": "iris", "test_fraction": 0.2, "scaling": "standard"}, folder), folder / "none.csv")
