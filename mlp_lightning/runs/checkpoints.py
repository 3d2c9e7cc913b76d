"""Checkpoints of runs: what they hold, and how they are written and read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.engines.dropout import KIND
from mlp_lightning.engines.generators import InitialGenerators
from mlp_lightning.engines.protocol import MemberState
from mlp_lightning.errors import CheckpointError, shown, shown_error
from mlp_lightning.runs.build import build_early_stopping, run_length
from mlp_lightning.runs.calibration import Calibration
from mlp_lightning.runs.checkpoint_content import CALIBRATION_KEY, ENSEMBLE_KEY, OF_ANOTHER, RUN, read_content
from mlp_lightning.runs.ensembles import refuse_other_ensemble
from mlp_lightning.runs.files import atomic_write, replace, sync_folder
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.network import refuse_misfit
from mlp_lightning.runs.policies import Best, Stopping
from mlp_lightning.runs.run_folder import RunFolder

# Schedules that depend on the length of the run.
OVER_THE_RUN = ("cosine", "one_cycle")
CONFIG_KEY = "config"
FINGERPRINT_KEY = "fingerprint"
# Which generator dropout draws its masks from.
MASKS_KEY = "dropout_masks"
# Whether the validation that is due at this step comes yet.
PENDING_KEY = "validation_pending"
# Sections of the configuration that a run may change when it continues from a checkpoint.
_MAY_CHANGE = ("name", "verbosity", "sweep", "search", "ckpt_path", "report_weights", "logger", "callbacks")
_MAY_CHANGE_IN_TRAINER = (
    "accelerator",
    "max_steps",
    "max_epochs",
    "log_every_n_steps",
    "print_every_n_steps",
    "steps_per_execution",
    "threads",
    "engine",
)


# Of the section data: where the rows are, and how they are written there.
WHERE_ROWS_ARE = ("path", "val_path", "test_path", "csv")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, brings it to the disk and renames it; loads only plain data."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path, or_ensemble: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; never runs code that may be in the file.

    Args:
        path: of the checkpoint.
        or_ensemble: whether it may be that of an ensemble, which has an ``ensemble``.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is not a checkpoint of this package.
    """
    content = read_content(path, RUN, "a checkpoint of a training run of this package", or_ensemble=or_ensemble)
    try:
        parse_complete(content[CONFIG_KEY], is_stored=True)
        if ENSEMBLE_KEY in content:
            refuse_other_ensemble(content[ENSEMBLE_KEY], content["state_dict"])
        else:
            refuse_misfit(content["hyper_parameters"], content["state_dict"])
        saved_calibration(content)
    except Exception as error:  # whatever is made of the content of a file
        raise CheckpointError(f"ckpt_path: {path} {OF_ANOTHER} ({shown_error(error)}).") from error
    return content


def saved_calibration(content: Mapping[str, Any]) -> Calibration | None:
    """What a checkpoint has for intervals; ``None`` without.

    Raises:
        ValueError: it does not belong to the model.
    """
    if CALIBRATION_KEY not in content:
        return None
    members = content[ENSEMBLE_KEY]["members"] if ENSEMBLE_KEY in content else [content["hyper_parameters"]]
    targets = members[0]["out_features"] if members[0]["task"] == "regression" else 0
    return Calibration.of_content(content[CALIBRATION_KEY], targets, len(members))


def check_same_run(checkpoint: Mapping[str, Any], path: Path, config: Config, steps_per_epoch: int) -> bool:
    """A run continues only with what the checkpoint was trained with.

    When a schedule over the whole run has come to its end, the run may train on at a constant learning rate.

    Args:
        checkpoint: its content.
        path: of it.
        config: of the run that continues.
        steps_per_epoch: of its rows.

    Returns:
        Whether it continues at a constant learning rate after its schedule.

    Raises:
        CheckpointError: naming every key that differs, with both values.
    """
    # An option that was not there yet had the effect of its default.
    saved = parse_complete(checkpoint[CONFIG_KEY], is_stored=True)
    before, now = _decisive(saved.to_dict()), _decisive(config.to_dict())
    if checkpoint.get(FINGERPRINT_KEY) is not None:  # by which the rows themselves are compared
        for flat in (before, now):
            for key in WHERE_ROWS_ARE:
                flat.pop(f"data.{key}", None)
    has_ended = checkpoint["global_step"] >= run_length(saved, steps_per_epoch)
    trains_on = saved.scheduler.name in OVER_THE_RUN and config.scheduler.name == "none" and has_ended
    if trains_on:
        for flat in (before, now):
            for key in [one for one in flat if one.startswith("scheduler.") or one == "optimizer.lr"]:
                del flat[key]
    # A schedule over the whole run is another one when the run has another length.
    if config.scheduler.name in OVER_THE_RUN:
        for key in ("max_steps", "max_epochs"):
            before[f"trainer.{key}"] = checkpoint[CONFIG_KEY]["trainer"][key]
            now[f"trainer.{key}"] = config.to_dict()["trainer"][key]
    different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if different:
        lines = "\n".join(
            f"  {key}: {shown(before.get(key))} in the checkpoint, {shown(now.get(key))} now" for key in different
        )
        is_longer = config.scheduler.name in OVER_THE_RUN and {"trainer.max_steps", "trainer.max_epochs"} & {*different}
        raise CheckpointError(
            f"ckpt_path: {path} was trained with other settings than these:\n{lines}\n"
            "Give the same settings to continue that run, or leave ckpt_path out to start a new one."
            + (f" {about_schedule(config)}" if is_longer else "")
        )
    return trains_on


def about_schedule(config: Config) -> str:
    """Why a run with a schedule over its whole length cannot be made longer, and what to do instead."""
    return (
        f"scheduler={config.scheduler.name} spans the whole run, so a longer run is another one from its first step on."
        f" When it has ended, it can train on at a constant learning rate: scheduler=none"
        f" optimizer.lr={config.optimizer.lr / 10:g} ckpt_path=… with a larger trainer.max_epochs or trainer.max_steps."
    )


def _decisive(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have to stay the same, flat."""
    flat: dict[str, Any] = {}
    for section, content in plain.items():
        if section in _MAY_CHANGE:
            continue
        if isinstance(content, Mapping):
            skipped = _MAY_CHANGE_IN_TRAINER if section == "trainer" else ("suggested_lr",)
            flat.update({f"{section}.{key}": value for key, value in content.items() if key not in skipped})
        else:
            flat[section] = content
    return flat


# Where a checkpoint keeps these; the keys are those of Lightning callbacks that earlier versions had.
_GENERATORS, _BEST = "RandomState", "CheckpointKeeper"
# The present epoch so far, of a run that its training loss may end.
_EPOCH = "early_stopping_epoch"
# Weights of earlier steps, for reports.
SNAPSHOTS_KEY = "snapshots"


def run_checkpoint(
    member: Member,
    state: MemberState,
    engine: str,
    monitor: str,
    best: Best,
    stopping: Stopping,
    after_training: bool = False,
) -> dict[str, Any]:
    """The content of a checkpoint, but for :func:`as_written`; Lightning can load it too.

    Args:
        member: whose run it is.
        state: of its training.
        engine: that trained it.
        monitor: metric of the best checkpoint.
        best: the best so far then.
        stopping: early stopping then.
        after_training: whether the last epoch had ended then.
    """
    config, data = member.config, member.data
    epoch = max(state.step - 1, 0) // data.steps_per_epoch
    callbacks: dict[str, Any] = {_GENERATORS: state.generators}
    early_stopping = build_early_stopping(config)
    if early_stopping is not None:
        dtype = next(iter(state.weights.values())).dtype
        early_stopping.wait_count, early_stopping.best_score = stopping.wait, torch.tensor(stopping.score, dtype=dtype)
        if stopping.stopped:
            early_stopping.stopped_epoch = epoch
            early_stopping.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED
            early_stopping.stopping_reason_message = (
                f"Monitored metric {early_stopping.monitor} did not improve in the last {stopping.wait} records."
                f" Best score: {stopping.score:.3f}. Signaling Trainer to stop."
            )
        callbacks[early_stopping.state_key] = early_stopping.state_dict()
    callbacks[_BEST] = {"monitor": monitor, "best_value": best.value, "best_step": best.step}
    return {
        "epoch": epoch + after_training,
        "global_step": state.step,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state.weights,
        "callbacks": callbacks,
        "optimizer_states": [state.optimizer],
        "lr_schedulers": [state.schedule] if state.schedule else [],
        "hparams_name": None,
        "hyper_parameters": member.hyper_parameters,
        CONFIG_KEY: config.sections(),
        "engine": engine,
        "epoch_loss": state.epoch_loss,
        _EPOCH: [stopping.losses, stopping.steps],
        FINGERPRINT_KEY: data.fingerprint,
        MASKS_KEY: KIND,
        **({SNAPSHOTS_KEY: state.snapshots} if state.snapshots else {}),
    }


def as_written(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of a checkpoint with the states of its generators as plain data."""
    callbacks = content.get("callbacks", {})
    if not isinstance(callbacks.get(_GENERATORS), InitialGenerators):
        return content
    return {**content, "callbacks": {**callbacks, _GENERATORS: dict(callbacks[_GENERATORS])}}


class SavedRun(NamedTuple):
    """A run as its checkpoint has it.

    Attributes:
        state: of its training.
        monitor: metric of the best checkpoint.
        best: the best so far.
        stopping: early stopping; ``None`` if the run had none.
    """

    state: MemberState
    monitor: str
    best: Best
    stopping: Stopping | None


def saved_run(checkpoint: Mapping[str, Any], config: Config) -> SavedRun:
    """What a checkpoint says of the run, to continue it."""
    callbacks, schedules = checkpoint["callbacks"], checkpoint["lr_schedulers"]
    state = MemberState(
        checkpoint["global_step"],
        checkpoint["state_dict"],
        checkpoint["optimizer_states"][0],
        schedules[0] if schedules else {},
        checkpoint.get("epoch_loss", 0.0),
        callbacks[_GENERATORS],
        checkpoint.get(SNAPSHOTS_KEY, {}),
    )
    best, stopping = callbacks[_BEST], None
    early_stopping = build_early_stopping(config)
    if early_stopping is not None and early_stopping.state_key in callbacks:
        content = callbacks[early_stopping.state_key]
        stopping = Stopping(content["wait_count"], float(content["best_score"]), "", *checkpoint.get(_EPOCH, (0.0, 0)))
    return SavedRun(state, best["monitor"], Best(best["best_value"], best["best_step"], stopping), stopping)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_write(path) as file:
        torch.save(as_written(content), file)


def add_to(path: Path, further: Mapping[str, Any]) -> None:
    """Write a checkpoint again, with further content."""
    write_checkpoint(path, {**read_checkpoint(path), **further})


def write_checkpoints(folder: RunFolder, last: Mapping[str, Any], best: Mapping[str, Any] | None) -> None:
    """Write ``last.ckpt``, and ``best.ckpt`` if there is a new one.

    One rename cannot replace two files. So the new best waits beside the old one: whichever ``last.ckpt`` a killed
    process leaves, the best that it names is there, too: see :func:`read_best`.
    """
    waiting = folder.next_best_checkpoint
    if best is not None:
        write_checkpoint(waiting, best)
    try:
        write_checkpoint(folder.last_checkpoint, last)
    except OSError:
        # Space is short; but a last.ckpt that is there already may name it.
        if best is not None and not _is_newer(folder.last_checkpoint, waiting):
            waiting.unlink(missing_ok=True)
        raise
    if best is not None:
        replace(waiting, folder.best_checkpoint)
        sync_folder(waiting.parent)


def _is_newer(path: Path, other: Path) -> bool:
    return path.is_file() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def read_best(folder: RunFolder, step: int) -> tuple[dict[str, Any] | None, str]:
    """The best of a run, of the step that its ``last.ckpt`` names.

    Returns:
        Its content, ``None`` if it is lost; and why, as a sentence.
    """
    fault = f"there is none in {folder.best_checkpoint.parent}."
    for path in (folder.best_checkpoint, folder.next_best_checkpoint):
        try:
            if path.is_file() and (content := read_checkpoint(path))["global_step"] == step:
                return content, ""
        except CheckpointError as error:
            fault = str(error).removeprefix("ckpt_path: ")
    return None, fault
