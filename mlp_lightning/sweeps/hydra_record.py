"""Writes a job's ``.hydra`` folder with the same content as Hydra, without dumping all of the YAML for each job.

The jobs of a sweep differ in a few values. So the YAML of one job is kept in pieces (:class:`Documents`), and the
:class:`HydraRecord` of each job has the values of the pieces that differ.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[Any, ...]  # of a value in nested dicts, from the outermost key to the innermost
_NUMBER: KeyPath = ("hydra", "job", "num")
_NUMBER_AS_TEXT: KeyPath = ("hydra", "job", "id")
_OVERRIDE_DIRNAME: KeyPath = ("hydra", "job", "override_dirname")
_OVERRIDES: KeyPath = ("hydra", "overrides", "task")
_OUTPUT_DIR: KeyPath = ("hydra", "runtime", "output_dir")
_DIFFERING = (_NUMBER, _NUMBER_AS_TEXT, _OVERRIDE_DIRNAME, _OVERRIDES, _OUTPUT_DIR)

# OmegaConf reads more texts as numbers than PyYAML, for example 1e-3.
_LIKE_A_NUMBER = re.compile(r"[-+.\d][-+.\d_:eE]*", re.ASCII)
# The C implementation, if PyYAML was built with it.
_FastestDumper: Any = getattr(yaml, "CDumper", yaml.Dumper)


class _Dumper(_FastestDumper):
    """Dumps YAML that OmegaConf reads back: no aliases, and quotes around texts that look like numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> yaml.ScalarNode:
    style = "'" if _LIKE_A_NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(enum.Enum, lambda dumper, member: _represent_text(dumper, member.name))


class _Document:
    """The YAML of nested dicts, with a replaceable piece for each of ``paths``; no path is a prefix of another."""

    def __init__(self, content: Mapping[Any, Any], paths: Collection[KeyPath]) -> None:
        self._pieces = dict(_pieces(content, paths, ()))

        # What stays the same between two replaceable pieces is one text.
        self._texts: list[str | KeyPath] = []
        for path, piece in self._pieces.items():
            last = self._texts[-1] if self._texts else None
            if path in paths:
                self._texts.append(path)
            elif isinstance(last, str):
                self._texts[-1] = last + piece
            else:
                self._texts.append(piece)

    def text(self, values: Mapping[KeyPath, Any]) -> str:
        """The YAML with other values at some of the paths, which are replaceable."""
        pieces = [
            one if isinstance(one, str) else _piece(one, values[one]) if one in values else self._pieces[one]
            for one in self._texts
        ]
        return "".join(pieces) or "{}\n"


class Documents:
    """``config.yaml`` and ``hydra.yaml`` of jobs that differ in the values at some paths.

    Args:
        content: the unresolved configuration of one of the jobs, with its ``hydra`` section.
        paths: those outside of ``hydra``. No path is a prefix of another.
    """

    def __init__(self, content: Mapping[str, Any], paths: Collection[KeyPath]) -> None:
        self.config = _Document({key: value for key, value in content.items() if key != "hydra"}, paths)
        self.hydra = _Document({"hydra": content["hydra"]}, _DIFFERING)


@dataclasses.dataclass(frozen=True)
class HydraRecord:
    """The content of a job's ``.hydra`` folder."""

    documents: Documents
    values: Mapping[KeyPath, Any]  # at the paths of the documents
    number: int
    overrides: Sequence[str]  # of the task
    override_dirname: str
    output_subdir: str | None  # None: no such folder is written

    def texts(self, output_dir: Path) -> dict[str, str]:
        """The content of each file of a folder in ``output_dir``; none if Hydra writes none."""
        if self.output_subdir is None:
            return {}
        target = os.path.abspath(output_dir)  # noqa: PTH100  # as Hydra does it: links stay as they are
        overrides = list(self.overrides)
        values = (self.number, str(self.number), self.override_dirname, overrides, target)
        return {
            "config.yaml": self.documents.config.text(self.values),
            "hydra.yaml": self.documents.hydra.text(dict(zip(_DIFFERING, values, strict=True))),
            "overrides.yaml": _list(overrides),
        }

    def write(self, output_dir: Path) -> None:
        """Write the folder into ``output_dir``. Creates the folders that do not exist.

        Raises:
            OSError: a file or folder cannot be written.
        """
        if self.output_subdir is None:
            return
        folder = os.path.join(output_dir, self.output_subdir)  # noqa: PTH118  # twice as fast as Path
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103  # likewise
        for name, text in self.texts(output_dir).items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:  # noqa: PTH118, PTH123  # likewise
                file.write(text)


def _pieces(content: Mapping[Any, Any], paths: Collection[KeyPath], above: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """The YAML of every replaceable value, and of the text between them."""
    for key, value in content.items():
        path = (*above, key)
        if any(other[: len(path)] == path and other != path for other in paths):
            yield path, _piece(path, 0).removesuffix(" 0\n") + "\n"
            yield from _pieces(value, paths, path)
        else:
            yield path, _piece(path, value)


def _piece(path: KeyPath, value: Any) -> str:
    indent = "  " * (len(path) - 1)
    written = _as_it_is(value)
    if written is not None and _of_options(path[-1]):
        return f"{indent}{path[-1]}: {written}\n"
    if type(value) is list and value and _of_options(path[-1]):
        lines = [_as_it_is(one) for one in value]
        if None not in lines:
            return "".join([f"{indent}{path[-1]}:\n", *(f"{indent}- {one}\n" for one in lines)])
    return indent + _yaml({path[-1]: value}).removesuffix("\n").replace("\n", f"\n{indent}") + "\n"


def _list(values: Sequence[Any]) -> str:
    lines = [_as_it_is(one) for one in values]
    return "".join(f"- {line}\n" for line in lines) if lines and None not in lines else _yaml(list(values))


# Names of keys, overrides and paths that YAML takes as they are; words such as "no" and "null" are not among them.
_OPTION = re.compile(r"[a-z]+(_[a-z]+)+|seed|lr|num|id|task|depth|dropout|momentum", re.ASCII)
_OVERRIDE = re.compile(r"(\+\+)?[A-Za-z_][\w.]*=[\w.,=/+-]*|/[\w./+-]*", re.ASCII)
_DECIMAL = re.compile(r"\d+\.\d+", re.ASCII)


@functools.cache
def _of_options(key: Any) -> bool:
    return isinstance(key, str) and _OPTION.fullmatch(key) is not None


def _as_it_is(value: Any) -> str | None:
    """The YAML of a value that needs no emitter; ``None`` for any other."""
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return text if _DECIMAL.fullmatch(text := repr(value)) else None
    if type(value) is str:
        if value.isdecimal() and value.isascii():
            return f"'{value}'"
        return value if _OVERRIDE.fullmatch(value) else None
    return None


def _yaml(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
