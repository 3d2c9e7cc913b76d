"""A network, an activation, an optimizer and a callback, each in the form that mlp_lightning takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


class GatedNet(nn.Module):
    """A hidden layer whose units are multiplied with gates."""

    def __init__(self, in_features: int, out_features: int, width: int = 16) -> None:
        super().__init__()
        self.values = nn.Linear(in_features, width)
        self.gates = nn.Linear(in_features, width)
        self.output = nn.Linear(width, out_features)

    def forward(self, features: Tensor) -> Tensor:
        return self.output(self.values(features) * torch.sigmoid(self.gates(features)))


class Snake(nn.Module):
    """``x + sin(x)²``: grows, and repeats itself (Ziyin et al., 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x) ** 2


class SignDescent(torch.optim.Optimizer):
    """Steps of one size: only the sign of each gradient counts."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # torch overloads it
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - group["momentum"])
                parameter.sub_(mean.sign(), alpha=group["lr"])


class StopBelow(pl.Callback):
    """Ends the training once the training loss is below a threshold, and says so in a file of the run folder."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trace, _members = outputs["outputs"].traces[-1]
        if float(trace.losses_SK[-1, 0]) < self.threshold:
            Path(trainer.default_root_dir, "stopped_below.txt").write_text(
                f"step {trace.next_step}\n", encoding="utf-8"
            )
            trainer.should_stop = True
