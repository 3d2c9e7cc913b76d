"""Hands the figures of a run to its loggers, at true optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from mlp_lightning.engines.trace import StepTrace
from mlp_lightning.runs.module import MLPModule


class MetricsRecorder(pl.Callback):
    """Logs ``loss/…``, the task's metric, the learning rate and histograms.

    The x-axis is the number of optimizer steps made before a figure was measured, for all splits: the
    training loss at step s and a validation after s steps belong to the same weights.

    Training losses are those of single steps, as training saw them; the last one, after the last step, is
    that of all training rows, so the end of the curve is the figure that is reported.

    Args:
        log_lr: whether to log the learning rate.
        final_training_figures: whether the weights that are measured at the end are those of the last step.
    """

    def __init__(self, log_lr: bool = True, final_training_figures: bool = True) -> None:
        self._log_lr = log_lr
        self._final_splits = ("train", "test") if final_training_figures else ("test",)

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: MLPModule, outputs: Mapping[str, StepTrace], *_: Any
    ) -> None:
        trace, metric_name = outputs["trace"], pl_module.task.metric_name
        for logged in trace.logged:
            figures = {"loss/train": logged.loss, f"{metric_name}/train": logged.metric}
            if self._log_lr:
                figures["learning_rate"] = logged.lr
            _log(trainer, figures, logged.step)
        for histogram in trace.histograms:
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    for name, values in histogram.weights.items():
                        logger.experiment.add_histogram(f"weights/{name}", values, histogram.step)
                    for name, values in histogram.gradients.items():
                        logger.experiment.add_histogram(f"gradients/{name}", values, histogram.step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _log(trainer, _figures_of(trainer, "val"), trainer.global_step)

    def on_test_end(self, trainer: pl.Trainer, pl_module: MLPModule) -> None:  # type: ignore[override]  # meets only our module
        # The last validation is in the curves already.
        final = [_figures_of(trainer, split) for split in self._final_splits]
        _log(trainer, {name: value for figures in final for name, value in figures.items()}, trainer.global_step)


def _figures_of(trainer: pl.Trainer, split: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.endswith(f"/{split}")}


def _log(trainer: pl.Trainer, figures: Mapping[str, float], step: int) -> None:
    if figures:
        for logger in trainer.loggers:
            logger.log_metrics(dict(figures), step)
