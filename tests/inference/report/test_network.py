"""The forward pass of a page is that of Python."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from support.page_scripts import run_scripts
from torch import nn

from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.report.network import MOST_PARAMETERS, NotLive, live_network
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.runs.module import MLPModule

ROWS = 100
FORWARD = """
  return data.map(({ spec, rows }) => {
    const network = new Network(spec);
    return rows.map((row) => {
      const { layers, predictions } = network.forward(row.map((one) => (one === null ? NaN : one)));
      return { units: layers.map((one) => one.values), predictions };
    });
  });
"""


def in_page(cases: list[tuple[dict[str, Any], np.ndarray]]) -> list[Any]:
    rows = [[[None if math.isnan(one) else one for one in row] for row in raw.tolist()] for _, raw in cases]
    data = [{"spec": spec, "rows": of_case} for (spec, _), of_case in zip(cases, rows, strict=True)]
    return run_scripts(["network.js"], FORWARD, data)


def variant(model: TrainedModel, seed: int = 0, scaling: str = "standard", **options: Any) -> TrainedModel:
    """A model of the same columns with another network, of random weights and statistics."""
    hparams = copy.deepcopy(dict(model.module.hparams))
    hparams["model"] = {**hparams["model"], "hidden_units": [7, 7], "depth": 2, **options}
    hparams["preprocessing"]["scaling"] = scaling
    hparams["seed"] = seed
    module = MLPModule(**hparams)
    generator = torch.Generator().manual_seed(seed)
    for name, one in module.named_buffers():
        if "running_var" in name:
            one.copy_(torch.rand(one.shape, generator=generator) + 0.5)
        elif "running_mean" in name:
            one.copy_(torch.randn(one.shape, generator=generator))
    for name, one in model.preprocessors[0].named_buffers():
        if not name.startswith("knots"):
            module.preprocessor.get_buffer(name).copy_(one)
    if scaling == "quantile":
        knots = module.preprocessor.get_buffer("knots_QN")
        steps = torch.rand(knots.shape, generator=generator, dtype=torch.float64).round(decimals=1).cumsum(0)
        center, scale = model.preprocessors[0].center_N, model.preprocessors[0].scale_N
        knots.copy_((steps - steps.mean(0)) / 10 * scale + center)
    return TrainedModel.of(module.eval(), model.config, model.path)


def raw_rows(model: TrainedModel, seed: int = 0) -> np.ndarray:
    """Numbers around those of the training rows, gaps, far outliers, and codes, unknown ones included."""
    random = np.random.default_rng(seed)
    columns = []
    pre = model.preprocessors[0]
    for number, column in enumerate(model.columns):
        if column.kind == "categorical":
            columns.append(random.integers(0, 2 + len(column.vocabulary), ROWS).astype(float))
            continue
        values = random.normal(size=ROWS) * 1.5
        values[:3] = 1e7, -1e7, 0
        place = pre.plan()["numbers"].index(number)
        values = values * float(pre.scale_N[place]) + float(pre.center_N[place])
        if column.kind == "boolean":
            values = random.integers(0, 2, ROWS).astype(float)
        values[random.random(ROWS) < 0.2] = np.nan
        columns.append(values)
    return np.stack(columns, axis=1)


def units_of(model: TrainedModel, raw_BF: np.ndarray) -> list[np.ndarray]:
    """What every layer answers, in double precision, by torch."""
    network = copy.deepcopy(model.module)
    features_BP = network.preprocessor(torch.from_numpy(raw_BF)).float()
    mlp = network.mlp.double()
    found: list[np.ndarray] = []

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        found.append(output.detach().numpy())

    embedded = features_BP.double() if mlp.embedding is None else mlp.embedding(features_BP.double())
    found.append(embedded.detach().numpy())
    for module in mlp.layers.modules():
        leaf = not list(module.children())
        if (leaf and not isinstance(module, nn.Dropout)) or type(module).__name__ == "ResidualBlock":
            module.register_forward_hook(keep)
    mlp.layers(embedded)
    return found


@pytest.fixture(scope="module")
def tables(kind_model, big_model, price_model) -> dict[str, TrainedModel]:
    named = {"multiclass": kind_model, "binary": big_model, "regression": price_model}
    return {name: load_model(one.checkpoint) for name, one in named.items()}


def agree(models: list[TrainedModel]) -> None:
    raw = [raw_rows(one, seed) for seed, one in enumerate(models)]
    answers = in_page([(live_network(one), rows) for one, rows in zip(models, raw, strict=True)])
    for model, raw_BF, of_rows in zip(models, raw, answers, strict=True):
        expected = model.predict(raw_BF)
        found = np.array([one["predictions"] for one in of_rows])
        scale = np.abs(expected).max(0) if model.target.task == "regression" else 1.0
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-6)
        for layer, values in enumerate(units_of(model, raw_BF)):
            in_this = np.array([one["units"][layer] for one in of_rows])
            np.testing.assert_allclose(in_this, values, rtol=1e-9, atol=1e-9)
        assert len(of_rows[0]["units"]) == layer + 1


def test_every_activation(tables) -> None:
    agree([variant(tables["multiclass"], number, activation=one) for number, one in enumerate(ACTIVATIONS)])


@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile", "none"])
def test_every_scaling_and_task(tables, scaling: str) -> None:
    small = {"init": "zeros"} if scaling == "none" else {}  # raw numbers of 3,000 saturate everything
    agree([variant(one, 3, scaling, activation="tanh", **small) for one in tables.values()])


def test_norms_and_residual_blocks(tables) -> None:
    options = [{"norm": norm, "residual": residual} for norm in ("none", "batch", "layer") for residual in (0, 1)]
    agree([variant(tables["binary"], 5, dropout=0.3, bias=bool(n % 2), **one) for n, one in enumerate(options)])


def test_embedded_numbers(tables) -> None:
    kinds = {"numeric_embedding": "piecewise_linear"}, {"numeric_embedding": "periodic", "embedding_sigma": 0.2}
    agree([variant(one, 7, "robust", **kind) for one in tables.values() for kind in kinds])


def test_embedded_categories_and_dates(tables) -> None:
    model = tables["multiclass"]
    columns = [
        dataclasses.replace(one, encoding="embedding") if one.kind == "categorical" else one for one in model.columns
    ]
    columns[0] = dataclasses.replace(columns[0], kind="datetime", type="timestamp", parts=("year", "week", "day"))
    hparams = copy.deepcopy(dict(model.module.hparams))
    hparams["preprocessing"]["columns"] = [one.to_dict() for one in columns]
    from mlp_lightning.networks.preprocessor import Preprocessor

    hparams["in_features"] = Preprocessor(columns).out_features
    module = MLPModule(**hparams)
    with torch.no_grad():
        module.preprocessor.get_buffer("center_N")[:] = 1.6e9
        module.preprocessor.get_buffer("scale_N")[:] = 3e7
    agree([TrainedModel.of(module.eval(), model.config, model.path)])


def test_erf() -> None:
    x = np.concatenate([np.linspace(-7, 7, 401), [1e-300, 1e-9]])
    found = run_scripts(["network.js"], "return data.map(erf);", x.tolist())
    np.testing.assert_allclose(found, special.erf(x), rtol=1e-13, atol=0)


def test_what_the_page_cannot_compute(tables) -> None:
    large = variant(tables["binary"], hidden_units=[400, 400])
    with pytest.raises(NotLive) as caught:
        live_network(large)
    assert caught.value.key == "not_live_large"
    assert caught.value.values["most"] == f"{MOST_PARAMETERS:,}"
    other = variant(tables["binary"])
    other.module.mlp.layers[1] = nn.ReLU6()
    with pytest.raises(NotLive) as caught:
        live_network(other)
    assert (caught.value.key, caught.value.values) == ("not_live_own", {"name": "ReLU6"})
    half = variant(tables["binary"])
    half.module.mlp.bfloat16()
    with pytest.raises(NotLive) as caught:
        live_network(half)
    assert caught.value.key == "not_live_precision"
