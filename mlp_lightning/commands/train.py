"""The command ``mlp-train`` (``python scripts/train.py``): Hydra composes, :func:`mlp_lightning.train` trains.

All faults of a command are reported together, before Hydra creates a folder and before torch is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlp_lightning.commands.auto_resume import (
    configuration_lock,
    earlier_runs,
    refuse_contradictions,
    refuse_other_rows,
    sweep_name,
)
from mlp_lightning.commands.resources import parse_training
from mlp_lightning.commands.sweep_options import check_sweep, refuse_options_of_sweeps
from mlp_lightning.config import Config, conf_dir, parse_complete
from mlp_lightning.config.free_names import hydra_text
from mlp_lightning.config.hydra_arguments import is_question, options_given, parse_arguments, run_hydra
from mlp_lightning.config.overrides import CheckedCommand, check_command, explicit_keys, with_open_sections
from mlp_lightning.errors import REFUSALS, ConfigError, Fault, MLPLightningError
from mlp_lightning.runs.checkpoint_files import why_no_file
from mlp_lightning.runs.files import refuse_full_disk
from mlp_lightning.runs.libraries import import_libraries
from mlp_lightning.runs.packed.reading import is_packed_sweep
from mlp_lightning.runs.packed.resolving import last_checkpoint_of
from mlp_lightning.runs.run_folder import new_run_dir, newest_if_several, newest_intact_checkpoint, record_refusal
from mlp_lightning.runs.stop import raise_lost_interrupt, remember_interrupts
from mlp_lightning.sweeps.folds import with_keys, with_shared_split
from mlp_lightning.sweeps.leaderboard.keys import flat_config
from mlp_lightning.sweeps.records import SINGLE_RUN, objective
from mlp_lightning.sweeps.worker import system_message, unexpected_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.core.override_parser.types import Override

    from mlp_lightning.sweeps.composition import ComposedJob
    from mlp_lightning.sweeps.search.search import Launch
    from mlp_lightning.sweeps.sweep import Sweep

EXIT_FAILED, EXIT_WRONG_USE, EXIT_INTERRUPTED = 1, 2, 130
OUTPUT_FOLDER = Path("lightning_logs")
# What Hydra makes folders of, and what common file systems take.
_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir")
_NAME_BYTES, _PATH_BYTES = 255, 4000


@dataclasses.dataclass
class _Command:
    """The task of this process and its outcome.

    Attributes:
        sweep: the sweep; ``None`` for a single run.
        searched: the configuration of a search; ``None`` if there is none.
        continued: the folder of several trainings that an earlier command left unfinished.
        created: the folder that was created for this command; ``None`` if it existed.
        failed: whether a single run that Hydra started failed.
        refused: whether the only run was refused before it began.
        swept: the keys that have several values.
        differing: the keys in which the configurations of the runs differ.
        closing: what to release at the end.
    """

    sweep: Sweep | None = None
    searched: Config | None = None
    continued: Path | None = None
    created: Path | None = None
    failed: bool = False
    refused: bool = False
    swept: frozenset[str] = frozenset()
    differing: frozenset[str] = frozenset()
    closing: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def run_jobs(self, jobs: Sequence[ComposedJob], n_jobs: int, backend: str) -> list[float]:
        """Run all jobs; the vectorized launcher calls this instead of the task."""
        assert self.sweep is not None
        try:
            return self.sweep.run_jobs(jobs, n_jobs, backend)
        except (OSError, MLPLightningError) as error:
            # Hydra would show a traceback; this ends it without one.
            sys.exit(report_error(error))

    def search(self, overrides: Sequence[Override], launch: Launch, processes: int) -> list[Any]:
        """Search instead of running every combination; the vectorized sweeper calls this."""
        from mlp_lightning.sweeps.search.search import Search

        assert self.sweep is not None
        assert self.searched is not None
        return Search(self.sweep, self.searched, overrides).run(launch, processes)

    def __reduce__(self) -> tuple[type[_Command], tuple[Any, ...]]:
        """Pickle without the sweep, for launchers that send the task to other processes."""
        return _Command, (None, None, None, None, False, False, self.swept, self.differing)


def main() -> None:
    """Run the command line of this process; ends the process with its exit code."""
    remember_interrupts()
    arguments = parse_arguments()
    overrides, options = with_open_sections(arguments.overrides), options_given(arguments)
    command = _Command()
    try:
        if is_question(arguments):
            _hydra_main(command, overrides, options)  # answers and ends
            return
        checked = _checked(overrides, arguments.multirun, arguments.config_name, arguments.config_dir)
        extra = _prepare(command, checked, overrides)
        # Done here, and no part of what repeats a run.
        given = [one for one in overrides if explicit_keys([one]) != {"auto_resume"}]
        _hydra_main(command, [*given, *extra], options)
    except (OSError, MLPLightningError) as error:
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        # Before or after training; an interrupt during training is handled by the run, which saves itself first.
        print("Interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        if command.sweep is not None:
            try:
                command.sweep.finish()
            except (OSError, MLPLightningError) as error:
                command.failed = report_error(error) > 0
        created = command.created
        if created is not None and not _holds_runs(created):
            shutil.rmtree(created, ignore_errors=True)  # no run was started in it
            for folder in (created.parent, OUTPUT_FOLDER) if OUTPUT_FOLDER in created.parents else ():
                with contextlib.suppress(OSError):  # it holds something else
                    folder.rmdir()
        command.closing.close()
    if command.sweep is not None and command.sweep.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if command.refused:
        sys.exit(EXIT_WRONG_USE)
    sys.exit(EXIT_FAILED if command.failed or (command.sweep is not None and command.sweep.failed) else 0)


def _holds_runs(folder: Path) -> bool:
    """Whether a run was started in a folder or below."""
    return is_packed_sweep(folder) or any(one.parent.name != ".hydra" for one in folder.rglob("config.yaml"))


def report_error(error: Exception) -> int:
    """Print an error. Returns its exit code."""
    known = isinstance(error, MLPLightningError)
    if isinstance(error, OSError) and not known and error.filename is not None:
        print(system_message(error), file=sys.stderr)
    else:
        print(error if known else f"{type(error).__name__}: {error}", file=sys.stderr)
    return EXIT_WRONG_USE if isinstance(error, REFUSALS) else EXIT_FAILED


def _hydra_main(command: _Command, overrides: list[str], options: list[str]) -> None:
    """Pass the command line to Hydra, which runs one training per job."""

    def task(composed: DictConfig) -> float:
        return _run(composed, command)

    if command.sweep is not None:
        # The vectorized launcher calls this once with all jobs; other launchers call the task for each job.
        task.run_jobs = command.run_jobs  # type: ignore[attr-defined]  # functions take attributes
        if command.searched is not None:
            task.search = command.search  # type: ignore[attr-defined]  # likewise
    run_hydra(task, conf_dir(), "train", overrides, options)


def _program() -> str:
    """The command as you typed it, without its overrides."""
    started = Path(sys.argv[0])
    program = f"python {shlex.quote(started.as_posix())}" if started.suffix == ".py" else started.name
    arguments = parse_arguments()
    for option, value in (("--config-dir", arguments.config_dir), ("--config-name", arguments.config_name)):
        program += f" {option} {shlex.quote(value)}" if value is not None else ""
    return program


def _checked(overrides: list[str], multirun: bool, config_name: str | None, config_dir: str | None) -> CheckedCommand:
    """What the command asks for.

    Raises:
        ConfigError: it has faults.
    """
    folder = None if config_dir is None else Path(config_dir)
    checked = check_command(overrides, multirun, config_name or "train", folder, parse_training(overrides))
    refuse_contradictions(checked, overrides)
    if checked.is_sweep and checked.config.auto_resume:
        checked = _same_sweep(checked, overrides)
    _check_checkpoint(checked.config, checked.is_sweep)
    _check_output(overrides, checked.is_sweep)
    if checked.is_sweep:
        check_sweep(checked, overrides, _sweep_folder(checked.config))
    else:
        refuse_options_of_sweeps(checked.config, explicit_keys(overrides))
    return checked


def _same_sweep(checked: CheckedCommand, overrides: list[str]) -> CheckedCommand:
    """The command with the sweep that it continues, or starts."""
    config = checked.config
    sweep = dataclasses.replace(config.sweep, name=config.sweep.name or sweep_name(config, overrides), resume=True)
    return dataclasses.replace(checked, config=dataclasses.replace(config, sweep=sweep))


def _resumed(command: _Command, config: Config) -> list[str]:
    """What continues the newest unfinished run of this configuration; ends the process if one has finished."""
    from mlp_lightning.runs.console import RunConsole

    parent = OUTPUT_FOLDER / config.name
    command.closing.enter_context(configuration_lock(config, parent))
    earlier = earlier_runs(config, parent)
    if earlier.finished is not None:
        import_libraries()
        refuse_other_rows(config, earlier.finished)
        why = "auto_resume starts no second one on the same rows; leave it out to train anew"
        RunConsole(config.verbosity).line(f"Finished before, nothing to do: {earlier.finished} ({why})")
        sys.exit(0)
    if config.trains_several:  # in the folder in which they began
        command.continued = earlier.unfinished
        return []
    if earlier.fault:
        print(earlier.fault, file=sys.stderr, flush=True)
    return [] if earlier.checkpoint is None else [f"ckpt_path={hydra_text(str(earlier.checkpoint))}"]


def _check_checkpoint(config: Config, multirun: bool) -> None:
    wanted = config.ckpt_path
    if wanted is None:
        return
    rule = hint = ""
    if wanted in ("last", "best"):
        if multirun:
            rule = "names one run, but a sweep starts several"
            hint = "give the path of a checkpoint"
        elif (several := newest_if_several(OUTPUT_FOLDER / config.name)) is not None:
            rule = f"continues one network, and the newest run, {several}, is several trainings"
            hint = "give its command with auto_resume=true to continue it, or name the checkpoint of another run"
        else:
            found, fault = _checkpoint_of_newest_run(config)
            which = "an intact one" if fault else "one"
            if found is None:
                folder = OUTPUT_FOLDER / config.name
                rule = f"names a checkpoint of the newest run in {folder}, and no run there has {which}"
                hint = f"{fault} train one first, or give the path of a checkpoint".strip()
    else:
        rule = why_no_file(last_checkpoint_of(Path(wanted).expanduser()))
        hint = "use last, best, or the path of a .ckpt file or a run folder"
    if rule:
        raise ConfigError([Fault("ckpt_path", wanted, rule, hint)])


def _checkpoint_of_newest_run(config: Config) -> tuple[Path | None, str]:
    return newest_intact_checkpoint([OUTPUT_FOLDER / config.name], str(config.ckpt_path))


def _check_output(overrides: list[str], multirun: bool) -> None:
    """Refuse a folder that you name if no file system takes it, or another run has it: Hydra would write into it."""
    key, inside = ("hydra.sweep.dir", "*/config.yaml") if multirun else ("hydra.run.dir", "config.yaml")
    for override in overrides:
        name, _, value = override.partition("=")
        name, value = name.lstrip("+"), value.strip("'\"")
        if name in _FOLDERS and "${" not in value:
            longest = max(len(os.fsencode(part)) for part in value.split("/"))
            if longest > _NAME_BYTES or len(os.fsencode(value)) > _PATH_BYTES:
                rule = f"must have at most {_PATH_BYTES:,} bytes, and {_NAME_BYTES} between two slashes"
                raise ConfigError([Fault(name, value, rule, "choose a shorter one")])
        if name == key and any(Path(value).glob(inside)):
            raise ConfigError([Fault(key, value, "is the folder of another run", "choose a new one")])


def _sweep_folder(config: Config) -> Path:
    return OUTPUT_FOLDER / config.name / str(config.sweep.name)


def _prepare(command: _Command, checked: CheckedCommand, overrides: list[str]) -> list[str]:
    """Create the folder of the command. Returns overrides that pass it to Hydra."""
    config, multirun = checked.config, checked.is_sweep
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    extra: list[str] = []
    if config.ckpt_path in ("last", "best"):
        # Searched among the runs of this name, not next to a folder that you chose.
        found, fault = _checkpoint_of_newest_run(config)
        extra.append(f"ckpt_path={hydra_text(str(found))}")
        if fault:
            print(fault, file=sys.stderr, flush=True)
    if config.auto_resume:
        extra += [] if multirun else _resumed(command, config)
        extra += [] if "auto_resume" in explicit_keys(overrides) else ["auto_resume=false"]  # a file asks for it
    if config.verbosity == 0:
        extra.append("hydra/hydra_logging=none")
    given = [one.partition("=")[2] for one in overrides if one.partition("=")[0].lstrip("+") == key]
    if given:
        folder = Path(given[-1].strip("'\""))
        if "${" not in given[-1]:  # Hydra resolves that
            command.created = _made(folder, key)
    else:
        if multirun and config.sweep.name is not None:
            folder = _sweep_folder(config)
            command.created = None if folder.exists() else folder
        elif command.continued is not None:
            folder = command.continued
        else:
            folder = command.created = new_run_dir(OUTPUT_FOLDER / config.name)
        extra.append(f"{key}={hydra_text(str(folder))}")
    if multirun:
        is_search, given = config.search.name != "none", {"hydra/sweeper", "search"} & explicit_keys(overrides)
        command.searched = config if is_search else None
        if is_search or not given:
            # Not in conf/train.yaml, because then a file of yours in ``search`` could not select another sweeper.
            extra.append("hydra/sweeper=vectorized")
        from mlp_lightning.sweeps.sweep import Sweep

        program = f"{_program()}{SINGLE_RUN}" if checked.is_sweep_by_file else _program()
        command.swept, command.differing = checked.swept, checked.differing
        command.sweep = Sweep(folder, config.sweep, program, config.verbosity, checked.swept).open()
    if folder.is_dir():  # Hydra writes there next, and would show a traceback
        refuse_full_disk(folder)
    return extra


def _made(folder: Path, key: str) -> Path | None:
    """Make a folder that you name, before Hydra fails to. Returns the first of its parents that was not there, or it.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cause = f"cannot be made a folder: {error.strerror} ({error.filename})"
        raise ConfigError([Fault(key, str(folder), cause, "choose another one")]) from error
    return missing[-1] if missing else None


def _run(composed: DictConfig, command: _Command) -> float:
    """Train one run. Returns its loss, for sweepers that search."""
    import_libraries()
    from mlp_lightning.runs import train

    raise_lost_interrupt()
    hydra_config = HydraConfig.get()
    overrides, is_sweep = list(hydra_config.overrides.task), hydra_config.mode == RunMode.MULTIRUN
    folder = Path(hydra_config.runtime.output_dir)
    plain: dict[str, Any] = {}
    try:
        resolved = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(resolved, dict)
        plain = {str(key): value for key, value in resolved.items()}
        config = parse_complete(plain, explicit_keys(overrides))
        if is_sweep:
            config = with_shared_split(config) if "seed" in command.swept else config
            shown = {key for key in command.differing if not key.startswith("sweep.")}
            config = with_keys(config, [key for key in flat_config(config.to_dict()) if key in shown])
        if config.trains_several:
            from mlp_lightning.commands.several import train_several

            status, loss = train_several(config, folder, continues=command.continued is not None)
        else:
            result = train(config, folder)
            status, loss = result.status, objective(result.metrics, config.data.cv.fold is not None)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # One failing run does not end a sweep; it is reported immediately, and by the exit code at the end.
        message = str(error) if isinstance(error, MLPLightningError) else unexpected_message(error, folder)
        message = f"Run {hydra_config.job.num} ({' '.join(overrides)}): {message}" if is_sweep else message
        print(message, file=sys.stderr, flush=True)
        has_begun = (folder / "config.yaml").is_file()  # its folder stays
        if is_sweep and not has_begun and isinstance(error, REFUSALS):
            record_refusal(folder, plain, f"{type(error).__name__}: {error}")
        command.failed = True
        command.refused = isinstance(error, REFUSALS) and not has_begun and not is_sweep
        return math.inf  # the worst loss; searches stop at NaN
    if status == "interrupted":
        sys.exit(EXIT_INTERRUPTED)
    return loss


if __name__ == "__main__":
    main()
