from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.tolerances import assert_close, assert_same_bits, assert_same_weights
from torch import Tensor, nn

from mlp_lightning.networks import mlp
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.networks.mlp import INITS, MLP, NORMS

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small

ACTIVATION_FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "identity": lambda x: x,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (torch.exp(x) - 1)),
    "softplus": lambda x: torch.log(1 + torch.exp(x)),
    "mish": lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))),
}


def features(rows: int = 6, columns: int = 3) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))


def linears(model: MLP) -> list[nn.Linear]:
    return [one for one in model.modules() if isinstance(one, nn.Linear)]


# ---- the published networks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden_units", "first_loss"), [([2], 0.7434073090553284), ([10, 10, 10], 0.6948983669281006)]
)
def test_a_seed_gives_the_weights_of_the_hand_written_network(hidden_units: list[int], first_loss: float) -> None:
    torch.manual_seed(777)
    layers: list[nn.Module] = []
    for width, units in zip([2, *hidden_units], [*hidden_units, 1], strict=True):
        layers += [nn.Linear(width, units), nn.Sigmoid()]
    by_hand = nn.Sequential(*layers)
    torch.manual_seed(777)
    model = MLP(2, 1, hidden_units, activation="sigmoid")
    assert_same_weights(model, by_hand)
    points_BF = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert_same_bits(torch.sigmoid(model(points_BF)), by_hand(points_BF))
    targets_BT = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    # The first loss that the published run prints.
    assert_close(F.binary_cross_entropy(by_hand(points_BF), targets_BT), first_loss)
    assert_close(F.binary_cross_entropy_with_logits(model(points_BF), targets_BT), first_loss)


def test_default_weights_do_not_depend_on_activation_norm_or_dropout() -> None:
    torch.manual_seed(3)
    plain = linears(MLP(3, 2, [5, 4]))
    torch.manual_seed(3)
    furnished = linears(MLP(3, 2, [5, 4], activation="gelu", norm="layer", dropout=0.2))
    for one, other in zip(plain, furnished, strict=True):
        assert_same_weights(one, other)


# ---- forward -----------------------------------------------------------------------------------------------


def test_every_name_has_a_formula_here() -> None:
    assert ACTIVATION_FORMULAS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_by_hand(activation: str, bias: bool) -> None:
    model = MLP(3, 2, [5, 4], activation=activation, bias=bias).double()
    hidden_BH = features().double()
    *hidden_layers, output = linears(model)
    assert len(hidden_layers) == 2
    for layer in hidden_layers:
        hidden_BH = ACTIVATION_FORMULAS[activation](F.linear(hidden_BH, layer.weight, layer.bias))
    expected_BC = F.linear(hidden_BH, output.weight, output.bias)
    assert_close(model(features().double()), expected_BC, atol=1e-12)


def test_linear_layers_by_matrix_products() -> None:
    model = MLP(3, 2, [4], activation="relu").double()
    weights = [one.detach().numpy() for one in model.parameters()]
    hidden_BH = (features().double().numpy() @ weights[0].T + weights[1]).clip(min=0)
    assert_close(model(features().double()), hidden_BH @ weights[2].T + weights[3], atol=1e-12)


def test_one_unit_by_hand() -> None:
    model = MLP(2, 1, [1], activation="relu")
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), ([[2.0, -3.0]], [0.5], [[4.0]], [-1.0]), strict=True):
            parameter.copy_(torch.tensor(value))
    # 4·max(0, 2·1 - 3·0.25 + 0.5) - 1 = 6 and 4·max(0, 2·0 - 3·1 + 0.5) - 1 = -1
    assert_close(model(torch.tensor([[1.0, 0.25], [0.0, 1.0]])), [[6.0], [-1.0]])


def test_layer_norm_comes_before_the_activation() -> None:
    model = MLP(3, 2, [5], activation="relu", norm="layer").double()
    hidden, output = linears(model)
    before_BH = F.linear(features().double(), hidden.weight, hidden.bias)
    centred_BH = before_BH - before_BH.mean(1, keepdim=True)
    normed_BH = centred_BH / (before_BH.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    expected_BC = F.linear(normed_BH.clamp(min=0), output.weight, output.bias)
    assert_close(model(features().double()), expected_BC, atol=1e-12)


def test_batch_norm_comes_before_the_activation() -> None:
    model = MLP(3, 2, [5], activation="relu", norm="batch").double()
    hidden, output = linears(model)
    before_BH = F.linear(features().double(), hidden.weight, hidden.bias)
    normed_BH = (before_BH - before_BH.mean(0)) / (before_BH.var(0, correction=0) + 1e-5).sqrt()
    in_training_BC = F.linear(normed_BH.clamp(min=0), output.weight, output.bias)
    assert_close(model(features().double()), in_training_BC, atol=1e-12)
    # One pass moves the running statistics a tenth of the way from (0, 1); evaluation uses those.
    mean_H, variance_H = 0.1 * before_BH.mean(0), 0.9 + 0.1 * before_BH.var(0)
    settled_BH = (before_BH - mean_H) / (variance_H + 1e-5).sqrt()
    in_evaluation_BC = F.linear(settled_BH.clamp(min=0), output.weight, output.bias)
    assert_close(model.eval()(features().double()), in_evaluation_BC, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_one_norm_per_hidden_layer_and_none_after_the_output(norm: str) -> None:
    model = MLP(3, 2, [5, 4], norm=norm)
    found = [one for one in model.modules() if isinstance(one, (nn.BatchNorm1d, nn.LayerNorm))]
    assert [one.weight.shape[0] for one in found] == ([] if norm == "none" else [5, 4])
    assert isinstance(model.layers[-1], nn.Linear)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_depth(depth: int) -> None:
    model = MLP(3, 2, [5] * depth)
    widths = [3, *[5] * depth, 2]
    shapes = [tuple(one.weight.shape) for one in linears(model)]
    assert shapes == list(zip(widths[1:], widths[:-1], strict=True))
    assert model(features(rows=7)).shape == (7, 2)


def test_depth_zero_is_one_linear_layer() -> None:
    torch.manual_seed(5)
    model = MLP(3, 2, [], activation="tanh", norm="batch", dropout=0.5)
    torch.manual_seed(5)
    linear = nn.Linear(3, 2)
    assert_same_weights(model, linear)
    assert_same_bits(model(features()), linear(features()))
    assert len(model.layers) == 1


def test_hidden_layers_may_differ_in_width() -> None:
    model = MLP(4, 3, [100, 1, 20])
    assert sum(one.numel() for one in model.parameters()) == (4 * 100 + 100) + (100 + 1) + (20 + 20) + (20 * 3 + 3)
    assert model(torch.zeros(0, 4)).shape == (0, 3)


def test_without_bias_there_is_none() -> None:
    model = MLP(3, 2, [5], bias=False)
    assert [name for name, _ in model.named_parameters()] == ["layers.linear_1.weight", "layers.output.weight"]
    assert_same_bits(model(torch.zeros(4, 3)), torch.zeros(4, 2))


# ---- dropout -----------------------------------------------------------------------------------------------


def test_dropout_follows_every_hidden_layer_and_no_other() -> None:
    kinds = [type(one) for one in MLP(3, 2, [5, 4], activation="tanh", norm="layer", dropout=0.5).layers]
    hidden = [nn.Linear, nn.LayerNorm, nn.Tanh, Dropout]
    assert kinds == [*hidden, *hidden, nn.Linear]
    assert Dropout not in [type(one) for one in MLP(3, 2, [5, 4]).layers]


def test_dropout_by_hand() -> None:
    model = MLP(3, 2, [50], activation="sigmoid", dropout=0.4)
    hidden, output = linears(model)
    hidden_BH = torch.sigmoid(F.linear(features(), hidden.weight, hidden.bias))
    torch.manual_seed(2)
    found_BC = model(features())
    torch.manual_seed(2)
    kept_BH = F.dropout(torch.ones_like(hidden_BH), 0.4)
    # What is kept is scaled, so that the mean stays.
    assert_close(kept_BH.unique(), [0.0, 1 / 0.6])
    assert_close(found_BC, F.linear(hidden_BH * kept_BH, output.weight, output.bias))


def test_evaluation_drops_nothing() -> None:
    torch.manual_seed(0)
    with_dropout = MLP(3, 2, [5, 4], dropout=0.9).eval()
    torch.manual_seed(0)
    without = MLP(3, 2, [5, 4])
    assert_same_bits(with_dropout(features()), without(features()))


# ---- initial weights ---------------------------------------------------------------------------------------

FAN_IN, UNITS, OUTPUTS = 200, 300, 100
# Gain of a hidden layer by its activation; the output layer, which none follows, has 1.
GAINS = {
    **{"sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / 1.0001), "gelu": 1.0},
    **{"selu": 0.75, "mish": 1.0},
}


def drawn_layers(init: str, activation: str) -> list[tuple[nn.Linear, float]]:
    """A hidden and an output layer, each with its gain."""
    torch.manual_seed(0)
    model = MLP(FAN_IN, OUTPUTS, [UNITS], activation=activation, init=init).requires_grad_(False)
    hidden, output = linears(model)
    return [(hidden, GAINS[activation]), (output, 1.0)]


def assert_uniform_within(weight: Tensor, bound: float) -> None:
    assert float(weight.min()) >= -bound
    assert float(weight.max()) <= bound
    assert float(weight.max() - weight.min()) > 1.99 * bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)


def assert_normal_with(weight: Tensor, deviation: float) -> None:
    assert float(weight.std()) == pytest.approx(deviation, rel=0.03)
    # A normal distribution has 4.6 % of its weight beyond two deviations, a uniform one nothing.
    beyond = float((weight.abs() > 2 * deviation).float().mean())
    assert 0.035 < beyond < 0.056


@pytest.mark.parametrize("activation", GAINS)
def test_xavier(activation: str) -> None:
    for layer, gain in drawn_layers("xavier_uniform", activation):
        assert_uniform_within(layer.weight, gain * math.sqrt(6 / (layer.in_features + layer.out_features)))
    for layer, gain in drawn_layers("xavier_normal", activation):
        assert_normal_with(layer.weight, gain * math.sqrt(2 / (layer.in_features + layer.out_features)))


@pytest.mark.parametrize("activation", GAINS)
def test_kaiming(activation: str) -> None:
    for layer, gain in drawn_layers("kaiming_uniform", activation):
        assert_uniform_within(layer.weight, gain * math.sqrt(3 / layer.in_features))
    for layer, gain in drawn_layers("kaiming_normal", activation):
        assert_normal_with(layer.weight, gain / math.sqrt(layer.in_features))


@pytest.mark.parametrize("activation", GAINS)
def test_orthogonal(activation: str) -> None:
    for layer, gain in drawn_layers("orthogonal", activation):
        weight = layer.weight if layer.out_features < layer.in_features else layer.weight.T
        assert_close(weight @ weight.T, gain**2 * torch.eye(len(weight)), atol=1e-5)


def test_zeros() -> None:
    model = MLP(3, 2, [5], activation="sigmoid", init="zeros")
    assert all(not one.any() for one in model.parameters())
    assert_same_bits(model(features()), torch.zeros(6, 2))


@pytest.mark.parametrize("init", INITS)
def test_all_but_the_default_begin_with_zero_biases(init: str) -> None:
    for layer, _ in drawn_layers(init, "relu"):
        assert not layer.bias.any()


def test_the_default_draws_weights_and_biases_within_one_over_the_root_of_fan_in() -> None:
    for layer, _ in drawn_layers("default", "tanh"):
        assert_uniform_within(layer.weight, 1 / math.sqrt(layer.in_features))
        assert 0 < float(layer.bias.abs().max()) <= 1 / math.sqrt(layer.in_features)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_init_goes_with_every_activation_norm_and_no_bias(init: str, activation: str) -> None:
    for norm in NORMS:
        model = MLP(3, 2, [5, 4], activation=activation, norm=norm, init=init, bias=False)
        assert model(features()).isfinite().all()
        for one in model.modules():
            if isinstance(one, (nn.BatchNorm1d, nn.LayerNorm)):
                assert bool((one.weight == 1).all())


def test_the_examples_in_the_documentation_run() -> None:
    result = doctest.testmod(mlp)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("init", ["default", "xavier_normal", "orthogonal"])
@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"residual": True}, {"bias": False}])
def test_weights_drawn_again_are_those_of_a_new_network(init, options) -> None:
    torch.manual_seed(1)
    drawn = MLP(3, 2, [4, 4], "tanh", init=init, **options)
    torch.manual_seed(5)
    drawn.draw_weights()
    torch.manual_seed(5)
    new = MLP(3, 2, [4, 4], "tanh", init=init, **options)
    for name, weight in new.state_dict().items():
        assert torch.equal(drawn.state_dict()[name], weight), name
