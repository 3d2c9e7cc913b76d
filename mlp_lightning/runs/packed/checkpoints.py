"""Checkpoints of many runs as stacked tensors, and back to the same bytes.

A checkpoint file is a pickle of everything but the numbers, and the numbers. The pickle is kept as it is. The numbers
of runs of one shape are stacked; what all of them have in common is kept once, and the states of generators that
follow from the seed of a run are not kept at all.

Shapes: ``K`` runs of one shape.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlp_lightning.engines.generators import initial_generators
from mlp_lightning.runs.checkpoint_bytes import checkpoint_bytes, file_of, is_as_torch_writes, pickled

_WITHOUT_TENSORS = ("config", "hyper_parameters", "fingerprint")
_GENERATORS = "callbacks.RandomState."


class Taken(NamedTuple):
    """A checkpoint taken apart.

    Attributes:
        pickle: everything but the numbers; the whole file if it cannot be taken apart.
        tensors: the numbers by their path in the checkpoint, in the order of the file.
    """

    pickle: bytes
    tensors: Mapping[str, Tensor]

    @property
    def shape(self) -> tuple[Any, ...]:
        """The same for checkpoints whose tensors can be stacked."""
        return tuple((name, one.dtype, one.shape) for name, one in self.tensors.items())


def take_apart(content: Mapping[str, Any]) -> Taken:
    """Take the content of a checkpoint apart; its tensors are on the CPU."""
    if is_as_torch_writes():
        data_pkl, storages = pickled(content)
        tensors: dict[str, Tensor] = {}
        met: set[int] = set()
        for name, value in content.items():
            for path, tensor in _tensors(name, value) if name not in _WITHOUT_TENSORS else ():
                if (storage := tensor.untyped_storage()._cdata) not in met:
                    met.add(storage)
                    tensors[path] = tensor
        # Whether each tensor is all of its storage, and there is no other.
        if [one._cdata for one in storages] == [one.untyped_storage()._cdata for one in tensors.values()] and all(
            one.is_contiguous() and one.nbytes == storage.nbytes()
            for one, storage in zip(tensors.values(), storages, strict=True)
        ):
            return Taken(data_pkl, tensors)
    return Taken(checkpoint_bytes(content), {})


def _tensors(path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _tensors(f"{path}.{name}", one)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _tensors(f"{path}.{number}", one)


def stacked(checkpoints: Sequence[Taken], seeds: Sequence[int]) -> tuple[list[str], dict[str, Tensor]]:
    """The tensors of checkpoints of one shape.

    Args:
        checkpoints: of K runs.
        seeds: of the same runs.

    Returns:
        The names of all tensors in the order of a file; and those that do not follow from the seeds, ``(K, ...)`` or,
        if they are the same in all of them, ``(1, ...)``.
    """
    names = list(checkpoints[0].tensors)
    kept: dict[str, Tensor] = {}
    for name in names:
        of_runs = [one.tensors[name] for one in checkpoints]
        if name.startswith(_GENERATORS) and all(
            _is_same(one, _initial(seed, name)) for one, seed in zip(of_runs, seeds, strict=True)
        ):
            continue
        is_common = all(one is of_runs[0] for one in of_runs)
        together = of_runs[0][None] if is_common else torch.stack(of_runs)
        if not is_common and bool((_bytes(together) == _bytes(together[:1])).all()):
            together = together[:1].clone()
        kept[name] = together.contiguous()
    return names, kept


def put_together(pickle: bytes, names: Sequence[str], kept: Mapping[str, Tensor], seed: int) -> bytes:
    """The file of a checkpoint.

    Args:
        pickle: as taken apart.
        names: of its tensors, in the order of the file.
        kept: of the run, those that do not follow from its seed.
        seed: of the run.
    """
    if not names:
        return pickle
    tensors = [kept[name] if name in kept else _initial(seed, name) for name in names]
    return file_of(pickle, [_storage(one) for one in tensors if one is not None])


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.contiguous().clone().untyped_storage()


def _initial(seed: int, name: str) -> Tensor | None:
    """A tensor of the generators that a run with this seed starts with."""
    return _initial_tensors(seed).get(name)


@functools.lru_cache(maxsize=4096)
def _initial_tensors(seed: int) -> Mapping[str, Tensor]:
    return dict(_tensors(_GENERATORS.removesuffix("."), initial_generators(seed)))


def _is_same(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and (tensor is other or torch.equal(tensor, other))


def _bytes(tensor: Tensor) -> Tensor:
    """``(K, bytes)``: equal for NaN, too, and different for 0 and -0."""
    return tensor.contiguous().reshape(len(tensor), tensor[0].numel()).view(torch.uint8)
