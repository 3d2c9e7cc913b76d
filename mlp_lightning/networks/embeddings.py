"""How the features of a table enter the network: numbers and categories as learned vectors.

Shapes: ``B`` rows, ``P`` features, ``N`` numbers among them, ``E`` embedded categories, ``D`` numbers of an embedding,
``Q`` frequencies or bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FeatureEmbedding(nn.Module):
    """Embeds the first ``N`` and the last ``E`` of the features; the others stay unchanged.

    Args:
        in_features: P.
        numeric_features: N; 0 leaves numbers as they are.
        cardinalities: number of codes of each category.
        kind: of the numbers: ``none``, ``periodic`` or ``piecewise_linear``.
        size: D.
        frequencies: Q.
        sigma: deviation of the initial frequencies of ``periodic``.
    """

    def __init__(
        self,
        in_features: int,
        numeric_features: int = 0,
        cardinalities: Sequence[int] = (),
        kind: str = "none",
        size: int = 8,
        frequencies: int = 16,
        sigma: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.numeric_features = 0 if kind == "none" else numeric_features
        self.categories = len(cardinalities)
        self.numbers: PeriodicEmbedding | PiecewiseLinearEmbedding | None = None
        if self.numeric_features and kind == "periodic":
            self.numbers = PeriodicEmbedding(self.numeric_features, size, frequencies, sigma)
        elif self.numeric_features:
            self.numbers = PiecewiseLinearEmbedding(self.numeric_features, size, frequencies)
        self.tables = nn.ModuleList(_category_table(codes, size) for codes in cardinalities)
        self.out_features = in_features - self.categories + self.categories * size + self.numeric_features * (size - 1)

    def forward(self, features_BP: Tensor) -> Tensor:
        """``(B, P)`` to ``(B, N D + (P - N - E) + E D)``."""
        parts = []
        if self.numbers is not None:
            parts.append(self.numbers(features_BP[:, : self.numeric_features]).flatten(1))
        parts.append(features_BP[:, self.numeric_features : self.in_features - self.categories])
        for number, table in enumerate(self.tables):
            codes_B = features_BP[:, self.in_features - self.categories + number].long()
            parts.append(table(codes_B))
        return torch.cat(parts, dim=1)

    def take_statistics(self, features_BP: Tensor) -> None:
        """Fit the bins to the training rows."""
        if isinstance(self.numbers, PiecewiseLinearEmbedding):
            self.numbers.take_statistics(features_BP[:, : self.numeric_features])


def _category_table(codes: int, size: int) -> nn.Embedding:
    table = nn.Embedding(codes, size)
    with torch.no_grad():
        table.weight[1] = 0.0  # unknown: in the middle of all categories, never trained
    return table


class PeriodicEmbedding(nn.Module):
    """Each number ``x`` as ``[x, W cos(2π (c x + b)) + d]``, with its own frequencies, phases, weights and biases.

    Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", 2022, section 3.3; with
    the phase and the number itself as in Holzmüller et al., "Better by default", 2024, section 3.

    Args:
        numbers: N.
        size: D.
        frequencies: Q.
        sigma: deviation of the initial frequencies, in periods per unit of ``x``.
    """

    def __init__(self, numbers: int, size: int, frequencies: int, sigma: float) -> None:
        super().__init__()
        self.frequencies_NQ = nn.Parameter(torch.randn(numbers, frequencies) * sigma)
        self.phases_NQ = nn.Parameter(torch.rand(numbers, frequencies) - 0.5)
        bound = 1 / math.sqrt(frequencies)
        self.weights_NQD = nn.Parameter(torch.empty(numbers, frequencies, size - 1).uniform_(-bound, bound))
        self.biases_ND = nn.Parameter(torch.empty(numbers, size - 1).uniform_(-bound, bound))

    def forward(self, numbers_BN: Tensor) -> Tensor:
        """``(B, N)`` to ``(B, N, D)``."""
        waves_BNQ = torch.cos(2 * math.pi * (numbers_BN.unsqueeze(-1) * self.frequencies_NQ + self.phases_NQ))
        learned_NBD = torch.baddbmm(self.biases_ND.unsqueeze(1), waves_BNQ.transpose(0, 1), self.weights_NQD)
        return torch.cat([numbers_BN.unsqueeze(-1), learned_NBD.transpose(0, 1)], dim=-1)


class PiecewiseLinearEmbedding(nn.Module):
    """Each number as its share of every bin between quantiles of the training rows, then its own linear layer.

    Numbers outside of all bins are replaced by the nearest edge, where the source extrapolates linearly.

    Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", 2022, section 3.2, eq. 1.

    Args:
        numbers: N.
        size: D.
        bins: Q.
    """

    edges_QN: Tensor

    def __init__(self, numbers: int, size: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("edges_QN", torch.linspace(-2, 2, bins + 1).unsqueeze(1).repeat(1, numbers))
        bound = 1 / math.sqrt(bins)
        self.weights_NQD = nn.Parameter(torch.empty(numbers, bins, size).uniform_(-bound, bound))
        self.biases_ND = nn.Parameter(torch.empty(numbers, size).uniform_(-bound, bound))

    def forward(self, numbers_BN: Tensor) -> Tensor:
        """``(B, N)`` to ``(B, N, D)``."""
        low_QN, width_QN = self.bins()
        share_BQN = ((numbers_BN.unsqueeze(1) - low_QN) / width_QN).clamp(0, 1)
        learned_NBD = torch.baddbmm(self.biases_ND.unsqueeze(1), share_BQN.permute(2, 0, 1), self.weights_NQD)
        return learned_NBD.transpose(0, 1)

    def bins(self) -> tuple[Tensor, Tensor]:
        """Lower edge and width of every bin, ``(Q, N)`` each."""
        low_QN, high_QN = self.edges_QN[:-1], self.edges_QN[1:]
        return low_QN, (high_QN - low_QN).clamp(min=1e-6)  # equal quantiles make an empty bin

    @torch.no_grad()
    def take_statistics(self, numbers_BN: Tensor) -> None:
        """Put the edges of the bins at quantiles of the training rows."""
        shares_Q = torch.linspace(0, 1, self.edges_QN.shape[0], dtype=torch.float64)
        ordered_BN = numbers_BN.double().sort(dim=0).values
        indices_Q = (shares_Q * (len(ordered_BN) - 1)).round().long()
        self.edges_QN.copy_(ordered_BN[indices_Q])
