"""An ``MLPModule`` trained by an ordinary Trainer, and what its tests compare it with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from mlp_lightning.config import ModelConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.runs.module import MLPModule

MakeTrainer = Callable[..., pl.Trainer]
MODEL = ModelConfig(hidden_units=[8, 5], activation="tanh")
EXECUTIONS = [1, 7, 1000]


def module_for(data: TabularDataModule, **options: Any) -> MLPModule:
    data.setup()
    module = MLPModule(data.in_features, data.out_features, data.task, **{"model": MODEL, "seed": 3, **options})
    module.take_statistics(data)
    return module


def fitted(
    make_trainer: MakeTrainer,
    data: TabularDataModule,
    module: MLPModule,
    checkpoint: Path | None = None,
    **settings: Any,
) -> pl.Trainer:
    data.setup()
    if "val" not in data.splits:
        settings["limit_val_batches"] = 0
    trainer = make_trainer(**settings)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


class Traces(pl.Callback):
    """Keeps the losses and logged steps of all executions, and the Trainer's counters after each."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.logged: list[Any] = []
        self.counters: list[tuple[int, int]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *rest: Any) -> None:
        self.losses += outputs["trace"].losses
        self.logged += outputs["trace"].logged
        self.counters.append((trainer.global_step, trainer.current_epoch))


def hand_written(seed: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))


def reported_metrics(trainer: pl.Trainer, split: str, metric: str = "accuracy") -> tuple[float, float]:
    """Loss and metric that the Trainer has for a split."""
    return float(trainer.callback_metrics[f"loss/{split}"]), float(trainer.callback_metrics[f"{metric}/{split}"])


def metrics_by_hand(module: MLPModule, data: TabularDataModule, split: str) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in double precision, row by row."""
    network = copy.deepcopy(module).double().eval()
    rows = data.splits[split]
    losses, hits = [], []
    with torch.no_grad():
        for features_F, label in zip(rows.features_BF.double(), rows.targets, strict=True):
            logits_C = network.mlp(features_F.unsqueeze(0))[0]
            losses.append(float(logits_C.logsumexp(0) - logits_C[label]))
            hits.append(int(logits_C.argmax()) == int(label))
    return sum(losses) / len(losses), sum(hits) / len(hits)
