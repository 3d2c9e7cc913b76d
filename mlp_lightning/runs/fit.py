"""The doors to training: a configuration and a folder in, a trained model and its record out; or several of both."""

from __future__ import annotations

import dataclasses
import datetime
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from mlp_lightning.config import Config, OwnDataConfig, parse_config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import own_source
from mlp_lightning.engines.stacked.stack import Stack
from mlp_lightning.engines.support import stacked_refuses
from mlp_lightning.errors import REFUSALS, ConfigError, Fault
from mlp_lightning.runs.console import RunConsole, log, print_error
from mlp_lightning.runs.engines import load_weights
from mlp_lightning.runs.own_parts import refuse_validation_hooks, without_objects
from mlp_lightning.runs.progress import ProgressDisplay
from mlp_lightning.runs.pruning import Pruner
from mlp_lightning.runs.report import announcement, how_to_continue, report
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.resume import Found, Resumed, find_checkpoint, resume
from mlp_lightning.runs.run_folder import RunFolder, as_it_was, claim, surroundings
from mlp_lightning.runs.stack_progress import StackHost, StackProgress
from mlp_lightning.runs.surroundings import isolated_randomness, quiet_libraries
from mlp_lightning.runs.trainer import refuse_missing_device
from mlp_lightning.runs.training import Options, Training
from mlp_lightning.tables.reading.frames import arrow_table
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.sources import TableSource


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
    frame: Any = None,
    rows: Mapping[str, Any] | None = None,
    keeps_folder: bool = True,
    pruner: Pruner | None = None,
    has_card: bool = True,
) -> TrainingResult:
    """Train one model and leave its record in ``run_dir``; your random numbers, threads and handlers stay as before.

    Args:
        config: what to train, as dataclasses or as nested dicts that :func:`parse_config` takes. In these an import
            path may be the class itself, or what else makes the part; it needs no ``allow_targets``.
        run_dir: folder of the run; created if it is not there, claimed exclusively.
        console: where to print; standard output if ``None``. ``config.verbosity`` 0 prints nothing.
        data: a data module that is set up, to train on instead of what ``config.data`` names.
        start: what to begin with instead of new weights.
        frame: a data frame of pandas, polars or pyarrow, instead of a file; ``data.target`` names what to predict.
        callbacks: further callbacks of the Trainer. Validations are made inside of ``training_step``: find them in
            ``outputs["outputs"]`` of ``on_train_batch_end``, an
            :class:`~mlp_lightning.runs.training_module.Outputs`. Hooks of Lightning's validation loop are refused.
        rows: fingerprint that the rows must have (``fingerprint`` of a ``result.json``); ``None``: any.
        keeps_folder: whether the folder stays; if not, nothing that is printed points to it.
        pruner: as for :class:`~mlp_lightning.runs.training.Options`.
        has_card: likewise.

    Returns:
        The result, with the trained module. An interrupted run returns too, with ``status`` saying so.

    Raises:
        ConfigError, CheckpointError, DataError, DeviceError: the configuration is wrong, or the checkpoint, the table
            or the accelerator cannot be used; the folder is as it was before.
        RunFolderError: the folder belongs to another run.
        TrainingError: see :mod:`mlp_lightning.errors`; ``result.json`` then has the ``status`` ``failed``.
        ValueError: a callback has a hook that is never called, or both ``data`` and ``frame`` are given.

    Example:
        >>> import tempfile
        >>> config = {"trainer": {"max_steps": 100}, "optimizer": {"name": "Adam", "lr": 0.01}, "verbosity": 0}
        >>> result = train(config, tempfile.mkdtemp() + "/run")
        >>> result.status, result.steps
        ('finished', 100)
    """
    if data is not None and frame is not None:
        raise ValueError("train() takes data or frame, not both: each has the rows.")
    config, objects, source = parsed_with_rows(config, frame, has_rows=data is not None)
    refuse_validation_hooks(callbacks)
    checkpoint, folder = find_checkpoint(config, Path(run_dir)), RunFolder(Path(run_dir).absolute())
    run = _SingleRun(config, folder, RunConsole(config.verbosity, console), start, checkpoint, keeps_folder)
    kept: Any = {"keeps_modules": True, "claims": False, "logs_live": True, "has_card": has_card and keeps_folder}
    options = Options(None if data is None else [data], source, callbacks, objects, rows=rows, pruner=pruner, **kept)
    with as_it_was(folder.path, if_refused=run.was_refused):
        claim(folder.path, config)
        with run.console.logging_to(folder.log), isolated_randomness(config), quiet_libraries():
            return run.execute(options)


def train_stack(
    configs: Sequence[Config],
    run_dirs: Sequence[Path],
    progress: StackProgress | None = None,
    data: Sequence[TabularDataModule] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    keep_modules: bool = False,
    checkpoint: Path | None = None,
    source: TableSource | None = None,
    rows: Mapping[str, Any] | None = None,
    packed: Path | None = None,
    pruner: Pruner | None = None,
) -> list[TrainingResult]:
    """Train several runs together and leave the record of each in its folder.

    Every run folder is what :func:`train` would have left, to rounding. A run whose loss is no longer a number, or that
    cannot learn, is recorded as failed and does not harm the others; its error is not raised.

    Args:
        configs: of the runs; they may differ in what :mod:`mlp_lightning.sweeps.grouping` says.
        run_dirs: folder of each run; created if it is not there, claimed exclusively.
        progress: hears of steps made and of runs that have ended.
        data: for each run a data module that is set up, to train on instead of what its configuration names. They may
            differ, but pose one task with equally many features, steps per epoch and splits.
        callbacks: as for :func:`train`.
        keep_modules: whether the results have the trained modules.
        checkpoint: file for the state of the stack, saved while it trains when ``callbacks.checkpoint`` says so. If it
            is there already, the stack continues from it to the same bits, with the configurations of those that still
            trained. It is removed when all runs have ended. ``None``: a stack that is killed is lost.
        source: of the rows of all runs, instead of what their configurations name.
        rows: fingerprint that the rows must have; ``None``: any.
        packed: folder for the records of all runs in a few files; ``None``: every run has its folder.
        pruner: of a search, which may end members early.

    Returns:
        The result of each run; without its module, unless they are kept: load it from its checkpoint.

    Raises:
        ValueError: the stacked engine was not taught what a run asks for, or a callback has a hook that is never
            called.
        CheckpointError: ``checkpoint`` is damaged, or belongs to other runs.
        RunFolderError: a folder belongs to another run.
        ConfigError, DataError, DeviceError: no run can be started; none has then been claimed.
    """
    refuse_validation_hooks(callbacks)
    for config, folder in zip(configs, run_dirs, strict=True):
        _refuse_sweep(config)
        is_other = (wanted := config.trainer.engine) in ("autograd", "explicit")
        if refusal := f"trainer.engine = {wanted}" if is_other else stacked_refuses(config):
            raise ValueError(f"The run in {folder} cannot be a member of a stack: {refusal}. Train it with train().")
    options = Options(data, source, callbacks, {}, keep_modules, state_file=checkpoint)
    options = dataclasses.replace(options, rows=rows, packed=packed, pruner=pruner)
    training = Training(configs, run_dirs, StackHost(progress), options)
    console = RunConsole(configs[0].verbosity)
    with console.logging_to(None), isolated_randomness(configs[0]), quiet_libraries():
        results = training.execute()
    if training.stopped_late:
        # It came while the last folders were written: nothing is left to stop here, but perhaps elsewhere.
        raise KeyboardInterrupt
    return results


def parsed_with_rows(
    config: Config | Mapping[str, Any], frame: Any, has_rows: bool = False
) -> tuple[Config, Mapping[str, Any], TableSource | None]:
    """The configuration, the parts of the user's own that it has as objects, and the rows of ``frame``.

    Args:
        config: as for :func:`train`.
        frame: likewise.
        has_rows: whether the rows are known, so that a function that returns some has no effect.

    Raises:
        ConfigError: the configuration is wrong, or contradicts what has the rows.
        DataError, DeviceError: ``frame`` cannot be read, or there is no such accelerator.
    """
    is_frame = frame is not None and not isinstance(frame, TableSource)
    given, objects = without_objects(_of_frame(config) if is_frame else config)
    parsed = given if isinstance(given, Config) else parse_config(given, objects.keys())
    refuse_missing_device(parsed)
    if parsed.auto_resume:
        rule, hint = "belongs to the command, which looks for earlier runs", "here ckpt_path names what to continue"
        raise ConfigError([Fault("auto_resume", True, rule, hint)])
    _refuse_sweep(parsed)
    if has_rows and "data._target_" in objects:
        rule = "contradicts data, which has the rows"
        raise ConfigError([Fault("data._target_", parsed.data.title, rule, "leave one of them out")])
    if frame is None and isinstance(parsed.data, OwnDataConfig) and "data._target_" in objects:
        return parsed, objects, own_source(parsed.data, objects["data._target_"])
    if not is_frame:
        return parsed, objects, frame
    # Columns that are left out may hold what cannot be read.
    ignored = [name for name, one in parsed.data.columns.items() if one.kind == "ignored"]
    return parsed, objects, MemorySource(arrow_table(frame, "frame", ignored), "frame")


def _refuse_sweep(config: Config) -> None:
    """Refuse what says how the runs of a sweep belong together; ``sweep.keys`` names a single run, too."""
    given = {key: getattr(config.sweep, key) for key in ("name", "resume", "fail_fast", "store")}
    if config.search.name != "none":
        rule = "has no effect: it is for a sweep of the command (--multirun), not one run"
        raise ConfigError([Fault("search.name", config.search.name, rule, "leave it out")])
    rule, unset = "has no effect: it is for a sweep of the command (--multirun), not one run", (None, False, "auto")
    if faults := [Fault(f"sweep.{key}", one, rule, "leave it out") for key, one in given.items() if one not in unset]:
        raise ConfigError(faults)


def _of_frame(config: Config | Mapping[str, Any]) -> Config | Mapping[str, Any]:
    """The configuration with ``data.name`` frame."""
    section: Any = vars(config.data) if isinstance(config, Config) else config.get("data", {})
    section = {"option": section} if isinstance(section, str) else section
    if not isinstance(section, Mapping):
        return config  # the schema refuses it
    fitting_values = {"name": ("table", "frame"), "option": ("table",), "path": (None,), "_target_": (None,)}
    for key, fitting in fitting_values.items():
        if (value := section.get(key, fitting[0])) not in fitting:
            raise ConfigError([Fault(f"data.{key}", value, "contradicts frame, which has the rows", "leave it out")])
    if isinstance(config, Config):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, name="frame"))
    return {**config, "data": {**section, "name": "frame"}}


class _SingleRun:
    """One run with a console, from its claimed folder to its result."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        console: RunConsole,
        start: TrainingStart | None,
        checkpoint: Found | None,
        keeps_folder: bool = True,
    ) -> None:
        self._keeps_folder = keeps_folder
        self.config = config
        self.folder = folder
        self.console = console
        self._start = start
        self._checkpoint = checkpoint
        self._checkpoint_path = None if checkpoint is None else checkpoint.path
        self._resumed: Resumed | None = None
        self._has_begun = False
        self._started_at, self._started = datetime.datetime.now(datetime.timezone.utc), time.monotonic()

    def was_refused(self, error: BaseException) -> bool:
        """Whether an error says that this run cannot begin."""
        return isinstance(error, REFUSALS) and not self._has_begun

    def execute(self, options: Options) -> TrainingResult:
        """Train and record how it ended, whatever happens."""
        training: Training | None = None
        try:
            by_labels = self._checkpoint is None or self._checkpoint.splits_by_labels
            alone = {"keeps_modules": True, "claims": False, "logs_live": True}
            options = dataclasses.replace(options, splits_by_labels=by_labels, **alone)
            training = Training([self.config], [self.folder.path], self, options)
            training.resumed_from = None if self._checkpoint_path is None else str(self._checkpoint_path)
            (result,) = training.execute()
        except BaseException as error:
            if self.was_refused(error):
                raise
            log.error("%s", traceback.format_exc())
            try:
                self._record_failure(training, error)
            except OSError as second:  # a full disk takes no record either; the first error says what went wrong
                log.error("The failure cannot be recorded: %s", second)
            raise
        if result.exception is None:
            return result
        try:
            raise result.exception
        finally:
            log.error("%s", traceback.format_exc())

    def begins(self, training: Training) -> Sequence[pl.Callback]:
        config, (member,), module = self.config, training.members, training.module
        assert module is not None
        if self._start is not None:
            load_weights(module.model.to(member.data.dtype), self._start.weights)
        if self._checkpoint is not None:
            if self._checkpoint.fault:
                print_error(self._checkpoint.fault)
            self._resumed, self._checkpoint = resume(self._checkpoint, config, training), None
            if self._resumed.lost:
                print_error(self._resumed.lost)
            for line in self._resumed.lines(config):
                self.console.line(line)
        model = module.model
        of_network = model.parts(model.flat_N, 0) if isinstance(model, Stack) else model.parameters()
        parameters = sum(one.numel() for one in of_network)
        threads = torch.get_num_threads()  # those of this training: see Training.execute
        for line in [
            *member.data.describe(),
            announcement(config, member.data, parameters, training.last_step),
            f"Engine: {training.choice.name} ({training.choice.reason}), {threads} CPU thread{'s' * (threads > 1)}",
        ]:
            self.console.line(line)
        return [ProgressDisplay(self.console, training.last_step, config.trainer.print_every_n_steps)]

    def starts(self, training: Training) -> None:
        if self._start is not None and self._start.optimizer is not None:
            training.policies.engine.continue_optimizer(self._start.optimizer)
        if self._resumed is None:
            training.files.begin(0)
        else:
            self._resumed.begin(training)
            self._resumed = None  # as large as the run
        self._has_begun = True

    def ended(self, number: int, result: TrainingResult, details: str) -> bool:
        if result.status == "interrupted":
            self.console.line(how_to_continue(self.config, self.folder))
        if result.status != "failed":
            report(result, self.console, details, self._keeps_folder, self.config.logger.tensorboard)
        return True

    def _record_failure(self, training: Training | None, error: BaseException) -> None:
        if self.folder.result.is_file():
            return
        # A second Ctrl-C does not wait for a step to end; Lightning turns it into SystemExit.
        status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
        steps, epochs, engine, device, best, fit_time_s = 0, 0, "", "", None, 0.0
        if training is not None and training.trainer is not None:
            steps, engine, device = training.policies.step, training.choice.name, training.writer.device
            epochs, best = steps // training.data.steps_per_epoch, training.writer.best_of(training.policies, 0)
            fit_time_s = training.writer.fit_time_s
            if training.has_begun:
                training.files.finish([0], [status], [{}], [steps])
        fingerprint = training.members[0].data.fingerprint if training is not None and training.members else None
        result = TrainingResult(
            status=status,
            run_dir=self.folder.path,
            metrics={},
            weights="last" if training is None or training.trainer is None else training.writer.weights,
            steps=steps,
            epochs=epochs,
            wall_time_s=time.monotonic() - self._started,
            fit_time_s=fit_time_s,
            device=device,
            best=best,
            resumed_from=None if self._checkpoint_path is None else str(self._checkpoint_path),
            engine=engine,
            error=f"{type(error).__name__}: {error}",
        )
        self.folder.write_result({**result.to_json(), **surroundings(self.config, self._started_at, fingerprint)})
