"""The engine for one ordinary MLP: the autograd engine with another loop, and its state in flat tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mlp_lightning.engines.autograd.engine import AutogradEngine
from mlp_lightning.engines.explicit.loop import ExplicitLoop


class ExplicitEngine(AutogradEngine):
    """Trains one module whose network is an MLP."""

    name = "explicit"
    loop: ExplicitLoop

    def _optimizer_state(self) -> dict[str, Any]:
        return self.loop.flat.state_dict()

    def _holds(self, parameters: Iterable[Tensor]) -> bool:
        return True

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        self.loop.flat.load_state_dict(state)
