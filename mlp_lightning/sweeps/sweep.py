"""One sweep, from the jobs that a launcher passes to the leaderboard at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.config import Config, SweepConfig, parse_complete
from mlp_lightning.config.overrides import explicit_keys
from mlp_lightning.errors import CheckpointError, DataError, MLPLightningError
from mlp_lightning.runs.console import RunConsole, print_error, short_path
from mlp_lightning.runs.run_folder import config_hash, record_refusal
from mlp_lightning.sweeps.composition import ComposedJob, write_hydra_folder
from mlp_lightning.sweeps.grouping import Grouping, group_runs
from mlp_lightning.sweeps.leaderboard.command import write_leaderboard
from mlp_lightning.sweeps.ledger import Ledger, sweep_lock
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.sweeps.progress import SweepProgress
from mlp_lightning.sweeps.records import RunRecord, cause, read_records
from mlp_lightning.sweeps.sizes import SizesOf
from mlp_lightning.sweeps.worker import Outcome, PartTask, train_part

# One stack uses at most this share of the free memory: other stacks and programs may run at the same time.
_SHARE_OF_MEMORY = 0.25


@dataclasses.dataclass
class _Run:
    """A job with its outcome."""

    job: ComposedJob
    folder: Path
    config: Config | None = None
    outcome: Outcome | None = None

    @property
    def name(self) -> str:
        return f"Run {self.job.number} ({' '.join(self.job.overrides)})"


@dataclasses.dataclass(frozen=True)
class _Part:
    """Runs that train together: a stack, or one run.

    Attributes:
        runs: its runs.
        checkpoint: file for the state of a stack; if it exists, the stack continues from it.
        steps_made: steps that each run has made before.
    """

    runs: list[_Run]
    checkpoint: Path | None = None
    steps_made: int = 0


class Sweep:
    """The runs of one command. A sweeper that searches passes them in several batches.

    Args:
        folder: of the sweep.
        options: section ``sweep`` of the configuration.
        program: the training program, for the command that repeats the best run.
        verbosity: 0: errors only.
    """

    def __init__(self, folder: Path, options: SweepConfig, program: str, verbosity: int) -> None:
        self.folder = folder.absolute()
        self.options = options
        self.program = program
        self.console = RunConsole(verbosity)
        self.interrupted = False
        self._runs: list[_Run] = []
        self._done: list[RunRecord] = []
        self._others: list[RunRecord] = []
        self._is_vectorized = False
        self._ledger: Ledger | None = None
        self._closing = contextlib.ExitStack()
        self._sizes = SizesOf()
        self._is_refused = False
        self._seen: set[Path] = set()  # saved states of stacks that were already read

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
            For each job its validation loss (training loss without validation). A run that did not finish has an
            infinite loss, the worst value that searches accept (Optuna's stops at NaN).
        """
        self._is_vectorized = True
        if self._ledger is None:
            self._closing.enter_context(self.console.logging_to(self.folder / "sweep.log"))
            self._ledger = Ledger(self.folder, self.options.resume)
            for incomplete in self._stacks.glob(".*.tmp"):  # of a process that was killed while it saved
                incomplete.unlink()
        batch = [self._assigned(job) for job in jobs]
        losses = {id(one): _objective(record.metrics) for one, record in batch if record is not None}
        pending = [one for one, record in batch if record is None and one.outcome is None]
        if pending and not self.ends_here:
            self._train(pending, n_jobs, backend)
        elif batch and not pending and all(record is not None for _, record in batch):
            self._unfinished_stacks([])  # removes the states of stacks whose runs have all ended
            self.console.line(f"All {_count(len(batch), 'run')} were done before. Folder: {short_path(self.folder)}")
        for one, _ in batch:
            if one.outcome is not None:
                losses[id(one)] = _objective(one.outcome.metrics)
        return [losses.get(id(one), math.inf) for one, _ in batch]

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
            if not self._is_refused and (any_ended or self._done or self._others):
                records = [*self._others, *self._done, *map(self._record, self._runs)]
                console = self.console.rich if self.console.verbosity > 0 else None
                write_leaderboard(records, self.folder, console, self.program)
        finally:
            with contextlib.suppress(OSError):
                self._stacks.rmdir()  # unless a stack is unfinished
            self._closing.close()

    # ---- before a run ------------------------------------------------------------------------------------

    def _assigned(self, job: ComposedJob) -> tuple[_Run, RunRecord | None]:
        """The run of a job with its folder, and its record if an earlier sweep finished it."""
        assert self._ledger is not None
        try:
            if job.error is not None:
                raise job.error
            config = parse_complete(job.plain, explicit_keys(job.overrides))
        except Exception as error:
            run = _Run(job, self._ledger.free(job.output_dir))
            write_hydra_folder(job, run.folder)
            record_refusal(run.folder, job.plain, f"{type(error).__name__}: {error}")
            run.outcome = Outcome("failed", {}, error=cause(f"{type(error).__name__}: {error}"))
            self._runs.append(run)
            self._report_failure(run)
            return run, None
        placement = self._ledger.place(config, job.output_dir)
        run = _Run(job, placement.folder, config)
        if placement.done is None:
            self._runs.append(run)
        else:
            self._done.append(dataclasses.replace(placement.done, overrides=job.overrides))
        return run, placement.done

    # ---- the runs ----------------------------------------------------------------------------------------

    def _train(self, runs: Sequence[_Run], n_jobs: int, backend: str) -> None:
        """Group the runs and train them part by part."""
        sizes = self._sizes
        self._refuse_changed_rows(runs)
        processes = (os.cpu_count() or 1) if n_jobs == -1 else n_jobs
        memory = int(available_memory() * _SHARE_OF_MEMORY / processes)
        parts = self._unfinished_stacks(runs)
        continued = {id(run) for part in parts for run in part.runs}
        new = [run for run in runs if id(run) not in continued]
        grouping = group_runs([_config(one) for one in new], sizes, memory, processes)
        self._announce(runs, new, grouping)
        for indices in grouping.stacks:
            members = [new[index] for index in indices]
            parts.append(_Part(members, self._stack_file(members)))
        parts += [_Part([new[index]]) for index, _ in grouping.alone]
        steps = sum(sizes.steps(_config(one)) - part.steps_made for part in parts for one in part.runs)
        with SweepProgress(self.console, len(runs), steps) as progress:
            if processes == 1:
                for part in parts:
                    if self.ends_here:
                        break
                    self._begin(part)
                    configs, folders, checkpoint, rows = self._task(part)
                    train_part(configs, folders, _PartProgress(self, part, progress), checkpoint, rows=rows)
            else:
                self._spread(parts, processes, backend, progress)

    def _spread(self, parts: Sequence[_Part], processes: int, backend: str, progress: SweepProgress) -> None:
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

    def _task(self, part: _Part) -> PartTask:
        configs, folders = [_config(one) for one in part.runs], [one.folder for one in part.runs]
        return configs, folders, part.checkpoint, self._rows(part.runs[0])

    def _rows(self, run: _Run) -> Mapping[str, Any] | None:
        """The fingerprint of the rows of a run when the sweep began; ``None`` if they cannot be used."""
        try:
            return self._sizes.fingerprint(_config(run))
        except MLPLightningError:
            return None  # the run itself fails by it

    def _begin(self, part: _Part) -> None:
        for one in part.runs:
            write_hydra_folder(one.job, one.folder)

    def _unfinished_stacks(self, runs: Sequence[_Run]) -> list[_Part]:
        """The stacks that an earlier sweep left unfinished, if each of their runs is done or one of ``runs``."""
        files = sorted(set(self._stacks.glob("*.stack")) - self._seen) if self.options.resume else []
        self._seen.update(files)
        if not files:
            return []
        from mlp_lightning.runs.stack_checkpoints import SavedStack
        from mlp_lightning.tables.fingerprint import differences

        done = {config_hash(parse_complete(one.config, is_stored=True)) for one in self._done}
        remaining: dict[str, list[_Run]] = {}
        for run in runs:
            remaining.setdefault(config_hash(_config(run)), []).append(run)
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
            config, now = _config(members[0]), self._rows(members[0])
            changes = "" if now is None else differences(saved.rows_of(config_hash(config)), now)
            if changes:
                name = config.data.path or config.data.name
                raise self._refusal(f"{short_path(file)} trained on other rows than {name} has now: {changes}")
            self.console.line(f"Continuing a stack of {_count(len(members), 'run')} from step {saved.step:,}")
            parts.append(_Part(members, file, saved.step))
        return parts

    def _refuse_changed_rows(self, runs: Sequence[_Run]) -> None:
        """Refuse to train runs beside those of an earlier command that were trained on other rows of the same table.

        Raises:
            DataError: the table has changed since then.
        """
        from mlp_lightning.tables.fingerprint import differences

        assert self._ledger is not None
        tables = {_tables(_config(one)) for one in runs}
        changed: dict[str, list[str]] = {}
        for record in [*self._done, *self._ledger.others()]:
            config = parse_complete(record.config, is_stored=True)
            if record.status == "finished" and record.fingerprint is not None and _tables(config) in tables:
                changes = differences(record.fingerprint, self._sizes.fingerprint(config))
                if changes:
                    name = config.data.path or config.data.name
                    changed.setdefault(f"other rows than {name} has now: {changes}", []).append(record.folder.name)
        for rows, names in changed.items():
            which = f"Run {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            raise self._refusal(f"{which} of {short_path(self.folder)} trained on {rows}")

    def _refusal(self, reason: str) -> DataError:
        """The error of a sweep that does not continue, and so leaves the leaderboard as it is."""
        self._is_refused = True
        return DataError(
            f"{reason}. Runs on different rows cannot be compared. Bring the table back as it was, or start a new sweep"
            " (leave sweep.resume out, choose another sweep.name)."
        )

    @property
    def _stacks(self) -> Path:
        return self.folder / "stacks"

    def _stack_file(self, members: Sequence[_Run]) -> Path:
        """The file for the state of a stack while it trains; its name is unique in this folder."""
        runs = "\n".join(f"{one.folder.name} {config_hash(_config(one))}" for one in members)
        return self._stacks / f"{hashlib.sha256(runs.encode()).hexdigest()[:16]}.stack"

    def ended(self, run: _Run, outcome: Outcome) -> bool:
        """Record the outcome of a run. Returns whether the other runs continue."""
        run.outcome = outcome
        if outcome.status == "interrupted":
            self.interrupted = self.interrupted or not (self.options.fail_fast and self.failed)
        if outcome.status == "failed":
            self._report_failure(run)
        return not self.ends_here

    def _record(self, run: _Run) -> RunRecord:
        outcome = run.outcome
        name = run.folder.name
        return RunRecord(
            int(name) if name.isdigit() else None,
            run.folder,
            "unended" if outcome is None else outcome.status,
            run.job.overrides,
            run.job.plain if run.config is None else run.config.to_dict(),
            {} if outcome is None else outcome.metrics,
            0 if outcome is None else outcome.steps,
            0.0 if outcome is None else outcome.wall_time_s,
            "it was not started" if outcome is None else outcome.error,
            self._rows(run) if outcome is not None and outcome.status == "finished" else None,
        )

    def _report_failure(self, run: _Run) -> None:
        assert run.outcome is not None
        print_error(f"{run.name} failed: {run.outcome.error}")

    def _announce(self, runs: Sequence[_Run], new: Sequence[_Run], grouping: Grouping) -> None:
        """Print how many runs there are, and why some of the new ones are not in a stack."""
        stacked = sum(len(one) for one in grouping.stacks)
        done = f", {len(self._done)} done before" if self._done else ""
        stacks = f"{stacked} in {_count(len(grouping.stacks), 'stack')}" if stacked else ""
        alone = f"{len(grouping.alone)} one after another" if grouping.alone else ""
        continued = f"{len(runs) - len(new)} continued" if len(new) < len(runs) else ""
        how = " and ".join(one for one in (continued, stacks, alone) if one)
        self.console.line(f"Sweep of {_count(len(runs), 'run')}{done}: {how}. Folder: {short_path(self.folder)}")
        if not stacked:
            return
        reasons: dict[str, list[int]] = {}
        for index, reason in grouping.alone:
            reasons.setdefault(reason, []).append(new[index].job.number)
        for reason, numbers in reasons.items():
            which = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            self.console.line(f"Not in a stack: {_count(len(numbers), 'run')} ({which}), because {reason}")


class _PartProgress:
    """Reports the progress of one part to its sweep."""

    def __init__(self, sweep: Sweep, part: _Part, progress: SweepProgress) -> None:
        self._sweep = sweep
        self._runs = part.runs
        self._progress = progress

    def steps_made(self, steps: int, members: int) -> None:
        self._progress.steps_made(steps, members)

    def ended(self, index: int, outcome: Outcome) -> bool:
        self._progress.ended(outcome.status == "failed")
        return self._sweep.ended(self._runs[index], outcome)


def _config(run: _Run) -> Config:
    assert run.config is not None
    return run.config


def _tables(config: Config) -> tuple[str | None, ...]:
    """The tables of a run, by name."""
    return config.data.name, config.data.path, config.data.val_path, config.data.test_path


def _objective(metrics: Any) -> float:
    """The loss that a sweeper minimises when it searches."""
    of_split = metrics.get("val") or metrics.get("train")
    return of_split["loss"] if of_split else math.inf


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
