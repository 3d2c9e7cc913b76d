"""``auto_resume``: the same command continues what an earlier one left unfinished, as pre-empted jobs need it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlp_lightning.config import Config
from mlp_lightning.config.overrides import CheckedCommand, explicit_keys
from mlp_lightning.errors import ConfigError, DataError, Fault, RunFolderError
from mlp_lightning.runs.run_folder import RunFolder, config_hash, first_intact_checkpoint, is_finished, newest_first
from mlp_lightning.sweeps.folds import of_fold, of_member
from mlp_lightning.sweeps.ledger import folder_lock, identity

# What a command may say otherwise and still be the same.
_NOT_IN_COMMAND = ("auto_resume=", "verbosity=", "sweep.", "hydra.", "hydra/")


@dataclasses.dataclass(frozen=True)
class EarlierRuns:
    """The runs of exactly one configuration.

    Attributes:
        finished: the newest folder of a run that has finished.
        unfinished: the newest folder of a run that has not.
        checkpoint: of the newest run that has not finished and has an intact one.
        fault: what is wrong with the ones that should have been it; empty if nothing is.
    """

    finished: Path | None
    unfinished: Path | None
    checkpoint: Path | None
    fault: str


def refuse_contradictions(checked: CheckedCommand, overrides: Sequence[str]) -> None:
    """Refuse what ``auto_resume`` cannot continue.

    Raises:
        ConfigError: it is set beside such an option.
    """
    config = checked.config
    if not config.auto_resume:
        return
    rule = hint = ""
    folder = {"hydra.run.dir", "hydra.sweep.dir"} & explicit_keys(overrides)
    if config.ckpt_path is not None:
        rule, hint = "contradicts ckpt_path, which names a checkpoint", "leave one of them out"
    elif folder:
        rule, hint = f"looks for runs in lightning_logs/<name>, and contradicts {min(folder)}", "leave one of them out"
    if rule:
        raise ConfigError([Fault("auto_resume", True, rule, hint)])


def earlier_runs(config: Config, parent: Path) -> EarlierRuns:
    """Find the runs in ``parent`` that have exactly this configuration."""
    wanted = config_hash(config)
    same = [one for one in newest_first([parent]) if identity(one) == wanted]
    finished = next((one for one in same if is_finished(one)), None)
    unfinished = [one for one in same if not is_finished(one)]
    newest = unfinished[0] if unfinished else None
    return EarlierRuns(finished, newest, *first_intact_checkpoint(unfinished, "last"))


def refuse_other_rows(config: Config, finished: Path) -> None:
    """Refuse to take a run for finished whose table has changed since; the table is read once for it.

    Args:
        config: of the command.
        finished: the folder of the run.

    Raises:
        DataError: the rows are others, or cannot be read.
    """
    then = json.loads(RunFolder(finished).result.read_text(encoding="utf-8")).get("fingerprint")
    if config.data.name != "table" or then is None:  # other rows cannot change, or an earlier version did not keep it
        return
    from mlp_lightning.runs.build import build_data
    from mlp_lightning.runs.console import short_path
    from mlp_lightning.tables.fingerprint import differences

    one = of_member(config, 0)
    now = build_data(of_fold(one, 0) if one.data.cv.trains_all else one).fingerprint
    if changes := differences(then, now):
        raise DataError(
            f"auto_resume: {short_path(finished)} has finished, on other rows than {config.data.title} has now:"
            f" {changes}. Bring the table back as it was, or leave auto_resume out to train anew on it."
        )


@contextmanager
def configuration_lock(config: Config, parent: Path) -> Iterator[None]:
    """Inside the context, no other command with ``auto_resume`` trains this configuration; it ends with its process.

    Raises:
        RunFolderError: another one does.
    """
    file = parent / f".{config_hash(config)[:16]}.lock"
    try:
        with folder_lock(file):
            yield
    except TimeoutError as error:
        text = f"Another process trains exactly this configuration with auto_resume (it holds {file})."
        raise RunFolderError(f"{text} Wait until it ends, or change the configuration, for example seed.") from error


def sweep_name(config: Config, overrides: Sequence[str]) -> str:
    """The name of the sweep that a command without ``sweep.name`` makes: always the same.

    Args:
        config: of its first run.
        overrides: of the command.
    """
    words = sorted(one for one in overrides if not one.lstrip("+").startswith(_NOT_IN_COMMAND))
    return "auto-" + hashlib.sha256("\n".join([config_hash(config), *words]).encode()).hexdigest()[:12]
