"""One training with its folder: module, Trainer, policies, recorder, checkpoints.

``train`` and ``train_stack`` are loaded on first use (PEP 562): the run folder is also needed before torch is
imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_lightning.runs.fit import TrainingResult, train, train_stack

_HOME = {"TrainingResult": "fit", "train": "fit", "train_stack": "fit"}

__all__ = ["TrainingResult", "train", "train_stack"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
