"""Training many runs as one stacked model: the same door as :func:`mlp_lightning.runs.fit`, for several."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.stacked import StackedDataModule
from mlp_lightning.engines.sizing import cpu_threads, stack_steps_per_execution, stack_threads
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.support import stacked_refuses
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.tasks import RegressionTask, Task, make_task
from mlp_lightning.runs.build import build_data, label_smoothing, layer_widths, run_length
from mlp_lightning.runs.checkpoints import StopRequested
from mlp_lightning.runs.console import RunConsole, print_error
from mlp_lightning.runs.member_files import Member, MemberFiles
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder, claim, refuse_taken
from mlp_lightning.runs.stack_checkpoints import SavedStack, digest_of_rows, restore_stack, save_stack
from mlp_lightning.runs.stack_keeper import StackKeeper
from mlp_lightning.runs.stacked_module import StackedModule
from mlp_lightning.runs.step_count import set_epoch, set_steps
from mlp_lightning.runs.stop import stop_signals
from mlp_lightning.runs.surroundings import isolated_randomness, quiet_libraries
from mlp_lightning.runs.trainer import build_trainer
from mlp_lightning.tables.randomness import derived_seed


class StackProgress(Protocol):
    """Who is told how a stack gets on."""

    def steps_made(self, steps: int, members: int) -> None:
        """``steps`` more optimizer steps were made by each of ``members`` members."""

    def run_ended(self, number: int, result: TrainingResult) -> bool:
        """The run with this place in the list has ended; its folder is complete.

        Returns:
            Whether the others shall go on.
        """
        ...


def train_stack(
    configs: Sequence[Config],
    run_dirs: Sequence[Path],
    progress: StackProgress | None = None,
    data: Sequence[TabularDataModule] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    keep_modules: bool = False,
    checkpoint: Path | None = None,
) -> list[TrainingResult]:
    """Train several runs as one stacked model and leave the record of each in its folder.

    Every run folder is what :func:`~mlp_lightning.runs.fit` would have left, to rounding. A run whose loss is
    no number any more, or that cannot learn, is recorded as failed and does not harm the others; it is not raised.

    Args:
        configs: of the runs; they may differ in what :mod:`mlp_lightning.sweeps.grouping` says.
        run_dirs: folder of each run; created if it is not there, claimed exclusively.
        progress: told of steps made and of runs that have ended.
        data: for each run a data module that is set up, to train on instead of what its configuration names. They may
            differ, but pose one task with equally many features, steps per epoch and splits.
        callbacks: further callbacks of the Trainer.
        keep_modules: whether the results have the trained modules.
        checkpoint: file for the state of the stack, saved while it trains when ``callbacks.checkpoint`` says so. If it
            is there already, the stack continues from it to the same bits; the configurations must be those of the
            members that still trained. It is removed when all runs have ended, and kept when they were interrupted.
            ``None``: a stack that is killed is lost.

    Returns:
        The result of each run; without its module, unless they are kept: load it from its checkpoint.

    Raises:
        ValueError: the stacked engine was not taught what a run asks for.
        CheckpointError: ``checkpoint`` is damaged, or belongs to other runs.
        RunFolderError: a folder belongs to another run.
        DataError, DeviceError: no run can be started; none has then been claimed.
    """
    for config, folder in zip(configs, run_dirs, strict=True):
        if refusal := stacked_refuses(config):
            raise ValueError(f"The run in {folder} cannot be a member of a stack: {refusal}. Train it with train().")
    run = _StackRun(configs, run_dirs, progress, data, callbacks, keep_modules, checkpoint)
    console = RunConsole(configs[0].verbosity)
    with console.logging_to(None), isolated_randomness(configs[0]), quiet_libraries():
        return run.execute()


class _StackRun:
    """One training of a stack, from its configurations to its results."""

    def __init__(
        self,
        configs: Sequence[Config],
        run_dirs: Sequence[Path],
        progress: StackProgress | None,
        data: Sequence[TabularDataModule] | None,
        callbacks: Sequence[pl.Callback] = (),
        keep_modules: bool = False,
        checkpoint: Path | None = None,
    ) -> None:
        self.configs = list(configs)
        #: For each slot of the stack, which of the runs it is; ``None`` for one that had ended before.
        self.runs: list[int | None] = list(range(len(self.configs)))
        self.data = data
        self.run_dirs = [Path(one).absolute() for one in run_dirs]
        self.checkpoint = checkpoint
        self.saved: SavedStack | None = None
        self.save_failed = False
        self.members: list[tuple[Config, str]] = []
        if checkpoint is not None and checkpoint.is_file():
            assert data is None, "rows that were handed over are not part of the state"
            self.saved = SavedStack.read(checkpoint)
            slots = self.saved.slots(configs)
            self.configs, self.runs = [one for one, _ in slots], [run for _, run in slots]
            self.run_dirs = [self.run_dirs[0 if run is None else run] for run in self.runs]
        self.progress = progress
        self.callbacks = callbacks
        self.keep_modules = keep_modules
        self.results: dict[int, TrainingResult] = {}
        self.module: StackedModule | None = None

    def execute(self) -> list[TrainingResult]:
        config = self.configs[0]
        distinct, of_member = _data_modules(self.configs) if self.data is None else _without_repetition(self.data)
        data = StackedDataModule(distinct, of_member)
        self.module = module = _build_module(self.configs, [distinct[number] for number in of_member])
        last_step = run_length(config, data.steps_per_epoch)
        widths = [max(one) for one in zip(*(layer_widths(one, distinct[0]) for one in self.configs), strict=True)]
        wanted = config.trainer.steps_per_execution
        rows = max(one.training_steps.rows_per_step for one in distinct)
        count = len(self.configs)
        steps = stack_steps_per_execution(count, widths, rows) if wanted == "auto" else int(wanted)
        data.steps_per_execution = steps
        wanted = config.trainer.threads
        threads = stack_threads(count, widths, rows) if wanted == "auto" else int(wanted)
        digests = [digest_of_rows(one) for one in distinct] if self.checkpoint is not None else [""] * len(distinct)
        self.members = [(one, digests[number]) for one, number in zip(self.configs, of_member, strict=True)]
        if self.saved is not None:
            self.saved.check_rows([digest for _, digest in self.members])
            fixed = self.saved.content["fixed"]
            threads, data.steps_per_execution = fixed["threads"], fixed["steps_per_execution"]
        fixed: dict[str, Any] = {"threads": threads, "steps_per_execution": data.steps_per_execution}
        with cpu_threads(threads):
            members = [
                Member(one, RunFolder(folder), distinct[number])
                for one, folder, number in zip(self.configs, self.run_dirs, of_member, strict=True)
            ]
            left_out = [slot for slot, run in enumerate(self.runs) if run is None]
            resumed = None if self.saved is None else str(self.saved.path)
            ended = (self._ended, self.keep_modules, left_out, resumed)
            writer = MemberFiles(members, module.task.metric_name, last_step, *ended)
            save = None if self.checkpoint is None else functools.partial(self._save, fixed=fixed)
            keeper = StackKeeper(config, _monitor(config, data), last_step, writer, self._restore, save)
            # Others see the members before the keeper leaves out those that have ended.
            callbacks = [*self.callbacks, keeper, _Progress(self.progress)]
            trainer = build_trainer(config, self.run_dirs[0], "val" in data.splits, callbacks)
            self._claim()
            try:
                self._fit(trainer, module, data)
            finally:
                self._remove_state()
        return [self.results[number] for number in range(len(self.results))]

    def _remove_state(self) -> None:
        """Nothing is left to continue once all runs have ended."""
        ended = sum(one.status != "interrupted" for one in self.results.values())
        if self.checkpoint is not None and ended == sum(run is not None for run in self.runs):
            self.checkpoint.unlink(missing_ok=True)

    def _claim(self) -> None:
        """Make the folders those of these runs: all of them, or none if one of them is another run's."""
        places = [place for place, run in enumerate(self.runs) if run is not None]
        for place in places:
            refuse_taken(RunFolder(self.run_dirs[place]))
        for place in places:
            claim(self.run_dirs[place], self.configs[place])

    def _restore(self, keeper: StackKeeper) -> None:
        if self.saved is None:
            return
        restore_stack(keeper, self.saved)
        self.saved = None  # as large as the stack

    def _save(self, keeper: StackKeeper, fixed: Mapping[str, Any]) -> None:
        assert self.checkpoint is not None
        try:
            save_stack(self.checkpoint, keeper, self.members, fixed)
        except OSError as error:
            # The runs are worth more than what would spare them a new start.
            if not self.save_failed:
                print_error(f"The state of a stack cannot be saved ({error}); if it is killed, it starts again.")
            self.save_failed = True

    def _fit(self, trainer: pl.Trainer, module: StackedModule, data: StackedDataModule) -> None:
        def request_stop() -> None:
            module.stop_requested = True

        if self.saved is not None:
            # Before the Trainer asks the data module for the first steps.
            set_steps(trainer, self.saved.step)
            set_epoch(trainer, self.saved.step // data.steps_per_epoch)
        with stop_signals(request_stop) as received, contextlib.suppress(StopRequested, SIGTERMException):
            trainer.fit(module, datamodule=data, weights_only=True)
        stopped = any(one.status == "interrupted" for one in self.results.values())
        expected = sum(run is not None for run in self.runs)
        if len(self.results) < expected or (received and not stopped):
            # It came while the last folders were written: nothing is left to stop here, but perhaps elsewhere.
            raise KeyboardInterrupt

    def _ended(self, number: int, result: TrainingResult) -> None:
        run = self.runs[number]
        assert run is not None
        self.results[run] = result
        if self.progress is not None and not self.progress.run_ended(run, result):
            assert self.module is not None
            self.module.stop_requested = True


class _Progress(pl.Callback):
    """Tells how many steps were made."""

    def __init__(self, progress: StackProgress | None) -> None:
        self._progress = progress

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: StackedModule, outputs: Any, *_: Any
    ) -> None:
        if self._progress is not None:
            self._progress.steps_made(outputs["trace"].steps, len(pl_module.present))


def _data_modules(configs: Sequence[Config]) -> tuple[list[TabularDataModule], list[int]]:
    """A data module for every seed and fold, and which one each run has."""
    first: dict[tuple[Any, ...], Config] = {}
    for one in configs:
        first.setdefault((one.seed, one.data.cv.fold), one)
    places = {key: place for place, key in enumerate(first)}
    return [build_data(one) for one in first.values()], [places[one.seed, one.data.cv.fold] for one in configs]


def _without_repetition(data: Sequence[TabularDataModule]) -> tuple[list[TabularDataModule], list[int]]:
    """The data modules that differ, and which one each run has."""
    distinct: list[TabularDataModule] = []
    for one in data:
        if not any(one is other for other in distinct):
            distinct.append(one)
    return distinct, [next(place for place, other in enumerate(distinct) if other is one) for one in data]


def _build_module(configs: Sequence[Config], data: Sequence[TabularDataModule]) -> StackedModule:
    """The stack with each member's own initial weights."""
    drawn: dict[tuple[Any, ...], MLP] = {}
    mlps = []
    assert not any(one.cardinalities for one in data), "embeddings of categories are not stacked"
    in_features, out_features = data[0].in_features, data[0].out_features
    with torch.random.fork_rng(devices=[]):
        for one in configs:
            model = one.model
            # Runs that differ in what does not touch the initial weights draw them once.
            key = (one.seed, tuple(model.layer_widths), model.init)
            if key not in drawn:
                torch.manual_seed(one.seed)
                widths, init = model.layer_widths, model.init
                drawn[key] = MLP(in_features, out_features, widths, model.activation, bias=model.bias, init=init)
            mlps.append(drawn[key])
    first = configs[0]
    return StackedModule(
        StackedMLP.stack(mlps, first.model.activation, [one.model.dropout for one in configs]),
        _task(data),
        [one.optimizer for one in configs],
        first.scheduler,
        [derived_seed(one.seed, "training") for one in configs],
        first.trainer.gradient_clip_val,
        first.trainer.gradient_clip_algorithm,
        [label_smoothing(one, its) for one, its in zip(configs, data, strict=True)],
    )


def _task(data: Sequence[TabularDataModule]) -> Task:
    """What all members learn; targets are standardised for each by its own training rows."""
    alone = [make_task(one.task, one.out_features, **one.target_statistics) for one in data]
    means = [one.mean for one in alone if isinstance(one, RegressionTask) and one.mean is not None]
    scales = [one.scale for one in alone if isinstance(one, RegressionTask) and one.scale is not None]
    if len(means) < len(data):
        return alone[0]
    return RegressionTask(torch.stack(means)[:, None], torch.stack(scales)[:, None])


def _monitor(config: Config, data: StackedDataModule) -> str:
    checkpoint = config.callbacks.checkpoint
    monitor = "auto" if checkpoint is None else checkpoint.monitor
    if monitor != "auto":
        return monitor
    return "loss/val" if "val" in data.splits else "loss/train"
