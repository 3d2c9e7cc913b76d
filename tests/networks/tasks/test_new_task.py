"""A task that this package does not have: one class and its entry, and everything else works with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import PoissonRegressor
from support.tolerances import assert_close
from torch import Tensor

from mlp_lightning import train
from mlp_lightning.config import names, parse_config
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.export.formats import export_model
from mlp_lightning.inference.predict import predict
from mlp_lightning.networks.tasks import TASKS
from mlp_lightning.networks.tasks.base import Floats, mean, shared_out
from mlp_lightning.networks.tasks.regression import RegressionTask
from mlp_lightning.runs.fit import train_stack
from mlp_lightning.tables.targets import Target


class CountTask(RegressionTask):
    """Counts: the output is the logarithm of their mean. Loss: that of a Poisson distribution, without its constant."""

    name = "counts"

    @classmethod
    def poses(cls, columns: Any) -> bool:
        return False

    @classmethod
    def make(cls, out_features: int, mean: Any = (), scale: Any = ()) -> CountTask:
        return cls()

    @classmethod
    def as_learnt(cls, target: Target, numbers_BT: Floats, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(numbers_BT).to(dtype)

    def loss(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Any = None, weights_B: Tensor | None = None
    ) -> Tensor:
        return mean((logits_BC.exp() - targets * logits_BC).mean(-1), weights_B)

    def loss_gradient(
        self, logits_BC: Tensor, targets: Tensor, smoothing: Any = None, weights_B: Tensor | None = None
    ) -> Tensor:
        return shared_out(logits_BC.exp() - targets, weights_B)

    def metric(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor | None = None) -> Tensor:
        return mean((logits_BC.exp() - targets).abs().mean(-1), weights_B)

    def baseline(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        of_mean, of_median = super().baseline(targets)
        return of_mean.log(), of_median.clamp(1e-9).log()

    def predictions(self, logits_BC: Tensor) -> Tensor:
        return logits_BC.exp()

    def truths(self, targets: Tensor) -> Tensor:
        return targets


@pytest.fixture
def visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """A table of counts, also as ``visits.csv`` in the working folder, and the task that learns them."""
    monkeypatch.setitem(TASKS, "counts", CountTask)
    monkeypatch.setattr(names, "tasks", lambda: tuple(TASKS))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    x, z = generator.normal(size=200), generator.normal(size=200)
    table = pa.table({"x": x, "z": z, "visits": generator.poisson(np.exp(0.3 + 0.5 * x - 0.4 * z))})
    pyarrow.csv.write_csv(table, "visits.csv")
    return table


def asked(**model: Any) -> dict[str, Any]:
    return {
        "task": "counts",
        "data": {
            "name": "table",
            "path": "visits.csv",
            "target": "visits",
            "val_fraction": 0.0,
            "test_fraction": 0.0,
            "batch_size": None,
        },
        "model": {"hidden_units": None, "depth": 0, "dropout": 0.0, **model},
        "optimizer": {"name": "Adam", "lr": 0.05},
        "scheduler": {"name": "none"},
        "trainer": {"max_steps": 400, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
    }


def test_it_trains_predicts_evaluates_and_exports(visits: pa.Table) -> None:
    result = train(asked(), "run")
    assert (result.status, result.metrics["train"]["loss"]) == ("finished", pytest.approx(0.0, abs=1.0))
    checkpoint = result.run_dir / "checkpoints" / "last.ckpt"
    counts_B = visits.column("visits").to_numpy()
    predict(checkpoint, "visits.csv", "out.csv")
    (predicted,) = pyarrow.csv.read_csv("out.csv").columns
    # A linear model of counts: the same optimum as that of scikit-learn's, up to where Adam stopped.
    features_BF = np.stack([visits.column("x"), visits.column("z")], axis=1)
    best = PoissonRegressor(alpha=0, tol=1e-10).fit(features_BF, counts_B).predict(features_BF)
    np.testing.assert_allclose(predicted.to_numpy(), best, rtol=0.02)
    report = evaluate(checkpoint, "figures", "visits.csv")
    assert report.metrics["mae"] == pytest.approx(np.abs(predicted.to_numpy() - counts_B).mean())
    assert json.loads(Path("figures/metrics.json").read_text(encoding="utf-8"))["task"] == "counts"
    assert export_model(checkpoint, "torch", "model").largest_difference < 1e-5


def test_a_stack_of_them(visits: pa.Table, tmp_path: Path) -> None:
    configs = [{**asked(hidden_units=[width], depth=None), "trainer": {"max_steps": 50}} for width in (3, 5)]
    together = train_stack([parse_config(one) for one in configs], [tmp_path / "one", tmp_path / "two"])
    for number, (config, of_stack) in enumerate(zip(configs, together, strict=True)):
        alone = train({**config, "trainer": {**config["trainer"], "engine": "autograd"}}, f"alone-{number}")
        for name, value in alone.metrics["train"].items():
            assert of_stack.metrics["train"][name] == pytest.approx(value, rel=1e-4)


def test_its_gradient_is_that_of_autograd_and_its_loss_that_of_torch() -> None:
    draw = torch.Generator().manual_seed(0)
    logits_BC = torch.randn(9, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    targets = torch.poisson(torch.full((9, 2), 3.0, dtype=torch.float64), generator=draw)
    loss = CountTask().loss(logits_BC, targets)
    assert_close(loss, F.poisson_nll_loss(logits_BC, targets))
    loss.backward()
    assert_close(CountTask().loss_gradient(logits_BC.detach(), targets), logits_BC.grad, atol=1e-12)
