"""The random number generators of a process, as a checkpoint keeps them."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from mlp_lightning.tables.randomness import derived_seed


def generator_states() -> dict[str, Any]:
    """The present states; cheap to take, and not yet plain data: see :func:`as_plain`."""
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=True),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def as_plain(states: Mapping[str, Any]) -> dict[str, Any]:
    """The same as tensors and plain data, for a checkpoint; plain data stays unchanged."""
    if isinstance(states["python"], list):
        return dict(states)
    version, numbers, gauss = states["python"]
    _, keys, position, has_gauss, cached = states["numpy"]
    return {
        **states,
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
    }


def restore_generators(plain: Mapping[str, Any]) -> None:
    """Set the generators of this process to the states of :func:`as_plain`; missing ones are left out."""
    torch.set_rng_state(plain["torch"].cpu())
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    keys, position, has_gauss, cached = plain["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in plain and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(plain["cuda"].cpu())
    if "mps" in plain and torch.backends.mps.is_available():
        torch.mps.set_rng_state(plain["mps"].cpu())


@functools.lru_cache(maxsize=4096)
def initial_generators(seed: int) -> Mapping[str, Any]:
    """The states that a run with this seed starts with, as plain data: no step of a stack draws from them."""
    own = derived_seed(seed, "training")
    return as_plain(
        {
            "torch": torch.Generator().manual_seed(own).get_state(),
            "python": random.Random(own).getstate(),
            "numpy": np.random.RandomState(own % 2**32).get_state(legacy=True),
        }
    )


class InitialGenerators(Mapping[str, Any]):
    """The same, made when they are asked for: they are larger than a small network, and follow from the seed.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, name: str) -> Any:
        return initial_generators(self.seed)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(initial_generators(self.seed))

    def __len__(self) -> int:
        return len(initial_generators(self.seed))
