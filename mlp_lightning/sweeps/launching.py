"""What a launcher does with the jobs that Hydra gives it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from mlp_lightning.sweeps.composition import ComposedJob, compose_jobs

log = logging.getLogger(__name__)


def launch_together(
    config_loader: ConfigLoader,
    config: DictConfig,
    run_jobs: Callable[[Sequence[ComposedJob], int, str], list[float]],
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
    n_jobs: int,
    backend: str,
) -> list[JobReturn]:
    """Compose all jobs and hand them to the task together."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = compose_jobs(config_loader, config, job_overrides, initial_job_idx)
    figures = run_jobs(jobs, n_jobs, backend)
    returns = []
    for job, figure in zip(jobs, figures, strict=True):
        returned = JobReturn(
            overrides=list(job.overrides), working_dir=str(job.output_dir), task_name=config.hydra.job.name
        )
        returned.status = JobStatus.COMPLETED
        returned.return_value = figure
        returns.append(returned)
    return returns


def launch_one_by_one(
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
) -> list[JobReturn]:
    """Run any task, job after job in this process, as Hydra's basic launcher does."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    returns = []
    for number, overrides in enumerate(job_overrides, initial_job_idx):
        log.info("#%d : %s", number, " ".join(filter_overrides(overrides)))
        job_config = hydra_context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(job_config):
            job_config.hydra.job.id = number
            job_config.hydra.job.num = number
        returns.append(
            run_job(
                hydra_context=hydra_context,
                task_function=task_function,
                config=job_config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        )
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    return returns
