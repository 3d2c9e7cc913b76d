"""Trains one part of a sweep, in this process or in another one: a stack, or a run by itself."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlp_lightning.config import Config
from mlp_lightning.errors import CheckpointError, MLPLightningError, RunFolderError
from mlp_lightning.runs.console import print_error
from mlp_lightning.runs.run_folder import RunFolder, record_refusal
from mlp_lightning.runs.stop import raise_lost_interrupt
from mlp_lightning.sweeps.progress import silent
from mlp_lightning.sweeps.records import cause

if TYPE_CHECKING:
    from mlp_lightning.runs.result import TrainingResult

log = logging.getLogger("mlp_lightning")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run ended: what of its result a sweep needs, as plain data."""

    status: str
    metrics: dict[str, dict[str, float]]
    steps: int = 0
    wall_time_s: float = 0.0
    error: str = ""


class PartProgress(Protocol):
    """Who is told how a part of a sweep gets on."""

    def steps_made(self, steps: int, members: int) -> None:
        """``members`` runs have each made ``steps`` more optimizer steps."""

    def ended(self, place: int, outcome: Outcome) -> bool:
        """The run at this place of the part has ended; returns whether the others shall go on."""
        ...


def train_part(
    configs: Sequence[Config],
    folders: Sequence[Path],
    progress: PartProgress | None = None,
    checkpoint: Path | None = None,
) -> list[Outcome]:
    """Train runs, as one stack if they are several.

    No error of a run is raised: each has its outcome, and its folder says the same. A stack that does not fit into
    memory is halved and started again; one that cannot be continued is started again too. Members that have ended by
    then keep their outcomes.

    Args:
        configs: of the runs.
        folders: of each run.
        progress: told of steps made and of runs that have ended.
        checkpoint: file for the state of the stack; if it is there, the stack continues from it.
    """
    if len(configs) == 1 and (checkpoint is None or not checkpoint.is_file()):
        outcome = _train_alone(configs[0], folders[0])
        if progress is not None:
            progress.steps_made(outcome.steps, 1)
            progress.ended(0, outcome)
        return [outcome]
    from mlp_lightning.runs import train_stack

    raise_lost_interrupt()
    continued = checkpoint is not None and checkpoint.is_file()
    # What lies in the folders of others is not ours to remove.
    free = [not RunFolder(one).config.exists() for one in folders]
    told = _Told(progress)
    try:
        return [_outcome(one) for one in train_stack(configs, folders, told, checkpoint=checkpoint)]
    except Exception as error:
        failure = _Failure(error, "".join(traceback.format_exception(error)))
        again = _starts_again(error, continued, len(configs))
        if os.environ.get("HYDRA_FULL_ERROR") == "1" and not again:
            raise
    # Here the stack is gone: its memory is free for what is tried instead.
    failure.forget_frames()
    left = [place for place in range(len(configs)) if place not in told.ended and free[place]]
    if again:
        _train_again(configs, folders, left, told, checkpoint, failure if continued else None)
    for place in range(len(configs)):
        if place not in told.ended:
            unbegun = Outcome("interrupted", {}, error="it was not begun")
            told.tell(place, unbegun if again and place in left else _failed(configs[place], folders[place], failure))
    return [told.ended[place] for place in range(len(configs))]


def _starts_again(error: Exception, continued: bool, count: int) -> bool:
    """Whether runs of a stack that raised are trained from the start.

    Not if the error is one of the user's to mend (a file of data that is gone, say): a state that was saved stays.
    """
    if continued and (isinstance(error, CheckpointError) or not isinstance(error, MLPLightningError)):
        return True
    return count > 1 and _is_out_of_memory(error)


def _train_again(
    configs: Sequence[Config],
    folders: Sequence[Path],
    left: list[int],
    told: _Told,
    checkpoint: Path | None,
    not_continued: _Failure | None,
) -> None:
    """Train the runs at the places ``left`` from the start: in halves, or together if they could not be continued."""
    for place in left:
        _empty(folders[place])
    parts = [left[: len(left) // 2], left[len(left) // 2 :]]
    if not_continued is not None:
        assert checkpoint is not None
        unreadable = checkpoint.with_name(f"{checkpoint.name}.unreadable")
        checkpoint.replace(unreadable)
        why = f"A stack could not be continued ({not_continued.error})"
        print_error(f"{why}; its runs are trained from the start. Its state is now in {unreadable}")
        parts = [left]
    else:
        log.warning("A stack of %d runs does not fit into memory: it is halved and started again.", len(left))
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    for number, part in enumerate(one for one in parts if one):
        if told.stopped:
            break
        file = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")
        train_part([configs[one] for one in part], [folders[one] for one in part], _Some(told, part), file)


@dataclasses.dataclass
class _Failure:
    """What a stack raised.

    Attributes:
        error: the exception.
        story: with its traceback.
    """

    error: Exception
    story: str

    def forget_frames(self) -> None:
        """Let go of the stack, which the frames of the traceback hold."""
        import torch

        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _empty(folder: Path) -> None:
    """Remove what a stack that is started again has left in a folder; what Hydra wrote stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == ".hydra":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # The allocators of the CPU and of MPS, and cuBLAS, have no exception of their own.
    texts = ("DefaultCPUAllocator", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(one in str(error) for one in texts)


def _train_alone(config: Config, folder: Path) -> Outcome:
    from mlp_lightning.runs import train

    raise_lost_interrupt()
    try:
        return _outcome(train(config, folder, silent()))
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        return _failed(config, folder, _Failure(error, "".join(traceback.format_exception(error))))


def _failed(config: Config, folder: Path, failure: _Failure) -> Outcome:
    """The outcome of a run that raised, told in its folder if the run could not do so itself."""
    error = failure.error
    known = isinstance(error, MLPLightningError)
    # A folder that is another run's is not ours to write into.
    if not isinstance(error, RunFolderError) and not RunFolder(folder).result.is_file():
        record_refusal(folder, config.to_dict(), f"{type(error).__name__}: {error}")
        if not RunFolder(folder).log.is_file():
            RunFolder(folder).log.write_text(failure.story, encoding="utf-8")
    return Outcome("failed", {}, error=cause(str(error)) if known else unexpected(error, folder))


def unexpected(error: Exception, folder: Path) -> str:
    """What to say of an error that is nobody's fault but ours."""
    first_line = str(error).splitlines()[0] if str(error) else ""
    log = folder / "train.log"
    return f"{type(error).__name__}: {first_line}\nThe whole story is in {log}; HYDRA_FULL_ERROR=1 shows it here."


def _outcome(result: TrainingResult) -> Outcome:
    return Outcome(result.status, result.metrics, result.steps, result.wall_time_s, cause(result.error))


class _Told:
    """Passes on what a stack tells, and remembers it.

    Attributes:
        ended: outcomes of the runs that have ended, by place.
        stopped: whether the others are not to be trained any more.
    """

    def __init__(self, progress: PartProgress | None) -> None:
        self._progress = progress
        self.ended: dict[int, Outcome] = {}
        self.stopped = False

    def steps_made(self, steps: int, members: int) -> None:
        if self._progress is not None:
            self._progress.steps_made(steps, members)

    def run_ended(self, number: int, result: TrainingResult) -> bool:
        return self.tell(number, _outcome(result))

    def tell(self, place: int, outcome: Outcome) -> bool:
        """Pass on that a run has ended; whether the others are still to be trained."""
        self.ended[place] = outcome
        go_on = self._progress is None or self._progress.ended(place, outcome)
        self.stopped = self.stopped or not go_on or outcome.status == "interrupted"
        return go_on


class _Some:
    """Passes on how some of the runs of a part get on."""

    def __init__(self, told: _Told, places: Sequence[int]) -> None:
        self._told = told
        self._places = places

    def steps_made(self, steps: int, members: int) -> None:
        self._told.steps_made(steps, members)

    def ended(self, place: int, outcome: Outcome) -> bool:
        return self._told.tell(self._places[place], outcome)
