"""Stacks of networks with embeddings, normalisation and residual blocks: each member trains as it does alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from support.configurations import ComposeConfig
from support.tables import mixed_table
from support.tolerances import assert_close

from mlp_lightning.config import Config
from mlp_lightning.runs import train, train_stack
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("trainer=cpu", "logger=none", "trainer.threads=1", "verbosity=0")
PARTS = {
    "categories": ["data.max_one_hot=2", "model.embedding_size=3"],
    "periodic": ["data.max_one_hot=2", "model.numeric_embedding=periodic"],
    "piecewise linear": ["model.numeric_embedding=piecewise_linear", "model.embedding_frequencies=5"],
    "layer norm": ["model.norm=layer"],
    "batch norm": ["model.norm=batch"],
    "residual": ["model.residual=true", "model.norm=batch", "model.depth=2", "data.max_one_hot=2"],
    "residual, layer norm": ["model.residual=true", "model.norm=layer", "model.depth=3", "model.bias=false"],
    "residual without norm": ["model.residual=true", "model.depth=2", "model.activation=softplus"],
}
TASKS = {"binary": "y", "multiclass": "kind", "multilabel": "[y,z]", "regression": "far"}
OPTIMIZERS = {
    "sgd": ["optimizer=sgd", "optimizer.lr=0.05"],
    "momentum": ["optimizer=sgd", "optimizer.lr=0.02", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"],
    "adam": ["optimizer=adam", "optimizer.lr=0.01", "optimizer.weight_decay=0.01"],
    "adamw": ["optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1"],
    "rmsprop": ["optimizer=rmsprop", "optimizer.lr=0.003"],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixed table of 64 rows with targets of every task."""
    path, draw = tmp_path_factory.mktemp("table") / "rows.parquet", np.random.default_rng(0)
    table = mixed_table(64)
    table = table.append_column("far", pa.array(1e4 + 300 * draw.normal(size=64)))
    table = table.append_column("z", pa.array(draw.choice(["no", "yes"], 64)))
    table = table.append_column("kind", pa.array(np.array(["a", "b", "c"])[np.arange(64) % 3]))
    pa.parquet.write_table(table, path)
    return path


def members(
    compose_config: ComposeConfig, path: Path, engine: str, overrides: Sequence[str], most_steps: int = 40
) -> list[Config]:
    """Three runs of other seeds, widths, rates and dropout."""
    common = [
        *SHORT,
        *("data=table", f"data.path={path}", "model.depth=1", "data.batch_size=20"),
        *("scheduler=none", "model.activation=silu", f"trainer.max_steps={most_steps}", "trainer.max_epochs=null"),
        *("trainer.log_every_n_steps=1", "trainer.label_smoothing=0", f"trainer.engine={engine}"),
    ]
    found = []
    for seed, units, lr, dropout in ((0, 6, 1.0, 0.2), (1, 4, 0.5, 0.0), (2, 6, 2.0, 0.4)):
        one = [f"seed={seed}", f"model.hidden_units={units}", f"model.dropout={dropout}"]
        config = compose_config(*common, *one, *overrides)
        found.append(dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=config.optimizer.lr * lr)))
    return found


def assert_as_alone(folders: Sequence[tuple[Path, Path]], atol: float) -> None:
    """The last and the best checkpoint of each member, with the state of the optimizer."""
    for member, alone in folders:
        for name in ("last", "best"):
            files = [RunFolder(one).last_checkpoint.with_name(f"{name}.ckpt") for one in (member, alone)]
            actual, expected = map(read_checkpoint, files)
            assert list(actual["state_dict"]) == list(expected["state_dict"])
            assert_same(actual["state_dict"], expected["state_dict"], atol)
            assert_same(actual["optimizer_states"][0], expected["optimizer_states"][0], atol)


def assert_same(actual: Any, expected: Any, atol: float) -> None:
    if isinstance(expected, torch.Tensor):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        assert_close(actual, expected, atol)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name, one in expected.items():
            assert_same(actual[name], one, atol)
    else:
        assert actual == expected


def compare(compose_config: ComposeConfig, path: Path, tmp_path: Path, overrides: Sequence[str], atol: float) -> None:
    together = members(compose_config, path, "stacked", overrides)
    train_stack(together, [tmp_path / "stack" / str(number) for number in range(3)])
    folders = []
    for number, config in enumerate(members(compose_config, path, "autograd", overrides)):
        train(config, tmp_path / "alone" / str(number))
        folders.append((tmp_path / "stack" / str(number), tmp_path / "alone" / str(number)))
    assert_as_alone(folders, atol)


@pytest.mark.parametrize("number", range(len(PARTS)), ids=list(PARTS))
@pytest.mark.parametrize("shift", range(2))
def test_members_train_as_alone(
    number: int, shift: int, compose_config: ComposeConfig, path: Path, tmp_path: Path
) -> None:
    """All parts, with tasks and optimizers in turn."""
    parts = list(PARTS.values())[number]
    target = list(TASKS.values())[(number + shift) % len(TASKS)]
    optimizer = list(OPTIMIZERS.values())[(number + 2 * shift) % len(OPTIMIZERS)]
    compare(compose_config, path, tmp_path, [*parts, f"data.target={target}", *optimizer, "trainer.precision=64"], 1e-9)
