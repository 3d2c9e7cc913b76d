"""The command that repeats a line of the leaderboard."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from mlp_lightning.sweeps.leaderboard.keys import (
    FOLD,
    REPETITIONS,
    SEED,
    SPLIT,
    is_shown,
    key_of,
    value_text,
    values_of,
)
from mlp_lightning.sweeps.leaderboard.ranking import Line
from mlp_lightning.sweeps.records import SINGLE_RUN, RunRecord, configured


def repeat_command(line: Line, program: str) -> str:
    """The shell command, in one line, that trains a combination again, with all of its seeds and folds.

    Args:
        line: whose runs were started by a command.
        program: the training program, e.g. ``python scripts/train.py``.
    """
    records = line.records
    repeated = {key: _repeated(records, key) for key in REPETITIONS}
    words = []
    for override in records[0].overrides:
        key = key_of(override)
        if not is_shown(key) and key not in ("ckpt_path", "name", "verbosity"):
            continue
        if key not in repeated:
            words.append(override)
        elif repeated[key]:
            words.append(f"{override.partition('=')[0]}={repeated[key]}")
    given = {key_of(one) for one in records[0].overrides}
    # What was not in the command: the split that all seeds of a sweep share.
    if SPLIT not in given and configured(records[0].config, SPLIT) is not None:
        words.append(f"{SPLIT}={repeated[SPLIT]}")
    if any("," in text or text.startswith("range") for text in repeated.values()):
        program = f"{program.removesuffix(SINGLE_RUN)} -m"
    return " ".join([program, *map(shlex.quote, words)])


def _repeated(records: Sequence[RunRecord], key: str) -> str:
    """All values of a key, as in the override of a sweep; empty for all folds, which need no override."""
    values = values_of(records, key)
    follows = all(configured(one.config, SEED) == configured(one.config, SPLIT) for one in records)
    if key == SPLIT and len(values) > 1 and follows:
        return "${seed}"  # not every split with every seed
    if key == FOLD and values == list(range(configured(records[0].config, "data.cv.folds") or 0)):
        return ""
    return _several(values)


def _several(values: Sequence[Any]) -> str:
    whole = all(isinstance(one, int) for one in values)
    if len(values) > 2 and whole and list(values) == list(range(values[0], values[-1] + 1)):
        return f"range({values[0]},{values[-1] + 1})"
    return ",".join(map(value_text, values))
