"""The members of a stack in blocks, one member in each lane.

Members of similar widths share a block, so that padding costs only what the widest of them needs.

Shapes: ``K`` members, ``N`` blocks of ``L`` lanes, ``P`` vectors of weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlp_lightning.engines.stacked.layout import StackedMLP


class Blocks:
    """Which member is in which lane, and the stack's tensors laid out for the kernel.

    Args:
        model: the stack.
        lanes: L.
    """

    def __init__(self, model: StackedMLP, lanes: int) -> None:
        self._model, self.lanes = model, lanes
        order = sorted(range(model.members), key=lambda one: (model.hidden_units[one], one))
        self.count = -(-len(order) // lanes)
        #: The member of each lane. Lanes that are left over repeat the last member; nothing reads what they compute.
        self.members = torch.tensor(order + order[-1:] * (self.count * lanes - len(order))).view(self.count, lanes)
        #: The lane of each member, counted through all blocks.
        self.lane_K = torch.empty(model.members, dtype=torch.long)
        self.lane_K[torch.tensor(order)] = torch.arange(model.members)
        self.size = sum(layer.inputs * layer.outputs for layer in model.layers)
        if model.has_bias:
            self.size += sum(layer.outputs for layer in model.layers)
        self.strides = np.array([model.in_features, *(layer.outputs for layer in model.layers)], dtype=np.int64)
        #: For each block the widths of its widest members.
        self.widths = [self._widths_of(one.tolist()) for one in self.members]
        widths_of, hidden = model.hidden_units, range(model.depth)
        #: For each block, whether its members have different widths.
        self.is_mixed = [len({tuple(widths_of[one]) for one in block.tolist()}) > 1 for block in self.members]
        mask_KU = torch.cat([model.flat_N.new_empty(model.members, 0), *(model.mask(one)[:, 0] for one in hidden)], 1)
        #: 1 for the hidden units that a lane's member has, 0 for padding: ``(N, U, L)`` with all layers' units.
        self.mask_NUL = self.of_lanes(mask_KU.T)

    def _widths_of(self, members: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        hidden = [max(one) for one in zip(*(self._model.hidden_units[member] for member in members), strict=True)]
        return np.array([self._model.in_features, *hidden, self._model.out_features], dtype=np.int64)

    def of_lanes(self, values_SK: Tensor) -> Tensor:
        """Values with the members as the last axis, ``(S, K)``, for each block: ``(N, S, L)``."""
        return values_SK[:, self.members].transpose(0, 1).contiguous()

    def of_members(self, values_NSL: Tensor) -> Tensor:
        """The inverse of :meth:`of_lanes`: ``(S, K)``."""
        return values_NSL.transpose(0, 1).flatten(1)[:, self.lane_K]

    def pack(self, flat_N: Tensor, packed_NPL: Tensor) -> None:
        """Write a tensor that is laid out like the stack's parameter into blocks."""
        at = 0
        for view in self._model.per_member(flat_N):
            count = view.shape[1] * view.shape[2]
            of_lanes = view[self.members.flatten()].view(self.count, self.lanes, count)
            packed_NPL[:, at : at + count] = of_lanes.transpose(1, 2)
            at += count

    def unpack(self, packed_NPL: Tensor, flat_N: Tensor) -> None:
        """The inverse of :meth:`pack`."""
        at = 0
        for view in self._model.per_member(flat_N):
            count = view.shape[1] * view.shape[2]
            of_lanes = packed_NPL[:, at : at + count].transpose(1, 2).reshape(-1, count)
            view.copy_(of_lanes[self.lane_K].view(view.shape))
            at += count
