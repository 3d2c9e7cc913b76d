"""Rows of a table on their way to a model: as prepared for training, and as a trained model prepares them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tables import finite_tables, mixed_table, module_of, rows_of, set_up, table_options
from support.tolerances import assert_close, assert_same_bits, assert_same_state

from mlp_lightning.config.inference import CsvAsTrained
from mlp_lightning.config.names import NUMERIC_EMBEDDINGS, SCALINGS
from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.reading import Given
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.steps import Execution
from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.networks.optimizers import build_optimizer
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.encoding import Surprises, encode
from mlp_lightning.tables.idle_csv import refuse_idle_csv
from mlp_lightning.tables.reading.memory import KeptSource, MemorySource
from mlp_lightning.tables.reading.sources import FileSource

KINDS = {"float64": "numeric", "int64": "numeric", "bool": "boolean", "timestamp": "datetime", "string": "categorical"}


def write_csv(table: pa.Table, path: Path) -> str:
    pyarrow.csv.write_csv(table, path)
    return str(path)


def write_parquet(table: pa.Table, path: Path) -> str:
    pyarrow.parquet.write_table(table, path)
    return str(path)


def write_feather(table: pa.Table, path: Path) -> str:
    pyarrow.feather.write_feather(table, path)
    return str(path)


WRITERS: dict[str, Callable[[pa.Table, Path], str]] = {
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
    "rows.feather": write_feather,
}


def raw_rows(data: TabularDataModule, path: str) -> np.ndarray:
    """The raw rows of a file as a prediction reads them: with the types of the trained columns alone."""
    source = FileSource.open(path, CsvConfig())
    batches = encoded_batches(source, data.preprocessor.columns, None, Surprises())
    return np.concatenate([one.raw_BF for one in batches])


def assert_prepared_as_trained(data: TabularDataModule, path: str, module: MLPModule) -> None:
    """Raw rows of the file, prepared by the model, are the rows that it was trained on."""
    raw_BF = torch.from_numpy(raw_rows(data, path))
    for split, rows in data.splits.items():
        chosen = raw_BF[data.row_numbers[split]]
        assert_same_bits(module.preprocessor(chosen).to(rows.features_BF.dtype), rows.features_BF)
        with torch.no_grad():
            assert_same_bits(module(chosen), module.mlp(rows.features_BF))
            predicted_BC = module.task.predictions(module.mlp(rows.features_BF).double())
            assert_same_bits(module.predict(chosen), predicted_BC)


# ---- training and serving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_model_prepares_raw_rows_as_in_training(tmp_path, name: str, embedding: str) -> None:
    path = WRITERS[name](mixed_table(), tmp_path / name)
    for scaling in SCALINGS:
        data = set_up(path=path, scaling=scaling, val_fraction=0.2, test_fraction=0.2)
        module = module_of(data, numeric_embedding=embedding)
        assert_prepared_as_trained(data, path, module)
        # And so does the model that a checkpoint makes of plain data and tensors.
        again = MLPModule(**module.hparams)
        again.load_state_dict(module.state_dict())
        assert_prepared_as_trained(data, path, again.eval())


@settings(deadline=None, max_examples=100)
@given(finite_tables(most_rows=12), st.sampled_from(SCALINGS), st.sampled_from(sorted(WRITERS)), st.booleans())
def test_any_table_is_prepared_as_in_training(
    tmp_path_factory: Any, table: pa.Table, scaling: str, name: str, as_categories: bool
) -> None:
    path = WRITERS[name](table, tmp_path_factory.mktemp("any") / name)
    kinds = {one: "categorical" if as_categories else KINDS[one.partition(" ")[0]] for one in table.column_names[:-1]}
    options: dict[str, Any] = {"scaling": scaling} if {"numeric", "datetime"} & {*kinds.values()} else {}
    try:
        data = set_up(path=path, kinds=kinds, **options)
    except DataError as error:
        # What a text table does not hold: zero bytes, or the difference between texts and missing values.
        assert name == "rows.csv" and ("zero bytes" in str(error) or "cannot be read" in str(error))  # noqa: PT017, PT018
        return
    assert_prepared_as_trained(data, path, module_of(data))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1.50", "2.25", "1.5", ""], "categorical"),
        (["007", "7", "08", "NA"], "categorical"),
        (["2024-01-05", "2024-02-06", "", "2024-01-05"], "categorical"),
        (["true", "false", "true", ""], "categorical"),
        (["true", "false", "true", ""], "numeric"),
        (["0", "1", "1", ""], "boolean"),
        (["True", "FALSE", "true", ""], "boolean"),
        (["2024-01-05", "2024-01-05 12:30:00", "", "2023-01-01"], "datetime"),
        ([" 1", "2 ", "3.5", "nan"], "numeric"),
        (["1", "2", "3e400", "4"], "categorical"),
        (["12:30:00", "12:31:00", "12:30:00", ""], "auto"),
        (["1", "2", "3", "9223372036854775807"], "auto"),
        (["1", "2", "3", "9223372036854775808"], "auto"),
    ],
)
def test_texts_mean_the_same_when_they_are_read_again(tmp_path, values: list[str], kind: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,z,y\n" + "".join(f"{one},{row % 3},{'ab'[row % 2]}\n" for row, one in enumerate(values * 3)))
    data = set_up(path=str(path), test_path=str(path), kinds={"x": kind})
    assert_prepared_as_trained(data, str(path), module_of(data))
    assert_same_bits(data.splits["test"].features_BF, data.splits["train"].features_BF)
    assert not any(line.startswith("test:") for line in data.describe())


def test_a_classification_of_numbers_reads_its_targets_again(tmp_path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "".join(f"{row * row},{('1.50', '2.25')[row % 2]}\n" for row in range(12)))
    data = set_up(path=str(path), test_path=str(path), task="binary")
    assert data.target.class_names == ("1.5", "2.25")
    assert_same_bits(data.splits["test"].targets, data.splits["train"].targets)


def test_rows_of_many_parts_are_prepared_as_one(monkeypatch) -> None:
    expected = set_up(mixed_table()).splits["train"].features_BF
    monkeypatch.setattr("mlp_lightning.data.preparation.ROWS_AT_ONCE", 7)
    assert_same_bits(set_up(mixed_table()).splits["train"].features_BF, expected)


# ---- validation and test rows stay unseen ------------------------------------------------------------------


def trained_weights(data: TabularDataModule, **model: Any) -> dict[str, torch.Tensor]:
    module = module_of(data, **model)
    optimizer = build_optimizer(module.mlp.parameters(), module.config.optimizer)
    StepLoop(module.mlp.train(), module.task, optimizer).run(Execution(data.training_steps, 0, 6))
    return module.state_dict()


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_rows_that_do_not_train_leave_no_trace(tmp_path, scaling: str, task: str) -> None:
    split = ["train", "train", "train", "val", "test"] * 12
    trains = np.array(split) == "train"
    one, other = mixed_table(seed=1), mixed_table(seed=2)
    found = []
    for number, further in enumerate((one, other)):
        columns = {}
        for name in one.column_names[:-1]:
            values = one.column(name).to_pylist()
            # The same types, other values: a new town, other gaps, numbers a thousand times as large.
            changed = further.column(name).to_pylist()
            if number and name == "town":
                changed = [None if value is None else f"new {value}" for value in changed]
            if number and name in ("number", "whole"):
                changed = [None if value is None else 1000 * value for value in changed]
            mixed = [a if train else b for a, b, train in zip(values, changed, trains, strict=True)]
            columns[name] = pa.array(mixed, one.schema.field(name).type)
        target = one.column("y") if task == "binary" else pa.array(np.arange(60) ** 2 * 0.25)
        if number and task == "regression":
            target = pa.array(np.where(trains, np.arange(60) ** 2 * 0.25, -1e6 - np.arange(60)))
        table = pa.table({**columns, "split": split, "y": target})
        path = write_parquet(table, tmp_path / f"{number}.parquet")
        options: dict[str, Any] = {"scaling": scaling, "split_column": "split", "batch_size": 9}
        found.append(set_up(path=path, **options))
    before, after = found
    assert not torch.equal(before.splits["val"].features_BF, after.splits["val"].features_BF)
    assert before.preprocessing == after.preprocessing
    assert_same_state(before.preprocessor.state_dict(), after.preprocessor.state_dict())
    assert_same_bits(before.splits["train"].features_BF, after.splits["train"].features_BF)
    for embedding in NUMERIC_EMBEDDINGS:
        weights = [trained_weights(data, numeric_embedding=embedding) for data in found]
        assert_same_state(*weights)


# ---- the data module ---------------------------------------------------------------------------------------


def test_rows_of_every_split_are_where_it_says() -> None:
    data = set_up(mixed_table(), val_fraction=0.2, test_fraction=0.2, seed=3)
    labels = [["no", "yes"].index(one) for one in mixed_table().column("y").to_pylist()]
    assert sorted(sum((rows_of(data, split) for split in data.splits), [])) == list(range(60))  # noqa: RUF017
    for split, rows in data.splits.items():
        assert rows.targets[:, 0].tolist() == [labels[row] for row in rows_of(data, split)]
        assert len(rows) == {"train": 36, "val": 12, "test": 12}[split]


def test_it_is_a_data_module_like_others() -> None:
    data = set_up(mixed_table(), batch_size=25, max_one_hot=5)
    assert (data.task, data.target.class_names, data.out_features) == ("binary", ("no", "yes"), 1)
    assert data.in_features == data.preprocessor.out_features
    assert data.preprocessor.numeric_features == 4
    assert data.steps_per_epoch == 3
    assert data.preprocessing is not None
    assert data.preprocessing["target"]["columns"][0]["classes"] == ["no", "yes"]
    first = data.splits["train"].features_BF
    data.setup()
    assert data.splits["train"].features_BF is first


def test_double_precision_is_that_of_the_rows() -> None:
    data = TabularDataModule(table_options(), given=Given(MemorySource(mixed_table(), "t")), dtype=torch.float64)
    data.setup()
    train = data.splits["train"]
    assert train.features_BF.dtype == train.targets.dtype == torch.float64
    raw_BF = torch.from_numpy(encode(mixed_table(), data.rows.report.columns, str))
    assert_same_bits(data.preprocessor(raw_BF), train.features_BF)


def test_description() -> None:
    table = mixed_table().append_column("id", pa.array(np.arange(60))).append_column("same", pa.array([1] * 60))
    assert set_up(table, kinds={"flag": "ignored"}).describe() == [
        "60 rows; predicts y (binary: no 28, yes 32)",
        "numeric: number (with gaps), whole (with gaps)",
        "categorical: colour (3, with gaps), town (14, with gaps)",
        "datetime: when (with gaps)",
        "ignored: flag: as asked",
        "ignored: id: all values differ, as names of rows do",
        "ignored: same: is always 1",
    ]


def test_many_columns_are_summarised() -> None:
    draw = np.random.default_rng(0)
    numbers = {f"n{column}": draw.normal(size=20) for column in range(15)}
    same = {f"c{column}": [1] * 20 for column in range(12)}
    lines = set_up(pa.table({**numbers, **same, "y": draw.normal(size=20)})).describe()
    assert lines[0] == "20 rows; predicts y (regression, a number)"
    assert lines[1].endswith("n11 and 3 more")
    assert lines[-1] == "ignored: 2 more columns"
    assert len(lines) == 13


def test_columns_with_a_role_are_features_only_if_asked() -> None:
    table = mixed_table().append_column("g", pa.array(np.arange(60) // 3))
    options: dict[str, Any] = {"group_column": "g", "val_fraction": 0.2}
    assert "g" not in [one.name for one in set_up(table, **options).rows.report.columns]
    assert "g" in [one.name for one in set_up(table, kinds={"g": "numeric"}, **options).rows.report.columns]


@pytest.mark.parametrize("role", ["weight_column", "group_column", "time_column", "split_column"])
def test_a_role_for_a_column_that_is_not_there(role: str) -> None:
    options: dict[str, Any] = {role: "numbr"}
    with pytest.raises(DataError, match="the table has no column 'numbr'; did you mean 'number'"):
        TabularDataModule(table_options(**options), given=Given(MemorySource(mixed_table(), "the table"))).setup()


def test_a_path_that_is_missing() -> None:
    with pytest.raises(ConfigError, match="name a CSV, Parquet or Feather file or a folder"):
        set_up()
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        set_up(path="nowhere.csv")


def test_an_infinite_number_has_the_line_of_its_file(tmp_path) -> None:
    path = tmp_path / "rows.csv"
    # Rows without a target are left out, and lines are counted all the same.
    path.write_text("x,y\n1.5,a\n2.5,\n3.5,b\n,\ninf,a\n4.5,b\n")
    with pytest.raises(DataError, match=r"rows\.csv, line 6: column 'x' is infinite"):
        set_up(path=str(path))


def test_no_training_rows() -> None:
    table = pa.table({"x": [1, 2, 3], "s": ["train", "val", "test"], "y": [None, 1.5, 2.5]})
    with pytest.raises(DataError, match="marks no row as train"):
        set_up(table, split_column="s")


# ---- a table that is read once -----------------------------------------------------------------------------


def test_kept_rows_are_those_of_the_source(tmp_path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x;z;y\n" + "".join(f"{row % 4};{row},5;{'ab'[row % 2]}\n" for row in range(24)))
    kept = KeptSource(FileSource.open(str(path), CsvConfig()))
    cases: list[dict[str, Any]] = [{}, {"val_fraction": 0.25}, {"kinds": {"x": "categorical"}}, {}]
    for case in cases:
        one, other = set_up(path=str(path), **case), set_up(source=kept, **case)
        assert one.preprocessing == other.preprocessing
        for split, rows in other.splits.items():
            assert_same_bits(one.splits[split].features_BF, rows.features_BF)


def test_kept_rows_are_read_once_for_each_reading() -> None:
    class Counted(MemorySource):
        reads = 0

        def read(self, *given: Any, **further: Any) -> pa.Table:
            self.reads += 1
            return super().read(*given, **further)

    counted = Counted(mixed_table(), "t")
    kept = KeptSource(counted)
    for seed in range(3):
        set_up(source=kept, seed=seed)
    assert counted.reads == 1
    set_up(source=kept, kinds={"whole": "categorical"})
    assert counted.reads == 2


def test_a_table_of_scikit_learn_needs_no_target() -> None:
    data = TabularDataModule(table_options(name="wine", target=None))
    data.setup()
    train = data.splits["train"]
    assert (data.task, train.features_BF.shape) == ("multiclass", (178, 13))
    assert_close(train.features_BF.mean(0), torch.zeros(13), 1e-5)
    assert_close(train.features_BF.std(0, correction=0), torch.ones(13), 1e-5)


@pytest.mark.parametrize("ending", ["parquet", "feather", "csv"])
def test_how_text_is_written_where_no_file_is_text(tmp_path, ending: str) -> None:
    table = pa.table({"x": np.arange(60) % 7 / 3, "y": ["u", "v"] * 30})
    path = WRITERS[f"rows.{ending}"](table, tmp_path / f"rows.{ending}")
    options: dict[str, Any] = {"name": "table", "path": path, "target": "y", "csv": CsvConfig(decimal=".")}
    if ending == "csv":
        TabularDataModule(**options).setup()
        return
    with pytest.raises(ConfigError) as caught:
        TabularDataModule(**options).setup()
    rule = f"has no effect: rows.{ending} is no text"
    assert caught.value.faults == (Fault("data.csv.decimal", ".", rule, "leave it out"),)
    text = write_csv(table, tmp_path / "more.csv")
    TabularDataModule(**options, test_path=text).setup()
    # What a command is given for its rows, on top of the options of the training.
    with pytest.raises(ConfigError, match=r"data\.csv\.decimal"):
        refuse_idle_csv(CsvAsTrained(decimal=","), [FileSource.open(path, CsvConfig())])
    refuse_idle_csv(CsvAsTrained(), [FileSource.open(path, CsvConfig())])
