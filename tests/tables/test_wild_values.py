"""One value far from all others of its column is named before the training, and ordinary tails are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from numpy.typing import NDArray
from support.tables import set_up

from mlp_lightning.config import ColumnConfig
from mlp_lightning.tables.wild_values import WildValues


def said(x_B: NDArray[np.float64], y_B: NDArray[np.float64], **options: Any) -> list[str]:
    table = pa.table({"x": x_B, "other": np.random.default_rng(5).normal(size=len(x_B)), "y": y_B})
    return [line for line in set_up(table, **options).describe() if "outweighs them" in line]


@pytest.mark.parametrize(("wild", "row"), [(999999999.0, 7), (-4.5e6, 0), (2e300, 299), (-1.7e308, 12)])
@pytest.mark.parametrize("scaling", ["standard", "none"])
def test_a_feature(wild: float, row: int, scaling: str) -> None:
    draw = np.random.default_rng(0)
    x_B, y_B = draw.normal(1, 0.5, 300), draw.normal(size=300)
    assert not said(x_B, y_B, scaling=scaling)
    x_B[row] = wild
    (line,) = said(x_B, y_B, scaling=scaling)
    assert line.startswith(f"x: {wild:.10g} in row {row + 1} is far from the other values, half of which are from ")
    low, high = (float(word) for word in line.partition("are from ")[2].partition(",")[0].split(" to "))
    np.testing.assert_allclose([low, high], np.percentile(x_B, [25, 75]), rtol=1e-3)
    assert line.endswith("set data.scaling=quantile")
    assert not said(x_B, y_B, scaling="quantile")
    assert not said(x_B, y_B, scaling="robust")


@pytest.mark.parametrize("times", [1e4, 1e7])
@pytest.mark.parametrize("scaling", ["standard", "quantile"])
def test_targets(times: float, scaling: str) -> None:
    draw = np.random.default_rng(1)
    x_B, y_B = draw.normal(size=400), draw.uniform(2, 3, 400)
    y_B[[11, 90, 200, 399]] *= times
    (line,) = said(x_B, y_B, scaling=scaling)
    farthest = int(y_B.argmax())
    assert line.startswith(f"y: {y_B[farthest]:.10g} in row {farthest + 1} (and 3 more such rows) is far ")
    assert line.endswith("correct or remove such rows")


def test_of_the_training_rows_alone(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=60)
    values[[10, 50]] = 1e8, 1e9
    parts = ["train"] * 40 + ["val"] * 20
    rows = [f"{x},{x * 2 % 1},{part}" for x, part in zip(values.tolist(), parts, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,part", *rows]) + "\n")
    data = set_up(path=str(tmp_path / "t.csv"), split_column="part")
    (line,) = (line for line in data.describe() if "outweighs them" in line)
    assert line.startswith("x: 100000000 in t.csv, line 12 is far ")
    (line,) = (line for line in data.describe() if "outweighs the other" in line)
    assert line.startswith("x: 1000000000 in t.csv, line 52 is far from the training rows, half of which are from ")
    assert "outweighs the other val rows in their metrics: correct it, or set data.scaling=quantile" in line


@pytest.mark.parametrize("own_file", [False, True])
@pytest.mark.parametrize("split", ["val", "test"])
def test_values_of_held_out_rows(split: str, own_file: bool, tmp_path: Path) -> None:
    """They decide the metrics of their rows, though no scale."""
    draw = np.random.default_rng(3)
    x_B, y_B = draw.uniform(5, 6, 150), draw.uniform(-1, 0, 150)
    x_B[[120, 140]], y_B[149] = [7e5, -9e5], 3e7
    part_B = np.where(np.arange(150) < 100, "train", split)
    table = pa.table({"x": x_B, "y": y_B, "part": part_B})

    def lines(table: pa.Table, **options: Any) -> list[str]:
        described = set_up(table, **options).describe()
        return [line for line in described if "is far from" in line]

    if own_file:
        pyarrow.csv.write_csv(table.slice(100), tmp_path / "held_out.csv")
        options: dict[str, Any] = {
            f"{split}_path": str(tmp_path / "held_out.csv"),
            "columns": {"part": ColumnConfig("ignored")},
        }
        of_x, of_y = sorted(lines(table.slice(0, 100), **options))
        rows = ["held_out.csv, line 42", "held_out.csv, line 51"]
    else:
        options = {"split_column": "part"}
        of_x, of_y = sorted(lines(table, **options))
        rows = ["row 141", "row 150"]
    assert of_x.startswith(f"x: -900000 in {rows[0]} (and 1 more such row")
    assert of_y.startswith(f"y: 30000000 in {rows[1]} is far from the training rows, half of which are from -0.")
    assert of_y.endswith(f"outweighs the other {split} rows in their metrics: correct or remove such rows")
    kept = table.slice(0, 100) if own_file else table
    assert sorted(lines(kept, scaling="quantile", **options)) == [of_y]


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_columns(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lognormal_B, student_B = draw.lognormal(0, 1, 100_000), draw.standard_t(3, 100_000)
    assert not said(lognormal_B, student_B)
    assert not said(student_B, lognormal_B)
    assert not said(draw.integers(0, 2, 100_000).astype(float), student_B)


def test_columns_without_a_quartile_range_or_with_few_values() -> None:
    def note(values: list[float]) -> str | None:
        wild = WildValues.of("x", np.array(values), "")
        return None if wild is None else wild.look_at(np.array(values)).note(str)

    assert note([3.0] * 50) is None
    assert note([0.0] * 45 + [1.0] * 5) is None
    assert note([0.0] * 49 + [1e9]) is None
    assert note([*map(float, range(18)), 1e9]) is None
    assert note([*map(float, range(18)), 1e9, np.nan, np.nan]) is None
    assert note([*map(float, range(19)), 1e9]) is not None
    assert note([np.nan] * 50) is None


def test_one_value_among_millions() -> None:
    values_B = np.random.default_rng(4).normal(size=2_500_000)
    wild = WildValues.of("x", values_B, "")
    assert wild is not None
    assert wild.look_at(values_B).note(str) is None
    values_B[1_234_567] = -1e6
    parts = np.split(np.arange(2_500_000), [400_000, 2_000_000])
    for rows in parts:
        wild.look_at(values_B[rows], rows)
    line = wild.note(lambda row: f"row {row}")
    assert line is not None
    assert "-1000000 in row 1234567 is far" in line
