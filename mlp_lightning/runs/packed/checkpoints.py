"""Checkpoints of many runs as stacked tensors, and back to the same bytes.

A checkpoint file is a pickle of everything but the numbers, and the numbers. The pickle is kept as it is. The numbers
of runs of one shape are stacked; what all of them have in common is kept once, and the states of generators that
follow from the seed of a run are not kept at all.

Shapes: ``K`` runs of one shape, ``B`` bytes of each.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlp_lightning.engines.generators import InitialGenerators, initial_generators
from mlp_lightning.runs.checkpoint_bytes import checkpoint_bytes, file_of, is_as_torch_writes, pickled
from mlp_lightning.runs.checkpoints import as_written

_WITHOUT_TENSORS = ("config", "hyper_parameters", "fingerprint")
_NAME = "RandomState"
_GENERATORS = f"callbacks.{_NAME}"


class Taken(NamedTuple):
    """A checkpoint taken apart.

    Attributes:
        pickle: everything but the numbers; the whole file if it cannot be taken apart.
        tensors: the numbers by their path in the checkpoint, in the order of the file; ``None`` for those that follow
            from the seed of the run.
    """

    pickle: bytes
    tensors: Mapping[str, Tensor | None]

    @property
    def shape(self) -> tuple[Any, ...]:
        """The same for checkpoints whose tensors can be stacked."""
        return tuple((name, None if one is None else (one.dtype, one.shape)) for name, one in self.tensors.items())


def take_apart(content: Mapping[str, Any]) -> Taken:
    """Take the content of a checkpoint apart; its tensors are on the CPU."""
    if is_as_torch_writes():
        example, of_seed = _with_example(content)
        data_pkl, storages = pickled(example)
        tensors: dict[str, Tensor] = {}
        met: set[int] = set()
        for name, value in example.items():
            for path, tensor in _tensors(name, value) if name not in _WITHOUT_TENSORS else ():
                if (storage := tensor.untyped_storage()._cdata) not in met:
                    met.add(storage)
                    tensors[path] = tensor
        # Whether each tensor is all of its storage, and there is no other.
        if [one._cdata for one in storages] == [one.untyped_storage()._cdata for one in tensors.values()] and all(
            one.is_contiguous() and one.nbytes == storage.nbytes()
            for one, storage in zip(tensors.values(), storages, strict=True)
        ):
            return Taken(data_pkl, {name: None if name in of_seed else one for name, one in tensors.items()})
    return Taken(checkpoint_bytes(as_written(content)), {})


def _with_example(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Collection[str]]:
    """The content with the generators of any seed in place of the run's, and the paths of these.

    They are not made: their structure is the same for every seed.
    """
    callbacks = content["callbacks"]
    if not isinstance(callbacks[_NAME], InitialGenerators):
        return content, ()
    example = {**callbacks, _NAME: InitialGenerators(0)}
    return as_written({**content, "callbacks": example}), _initial_tensors(0).keys()


def _tensors(path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _tensors(f"{path}.{name}", one)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _tensors(f"{path}.{number}", one)


def stacked(checkpoints: Sequence[Taken]) -> tuple[list[str], dict[str, Tensor]]:
    """The tensors of checkpoints of one shape, of K runs.

    Returns:
        The names of all tensors in the order of a file; and those that do not follow from the seeds, ``(K, ...)`` or,
        if they are the same in all of them, ``(1, ...)``.
    """
    names = list(checkpoints[0].tensors)
    kept: dict[str, Tensor] = {}
    for name in names:
        of_runs = [tensor for one in checkpoints if (tensor := one.tensors[name]) is not None]
        if not of_runs:
            continue
        is_common = all(one is of_runs[0] for one in of_runs)
        together = of_runs[0][None] if is_common else torch.stack(of_runs)
        is_common = is_common or _are_same(_bytes(together))
        # A copy: safetensors refuses tensors that share memory.
        kept[name] = together[:1].clone(memory_format=torch.contiguous_format) if is_common else together
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
    initial = _initial_tensors(seed)
    return file_of(pickle, [_storage(kept[name] if name in kept else initial[name]) for name in names])


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.contiguous().clone().untyped_storage()


@functools.lru_cache(maxsize=4)
def _initial_tensors(seed: int) -> Mapping[str, Tensor]:
    """The tensors of the generators that a run with this seed starts with, by their path in a checkpoint."""
    return dict(_tensors(_GENERATORS, initial_generators(seed)))


def _are_same(bytes_KB: Tensor) -> bool:
    # Mostly the last already differs from the first, and the others need no memory.
    return torch.equal(bytes_KB[0], bytes_KB[-1]) and bool((bytes_KB == bytes_KB[:1]).all())


def _bytes(tensor: Tensor) -> Tensor:
    """``(K, bytes)``: equal for NaN, too, and different for 0 and -0."""
    return tensor.contiguous().reshape(len(tensor), tensor[0].numel()).view(torch.uint8)
