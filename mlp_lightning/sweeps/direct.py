"""Jobs that follow from a composed one by putting their values in its place, without OmegaConf.

That is exact where no interpolation reads a value that the jobs differ in, where the keys have no type that would
convert or refuse a value, and where the folder of a job is named by its number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf

from mlp_lightning.config.updates import holds_value, with_value
from mlp_lightning.sweeps.hydra_record import KeyPath

_NAME = r"[A-Za-z_]\w*"
# Interpolations of one key, by its full path; perhaps with a value for the case that it is not there.
_REFERENCE = re.compile(rf"\$\{{(?:oc\.select:)?({_NAME}(?:\.{_NAME})*)(?:,[\w.+-]*)?\}}", re.ASCII)
_BY_NUMBER = ("${hydra.job.num}", "${hydra:job.num}")


class DirectJobs:
    """Makes the configurations of the jobs of one shape.

    Args:
        plain: the resolved configuration of one of them, without ``hydra``; it is not changed afterwards.
        paths: where the jobs have other values.
        sweep_dir: the folder of the sweep.
    """

    def __init__(self, plain: Mapping[str, Any], paths: Sequence[KeyPath], sweep_dir: str) -> None:
        self._plain = plain
        self._paths = paths
        self._sweep_dir = sweep_dir
        # Equal sections are the same objects, so that they are checked and written out once.
        self._sections: dict[tuple[str, str], Any] = {}
        self._by_section: dict[str, list[tuple[int, KeyPath]]] = {}
        for index, path in enumerate(paths):
            self._by_section.setdefault(path[0], []).append((index, path[1:]))

    def plain(self, values: Sequence[Any]) -> dict[str, Any]:
        """The configuration with these values at the paths."""
        plain = dict(self._plain)
        for name, places in self._by_section.items():
            key = name, repr([values[index] for index, _ in places])
            if key not in self._sections:
                section = plain[name]
                for index, below in places:
                    section = with_value(section, below, values[index]) if below else values[index]
                self._sections[key] = section
            plain[name] = self._sections[key]
        return plain

    def folder(self, number: int) -> str:
        """The run folder of a job."""
        return os.path.abspath(os.path.join(self._sweep_dir, str(number)))  # noqa: PTH100, PTH118  # as Hydra does it


def direct_jobs(
    full: DictConfig, content: Mapping[str, Any], plain: Mapping[str, Any], paths: Sequence[KeyPath]
) -> DirectJobs | None:
    """What makes the other jobs of a shape; ``None`` where OmegaConf has to.

    Args:
        full: configuration of one of them, as Hydra has composed it.
        content: the same as plain data, unresolved.
        plain: resolved, without ``hydra``.
        paths: where the jobs have other values.
    """
    hydra = content["hydra"]
    folder, output_subdir = hydra["sweep"], hydra["output_subdir"]
    if "${" in f"{folder['dir']}{output_subdir}" or folder["subdir"] not in _BY_NUMBER:
        return None
    task = {name: value for name, value in content.items() if name != "hydra"}
    for text in _texts(task):
        keys = [tuple(one.split(".")) for one in _REFERENCE.findall(text)]
        if "$" in _REFERENCE.sub("", text) or any(_meet(key, path) for key in keys for path in paths):
            return None
    if not all(holds_value(content, path) and _takes_anything(full, path) for path in paths):
        return None
    return DirectJobs(plain, paths, str(folder["dir"]))


def _texts(content: Any) -> Iterator[str]:
    """The texts among values that hold a dollar sign."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _texts(value)
            yield from _texts(name)
    elif isinstance(content, (list, tuple)):
        for one in content:
            yield from _texts(one)
    elif isinstance(content, str) and "$" in content:
        yield content


def _meet(key: KeyPath, path: KeyPath) -> bool:
    """Whether one of two paths leads to or through the other."""
    length = min(len(key), len(path))
    return key[:length] == path[:length]


def _takes_anything(full: DictConfig, path: KeyPath) -> bool:
    """Whether a value is assigned to a key as it is."""
    node: Any = full
    for name in path:
        if OmegaConf.is_readonly(node) or OmegaConf.get_type(node) is not dict:
            return False
        node = node._get_node(name)
    return type(node) is AnyNode or (
        isinstance(node, ListConfig) and node._metadata.ref_type is Any and node._metadata.element_type is Any
    )
