"""The runs of a sweep while it lasts, and which of them train together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.sweeps.composition import ComposedJob
from mlp_lightning.sweeps.folds import means_of_folds
from mlp_lightning.sweeps.records import UNENDED, RunRecord, job_number, objective
from mlp_lightning.sweeps.worker import Outcome


@dataclasses.dataclass
class SweepRun:
    """A job, or one fold of it, with its outcome.

    Attributes:
        job: as composed.
        folder: the run folder.
        config: what is trained; ``None`` if the job was refused.
        fold: which fold, if the job trains all of them; its folder lies in that of the job.
        outcome: how it ended; ``None`` if it has not.
    """

    job: ComposedJob
    folder: Path
    config: Config | None = None
    fold: int | None = None
    outcome: Outcome | None = None

    @property
    def name(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"Run {self.job.number}{fold} ({' '.join(self.job.overrides)})"

    @property
    def job_folder(self) -> Path:
        return self.folder if self.fold is None else self.folder.parent

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        return {} if self.outcome is None else self.outcome.metrics


@dataclasses.dataclass(frozen=True)
class Part:
    """Runs that train together: a stack, or one run.

    Attributes:
        runs: its runs.
        checkpoint: file for the state of a stack; if it exists, the stack continues from it.
        steps_made: steps that each run has made before.
        packed: where its runs are packed; ``None``: they have folders.
    """

    runs: list[SweepRun]
    checkpoint: Path | None = None
    steps_made: int = 0
    packed: Path | None = None


#: The runs of a job, each with its record if it was done before.
Runs = list[tuple[SweepRun, "RunRecord | None"]]


def config_of(run: SweepRun) -> Config:
    assert run.config is not None
    return run.config


def record_of(run: SweepRun) -> RunRecord:
    outcome = run.outcome
    return RunRecord(
        job_number(run.job_folder),
        run.folder,
        UNENDED if outcome is None else outcome.status,
        run.job.overrides,
        run.job.sections if run.config is None else run.config.sections(),
        run.metrics,
        0 if outcome is None else outcome.steps,
        0.0 if outcome is None else outcome.wall_time_s,
        "it was not started" if outcome is None else outcome.error,
        baseline={} if outcome is None else outcome.baseline,
    )


def loss_of(runs: Runs) -> float:
    """The loss of a job, of several folds the mean."""
    losses = []
    for run, record in runs:
        held_out = run.config is not None and run.config.data.cv.fold is not None
        losses.append(objective(run.metrics if record is None else record.metrics, held_out))
    return sum(losses) / len(losses)


def result_of_folds(runs: Runs) -> dict[str, Any]:
    """What ``result.json`` says of a job whose folds have ended, like that of a single cross-validation."""
    records = [record_of(run) if record is None else record for run, record in runs]
    statuses = {"interrupted" if one.status == UNENDED else one.status for one in records}
    status = next((one for one in ("failed", "interrupted") if one in statuses), "finished")
    folds = [dict(one.metrics.get("test", {})) for one in records]
    metrics = means_of_folds(folds) if status == "finished" else {}
    baselines = [dict(one.baseline.get("test", {})) for one in records]
    baseline = means_of_folds(baselines) if status == "finished" else {}
    folder = str(runs[0][0].job_folder)
    return {"status": status, "run_dir": folder, "folds": folds, "metrics": metrics, "baseline": baseline}
