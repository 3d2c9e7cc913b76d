"""Writes a report: finds out what there is at a path, and puts its sections on one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.loading import run_dir_of
from mlp_lightning.inference.report.page import page
from mlp_lightning.inference.report.run import run_section
from mlp_lightning.inference.report.sweep import sweep_section
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.version import version_text


@dataclasses.dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        path: of the page.
        bytes: its size.
    """

    path: Path
    bytes: int


def report(
    path: str | Path,
    output: str | Path = "report.html",
    lang: str = "en",
    rows: int = 300,
    seed: int = 0,
    allow_targets: Sequence[str] = (),
    scripts: Path | None = None,
) -> Written:
    """Write a page of what a run, a sweep or a model learned. It opens from the disk and asks no host for anything.

    Args:
        path: a run folder, a folder of runs, or a checkpoint.
        output: the page, ``.html``; an earlier one is replaced.
        lang: ``en`` or ``ko``.
        rows: most rows of the table of each split that the page holds.
        seed: of the permutations, and of the rows that are drawn.
        allow_targets: packages of the user's own that a network or a data set may be imported from.
        scripts: folder of the scripts that the commands on the page name; ``None``: installed commands.

    Raises:
        ConfigError: ``output`` is no name of a page.
        CheckpointError, RunFolderError: what is there cannot be read.
        OSError: the page cannot be written.
    """
    path, output = Path(path).expanduser(), Path(output).expanduser()
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise ConfigError([Fault("output", str(output), "must be the name of a page that ends in .html")])
    programs = _Programs(scripts)
    content: dict[str, Any] = {"run": None, "sweep": None, "version": version_text()}
    data: dict[str, Any] = {}
    checkpoint = path if path.is_file() else None
    folder = path if checkpoint is None else run_dir_of(checkpoint)
    if checkpoint is not None or ((folder / "config.yaml").is_file() and not (folder / "fold-0").is_dir()):
        content["run"], data = run_section(folder, checkpoint, lang, rows, seed, allow_targets, programs)
    else:
        content["sweep"], data["sweep"] = sweep_section(folder)
    content["title"] = (content["run"] or content["sweep"])["title"]
    written = page(lang, content, data)
    with atomic_write(output) as file:
        file.write(written)
    return Written(output, len(written))


class _Programs:
    """The commands of this package, as the reader of a page types them."""

    def __init__(self, scripts: Path | None) -> None:
        self._scripts = scripts

    def __call__(self, name: str) -> str:
        if self._scripts is None:
            return f"mlp-{name}"
        return f"python {(self._scripts / name).with_suffix('.py').as_posix()}"
