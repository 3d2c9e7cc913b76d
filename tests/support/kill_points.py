"""Stopping a process at any of the points at which it changes the disk.

The process is forked from one that has imported everything. It counts every file that is opened for writing, renamed,
removed or brought to the disk, and every folder that is made or removed, below one folder; at the chosen one it ends
without cleaning up, as a SIGKILL ends it, or the disk is full from then on.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

KILLED, RAISED = 9, 70
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
_NEEDS_ROOM = ("open", "os.mkdir", "fsync")
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def forked(
    task: Callable[[], Any], folder: Path, kill_at: int | None = None, full_at: int | None = None
) -> tuple[int, list[str]]:
    """Run a task in a forked process, which prints into ``output`` beside ``folder``.

    Args:
        task: what to do.
        folder: below which changes count.
        kill_at: number of the point at which the process ends, just before it; ``None``: it is not stopped.
        full_at: number of the point from which on nothing new can be written; ``None``: there is room.

    Returns:
        The exit code, and what happened at each point.
    """
    record = folder.with_name(f"{folder.name}.points")
    record.unlink(missing_ok=True)
    _, status = os.waitpid(started(task, folder, kill_at, full_at), 0)
    points = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return os.waitstatus_to_exitcode(status), points


def started(task: Callable[[], Any], folder: Path, kill_at: int | None = None, full_at: int | None = None) -> int:
    """The same without waiting for the end; returns the number of the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        child = os.fork()
    if child == 0:
        _become(task, folder, (kill_at, full_at), folder.with_name(f"{folder.name}.points"))
    return child


def _become(task: Callable[[], Any], folder: Path, ends: tuple[int | None, int | None], record: Path) -> None:
    code = RAISED
    torch.set_num_threads(1)  # a fork has none of the threads that OpenMP would wait for
    try:
        output = os.open(folder.with_name("output"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        _watch(folder, *ends, os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        result = task()
        code = result if isinstance(result, int) else 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _watch(folder: Path, kill_at: int | None, full_at: int | None, record: int) -> None:
    root, count = str(folder), 0

    def point(what: str) -> None:
        nonlocal count
        if count == kill_at:
            os._exit(KILLED)
        count += 1
        os.write(record, f"{what}\n".encode())
        if full_at is not None and count > full_at and what.partition(" ")[0] in _NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what.partition(" ")[2] or None)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _TO_WRITE)
        if changes and any(
            root in os.fsdecode(one) for one in arguments[:2] if isinstance(one, (str, bytes, os.PathLike))
        ):
            point(f"{event} {os.fsdecode(arguments[0])}")

    for name in ("fsync", "sync"):
        original = getattr(os, name)

        def watched(*arguments: Any, original: Any = original, name: str = name) -> None:
            point(name)
            original(*arguments)

        setattr(os, name, watched)
    sys.addaudithook(hook)
