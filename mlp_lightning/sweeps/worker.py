"""Trains one part of a sweep (a stack or a single run), in this process or in another one."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import shutil
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Protocol

from mlp_lightning.config import Config
from mlp_lightning.errors import CheckpointError, MLPLightningError, RunFolderError
from mlp_lightning.runs.console import print_error
from mlp_lightning.runs.run_folder import RunFolder, record_refusal
from mlp_lightning.runs.stop import raise_lost_interrupt
from mlp_lightning.sweeps.progress import silent
from mlp_lightning.sweeps.records import cause

if TYPE_CHECKING:
    from mlp_lightning.runs.pruning import Pruner
    from mlp_lightning.runs.result import TrainingResult
    from mlp_lightning.tables.reading.sources import TableSource

log = logging.getLogger("mlp_lightning")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The part of a run's result that a sweep needs, as plain data."""

    status: str
    metrics: dict[str, dict[str, float]]
    steps: int = 0
    wall_time_s: float = 0.0
    error: str = ""
    weights: str = "last"
    baseline: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    device: str = ""


#: What a part of a sweep is made of: configurations, folders, the file for the state of a stack, the fingerprint that
#: its rows must have (``None``: any), and where its runs are packed (``None``: they have folders).
PartTask = tuple[list[Config], list[Path], Optional[Path], Optional[Mapping[str, Any]], Optional[Path]]


class PartProgress(Protocol):
    """Receives the progress of one part of a sweep."""

    def steps_made(self, steps: int, members: int) -> None:
        """``members`` runs have each made ``steps`` more optimizer steps."""

    def ended(self, index: int, outcome: Outcome) -> bool:
        """The run at ``index`` of the part has ended. Returns whether the other runs continue."""
        ...


def train_part(
    configs: Sequence[Config],
    folders: Sequence[Path],
    progress: PartProgress | None = None,
    checkpoint: Path | None = None,
    source: TableSource | None = None,
    rows: Mapping[str, Any] | None = None,
    packed: Path | None = None,
    pruner: Pruner | None = None,
) -> list[Outcome]:
    """Train runs, as one stack if there are several.

    Errors of runs are not raised: each run has its outcome, and its folder records the same. A stack that does not
    fit into memory is halved and restarted; one that cannot be continued is restarted too. Members that have already
    ended keep their outcomes.

    Args:
        configs: of the runs.
        folders: of each run.
        progress: receives the steps made and the outcomes.
        checkpoint: file for the state of the stack; if it exists, the stack continues from it.
        source: of the rows of all runs, instead of what their configurations name.
        rows: fingerprint that the rows must have; ``None``: any.
        packed: where the members of a stack are packed; ``None``: they have folders.
        pruner: of a search, which may end runs early.
    """
    if len(configs) == 1 and (checkpoint is None or not checkpoint.is_file()):
        outcome = _train_single(configs[0], folders[0], source, rows, pruner)
        if progress is not None:
            progress.steps_made(outcome.steps, 1)
            progress.ended(0, outcome)
        return [outcome]
    from mlp_lightning.runs import train_stack

    raise_lost_interrupt()
    continued = checkpoint is not None and checkpoint.is_file()
    # A folder that another run has claimed must not be emptied.
    unclaimed = [not RunFolder(one).config.exists() for one in folders]
    recorder = _ProgressRecorder(progress)
    try:
        stack = {"checkpoint": checkpoint, "source": source, "rows": rows, "packed": packed, "pruner": pruner}
        results = train_stack(configs, folders, recorder, **stack)
        return [_outcome(one) for one in results]
    except Exception as error:
        failure = _Failure(error, "".join(traceback.format_exception(error)))
        restart = _should_restart(error, continued, len(configs))
        if os.environ.get("HYDRA_FULL_ERROR") == "1" and not restart:
            raise
    # Outside of the except block nothing refers to the stack, so its memory can be released.
    failure.release_frames()
    remaining = [index for index in range(len(configs)) if index not in recorder.outcomes and unclaimed[index]]
    if restart:
        part = _Part(configs, folders, checkpoint, source, rows, packed, pruner)
        _restart(part, remaining, recorder, failure if continued else None)
    for index in range(len(configs)):
        if index not in recorder.outcomes:
            not_started = Outcome("interrupted", {}, error="it was not started")
            skipped = restart and index in remaining
            recorder.record(index, not_started if skipped else _failed(configs[index], folders[index], failure))
    return [recorder.outcomes[index] for index in range(len(configs))]


def _should_restart(error: Exception, continued: bool, count: int) -> bool:
    """Whether to train the runs of a stack that raised from the start.

    Not if you can fix the error (such as a missing data file): then the saved state is kept.
    """
    if continued and (isinstance(error, CheckpointError) or not isinstance(error, MLPLightningError)):
        return True
    return count > 1 and _is_out_of_memory(error)


@dataclasses.dataclass(frozen=True)
class _Part:
    """The arguments of :func:`train_part` that a restart passes on."""

    configs: Sequence[Config]
    folders: Sequence[Path]
    checkpoint: Path | None
    source: TableSource | None
    rows: Mapping[str, Any] | None
    packed: Path | None
    pruner: Pruner | None


def _restart(part: _Part, remaining: list[int], recorder: _ProgressRecorder, resume_failure: _Failure | None) -> None:
    """Train the ``remaining`` runs from the start: in halves, or together if the stack could not be continued."""
    configs, folders, checkpoint = part.configs, part.folders, part.checkpoint
    for index in remaining:
        _empty(folders[index])
    parts = [remaining[: len(remaining) // 2], remaining[len(remaining) // 2 :]]
    if resume_failure is not None:
        assert checkpoint is not None
        unreadable = checkpoint.with_name(f"{checkpoint.name}.unreadable")
        checkpoint.replace(unreadable)
        reason = f"A stack could not be continued ({resume_failure.error})"
        print_error(f"{reason}; its runs are trained from the start. Its state is now in {unreadable}")
        parts = [remaining]
    else:
        log.warning("A stack of %d runs does not fit into memory: it is halved and restarted.", len(remaining))
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    for number, indices in enumerate(one for one in parts if one):
        if recorder.stopped:
            break
        file = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")
        progress = _SubsetProgress(recorder, indices)
        of_part = [configs[index] for index in indices], [folders[index] for index in indices]
        train_part(*of_part, progress, file, part.source, part.rows, part.packed, part.pruner)


@dataclasses.dataclass
class _Failure:
    """What a stack raised.

    Attributes:
        error: the exception.
        traceback_text: the exception with its traceback.
    """

    error: Exception
    traceback_text: str

    def release_frames(self) -> None:
        """Release the stack, which the frames of the traceback refer to."""
        import torch

        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _empty(folder: Path) -> None:
    """Remove what a restarted stack has left in a folder; keep what Hydra wrote."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == ".hydra":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # The allocators of the CPU and of MPS, and cuBLAS, raise no specific exception.
    texts = ("DefaultCPUAllocator", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(one in str(error) for one in texts)


def _train_single(
    config: Config,
    folder: Path,
    source: TableSource | None,
    rows: Mapping[str, Any] | None,
    pruner: Pruner | None,
) -> Outcome:
    from mlp_lightning.runs import train

    raise_lost_interrupt()
    try:
        return _outcome(train(config, folder, silent(), frame=source, rows=rows, pruner=pruner, has_card=False))
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        return _failed(config, folder, _Failure(error, "".join(traceback.format_exception(error))))


def _failed(config: Config, folder: Path, failure: _Failure) -> Outcome:
    """The outcome of a run that raised; recorded in its folder unless the run already did so."""
    error = failure.error
    known = isinstance(error, MLPLightningError)
    # On a RunFolderError the folder belongs to another run: do not write into it.
    if not isinstance(error, RunFolderError) and not RunFolder(folder).result.is_file():
        record_refusal(folder, config.to_dict(), f"{type(error).__name__}: {error}")
        if not RunFolder(folder).log.is_file():
            RunFolder(folder).log.write_text(failure.traceback_text, encoding="utf-8")
    return Outcome("failed", {}, error=cause(str(error)) if known else unexpected_message(error, folder))


def unexpected_message(error: Exception, folder: Path) -> str:
    """The message for an error that is a bug of this package or of a library."""
    if isinstance(error, OSError) and error.filename is not None:
        return system_message(error)
    first_line = str(error).splitlines()[0] if str(error) else ""
    log = folder / "train.log"
    return f"{type(error).__name__}: {first_line}\nThe full traceback is in {log}; HYDRA_FULL_ERROR=1 shows it here."


def system_message(error: OSError) -> str:
    """What the system says of a file, without its numbers."""
    return f"{error.strerror}: {error.filename}" if error.filename is not None else str(error)


def _outcome(result: TrainingResult) -> Outcome:
    baseline = {} if result.baseline is None else result.baseline["metrics"]
    why = result.stopped_by if result.status == "pruned" else cause(result.error)
    facts = (result.steps, result.wall_time_s, why, result.weights, baseline, result.device)
    return Outcome(result.status, result.metrics, *facts)


class _ProgressRecorder:
    """Records the progress of a stack and passes it on.

    Attributes:
        outcomes: of the runs that have ended, by index.
        stopped: whether no other run is trained any more.
    """

    def __init__(self, progress: PartProgress | None) -> None:
        self._progress = progress
        self.outcomes: dict[int, Outcome] = {}
        self.stopped = False

    def steps_made(self, steps: int, members: int) -> None:
        if self._progress is not None:
            self._progress.steps_made(steps, members)

    def run_ended(self, number: int, result: TrainingResult) -> bool:
        return self.record(number, _outcome(result))

    def record(self, index: int, outcome: Outcome) -> bool:
        """Record the outcome of a run and pass it on. Returns whether the other runs continue."""
        self.outcomes[index] = outcome
        others_continue = self._progress is None or self._progress.ended(index, outcome)
        self.stopped = self.stopped or not others_continue or outcome.status == "interrupted"
        return others_continue


class _SubsetProgress:
    """Passes on the progress of some runs of a part."""

    def __init__(self, recorder: _ProgressRecorder, indices: Sequence[int]) -> None:
        self._recorder = recorder
        self._indices = indices

    def steps_made(self, steps: int, members: int) -> None:
        self._recorder.steps_made(steps, members)

    def ended(self, index: int, outcome: Outcome) -> bool:
        return self._recorder.record(self._indices[index], outcome)
