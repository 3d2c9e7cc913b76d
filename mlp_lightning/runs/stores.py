"""Where the records of runs are kept: each in a folder, or many in a few files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlp_lightning.runs.checkpoint_bytes import checkpoint_bytes
from mlp_lightning.runs.checkpoints import as_written
from mlp_lightning.runs.files import bring_to_disk, names_file, write_all
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.metric_files import MetricFiles
from mlp_lightning.runs.run_folder import claim, refuse_taken, result_bytes


class RunStore(Protocol):
    """Takes what is left of the members of a training, by their numbers, when they end."""

    #: Whether a run alone writes its checkpoints into its folder while it trains.
    takes_checkpoints_live: bool

    def claim(self, members: Sequence[Member]) -> None:
        """Make their places those of these runs: all of them, or none if one of them is another run's."""
        ...

    def put_checkpoint(self, number: int, which: str, content: Mapping[str, Any]) -> None:
        """Keep the ``last`` or the ``best`` checkpoint of a member."""
        ...

    def has_best(self, number: int) -> bool:
        """Whether the best checkpoint of a member is there."""
        ...

    def put_log(self, number: int, text: str) -> None:
        """Keep what ``train.log`` says."""
        ...

    def put_results(self, contents: Mapping[int, dict[str, Any]]) -> None:
        """Keep ``result.json`` of members; all else of them is there. After this nothing of them can be lost."""
        ...


class Folders:
    """Every run has its folder.

    Args:
        members: of the training.
        files: their curves.
    """

    takes_checkpoints_live = True

    def __init__(self, members: Sequence[Member], files: MetricFiles) -> None:
        self._members = members
        self._files = files
        self._written: list[Path] = []

    def claim(self, members: Sequence[Member]) -> None:
        for one in members:
            refuse_taken(one.folder)
        for one in members:
            claim(one.folder.path, one.config)

    def put_checkpoint(self, number: int, which: str, content: Mapping[str, Any]) -> None:
        folder = self._members[number].folder
        path = folder.last_checkpoint if which == "last" else folder.best_checkpoint
        path.parent.mkdir(exist_ok=True)
        self._put(path, checkpoint_bytes(as_written(content)))

    def has_best(self, number: int) -> bool:
        return self._members[number].folder.best_checkpoint.is_file()

    def put_log(self, number: int, text: str) -> None:
        self._put(self._members[number].folder.log, text.encode())

    def put_results(self, contents: Mapping[int, dict[str, Any]]) -> None:
        members = self._members
        if len(members) == 1:
            members[0].folder.write_result(contents[0])
            return
        bring_to_disk([*self._written, *self._files.paths])
        self._written.clear()
        files = {members[number].folder.result: result_bytes(content) for number, content in contents.items()}
        write_all(files, members[0].folder.path.parent / f".{os.getpid()}-{time.time_ns()}.journal")

    def _put(self, path: Path, content: bytes) -> None:
        """Write a file of a folder that no other process looks into yet."""
        try:
            with names_file(path):
                path.write_bytes(content)
        except OSError:  # as of a full disk: no half of it stays
            path.unlink(missing_ok=True)
            raise
        self._written.append(path)
