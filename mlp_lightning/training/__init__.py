"""Training: the one door ``train``, the run folder and what accompanies a run.

``train`` is loaded on first use (PEP 562): the run folder is also needed before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_lightning.training.train import TrainingResult, train

__all__ = ["TrainingResult", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import mlp_lightning.training.train as home

    # The submodule is called as the function: leave the function under the name.
    globals().update({one: getattr(home, one) for one in __all__})
    return globals()[name]
