"""Where the Hydra configuration files are, and what files say without composing or importing anything."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """Folder of the configuration files.

    In a checkout (an editable install) it is ``conf/`` beside the package, so that edits take effect; in an
    installed wheel it is the copy inside the package.
    """
    checkout = _PACKAGE.parent
    if (checkout / "conf" / "train.yaml").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / "conf"
    return _PACKAGE / "conf"


@functools.cache
def group_options(group: str) -> dict[str, dict[str, Any]]:
    """The files of one configuration group as ``{option name: its content}``, values not interpolated."""
    files = sorted((conf_dir() / group).glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) or {} for file in files}


def dict_keys(module: str, name: str) -> tuple[str, ...]:
    """The keys of a dict that a module of this package writes out, from its text: importing it would import torch.

    Args:
        module: path of the file below the package.
        name: of the annotated dict.
    """
    for node in ast.parse((_PACKAGE / module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert isinstance(node.value, ast.Dict)
            return tuple(str(one.value) for one in node.value.keys if isinstance(one, ast.Constant))
    raise AssertionError(f"{module} has no {name}")


@functools.cache
def optimizer_arguments(class_name: str) -> dict[str, Any] | None:
    """Arguments of an optimizer class with their defaults, read from its file in ``conf/optimizer``.

    That file is the one place that lists them, so a new optimizer is one new file. Returns ``None`` for a
    class that no shipped file describes (one from a configuration folder of the user's own).
    """
    for content in group_options("optimizer").values():
        if content.get("name") == class_name:
            return {key: value for key, value in content.items() if key not in ("name", "lr")}
    return None
