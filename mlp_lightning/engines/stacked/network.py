"""K networks with embeddings, normalisation or residual blocks as one, differentiated by torch's autograd.

The layers are those of :class:`~mlp_lightning.networks.mlp.MLP`, each with a leading member axis: a layer of all
members is one operation. ``tests/engines/stacked/test_network.py`` compares them with the modules.

Shapes: ``K`` members, ``B`` rows, ``P`` input features, ``H`` hidden units, ``N`` numbers in the flat parameter; in
embeddings ``M`` numeric features, ``D`` numbers of an embedding, ``Q`` frequencies or bins, as
:mod:`mlp_lightning.networks.embeddings` has them.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlp_lightning.engines.stacked.stack import Stack, linear
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.networks.embeddings import FeatureEmbedding, PeriodicEmbedding
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.residual import ResidualBlock

_PREFIX = "mlp."  # of the network in its module


@dataclasses.dataclass(frozen=True)
class Block:
    """Where one parameter or buffer of all members is in the flat parameter.

    Attributes:
        name: in the network.
        at: its first number.
        members: K.
        shape: of the widest member.
    """

    name: str
    at: int
    members: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.at + self.members * math.prod(self.shape)

    def view(self, flat_N: Tensor) -> Tensor:
        """``(K, *shape)``."""
        return flat_N[self.at : self.end].view(self.members, *self.shape)

    def as_matrices(self, flat_N: Tensor) -> Tensor:
        """``(K, ., .)``; only the first axis of an array, and both of a matrix, are wider for some members."""
        rows, *others = self.shape or (1,)
        if not others:
            rows, others = 1, [rows]
        return flat_N[self.at : self.end].view(self.members, rows, math.prod(others))


class StackedNetwork(Stack):
    """K :class:`~mlp_lightning.networks.mlp.MLP` with the same layers and different widths and vocabularies.

    Statistics of batch normalisation and edges of bins are behind the parameters in ``flat_N``: a gradient is 0 there.

    Args:
        networks: the members; copied.
        dropout: of each of them.
    """

    def __init__(self, networks: Sequence[MLP], dropout: Sequence[float]) -> None:
        super().__init__()
        self.members, self.dropout = len(networks), list(dropout)
        #: The networks without weights; in a list, which torch does not take to a device.
        self._outlines = [_outline(one) for one in networks]
        self.out_features = self.pattern.out_features
        parameters = [dict(one.named_parameters()) for one in networks]
        buffers = [dict(one.named_buffers()) for one in networks]
        self._learned, end = self._blocks(parameters, 0)
        self._kept, end = self._blocks(buffers, end)
        self.parameter_names = [_PREFIX + one.name for one in self._learned]
        linears = [dict(_linears(one)) for one in self._outlines]
        self.layer_names = list(linears[0])
        self.widest = max(one.out_features for of_member in linears for one in of_member.values())
        widths = {name: tuple(of_member[name].out_features for of_member in linears) for name in linears[0]}
        self._add_masks(widths)
        self.dropped_units = [list(units) for units in zip(*self._dropped(widths), strict=True)]
        if not self.dropped_units:
            self.dropped_units = [[] for _ in networks]
        self.flat_N = nn.Parameter(torch.zeros(end, dtype=next(networks[0].parameters()).dtype))
        with torch.no_grad():
            for member, one in enumerate(networks):
                self._write(self.flat_N, member, {_PREFIX + name: part for name, part in one.state_dict().items()})

    def _blocks(self, of_members: Sequence[Mapping[str, Tensor]], at: int) -> tuple[list[Block], int]:
        blocks = []
        for name in of_members[0]:
            shapes = [one[name].shape for one in of_members]
            blocks.append(Block(name, at, self.members, tuple(max(sizes) for sizes in zip(*shapes, strict=True))))
            at = blocks[-1].end
        return blocks, at

    def _add_masks(self, widths: Mapping[str, tuple[int, ...]]) -> None:
        """For each linear layer with padding a mask of the units that a member has."""
        self._padded: dict[str, str] = {}
        for number, (name, of_members) in enumerate(widths.items()):
            if len(set(of_members)) > 1:
                mask_KH = torch.arange(max(of_members)) < torch.tensor(of_members)[:, None]
                self._padded[name] = f"mask_{number}"
                self.register_buffer(f"mask_{number}", mask_KH.unsqueeze(1).float(), persistent=False)

    def mask(self, layer: str) -> Tensor | None:
        """1 for the units of a linear layer that a member has, 0 for padding: ``(K, 1, H)``; ``None`` without."""
        return getattr(self, self._padded[layer]) if layer in self._padded else None

    def _dropped(self, widths: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        """The widths of all members, for each dropout layer."""
        before: tuple[int, ...] = ()
        for name, module in self.pattern.layers.named_modules():
            before = widths.get(name, before)
            if isinstance(module, Dropout):
                yield before

    @property
    def pattern(self) -> MLP:
        """A network that has all layers: a member without dropout has no dropout layers."""
        return self._outlines[max(range(self.members), key=lambda member: self.dropout[member])]

    @property
    def normalises_rows(self) -> bool:
        """Whether rows depend on each other: then padding must not count."""
        return any(isinstance(one, nn.BatchNorm1d) for one in self.pattern.modules())

    def unstack(self, member: int) -> MLP:
        network = copy.deepcopy(self._outlines[member]).to(self.flat_N.dtype).to_empty(device="cpu")
        state = self.state_of(self.flat_N, member)
        network.load_state_dict({name.removeprefix(_PREFIX): one for name, one in state.items()})
        return network

    def parts(self, flat_N: Tensor, member: int) -> Iterator[Tensor]:
        return self._own(self._learned, dict(self._outlines[member].named_parameters()), flat_N, member)

    @staticmethod
    def _own(blocks: Sequence[Block], outline: Mapping[str, Tensor], flat_N: Tensor, member: int) -> Iterator[Tensor]:
        for block in blocks:
            own = tuple(slice(size) for size in outline[block.name].shape)
            yield block.view(flat_N)[(member, *own)]

    def learned(self, flat_N: Tensor) -> Iterator[Tensor]:
        return (block.as_matrices(flat_N) for block in self._learned)

    def per_member(self, flat_N: Tensor) -> Iterator[Tensor]:
        return (block.as_matrices(flat_N) for block in (*self._learned, *self._kept))

    def state_of(self, flat_N: Tensor, member: int) -> dict[str, Tensor]:
        outline, state = self._outlines[member], super().state_of(flat_N, member)
        kept = self._own(self._kept, dict(outline.named_buffers()), flat_N, member)
        for block, part in zip(self._kept, kept, strict=True):
            state[_PREFIX + block.name] = part.detach().clone(memory_format=torch.contiguous_format)
        names = outline.state_dict()
        return {  # batches are counted in whole numbers
            _PREFIX + name: state[_PREFIX + name] if one.is_floating_point() else state[_PREFIX + name].to(one.dtype)
            for name, one in names.items()
        }

    def flat_of_state(self, state: Mapping[str, Tensor]) -> Tensor:
        flat_N = torch.zeros_like(self.flat_N, requires_grad=False)
        self._write(flat_N, 0, state)
        return flat_N

    def _write(self, flat_N: Tensor, member: int, state: Mapping[str, Tensor]) -> None:
        outline = self._outlines[member].state_dict()
        blocks = (*self._learned, *self._kept)
        names = [_PREFIX + block.name for block in blocks]
        self._fill(names, self._own(blocks, outline, flat_N, member), [state[name] for name in names])

    def select(self, members: Sequence[int]) -> StackedNetwork:
        networks = [self.unstack(member) for member in members]
        return StackedNetwork(networks, [self.dropout[one] for one in members]).to(self.flat_N.device)

    def layer_outputs(self, features: Tensor) -> Iterator[Tensor]:
        return Pass(self, self.tensors(self.flat_N)).layer_outputs(features)

    def tensors(self, flat_N: Tensor, learned: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the network, each ``(K, …)``.

        Args:
            flat_N: the parameter, or a tensor laid out like it.
            learned: parameters to take instead of those in ``flat_N``.
        """
        # Views of ``data``: to autograd, statistics that change in place are then no change of the parameters.
        if learned is None:
            learned = {block.name: block.view(flat_N) for block in self._learned}
        return {**learned, **{block.name: block.view(flat_N.data) for block in self._kept}}

    def leaves(self, gradient_N: Tensor) -> dict[str, Tensor]:
        """The parameters as leaves of autograd that share memory with ``flat_N``; gradients are added to a tensor.

        Args:
            gradient_N: laid out like ``flat_N``.
        """
        leaves = {}
        # As ``data``: an update changes them without autograd, after the backward pass; so do statistics of batches.
        for block in self._learned:
            leaf = block.view(self.flat_N.data).requires_grad_()
            leaf.grad = block.view(gradient_N)
            leaves[block.name] = leaf
        return leaves


class Pass:
    """One forward pass.

    Args:
        model: the stack.
        tensors: its parameters and buffers.
        dropout: for each dropout layer, in order, the factors ``(K, B, H)`` or ``(1, B, H)``; ``None`` without dropout.
        training: whether batches are normalised by their own statistics, which are kept, too.
        counts_KB1: 1 for rows of the batch, 0 for padding; ``None``: all are.
    """

    def __init__(
        self,
        model: StackedNetwork,
        tensors: Mapping[str, Tensor],
        dropout: Sequence[Tensor] | None = None,
        training: bool = False,
        counts_KB1: Tensor | None = None,
    ) -> None:
        self._model, self._tensors = model, tensors
        self._dropout = None if dropout is None else iter(dropout)
        self._training, self._counts_KB1 = training, counts_KB1
        self._mask_K1H: Tensor | None = None

    def layer_outputs(self, features: Tensor) -> Iterator[Tensor]:
        """What each linear layer returns, ``(K, B, out)``."""
        pattern, members = self._model.pattern, self._model.members
        x = features if features.dim() == 3 else features.expand(members, *features.shape)
        if pattern.embedding is not None:
            x = self._embed(pattern.embedding, x)
        yield from self._through(pattern.layers, "", x)

    def _through(self, modules: nn.Module, path: str, x: Tensor) -> Iterator[Tensor]:
        """Run the modules one after another; yields the output of each linear one, and returns the last."""
        for name, module in modules.named_children():
            at = path + name
            if isinstance(module, nn.Linear):
                x = self._linear(at, x)
                yield x
            elif isinstance(module, ResidualBlock):
                x = x + (yield from self._through(module.layers, f"{at}.layers.", x))
            elif isinstance(module, nn.LayerNorm):
                x = self._layer_norm(module, at, x)
            elif isinstance(module, nn.BatchNorm1d):
                x = self._batch_norm(module, at, x)
            elif isinstance(module, Dropout):
                x = x if self._dropout is None else x * next(self._dropout)
            else:
                x = module(x)
                if self._mask_K1H is not None:  # the activation of 0 need not be 0
                    x = x * self._mask_K1H
        return x

    def _of(self, path: str, name: str) -> Tensor | None:
        return self._tensors.get(f"layers.{path}.{name}")

    def _affine(self, path: str) -> tuple[Tensor, Tensor]:
        weight_K1H, bias_K1H = (self._tensors[f"layers.{path}.{name}"].unsqueeze(1) for name in ("weight", "bias"))
        return weight_K1H, bias_K1H

    def _linear(self, path: str, x_KBI: Tensor) -> Tensor:
        bias_KO = self._of(path, "bias")
        self._mask_K1H = self._model.mask(path)
        weight_KIO = self._tensors[f"layers.{path}.weight"].transpose(1, 2)
        return linear(x_KBI, weight_KIO, None if bias_KO is None else bias_KO.unsqueeze(1))

    def _layer_norm(self, norm: nn.LayerNorm, path: str, x_KBH: Tensor) -> Tensor:
        weight_K1H, bias_K1H = self._affine(path)
        if self._mask_K1H is None:
            return torch.addcmul(bias_K1H, F.layer_norm(x_KBH, x_KBH.shape[-1:], eps=norm.eps), weight_K1H)
        units_K11 = self._mask_K1H.sum(-1, keepdim=True)
        # Masked before the sum, too: the gradient of the mean must not reach padding.
        mean_KB1 = (x_KBH * self._mask_K1H).sum(-1, keepdim=True) / units_K11
        centred_KBH = (x_KBH - mean_KB1) * self._mask_K1H
        variance_KB1 = centred_KBH.square().sum(-1, keepdim=True) / units_K11
        return torch.addcmul(bias_K1H, centred_KBH * (variance_KB1 + norm.eps).rsqrt(), weight_K1H)

    def _batch_norm(self, norm: nn.BatchNorm1d, path: str, x_KBH: Tensor) -> Tensor:
        mean_KH, variance_KH = (self._tensors[f"layers.{path}.running_{name}"] for name in ("mean", "var"))
        assert norm.momentum is not None
        if self._training:
            self._tensors[f"layers.{path}.num_batches_tracked"].add_(1)
        if self._training and self._counts_KB1 is not None:
            return self._normalise_padded(norm, path, x_KBH, self._counts_KB1)
        members, rows, units = x_KBH.shape
        weight_K1H, bias_K1H = self._affine(path)
        # To torch, the units of all members are units of one layer.
        normal_BL = F.batch_norm(
            x_KBH.transpose(0, 1).reshape(rows, members * units),
            mean_KH.view(-1),
            variance_KH.view(-1),
            weight_K1H.reshape(-1),
            bias_K1H.reshape(-1),
            self._training,
            norm.momentum,
            norm.eps,
        )
        return normal_BL.view(rows, members, units).transpose(0, 1)

    def _normalise_padded(self, norm: nn.BatchNorm1d, path: str, x_KBH: Tensor, counts_KB1: Tensor) -> Tensor:
        """By the statistics of each member's own rows."""
        rows_K11 = counts_KB1.sum(1, keepdim=True)
        mean_K1H = (x_KBH * counts_KB1).sum(1, keepdim=True) / rows_K11
        centred_KBH = x_KBH - mean_K1H
        variance_K1H = (centred_KBH.square() * counts_KB1).sum(1, keepdim=True) / rows_K11
        with torch.no_grad():
            unbiased_K1H = variance_K1H * (rows_K11 / (rows_K11 - 1))
            for name, one in (("mean", mean_K1H), ("var", unbiased_K1H)):
                self._tensors[f"layers.{path}.running_{name}"].lerp_(one.squeeze(1), norm.momentum or 0.0)
        weight_K1H, bias_K1H = self._affine(path)
        return torch.addcmul(bias_K1H, centred_KBH * (variance_K1H + norm.eps).rsqrt(), weight_K1H)

    def _embed(self, embedding: FeatureEmbedding, x_KBP: Tensor) -> Tensor:
        """As :class:`FeatureEmbedding`, for each member."""
        numbers, first = embedding.numeric_features, embedding.in_features - embedding.categories
        parts = []
        if embedding.numbers is not None:
            embed = self._periodic if isinstance(embedding.numbers, PeriodicEmbedding) else self._piecewise_linear
            parts.append(embed(x_KBP[..., :numbers]).flatten(2))
        parts.append(x_KBP[..., numbers:first])
        for number in range(embedding.categories):
            table_KCD = self._tensors[f"embedding.tables.{number}.weight"]
            members, codes, _ = table_KCD.shape
            first_K1 = torch.arange(0, members * codes, codes, device=x_KBP.device).unsqueeze(1)
            parts.append(F.embedding(x_KBP[..., first + number].long() + first_K1, table_KCD.flatten(0, 1)))
        return torch.cat(parts, -1)

    def _periodic(self, x_KBM: Tensor) -> Tensor:
        frequencies_K1MQ, phases_K1MQ = (
            self._tensors[f"embedding.numbers.{name}_NQ"].unsqueeze(1) for name in ("frequencies", "phases")
        )
        waves_KBMQ = torch.cos(2 * math.pi * (x_KBM.unsqueeze(-1) * frequencies_K1MQ + phases_K1MQ))
        return torch.cat([x_KBM.unsqueeze(-1), self._of_each_number(waves_KBMQ)], -1)

    def _piecewise_linear(self, x_KBM: Tensor) -> Tensor:
        edges_K1QM = self._tensors["embedding.numbers.edges_QN"].unsqueeze(1)
        low_K1QM, high_K1QM = edges_K1QM[:, :, :-1], edges_K1QM[:, :, 1:]
        width_K1QM = (high_K1QM - low_K1QM).clamp(min=1e-6)
        share_KBQM = ((x_KBM.unsqueeze(2) - low_K1QM) / width_K1QM).clamp(0, 1)
        return self._of_each_number(share_KBQM.transpose(2, 3))

    def _of_each_number(self, x_KBMQ: Tensor) -> Tensor:
        """The linear layer of each number: ``(K, B, M, D)``."""
        weights_KMQD = self._tensors["embedding.numbers.weights_NQD"]
        biases_KMD = self._tensors["embedding.numbers.biases_ND"]
        x_LBQ = x_KBMQ.transpose(1, 2).flatten(0, 1)
        learned_LBD = torch.baddbmm(biases_KMD.flatten(0, 1).unsqueeze(1), x_LBQ, weights_KMQD.flatten(0, 1))
        return learned_LBD.unflatten(0, biases_KMD.shape[:2]).transpose(1, 2)


def _outline(network: MLP) -> MLP:
    with torch.device("meta"):
        return copy.deepcopy(network).to("meta")


def _linears(network: MLP) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers in order, by their paths in ``layers``."""
    return ((name, one) for name, one in network.layers.named_modules() if isinstance(one, nn.Linear))
