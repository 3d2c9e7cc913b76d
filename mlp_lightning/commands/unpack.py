"""The command ``mlp-unpack`` (``python scripts/unpack.py``): makes the folders of runs of a packed sweep."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlp_lightning.errors import MLPLightningError
from mlp_lightning.runs.console import short_path
from mlp_lightning.runs.packed.reading import is_packed_sweep, packed_runs
from mlp_lightning.sweeps.records import objective, packed_record
from mlp_lightning.version import version_text

if TYPE_CHECKING:
    from mlp_lightning.runs.packed.reading import PackedRun

EXIT_FAILED, EXIT_WRONG_USE, EXIT_INTERRUPTED = 1, 2, 130


def main() -> None:
    """Run the command of this process; ends the process with an exit code if there is an error."""
    arguments = _parser().parse_args()
    try:
        chosen = _chosen(arguments)
        from mlp_lightning.runs.packed.unpacking import unpack

        for run, folder in chosen:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unpack(run, folder)
            sys.stdout.write(f"Unpacked: {short_path(folder)}\n")
    except MLPLightningError as error:
        _end(str(error), EXIT_FAILED)
    except OSError as error:
        _end(f"{type(error).__name__}: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _end("Interrupted.", EXIT_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make the folders of runs of a packed sweep: the files that sweep.store=folders would have left."
    )
    parser.add_argument("sweep", metavar="SWEEP", type=Path, help="folder of the sweep")
    parser.add_argument("runs", metavar="RUN", nargs="*", help="number of a run, as the leaderboard shows it")
    parser.add_argument("--all", action="store_true", help="every run that has no folder yet")
    parser.add_argument("--best", metavar="COUNT", type=int, help="as many runs, those with the lowest loss")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where to make them (default: in the sweep)")
    parser.add_argument("--version", action="version", version=version_text())
    return parser


def _chosen(arguments: argparse.Namespace) -> list[tuple[PackedRun, Path]]:
    """The runs to unpack and the folder of each; ends the process if there is none."""
    sweep, names, best = arguments.sweep, arguments.runs, arguments.best
    if not is_packed_sweep(sweep):
        _end(f"{sweep} is not the folder of a packed sweep (it has no packed/claims-*.parquet).", EXIT_WRONG_USE)
    if bool(names) + arguments.all + (best is not None) != 1 or (best is not None and best < 1):
        _end("Name the runs to unpack, for example 0 17, or give --all, or --best 10.", EXIT_WRONG_USE)
    runs = {run.folder.relative_to(sweep).as_posix(): run for run in packed_runs(sweep)}
    folder = sweep if arguments.out is None else arguments.out
    if best is not None:
        names = sorted(runs, key=lambda name: _loss(runs[name]))[:best]
    chosen = list(runs) if arguments.all else list(dict.fromkeys(names))
    for name in chosen:
        if name not in runs:
            there = (sweep / name / "config.yaml").is_file()
            reason = f"has its folder already: {sweep / name}" if there else f"is not one of the {len(runs):,} there"
            _end(f"{sweep}: run {name!r} {reason}.", EXIT_WRONG_USE)
        if (folder / name).exists():
            _end(f"{folder / name} is there already. Move it away, or choose another --out.", EXIT_WRONG_USE)
    return [(runs[name], folder / name) for name in chosen]


def _loss(run: PackedRun) -> float:
    record = packed_record(run)
    return objective(record.metrics, record.held_out)


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(code)
