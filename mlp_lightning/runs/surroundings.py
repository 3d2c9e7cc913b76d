"""What a run changes in its process, and gives back as it was."""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mlp_lightning.config import Config
from mlp_lightning.tables.randomness import derived_seed


@contextmanager
def isolated_randomness(config: Config) -> Iterator[None]:
    """Seed the global generators for what parts of your own may draw from them, and restore those of the caller."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # Of several GPUs a run uses the first; touching the others would take memory on them.
    may_use_gpu = config.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    with torch.random.fork_rng(devices=[0] if may_use_gpu else []):
        own = derived_seed(config.seed, "training")
        torch.manual_seed(own)
        random.seed(own)
        np.random.seed(own % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Inside the context, the garbage collector leaves alone what was there before.

    The libraries have made hundreds of thousands of objects. Looking through them takes a tenth of a second, several
    times in a training of seconds that keeps a small object for every step.
    """
    if gc.get_freeze_count():  # the caller has done so already, and its objects stay frozen
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings about the libraries' own insides, which a user can do nothing about."""
    with warnings.catch_warnings():
        # Lightning 2.6 asks torch's pytree a question that torch 2.13 wants asked otherwise.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        # If you ask for the CPU, you know that there is a GPU.
        warnings.filterwarnings("ignore", message="GPU available but not used")
        yield
