"""Which runs of a sweep are done, read from the run folders themselves.

There is no second record that could disagree with them. The hash of its resolved configuration identifies a run; it
is done if the status in its ``result.json`` is ``finished``, in a search also if it is ``pruned``. Nothing is
overwritten: the folder of a run that failed, was interrupted or killed moves into ``superseded/`` before the run is
trained again under the same number. A packed run counts like its folder; the files of an earlier attempt stay where
they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.config.parsing import KnownSections
from mlp_lightning.errors import ConfigError, MLPLightningError, RunFolderError
from mlp_lightning.runs.files import complete_writes
from mlp_lightning.runs.folder_names import fold_folder
from mlp_lightning.runs.packed.reading import UNPACKING, PackedRun, packed_runs
from mlp_lightning.runs.run_folder import RunFolder, config_hash
from mlp_lightning.sweeps.records import RunRecord, packed_record, read_record, run_folders

SUPERSEDED = "superseded"
_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Placement:
    """The folder of a run.

    Attributes:
        folder: its run folder; does not exist or can be claimed, unless the run is done.
        done: the record of the run if it is already done.
    """

    folder: Path
    done: RunRecord | None = None


class Ledger:
    """The runs in the folder of one sweep.

    Args:
        folder: of the sweep.
        resume: whether to look up existing runs.
        done: the statuses of runs that are not trained again.
    """

    def __init__(self, folder: Path, resume: bool, done: Collection[str] = ("finished",)) -> None:
        self.folder = folder
        self._done = done
        self._known: dict[str, list[Path]] = {}
        self._found: set[Path] = set()
        self._given: set[Path] = set()
        self._packed: dict[Path, PackedRun] = {}
        if folder.is_dir():
            complete_writes(folder)
            self._read(resume)
            self._read_packed(resume)

    def _read(self, resume: bool) -> None:
        name = RunFolder(self.folder).config.name
        for file in sorted(self.folder.rglob(name)):
            path = file.parent
            if path.name.startswith("fold-") and (path.parent / name).is_file():
                continue  # part of a cross-validation, which has the number
            if path.name == ".hydra" or SUPERSEDED in path.relative_to(self.folder).parts:
                continue
            if path.name.endswith(UNPACKING):
                shutil.rmtree(path)  # whoever unpacked it was killed, or fails now
                continue
            self._found.add(path)
            known = identity(path) if resume else None
            if known is not None:
                self._known.setdefault(known, []).append(path)

    def _read_packed(self, resume: bool) -> None:
        known: KnownSections = {}
        for run in packed_runs(self.folder):
            self._packed[run.folder] = run
            self._found.add(run.folder)
            if resume:
                with contextlib.suppress(ConfigError):  # of an option that is no more
                    config = parse_complete(run.sections, is_stored=True, known=known)
                    self._known.setdefault(config_hash(config), []).append(run.folder)

    def place(self, config: Config, wanted: Path) -> Placement:
        """Find the folder of a run: its previous folder if there is one, else ``wanted`` or a new number.

        The folder of an earlier attempt that is not done is moved away. A folder of another run is never used.
        """
        folders = self._known.get(config_hash(config), [])
        if not folders:
            return Placement(self.free(wanted))
        # The folder ``wanted`` first, so that equal runs of a sweep keep their numbers.
        folder = wanted if wanted in folders else folders[0]
        folders.remove(folder)
        self._given.add(folder)
        record = self._record(folder)
        if record is not None and record.status in self._done:
            return Placement(folder, record)
        if folder not in self._packed:
            self.supersede(folder)
        return Placement(folder)

    def place_folds(self, config: Config, wanted: Path) -> list[Placement]:
        """The folders of all folds of a cross-validation, inside of one; found as in :meth:`place`."""
        folders = self._known.get(config_hash(config), [])
        folder = wanted if wanted in folders else folders[0] if folders else self.free(wanted)
        if folders:
            folders.remove(folder)
            self._given.add(folder)
        placements = []
        for fold in range(config.data.cv.folds or 0):
            path = folder / fold_folder(fold)
            record = self._record(path) if RunFolder(path).config.is_file() else None
            done = record is not None and record.status in self._done
            if path.exists() and not done:
                self.supersede(path)
            placements.append(Placement(path, record if done else None))
        return placements

    def free(self, wanted: Path) -> Path:
        """``wanted`` if no run has it, else a folder with the next free number; reserved from now on.

        A folder ``wanted`` without a readable run (one that was killed while it started) is moved away.
        """
        folder = wanted
        is_taken = folder in self._packed or (folder in self._found and identity(folder) is not None)
        if folder in self._given or is_taken:
            numbers = [int(path.name) for path in (self._found | self._given) if path.name.isdigit()]
            folder = wanted.with_name(str(max(numbers, default=-1) + 1))
        elif folder in self._found:
            self.supersede(folder)
        self._given.add(folder)
        return folder

    def others(self) -> list[RunRecord]:
        """The runs of the sweep that are not part of this command."""
        left = [folder for several in self._known.values() for folder in several]
        folders = [one for folder in left for one in ([folder] if folder in self._packed else run_folders(folder))]
        return [record for folder in folders if (record := self._record(folder)) is not None]

    def _record(self, folder: Path) -> RunRecord | None:
        run = self._packed.get(folder)
        try:
            return read_record(folder) if run is None else packed_record(run)
        except MLPLightningError:
            return None

    def supersede(self, folder: Path) -> None:
        """Move an earlier attempt to ``superseded/<its name>-<attempt>``, that of a fold with the job's name before.

        Raises:
            RunFolderError: the system does not allow moving the folder. It is not moved.
        """
        target = self.folder / SUPERSEDED
        target.mkdir(exist_ok=True)
        name, attempt = "-".join(folder.relative_to(self.folder).parts), 1
        while (target / f"{name}-{attempt}").exists():
            attempt += 1
        try:
            folder.rename(target / f"{name}-{attempt}")
        except PermissionError as error:
            raise RunFolderError(
                f"The unfinished run in {folder} cannot be moved to {target}: {error.strerror}. Close what has one of"
                " its files open (on Windows, TensorBoard does), then give the same command again."
            ) from error


def identity(folder: Path) -> str | None:
    """The hash of the configuration that a folder was claimed with; ``None`` if it cannot be read."""
    try:
        plain = yaml.safe_load(RunFolder(folder).config.read_text(encoding="utf-8"))
        return config_hash(parse_complete(plain, is_stored=True))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ConfigError, TypeError, AttributeError):
        return None


@contextmanager
def sweep_lock(folder: Path) -> Iterator[None]:
    """Inside the context, no other process runs a sweep in this folder; the lock ends with its process.

    Raises:
        RunFolderError: another process holds the lock.
    """
    file = folder / _LOCK
    try:
        with folder_lock(file):
            yield
    except TimeoutError as error:
        text = f"Another process runs a sweep in {folder} (it holds {file}). Wait until it ends, or choose another"
        raise RunFolderError(f"{text} sweep.name.") from error


@contextmanager
def folder_lock(file: Path) -> Iterator[None]:
    """Hold the lock ``file``; it ends with its process.

    Raises:
        TimeoutError: another process holds it.
    """
    from filelock import FileLock  # the import takes 0.1 s, and few commands need it

    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=0)
    lock.acquire()  # its Timeout is a TimeoutError
    # Keep the file: the next process may already hold this lock.
    try:
        yield
    finally:
        lock.release()
