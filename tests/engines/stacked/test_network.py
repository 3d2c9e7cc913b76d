"""Stacks of networks with embeddings, normalisation and residual blocks: each member trains as it does alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.configurations import ComposeConfig
from support.run_folders import assert_same_content, assert_same_run
from support.tables import mixed_table
from support.tolerances import assert_close, assert_same_bits, assert_same_weights

from mlp_lightning.config import Config
from mlp_lightning.engines.stacked.network import StackedNetwork
from mlp_lightning.engines.stacked.network_gradients import NetworkGradients
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.runs import train, train_stack
from mlp_lightning.runs.build import build_data
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
SLOW = ["optimizer=sgd", "optimizer.lr=0.01", "model.activation=tanh"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixed table of 160 rows with targets of every task."""
    path, draw = tmp_path_factory.mktemp("table") / "rows.parquet", np.random.default_rng(0)
    table = mixed_table(160)
    table = table.append_column("far", pa.array(1e4 + 300 * draw.normal(size=160)))
    table = table.append_column("z", pa.array(draw.choice(["no", "yes"], 160)))
    table = table.append_column("kind", pa.array(np.array(["a", "b", "c"])[np.arange(160) % 3]))
    table = table.append_column("place", pa.array([f"place {one}" for one in draw.integers(0, 60, 160)]))
    pq.write_table(table, path)
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
        found.append(
            dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=config.optimizer.lr * lr))
        )
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


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.residual=true", "model.norm=layer", "model.numeric_embedding=piecewise_linear", *SLOW],
        ["model.norm=batch", "model.bias=false", "model.numeric_embedding=periodic", *OPTIMIZERS["momentum"]],
    ],
)
def test_rounding_after_300_steps(
    overrides: list[str], compose_config: ComposeConfig, path: Path, tmp_path: Path
) -> None:
    """Settings that magnify rounding little; Adam and a bias before batch norm, with a gradient of 0, magnify it."""
    long = ["data.max_one_hot=2", "trainer.max_steps=300", "trainer.precision=64", "data.target=y"]
    compare(compose_config, path, tmp_path, [*overrides, *long], 1e-9)


@pytest.mark.parametrize("name", ["categories", "layer norm", "batch norm", "residual"])
@pytest.mark.parametrize("batch_size", ["null", "16"])
def test_folds_leave_the_folders_of_runs_alone(
    name: str, batch_size: str, compose_config: ComposeConfig, path: Path, tmp_path: Path
) -> None:
    """Folds of unequal numbers of rows, with their own vocabularies and statistics."""
    overrides = [
        *("data=table", f"data.path={path}", "data.target=y", "data.cv.folds=3", f"data.batch_size={batch_size}"),
        *(
            "model.hidden_units=6",
            "trainer.max_epochs=30",
            "data.max_one_hot=4",
            "data.test_fraction=0",
            "data.val_fraction=0.3",
        ),
        *(
            "optimizer=sgd",
            "optimizer.lr=0.1",
            "scheduler=none",
            "trainer=cpu",
            "logger.graph=false",
            "trainer.precision=64",
        ),
    ]
    configs = [compose_config(*overrides, *PARTS[name], f"data.cv.fold={fold}") for fold in (0, 1, 2)]
    data = [build_data(one) for one in configs]
    assert len({len(one.splits["train"]) for one in data}) > 1
    if name == "categories":
        assert len({tuple(one.cardinalities) for one in data}) > 1
    stacked = train_stack(configs, [tmp_path / "stack" / str(fold) for fold in range(3)], data=data)
    for config, one in zip(configs, stacked, strict=True):
        alone = train(config, tmp_path / "alone" / one.run_dir.name, has_card=False)
        assert_same_content(one.metrics, alone.metrics)
        assert_same_run(one.run_dir, alone.run_dir)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_one_layer_of_padding(norm: str) -> None:
    """Weights of padding stay 0, whatever the gradient of the others is."""
    networks = [MLP(4, 2, [units, 7], "softplus", 0.0, norm).double() for units in (6, 3)]
    model = StackedNetwork(networks, [0.0, 0.0])
    gradient_N, logits_KBC = torch.zeros_like(model.flat_N.detach()), torch.empty(2, 9, 2).double()
    chain = NetworkGradients(model, gradient_N)
    features_BF, delta_KBC = torch.randn(9, 4).double(), torch.randn(2, 9, 2).double()
    with torch.no_grad():
        for _ in range(3):
            chain.forward(features_BF, logits_KBC)
            chain.backward(features_BF, delta_KBC)
            model.flat_N.sub_(0.1 * gradient_N)
    for member, network in enumerate(networks):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            network(features_BF).backward(delta_KBC[member])
            optimizer.step()
        for name, one in network.state_dict().items():
            assert_close(model.unstack(member).state_dict()[name], one, 1e-9)
        assert_close(model(features_BF)[member], network.eval()(features_BF), 1e-9)
    own = sum(part.numel() for member in (0, 1) for part in model.parts(model.flat_N, member))
    values = torch.cat([block.flatten() for block in model.learned(model.flat_N.detach())])
    assert values.count_nonzero() <= own < len(values)


def test_selected_members_keep_their_states() -> None:
    networks = [MLP(4, 2, [units], "silu", 0.1, "batch") for units in (6, 3, 4)]
    model = StackedNetwork(networks, [0.1] * 3)
    chosen = model.select([2, 1])
    assert_same_bits(model.selected(model.flat_N.detach(), [2, 1], chosen), chosen.flat_N.detach())
    assert_same_weights(chosen.unstack(0), networks[2])
    assert max(one.shape[-1] for one in chosen.learned(chosen.flat_N)) == 4
