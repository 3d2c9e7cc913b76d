"""What the folders in a run folder are called; imports nothing, as a leaderboard needs it, too."""

from __future__ import annotations

#: The folder of the runs of an ensemble's members, inside of that of the ensemble.
MEMBERS = "members"


def fold_folder(fold: int) -> str:
    """The name of the run folder of a fold, inside of the folder of its cross-validation."""
    return f"fold-{fold}"
