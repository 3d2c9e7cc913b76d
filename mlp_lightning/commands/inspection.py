"""The command ``mlp-inspect`` (``python scripts/inspect_run.py``): a run in the terminal, live while it trains."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlp_lightning.errors import MLPLightningError
from mlp_lightning.runs.console import SPLIT_NAMES, short_path
from mlp_lightning.runs.curves import chart_lines, charts_of, curve_steps
from mlp_lightning.runs.folder_names import MEMBERS, fold_folder
from mlp_lightning.runs.packed.reading import packed_run
from mlp_lightning.runs.run_folder import RunFolder
from mlp_lightning.sweeps.records import UNENDED, RunRecord, curves_text, packed_record, read_record
from mlp_lightning.version import version_text

EXIT_FAILED, EXIT_WRONG_USE, EXIT_INTERRUPTED = 1, 2, 130
_COLOURS = {"train": "cyan", "val": "yellow", "test": "magenta"}
_HEIGHT, _WIDEST = 10, 100


def main() -> None:
    """Run the command of this process; ends the process with an exit code if there is an error."""
    arguments = _parser().parse_args()
    console = Console(highlight=False)
    try:
        if arguments.watch:
            _watch(arguments.run, arguments.every, console)
        else:
            console.print(_page(arguments.run, console), soft_wrap=True)
    except MLPLightningError as error:
        _end(str(error), EXIT_FAILED)
    except OSError as error:
        _end(f"{type(error).__name__}: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _end("Interrupted.", EXIT_INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlp-inspect",
        description="Show a run in the terminal: how it is doing, its curves, its metrics beside their baselines.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run, or SWEEP/N of a packed sweep")
    parser.add_argument("--watch", action="store_true", help="show it anew until the run has ended, or Ctrl-C")
    parser.add_argument("--every", metavar="SECONDS", type=_seconds, default=2.0, help="with --watch (default: 2)")
    parser.add_argument("--version", action="version", version=version_text())
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 seconds")
    return value


def _watch(run: Path, seconds: float, console: Console) -> None:
    if not console.is_terminal:
        _end("--watch needs a terminal; without it, the run is shown once.", EXIT_WRONG_USE)
    with Live(_page(run, console), console=console, auto_refresh=False) as live:
        while _record(run).status == UNENDED:
            time.sleep(seconds)
            live.update(_page(run, console), refresh=True)
        live.update(_page(run, console), refresh=True)  # it may have ended since the last look


def _record(run: Path) -> RunRecord:
    packed = packed_run(run)
    if packed is not None:
        return packed_record(packed)
    if not RunFolder(run).config.is_file():
        sweep = next(run.glob("*/config.yaml"), None) if run.is_dir() else None
        hint = f"; it holds runs: name one of them, for example {short_path(sweep.parent)}" if sweep else ""
        _end(f"{run} is not the folder of a run (it has no config.yaml){hint}.", EXIT_WRONG_USE)
    return read_record(run)


def _page(run: Path, console: Console) -> RenderableType:
    record = _record(run)
    rows = list(curve_steps(record.folder, curves_text(record)))
    parts: list[RenderableType] = [Text(one) for one in _facts(record, rows)]
    if record.metrics:
        parts.append(_metrics(record))
    width = min(console.width, _WIDEST)
    unicode = (console.encoding or "").lower().startswith("utf")
    for metric, curves in charts_of(rows).items():
        parts += [Text(""), *_chart(metric, curves, width, unicode)]
    return Group(*parts)


def _facts(record: RunRecord, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{short_path(record.folder)}: {_status(record, rows)}"
    if record.overrides:
        yield f"Overrides: {' '.join(record.overrides)}"
    if record.error:
        yield f"{'Why' if record.status == 'pruned' else 'Error'}: {record.error}"
    if not rows and not any((record.folder / name).is_dir() for name in (MEMBERS, fold_folder(0))):
        yield "No curves: metrics.csv is not there (yet), or was not asked for (logger.csv=false)."


def _status(record: RunRecord, rows: list[dict[str, Any]]) -> str:
    if record.status != UNENDED:
        return f"{record.status}, {record.steps} steps in {record.wall_time_s:.1f} s"
    newest = max((one for path in record.folder.rglob("*") if (one := _changed(path))), default=time.time())
    seen = f"step {rows[-1]['step']}" if rows else "no step logged yet"
    limit = record.config.get("trainer", {}).get("max_steps")
    of = f" of {limit}" if limit else ""
    return f"trains, or was killed: {seen}{of}, last written {max(0.0, time.time() - newest):.0f} s ago"


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime if path.is_file() else None
    except OSError:  # a file under the name that it has while it is written
        return None


def _metrics(record: RunRecord) -> Table:
    names = list(next(iter(record.metrics.values())))
    table = Table("", *(title for name in names for title in (name, "baseline")), title_justify="left")
    for split, values in record.metrics.items():
        base = record.baseline.get(split, {})
        held_out = record.held_out and split == "test"
        table.add_row("held-out" if held_out else SPLIT_NAMES.get(split, split), *_cells(values, base, names))
    return table


def _cells(values: Mapping[str, float], base: Mapping[str, float], names: list[str]) -> list[str]:
    return ["" if value is None else f"{value:.6g}" for name in names for value in (values.get(name), base.get(name))]


def _chart(metric: str, curves: Mapping[str, Any], width: int, unicode: bool) -> Iterator[Text]:
    for line in chart_lines(metric, curves, max(10, width - 14), _HEIGHT, unicode):
        yield Text.assemble(*((text, _COLOURS.get(split, "")) for split, text in line))
    yield Text.assemble(*((f"  {SPLIT_NAMES[split]}", _COLOURS[split]) for split in curves))


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(code)
