"""One sweep, from the jobs that a launcher passes to the leaderboard at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.config import Config, DataConfig, SweepConfig, parse_complete
from mlp_lightning.config.overrides import explicit_keys
from mlp_lightning.config.parsing import KnownSections
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs.console import RunConsole, print_error, short_path
from mlp_lightning.runs.files import remove_abandoned
from mlp_lightning.runs.libraries import import_libraries
from mlp_lightning.runs.packed.reading import remove_incomplete
from mlp_lightning.runs.run_folder import RunFolder, claim, config_hash, record_refusal, surroundings
from mlp_lightning.sweeps.announcement import announce, count_of
from mlp_lightning.sweeps.composition import ComposedJob, write_hydra_folder
from mlp_lightning.sweeps.folds import of_fold, with_keys, with_shared_split
from mlp_lightning.sweeps.grouping import group_runs
from mlp_lightning.sweeps.leaderboard.command import write_leaderboard
from mlp_lightning.sweeps.leaderboard.keys import flat_config, value_text
from mlp_lightning.sweeps.ledger import Ledger, sweep_lock
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.sweeps.packing import claim_packed, packed_folder
from mlp_lightning.sweeps.parts import (
    Part,
    Runs,
    SweepRun,
    config_of,
    loss_of,
    record_of,
    result_of_folds,
)
from mlp_lightning.sweeps.progress import SweepProgress
from mlp_lightning.sweeps.records import RunRecord, cause, read_records
from mlp_lightning.sweeps.rows import RowsOfSweep
from mlp_lightning.sweeps.search.pruning import TrialPruner
from mlp_lightning.sweeps.sizes import SizesOf
from mlp_lightning.sweeps.worker import Outcome, PartTask, train_part

# One stack uses at most this share of the free memory: other stacks and programs may run at the same time.
_SHARE_OF_MEMORY = 0.25


class Sweep:
    """The runs of one command. A sweeper that searches passes them in several batches.

    Args:
        folder: of the sweep.
        options: section ``sweep`` of the configuration.
        program: the training program, for the command that repeats the best run.
        verbosity: 0: errors only.
        swept: the keys that have several values in the command.

    Attributes:
        pruner: of a search, which may end runs early.
        batch: the jobs of the latest batch.
    """

    def __init__(
        self, folder: Path, options: SweepConfig, program: str, verbosity: int, swept: Collection[str] = ()
    ) -> None:
        self.folder = folder.absolute()
        self.options = options
        self.program = program
        self.console = RunConsole(verbosity)
        self.interrupted = False
        self.pruner: TrialPruner | None = None
        self.batch: list[Runs] = []
        self.swept = swept
        self.shares_split = "seed" in swept
        self._keys: list[str] = []
        # Equal sections of the runs are the same objects.
        self._known_sections: KnownSections = {}
        self._shared_data: dict[int, tuple[DataConfig, DataConfig]] = {}
        self._with_keys: dict[tuple[str, ...], SweepConfig] = {}
        self._started_at = datetime.datetime.now(datetime.timezone.utc)
        self._runs: list[SweepRun] = []
        self._done: list[RunRecord] = []
        self._cross_validated: dict[Path, Config] = {}  # by the folder of a job that trains all folds
        self._others: list[RunRecord] = []
        self._is_vectorized = False
        self._ledger: Ledger | None = None
        self._closing = contextlib.ExitStack()
        self._sizes = SizesOf()
        self._rows = RowsOfSweep(self._sizes, self.folder)
        self._seen: set[Path] = set()  # saved states of stacks that were already read
        self._packed: Path | None = None  # where the runs of stacks are packed; None: they have folders

    @property
    def failed(self) -> bool:
        """Whether a run of this sweep failed."""
        failed = any(one.outcome is not None and one.outcome.status == "failed" for one in self._runs)
        return failed or any(one.status == "failed" for one in self._others if not self._is_vectorized)

    @property
    def ends_here(self) -> bool:
        """Whether no further run is started."""
        return self.interrupted or (self.options.fail_fast and self.failed)

    def run_jobs(self, jobs: Sequence[ComposedJob], n_jobs: int = 1, backend: str = "loky") -> list[float]:
        """Train the runs of a batch.

        Args:
            jobs: as composed.
            n_jobs: processes to spread them over; -1: one for every core.
            backend: name of the joblib backend that starts processes.

        Returns:
            For each job its loss as in :func:`~mlp_lightning.sweeps.records.objective`, of several folds the mean.
        """
        self._is_vectorized = True
        if self._ledger is None:
            self._closing.enter_context(self.console.logging_to(self.folder / "sweep.log"))
            done = ("finished",) if self.pruner is None else ("finished", "pruned")
            self._ledger = Ledger(self.folder, self.options.resume, done)
            if self.options.resume:
                remove_abandoned(self.folder, with_waiting=True)
                remove_incomplete(self.folder)
        composed = [self._composed(job) for job in jobs]
        self._packed = packed_folder(self.options.store, self.folder, composed, self.console)
        self._find_keys([one for one in composed if isinstance(one, Config)])
        self.batch = batch = [self._assigned(job, config) for job, config in zip(jobs, composed, strict=True)]
        if self.pruner is not None:
            self.pruner.begin((run, record) for of_job in batch for run, record in of_job)
        runs = [one for of_job in batch for one in of_job]
        pending = [one for one, record in runs if record is None and one.outcome is None]
        if pending and not self.ends_here:
            self._train(pending, n_jobs, backend)
        elif runs and not pending and all(record is not None for _, record in runs):
            tables = [config_of(one) for one, _ in runs if config_of(one).data.name == "table"]
            if tables:
                import_libraries()
                self._rows.compare_records(tables, self._done)
            self._unfinished_stacks([])  # removes the states of stacks whose runs have all ended
            self.console.line(f"All {count_of(len(runs), 'run')} were done before. Folder: {short_path(self.folder)}")
        for of_job in batch:
            if of_job[0][0].fold is not None:
                self._record_folds(of_job)
        return [loss_of(of_job) for of_job in batch]

    def open(self) -> Sweep:
        """Keep other processes out of the folder.

        Raises:
            RunFolderError: if another process runs a sweep there.
        """
        self._closing.enter_context(sweep_lock(self.folder))
        return self

    def finish(self) -> None:
        """Write and show the leaderboard, if any run has ended."""
        try:
            if self._ledger is not None:
                self._others = self._ledger.others()
            elif not self._is_vectorized and self.folder.is_dir():
                self._others = read_records([self.folder])  # another launcher trained the runs
            any_ended = any(one.outcome is not None for one in self._runs)
            if not self._rows.are_refused and (any_ended or self._done or self._others):
                records = [*self._others, *self._done, *map(self._record, self._runs)]
                console = self.console.rich if self.console.verbosity > 0 else None
                write_leaderboard(records, self.folder, console, self.program)
        finally:
            with contextlib.suppress(OSError):
                self._stacks.rmdir()  # unless a stack is unfinished
            self._closing.close()

    # ---- before a run ------------------------------------------------------------------------------------

    def _composed(self, job: ComposedJob) -> Config | Exception:
        """The configuration of a job, or why it is refused."""
        try:
            if job.error is not None:
                raise job.error
            config = parse_complete(job.sections, explicit_keys(job.overrides), known=self._known_sections)
        except Exception as error:  # any error ends this job alone
            return error
        return with_shared_split(config, self._shared_data) if self.shares_split else config

    def _find_keys(self, configs: Sequence[Config]) -> None:
        """Those in which the runs differ; a search of single trials has at least those of the command."""
        known: dict[str, str] = {}  # every key, and which section it is in
        distinct: dict[str, dict[Any, dict[str, Any]]] = {}
        for config in configs:
            for name, one in config.sections().items():
                of_section = distinct.setdefault(name, {})
                key = id(one) if isinstance(one, dict) else repr(one)
                if key not in of_section:
                    of_section[key] = flat_config({name: one})
                    known |= dict.fromkeys((key for key in of_section[key] if key not in known), name)
        differing = [
            key
            for key, name in known.items()
            if key in self.swept or len({value_text(one.get(key)) for one in distinct[name].values()}) > 1
        ]
        self._keys = [key for key in known if key in {*self._keys, *differing} and not key.startswith("sweep.")]

    def _assigned(self, job: ComposedJob, config: Config | Exception) -> Runs:
        """The runs of a job with their folders, each with its record if an earlier sweep finished it."""
        assert self._ledger is not None
        if isinstance(config, Exception):
            error = config
            run = SweepRun(job, self._ledger.free(job.output_dir))
            write_hydra_folder(job, run.folder)
            record_refusal(run.folder, job.sections, f"{type(error).__name__}: {error}")
            run.outcome = Outcome("failed", {}, error=cause(f"{type(error).__name__}: {error}"))
            self._runs.append(run)
            self._report_failure(run)
            return [(run, None)]
        config = with_keys(config, self._keys, self._with_keys)
        if config.data.cv.trains_all:
            placements = self._ledger.place_folds(config, job.output_dir)
            self._cross_validated[placements[0].folder.parent] = config
            folds = [(of_fold(config, fold), fold, one) for fold, one in enumerate(placements)]
        else:
            folds = [(config, None, self._ledger.place(config, job.output_dir))]
        runs = []
        for own, fold, placement in folds:
            run = SweepRun(job, placement.folder, own, fold)
            if placement.done is None:
                self._runs.append(run)
            else:
                self._done.append(dataclasses.replace(placement.done, overrides=job.overrides))
            runs.append((run, placement.done))
        return runs

    # ---- the runs ----------------------------------------------------------------------------------------

    def _train(self, runs: Sequence[SweepRun], n_jobs: int, backend: str) -> None:
        """Group the runs and train them part by part."""
        import_libraries()
        sizes = self._sizes
        assert self._ledger is not None
        self._rows.compare_records(map(config_of, runs), [*self._done, *self._ledger.others()])
        if self.pruner is not None:
            self.pruner.refuse_if_idle(map(config_of, runs), sizes)
        processes = (os.cpu_count() or 1) if n_jobs == -1 else n_jobs
        memory = int(available_memory() * _SHARE_OF_MEMORY / processes)
        parts = self._unfinished_stacks(runs)
        continued = {id(run) for part in parts for run in part.runs}
        new = [run for run in runs if id(run) not in continued]
        grouping = group_runs([config_of(one) for one in new], sizes, memory, processes)
        announce(self.console, self.folder, runs, new, grouping, sizes, len(self._done))
        for indices in grouping.stacks:
            members = [new[index] for index in indices]
            parts.append(Part(members, self._stack_file(members), packed=self._packed))
        parts += [Part([new[index]]) for index, _ in grouping.alone]
        claim_packed(parts, self.folder)
        steps = sum(sizes.steps(config_of(one)) - part.steps_made for part in parts for one in part.runs)
        with SweepProgress(self.console, len(runs), steps) as progress:
            if processes == 1:
                for part in parts:
                    if self.ends_here:
                        break
                    self._begin(part)
                    configs, folders, checkpoint, rows, packed = self._task(part)
                    part_progress = _PartProgress(self, part, progress)
                    train_part(configs, folders, part_progress, checkpoint, None, rows, packed, self.pruner)
            else:
                self._spread(parts, processes, backend, progress)

    def _spread(self, parts: Sequence[Part], processes: int, backend: str, progress: SweepProgress) -> None:
        """Train the parts in other processes, through joblib."""
        from mlp_lightning.sweeps.processes import parts_in_processes

        for part in parts:
            self._begin(part)
        for number, outcomes in parts_in_processes([self._task(part) for part in parts], processes, backend):
            part_progress = _PartProgress(self, parts[number], progress)
            for index, outcome in enumerate(outcomes):
                part_progress.steps_made(outcome.steps, 1)
                part_progress.ended(index, outcome)
            if self.ends_here:
                break

    def _task(self, part: Part) -> PartTask:
        configs, folders = [config_of(one) for one in part.runs], [one.folder for one in part.runs]
        return configs, folders, part.checkpoint, self._rows.fingerprint(configs[0]), part.packed

    def _begin(self, part: Part) -> None:
        if part.packed is not None:
            return
        for folder, one in {one.job_folder: one for one in part.runs}.items():
            write_hydra_folder(one.job, folder)
            config = self._cross_validated.get(folder)
            if config is not None:
                RunFolder(folder).result.unlink(missing_ok=True)  # of an earlier attempt, whose folds have moved
                if not RunFolder(folder).config.is_file():
                    claim(folder, config)

    def _record_folds(self, runs: Runs) -> None:
        """``result.json`` of a job whose folds have ended."""
        folder = RunFolder(runs[0][0].job_folder)
        is_done = all(record is not None for _, record in runs) and folder.result.is_file()
        if folder.config.is_file() and not is_done:
            rows = self._rows.fingerprint(config_of(runs[0][0]))
            facts = surroundings(self._cross_validated[folder.path], self._started_at, rows)
            folder.write_result({**result_of_folds(runs), **facts})

    def _unfinished_stacks(self, runs: Sequence[SweepRun]) -> list[Part]:
        """The stacks that an earlier sweep left unfinished, if each of their runs is done or one of ``runs``."""
        files = sorted(set(self._stacks.glob("*.stack")) - self._seen) if self.options.resume else []
        self._seen.update(files)
        if not files:
            return []
        from mlp_lightning.runs.stack_checkpoints import SavedStack

        done = {config_hash(parse_complete(one.config, is_stored=True)) for one in self._done}
        remaining: dict[str, list[SweepRun]] = {}
        for run in runs:
            remaining.setdefault(config_hash(config_of(run)), []).append(run)
        parts = []
        for file in files:
            try:
                saved = SavedStack.read(file)
            except CheckpointError as error:
                print_error(f"{error} It is now {file.name}.unreadable, and its runs are trained from the start.")
                file.replace(file.with_name(f"{file.name}.unreadable"))
                continue
            if not all(one in done or remaining.get(one) for one in saved.hashes):
                self.console.line(f"Not continued, as some of its runs are not part of this sweep: {short_path(file)}")
                continue
            # A member that is done has ended after the stack was saved.
            members = [remaining[one].pop(0) for one in saved.hashes if remaining.get(one)]
            if not members:
                file.unlink()
                continue
            self._rows.compare_stack(file, saved, config_of(members[0]))
            self.console.line(f"Continuing a stack of {count_of(len(members), 'run')} from step {saved.step:,}")
            parts.append(Part(members, file, saved.step, self._packed))
        return parts

    @property
    def _stacks(self) -> Path:
        return self.folder / "stacks"

    def _stack_file(self, members: Sequence[SweepRun]) -> Path:
        """The file for the state of a stack while it trains; its name is unique in this folder."""
        runs = "\n".join(f"{one.folder.name} {config_hash(config_of(one))}" for one in members)
        return self._stacks / f"{hashlib.sha256(runs.encode()).hexdigest()[:16]}.stack"

    def ended(self, run: SweepRun, outcome: Outcome) -> bool:
        """Record the outcome of a run. Returns whether the other runs continue."""
        run.outcome = outcome
        if self.pruner is not None and outcome.status == "finished":
            self.pruner.finished.add(config_hash(config_of(run)))
        if outcome.status == "interrupted":
            self.interrupted = self.interrupted or not (self.options.fail_fast and self.failed)
        if outcome.status == "failed":
            if run.folder.is_dir():  # it was to be packed, and could not begin
                write_hydra_folder(run.job, run.folder)
            self._report_failure(run)
        return not self.ends_here

    def _record(self, run: SweepRun) -> RunRecord:
        record = record_of(run)
        if record.status != "finished":
            return record
        return dataclasses.replace(record, fingerprint=self._rows.fingerprint(config_of(run)))

    def _report_failure(self, run: SweepRun) -> None:
        assert run.outcome is not None
        print_error(f"{run.name} failed: {run.outcome.error}")


class _PartProgress:
    """Reports the progress of one part to its sweep."""

    def __init__(self, sweep: Sweep, part: Part, progress: SweepProgress) -> None:
        self._sweep = sweep
        self._runs = part.runs
        self._progress = progress

    def steps_made(self, steps: int, members: int) -> None:
        self._progress.steps_made(steps, members)

    def ended(self, index: int, outcome: Outcome) -> bool:
        self._progress.ended(outcome.status == "failed")
        return self._sweep.ended(self._runs[index], outcome)
