"""Learned embeddings of numbers and categories with their gradients written out.

All is worked out by columns: what belongs to one number lies together for all rows, so that products have one long side
and functions run over contiguous memory. Products of many narrow matrices by rows take up to ten times as long.

Shapes: ``B`` rows, ``P`` features, ``N`` numbers among them, ``E`` embedded categories, ``D`` numbers of an embedding,
``Q`` frequencies or bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mlp_lightning.networks.embeddings import FeatureEmbedding, PeriodicEmbedding, PiecewiseLinearEmbedding


class EmbeddingPart:
    """A :class:`~mlp_lightning.networks.embeddings.FeatureEmbedding`, the first part of a network.

    Args:
        embedding: whose parameters are views of one tensor, as are their gradients.
        rows: B.
    """

    def __init__(self, embedding: FeatureEmbedding, rows: int) -> None:
        like = next(embedding.parameters()).detach()
        self._numeric = embedding.numeric_features
        self._first_category = embedding.in_features - embedding.categories
        self._out_FB = like.new_empty(embedding.out_features, rows)
        sizes = [0, self._first_category - self._numeric, 0]
        self._numbers: _PeriodicPart | _PiecewiseLinearPart | None = None
        if isinstance(embedding.numbers, PeriodicEmbedding):
            self._numbers = _PeriodicPart(embedding.numbers, rows)
        elif embedding.numbers is not None:
            self._numbers = _PiecewiseLinearPart(embedding.numbers, rows)
        if embedding.numbers is not None:
            sizes[0] = self._numeric * (embedding.out_features - sizes[1]) // (self._numeric + embedding.categories)
        sizes[2] = embedding.out_features - sizes[0] - sizes[1]
        self._sizes = sizes
        self._numbers_FB, self._others_FB, self._categories_FB = self._out_FB.split(sizes)
        self._tables: _CategoriesPart | None = None
        if embedding.categories:
            tables = list(embedding.tables.parameters())
            self._tables = _CategoriesPart([one.detach() for one in tables], [_gradient(one) for one in tables], rows)

    def forward(self, x: Tensor) -> Tensor:
        if self._numbers is not None:
            self._numbers.forward(x[:, : self._numeric].t(), self._numbers_FB)
        self._others_FB.copy_(x[:, self._numeric : self._first_category].t())
        if self._tables is not None:
            self._tables.forward(x[:, self._first_category :].t(), self._categories_FB)
        return self._out_FB.t()

    def backward(self, delta: Tensor) -> Tensor:
        numbers_FB, _, categories_FB = delta.t().split(self._sizes)
        if self._numbers is not None:
            self._numbers.backward(numbers_FB)
        if self._tables is not None:
            self._tables.backward(categories_FB)
        return delta


class _PeriodicPart:
    """A :class:`~mlp_lightning.networks.embeddings.PeriodicEmbedding`."""

    def __init__(self, embedding: PeriodicEmbedding, rows: int) -> None:
        parameters = (embedding.frequencies_NQ, embedding.phases_NQ, embedding.weights_NQD, embedding.biases_ND)
        self._frequencies_NQ, self._phases_NQ, self._weights_NQD, self._biases_ND = (one.detach() for one in parameters)
        self._gradients = [_gradient(one) for one in parameters]
        numbers, frequencies, size = self._weights_NQD.shape
        new_empty = self._weights_NQD.new_empty
        self._angles_NQB, self._waves_NQB = (new_empty(numbers, frequencies, rows) for _ in range(2))
        self._learned_NDB = new_empty(numbers, size, rows)
        self._x_and_1_N2B = new_empty(numbers, 2, rows).fill_(1.0)

    def forward(self, x_NB: Tensor, out_FB: Tensor) -> None:
        self._x_and_1_N2B[:, 0] = x_NB
        x_N1B = self._x_and_1_N2B[:, :1]
        frequencies_NQ1, phases_NQ1 = (
            one.mul(2 * math.pi).unsqueeze(-1) for one in (self._frequencies_NQ, self._phases_NQ)
        )
        torch.addcmul(phases_NQ1, x_N1B, frequencies_NQ1, out=self._angles_NQB)
        torch.cos(self._angles_NQB, out=self._waves_NQB)
        weights_NDQ, biases_ND1 = self._weights_NQD.transpose(1, 2), self._biases_ND.unsqueeze(-1)
        torch.baddbmm(biases_ND1, weights_NDQ, self._waves_NQB, out=self._learned_NDB)
        out_NDB = out_FB.view(len(x_NB), -1, x_NB.shape[1])
        out_NDB[:, 0], out_NDB[:, 1:] = x_NB, self._learned_NDB

    def backward(self, delta_FB: Tensor) -> None:
        frequencies, phases, weights, biases = self._gradients
        delta_NDB = delta_FB.view(len(self._biases_ND), -1, delta_FB.shape[1])[:, 1:]
        torch.sum(delta_NDB, -1, out=biases)
        torch.bmm(self._waves_NQB, delta_NDB.transpose(1, 2), out=weights)
        of_waves_NQB = torch.bmm(self._weights_NQD, delta_NDB, out=self._waves_NQB)
        of_waves_NQB.mul_(self._angles_NQB.sin_())
        of_angles_N2Q = torch.bmm(self._x_and_1_N2B, of_waves_NQB.transpose(1, 2))
        torch.mul(of_angles_N2Q[:, 0], -2 * math.pi, out=frequencies)
        torch.mul(of_angles_N2Q[:, 1], -2 * math.pi, out=phases)


class _PiecewiseLinearPart:
    """A :class:`~mlp_lightning.networks.embeddings.PiecewiseLinearEmbedding`."""

    def __init__(self, embedding: PiecewiseLinearEmbedding, rows: int) -> None:
        self._embedding = embedding
        self._weights_NQD, self._biases_ND = embedding.weights_NQD.detach(), embedding.biases_ND.detach()
        self._gradients = [_gradient(one) for one in (embedding.weights_NQD, embedding.biases_ND)]
        numbers, bins, _ = self._weights_NQD.shape
        self._share_NQB = self._weights_NQD.new_empty(numbers, bins, rows)

    def forward(self, x_NB: Tensor, out_FB: Tensor) -> None:
        low_NQ, width_NQ = (one.t().contiguous() for one in self._embedding.bins())
        torch.sub(x_NB.contiguous().unsqueeze(1), low_NQ.unsqueeze(-1), out=self._share_NQB)
        self._share_NQB.div_(width_NQ.unsqueeze(-1)).clamp_(0, 1)
        weights_NDQ, biases_ND1 = self._weights_NQD.transpose(1, 2), self._biases_ND.unsqueeze(-1)
        out_NDB = out_FB.view(len(x_NB), -1, x_NB.shape[1])
        torch.baddbmm(biases_ND1, weights_NDQ, self._share_NQB, out=out_NDB)

    def backward(self, delta_FB: Tensor) -> None:
        weights, biases = self._gradients
        delta_NDB = delta_FB.view(len(self._biases_ND), -1, delta_FB.shape[1])
        torch.sum(delta_NDB, -1, out=biases)
        torch.bmm(self._share_NQB, delta_NDB.transpose(1, 2), out=weights)


class _CategoriesPart:
    """The tables of all embedded categories, which lie one after another, as one table.

    Args:
        tables: of each category.
        gradients: of these.
        rows: B.
    """

    def __init__(self, tables: Sequence[Tensor], gradients: Sequence[Tensor], rows: int) -> None:
        self._table, self._gradient = _joined(tables), _joined(gradients)
        first_codes = torch.tensor([0, *(len(one) for one in tables[:-1])]).cumsum(0)
        self._first_codes_E1 = first_codes.unsqueeze(1).to(self._table.device)
        self._codes = torch.empty(0)
        self._rows = rows

    def forward(self, codes_EB: Tensor, out_FB: Tensor) -> None:
        self._codes = codes_EB.long().add_(self._first_codes_E1).flatten()
        rows_EBD = self._table.index_select(0, self._codes).view(*codes_EB.shape, -1)
        out_FB.view(len(codes_EB), -1, self._rows).copy_(rows_EBD.transpose(1, 2))

    def backward(self, delta_FB: Tensor) -> None:
        delta_EDB = delta_FB.view(len(self._first_codes_E1), -1, self._rows)
        rows = delta_EDB.transpose(1, 2).reshape(len(self._codes), -1)
        self._gradient.zero_().index_add_(0, self._codes, rows)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _joined(tables: Sequence[Tensor]) -> Tensor:
    """Tables that lie one after another as one."""
    first, codes = tables[0], sum(len(one) for one in tables)
    ends = [one.storage_offset() + one.numel() for one in tables]
    assert [one.storage_offset() for one in tables[1:]] == ends[:-1], "views of one tensor, in their order"
    return first.as_strided((codes, first.shape[1]), (first.shape[1], 1))
