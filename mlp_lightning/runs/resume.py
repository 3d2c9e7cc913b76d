"""A run that continues from a checkpoint begins with the history of the run before.

It gets its own folder, and nothing in the old one is touched. Metrics up to the checkpoint are copied,
so that every curve in the new folder is whole: no step is missing and none comes twice.
"""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto import event_pb2 as _event_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from torch import Tensor

from mlp_lightning.config import Config, OwnModelConfig
from mlp_lightning.engines.dropout import KIND
from mlp_lightning.engines.protocol import MemberState
from mlp_lightning.engines.stacked.stack import Stack
from mlp_lightning.errors import CheckpointError, ConfigError, counted, shown_error
from mlp_lightning.runs.checkpoints import (
    CONFIG_KEY,
    FINGERPRINT_KEY,
    MASKS_KEY,
    OVER_THE_RUN,
    PENDING_KEY,
    WHERE_ROWS_ARE,
    SavedRun,
    about_schedule,
    check_same_run,
    read_best,
    read_checkpoint,
    saved_run,
    write_checkpoint,
)
from mlp_lightning.runs.engines import autograd_model
from mlp_lightning.runs.event_bytes import event_record
from mlp_lightning.runs.files import atomic_write, names_file, remove_abandoned
from mlp_lightning.runs.packed.resolving import last_checkpoint_of
from mlp_lightning.runs.policies import Best, why_stopped
from mlp_lightning.runs.run_folder import RunFolder, is_finished, newest_if_several, newest_intact_checkpoint
from mlp_lightning.runs.training import Training
from mlp_lightning.tables.fingerprint import splits_by_labels

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
event_pb2: Any = _event_pb2


@dataclasses.dataclass(frozen=True)
class Found:
    """The checkpoint that a run is to continue from.

    Attributes:
        path: of it.
        content: of it.
        fault: what is wrong with the one that should have been it; empty if nothing is.
    """

    path: Path
    content: Mapping[str, Any]
    fault: str = ""

    @property
    def splits_by_labels(self) -> bool:
        """Whether rows of several labels were split by them."""
        return splits_by_labels(self.content.get(FINGERPRINT_KEY))


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What a run continues from.

    Attributes:
        path: of its checkpoint.
        run: as its checkpoint has it.
        best: the state of its best checkpoint; ``None`` if there is none by this metric that belongs to this history.
        lost: what to tell the user of a best that is lost; empty if none is.
        events: the history of its event file, as records.
        trains_on: whether its schedule has ended, and it continues at a constant learning rate.
        is_complete: whether all steps are made, and only the result is missing.
        validation_pending: whether the validation of its last step is still to be made.
        has_other_masks: whether dropout drew its masks from another generator before.
        other_places: paths of its tables before, where they are others now; by option.
    """

    path: Path
    run: SavedRun
    best: MemberState | None
    lost: str
    events: bytes
    trains_on: bool
    is_complete: bool
    validation_pending: bool
    has_other_masks: bool
    other_places: Mapping[str, str]

    def begin(self, training: Training) -> None:
        """Bring a run that has just been built to the state of the checkpoint, and its folder to that history."""
        policies, engine = training.policies, training.policies.engine
        try:
            engine.load(self.run.state, self.best)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _misfit(self.path, error) from error
        best = Best() if self.best is None else self.run.best
        policies.restore_member(0, True, best, self.run.stopping or policies.stopping[0])
        policies.step, policies.validation_pending = self.run.state.step, self.validation_pending
        training.writer.continues_from(self.run.state.step, best)
        training.files.begin(0, self.events)
        # Last: a run can continue from a folder with last.ckpt in it.
        _copy_whole(self.path, training.members[0].folder.last_checkpoint)

    def lines(self, config: Config) -> list[str]:
        """What to tell the user."""
        places = [
            f"data.{key}: {getattr(config.data, key)} has the same rows as {before} had before"
            for key, before in self.other_places.items()
        ]
        if self.is_complete:
            step = self.run.state.step
            made = "its only step is made" if step == 1 else f"all its {step} steps are made"
            return [f"Completing {self.path}: {made}, the result is missing", *places]
        rate = f" at the constant learning rate {config.optimizer.lr:g}: its schedule has ended"
        lines = [f"Continuing from step {self.run.state.step} of {self.path}{rate if self.trains_on else ''}", *places]
        if self.has_other_masks:
            lines.append(
                "Its dropout masks came from another generator, that of an earlier version: from this step on they are"
                " others than they would have been, drawn with the same probability"
            )
        return lines


def find_checkpoint(config: Config, run_dir: Path) -> Found | None:
    """The checkpoint to continue from, read; ``last`` and ``best`` are those of the newest run beside ``run_dir``.

    Raises:
        CheckpointError: there is no such file, or it cannot be used.
    """
    wanted, fault = config.ckpt_path, ""
    if wanted is None:
        return None
    path: Path | None
    if wanted in ("last", "best"):
        parent = run_dir.absolute().parent
        if (several := newest_if_several(parent)) is not None:
            reason = f"the newest run, {several}, is several trainings, and no checkpoint continues them"
            raise CheckpointError(f"ckpt_path = {wanted}: {reason}. Name the checkpoint of a run of one network.")
        path, fault = newest_intact_checkpoint([parent], wanted)
        if path is None:
            reason = f"no run in {parent} has a {wanted}.ckpt" + (" that is intact" if fault else "")
            raise CheckpointError(f"ckpt_path = {wanted}: {reason}. {fault}".rstrip(". "))
    else:
        path = last_checkpoint_of(Path(wanted).expanduser().absolute())
    return Found(path, read_checkpoint(path), fault)


def resume(found: Found, config: Config, training: Training) -> Resumed:
    """Prepare the run that continues from a checkpoint, and copy its history into the new folder.

    Raises:
        CheckpointError: the checkpoint does not belong to this run.
    """
    (member,), milestones = training.members, training.policies.milestones
    checkpoint, path = found.content, found.path
    source = RunFolder(path.resolve().parent.parent)
    try:
        trains_on = check_same_run(checkpoint, path, config, member.data.steps_per_epoch)
        state = {name.removeprefix("preprocessor."): one for name, one in checkpoint["state_dict"].items()}
        preprocessing = checkpoint["hyper_parameters"].get("preprocessing")
        changes = member.data.changes_since(checkpoint.get(FINGERPRINT_KEY), preprocessing, state)
        if changes:  # first: other rows have another network
            raise _other_rows(path, member.data.table_name, changes)
        run = saved_run(checkpoint, config)
        _refuse_misfit(run.state, training)
    except (ConfigError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _misfit(path, error) from error
    run, is_complete = _ended(run, path, config, training, has_result=is_finished(source.path))
    remove_abandoned(source.path)
    step, period = run.state.step, milestones.validation_interval
    events = b""
    if config.logger.csv and source.metrics.is_file():
        _copy_csv(source.metrics, member.folder.metrics, step, period)
    if config.logger.tensorboard:
        events = b"".join(_events(source.path, step, period))
    best, lost = _best(run, found, source, config, training)
    training.resume_at(step, has_best=best is not None)
    drops = not isinstance(config.model, OwnModelConfig) and config.model.dropout > 0
    has_other_masks = drops and checkpoint.get(MASKS_KEY) != KIND
    is_pending = checkpoint.get(PENDING_KEY, False)
    places = _other_places(checkpoint, config)
    return Resumed(path, run, best, lost, events, trains_on, is_complete, is_pending, has_other_masks, places)


def _other_places(checkpoint: Mapping[str, Any], config: Config) -> dict[str, str]:
    """The paths of its tables that a checkpoint has otherwise, by option."""
    before, now = checkpoint[CONFIG_KEY]["data"], config.to_dict()["data"]
    keys = [key for key in WHERE_ROWS_ARE if key != "csv" and before.get(key) is not None]
    return {key: before[key] for key in keys if before[key] != now[key]}


def _best(
    run: SavedRun, found: Found, source: RunFolder, config: Config, training: Training
) -> tuple[MemberState | None, str]:
    """The state of the best, which is copied into the new folder, and what to tell the user if it is lost.

    Without its weights the value of the best is of no use, and another metric's is none of this run's. A best that came
    after this checkpoint is not yet part of the history.
    """
    (member,), monitor, step = training.members, training.policies.monitor, run.state.step
    if run.best.step is None:
        return None, ""
    if run.monitor != monitor:
        return None, f"The best was by {run.monitor}: by {monitor} it is counted from step {step} on"
    content, fault = read_best(source, run.best.step)
    if content is None and run.best.step == step:  # the same weights
        content = dict(found.content)
    if content is None:
        of = f"The best weights, of step {run.best.step}, are lost"
        return None, f"{of}, and the best is counted again from step {step} on: {fault}"
    write_checkpoint(member.folder.best_checkpoint, content)
    return saved_run(content, config).state, ""


def _ended(run: SavedRun, path: Path, config: Config, training: Training, has_result: bool) -> tuple[SavedRun, bool]:
    """Refuse a run whose end has come, unless only its result is missing; returns whether it is."""
    step, options = run.state.step, config.callbacks.early_stopping
    if step > training.last_step or (step == training.last_step and has_result):
        hint = "Raise trainer.max_steps (or trainer.max_epochs) to train on."
        raise CheckpointError(
            f"ckpt_path: {path} was taken after {counted(step, 'step', '')}, and the run is to end there or before."
            f" {about_schedule(config) if config.scheduler.name in OVER_THE_RUN else hint}"
        )
    if run.stopping is None or options is None or run.stopping.wait < options.patience:
        return run, step == training.last_step
    if has_result:
        raise CheckpointError(
            f"ckpt_path: {path} is the end of a run that stopped early, after {counted(step, 'step', '')}."
            " Leave early stopping out (callbacks=default) to train on."
        )
    return run._replace(stopping=run.stopping._replace(stopped=why_stopped(options))), True


def _refuse_misfit(state: MemberState, training: Training) -> None:
    """Compare the tensors of a saved run with those of the run that continues it.

    Raises:
        ValueError: they do not belong together.
    """
    assert training.module is not None
    module = training.module.model
    if isinstance(module, Stack):  # of one member
        with torch.random.fork_rng(devices=[]):
            module = autograd_model(training.members[0])
    wanted, there = ({name: one.shape for name, one in of.items()} for of in (module.state_dict(), state.weights))
    for name in {**wanted, **there}:
        if wanted.get(name) != there.get(name):
            sizes = [None if one is None else tuple(one) for one in (there.get(name), wanted.get(name))]
            raise ValueError(f"{name} is {sizes[0]} in the checkpoint, {sizes[1]} in this run")
    parameters = list(module.parameters())
    for number, kept in state.optimizer["state"].items():
        for name, one in kept.items():
            if isinstance(one, Tensor) and one.shape not in ((), parameters[number].shape):
                raise ValueError(f"{name} of parameter {number} is {tuple(one.shape)} in the state of the optimizer")


def _misfit(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"ckpt_path: {path} does not fit this run ({shown_error(error)}). It was made by another version of this"
        " package, or has been changed."
    )


def _other_rows(path: Path, table: str, changes: str) -> CheckpointError:
    return CheckpointError(
        f"ckpt_path: {path} was trained on other rows than {table} has now: {changes}. Bring the table back as it was,"
        " or train anew on it (leave ckpt_path out)."
    )


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
