"""The valid name that a mistyped word most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def nearest(word: str, names: Collection[str]) -> str | None:
    """One of ``names``, or ``None``: by spelling, or as the only one that the word is a part of.

    >>> nearest("wide_dep", ["wide", "wide_deep"]), nearest("hidden", ["lab8_2_mlp", "iris_hidden_units"])
    ('wide_deep', 'iris_hidden_units')
    """
    found = difflib.get_close_matches(str(word), list(names), n=1, cutoff=0.6)
    if found:
        return found[0]
    lowered = {name.lower(): name for name in names}
    if str(word).lower() in lowered:
        return lowered[str(word).lower()]
    longer = [name for name in names if len(str(word)) >= 3 and str(word).lower() in name.lower()]
    return longer[0] if len(longer) == 1 else None
