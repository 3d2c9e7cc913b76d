"""The one door to training: a configuration and a folder in, a trained model and its record out."""

from __future__ import annotations

import dataclasses
import datetime
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from mlp_lightning.config import Config, parse_config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import CheckpointError, NonFiniteLossError
from mlp_lightning.runs.build import (
    build_data,
    build_early_stopping,
    build_module,
    run_length,
    steps_per_execution,
    threads,
)
from mlp_lightning.runs.checkpoints import (
    CheckpointKeeper,
    RandomState,
    StopRequested,
    check_same_run,
    read_checkpoint,
)
from mlp_lightning.runs.console import RunConsole, log
from mlp_lightning.runs.health import TrainingHealth, non_finite_figures_message
from mlp_lightning.runs.loggers import RunTensorBoard, graph_model, make_loggers
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.progress import ProgressDisplay
from mlp_lightning.runs.recorder import MetricsRecorder
from mlp_lightning.runs.report import announcement, how_to_go_on, report
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.resume import carry_over
from mlp_lightning.runs.run_folder import RunFolder, claim, newest_checkpoint, surroundings
from mlp_lightning.runs.stop import stop_signals
from mlp_lightning.runs.surroundings import isolated_randomness, quiet_libraries
from mlp_lightning.runs.trainer import build_trainer


@dataclasses.dataclass(frozen=True)
class TrainingStart:
    """What a run begins with.

    Attributes:
        weights: state dict of the module.
        optimizer: state dict of the optimizer; ``None`` for a new one. What it remembers of the weights is taken over;
            its learning rate and other options are those of the configuration.
    """

    weights: Mapping[str, Any]
    optimizer: dict[str, Any] | None = None


def train(
    config: Config | Mapping[str, Any],
    run_dir: str | Path,
    console: Console | None = None,
    data: TabularDataModule | None = None,
    start: TrainingStart | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> TrainingResult:
    """Train one model and leave its record in ``run_dir``.

    Everything that trains goes through here. The caller's random number generators, thread count, signal
    handlers and warning filters are as before when it returns.

    Args:
        config: what to train, as dataclasses or as nested dicts that :func:`parse_config` takes.
        run_dir: folder of the run; created if it is not there, claimed exclusively.
        console: where to print; standard output if ``None``. ``config.verbosity`` 0 prints nothing.
        data: a data module that is set up, to train on instead of what ``config.data`` names.
        start: what to begin with instead of new weights.
        callbacks: further callbacks of the Trainer.

    Returns:
        The result, with the trained module. An interrupted run returns too, with ``status`` saying so.

    Raises:
        ConfigError: the configuration is wrong.
        RunFolderError: the folder belongs to another run.
        CheckpointError, DeviceError, TrainingError: see :mod:`mlp_lightning.errors`; the folder
            then has a ``result.json`` whose ``status`` is ``failed``.

    Example:
        >>> import tempfile
        >>> config = {"trainer": {"max_steps": 100}, "optimizer": {"name": "Adam", "lr": 0.01}, "verbosity": 0}
        >>> result = train(config, tempfile.mkdtemp() + "/run")
        >>> result.status, result.steps
        ('finished', 100)
    """
    if not isinstance(config, Config):
        config = parse_config(config)
    checkpoint_path = _find_checkpoint(config, Path(run_dir))
    folder = claim(Path(run_dir).absolute(), config)
    run = _Run(config, folder, checkpoint_path, RunConsole(config.verbosity, console), data, start, callbacks)
    with run.console.logging_to(folder.log), isolated_randomness(config), quiet_libraries():
        return run.execute()


class _Run:
    """One training run, from its claimed folder to its result."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        checkpoint_path: Path | None,
        console: RunConsole,
        data: TabularDataModule | None,
        start: TrainingStart | None,
        callbacks: Sequence[pl.Callback] = (),
    ) -> None:
        self.config = config
        self.data = data
        self.start = start
        self.callbacks = callbacks
        self.folder = folder
        self.checkpoint_path = checkpoint_path
        self.console = console
        self.started_at = datetime.datetime.now(datetime.timezone.utc)
        self.started = time.monotonic()
        self.fit_time_s = 0.0
        self.loggers: list[Logger] = []
        self.trainer: pl.Trainer | None = None
        self.keeper: CheckpointKeeper | None = None

    def execute(self) -> TrainingResult:
        """Train and record how it ended, whatever happens."""
        try:
            result, details = self._train()
        except BaseException as error:
            log.error("%s", traceback.format_exc())
            # A second Ctrl-C does not wait for a step to end; Lightning turns it into SystemExit.
            status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            self._record(self._result(status, error=f"{type(error).__name__}: {error}"))
            raise
        self._record(result)
        report(result, self.console, details)
        return result

    def _train(self) -> tuple[TrainingResult, str]:
        config = self.config
        data = build_data(config) if self.data is None else self.data
        module = build_module(config, data)
        if self.start is not None:
            module.to(data.dtype).load_state_dict(self.start.weights)
        data.steps_per_execution = steps_per_execution(config, data)
        last_step = run_length(config, data.steps_per_epoch)
        with cpu_threads(threads(config, data)):
            self.trainer = trainer = self._build_trainer(data, module, last_step)
            self._go_on_from_checkpoint(data)
            self._announce(data, module, last_step)
            self._write_graph(module, data)
            stopped = self._fit(trainer, module, data)
            if stopped:
                self.console.line(self._how_to_go_on())
                return self._result("interrupted", module), ""
            return self._evaluated(trainer, module, data)

    def _build_trainer(self, data: TabularDataModule, module: MLPModule, last_step: int) -> pl.Trainer:
        config, options = self.config, self.config.trainer
        has_validation = "val" in data.splits
        self.loggers = make_loggers(self.folder, config, module.task.metric_name)
        for logger in self.loggers:
            if isinstance(logger, RunTensorBoard):
                logger.open_session(config)
        self.keeper = CheckpointKeeper(self.folder, config, has_validation, last_step)
        callbacks: list[pl.Callback] = [
            TrainingHealth(last_step),
            MetricsRecorder(config.callbacks.lr_monitor, config.report_weights == "last"),
            ProgressDisplay(self.console, last_step, options.print_every_n_steps),
            RandomState(),
            self.keeper,
        ]
        if (stopping := build_early_stopping(config)) is not None:
            callbacks.append(stopping)
        if self.start is not None and self.start.optimizer is not None:
            callbacks.append(_OptimizerState(self.start.optimizer))
        return build_trainer(config, self.folder.path, has_validation, [*callbacks, *self.callbacks], self.loggers)

    def _go_on_from_checkpoint(self, data: TabularDataModule) -> None:
        path, options = self.checkpoint_path, self.config.trainer
        if path is None:
            return
        checkpoint = read_checkpoint(path)
        check_same_run(checkpoint, path, self.config)
        if checkpoint["hyper_parameters"].get("preprocessing") != data.preprocessing:
            raise CheckpointError(
                f"ckpt_path: {path} was trained on other rows than {self.config.data.path or self.config.data.name} has"
                " now: its columns, categories or targets differ. Train anew, or bring the table back as it was."
            )
        if checkpoint["global_step"] >= run_length(self.config, data.steps_per_epoch):
            raise CheckpointError(
                f"ckpt_path: {path} was taken after {checkpoint['global_step']} steps, and the run is to end there or"
                " before. Raise trainer.max_steps (or trainer.max_epochs) to train on."
            )
        stopped = next((one for one in checkpoint["callbacks"].values() if "wait_count" in one), None)
        if (
            self.config.callbacks.early_stopping is not None
            and stopped
            and stopped["wait_count"] >= stopped["patience"]
        ):
            raise CheckpointError(
                f"ckpt_path: {path} is the end of a run that stopped early, after {checkpoint['global_step']} steps."
                " Leave early stopping out (callbacks=default) to train on."
            )
        period = options.check_val_every_n_epoch * data.steps_per_epoch if "val" in data.splits else None
        carry_over(checkpoint, path, self.folder, self.loggers, period)
        self.console.line(f"Going on from step {checkpoint['global_step']} of {path}")

    def _announce(self, data: TabularDataModule, module: MLPModule, last_step: int) -> None:
        config = self.config
        parameters = sum(one.numel() for one in module.parameters())
        for line in [*data.describe(), announcement(config, data, parameters, last_step)]:
            self.console.line(line)

    def _write_graph(self, module: MLPModule, data: TabularDataModule) -> None:
        """The model graph, for TensorBoard; a run that goes on has it in its history."""
        if not self.config.logger.graph or self.checkpoint_path is not None:
            return
        for logger in self.loggers:
            if isinstance(logger, RunTensorBoard):
                with torch.random.fork_rng(devices=[]):
                    # How a table is prepared is hundreds of small operations, and nothing that learns.
                    shown = None if data.preprocessing is not None else module.preprocessor
                    graph = graph_model(shown, module.mlp)
                    logger.write_graph(graph.eval(), torch.zeros(1, data.in_features))
                    graph.train()

    def _fit(self, trainer: pl.Trainer, module: MLPModule, data: TabularDataModule) -> bool:
        """Train; returns whether the run was asked to stop before its end."""

        def request_stop() -> None:
            module.stop_requested = True

        path = None if self.checkpoint_path is None else self.folder.last_checkpoint
        started = time.monotonic()
        try:
            with stop_signals(request_stop):
                trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        except (StopRequested, SIGTERMException):
            return True
        finally:
            module.stop_requested = False
            self.fit_time_s = time.monotonic() - started
        return False

    def _evaluated(self, trainer: pl.Trainer, module: MLPModule, data: TabularDataModule) -> tuple[TrainingResult, str]:
        """Measure the final weights over all rows of every split."""
        if self.config.report_weights == "best":
            module.load_state_dict(read_checkpoint(self.folder.best_checkpoint)["state_dict"])
        loaders = {split: data.evaluation_dataloader(split) for split in data.splits}
        trainer.test(module, dataloaders=loaders, verbose=False)
        names = ("loss", module.task.metric_name)
        metrics = {
            split: {name: float(trainer.callback_metrics[f"{name}/{split}"]) for name in names} for split in data.splits
        }
        if not all(np.isfinite(value) for figures in metrics.values() for value in figures.values()):
            raise NonFiniteLossError(non_finite_figures_message(trainer.global_step, metrics, self.config.optimizer.lr))
        return self._result("finished", module, metrics), _described_predictions(module, data)

    def _result(
        self,
        status: str,
        module: MLPModule | None = None,
        metrics: dict[str, dict[str, float]] | None = None,
        error: str = "",
    ) -> TrainingResult:
        trainer, keeper = self.trainer, self.keeper
        steps = trainer.global_step if trainer is not None else 0
        datamodule = getattr(trainer, "datamodule", None)
        best = None
        if keeper is not None and self.folder.best_checkpoint.is_file():
            best = {"monitor": keeper.monitor, "value": keeper.best_value, "step": keeper.best_step}
        return TrainingResult(
            status=status,
            run_dir=self.folder.path,
            metrics=metrics or {},
            weights=self.config.report_weights,
            steps=steps,
            epochs=steps // datamodule.steps_per_epoch if datamodule is not None else 0,
            wall_time_s=time.monotonic() - self.started,
            fit_time_s=self.fit_time_s,
            device=str(trainer.strategy.root_device) if trainer is not None else "",
            best=best,
            stopped_by=_stopped_by(trainer) if status == "finished" and trainer is not None else "",
            resumed_from=None if self.checkpoint_path is None else str(self.checkpoint_path),
            error=error,
            module=module,
            optimizer_state=trainer.optimizers[0].state_dict() if trainer is not None and trainer.optimizers else None,
        )

    def _record(self, result: TrainingResult) -> None:
        """Close the loggers with the status of the run, then write ``result.json``."""
        for logger in self.loggers:
            if isinstance(logger, RunTensorBoard):
                logger.close_session(result.status)
            else:
                logger.finalize(result.status)
        self.folder.write_result({**result.to_json(), **surroundings(self.config, self.started_at)})

    def _how_to_go_on(self) -> str:
        return how_to_go_on(self.config, self.folder)


def _described_predictions(module: MLPModule, data: TabularDataModule) -> str:
    """What a data set has to say of the predictions of its training rows; most have nothing to say."""
    if type(data).describe_predictions is TabularDataModule.describe_predictions:
        return ""
    rows = data.splits["train"].to(module.device, next(module.parameters()).dtype)
    module.eval()
    with torch.no_grad():
        predictions_BC = module.task.predictions(module.mlp(module.prepared(rows.features_BF)))
    return data.describe_predictions(predictions_BC.float().cpu().numpy())


class _OptimizerState(pl.Callback):
    """Gives the optimizer the state that it shall begin with."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = trainer.optimizers[0]
        optimizer.load_state_dict({**self._state, "param_groups": optimizer.state_dict()["param_groups"]})


def _find_checkpoint(config: Config, run_dir: Path) -> Path | None:
    """The checkpoint to go on from; ``last`` and ``best`` are those of the newest run beside ``run_dir``."""
    wanted = config.ckpt_path
    if wanted is None:
        return None
    if wanted not in ("last", "best"):
        path = Path(wanted).expanduser().absolute()
        if not path.is_file():
            raise CheckpointError(f"ckpt_path: there is no file {path}")
        return path
    found = newest_checkpoint(run_dir.absolute().parent, wanted)
    if found is None:
        raise CheckpointError(f"ckpt_path = {wanted}: no run in {run_dir.absolute().parent} has a {wanted}.ckpt")
    return found


def _stopped_by(trainer: pl.Trainer) -> str:
    """What ended the run before its full length, in words; empty if nothing did."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector of the Trainer
        if isinstance(callback, EarlyStopping) and trainer.should_stop:
            return f"{callback.monitor} did not improve in {callback.patience} validations"
    return ""
