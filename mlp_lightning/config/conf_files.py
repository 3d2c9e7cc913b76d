"""Where the Hydra configuration files are, and what their options say without composing anything."""

from __future__ import annotations

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
