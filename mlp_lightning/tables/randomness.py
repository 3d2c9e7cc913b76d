"""Seeds and generators derived from one seed, so that one purpose does not affect another."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A seed that depends on all three arguments and on nothing else.

    Args:
        seed: the seed of the run.
        purpose: what the random numbers are for, e.g. ``"shuffle"``.
        epoch: number of the epoch, where the numbers differ from epoch to epoch.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A generator on the CPU, seeded with :func:`derived_seed`: the same numbers on every device."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, epoch))
