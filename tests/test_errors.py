"""What messages are made of."""

from __future__ import annotations

import pytest

from mlp_lightning.errors import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1_000, "1,000 rows"), (21, "21 rows")]
)
def test_a_count_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "row") == text
    assert counted(count, "row", "") == text.replace(",", "")
