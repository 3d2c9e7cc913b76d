"""A sweep whose jobs are composed by this package and, one by one, by Hydra."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from mlp_lightning.sweeps.composition import ComposedJob, compose_jobs, write_hydra_folder

FIRST = 3  # number of the first job
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


class CountingLoader:
    """Hydra's loader; counts the jobs that it composes."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader
        self.count = 0

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        self.count += 1
        return self.loader.load_sweep_config(master_config, sweep_overrides)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


@dataclasses.dataclass
class Sweep:
    """A sweep whose jobs are composed by this package and by Hydra."""

    loader: Any
    folder: Path

    def config(self, *hydra_overrides: str) -> DictConfig:
        given = [f"hydra.sweep.dir='{self.folder}/hydra'", "hydra.mode=MULTIRUN", *hydra_overrides]
        return self.loader.load_configuration("train", given, run_mode=RunMode.MULTIRUN)

    def composed(self, jobs: Sequence[Sequence[str]], *hydra_overrides: str) -> list[ComposedJob]:
        return self._composed(jobs, self.config(*hydra_overrides))

    def _composed(self, jobs: Sequence[Sequence[str]], config: DictConfig) -> list[ComposedJob]:
        self.loader.count = 0
        return compose_jobs(self.loader, config, jobs, FIRST)

    def check(self, jobs: Sequence[Sequence[str]], *hydra_overrides: str, compositions: int | None = None) -> None:
        """Compare every job with Hydra's; ``compositions`` is the number of compositions by Hydra's loader."""
        config = self.config(*hydra_overrides)
        ours = self._composed(jobs, config)
        if compositions is not None:
            assert self.loader.count == compositions
        assert len(ours) == len(jobs)
        for number, (job, overrides) in enumerate(zip(ours, jobs, strict=True), FIRST):
            self._check_job(job, config, number, overrides)

    def _check_job(self, job: ComposedJob, config: DictConfig, number: int, overrides: Sequence[str]) -> None:
        assert job.number == number
        seen: dict[str, Any] = {}
        error: Exception | None = None
        try:
            composed = self.loader.load_sweep_config(config, list(overrides))
            self._run(composed, number, seen)
        except Exception as raised:
            error = raised
        assert (type(job.error), str(job.error)) == (type(error), str(error))
        assert same(job.plain, seen.get("plain", {}))
        if "folder" not in seen:  # Hydra stopped before it wrote anything
            assert job.record is None
            return
        assert list(job.overrides) == seen["overrides"]
        assert str(job.output_dir) == seen["folder"]
        write_hydra_folder(job, job.output_dir.parent / "ours")
        self._check_files(Path(seen["folder"]), job.output_dir.parent / "ours", seen["subdir"])

    def _run(self, composed: DictConfig, number: int, seen: dict[str, Any]) -> None:
        """Run a job like Hydra's basic launcher, with a task that records what it receives."""
        with open_dict(composed):
            composed.hydra.job.id = number
            composed.hydra.job.num = number

        def task(config: DictConfig) -> None:
            hydra = HydraConfig.get()
            seen["folder"], seen["subdir"] = hydra.runtime.output_dir, hydra.output_subdir
            seen["overrides"] = OmegaConf.to_container(hydra.overrides.task)
            seen["plain"] = OmegaConf.to_container(config, resolve=True)

        context = HydraContext(config_loader=self.loader, callbacks=Callbacks())
        done = run_job(task, composed, "hydra.sweep.dir", "hydra.sweep.subdir", context, configure_logging=False)
        if isinstance(done._return_value, Exception):
            raise done._return_value

    def _check_files(self, theirs: Path, ours: Path, subdir: str | None) -> None:
        if subdir is None:
            assert not ours.exists()
            return
        assert sorted(file.name for file in (ours / subdir).iterdir()) == sorted(FILES)
        for name in FILES:
            wanted = (theirs / subdir / name).read_text(encoding="utf-8")
            written = (ours / subdir / name).read_text(encoding="utf-8")
            expected = yaml.load(wanted, LOADER)
            if name == "hydra.yaml":
                assert expected["hydra"]["runtime"]["output_dir"] == str(theirs)
                expected["hydra"]["runtime"]["output_dir"] = str(ours)
            assert same(yaml.load(written, LOADER), expected)
            if name == "config.yaml":
                # OmegaConf reads more texts as numbers than YAML's standard does.
                assert same(OmegaConf.create(written), OmegaConf.create(wanted))


def same(one: Any, other: Any) -> bool:
    """Equal with equal types and the same order of keys; ``repr`` distinguishes 1, 1.0 and True."""
    return repr(one) == repr(other)


def product(**values: Sequence[str]) -> list[list[str]]:
    """The jobs of a grid; ``__`` in a name stands for a dot."""
    keys = [key.replace("__", ".") for key in values]
    return [
        [f"{key}={value}" for key, value in zip(keys, row, strict=True)] for row in itertools.product(*values.values())
    ]
