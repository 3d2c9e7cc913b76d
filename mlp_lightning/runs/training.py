"""One training of K members, from their configurations to their results: the way of every run, alone or in a sweep."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given, open_source
from mlp_lightning.data.training import TrainingDataModule
from mlp_lightning.engines.choice import EngineChoice, Work, choose_engine
from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.networks.tasks import make_task
from mlp_lightning.runs.build import build_data, run_length
from mlp_lightning.runs.console import print_error
from mlp_lightning.runs.engines import Sizing, autograd_model, engine_maker, sizing, stacked_model, task_of, work_of
from mlp_lightning.runs.history import MetricsHistory
from mlp_lightning.runs.member import Member, TrainingFacts
from mlp_lightning.runs.metric_files import MetricFiles
from mlp_lightning.runs.milestones import Milestones
from mlp_lightning.runs.own_parts import OwnParts, own_callbacks
from mlp_lightning.runs.packed.curves import KeptCurves
from mlp_lightning.runs.policies import Policies, Snapshot, stops_by_training_loss
from mlp_lightning.runs.pruning import Pruner, PruningOfMembers
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder
from mlp_lightning.runs.snapshots import snapshot_steps
from mlp_lightning.runs.stack_checkpoints import PENDING_KEY, SavedStack, restore_stack, save_stack, stack_content
from mlp_lightning.runs.step_count import set_epoch, set_steps
from mlp_lightning.runs.stop import STOP_SIGNALS, stop_signals
from mlp_lightning.runs.stores import Folders, RunStore
from mlp_lightning.runs.surroundings import frozen_heap
from mlp_lightning.runs.trainer import build_trainer
from mlp_lightning.runs.training_module import TrainingModule
from mlp_lightning.runs.writer import FolderWriter
from mlp_lightning.tables.fingerprint import differences
from mlp_lightning.tables.reading.memory import KeptSource
from mlp_lightning.tables.reading.sources import TableSource


class TrainingHost(Protocol):
    """Who asked for a training, and hears of it."""

    def begins(self, training: Training) -> Sequence[pl.Callback]:
        """The data are there and nothing is trained yet; returns callbacks of the Trainer."""
        ...

    def starts(self, training: Training) -> None:
        """The engine is there, before the first step."""

    def ended(self, number: int, result: TrainingResult, details: str) -> bool:
        """A run has ended and its folder is complete; returns whether the others continue.

        Args:
            number: which of the runs.
            result: of it.
            details: what its data say of the predictions, possibly empty.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Options:
    """How a training is made, beside the configurations of its runs.

    Attributes:
        data: for each run a data module that is set up, to train on instead of what its configuration names.
        source: of the rows of all runs, instead of what their configurations name.
        callbacks: further callbacks of the Trainer.
        objects: parts of the user's own that the caller has, by the key of their import paths.
        keeps_modules: whether the results have the trained modules.
        claims: whether the folders have to be claimed yet.
        has_card: whether each finished run leaves a ``model_card.md``.
        logs_live: whether ``train.log`` is written by the host.
        state_file: for the state of all members together; if it is there, the training continues from it.
        rows: fingerprint that the rows must have; ``None``: any.
        splits_by_labels: as for :class:`~mlp_lightning.data.reading.Given`.
        packed: folder of the packed runs of the sweep, for a stack whose members are kept there; ``None``: every run
            has its folder.
        pruner: ends members of a search early.
    """

    data: Sequence[TabularDataModule] | None = None
    source: TableSource | None = None
    callbacks: Sequence[pl.Callback] = ()
    objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keeps_modules: bool = False
    claims: bool = True
    has_card: bool = False
    logs_live: bool = False
    state_file: Path | None = None
    rows: Mapping[str, Any] | None = None
    splits_by_labels: bool = True
    packed: Path | None = None
    pruner: Pruner | None = None


class Training:
    """One training.

    Args:
        configs: of its runs.
        run_dirs: folder of each.
        host: who asked for it.
        options: how it is made.
    """

    def __init__(
        self, configs: Sequence[Config], run_dirs: Sequence[Path], host: TrainingHost, options: Options
    ) -> None:
        self.configs = list(configs)
        self.options = options
        #: For each member, which of the runs it is; ``None`` for one that had ended before.
        self.runs: list[int | None] = list(range(len(self.configs)))
        self.results: dict[int, TrainingResult] = {}
        self.history = MetricsHistory()
        self._run_dirs = [Path(one).absolute() for one in run_dirs]
        self._host = host
        self._saved: SavedStack | None = None
        self._first_step, self._has_best = 0, False
        self._save_failed = False
        self.members: list[Member] = []
        if options.state_file is not None and options.state_file.is_file():
            assert options.data is None, "rows that were handed over are not part of the state"
            self._saved = SavedStack.read(options.state_file)
            slots = self._saved.slots(configs)
            self.configs, self.runs = [one for one, _ in slots], [run for _, run in slots]
            self._run_dirs = [self._run_dirs[0 if run is None else run] for run in self.runs]
        #: Whether the engine and the files of the runs are there.
        self.has_begun = False
        #: Whether a stop was asked for when nothing was left to stop.
        self.stopped_late = False
        self.resumed_from = None if self._saved is None else str(self._saved.path)
        self.module: TrainingModule | None = None
        self.trainer: pl.Trainer | None = None

    def execute(self) -> list[TrainingResult]:
        """Train; returns the result of each run."""
        self._load_data()
        config = self.configs[0]
        self.last_step = run_length(config, self.members[0].data.steps_per_epoch)
        work = work_of(self.members, self.last_step, bool(self.options.callbacks))
        self.choice = self._choose_engine(work)
        chosen = sizing(self.choice, self.members, work)
        if self._saved is not None:
            self._saved.check_rows([one.data.fingerprint for one in self.members])
            chosen = self._saved.sizing
        with cpu_threads(chosen.threads):
            self._build(chosen)
            callbacks = [*own_callbacks(config), *self.options.callbacks, *self._host.begins(self)]
            self.trainer = build_trainer(config, self.members[0].folder.path, callbacks)
            self.writer.weights = self._reported_weights()
            self.writer.device = str(self.trainer.strategy.root_device)
            if self.options.claims:
                self._claim()
            try:
                self._fit(self.trainer)
            finally:
                self._remove_state()
        return [self.results[number] for number in range(len(self.results))]

    def request_stop(self) -> None:
        """End the training between two steps, its state saved."""
        assert self.module is not None
        self.module.stop_requested = True

    def resume_at(self, step: int, has_best: bool) -> None:
        """Let the Trainer count from ``step`` on; before it asks for the first steps."""
        self._first_step, self._has_best = step, has_best

    # ---- before the first step ---------------------------------------------------------------------------

    def _load_data(self) -> None:
        if self.options.data is None:
            self._distinct, self._of_member = _data_modules(self.configs, self.options)
        else:
            self._distinct, self._of_member = _without_repetition(self.options.data)
        for one in self._distinct if self.options.rows is not None else ():
            assert self.options.rows is not None
            if changes := differences(self.options.rows, one.fingerprint):
                raise DataError(f"{one.table_name} has other rows now than before: {changes}. Bring it back as it was.")
        self.members = [
            Member(config, RunFolder(folder), self._distinct[number], OwnParts.of(config, self.options.objects))
            for config, folder, number in zip(self.configs, self._run_dirs, self._of_member, strict=True)
        ]
        if self._saved is not None:
            self.resume_at(self._saved.step, self._saved.has_best)

    def _choose_engine(self, work: Work) -> EngineChoice:
        config, data = self.configs[0], self.members[0].data
        if self._saved is not None:  # a stack stays one, even if one run of it is left
            return EngineChoice(self._saved.sizing.engine, "it continues")
        refusal = "a learned embedding of categories is not in the compiled kernel" if data.cardinalities else ""
        has_other = torch.cuda.is_available() or torch.backends.mps.is_available()
        is_on_cpu = config.trainer.accelerator == "cpu" or not has_other
        return choose_engine(config, len(self.configs), work, refusal, is_on_cpu)

    def _build(self, chosen: Sizing) -> None:
        config, members = self.configs[0], self.members
        is_stack = self.choice.is_stack
        data = TrainingDataModule(self._distinct, self._of_member, self.last_step, chosen.steps_per_execution)
        model = stacked_model(members) if is_stack else autograd_model(members[0])
        task = task_of(members) if is_stack else make_task(data.distinct[0].task, data.distinct[0].out_features)
        keeps_state = self.options.state_file is not None
        facts = TrainingFacts(
            members,
            self.choice.name,
            task.metric_name,
            self.last_step,
            [number for number, run in enumerate(self.runs) if run is None],
            self.resumed_from,
            self.options.keeps_modules,
            self.options.has_card,
            self.options.logs_live,
        )
        self.facts = facts
        packed = self.options.packed
        make_files = MetricFiles if packed is None else KeptCurves
        self.files = make_files(
            members,
            self.history,
            task.metric_name,
            facts.started_at.timestamp(),
            lambda number: self.policies.engine.network(self.policies.present.index(number)),
            not self.options.logs_live or keeps_state,
            facts.left_out,
        )
        prepare_save = (lambda *now: self._prepared_save(chosen, *now)) if keeps_state else None
        self._store: RunStore = Folders(members, self.files)
        if packed is not None:
            from mlp_lightning.runs.packed.parts import PackedRuns  # Parquet takes a while to import

            assert isinstance(self.files, KeptCurves)
            self._store = PackedRuns(members, self.files, packed, self._stack_name(), task.metric_name)
        self.writer = FolderWriter(facts, self.history, self.files, self._store, prepare_save, self._ended)
        checkpoint = config.callbacks.checkpoint
        validates = "val" in data.splits
        monitor = "auto" if checkpoint is None else checkpoint.monitor
        if monitor == "auto":
            monitor = "loss/val" if validates else "loss/train"
        interval = config.trainer.check_val_every_n_epoch * data.steps_per_epoch
        milestones = Milestones(
            self.last_step,
            data.steps_per_epoch,
            interval if validates else None,
            None if checkpoint is None else checkpoint.every_n_steps,
            stops_by_training_loss(config),
            snapshot_steps(members, self.last_step),
        )
        pruning = None if self.options.pruner is None else PruningOfMembers(self.options.pruner, members, milestones)
        self.policies = Policies(config, monitor, milestones, self.writer, len(members), pruning)
        self.data, self._task = data, task
        make_engine = engine_maker(self.choice.name, members, task, data)
        self.module = TrainingModule(model, make_engine, self.policies, self.history, self.files, self._starts)

    def _reported_weights(self) -> str:
        """``last`` or ``best``; refuses to report the weights of a best that cannot come."""
        config, interval = self.configs[0], self.policies.milestones.validation_interval
        wanted, comes = config.report_weights, True
        if interval is not None and not self._has_best and self.policies.monitor != "loss/train":
            comes = (self._first_step // interval + 1) * interval <= self.last_step
        if wanted == "auto":
            is_kept = config.callbacks.checkpoint is not None and self.policies.monitor.endswith("/val")
            return "best" if is_kept and comes else "last"
        if wanted == "last" or comes:
            return wanted
        assert interval is not None
        rule = f"needs a validation at the end of an epoch, and the run ends before one, after {self.last_step} steps"
        enough = (self._first_step // interval + 1) * interval
        hint = f"set trainer.max_steps={enough} or more, lower trainer.check_val_every_n_epoch, or use last"
        raise ConfigError([Fault("report_weights", "best", rule, hint)])

    def _claim(self) -> None:
        """Make the folders those of these runs: all of them, or none if one of them is another run's."""
        self._store.claim([member for member, run in zip(self.members, self.runs, strict=True) if run is not None])

    def _starts(self, module: TrainingModule) -> None:
        if self._saved is not None:
            restore_stack(self.policies, self.history, self._saved)
            self._saved = None  # as large as the stack
        self._host.starts(self)
        self.has_begun = True
        self.writer.fit_begins()

    # ---- the training ------------------------------------------------------------------------------------

    def _fit(self, trainer: pl.Trainer) -> None:
        module = self.module
        assert module is not None
        # Before the Trainer asks the data module for the first steps. It does nothing where all are made.
        first = min(self._first_step, self.last_step - 1)
        set_steps(trainer, first)
        set_epoch(trainer, first // self.data.steps_per_epoch)
        with frozen_heap(), stop_signals(self.request_stop) as received, self.writer.rescue.after(STOP_SIGNALS):
            try:
                trainer.fit(module, datamodule=self.data, weights_only=True)
            except SIGTERMException:
                module.end_if_due()  # if it came between our last look and Lightning's
        if len(self.results) < sum(run is not None for run in self.runs):
            raise KeyboardInterrupt
        stopped = any(one.status == "interrupted" for one in self.results.values())
        self.stopped_late = bool(received) and not stopped

    def _ended(self, number: int, result: TrainingResult, details: str) -> None:
        run = self.runs[number]
        assert run is not None
        self.results[run] = result
        if not self._host.ended(run, result, details):
            self.request_stop()

    def _stack_name(self) -> str:
        """What no other stack of the sweep is called that trains at the same time."""
        text = "\n".join(str(one.folder.path) for one in self.members)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    # ---- the state of all members together ---------------------------------------------------------------

    def _prepared_save(
        self, chosen: Sizing, policies: Policies, snapshot: Snapshot, pending: bool | None
    ) -> Callable[[], None]:
        """What saves the state of a snapshot; with ``pending`` a copy of it, whatever happens to the stack then."""
        content = stack_content(policies, self.history, self.members, chosen, snapshot)
        if pending is not None:
            content = functools.partial(dict, copy.deepcopy({**content(), PENDING_KEY: pending}))

        def save() -> None:
            assert self.options.state_file is not None
            try:
                save_stack(self.options.state_file, content())
            except OSError as error:
                # The runs are worth more than what would spare them a new start.
                if not self._save_failed:
                    print_error(f"The state of a stack cannot be saved ({error}); if it is killed, it starts again.")
                self._save_failed = True

        return save

    def _remove_state(self) -> None:
        """Nothing is left to continue once all runs have ended."""
        ended = sum(one.status != "interrupted" for one in self.results.values())
        if self.options.state_file is not None and ended == sum(run is not None for run in self.runs):
            self.options.state_file.unlink(missing_ok=True)


def _data_modules(configs: Sequence[Config], options: Options) -> tuple[list[TabularDataModule], list[int]]:
    """A data module for every seed, split and fold, and which one each run has."""
    keys, source = [(one.seed, *_key_of_split(one)) for one in configs], options.source
    if len({key[1:] for key in keys}) > 1 and source is None:
        source = KeptSource(open_source(configs[0].data, configs[0].allow_targets))
    given = Given(source, splits_by_labels=options.splits_by_labels)
    split: dict[tuple[Any, ...], TabularDataModule] = {}
    modules: dict[tuple[Any, ...], TabularDataModule] = {}
    for config, key in zip(configs, keys, strict=True):
        if key not in modules:
            rows = split.get(key[1:]) or split.setdefault(key[1:], build_data(config, given))
            modules[key] = rows if rows.seed == config.seed else rows.with_seed(config.seed)
    numbers = {key: number for number, key in enumerate(modules)}
    return list(modules.values()), [numbers[key] for key in keys]


def _key_of_split(config: Config) -> tuple[Any, ...]:
    """What decides which rows train; the same for runs that differ in their order alone."""
    data = config.data
    return data.cv, config.seed if data.split_follows_seed else data.split_seed


def _without_repetition(data: Sequence[TabularDataModule]) -> tuple[list[TabularDataModule], list[int]]:
    """The data modules that differ, and which one each run has."""
    distinct: list[TabularDataModule] = []
    for one in data:
        if not any(one is other for other in distinct):
            distinct.append(one)
    return distinct, [next(number for number, other in enumerate(distinct) if other is one) for one in data]
