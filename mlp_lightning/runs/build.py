"""Data module and module of a configuration, and the sizes that follow from both."""

from __future__ import annotations

import itertools

import torch
from lightning.pytorch.callbacks import EarlyStopping

from mlp_lightning.config import Config, ModelConfig, OwnModelConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.engines.sizing import auto_steps_per_execution, auto_threads, cpu_threads
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.networks.tasks import task_class
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.module_config import ModuleConfig
from mlp_lightning.runs.network import build_embedding, build_mlp
from mlp_lightning.runs.own_parts import OwnParts

# Enough for probabilities that are not too sure; benchmarks/quality.py measures them.
AUTO_LABEL_SMOOTHING = 0.01
# How often there are histograms unless you say it: seldom enough to cost little, often enough to show a development.
_HISTOGRAM_INTERVAL, _LEAST_HISTOGRAMS = 100, 20
# What threads and executions are sized for, of a network of the user's own.
_WIDTH_OF_OWN = 512


def build_data(config: Config, given: Given | None = None) -> TabularDataModule:
    """The data module, loaded and split.

    Args:
        config: of the run.
        given: what is known of the rows beside, such as a table in memory.

    Raises:
        DataError: if the rows cannot be split or batched as the configuration asks.
    """
    options = config.data
    if config.preset.name == "best":
        hint = "train them with mlp_lightning.train_best, or leave it out"
        raise ConfigError([Fault("preset.name", config.preset.name, "is several trainings", hint)])
    if options.cv.trains_all:
        hint = "train every fold with mlp_lightning.cross_validate, or choose one with data.cv.fold"
        raise ConfigError([Fault("data.cv.folds", options.cv.folds, "is several trainings, and this is one", hint)])
    if config.ensemble.members is not None:
        hint = "train them with mlp_lightning.train_ensemble, or leave it out"
        raise ConfigError([Fault("ensemble.members", config.ensemble.members, "is several trainings", hint)])
    data = TabularDataModule.from_config(config, given)
    with cpu_threads(1):  # parts of a table are prepared in the cache: more threads would wait for each other
        data.setup()
    smoothing = config.trainer.label_smoothing
    if smoothing not in (0, "auto") and data.task == "regression":
        raise ConfigError([Fault("trainer.label_smoothing", smoothing, "needs labels, and a regression has none")])
    _refuse_idle_options(config, data)
    rows, batch_size = len(data.splits["train"]), data.training_steps.batch_size
    if config.model.norm == "batch" and (batch_size == 1 or rows % batch_size == 1):
        raise DataError(
            f"data.batch_size = {options.batch_size} leaves a batch with 1 of the {rows} training rows, and"
            " model.norm = 'batch' needs 2 in every batch. Use another batch size, or model.norm=layer."
        )
    return data


def _refuse_idle_options(config: Config, data: TabularDataModule) -> None:
    """Refuse options of the model for columns that the table does not have; the data module refuses its own.

    Raises:
        ConfigError: naming them.
    """
    model, default = config.model, ModelConfig()
    has_embeddings = model.numeric_embedding != "none" or data.preprocessor.cardinalities
    idle = {
        "numeric_embedding": "" if data.preprocessor.numeric_features else "no column holds numbers",
        "embedding_size": ""
        if has_embeddings
        else "no column is embedded: none has more than data.max_one_hot categories",
    }
    faults = [
        Fault(f"model.{key}", getattr(model, key), f"has no effect: {reason}", "leave it out")
        for key, reason in idle.items()
        if reason and getattr(model, key) != getattr(default, key)
    ]
    if faults:
        raise ConfigError(faults)


def module_config(config: Config, data: TabularDataModule) -> ModuleConfig:
    """What the module of a run is made of."""
    return ModuleConfig(
        data.in_features,
        data.out_features,
        data.task,
        config.model,
        config.optimizer,
        config.scheduler,
        config.seed,
        config.trainer.gradient_clip_val,
        config.trainer.gradient_clip_algorithm,
        histogram_interval(config, run_length(config, data.steps_per_epoch)),
        label_smoothing(config, data),
        data.preprocessing,
    )


def histogram_interval(config: Config, last_step: int) -> int | None:
    """Steps between two histograms of a run of so many steps; ``None`` for none."""
    wanted = config.callbacks.histograms_every_n_steps
    return max(1, min(_HISTOGRAM_INTERVAL, last_step // _LEAST_HISTOGRAMS)) if wanted == "auto" else wanted


def label_smoothing(config: Config, data: TabularDataModule) -> float:
    wanted = config.trainer.label_smoothing
    if wanted == "auto":
        return AUTO_LABEL_SMOOTHING if task_class(data.task).has_classes else 0.0
    return float(wanted)


def build_module(config: Config, data: TabularDataModule, own: OwnParts) -> MLPModule:
    """The module with its initial weights, and the statistics of the training rows in its preprocessing."""
    parts = {"network": own.network, "activation_class": own.activation, "optimizer_class": own.optimizer}
    module = MLPModule(**vars(module_config(config, data)), **parts)
    module.take_statistics(data)
    return module


def build_early_stopping(config: Config) -> EarlyStopping | None:
    """Lightning's callback, where the configuration asks for it."""
    options = config.callbacks.early_stopping
    if options is None:
        return None
    mode = "max" if options.monitor.startswith("accuracy") else "min"
    return EarlyStopping(
        options.monitor, options.min_delta, options.patience, mode=mode, check_on_train_epoch_end=False
    )


def layer_widths(config: Config, data: TabularDataModule) -> list[int]:
    """All widths of the network, from the input features to the logits."""
    hidden = config.model.layer_widths
    if isinstance(config.model, OwnModelConfig):  # its size is known only when it is built, on whatever it is
        hidden = [_WIDTH_OF_OWN] * 2
    if config.model.residual:  # the layer before the blocks, and two in each
        hidden = hidden[:1] * (1 + 2 * len(hidden))
    return [data.in_features, *hidden, data.out_features]


def steps_per_execution(config: Config, data: TabularDataModule) -> int:
    wanted = config.trainer.steps_per_execution
    if wanted != "auto":
        return int(wanted)
    return auto_steps_per_execution(layer_widths(config, data), data.training_steps.rows_per_step)


def threads(config: Config, data: TabularDataModule) -> int:
    wanted = config.trainer.threads
    if wanted != "auto":
        return int(wanted)
    return auto_threads(layer_widths(config, data), data.training_steps.batch_size)


def run_length(config: Config, steps_per_epoch: int) -> int:
    """Number of steps of the whole run."""
    limits = []
    if config.trainer.max_steps is not None:
        limits.append(config.trainer.max_steps)
    if config.trainer.max_epochs is not None:
        limits.append(config.trainer.max_epochs * steps_per_epoch)
    return min(limits)


def count_parameters(config: Config, data: TabularDataModule) -> int:
    """Number of parameters of the network of a configuration; the network is not built."""
    model = config.model
    if model.norm == "none" and build_embedding(model, data.in_features, data.preprocessor) is None:
        widths = layer_widths(config, data)
        return sum((inputs + model.bias) * outputs for inputs, outputs in itertools.pairwise(widths))
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return sum(one.numel() for one in build_mlp(module_config(config, data), data.preprocessor).parameters())
