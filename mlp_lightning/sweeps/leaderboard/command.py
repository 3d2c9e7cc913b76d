"""The files and the table of a leaderboard, and the command that recreates them from run folders.

A sweep calls :func:`write_leaderboard` at its end; ``python scripts/leaderboard.py lightning_logs/…`` does the
same for the folders of one or several sweeps.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from mlp_lightning.errors import MLPLightningError
from mlp_lightning.runs.console import RunConsole, short_path
from mlp_lightning.runs.drawing import png_bytes
from mlp_lightning.sweeps.leaderboard.csv_file import write_csv
from mlp_lightning.sweeps.leaderboard.figure import draw_leaderboards, write_image_event, write_png
from mlp_lightning.sweeps.leaderboard.ranking import Leaderboard, build_leaderboards
from mlp_lightning.sweeps.leaderboard.table import print_leaderboard
from mlp_lightning.sweeps.records import RunRecord, read_records
from mlp_lightning.version import version_text

EXIT_FAILED, EXIT_WRONG_USE, EXIT_INTERRUPTED = 1, 2, 130


def write_leaderboard(
    records: Iterable[RunRecord], folder: Path, console: Console | None, program: str
) -> list[Leaderboard]:
    """Write ``leaderboard.csv``, ``leaderboard.png`` and TensorBoard's image into ``folder``; show the table.

    The table comes first, so that you see it even if the figure fails.

    Args:
        records: of all runs, in any order.
        folder: output folder, that of the sweep for a single one; created if it does not exist.
        console: output for the table; ``None`` shows none.
        program: the training program, e.g. ``python scripts/train.py``, for the command that repeats the best run.

    Returns:
        The leaderboards, one for every data set; none, and nothing is written, if there are no records.

    Raises:
        OSError: a file cannot be written. Each file of an earlier leaderboard is replaced completely or kept.
    """
    leaderboards = build_leaderboards(records, folder)
    if not leaderboards:
        return []
    table = write_csv(leaderboards)
    if console is not None:
        for one in leaderboards:
            print_leaderboard(one, console, program)
    png = png_bytes(draw_leaderboards(leaderboards))
    image = write_png(folder, png)
    write_image_event(folder, png)
    if console is not None:
        files = f"\nLeaderboard: {short_path(table)}, {image.name}"
        console.print(files, markup=False, highlight=False, soft_wrap=True)
    return leaderboards


def main() -> None:
    """Run the command of this process; ends the process with an exit code if there is an error."""
    arguments = _parser().parse_args()
    try:
        folder = _output_folder(arguments.paths, arguments.out)
        records = read_records(arguments.paths)
        if not records:
            _wrong_use(f"There is no run (a folder with config.yaml) at or below {_joined(arguments.paths)}")
        write_leaderboard(records, folder, _console(), _training_command())
    except MLPLightningError as error:
        _end(str(error), EXIT_FAILED)
    except OSError as error:
        _end(f"{type(error).__name__}: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _end("Interrupted.", EXIT_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Recreate the leaderboard of a sweep from its run folders, or make one across several sweeps:"
        " leaderboard.csv, leaderboard.png, the image in TensorBoard, and the table in the terminal."
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", type=Path, help="folder of a sweep or a run, or a parent folder"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="output folder (default: the only PATH, or the common parent of all of them)",
    )
    parser.add_argument("--version", action="version", version=version_text())
    return parser


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have, for one
        return False


def _output_folder(paths: Sequence[Path], out: Path | None) -> Path:
    """The folder for the leaderboard; ends the process if a path is not a folder."""
    missing = [path for path in paths if not _is_folder(path)]
    if missing:
        _wrong_use(f"{_joined(missing)}: no such folder; give folders of sweeps, as in lightning_logs/<name>/<sweep>")
    if out is not None:
        if out.exists() and not out.is_dir():
            _wrong_use(f"--out {out} is a file; give a folder")
        return out
    if len(paths) == 1:
        return paths[0]
    try:
        return Path(os.path.commonpath([path.resolve() for path in paths]))
    except ValueError:  # on several drives of Windows
        _wrong_use(f"{_joined(paths)} have no folder in common; choose one with --out")


def _console() -> Console:
    # Replace characters that the terminal's encoding lacks, instead of failing.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return RunConsole(1).rich


def _training_command() -> str:
    """The training command that matches this one: in a checkout its script."""
    script = Path(sys.argv[0]).with_name("train.py")
    return f"python {shlex.quote(short_path(script).as_posix())}" if script.is_file() else "mlp-train"


def _joined(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _wrong_use(message: str) -> NoReturn:
    _end(message, EXIT_WRONG_USE)


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(code)
