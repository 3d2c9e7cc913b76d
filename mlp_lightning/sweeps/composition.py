"""Composes the jobs of a sweep with the same result as Hydra, in a fraction of the time.

Hydra reads and merges every configuration file for every job, which takes longer than training a small network.
But jobs with the same choice of files differ only in the values that they assign. So Hydra composes one job of each
such shape. For the others, the operation that Hydra itself applies (``OmegaConf.update``) replaces the values.

The result is the same only if no value decides how another override is applied. Hydra itself composes every job with
an override for which this is not certain: one that adds (``+``), deletes (``~``) or merges (a mapping), one that
belongs to Hydra, one below or above the key of another, one whose key leads through an interpolation.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlp_lightning.config.updates import as_number, is_plain_value
from mlp_lightning.sweeps.direct import DirectJobs, direct_jobs
from mlp_lightning.sweeps.hydra_record import Documents, HydraRecord, KeyPath

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_OF_HYDRA = re.compile(r"[+~]*hydra[./]")


@dataclasses.dataclass(frozen=True)
class ComposedJob:
    """One job of a sweep, ready to run."""

    number: int  # hydra.job.num
    overrides: tuple[str, ...]  # hydra.overrides.task
    output_dir: Path  # absolute; hydra.runtime.output_dir
    sections: Mapping[
        str, Any
    ]  # the resolved configuration without hydra, parts shared with other jobs; {} on an error
    record: HydraRecord | None  # the content of .hydra; None if nothing could be composed
    error: Exception | None  # raised while this job was composed

    @property
    def plain(self) -> dict[str, Any]:
        """A copy of the resolved configuration."""
        return copy.deepcopy(dict(self.sections))


def compose_jobs(
    config_loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[ComposedJob]:
    """Compose every job of a batch, with the same result as Hydra's launchers.

    Args:
        config_loader: Hydra's, ``hydra_context.config_loader``.
        config: the configuration of the sweep, as ``Launcher.setup`` receives it.
        job_overrides: the overrides of each job, as ``Launcher.launch`` receives them.
        initial_job_idx: number of the first job.

    Returns:
        The jobs in their order. A job that cannot be composed has its ``error``, which is the exception that
        Hydra or OmegaConf raised; other jobs are not affected.
    """
    composer = _Composer(config_loader, config)
    return [composer.compose(number, overrides) for number, overrides in enumerate(job_overrides, initial_job_idx)]


def write_hydra_folder(job: ComposedJob, output_dir: Path) -> None:
    """Write ``config.yaml``, ``hydra.yaml`` and ``overrides.yaml`` of a job, as Hydra does before it runs one.

    They go to ``hydra.output_subdir`` of ``output_dir``; nothing is written if that key is null or the job
    could not be composed. The files name ``output_dir`` even if that is not ``job.output_dir``.

    Raises:
        OSError: a file or folder cannot be written.
    """
    if job.record is not None:
        job.record.write(output_dir)


@dataclasses.dataclass(frozen=True)
class _Override:
    """One override and its effect on the configuration."""

    text: str
    shape: str | None = None  # the same in jobs that may share a composition; None: Hydra must compose the job
    key: str = ""  # dotted, or the name of a group
    is_group: bool = False  # chooses files, before any value is assigned
    is_replaceable: bool = False  # assigns a plain value
    value: Any = None


class _Composer:
    """Composes the jobs of one batch."""

    def __init__(self, config_loader: ConfigLoader, config: DictConfig) -> None:
        self._loader = config_loader
        self._config = config
        self._parser = OverridesParser.create()
        self._groups = set(config.hydra.runtime.choices)
        self._override = functools.cache(self._read)  # many jobs share the same overrides
        # The composition of each job shape; None if Hydra must compose each job.
        self._shared: dict[tuple[str | None, ...], _Composition | None] = {}
        # Read before any job is composed, as Hydra's launchers do: a time in it is the same for all jobs.
        self._sweep_dir = OmegaConf.select(config, "hydra.sweep.dir", throw_on_resolution_failure=False)

    def compose(self, number: int, texts: Sequence[str]) -> ComposedJob:
        overrides = [self._override(text) for text in texts]
        try:
            shape = tuple(one.shape for one in overrides)
            shared = self._shared.get(shape)
            job = None if shared is None else shared.direct_job(number, overrides)
            return job or self._composition(shape, overrides).job(number, self._config)
        except Exception as error:  # any error ends this job alone
            task = tuple(text for text in texts if not _OF_HYDRA.match(text))
            folder = Path.cwd() / str(self._sweep_dir) / str(number)
            return ComposedJob(number, task, folder, {}, None, error)

    def _composition(self, shape: tuple[str | None, ...], overrides: Sequence[_Override]) -> _Composition:
        """The composition of a job; may reuse that of an earlier job and replace its values."""
        if None in shape or _overlap([one.key for one in overrides if not one.is_group]):
            return _Composition(self._load(overrides), [])
        if shape not in self._shared:
            self._shared[shape] = None  # kept if Hydra refuses the job: its message may name the job's values
            full = self._load(overrides)
            if not _may_share(full, overrides):
                return _Composition(full, [])
            keys = [one.key for one in overrides if one.is_replaceable]
            self._shared[shape] = _Composition(full, keys, is_shared=True)
        shared = self._shared[shape]
        if shared is not None:
            try:
                shared.replace_values(overrides)
                return shared
            except Exception:  # the type of a key refuses the value: Hydra reports it
                pass
        return _Composition(self._load(overrides), [])

    def _load(self, overrides: Sequence[_Override]) -> DictConfig:
        return self._loader.load_sweep_config(self._config, [one.text for one in overrides])

    def _read(self, text: str) -> _Override:
        if (number := _assigned_number(text)) is not None and number[0] not in self._groups:
            key, value = number
            return _Override(text, f"{key}=", key, is_replaceable=True, value=value)
        try:
            parsed = self._parser.parse_override(text)
        except Exception:  # Hydra reports it when it composes the job
            return _Override(text)
        key, value = parsed.key_or_group, parsed.value()
        if parsed.is_sweep_override() or isinstance(value, dict) or parsed.is_hydra_override() or key == "hydra":
            return _Override(text)
        if key in self._groups:
            return _Override(text, text, key, is_group=True)
        assigns = parsed.type in (OverrideType.CHANGE, OverrideType.FORCE_ADD) and parsed.package is None
        if not assigns or not _KEY.fullmatch(key):
            return _Override(text)
        # Interpolations, missing values and mappings inside of lists are not plain values.
        if "{" in text or "???" in text or not isinstance(value, (bool, int, float, str, list, type(None))):
            return _Override(text, text, key)
        # A list cannot be assigned where the files have a mapping, so lists have a separate shape.
        shape = f"{parsed.get_key_element()}={'[' if isinstance(value, list) else ''}"
        return _Override(text, shape, key, is_replaceable=True, value=value)


class _Composition:
    """The composition of one job, and of the jobs that differ from it in the values of ``keys``.

    It keeps the two configurations that Hydra has: the full one, and that of the task, in which no interpolation can
    refer to ``hydra``.
    """

    def __init__(self, full: DictConfig, keys: Sequence[str], is_shared: bool = False) -> None:
        self._full = full
        self._is_shared = is_shared
        self._direct: DirectJobs | None = None
        self._task = copy.deepcopy(full)
        with read_write(self._task), open_dict(self._task):
            del self._task["hydra"]
        content: Any = OmegaConf.to_container(full)
        self._raw: Any = dict(content)
        self._paths: list[KeyPath] = [tuple(key.split(".")) for key in keys]
        self._documents = Documents(content, self._paths)
        hydra = content.pop("hydra")
        self._texts: list[str] = hydra["overrides"]["task"]
        self._dirname: str = hydra["job"]["override_dirname"]
        self._naming: dict[str, Any] = hydra["job"]["config"]["override_dirname"]
        # Sections that differ between jobs; the others are resolved as they are.
        self._content = content
        replaced = {path[0] for path in self._paths}
        self._differing = [name for name, value in content.items() if name in replaced or "${" in str(value)]

    def replace_values(self, overrides: Sequence[_Override]) -> None:
        """Turn this into the composition of another job of the same shape.

        Raises:
            Exception: a key does not accept a value.
        """
        for index, one in enumerate(overrides):
            if one.text != self._texts[index]:
                self._texts[index] = ""  # unknown until the update has succeeded
                OmegaConf.update(self._full, one.key, one.value)
                OmegaConf.update(self._task, one.key, one.value)
                self._full.hydra.overrides.task[index] = self._texts[index] = one.text
        self._dirname = self._dirname_of(overrides)
        self._full.hydra.job.override_dirname = self._dirname

    def _dirname_of(self, overrides: Sequence[_Override]) -> str:
        named = sorted(one.text for one in overrides if one.key not in self._naming["exclude_keys"])
        return re.sub("=", self._naming["kv_sep"], self._naming["item_sep"].join(named))

    def direct_job(self, number: int, overrides: Sequence[_Override]) -> ComposedJob | None:
        """Another job of the same shape, if putting its values in is all that Hydra would do."""
        values = [one.value for one in overrides if one.is_replaceable]
        if self._direct is None or not all(map(is_plain_value, values)):
            return None
        texts = tuple(one.text for one in overrides)
        of_record = dict(zip(self._paths, values, strict=True))
        subdir = self._raw["hydra"]["output_subdir"]
        record = HydraRecord(self._documents, of_record, number, texts, self._dirname_of(overrides), subdir)
        plain = self._direct.plain(values)
        return ComposedJob(number, texts, Path(self._direct.folder(number)), plain, record, None)

    def job(self, number: int, sweep: DictConfig) -> ComposedJob:
        """Build the job in the order of Hydra's ``run_job``.

        Args:
            number: of the job.
            sweep: configuration of the sweep; cached results of its resolvers are the same in all jobs.

        Raises:
            Exception: its folder cannot be resolved; other errors are stored in the job.
        """
        full, task = self._full, self._task
        OmegaConf.copy_cache(sweep, full)
        state: Any = HydraConfig.instance()
        state_before = state.cfg
        state.cfg = full  # what the resolver "hydra" reads
        try:
            full.hydra.job.update({"num": number, "id": number})
            full.hydra.runtime.output_dir = "???"
            folders = [str(OmegaConf.select(full, f"hydra.sweep.{name}")) for name in ("dir", "subdir")]
            output_dir = os.path.abspath(os.path.join(*folders))  # noqa: PTH100, PTH118  # as Hydra does it
            full.hydra.runtime.output_dir = output_dir
            OmegaConf.copy_cache(full, task)
            subdir = full.hydra.output_subdir
            plain, error = {}, None
            try:
                plain = self._resolved()
            except Exception as raised:  # as in _Composer.compose
                error = raised
        finally:
            state.cfg = state_before
        if self._is_shared and error is None:
            self._direct = direct_jobs(full, self._raw, plain, self._paths)
            self._is_shared = False
        texts = tuple(self._texts)
        # Replaced values hold no interpolations: resolved or not, they are the same.
        content: Any = OmegaConf.to_container(task) if error else plain
        values = {path: copy.deepcopy(functools.reduce(operator.getitem, path, content)) for path in self._paths}
        record = HydraRecord(self._documents, values, number, texts, self._dirname, subdir)
        return ComposedJob(number, texts, Path(output_dir), plain, record, error)

    def _resolved(self) -> dict[str, Any]:
        """The configuration of the task as plain dicts; OmegaConf resolves only the sections that differ."""
        try:
            differing = {name: _plain(self._task[name]) for name in self._differing}
        except Exception:  # resolve everything: then OmegaConf's message names the full key
            return _plain(self._task)
        return copy.deepcopy(self._content) | differing


def _assigned_number(text: str) -> tuple[str, int | float] | None:
    """Key and value of an override that assigns a number; ``None`` for any other, which Hydra's grammar reads."""
    key, _, written = text.partition("=")
    value = as_number(written)
    is_key = value is not None and _KEY.fullmatch(key) and key.partition(".")[0] != "hydra"
    return (key, value) if is_key and value is not None else None


def _overlap(keys: Sequence[str]) -> bool:
    """Whether a key occurs twice or is below another key."""
    ordered = sorted(f"{key}." for key in keys)
    return any(after.startswith(before) for before, after in itertools.pairwise(ordered))


def _may_share(full: DictConfig, overrides: Sequence[_Override]) -> bool:
    """Whether jobs with other values assign them to the same keys of the composition."""
    hydra: Any = OmegaConf.to_container(full.hydra)
    # Hydra resolves these while it composes.
    if "${" in str([hydra["job"][name] for name in ("name", "config", "env_copy")]):
        return False
    assigned = [one.key for one in overrides if not one.is_group]
    # A group that only the chosen files define looks like a key.
    return hydra["runtime"]["choices"].keys().isdisjoint(assigned) and all(_is_direct(full, key) for key in assigned)


def _is_direct(config: DictConfig, key: str) -> bool:
    """Whether no interpolation redirects the path of a key to another section."""
    node: Any = config
    for name in key.split(".")[:-1]:
        if OmegaConf.is_interpolation(node, name):
            return False
        node = node[name]
    return True


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
