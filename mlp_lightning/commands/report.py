"""The command ``mlp-report`` (``scripts/report.py``): a page of what a run, a sweep or a model learned."""

from __future__ import annotations

import sys
from pathlib import Path

from mlp_lightning.commands.inference import checkpoint_of, run_command
from mlp_lightning.config.free_names import hydra_text
from mlp_lightning.config.inference import ReportConfig
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.runs.checkpoint_files import why_no_file
from mlp_lightning.runs.packed.reading import is_packed_sweep
from mlp_lightning.runs.packed.resolving import unpacked
from mlp_lightning.sweeps.records import run_folders

_WHICH = "name a run folder, the folder of a sweep, a .ckpt file, or best for the newest run"

# Hydra's options whose value is the next word.
_TAKE_A_VALUE = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
)


def main() -> None:
    """Write the report that the command line of this process asks for; ends the process with its exit code."""
    sys.argv[1:] = with_path_named(sys.argv[1:])
    run_command("report", ReportConfig, {"path": _WHICH}, _report, find)


def with_path_named(words: list[str]) -> list[str]:
    """The words of a command line, in which the first that is no option and no override is the value of ``path``."""
    for number, word in enumerate(words):
        if number and words[number - 1] in _TAKE_A_VALUE:
            continue
        if not word.startswith("-") and ("=" not in word or Path(word).exists()):
            return [*words[:number], f"path={hydra_text(word)}", *words[number + 1 :]]
    return words


def find(wanted: str) -> Path:
    """The folder or the checkpoint that ``path`` names.

    Raises:
        ConfigError: there is none.
    """
    if wanted in ("best", "last"):
        return checkpoint_of(wanted, "path").parents[1]
    path = unpacked(Path(wanted).expanduser())
    if not path.is_dir() and (reason := why_no_file(path)):
        raise ConfigError([Fault("path", wanted, reason, _WHICH)])
    if path.is_dir() and not is_packed_sweep(path) and next(run_folders(path), None) is None:
        raise ConfigError([Fault("path", wanted, "has no run (a folder with config.yaml) in it or below", _WHICH)])
    return path


def _report(options: ReportConfig, path: Path) -> None:
    from mlp_lightning.inference.report.report import report
    from mlp_lightning.runs.console import RunConsole

    scripts = Path(sys.argv[0]).parent
    written = report(
        path,
        options.output,
        options.lang,
        options.rows,
        options.seed,
        options.allow_targets,
        scripts if (scripts / "train.py").is_file() else None,
    )
    RunConsole(options.verbosity).line(f"Report: {written.path} ({written.bytes:,} bytes)")
