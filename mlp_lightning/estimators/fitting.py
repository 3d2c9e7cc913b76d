"""Runs of the estimators, in folders that are removed afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.errors import TrainingError
from mlp_lightning.estimators.curves import CurveRecorder, Curves
from mlp_lightning.estimators.inputs import Inputs
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.runs.build import build_data
from mlp_lightning.runs.fit import TrainingStart, train, train_stack
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import new_run_dir
from mlp_lightning.sweeps.grouping import group_runs
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.sweeps.sizes import sizes_of_data
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.numbers import NumberForm

# A run sets the random numbers, the threads and the signals of its process, so only one may run at a time.
_ONE_AT_A_TIME = threading.RLock()
_SHARE_OF_MEMORY = 0.5


@dataclasses.dataclass
class Job:
    """One training.

    Attributes:
        config: of the run.
        data: its rows, set up.
        log_dir: where its folder is kept; ``None``: nowhere.
        curves: filled by the training.
    """

    config: Config
    data: TabularDataModule
    log_dir: str | None
    curves: Curves = dataclasses.field(default_factory=Curves)


def rows_of(
    config: Config,
    inputs: Inputs,
    preprocessor: Preprocessor | None = None,
    number_forms: Mapping[str, NumberForm] | None = None,
) -> TabularDataModule:
    """The rows of a run, set up.

    Args:
        config: of the run.
        inputs: the rows.
        preprocessor: of an earlier fit, to prepare them with; ``None``: a new one is fitted to them.
        number_forms: how the numbers of that fit are written.
    """
    given = Given(MemorySource(inputs.table, "X"), inputs.target, preprocessor, number_forms or {})
    return build_data(config, given)


def train_alone(job: Job, start: TrainingStart | None = None) -> TrainingResult:
    """Train one run.

    Raises:
        KeyboardInterrupt: it was asked to stop.
        TrainingError, DeviceError: it could not be trained.
    """
    with _ONE_AT_A_TIME, _folders([job.log_dir]) as (folder,):
        curves, keeps_folder = [CurveRecorder([job.curves])], job.log_dir is not None
        result = train(job.config, folder, data=job.data, start=start, callbacks=curves, keeps_folder=keeps_folder)
    if result.status == "interrupted":
        raise KeyboardInterrupt
    return result


def train_together(jobs: Sequence[Job]) -> list[TrainingResult | Exception]:
    """Train several runs, as stacks where they can be members of one.

    Returns:
        For each run its result, or why it failed.

    Raises:
        KeyboardInterrupt: they were asked to stop.
    """
    # By identity: configurations may be equal although their rows differ (folds).
    sizes = {id(job.config): sizes_of_data(job.config, job.data) for job in jobs}
    memory = int(available_memory() * _SHARE_OF_MEMORY)
    grouping = group_runs([job.config for job in jobs], lambda config: sizes[id(config)], memory)
    done: dict[int, TrainingResult | Exception] = {}
    for indices in grouping.stacks:
        done.update(zip(indices, _train_stack([jobs[one] for one in indices]), strict=True))
    for index, _ in grouping.alone:
        try:
            done[index] = train_alone(jobs[index])
        except Exception as error:
            done[index] = error
    return [done[index] for index in range(len(jobs))]


def _train_stack(jobs: Sequence[Job]) -> list[TrainingResult | Exception]:
    recorder = CurveRecorder([job.curves for job in jobs])
    with _ONE_AT_A_TIME, _folders([job.log_dir for job in jobs]) as folders:
        results = train_stack(
            [job.config for job in jobs],
            folders,
            data=[job.data for job in jobs],
            callbacks=[recorder],
            keep_modules=True,
        )
    if any(one.status == "interrupted" for one in results):
        raise KeyboardInterrupt
    return [one if one.status == "finished" else TrainingError(one.error) for one in results]


@contextlib.contextmanager
def _folders(log_dirs: Sequence[str | None]) -> Iterator[list[Path]]:
    """A folder for each run: a new one in its ``log_dir``, or one that is removed at the end."""
    temporary = Path(tempfile.mkdtemp(prefix="mlp_lightning-")) if None in log_dirs else None
    try:
        yield [
            temporary / str(number) if temporary is not None and one is None else new_run_dir(Path(str(one)))
            for number, one in enumerate(log_dirs)
        ]
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
