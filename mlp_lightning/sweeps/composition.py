"""Composes the jobs of a sweep: what Hydra composes for each of them, at a fraction of the time.

Hydra reads and merges every configuration file anew for every job, which takes longer than training a small
network. But jobs with the same choice of files differ only in the values that they assign. So Hydra composes
one job of each such kind, and for the others the values are exchanged in its outcome, with the operation that
Hydra itself applies to them (``OmegaConf.update``); after that, what depends on them is resolved anew.

That is the same only while assigning one value never decides how another override is applied. So Hydra itself
composes every job with an override of which this is not certain: one that adds (``+``), deletes (``~``) or
merges (a mapping), one below or above the key of another, one whose key leads through an interpolation.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, open_dict, read_write

from mlp_lightning.sweeps.hydra_record import Documents, HydraRecord, rendered, replaced

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_INTERPOLATION = re.compile(r"\$\{(?:\s*([\w.]+)\s*:)?([^${}]*)\}", re.ASCII)
# Resolvers that read the one key that they name first, and those that read none. Any other might read anything.
_READS_KEY = ("oc.select", "oc.dict.keys", "oc.dict.values")
_READS_NOTHING = ("now", "oc.env", "python_version")


@dataclasses.dataclass(frozen=True)
class ComposedJob:
    """One job of a sweep, ready to run."""

    number: int  # hydra.job.num
    overrides: tuple[str, ...]  # hydra.overrides.task
    output_dir: Path  # absolute; hydra.runtime.output_dir
    plain: dict[str, Any]  # the resolved configuration without hydra; {} if there is an error
    record: HydraRecord | None  # what .hydra will hold; None if nothing could be composed
    error: Exception | None  # what went wrong with this job alone


def compose_jobs(
    config_loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[ComposedJob]:
    """Compose every job of a batch, with the outcome that Hydra's launchers have.

    Args:
        config_loader: Hydra's, ``hydra_context.config_loader``.
        config: the configuration of the sweep, as ``Launcher.setup`` receives it.
        job_overrides: the overrides of each job, as ``Launcher.launch`` receives them.
        initial_job_idx: number of the first job.

    Returns:
        The jobs in their order. A job that cannot be composed has its ``error``, which is the exception that
        Hydra or OmegaConf raised; the others are not affected by it.
    """
    composer = _Composer(config_loader, config)
    return [composer.compose(number, overrides) for number, overrides in enumerate(job_overrides, initial_job_idx)]


def write_hydra_folder(job: ComposedJob, output_dir: Path) -> None:
    """Write ``config.yaml``, ``hydra.yaml`` and ``overrides.yaml`` of a job, as Hydra does before it runs one.

    They go to ``hydra.output_subdir`` of ``output_dir``; nothing is written if that key is null or the job
    could not be composed. What is written says ``output_dir`` even where that is not ``job.output_dir``.

    Raises:
        OSError: when a file or folder cannot be written.
    """
    if job.record is not None:
        job.record.write(output_dir)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One override of a job and what it does to the configuration."""

    text: str
    parsed: Override | None = None  # None: Hydra cannot read it
    key: str = ""  # dotted, of an assignment
    exchangeable: bool = False  # an assignment of a plain value
    unsure: bool = True  # only Hydra knows
    value: Any = None
    yaml: str = ""  # the value in YAML

    @property
    def shape(self) -> str:
        """What is the same in jobs that may share a composition."""
        assert self.parsed is not None
        if not self.exchangeable:
            return self.text
        # A list may be assigned to fewer keys than another value: not where the files have a mapping.
        return f"{self.parsed.get_key_element()}={'[' if isinstance(self.value, list) else ''}"

    @property
    def of_hydra(self) -> bool:
        """Whether Hydra counts it as an override of its own configuration."""
        if self.parsed is not None:
            return self.parsed.is_hydra_override()
        return self.text.lstrip("+~").startswith(("hydra.", "hydra/"))


class _Composer:
    """Composes the jobs of one batch."""

    def __init__(self, config_loader: ConfigLoader, config: DictConfig) -> None:
        self._loader = config_loader
        self._config = config
        self._parser = OverridesParser.create()
        self._parts: dict[str, _Part] = {}
        self._groups: dict[str, bool] = {}
        # A composition for each shape of a job; None where each job needs one of its own.
        self._shared: dict[tuple[str, ...], _Composition | None] = {}
        # Read before any job is composed, as Hydra's launchers do, so that the time in it is that of all jobs.
        self._sweep_dir = OmegaConf.select(config, "hydra.sweep.dir", throw_on_resolution_failure=False)

    def compose(self, number: int, overrides: Sequence[str]) -> ComposedJob:
        parts = [self._part(text) for text in overrides]
        try:
            return self._composition(parts).job(number, parts)
        except Exception as error:  # whatever it is, it is the matter of this job alone
            task = tuple(part.text for part in parts if not part.of_hydra)
            folder = Path.cwd() / str(self._sweep_dir) / str(number)
            return ComposedJob(number, task, folder, {}, None, error)

    def _composition(self, parts: Sequence[_Part]) -> _Composition:
        """A composition whose values only need to be exchanged to be that of the job."""
        if any(part.unsure for part in parts) or _overlap([part.key for part in parts if part.key]):
            return _Composition(self._load(parts), [])
        shape = tuple(part.shape for part in parts)
        if shape in self._shared:
            return self._shared[shape] or _Composition(self._load(parts), [])
        self._shared[shape] = None  # what Hydra refuses here, it may refuse in words of each job's own
        full = self._load(parts)
        may_share = not _decided_while_composing(full) and all(_is_assignable(full, part) for part in parts)
        composition = _Composition(full, [part.key for part in parts if part.exchangeable] if may_share else [])
        if may_share:
            self._shared[shape] = composition
        return composition

    def _load(self, parts: Sequence[_Part]) -> DictConfig:
        return self._loader.load_sweep_config(self._config, [part.text for part in parts])

    def _part(self, text: str) -> _Part:
        if text not in self._parts:
            self._parts[text] = self._read(text)
        return self._parts[text]

    def _read(self, text: str) -> _Part:
        try:
            parsed = self._parser.parse_override(text)
        except Exception:  # Hydra will say what it is
            return _Part(text)
        key, value = parsed.key_or_group, parsed.value()
        if parsed.is_sweep_override() or isinstance(value, dict) or parsed.is_hydra_override() or key == "hydra":
            return _Part(text, parsed)
        if self._is_group(key):  # chooses files, before any value is assigned
            return _Part(text, parsed, unsure=False)
        if parsed.is_delete() or parsed.is_add() or parsed.package is not None or not _KEY.fullmatch(key):
            return _Part(text, parsed)
        if not _is_plain(value):
            return _Part(text, parsed, key, unsure=False)
        return _Part(text, parsed, key, exchangeable=True, unsure=False, value=value, yaml=rendered(value))

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            hydra = self._config.hydra
            given: Any = OmegaConf.to_container(hydra.overrides.hydra)  # may hold interpolations, as texts
            found = self._loader.get_group_options(
                key, results_filter=None, config_name=hydra.job.config_name, overrides=given
            )
            self._groups[key] = bool(found)
        return self._groups[key]


class _Composition:
    """What Hydra composed for one job, and the jobs that differ from it in the values of ``keys``.

    Both configurations that Hydra has are kept, the whole one and the task's, in which there is no ``hydra`` to
    refer to. Of what differs, only that is brought up to date in them to which an interpolation may refer.
    """

    def __init__(self, full: DictConfig, keys: Sequence[str]) -> None:
        self._full = full
        self._task: DictConfig = copy.deepcopy(full)
        with read_write(self._task), open_dict(self._task):
            del self._task["hydra"]
        self._cache = copy.deepcopy(OmegaConf.get_cache(full))  # values that must be the same in all jobs
        content: Any = OmegaConf.to_container(full, resolve=False, enum_to_str=True)
        self._documents = Documents(content, keys)
        self._keys = keys
        self._plain: Any = OmegaConf.to_container(self._task, resolve=False)
        self._interpolated = list(_interpolated(self._plain))
        self._is_read = _readers([text for _, text in _interpolated(content)])
        # A reader through which anything may be read, such as ${hydra:job.num}, looks at Hydra's global state.
        self._anything_is_read = self._is_read("")
        self._dirname: str = content["hydra"]["job"]["override_dirname"]
        naming = full.hydra.job.config.override_dirname
        self._naming: Any = {name: naming[name] for name in ("kv_sep", "item_sep")}
        self._naming["exclude_keys"] = list(naming.exclude_keys)

    def job(self, number: int, parts: Sequence[_Part]) -> ComposedJob:
        """The job with these overrides.

        Raises:
            Exception: when its folder cannot be told; other faults are in the job.
        """
        given = {part.key: part for part in parts}
        chosen = [given[key] for key in self._keys]
        task = [part for part in parts if not part.of_hydra]
        overrides = tuple(part.text for part in task)
        dirname = self._dirname
        if chosen:
            dirname = get_overrides_dirname([part.parsed for part in task if part.parsed is not None], **self._naming)
        with _kept_hydra_config():
            output_dir = self._enter(number, chosen, overrides, dirname)
            subdir = self._full.hydra.output_subdir
            yaml = tuple(part.yaml for part in chosen)
            record = HydraRecord(self._documents, number, overrides, dirname, yaml, subdir)
            try:
                plain, error = self._resolved(chosen), None
            except Exception as raised:  # as in _Composer.compose
                plain, error = {}, raised
        return ComposedJob(number, overrides, Path(output_dir), plain, record, error)

    def _enter(self, number: int, chosen: Sequence[_Part], overrides: Sequence[str], dirname: str) -> str:
        """Make the configurations those of one job, in the order of Hydra's ``run_job``; returns its folder."""
        full = self._full
        OmegaConf.set_cache(full, self._cache)
        for part in chosen:
            if self._is_read(part.key):
                OmegaConf.update(full, part.key, part.value)
                OmegaConf.update(self._task, part.key, part.value)
        fields = {"job.num": number, "job.id": number, "job.override_dirname": dirname, "overrides.task": overrides}
        self._set_hydra(fields)
        if self._anything_is_read:
            HydraConfig.instance().set_config(full)
        places = [str(OmegaConf.select(full, f"hydra.sweep.{name}")) for name in ("dir", "subdir")]
        output_dir = os.path.abspath(os.path.join(*places))  # noqa: PTH100, PTH118  # as Hydra does it
        self._set_hydra({"runtime.output_dir": output_dir})
        if self._anything_is_read:
            HydraConfig.instance().set_config(full)
        OmegaConf.copy_cache(full, self._task)
        return output_dir

    def _set_hydra(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if self._is_read(f"hydra.{name}"):
                with read_write(self._full.hydra), open_dict(self._full.hydra):
                    OmegaConf.update(self._full.hydra, name, list(value) if isinstance(value, tuple) else value)

    def _resolved(self, chosen: Sequence[_Part]) -> dict[str, Any]:
        """The job's configuration as plain dicts; only what has interpolations is worked out by OmegaConf."""
        plain: Any = _copied(self._plain)
        try:
            for part in chosen:
                plain = replaced(plain, part.key.split("."), _copied(part.value))
            for path, _ in self._interpolated:
                place: Any = plain
                node: Any = self._task
                for name in path[:-1]:
                    place, node = place[name], node._get_node(name)
                value = node[path[-1]]
                place[path[-1]] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except Exception:
            # Whatever it is, OmegaConf shall say it as it does when all is resolved at once.
            for part in chosen:
                OmegaConf.update(self._task, part.key, part.value)
            plain = OmegaConf.to_container(self._task, resolve=True)
        return plain


@contextlib.contextmanager
def _kept_hydra_config() -> Iterator[None]:
    """Leave Hydra's global configuration as it was."""
    instance = HydraConfig.instance()
    before = instance.cfg
    try:
        yield
    finally:
        instance.cfg = before


# ---- what may be exchanged -----------------------------------------------------------------------------------


def _is_plain(value: Any) -> bool:
    """Whether a value means only itself: neither an interpolation nor a missing value nor a mapping."""
    if isinstance(value, list):
        return all(_is_plain(one) for one in value)
    if isinstance(value, str):
        return "${" not in value and value != "???"
    return value is None or isinstance(value, (bool, int, float))


def _overlap(keys: Sequence[str]) -> bool:
    """Whether a key is there twice or lies below another."""
    ordered = sorted(f"{key}." for key in keys)
    return any(after.startswith(before) for before, after in itertools.pairwise(ordered))


def _is_assignable(full: DictConfig, part: _Part) -> bool:
    """Whether an assignment leads to its key through mappings only and, if exchangeable, takes any plain value."""
    if not part.key:
        return True
    node: Any = full
    for name in part.key.split("."):
        if type(node) is not DictConfig or node._is_interpolation() or node._is_none() or node._is_missing():
            return False
        node = node._get_node(name)
    if not part.exchangeable or type(node) is AnyNode:
        return True
    kind = node._metadata if type(node) is ListConfig else None
    return kind is not None and kind.ref_type is Any and kind.element_type is Any


def _decided_while_composing(full: DictConfig) -> bool:
    """Whether Hydra resolves something while it composes, which values that are exchanged later would change."""
    job: Any = OmegaConf.to_container(full.hydra.job, resolve=False)
    return any(True for _ in _interpolated({"of": [job["config"], job["env_copy"]]}))


# ---- interpolations ------------------------------------------------------------------------------------------


def _interpolated(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every text with an interpolation in nested dicts and lists, with its path."""
    if isinstance(content, str):
        if "${" in content:
            yield path, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _interpolated(value, (*path, key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _interpolated(value, (*path, index))


def _readers(texts: Sequence[str]) -> Callable[[str], bool]:
    """A function that tells whether an interpolation may read a key; of the key "", whether one may read any."""
    read: set[str] = set()
    for text in texts:
        keys = _keys_read(text)
        if keys is None:
            return lambda key: True
        read.update(keys)
    parents = {key.rsplit(".", dots)[0] for key in read for dots in range(key.count(".") + 1)}

    def is_read(key: str) -> bool:
        # A key is read with the section that holds it, and with what it holds.
        return key in parents or any(key.rsplit(".", dots)[0] in read for dots in range(1, key.count(".") + 1))

    return is_read


def _keys_read(text: str) -> set[str] | None:
    """The keys to which the interpolations of a text refer, or ``None`` if they cannot be told."""
    keys: set[str] = set()
    for resolver, inner in _INTERPOLATION.findall(text):
        if resolver in _READS_NOTHING:
            continue
        key = inner.strip() if not resolver else inner.split(",")[0].strip().strip("'\"")
        if (resolver and resolver not in _READS_KEY) or not _KEY.fullmatch(key):
            return None
        keys.add(key)
    # What is left over is nested or has brackets: more than this reads.
    return None if "${" in _INTERPOLATION.sub("", text) else keys


def _copied(content: Any) -> Any:
    """Nested dicts and lists anew; what they hold besides is never changed."""
    if isinstance(content, dict):
        return {key: _copied(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_copied(one) for one in content]
    return content
