"""Hydra plugins for sweeps: a launcher that runs all jobs of a batch together, and the matching sweeper.

Hydra imports this module for every Hydra program of the environment, so it imports little; the implementation is in
``mlp_lightning.sweeps``. (No postponed annotations: dataclasses look them up in ``sys.modules``, and Hydra executes
plugin modules before they are registered there.)
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class VectorizedLauncherConf:
    """Options under ``hydra.launcher``."""

    _target_: str = "hydra_plugins.mlp_lightning_vectorized.vectorized.VectorizedLauncher"
    n_jobs: int = 1  # processes to spread stacks over; -1: one for every core
    backend: str = "loky"  # joblib backend that starts processes: loky, ray, dask


@dataclass
class VectorizedSweeperConf(BasicSweeperConf):
    """Options under ``hydra.sweeper``, those of the basic sweeper."""

    _target_: str = "hydra_plugins.mlp_lightning_vectorized.vectorized.VectorizedSweeper"


class VectorizedLauncher(Launcher):
    """Trains the jobs of a batch as stacks if the task supports it; otherwise jobs run one after another.

    A task that supports it has an attribute ``run_jobs``, a function of composed jobs, ``n_jobs`` and ``backend``.
    """

    def __init__(self, n_jobs: int = 1, backend: str = "loky", **_: Any) -> None:
        super().__init__()
        self.n_jobs = n_jobs
        self.backend = backend
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mlp_lightning.sweeps.launching import launch_one_by_one, launch_together

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        run_jobs = getattr(self.task_function, "run_jobs", None)
        if run_jobs is None:
            return launch_one_by_one(
                self.hydra_context, self.config, self.task_function, job_overrides, initial_job_idx
            )
        loader = self.hydra_context.config_loader
        return launch_together(loader, self.config, run_jobs, job_overrides, initial_job_idx, self.n_jobs, self.backend)


class VectorizedSweeper(BasicSweeper):
    """The basic sweeper, without its validation, which composes every job a second time.

    For a thousand jobs that takes a minute. The launcher reports a job that cannot be composed, and runs the others.
    A task with an attribute ``search`` searches instead: a function of overrides and of what launches a batch.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._search = getattr(task_function, "search", None)

    def sweep(self, arguments: list[str]) -> Any:
        """Run every combination of the values given, or what a search draws."""
        if self._search is None or not isinstance(self.launcher, VectorizedLauncher):
            return super().sweep(arguments)
        from mlp_lightning.sweeps.launching import launch_search

        assert self.config is not None
        assert self.hydra_context is not None
        run = functools.partial(self._search, launch=self.launcher.launch, processes=self.launcher.n_jobs)
        return launch_search(self.hydra_context.config_loader, self.config, [*self._parse_config(), *arguments], run)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Skip the validation if the launcher composes all jobs together."""
        if not isinstance(self.launcher, VectorizedLauncher):
            super().validate_batch_is_legal(batch)


_STORE = ConfigStore.instance()
_STORE.store(group="hydra/launcher", name="vectorized", node=VectorizedLauncherConf, provider="mlp_lightning")
_STORE.store(group="hydra/sweeper", name="vectorized", node=VectorizedSweeperConf, provider="mlp_lightning")
