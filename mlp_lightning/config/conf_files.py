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
def option_names(group: str) -> tuple[str, ...]:
    """The options of a configuration group, by the names of their files."""
    return tuple(sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")))


@functools.cache
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
def conf_text(name: str) -> str:
    """The text of one file, such as ``train`` or ``model/wide``."""
    return (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8")


@functools.cache
def conf_file(name: str) -> dict[str, Any]:
    """The content of one file, values not interpolated. It is shared: change nothing in it."""
    return yaml.safe_load(conf_text(name)) or {}


@functools.cache
def optimizer_option(class_name: str) -> str | None:
    """The option of the group ``optimizer`` that describes a class; ``None`` if none does."""
    options = (one for one in option_names("optimizer") if conf_file(f"optimizer/{one}").get("name") == class_name)
    return next(options, None)


def optimizer_arguments(class_name: str) -> dict[str, Any] | None:
    """Arguments of an optimizer class with their defaults, read from its file in ``conf/optimizer``.

    That file is the one place that lists them, so a new optimizer is one new file. Returns ``None`` for a
    class that no shipped file describes (one from a configuration folder of the user's own).
    """
    option = optimizer_option(class_name)
    if option is None:
        return None
    return {key: value for key, value in conf_file(f"optimizer/{option}").items() if key not in ("name", "lr")}
