"""A run that goes on from a checkpoint begins with the history of the run before.

It gets a folder of its own, and nothing in the old one is touched. Metrics up to the checkpoint are copied,
so that every curve in the new folder is whole: no step is missing and none comes twice.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto import event_pb2 as _event_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.loggers import MetricsCSV, RunTensorBoard
from mlp_lightning.runs.run_folder import RunFolder

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
event_pb2: Any = _event_pb2


def carry_over(
    checkpoint: dict[str, Any], path: Path, folder: RunFolder, loggers: Iterable[Logger], period: int | None
) -> None:
    """Copy the history up to a checkpoint into the folder of the run that goes on from it.

    A checkpoint that does not lie in a run folder has no history; then only the checkpoint is copied.

    Args:
        checkpoint: its content.
        path: its file.
        folder: of the new run.
        loggers: of the new run; their files get the history.
        period: steps between two regular validations; ``None`` without validation.
    """
    step = checkpoint["global_step"]
    source = RunFolder(path.resolve().parent.parent)
    for logger in loggers:
        if isinstance(logger, MetricsCSV) and source.metrics.is_file():
            _copy_csv(source.metrics, folder.metrics, step, period)
        elif isinstance(logger, RunTensorBoard):
            _copy_events(source.path, logger, step, period)
    best_step = next((state["best_step"] for state in checkpoint["callbacks"].values() if "best_step" in state), None)
    # A best that came after this checkpoint is not yet part of the history.
    if best_step is not None and _step_of(source.best_checkpoint) == best_step:
        _copy_whole(source.best_checkpoint, folder.best_checkpoint)
    # Last: a folder with last.ckpt in it can itself be gone on from.
    _copy_whole(path, folder.last_checkpoint)


def belongs_to_history(tag: str, at_step: int, step: int, period: int | None) -> bool:
    """Whether a figure was written before the checkpoint of ``step`` was taken.

    The training figures of a step are written with the step; a checkpoint of ``step`` comes before it. A
    regular validation comes before the checkpoint of its step; the irregular one at the end of a run that
    ended within an epoch, and the test, do not belong to the run that goes on.
    """
    if tag.endswith("/test"):
        return False
    if tag.endswith("/val"):
        return at_step <= step and period is not None and at_step % period == 0
    return at_step < step


def _step_of(path: Path) -> int | None:
    return read_checkpoint(path)["global_step"] if path.is_file() else None


def _copy_whole(source: Path, target: Path) -> None:
    with source.open("rb") as old, atomic_write(target) as new:
        shutil.copyfileobj(old, new)


def _copy_csv(source: Path, target: Path, step: int, period: int | None) -> None:
    with source.open(newline="", encoding="utf-8") as old, target.open("w", newline="", encoding="utf-8") as new:
        reader = csv.DictReader(old)
        names = reader.fieldnames or []
        writer = csv.DictWriter(new, names, lineterminator="\n")
        writer.writeheader()
        for row in reader:
            # The last line of a killed run may be cut short.
            if None in row.values() or not row["step"].isdigit():
                continue
            tags = [name for name in names if name != "step" and row[name]]
            if tags and all(belongs_to_history(tag, int(row["step"]), step, period) for tag in tags):
                writer.writerow(row)


def _copy_events(source: Path, target: RunTensorBoard, step: int, period: int | None) -> None:
    for file in source.glob("events.out.tfevents.*"):
        # The loader ends quietly where a killed run has cut a file short.
        for event in LegacyEventFileLoader(str(file)).Load():
            if event.WhichOneof("what") == "graph_def":
                target.add_event(event)
                continue
            kept = [
                value
                for value in event.summary.value
                if value.metadata.plugin_data.plugin_name != hparams_metadata.PLUGIN_NAME
                and not value.tag.startswith("_hparams_/")
                and belongs_to_history(value.tag, event.step, step, period)
            ]
            if kept:
                copied = event_pb2.Event(wall_time=event.wall_time, step=event.step)
                copied.summary.value.extend(kept)
                target.add_event(copied)
