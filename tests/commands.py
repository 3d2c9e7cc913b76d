"""Running the project's real commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]


def environment() -> dict[str, str]:
    """The environment of a command: one thread, output as it comes."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def train(*overrides: str, folder: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """``python scripts/train.py`` with overrides, in ``folder``."""
    return subprocess.run(
        [*TRAIN, *overrides], cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def start(*overrides: str, folder: Path) -> subprocess.Popen[str]:
    """Start the same command and go on at once."""
    return subprocess.Popen(
        [*TRAIN, *overrides],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def only_run(folder: Path, name: str) -> Path:
    """The folder of the one run called ``name`` below ``folder``."""
    (run,) = (folder / "lightning_logs" / name).iterdir()
    return run
