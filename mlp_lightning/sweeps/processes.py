"""Trains the parts of a sweep in several processes, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.sweeps.worker import Outcome, PartTask, train_part


def parts_in_processes(parts: Sequence[PartTask], processes: int, backend: str) -> Iterator[tuple[int, list[Outcome]]]:
    """Train the parts, each in one of several processes, and yield the number and the outcomes of each as it ends.

    Args:
        parts: what each is made of.
        processes: number of processes; -1: one for every core.
        backend: joblib's: ``loky`` (processes of this machine), ``ray`` or ``dask`` (a cluster that this process is
            connected to, or one that is started on this machine), ``threading``, ``multiprocessing``.

    Raises:
        ConfigError: joblib has no such backend, or a package that it needs is not installed.
    """
    from joblib import delayed, parallel_config

    with contextlib.ExitStack() as stack:
        _prepare(backend, processes, stack)
        try:
            stack.enter_context(parallel_config(backend=backend, n_jobs=processes))
        except (ValueError, KeyError) as error:
            hint = "use loky, ray or dask"
            raise ConfigError([Fault("hydra.launcher.backend", backend, "is not known to joblib", hint)]) from error
        work = (delayed(_numbered)(number, part) for number, part in enumerate(parts))
        yield from _parallel()(work)


def _parallel() -> Any:
    """Joblib's Parallel; yields each part when it ends, if the backend supports it."""
    from joblib import Parallel

    try:
        return Parallel(return_as="generator_unordered")
    except ValueError:
        return Parallel()


def _numbered(number: int, part: PartTask) -> tuple[int, list[Outcome]]:
    configs, folders, checkpoint, rows, packed = part
    return number, train_part(configs, folders, None, checkpoint, rows=rows, packed=packed)


def _prepare(backend: str, processes: int, stack: contextlib.ExitStack) -> None:
    """Register a cluster's backend with joblib and connect to the cluster.

    ``RAY_ADDRESS`` or ``DASK_SCHEDULER_ADDRESS`` gives its address. Without it, a cluster is started on this machine
    for the duration of the sweep.
    """
    if backend == "dask":
        with _requires("dask"):
            import dask  # type: ignore[import-not-found]  # an extra
            from dask.distributed import Client, LocalCluster  # type: ignore[import-not-found]  # an extra
        logging.getLogger("distributed").setLevel(logging.ERROR)
        address = dask.config.get("scheduler-address", None)
        if address is None:
            options = {"n_workers": processes, "threads_per_worker": 1, "dashboard_address": None}
            address = stack.enter_context(LocalCluster(**options, silence_logs=logging.ERROR))
        stack.enter_context(Client(address))
    elif backend == "ray":
        with _requires("ray"):
            import ray  # type: ignore[import-not-found]  # an extra
            from ray.util.joblib import register_ray  # type: ignore[import-not-found]  # an extra
        options = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": processes, "include_dashboard": False}
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        stack.callback(ray.shutdown)
        register_ray()


@contextlib.contextmanager
def _requires(extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        hint = f"pip install 'mlp-lightning[{extra}]'"
        raise ConfigError([Fault("hydra.launcher.backend", extra, "is not installed", hint)]) from error
