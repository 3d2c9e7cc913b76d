"""Groups of rows in evaluations: drawn as a whole, from tables, data frames and splits."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from support.inference_tables import flowers, in_threes

from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.evaluation.rows import evaluated_split, evaluated_table
from mlp_lightning.inference.loading import load_model
from mlp_lightning.tables.reading.memory import MemorySource


def in_groups(rows: int, groups: int) -> pa.Table:
    """Copies of few different rows, so that only their groups say how much they know."""
    table = flowers(groups, seed=12).drop_columns(["weight"])
    copies = np.arange(rows) % groups
    return table.take(pa.array(copies)).append_column("plant", pa.array([f"p{one}" for one in copies]))


def test_intervals_of_groups_are_those_of_their_different_rows(kind_model, tmp_path) -> None:
    pyarrow.csv.write_csv(in_groups(400, 40), tmp_path / "new.csv")
    of_file = evaluate(kind_model.checkpoint, tmp_path, str(tmp_path / "new.csv"), group_column="plant")
    frame = in_groups(400, 40).to_pandas().astype({"plant": "category"})
    assert isinstance(frame, pandas.DataFrame)
    of_frame = evaluate(kind_model.checkpoint, tmp_path, frame=frame, group_column="plant")
    single = evaluate(kind_model.checkpoint, tmp_path / "single", frame=in_groups(40, 40))
    assert of_file.intervals["log_loss"] == pytest.approx(single.intervals["log_loss"])
    assert of_frame.intervals["log_loss"] == pytest.approx(single.intervals["log_loss"])
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["group_column"], found["intervals"]["of"]) == ("plant", "groups of plant")
    assert any(line.startswith("Intervals: 95% of 1,000 resamples of groups of plant") for line in of_frame.facts())


def test_groups_of_the_training_are_used_where_the_table_has_them(grouped_model, tmp_path) -> None:
    report = evaluate(grouped_model.checkpoint, tmp_path)
    assert report.group_column == "plant"
    model = load_model(grouped_model.checkpoint)
    rows = evaluated_split(model, "test", None)
    names_B = in_threes()["plant"].to_numpy(zero_copy_only=False)[rows.numbers_B]
    assert rows.units_B is not None
    assert len(set(names_B)) < len(names_B)
    assert len(set(zip(names_B, rows.units_B, strict=True))) == len(set(names_B)) == rows.units_B.max() + 1
    without = MemorySource.of_frame(flowers(50))
    assert evaluated_table(model, without, None).units_B is None
    assert evaluate(grouped_model.checkpoint, tmp_path, frame=in_threes(50)).group_column == "plant"


def test_groups_that_cannot_be_used(kind_model, price_model, tmp_path) -> None:
    table, out = in_groups(30, 5), tmp_path / "out"
    gaps = pa.array([None if row == 8 else "a" for row in range(30)])
    holes = table.set_column(table.column_names.index("plant"), "plant", gaps)
    with pytest.raises(DataError, match=r"row 9.*: group_column 'plant' has no value"):
        evaluate(kind_model.checkpoint, out, frame=holes, group_column="plant")
    with pytest.raises(DataError, match="plnt"):
        evaluate(kind_model.checkpoint, out, frame=table, group_column="plnt")
    with pytest.raises(ConfigError, match="group_column = 'plant' has no effect without resamples"):
        evaluate(price_model.checkpoint, out, frame=table, group_column="plant", resamples=0)
    assert not out.exists()


def test_rows_of_weight_0_are_not_drawn(big_model, tmp_path) -> None:
    """Nor do their groups count."""
    table = flowers(80, seed=3).append_column("plant", pa.array(np.arange(80) // 2))
    counting = table.filter(pa.array(table["weight"].to_numpy() > 0))
    for group_column in (None, "plant"):
        whole, part = (
            evaluate(big_model.checkpoint, tmp_path, frame=one, group_column=group_column, resamples=50)
            for one in (table, counting)
        )
        assert whole.intervals["brier"] == pytest.approx(part.intervals["brier"])
        assert whole.calibration is not None
        assert part.calibration is not None
        assert whole.calibration.after == pytest.approx(part.calibration.after)
