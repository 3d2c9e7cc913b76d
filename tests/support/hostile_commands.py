"""The commands that are given somebody's file, in a process of limited memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mlp_lightning.commands import inference, train
from support.hostile_checkpoints import MOST_MEMORY

REFUSED, ACCEPTED = 2, 0
COMMANDS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "train": (train.main, []),
    "evaluate": (inference.evaluate, ["output=evaluation"]),
    "predict": (inference.predict, ["output=predictions.csv"]),
    "export": (inference.export, ["format=safetensors", "output=model.safetensors"]),
}


def command_outcome(command: str, path: Path, rows: Path, folder: Path, training: Sequence[str]) -> int:
    """What a command ends with; call it in a process that ends after it.

    Args:
        command: a name in :data:`COMMANDS`.
        path: given as ``ckpt_path``.
        rows: table of new rows.
        folder: where it runs.
        training: further words of ``train``.
    """
    main, words = COMMANDS[command]
    further = {"train": training, "export": ()}.get(command, [f"data.path={rows}"])
    sys.argv = [f"{command}.py", f"ckpt_path='{path}'", *words, *further]
    os.chdir(folder)
    limit_memory()
    main()
    return ACCEPTED


def limit_memory() -> None:
    """Let this process have :data:`~support.hostile_checkpoints.MOST_MEMORY` more than it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
