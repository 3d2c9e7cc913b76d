"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mlp_lightning.errors import RunFolderError

# Bytes that the configuration and the logs of a run take.
_SMALL_FILES = 1 << 16
# Whether a process of another machine still writes can be seen by the time of its file alone.
_ABANDONED_AFTER_S = 24 * 3600
_CLOCKS_DIFFER_BY_S = 10
_WAITING = ".waiting.tmp"
_WRITER = re.compile(r"\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[^.]+\.tmp$")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under ``path`` only once it is complete and on the disk.

    It is written beside ``path``, because a rename is atomic only within one file system. Whatever goes
    wrong, a file that was there before stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{_host()}.{os.getpid()}."
    with names_file(path):
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        replace(Path(name), path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)
        # torch's writer fails once more over the failure itself, and hides it behind another message.
        first = _system_error(error)
        if first is not None and (first.filename in (None, name)):
            raise OSError(first.errno, first.strerror, str(path)) from error
        raise
    sync_folder(path.parent)


def _system_error(error: BaseException | None) -> OSError | None:
    """What the system refused: an error, or the first one that it came after."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def remove_abandoned(folder: Path, with_waiting: bool = False) -> None:
    """Remove what killed processes have left half written in a folder and below.

    A file is left alone while its process may live: on this machine as long as there is a process with its number that
    is older than the file's last change, and of another machine for a day.

    Args:
        folder: where to look.
        with_waiting: whether also whole files that :func:`complete_writes` has left: no journal names them.
    """
    for path in folder.rglob(".*.tmp"):
        if path.name.endswith(_WAITING) and not with_waiting:
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            changed = path.stat().st_mtime
            writer = _WRITER.search(path.name)
            if writer is not None and writer["host"] == _host():
                is_dead = not _lives(int(writer["pid"]), changed)
            else:
                is_dead = time.time() - changed > _ABANDONED_AFTER_S
            if is_dead:
                path.unlink()


def _lives(pid: int, since: float) -> bool:
    """Whether the process with this number may have written a file that was last changed at a time."""
    if os.name != "posix":
        return time.time() - since < _ABANDONED_AFTER_S  # Windows has no signal that only asks
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    with contextlib.suppress(OSError, ValueError, IndexError):  # what follows is Linux's
        ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        began = time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
        # The number may have gone to a new process since.
        return began <= since + _CLOCKS_DIFFER_BY_S
    return True


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname()) or "unknown"


@contextlib.contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Errors of the system that are raised inside name ``path``: those of writing name no file by themselves.

    Raises:
        OSError: as the system raised it, with the name of the file.
    """
    try:
        yield
    except OSError as error:
        if _is_nameless(error):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _is_nameless(error: OSError) -> bool:
    return error.errno is not None and error.filename is None


def refuse_full_disk(folder: Path) -> None:
    """Find out whether small files can be written into a folder, before something else tries and fails less clearly.

    Raises:
        OSError: they cannot; it names the folder.
    """
    with names_file(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_SMALL_FILES))
        file.flush()


def write_all(contents: Mapping[Path, bytes], journal: Path) -> None:
    """Write many small files: all of them whole, or none of them there.

    They are written under other names and brought to the disk together. Then ``journal`` says which belong where,
    and only then they get their names. A process that is killed meanwhile leaves a journal, by which
    :func:`complete_writes` does the rest; one that is killed before leaves no file.

    Args:
        contents: of each file.
        journal: a file that is not there; its name begins with a dot and ends with ``.journal``.
    """
    waiting = {path: path.with_name(f".{path.name}.{_host()}.{os.getpid()}{_WAITING}") for path in contents}
    try:
        for path, content in contents.items():
            with names_file(path):
                waiting[path].write_bytes(content)
        bring_to_disk(waiting.values())
        with atomic_write(journal) as file:
            places = {os.path.relpath(name, journal.parent): path.name for path, name in waiting.items()}
            file.write(json.dumps(places).encode())
    except BaseException:
        for name in waiting.values():
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)
        raise
    for path, name in waiting.items():
        replace(name, path)
    journal.unlink()


def complete_writes(folder: Path, named: str = "*", within: Path | None = None) -> None:
    """Give the files their names that a killed :func:`write_all` has left waiting.

    Its journal is in ``folder``, or in a folder in there, and its name, without what surrounds it, is like ``named``.

    Args:
        folder: where to look for journals.
        named: which ones.
        within: the folder that has all the files; ``folder`` if ``None``.

    Raises:
        RunFolderError: a journal is damaged, or names anything but files that wait in that folder.
    """
    within = folder if within is None else within
    for journal in [*folder.glob(f".{named}.journal"), *folder.glob(f"*/.{named}.journal")]:
        for waiting, name in _waiting(journal, within).items():
            if waiting.exists():
                replace(waiting, waiting.with_name(name))
        journal.unlink()


def _waiting(journal: Path, folder: Path) -> dict[Path, str]:
    """The files that a journal names, which may be a stranger's, and the names that they get."""
    hint = "Remove it if you do not know where it is from, and try again"
    try:
        places = json.loads(journal.read_bytes())
        # The last part of a path: journals of earlier versions have whole ones.
        names = {journal.parent / waiting: Path(name).name for waiting, name in places.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(
            f"{journal} is damaged: it does not say which files wait for their names. {hint}."
        ) from error
    root = folder.resolve()
    for waiting, name in names.items():
        is_waiting = bool(name) and waiting.name.startswith(f".{name}.") and waiting.name.endswith(_WAITING)
        if not (is_waiting and waiting.parent.resolve().is_relative_to(root)):
            raise RunFolderError(f"{journal} names {waiting}, which is no waiting file in {folder}. {hint}.")
    return names


def bring_to_disk(files: Iterable[Path]) -> None:
    """Wait until what was written is on the disk."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def replace(source: Path, target: Path) -> None:
    """Rename over ``target``, atomically.

    Windows refuses that while another process has the target open. Virus scanners and indexers do so for moments after
    every write: hence the patience.
    """
    for _ in range(40 if os.name == "nt" else 0):
        with contextlib.suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(0.05)
    source.replace(target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Bring the rename itself to the disk, where the system lets a folder be opened (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with names_file(folder):
            os.fsync(handle)
    finally:
        os.close(handle)
