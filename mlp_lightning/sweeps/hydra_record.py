"""Writes a job's ``.hydra`` folder with the content that Hydra writes, without dumping YAML anew for each job.

The jobs of a sweep differ in a few values. So the YAML of one of them is made once with gaps where they differ
(:class:`Documents`), and a job's :class:`HydraRecord` holds what belongs into the gaps.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import is_float, is_int, yaml_is_bool

# A text with one of = and / that begins with a letter or / is a text to every reader of YAML: no number, no
# truth value, no date, no null. Most overrides and folders are of this kind, and asking PyYAML takes long.
_PLAIN_TEXT = re.compile(r"(?=.*[=/])[A-Za-z_/][\w./=,-]*", re.ASCII)
_ONE_LINE = 2**31 - 1  # width that never wraps
_OVERRIDES = ("hydra", "overrides", "task")
_HYDRA_GAPS = (
    _OVERRIDES,
    ("hydra", "job", "override_dirname"),
    ("hydra", "job", "id"),
    ("hydra", "job", "num"),
    ("hydra", "runtime", "output_dir"),
)


# In C, where PyYAML was built with it.
_FastestDumper: Any = getattr(yaml, "CDumper", yaml.Dumper)


class _Dumper(_FastestDumper):
    """Dumps texts as OmegaConf does: quoted when OmegaConf would read a number or a truth value."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> yaml.ScalarNode:
    quoted = yaml_is_bool(text) or is_int(text) or is_float(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


_Dumper.add_representer(str, _represent_text)


def rendered(value: Any) -> str:
    """A value as one line of YAML that may stand behind ``key:`` or ``-``."""
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value):
        return value
    line = _dumped(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
    if "\n" in line:  # a text of several lines: they become \n inside double quotes
        line = _dumped(value, default_flow_style=True, default_style='"').removesuffix("\n")
    return line


# The same few overrides come back in job after job.
_rendered_override = functools.lru_cache(maxsize=4096)(rendered)


def _dumped(content: Any, **style: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_ONE_LINE, **style)


class _Document:
    """The YAML of nested dicts with gaps at some of their keys."""

    def __init__(self, content: dict[str, Any], gaps: Sequence[tuple[str, ...]]) -> None:
        mark = f"gap{uuid.uuid4().hex}"
        for number, path in enumerate(gaps):
            content = replaced(content, path, f"{mark}_{number}_")
        text = _dumped(content, default_flow_style=False)
        self._pieces = re.split(f" {mark}_([0-9]+)_", text)
        assert len(self._pieces) == 2 * len(gaps) + 1

    def filled(self, fillings: Sequence[str]) -> str:
        """The text with ``fillings`` in the order of the gaps; each brings its white space along."""
        pieces = list(self._pieces)
        pieces[1::2] = [fillings[int(number)] for number in pieces[1::2]]
        return "".join(pieces)


class Documents:
    """``config.yaml`` and ``hydra.yaml`` of jobs that differ only in the values of some keys.

    Args:
        content: the unresolved configuration of one of the jobs as plain dicts, with its ``hydra`` section.
        keys: dotted keys, none of them in ``hydra``, whose values differ between the jobs.
    """

    def __init__(self, content: dict[str, Any], keys: Sequence[str]) -> None:
        task = {key: value for key, value in content.items() if key != "hydra"}
        self._task = _Document(task, [tuple(key.split(".")) for key in keys])
        self._hydra = _Document({"hydra": content["hydra"]}, _HYDRA_GAPS)

    def config_yaml(self, values: Sequence[str]) -> str:
        """The text of ``config.yaml`` with rendered values in the order of the keys."""
        return self._task.filled([f" {value}" for value in values])

    def hydra_yaml(self, number: int, overrides: Sequence[str], override_dirname: str, output_dir: str) -> str:
        """The text of ``hydra.yaml``."""
        lines = "".join(f"\n    - {_rendered_override(text)}" for text in overrides)
        fields = [rendered(override_dirname), f"'{number}'", str(number), rendered(output_dir)]
        return self._hydra.filled([lines or " []", *(f" {field}" for field in fields)])


@dataclasses.dataclass(frozen=True)
class HydraRecord:
    """What a job's ``.hydra`` folder holds."""

    documents: Documents
    number: int
    overrides: tuple[str, ...]  # of the task
    override_dirname: str
    values: tuple[str, ...]  # rendered, in the order of the documents' keys
    output_subdir: str | None  # null: no such folder is wanted

    def write(self, output_dir: Path) -> None:
        """Write the folder into ``output_dir``, making it if need be.

        Raises:
            OSError: when a file or folder cannot be written.
        """
        if self.output_subdir is None:
            return
        target = os.path.abspath(output_dir)  # noqa: PTH100  # as Hydra does it: links stay as they are
        folder = Path(target, self.output_subdir)
        folder.mkdir(parents=True, exist_ok=True)
        overrides = "".join(f"- {_rendered_override(text)}\n" for text in self.overrides) or "[]\n"
        files = {
            "config.yaml": self.documents.config_yaml(self.values),
            "hydra.yaml": self.documents.hydra_yaml(self.number, self.overrides, self.override_dirname, target),
            "overrides.yaml": overrides,
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")


def replaced(content: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested dicts with another value at ``path``; shares what lies beside the path."""
    first, *rest = path
    return {**content, first: replaced(content[first], rest, value) if rest else value}
