"""The written-out gradient of a stack against autograd, in double precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from support.stack_members import STACKED_ACTIVATIONS, padding
from support.tolerances import assert_close, assert_same_bits
from torch import Tensor

from mlp_lightning.engines.stacked.gradients import StackedGradients
from mlp_lightning.engines.stacked.layout import StackedMLP, linear
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.tasks import make_task

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

MEMBERS, FEATURES = 3, 4
WIDTHS = {0: [[], [], []], 1: [[5], [1], [3]], 2: [[4, 2], [2, 5], [3, 3]], 3: [[5, 2, 4], [1, 6, 3], [3, 3, 3]]}
EXACT = 1e-12


@dataclasses.dataclass
class Example:
    """A stack, a batch, and the buffers that its chain writes into."""

    stacked: StackedMLP
    features: Tensor
    delta_KBC: Tensor
    dropout: list[Tensor] | None
    shared: bool

    def written_out(
        self, chain: StackedGradients | None = None, gradient_N: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Logits and gradient by the chain; earlier contents of the buffers must not matter."""
        flat_N = self.stacked.flat_N.detach()
        if gradient_N is None:
            gradient_N = torch.full_like(flat_N, 123.0)
        rows = self.delta_KBC.shape[1]
        if chain is None:
            chain = StackedGradients(self.stacked, gradient_N, rows, self.shared, self.dropout is not None)
        logits_KBC = torch.empty_like(self.delta_KBC)
        with torch.no_grad():
            chain.forward(self.features, logits_KBC, self.dropout)
            chain.backward(self.features, self.delta_KBC.clone(), self.dropout)
        return logits_KBC, gradient_N

    def by_autograd(self) -> tuple[Tensor, Tensor]:
        logits_KBC = with_dropout(self.stacked, self.features, self.dropout)
        (gradient_N,) = torch.autograd.grad(logits_KBC, self.stacked.flat_N, self.delta_KBC)
        return logits_KBC.detach(), gradient_N


def with_dropout(stacked: StackedMLP, features: Tensor, dropout: list[Tensor] | None) -> Tensor:
    """The forward pass of a stack, with factors for its hidden units."""
    if dropout is None:
        return stacked(features)
    x = features if features.dim() == 3 else features.expand(stacked.members, *features.shape)
    for number, layer in enumerate(stacked.layers):
        x = linear(x, layer.weight(stacked.flat_N), layer.bias(stacked.flat_N))
        if number < stacked.depth:
            x = stacked.activate(x) * stacked.mask(number) * dropout[number]
    return x


def example(
    widths: Sequence[Sequence[int]],
    activation: str = "tanh",
    shared: bool = True,
    drops: bool = False,
    bias: bool = True,
    rows: int = 7,
    outputs: int = 3,
) -> Example:
    torch.manual_seed(5)
    mlps = [MLP(FEATURES, outputs, one, activation, bias=bias).double() for one in widths]
    stacked = StackedMLP.stack(mlps, activation)
    size = (rows, FEATURES) if shared else (MEMBERS, rows, FEATURES)
    dropout = None
    if drops:
        dropout = [
            torch.bernoulli(torch.full((MEMBERS, rows, layer.outputs), 0.6, dtype=torch.float64)) / 0.6
            for layer in stacked.layers[:-1]
        ]
    # Rows scaled up, so that all parts of each activation are met.
    features = 3 * torch.randn(size, dtype=torch.float64)
    return Example(stacked, features, torch.randn(MEMBERS, rows, outputs, dtype=torch.float64), dropout, shared)


@pytest.mark.parametrize("drops", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("depth", WIDTHS)
@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
def test_logits_and_gradient_are_those_of_autograd(activation: str, depth: int, shared: bool, drops: bool) -> None:
    for bias in (True, False):
        # 7 rows of one output take the way of small products, 150 rows that of large ones.
        for rows, outputs in ((7, 3), (7, 1), (150, 1)):
            case = example(WIDTHS[depth], activation, shared, drops, bias, rows, outputs)
            logits_KBC, gradient_N = case.written_out()
            expected_KBC, expected_N = case.by_autograd()
            assert_close(logits_KBC, expected_KBC, EXACT)
            assert_close(gradient_N, expected_N, EXACT * rows)
            assert not padding(case.stacked, gradient_N).any()
            assert case.stacked.flat_N.grad is None


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
def test_members_of_one_width_need_no_padding(activation: str, shared: bool) -> None:
    case = example([[4, 3]] * 3, activation, shared)
    assert not case.stacked.needs_mask
    for one, other in zip(case.written_out(), case.by_autograd(), strict=True):
        assert_close(one, other, EXACT * 10)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
def test_a_chain_can_be_used_again(activation: str, drops: bool) -> None:
    """Buffers are made once: a batch must not affect the next one, and new weights must be used."""
    first = example(WIDTHS[2], activation, drops=drops)
    gradient_N = torch.empty_like(first.stacked.flat_N.detach())
    chain = StackedGradients(first.stacked, gradient_N, 7, True, drops)
    first.written_out(chain, gradient_N)
    second = dataclasses.replace(
        first,
        features=torch.randn_like(first.features),
        delta_KBC=torch.randn_like(first.delta_KBC),
        dropout=None if first.dropout is None else [one.flip(1) for one in first.dropout],
    )
    with torch.no_grad():
        first.stacked.flat_N.mul_(1.5)
    for one, other in zip(second.written_out(chain, gradient_N), second.by_autograd(), strict=True):
        assert_close(one, other, EXACT * 10)


def test_a_batch_is_left_as_it_was() -> None:
    case = example(WIDTHS[2], "relu", drops=True)
    assert case.dropout is not None
    before = [case.features.clone(), *(one.clone() for one in case.dropout), case.stacked.flat_N.detach().clone()]
    case.written_out()
    after = [case.features, *case.dropout, case.stacked.flat_N.detach()]
    for one, other in zip(after, before, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("shared", [True, False])
def test_nan_affects_no_other_member(shared: bool) -> None:
    """A member whose training has diverged must not affect the others."""
    case = example(WIDTHS[2], "tanh", shared)
    expected_KBC, expected_N = case.written_out()
    with torch.no_grad():
        for part in case.stacked.parts(case.stacked.flat_N, 1):
            part.fill_(float("nan"))
    case.delta_KBC[1] = float("nan")
    logits_KBC, gradient_N = case.written_out()
    for member in (0, 2):
        assert_close(logits_KBC[member], expected_KBC[member], EXACT)
        for one, other in zip(
            case.stacked.parts(gradient_N, member), case.stacked.parts(expected_N, member), strict=True
        ):
            assert_close(one, other, EXACT * 10)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel", "regression"])
def test_the_gradient_of_a_loss(name: str, shared: bool) -> None:
    """The losses of the members are added: the gradient is that of their sum."""
    case = example(WIDTHS[2], "silu", shared, outputs=1 if name == "binary" else 3)
    task = make_task(name, 3)
    size = (7,) if shared else (MEMBERS, 7)
    targets = torch.randint(0, 3, size)
    if name != "multiclass":
        targets = torch.randint(0, 2, (*size, case.delta_KBC.shape[2])).double()
    losses_K = task.loss(case.stacked(case.features), targets)
    assert losses_K.shape == (MEMBERS,)
    (expected_N,) = torch.autograd.grad(losses_K.sum(), case.stacked.flat_N)
    logits_KBC, _ = case.written_out()
    case.delta_KBC = task.loss_gradient(logits_KBC, targets)
    assert_close(case.written_out()[1], expected_N, EXACT)
