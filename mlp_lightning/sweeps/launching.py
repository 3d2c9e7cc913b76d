"""Launches the jobs that Hydra passes to a launcher."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict

from mlp_lightning.errors import ConfigError, Fault
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
    """Compose all jobs and pass them to the task together.

    Raises:
        SystemExit: a Hydra callback has hooks for single jobs. The message is on standard error.
    """
    _refuse_callbacks_of_jobs(config)
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = compose_jobs(config_loader, config, job_overrides, initial_job_idx)
    losses = run_jobs(jobs, n_jobs, backend)
    returns = []
    for job, loss in zip(jobs, losses, strict=True):
        returned = JobReturn(
            overrides=list(job.overrides), working_dir=str(job.output_dir), task_name=config.hydra.job.name
        )
        returned.status = JobStatus.COMPLETED
        returned.return_value = loss
        returns.append(returned)
    return returns


def _refuse_callbacks_of_jobs(config: DictConfig) -> None:
    """Refuse callbacks of single jobs: jobs of a stack do not start or end one by one, so none would be called."""
    faults = []
    for name, callback in config.hydra.callbacks.items():
        found = get_object(callback._target_)  # a class or a function
        hooks = ("on_job_start", "on_job_end")
        if any(getattr(found, hook, None) is not getattr(Callback, hook) for hook in hooks):
            what = "has hooks for single jobs, but the jobs of this launcher train together"
            hint = "use hydra/launcher=basic, or leave the callback out"
            faults.append(Fault(f"hydra.callbacks.{name}", callback._target_, what, hint))
    if faults:
        # Hydra would show an exception as a traceback.
        sys.stderr.write(f"{ConfigError(faults)}\n")
        raise SystemExit(2)


def launch_search(
    config_loader: ConfigLoader,
    config: DictConfig,
    given: Sequence[str],
    run: Callable[[Sequence[Override]], list[Any]],
) -> list[Any]:
    """Leave the file that Hydra's sweepers leave, and let the task search.

    Args:
        config_loader: Hydra's.
        config: of the sweep.
        given: overrides, of which the last of each key counts.
        run: the search, a function of the parsed overrides.
    """
    overrides = OverridesParser.create(config_loader=config_loader).parse_overrides(list(given))
    folder = Path(str(config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    return run(overrides)


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
