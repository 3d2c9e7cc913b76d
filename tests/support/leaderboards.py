"""Builds, prints and writes the leaderboard of made-up records."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

from rich.console import Console

from mlp_lightning.sweeps.leaderboard.csv_file import write_csv
from mlp_lightning.sweeps.leaderboard.ranking import build_leaderboards
from mlp_lightning.sweeps.leaderboard.table import print_leaderboard

FOLDER = Path("/logs/sweep")
TRAIN = "python scripts/train.py"


def build_leaderboard(records, folder):
    """The leaderboard of runs that can be compared."""
    (board,) = build_leaderboards(records, folder)
    return board


def rows_of(board, folder) -> list[dict[str, str]]:
    path = write_csv([dataclasses.replace(board, folder=folder)])
    return list(csv.DictReader(io.StringIO(path.read_text())))


def printed(board, *, terminal: bool = False, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_leaderboard(board, Console(file=file, force_terminal=terminal, width=width, color_system=None), TRAIN)
    file.seek(0)
    return file.read()
