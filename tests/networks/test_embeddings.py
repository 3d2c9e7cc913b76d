"""Embeddings of numbers and categories, by hand and inside a network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tables import generator, mixed_table, module_of, set_up
from support.tolerances import assert_close, assert_same_bits, assert_same_weights
from torch import Tensor

from mlp_lightning.data import IrisDataModule
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.rows import Rows
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.networks.embeddings import FeatureEmbedding, PeriodicEmbedding, PiecewiseLinearEmbedding
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.tasks import make_task
from mlp_lightning.runs.module import MLPModule

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

KINDS = ("none", "periodic", "piecewise_linear")


def some_features(rows: int, numbers: int, between: int, cardinalities: list[int], seed: int = 0) -> Tensor:
    draw = generator(seed)
    numeric_BP = torch.randn(rows, numbers + between, generator=draw)
    codes = [torch.randint(0, codes, (rows, 1), generator=draw) for codes in cardinalities]
    return torch.cat([numeric_BP, *codes], dim=1)


# ---- numbers, by hand --------------------------------------------------------------------------------------


def piecewise_linear_encoding(x: float, edges: list[float]) -> list[float]:
    """Equation 1 of Gorishniy et al., 2022, within the edges: the bin of x in part, those before it in full."""
    encoding = []
    for low, high in zip(edges, edges[1:], strict=False):  # noqa: RUF007
        if x < low:
            encoding.append(0.0)
        elif x >= high:
            encoding.append(1.0)
        else:
            encoding.append((x - low) / (high - low))
    return encoding


@pytest.mark.parametrize("bins", [1, 4, 7])
def test_piecewise_linear_is_equation_1(bins: int) -> None:
    module = PiecewiseLinearEmbedding(2, 3, bins)
    train_BN = torch.randn(200, 2, generator=generator()) * torch.tensor([1.0, 50.0])
    module.take_statistics(train_BN)
    edges_QN = module.edges_QN
    assert_same_bits(edges_QN[0], train_BN.min(0).values)
    assert_same_bits(edges_QN[-1], train_BN.max(0).values)
    found_BND = module(train_BN)
    for row, numbers in zip(found_BND, train_BN.tolist(), strict=True):
        for number, x in enumerate(numbers):
            encoding = torch.tensor(piecewise_linear_encoding(x, edges_QN[:, number].tolist()))
            expected = encoding @ module.weights_NQD[number] + module.biases_ND[number]
            assert_close(row[number], expected, atol=1e-5)


def test_edges_of_bins_are_quantiles_of_the_training_rows() -> None:
    module = PiecewiseLinearEmbedding(1, 2, 4)
    module.take_statistics(torch.arange(101.0).flip(0).unsqueeze(1))
    assert module.edges_QN[:, 0].tolist() == [0, 25, 50, 75, 100]
    # A column with few different values has empty bins, and nothing is divided by their width.
    module.take_statistics(torch.tensor([[0.0]] * 90 + [[1.0]] * 10))
    assert module.edges_QN[:, 0].tolist() == [0, 0, 0, 0, 1]
    assert_close(module(torch.tensor([[0.0]])), module.biases_ND[None])
    assert_close(module(torch.tensor([[1.0]])), (module.biases_ND + module.weights_NQD.sum(1))[None])
    half = module.biases_ND + module.weights_NQD[:, :3].sum(1) + 0.5 * module.weights_NQD[:, 3]
    assert_close(module(torch.tensor([[0.5]])), half[None])


def test_numbers_outside_of_all_bins_are_taken_as_the_nearest_edge() -> None:
    module = PiecewiseLinearEmbedding(1, 2, 4)
    ends = module(module.edges_QN[[0, -1]])
    assert_same_bits(module(torch.tensor([[-1e30], [1e30]])), ends)


def test_periodic_by_formula() -> None:
    module = PeriodicEmbedding(3, 4, 5, 0.7)
    numbers_BN = torch.randn(6, 3, generator=generator())
    found_BND = module(numbers_BN)
    assert found_BND.shape == (6, 3, 4)
    for row, numbers in zip(found_BND, numbers_BN.tolist(), strict=True):
        for n, x in enumerate(numbers):
            pairs = zip(module.frequencies_NQ[n].tolist(), module.phases_NQ[n].tolist(), strict=True)
            angles = [2 * math.pi * (frequency * x + phase) for frequency, phase in pairs]
            waves = torch.tensor([math.cos(angle) for angle in angles])
            expected = [x, *(waves @ module.weights_NQD[n] + module.biases_ND[n]).tolist()]
            assert_close(row[n], expected, atol=1e-5)


def test_initial_frequencies_have_the_deviation_that_is_asked_for() -> None:
    torch.manual_seed(0)
    module = PeriodicEmbedding(200, 3, 50, 0.3)
    assert module.frequencies_NQ.std().item() == pytest.approx(0.3, rel=0.05)
    assert module.phases_NQ.min().item() >= -0.5
    assert module.phases_NQ.max().item() <= 0.5
    assert module.weights_NQD.abs().max().item() <= 1 / math.sqrt(50)


# ---- all together ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.integers(2, 6), max_size=3),
    st.sampled_from(KINDS),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_out_features_are_those_that_come_out(
    numbers: int, between: int, cardinalities: list[int], kind: str, size: int, frequencies: int, rows: int
) -> None:
    features_BP = some_features(rows, numbers, between, cardinalities)
    embedding = FeatureEmbedding(features_BP.shape[1], numbers, cardinalities, kind, size, frequencies)
    embedding.take_statistics(some_features(10, numbers, between, cardinalities))
    found = embedding(features_BP)
    assert found.shape == (rows, embedding.out_features)
    # What is not embedded stays unchanged.
    first = numbers * (1 if kind == "none" else size)
    kept = features_BP[:, (0 if kind == "none" else numbers) : numbers + between]
    assert_same_bits(found[:, first - (numbers if kind == "none" else 0) : first + between], kept)


@pytest.mark.parametrize("kind", KINDS)
def test_every_feature_has_its_own_parameters(kind: str) -> None:
    embedding = FeatureEmbedding(6, 2, [4, 3], kind, size=3, frequencies=4)
    features_BP = some_features(5, 2, 2, [4, 3])
    found = embedding(features_BP)
    numbers = features_BP[:, :2] if embedding.numbers is None else embedding.numbers(features_BP[:, :2]).flatten(1)
    tables = [table(features_BP[:, 4 + index].long()) for index, table in enumerate(embedding.tables)]
    assert_same_bits(found, torch.cat([numbers, features_BP[:, 2:4], *tables], dim=1))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_category_is_zero_and_stays_zero(kind: str, optimizer: Any) -> None:
    data = set_up(mixed_table(), max_one_hot=2, batch_size=16)
    module = module_of(data, numeric_embedding=kind)
    embedding = module.mlp.embedding
    assert embedding is not None
    weights = [parameter for name, parameter in embedding.named_parameters() if name.startswith("tables")]
    before = [weight.detach().clone() for weight in weights]
    stepper = optimizer(module.mlp.parameters(), lr=0.05, weight_decay=0.1)
    StepLoop(module.mlp.train(), module.task, stepper).run(Execution(data.training_steps, 0, 20))
    assert len(before) == 2
    for weight, initial in zip(weights, before, strict=True):
        assert weight[1].tolist() == [0.0] * 8
        assert initial[1].tolist() == [0.0] * 8
        assert (weight[2:] != initial[2:]).all()


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_step_loop_goes_the_way_of_the_model(kind: str, batch_size: int | None) -> None:
    features_BP = some_features(20, 2, 1, [5])
    rows = Rows(features_BP, torch.randn(20, 1, generator=generator(1)))
    ways = []
    for called in (False, True):
        torch.manual_seed(3)
        model = MLP(4, 1, [6], "tanh", embedding=FeatureEmbedding(4, 2, [5], kind, 3, 4))
        calls: list[int] = []
        if called:  # with a hook there is no shortcut
            model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        steps = TrainingSteps(rows, batch_size, seed=1)
        trace = StepLoop(model, make_task("regression", 1), optimizer).run(Execution(steps, 0, 9))
        assert len(calls) == (9 if called else 0)
        ways.append((model, trace.losses_S()))
    (short, short_losses), (long, long_losses) = ways
    assert_same_bits(short_losses, long_losses)
    assert_same_weights(short, long)
    logits_BC = short(features_BP)
    for module in (short.embedding, short.layers):
        assert module is not None
        features_BP = module(features_BP)
    assert_same_bits(features_BP, logits_BC)


def test_statistics_are_taken_from_the_training_rows() -> None:
    data = set_up(mixed_table(), val_fraction=0.3)
    module = module_of(data, numeric_embedding="piecewise_linear", embedding_frequencies=3)
    assert module.mlp.embedding is not None
    numbers = module.mlp.embedding.numbers
    assert isinstance(numbers, PiecewiseLinearEmbedding)
    train_BN = data.splits["train"].features_BF[:, :4]
    assert_same_bits(numbers.edges_QN[[0, -1]], torch.stack([train_BN.min(0).values, train_BN.max(0).values]))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_drawn_by_the_seed(kind: str) -> None:
    data = set_up(mixed_table(), max_one_hot=2)
    assert_same_weights(*(module_of(data, 3, numeric_embedding=kind) for _ in range(2)))
    one, other = (module_of(data, seed, numeric_embedding=kind).mlp.embedding for seed in (3, 4))
    assert one is not None
    assert other is not None
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


@pytest.mark.parametrize("scaling", ["standard", "none"])
def test_bins_follow_the_training_rows_of_the_data_module(scaling: str) -> None:
    data = IrisDataModule(scaling=scaling, val_fraction=0.2)
    data.setup()
    module = MLPModule(
        4, 3, "multiclass", model={"hidden_units": 3, "depth": 1, "numeric_embedding": "piecewise_linear"}
    )
    module.take_statistics(data)
    assert module.mlp.embedding is not None
    numbers = module.mlp.embedding.numbers
    assert isinstance(numbers, PiecewiseLinearEmbedding)
    prepared_BF = data.splits["train"].features_BF
    ends = torch.stack([prepared_BF.min(0).values, prepared_BF.max(0).values])
    assert_close(numbers.edges_QN[[0, -1]], ends)
