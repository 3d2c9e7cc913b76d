"""Trains one part of a sweep, in this process or in another one: a stack, or a run by itself."""

from __future__ import annotations

import dataclasses
import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlp_lightning.config import Config
from mlp_lightning.errors import MLPLightningError, RunFolderError
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
    memory is halved and tried again.

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
    try:
        results = train_stack(configs, folders, None if progress is None else _Told(progress), checkpoint=checkpoint)
    except Exception as error:
        if (
            _is_out_of_memory(error)
            and len(configs) > 1
            and not any(RunFolder(one).result.is_file() for one in folders)
        ):
            return _in_halves(configs, folders, progress, checkpoint)
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        outcomes = [_failed(config, folder, error) for config, folder in zip(configs, folders, strict=True)]
        if progress is not None:
            for place, outcome in enumerate(outcomes):
                progress.ended(place, outcome)
        return outcomes
    return [_outcome(one) for one in results]


def _in_halves(
    configs: Sequence[Config], folders: Sequence[Path], progress: PartProgress | None, checkpoint: Path | None
) -> list[Outcome]:
    """Train the two halves of a stack one after the other, from the start: no member has ended, so nothing is lost."""
    log.warning("A stack of %d runs does not fit into memory: it is halved.", len(configs))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    for folder in folders:
        RunFolder(folder).config.unlink(missing_ok=True)
    outcomes: list[Outcome] = []
    middle = len(configs) // 2
    for number, part in enumerate((slice(None, middle), slice(middle, None))):
        half = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")
        told = None if progress is None else _Half(progress, part.start or 0)
        outcomes += train_part(configs[part], folders[part], told, half)
        if any(one.status == "interrupted" for one in outcomes):
            break
    unbegun = Outcome("interrupted", {}, error="it was not begun")
    return outcomes + [unbegun] * (len(configs) - len(outcomes))


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # The allocator of the CPU has no exception of its own.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


def _train_alone(config: Config, folder: Path) -> Outcome:
    from mlp_lightning.runs import train

    raise_lost_interrupt()
    try:
        return _outcome(train(config, folder, silent()))
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        return _failed(config, folder, error)


def _failed(config: Config, folder: Path, error: Exception) -> Outcome:
    """The outcome of a run that raised, told in its folder if the run could not do so itself."""
    known = isinstance(error, MLPLightningError)
    # A folder that is another run's is not ours to write into.
    if not isinstance(error, RunFolderError) and not RunFolder(folder).result.is_file():
        record_refusal(folder, config.to_dict(), f"{type(error).__name__}: {error}")
        if not RunFolder(folder).log.is_file():
            RunFolder(folder).log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return Outcome("failed", {}, error=cause(str(error)) if known else unexpected(error, folder))


def unexpected(error: Exception, folder: Path) -> str:
    """What to say of an error that is nobody's fault but ours."""
    first_line = str(error).splitlines()[0] if str(error) else ""
    log = folder / "train.log"
    return f"{type(error).__name__}: {first_line}\nThe whole story is in {log}; HYDRA_FULL_ERROR=1 shows it here."


def _outcome(result: TrainingResult) -> Outcome:
    return Outcome(result.status, result.metrics, result.steps, result.wall_time_s, cause(result.error))


class _Half:
    """Passes on how a part of a part gets on."""

    def __init__(self, progress: PartProgress, first: int) -> None:
        self._progress = progress
        self._first = first

    def steps_made(self, steps: int, members: int) -> None:
        self._progress.steps_made(steps, members)

    def ended(self, place: int, outcome: Outcome) -> bool:
        return self._progress.ended(self._first + place, outcome)


class _Told:
    """Passes on what a stack tells."""

    def __init__(self, progress: PartProgress) -> None:
        self._progress = progress

    def steps_made(self, steps: int, members: int) -> None:
        self._progress.steps_made(steps, members)

    def run_ended(self, number: int, result: TrainingResult) -> bool:
        return self._progress.ended(number, _outcome(result))
