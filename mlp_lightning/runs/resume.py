"""A run that continues from a checkpoint begins with the history of the run before.

It gets its own folder, and nothing in the old one is touched. Metrics up to the checkpoint are copied,
so that every curve in the new folder is whole: no step is missing and none comes twice.
"""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto import event_pb2 as _event_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from mlp_lightning.config import Config
from mlp_lightning.engines.autograd.engine import AutogradEngine
from mlp_lightning.engines.protocol import MemberState
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs.checkpoints import (
    FINGERPRINT_KEY,
    OVER_THE_RUN,
    SavedRun,
    about_schedule,
    check_same_run,
    read_checkpoint,
    saved_run,
)
from mlp_lightning.runs.event_bytes import event_record
from mlp_lightning.runs.files import atomic_write, names_file
from mlp_lightning.runs.policies import Best, Policies
from mlp_lightning.runs.run_folder import RunFolder, newest_checkpoint
from mlp_lightning.runs.training import Training
from mlp_lightning.runs.writer import FolderWriter

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
event_pb2: Any = _event_pb2


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What a run continues from.

    Attributes:
        run: as its checkpoint has it.
        best: the state of its best checkpoint; ``None`` if there is none by this metric that belongs to this history.
        events: the history of its event file, as records.
        trains_on: whether its schedule has ended, and it continues at a constant learning rate.
    """

    run: SavedRun
    best: MemberState | None
    events: bytes
    trains_on: bool

    def restore(self, policies: Policies, writer: FolderWriter) -> None:
        """Bring a run that has just been built to the state of the checkpoint."""
        engine = policies.engine
        assert isinstance(engine, AutogradEngine)
        engine.load(self.run.state, self.best)
        best = Best() if self.best is None else self.run.best
        policies.restore_member(0, True, best, self.run.stopping or policies.stopping[0])
        policies.step = self.run.state.step
        writer.continues_from(self.run.state.step, best)


def find_checkpoint(config: Config, run_dir: Path) -> Path | None:
    """The checkpoint to continue from; ``last`` and ``best`` are those of the newest run beside ``run_dir``.

    Raises:
        CheckpointError: there is no such file.
    """
    wanted = config.ckpt_path
    if wanted is None:
        return None
    if wanted not in ("last", "best"):
        path = Path(wanted).expanduser().absolute()
        if not path.is_file():
            raise CheckpointError(f"ckpt_path: there is no file {path}")
        return path
    found = newest_checkpoint([run_dir.absolute().parent], wanted)
    if found is None:
        raise CheckpointError(f"ckpt_path = {wanted}: no run in {run_dir.absolute().parent} has a {wanted}.ckpt")
    return found


def resume(path: Path, config: Config, training: Training) -> Resumed:
    """Read the checkpoint that a single run continues from, and copy its history into the new folder.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not belong to this run.
    """
    (member,), milestones = training.members, training.policies.milestones
    checkpoint = read_checkpoint(path)
    trains_on = check_same_run(checkpoint, path, config, member.data.steps_per_epoch)
    state = {name.removeprefix("preprocessor."): one for name, one in checkpoint["state_dict"].items()}
    preprocessing = checkpoint["hyper_parameters"].get("preprocessing")
    if changes := member.data.changes_since(checkpoint.get(FINGERPRINT_KEY), preprocessing, state):
        raise CheckpointError(
            f"ckpt_path: {path} was trained on other rows than {member.data.table_name} has now: {changes}. Bring the"
            " table back as it was, or train anew on it (leave ckpt_path out)."
        )
    run = saved_run(checkpoint, config)
    if run.state.step >= training.last_step:
        hint = "Raise trainer.max_steps (or trainer.max_epochs) to train on."
        raise CheckpointError(
            f"ckpt_path: {path} was taken after {run.state.step} steps, and the run is to end there or before."
            f" {about_schedule(config) if config.scheduler.name in OVER_THE_RUN else hint}"
        )
    patience = 0 if config.callbacks.early_stopping is None else config.callbacks.early_stopping.patience
    if run.stopping is not None and run.stopping.wait >= patience:
        raise CheckpointError(
            f"ckpt_path: {path} is the end of a run that stopped early, after {run.state.step} steps."
            " Leave early stopping out (callbacks=default) to train on."
        )
    source, step, period = RunFolder(path.resolve().parent.parent), run.state.step, milestones.validation_interval
    events = b""
    if config.logger.csv and source.metrics.is_file():
        _copy_csv(source.metrics, member.folder.metrics, step, period)
    if config.logger.tensorboard:
        events = b"".join(_events(source.path, step, period))
    best = None
    # Without its weights the value of the best is of no use, and another metric's is none of this run's.
    if run.best.step is not None and run.monitor == training.policies.monitor and source.best_checkpoint.is_file():
        content = read_checkpoint(source.best_checkpoint)
        # A best that came after this checkpoint is not yet part of the history.
        if content["global_step"] == run.best.step:
            best = saved_run(content, config).state
            _copy_whole(source.best_checkpoint, member.folder.best_checkpoint)
    # Last: a run can continue from a folder with last.ckpt in it.
    _copy_whole(path, member.folder.last_checkpoint)
    training.resume_at(step, has_best=best is not None)
    return Resumed(run, best, events, trains_on)


def belongs_to_history(tag: str, at_step: int, step: int, period: int | None) -> bool:
    """Whether a metric was written before the checkpoint of ``step`` was taken.

    The training metrics of a step are written with the step; a checkpoint of ``step`` comes before it. A
    regular validation comes before the checkpoint of its step; the irregular one at the end of a run that
    ended within an epoch, and the test, do not belong to the run that continues.
    """
    if tag.endswith("/test"):
        return False
    if tag.endswith("/val"):
        return at_step <= step and period is not None and at_step % period == 0
    return at_step < step


def _copy_whole(source: Path, target: Path) -> None:
    with source.open("rb") as old, atomic_write(target) as new:
        shutil.copyfileobj(old, new)


def _copy_csv(source: Path, target: Path, step: int, period: int | None) -> None:
    new_file = target.open("w", newline="", encoding="utf-8")
    with names_file(target), source.open(newline="", encoding="utf-8") as old, new_file as new:
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


def _events(source: Path, step: int, period: int | None) -> Iterator[bytes]:
    """The records of a run's event files that belong to the history of the run that continues it."""
    for file in source.rglob("events.out.tfevents.*"):
        # The loader ends quietly where a killed run has cut a file short.
        for event in LegacyEventFileLoader(str(file)).Load():
            if event.WhichOneof("what") in ("graph_def", "tagged_run_metadata"):
                yield event_record(event)
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
                yield event_record(copied)
