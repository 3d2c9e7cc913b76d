"""The multi-layer perceptron.

Shapes: ``B`` rows, ``F`` input features, ``H`` hidden units, ``C`` outputs (logits).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from mlp_lightning.networks.activations import ACTIVATIONS, Activation
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.networks.embeddings import FeatureEmbedding
from mlp_lightning.networks.residual import ResidualBlock

NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


class MLP(nn.Module):
    """Linear layers with an activation after each hidden one; the output is logits.

    Every hidden layer is ``Linear → norm → activation → dropout``. The linear layers are created in order
    with PyTorch's default initialisation, so that a seed set before gives the weights of a hand-written
    model with the same layers.

    Args:
        in_features: F.
        out_features: C.
        hidden_units: width H of each hidden layer, first to last; empty for a linear model.
        activation: a name in :data:`~mlp_lightning.networks.activations.ACTIVATIONS`, or what makes one.
        dropout: probability of zeroing a hidden unit in training (:class:`~mlp_lightning.networks.dropout.Dropout`).
        norm: a name in :data:`NORMS`.
        bias: whether the linear layers have a bias.
        init: how weights are drawn: ``default`` (PyTorch's: uniform in ±1/sqrt(fan in)), ``xavier_uniform``,
            ``xavier_normal`` (Glorot and Bengio, 2010), ``kaiming_uniform``, ``kaiming_normal`` (He et al.,
            2015), ``orthogonal`` (Saxe et al., 2014) or ``zeros``. All but ``default`` set biases to 0.
        embedding: applied to the features first; it has ``out_features``. ``None``: none.
        residual: ``Linear``, then a :class:`~mlp_lightning.networks.residual.ResidualBlock` for each hidden layer (of
            which all are equally wide), then ``norm → activation → Linear``.

    Example:
        >>> import torch
        >>> model = MLP(in_features=2, out_features=1, hidden_units=[10, 10, 10], activation="sigmoid")
        >>> model(torch.zeros(4, 2)).shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_units: Sequence[int] = (),
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        norm: str = "none",
        bias: bool = True,
        init: str = "default",
        embedding: FeatureEmbedding | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.embedding = embedding
        if residual and len(set(hidden_units)) != 1:
            raise ValueError(f"hidden_units = {list(hidden_units)} must be equal widths for residual blocks")
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        width = in_features if embedding is None else embedding.out_features
        make_norm = NORMS[norm]
        known = ACTIVATIONS[activation] if isinstance(activation, str) else Activation(activation)
        make_activation, named = known.module, activation if isinstance(activation, str) else "activation"
        if residual:
            parts["input"] = nn.Linear(width, hidden_units[0], bias=bias)
            width = hidden_units[0]
            for number in range(1, len(hidden_units) + 1):
                parts[f"block_{number}"] = ResidualBlock(width, make_activation, make_norm, dropout, bias)
            if make_norm is not None:
                parts["norm"] = make_norm(width)
            parts[named] = make_activation()
        else:
            for number, units in enumerate(hidden_units, start=1):
                parts[f"linear_{number}"] = nn.Linear(width, units, bias=bias)
                if make_norm is not None:
                    parts[f"norm_{number}"] = make_norm(units)
                parts[f"{named}_{number}"] = make_activation()
                if dropout > 0:
                    parts[f"dropout_{number}"] = Dropout(dropout, units)
                width = units
        parts["output"] = nn.Linear(width, out_features, bias=bias)
        self.layers = nn.Sequential(parts)
        self._init, self._gain = init, known.gain
        if init != "default":
            self._draw_weights(INITS[init], known.gain)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits ``(B, C)`` of features ``(B, F)``."""
        return self.layers(features_BF if self.embedding is None else self.embedding(features_BF))

    def draw_weights(self) -> None:
        """Draw the weights of the linear layers again, as when they were made."""
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        if self._init != "default":
            self._draw_weights(INITS[self._init], self._gain)

    def _draw_weights(self, draw: Callable[[Tensor, float], Any], hidden_gain: float) -> None:
        for name, layer in self.layers.named_modules():
            if isinstance(layer, nn.Linear):
                before_activation = name.rpartition(".")[2].startswith("linear")
                draw(layer.weight, hidden_gain if before_activation else 1.0)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def _kaiming_uniform(weight: Tensor, gain: float) -> Tensor:
    bound = gain * (3.0 / weight.shape[1]) ** 0.5
    return nn.init.uniform_(weight, -bound, bound)


def _kaiming_normal(weight: Tensor, gain: float) -> Tensor:
    return nn.init.normal_(weight, 0.0, gain / weight.shape[1] ** 0.5)


# Each takes the weight to fill and the gain of the activation that follows.
INITS: dict[str, Callable[[Tensor, float], Any]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
    "orthogonal": nn.init.orthogonal_,
    "zeros": lambda weight, gain: nn.init.zeros_(weight),
}
