"""Packing models into a stack and taking them out again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
import torch
from support.stack_members import STACKED_ACTIVATIONS, padding
from support.tolerances import assert_close, assert_same_bits, assert_same_weights
from torch import Tensor, nn

from mlp_lightning.engines.stacked.layout import StackedMLP, lay_out
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.mlp import MLP

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

FEATURES, OUTPUTS = 4, 3
WIDTHS = {
    0: [[], [], []],
    1: [[5], [1], [3]],
    3: [[5, 2, 4], [1, 6, 3], [3, 3, 3]],
}


def networks(
    widths: Sequence[Sequence[int]], activation: str = "tanh", bias: bool = True, dtype: torch.dtype = torch.float32
) -> list[MLP]:
    torch.manual_seed(3)
    return [MLP(FEATURES, OUTPUTS, one, activation, bias=bias).to(dtype) for one in widths]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", WIDTHS)
def test_what_was_stacked_comes_out_with_the_same_bits(depth: int, bias: bool, dtype: torch.dtype) -> None:
    mlps = networks(WIDTHS[depth], bias=bias, dtype=dtype)
    stacked = StackedMLP.stack(mlps, "tanh", [0.1, 0.0, 0.2] if depth else None)
    assert stacked.depth == depth
    assert stacked.flat_N.dtype == dtype
    for member, mlp in enumerate(mlps):
        out = stacked.unstack(member)
        assert_same_weights(out, mlp)
        assert [type(part) for part in out.layers if not isinstance(part, nn.Dropout)] == [type(p) for p in mlp.layers]
    assert not padding(stacked, stacked.flat_N).any()


def test_dropout_goes_with_its_member() -> None:
    stacked = StackedMLP.stack(networks(WIDTHS[1]), "tanh", [0.1, 0.0, 0.2])
    found = [[part.p for part in stacked.unstack(k).layers if isinstance(part, nn.Dropout)] for k in range(3)]
    assert found == [[0.1], [], [0.2]]
    assert stacked.select([2, 0]).dropout == [0.2, 0.1]


def test_a_model_taken_out_has_separate_weights() -> None:
    stacked = StackedMLP.stack(networks(WIDTHS[1]), "tanh")
    before = stacked.flat_N.detach().clone()
    with torch.no_grad():
        for parameter in stacked.unstack(0).parameters():
            parameter.fill_(7.0)
    assert_same_bits(stacked.flat_N.detach(), before)


@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
@pytest.mark.parametrize("depth", WIDTHS)
def test_logits_are_those_of_each_member(depth: int, activation: str) -> None:
    mlps = networks(WIDTHS[depth], activation, dtype=torch.float64)
    stacked = StackedMLP.stack(mlps, activation)
    shared_BF = torch.randn(7, FEATURES, dtype=torch.float64)
    own_KBF = torch.randn(3, 7, FEATURES, dtype=torch.float64)
    for member, mlp in enumerate(mlps):
        assert_close(stacked(shared_BF)[member], mlp(shared_BF), atol=1e-12)
        assert_close(stacked(own_KBF)[member], mlp(own_KBF[member]), atol=1e-12)


@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
def test_padded_units_say_nothing_whatever_lies_behind_them(activation: str) -> None:
    """Only a member's own units reach the logits: a weight behind padding makes no difference."""
    stacked = StackedMLP.stack(networks([[2, 2], [5, 4]], activation), activation)
    features_BF = torch.randn(6, FEATURES)
    before = stacked(features_BF)
    with torch.no_grad():
        for layer in stacked.layers[1:]:
            inputs = stacked.hidden_units[0][0] if layer is stacked.layers[1] else stacked.hidden_units[0][1]
            layer.weight(stacked.flat_N)[0, inputs:] = 100.0
    assert_same_bits(stacked(features_BF), before)


@pytest.mark.parametrize("members", [[0], [2], [2, 0], [1, 1], [0, 1, 2], [2, 1, 0]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", WIDTHS)
def test_a_selection_is_the_stack_of_the_selected(depth: int, bias: bool, members: list[int]) -> None:
    mlps = networks(WIDTHS[depth], bias=bias)
    chosen = StackedMLP.stack(mlps, "tanh").select(members)
    expected = StackedMLP.stack([mlps[one] for one in members], "tanh")
    assert chosen.hidden_units == expected.hidden_units
    assert_same_bits(chosen.flat_N.detach(), expected.flat_N.detach())
    for slot, member in enumerate(members):
        assert_same_weights(chosen.unstack(slot), mlps[member])
    for number in range(depth):
        assert_same_bits(chosen.mask(number), expected.mask(number))


def test_any_tensor_laid_out_like_the_parameter_can_be_selected() -> None:
    stacked = StackedMLP.stack(networks(WIDTHS[3]), "tanh")
    state_N = torch.arange(stacked.flat_N.numel(), dtype=torch.float32)
    chosen = stacked.select([2, 0])
    selected_N = stacked.selected(state_N, [2, 0], chosen)
    for slot, member in enumerate([2, 0]):
        for one, other in zip(chosen.parts(selected_N, slot), stacked.parts(state_N, member), strict=True):
            assert_same_bits(one, other)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", WIDTHS)
def test_the_layers_cover_the_parameter_once(depth: int, bias: bool) -> None:
    stacked = StackedMLP.stack(networks(WIDTHS[depth], bias=bias), "tanh")
    count_N = torch.zeros_like(stacked.flat_N.detach())
    for block in stacked.per_member(count_N):
        assert block.shape[0] == 3
        block += 1
    assert_same_bits(count_N, torch.ones_like(count_N))
    widths = [FEATURES, *(max(one) for one in zip(*WIDTHS[depth], strict=True)), OUTPUTS]
    assert [(one.inputs, one.outputs) for one in lay_out(3, widths, bias)] == list(itertools.pairwise(widths))


def test_no_two_members_have_a_number_in_common() -> None:
    stacked = StackedMLP.stack(networks(WIDTHS[3]), "tanh")
    count_N = torch.zeros_like(stacked.flat_N.detach())
    for member in range(3):
        for part in stacked.parts(count_N, member):
            part += 1
    assert count_N.max() == 1
    assert int(count_N.sum()) == sum(p.numel() for mlp in networks(WIDTHS[3]) for p in mlp.parameters())


def test_a_value_per_member_reaches_all_of_its_numbers_and_no_others() -> None:
    stacked = StackedMLP.stack(networks(WIDTHS[3]), "tanh")
    spread_N = stacked.spread(torch.tensor([2.0, 3.0, 5.0]))
    for member, value in enumerate((2.0, 3.0, 5.0)):
        for part in stacked.parts(spread_N, member):
            assert (part == value).all()
        assert all((block[member] == value).all() for block in stacked.per_member(spread_N))


def test_masks_are_one_for_the_units_that_there_are() -> None:
    stacked = StackedMLP.stack(networks([[2, 3], [4, 1]]), "sigmoid")
    assert stacked.mask(0)[:, 0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert stacked.mask(1)[:, 0].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
def test_a_mask_is_needed_where_an_activation_of_zero_is_not_zero(activation: str) -> None:
    at_zero = ACTIVATIONS[activation].module()(torch.zeros(1))
    padded = StackedMLP.stack(networks([[2], [4]], activation), activation)
    assert padded.needs_mask == bool(at_zero != 0)
    assert not StackedMLP.stack(networks([[4], [4]], activation), activation).needs_mask


def test_the_state_dict_is_the_parameter_alone() -> None:
    assert list(StackedMLP.stack(networks(WIDTHS[3]), "sigmoid").state_dict()) == ["flat_N"]


@pytest.mark.parametrize("widths", [[], [[3], [3, 3]], [[], [2]]])
def test_members_of_different_depth_are_refused(widths: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="as many for every member"):
        StackedMLP(FEATURES, OUTPUTS, widths)


def test_random_stacks_go_in_and_out() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        depth, bias = draw.randrange(4), draw.random() < 0.5
        widths = [[draw.randint(1, 9) for _ in range(depth)] for _ in range(draw.randint(1, 6))]
        mlps = networks(widths, bias=bias)
        stacked = StackedMLP.stack(mlps, "tanh")
        some = draw.choices(range(len(widths)), k=3)
        chosen = stacked.select(some)
        features_BF: Tensor = torch.randn(5, FEATURES)
        assert_close(chosen(features_BF), stacked(features_BF)[some])
        for slot, member in enumerate(some):
            assert_same_weights(stacked.unstack(member), mlps[member])
            assert_same_weights(chosen.unstack(slot), mlps[member])
