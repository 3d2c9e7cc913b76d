"""The folder of one run: claiming it, and what is written into it besides metrics and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlp_lightning.config import Config
from mlp_lightning.config.shared import SECTIONS, Remembered
from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.checkpoint_files import why_unusable
from mlp_lightning.runs.files import atomic_write, names_file
from mlp_lightning.runs.folder_names import MEMBERS, fold_folder

# libyaml writes the same text as the pure Python dumper, ten times as fast; not every build of PyYAML has it.
_YAML_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_PACKAGES = ("mlp-lightning", "torch", "lightning", "torchmetrics", "scikit-learn", "hydra-core", "tensorboard")
#: What a run is called and how it is shown and kept does not change what is computed.
NOT_IN_HASH = (
    *("name", "verbosity", "sweep", "search", "ckpt_path", "logger", "trainer.print_every_n_steps", "trainer.engine"),
    "data.suggested_lr",
)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of the files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def card(self) -> Path:
        return self.path / "model_card.md"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def next_best_checkpoint(self) -> Path:
        """What becomes ``best.ckpt`` once the ``last.ckpt`` that names it is there."""
        return self.path / "checkpoints" / ".next-best.ckpt"

    def write_result(self, content: dict[str, Any]) -> None:
        """Write ``result.json``, whole or not at all: its presence means that the run has ended."""
        with atomic_write(self.result) as file:
            file.write(result_bytes(content))


def config_yaml(sections: Mapping[str, Any]) -> str:
    """The text of ``config.yaml``."""
    return "".join(
        _section_yaml(one).replace(_SECTION, name, 1) if isinstance(one, dict) else _value_yaml(name, one)
        for name, one in sections.items()
    )


def _value_yaml(name: str, value: Any) -> str:
    if type(value) is int:
        return f"{name}: {value}\n"
    return _yaml({name: value}) if isinstance(value, list) else _text_yaml(name, value)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(dict(content), Dumper=_YAML_DUMPER, sort_keys=False)


_text_yaml = functools.lru_cache(maxsize=256, typed=True)(lambda name, value: _yaml({name: value}))
# In the place of the name of a section: the texts of one with another name are the same but for it.
_SECTION = "section"
_section_yaml: Remembered[str] = Remembered(lambda section: _yaml({_SECTION: section}))


def result_bytes(content: dict[str, Any]) -> bytes:
    """The text of ``result.json``."""
    return (json.dumps(content, indent=2) + "\n").encode()


def claim(run_dir: Path, config: Config) -> RunFolder:
    """Make ``run_dir`` the folder of this run, and of no other.

    The claim is the exclusive creation of ``config.yaml``: of two runs that are given one folder, in
    whatever order and however close, exactly one gets it.

    Raises:
        RunFolderError: if the folder belongs to another run. Nothing in it is touched.
    """
    folder = RunFolder(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    text = config_yaml(config.sections())
    try:
        with names_file(folder.config), folder.config.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise _taken(folder) from error
    return folder


@contextlib.contextmanager
def as_it_was(run_dir: Path, if_refused: Callable[[BaseException], bool]) -> Iterator[None]:
    """Inside the context a folder is claimed and filled; an error that refuses what was asked for undoes it.

    Args:
        run_dir: the folder.
        if_refused: whether an error is such a one.
    """
    missing = [one for one in (run_dir, *run_dir.parents) if not one.exists()]
    there = set() if missing else set(run_dir.iterdir())
    try:
        yield
    except BaseException as error:
        if if_refused(error):
            for path in set(run_dir.iterdir()) - there if run_dir.is_dir() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # another run has come into a parent
                for one in missing:
                    one.rmdir()
        raise


def refuse_taken(folder: RunFolder) -> None:
    """Raise what :func:`claim` would raise, if a folder belongs to another run already."""
    if folder.config.exists():
        raise _taken(folder)


def _taken(folder: RunFolder) -> RunFolderError:
    return RunFolderError(
        f"The folder {folder.path} already belongs to another run (it has a config.yaml). Choose another folder;"
        f" to continue that run, use ckpt_path={folder.last_checkpoint}"
    )


def record_refusal(run_dir: Path, plain: Mapping[str, Any], error: str) -> None:
    """Leave the record of a run that could not begin: what was asked, and why it was refused.

    A folder that belongs to a run which is still without a result gets only the result; one of an ended run is not
    touched.
    """
    folder = RunFolder(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not folder.config.is_file():
        folder.config.write_text(yaml.dump(dict(plain), Dumper=_YAML_DUMPER, sort_keys=False), encoding="utf-8")
    if not folder.result.is_file():
        content = {"status": "failed", "run_dir": str(run_dir), "metrics": {}, "steps": 0, "wall_time_s": 0.0}
        folder.write_result({**content, "error": error, "versions": versions()})


def new_run_dir(parent: Path) -> Path:
    """Create a folder named after this moment in ``parent``; no two calls ever get the same one.

    Raises:
        RunFolderError: a file, or a link to nothing, is in the way.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RunFolderError(
            f"The folder {parent} cannot be made: {error.filename} is a file, or a link to a folder that is not there."
            " Remove it, or make the folder that it names."
        ) from error
    while True:
        path = parent / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        try:
            path.mkdir(parents=True, exist_ok=False)  # another command may have removed an empty parent
        except FileExistsError:
            continue
        return path


def config_hash(config: Config) -> str:
    """SHA-256 of the configuration without what only says how a run is called, shown and kept."""
    sections = config.sections()
    texts = {
        name: _texts_of_hash[name](one) if name in _texts_of_hash else json.dumps(one)
        for name, one in sections.items()
        if name not in NOT_IN_HASH
    }
    text = ", ".join(f'"{name}": {texts[name]}' for name in sorted(texts))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def _without(names: Collection[str]) -> Callable[[Mapping[str, Any]], str]:
    """What makes a section JSON without some of its keys."""
    return lambda section: json.dumps({key: one for key, one in section.items() if key not in names}, sort_keys=True)


_texts_of_hash = {
    name: Remembered(_without([key.partition(".")[2] for key in NOT_IN_HASH if key.startswith(f"{name}.")]))
    for name in SECTIONS
}


def surroundings(
    config: Config, started_at: datetime.datetime, fingerprint: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What ``result.json`` says of a run that ends now besides its result.

    Args:
        config: of the run.
        started_at: when it began.
        fingerprint: of its rows; ``None`` if they could not be read.
    """
    return {
        "seed": config.seed,
        "config_hash": config_hash(config),
        "started_at": started_at.isoformat(),
        "ended_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "versions": versions(),
        "fingerprint": fingerprint,
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def newest_checkpoint(parents: Iterable[Path], which: str, prefers_finished: bool = False) -> Path | None:
    """``last.ckpt`` or ``best.ckpt`` of the newest run directly in one of ``parents`` that has one.

    The newest is the one that was started last: when its ``config.yaml`` was written.

    Args:
        parents: folders of runs.
        which: ``last`` or ``best``.
        prefers_finished: whether an older run that has finished is preferred to one that has not.
    """
    found = (run / "checkpoints" / f"{which}.ckpt" for run in newest_first(parents, prefers_finished))
    return next((one for one in found if one.is_file()), None)


def newest_if_several(parent: Path) -> Path | None:
    """The newest run directly in ``parent`` if it is several trainings: folds, the members of an ensemble; else none.

    What it trained is no run of one network, which could be continued from a checkpoint.
    """
    run = next(iter(newest_first([parent])), None)
    several = run is not None and ((run / MEMBERS).is_dir() or (run / fold_folder(0)).is_dir())
    return run if several else None


def newest_intact_checkpoint(parents: Iterable[Path], which: str) -> tuple[Path | None, str]:
    """What :func:`newest_checkpoint` finds; instead of a damaged one the newest that is intact.

    Returns:
        The checkpoint, and what is wrong with the ones that should have been it; empty if nothing is.
    """
    return first_intact_checkpoint(newest_first(parents), which)


def first_intact_checkpoint(runs: Iterable[Path], which: str) -> tuple[Path | None, str]:
    """``last.ckpt`` or ``best.ckpt`` of the first run that has one.

    Instead of a damaged one it is the other checkpoint of the same run, or one of the next run.

    Returns:
        As :func:`newest_intact_checkpoint`.
    """
    faults: list[str] = []
    other = "best" if which == "last" else "last"
    for run in runs:
        files = [run / "checkpoints" / f"{name}.ckpt" for name in (which, other)]
        if not files[0].is_file():
            continue
        for path in (one for one in files if one.is_file()):
            fault = why_unusable(path)
            if not fault:
                return path, " ".join([*faults, f"Continuing from {path}."]) if faults else ""
            faults.append(fault)
    return None, " ".join(faults)


def newest_first(parents: Iterable[Path], prefers_finished: bool = False) -> list[Path]:
    """The runs directly in one of ``parents``, the one that was started last first."""

    def order(run: Path) -> tuple[bool, int]:
        return prefers_finished and is_finished(run), (run / "config.yaml").stat().st_mtime_ns

    return sorted((file.parent for parent in parents for file in parent.glob("*/config.yaml")), key=order, reverse=True)


def is_finished(run: Path) -> bool:
    """Whether the ``result.json`` of a run folder says so."""
    try:
        return json.loads((run / "result.json").read_text(encoding="utf-8"))["status"] == "finished"
    except (OSError, ValueError, KeyError, TypeError):
        return False
