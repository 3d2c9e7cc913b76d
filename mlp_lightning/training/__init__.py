"""Training: the one door, for one run or for many, the run folder and what accompanies a run.

``train`` and ``train_stack`` are loaded on first use (PEP 562): the run folder is also needed before torch is
imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_lightning.training.stack_training import train_stack
    from mlp_lightning.training.train import TrainingResult, train

_HOME = {"TrainingResult": "train", "train": "train", "train_stack": "stack_training"}

__all__ = ["TrainingResult", "train", "train_stack"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = {one: getattr(importlib.import_module(f"{__name__}.{_HOME[one]}"), one) for one in _HOME}
    # The submodules are called as the functions: leave the functions under the names.
    globals().update(found)
    return found[name]
