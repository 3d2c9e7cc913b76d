"""Where a path leads into a packed run, its folder is made."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mlp_lightning.runs.packed.reading import FolderThereError, packed_run
from mlp_lightning.runs.run_folder import RunFolder


def unpacked(path: Path) -> Path:
    """The same path; what it names is there if it is a packed run or lies in one.

    Raises:
        RunFolderError: the files of the sweep are damaged.
        OSError: the folder of the run cannot be written.
    """
    for folder in (path, *path.parents):
        if folder.exists():
            break
        run = packed_run(folder)
        if run is not None:
            from mlp_lightning.runs.packed.unpacking import unpack  # what makes files of runs takes a while to import

            with contextlib.suppress(FolderThereError):  # another process was faster
                unpack(run, folder)
            break
    return path


def last_checkpoint_of(path: Path) -> Path:
    """``last.ckpt`` of a run folder or a packed run; any other path as it is."""
    last = RunFolder(unpacked(path)).last_checkpoint
    return last if last.is_file() else path
