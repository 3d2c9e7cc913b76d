"""What JSON lines need, against Python's own reader, wherever a block of the file ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading import json_bounds
from mlp_lightning.tables.reading.json_bounds import refuse_unbounded_json

NAMES = [
    "a",
    "b",
    "feature_1",
    "feature_2",
    "eine längere Überschrift: mit {Klammern}",
    'a "quoted" name',
    "\\",
    ":",
    "",
]
NAMES += ["of eight", "of seven", "of twenty-four or more letters 1", "of twenty-four or more letters 2"]
TEXTS = ["", "plain", ": b", "}\n{", '"a": ', "\\", 'end of a text\\"', "[[[", "12:30", "é", "{"]
VALUES = st.one_of(st.integers(), st.none(), st.booleans(), st.sampled_from(TEXTS), st.text())
NESTED = st.recursive(
    VALUES, lambda one: st.lists(one, max_size=2) | st.dictionaries(st.sampled_from(NAMES), one), max_leaves=4
)
ROW = st.dictionaries(st.sampled_from(NAMES), NESTED, min_size=1)
# Tables have the same names in all rows, and are looked at in another way.
FLAT = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, VALUES)), min_size=1, max_size=9)
)
WRITTEN = st.sampled_from([(", ", ": "), (",", ":"), (" ,", " :"), ("\t,  ", " \t : ")])


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(depth, inner), default=0) if isinstance(value, (dict, list)) else 0


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def is_refused(path: Path, block: int, **limits: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "_BLOCK_BYTES", block)
        for name, value in limits.items():
            patch.setattr(json_bounds, name, value)
        try:
            refuse_unbounded_json(path, "t.jsonl")
        except DataError as error:
            return str(error)
    return ""


@given(
    rows=st.one_of(FLAT, st.lists(ROW, min_size=1, max_size=5)),
    separators=WRITTEN,
    ascii_only=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    block=st.sampled_from([7, 64, 300, 1 << 20]),
)
def test_levels_and_names(
    rows: list[Any],
    separators: tuple[str, str],
    ascii_only: bool,
    line_end: str,
    block: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    lines = [json.dumps(row, separators=separators, ensure_ascii=ascii_only) + line_end for row in rows]
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    path.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))
    levels = max(map(depth, rows))
    assert not is_refused(path, block, JSON_LEVELS=levels)
    assert levels == 1 or "nested more than" in is_refused(path, block, JSON_LEVELS=levels - 1)
    # Names that differ in what is escaped alone are counted once: Arrow's reader has no more of them than this.
    count = len(
        {json_bounds._ESCAPED.sub(b"", json.dumps(one, ensure_ascii=ascii_only).encode()) for one in names_in(rows)}
    )
    assert not is_refused(path, block, COLUMNS=count)
    if block >= 2 * max(len(line.encode("utf-8", "surrogatepass")) for line in lines):  # else one may be cut in two
        assert "columns, which is the limit" in is_refused(path, block, COLUMNS=count - 1)


REGULAR = b'{"name": 1, "other": "x"}\n' * 3


@pytest.mark.parametrize(
    "line",
    [
        b'{"name": 1, "other": 2, "third": 3}\n',
        b'{"name": 1, "third": 2}\n',
        b'{"name": 1, "third" : 2, "other": 2}\n',
        b'{"name": 1, "Xther": 2}\n',
        b'{"name": 1, "another": 2}\n',
        b'{"name": 1, "ther": 2}\n',
        b'{"third": 1, "other": 2}\n',
        b'{"name": 1,\n"third": 2, "other": 2}\n',
        b'{"name": 1, "o\\u0074her": 2}\n',
        b'{"other": 1, "name": 2, "thi{rd": 2}\n',
        b'{"name": 1, "other": {"third": 2}}\n',
        b'{"third": 1}{"name": 1, "other": 2}\n',
    ],
)
@pytest.mark.parametrize("block", [40, 1 << 20])
def test_one_row_is_unlike_the_others(line: bytes, block: int, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(REGULAR)
    assert not is_refused(path, block, COLUMNS=2)
    path.write_bytes(REGULAR + line + REGULAR)
    assert "columns, which is the limit" in is_refused(path, block, COLUMNS=2)
