"""Features of raw columns: against scikit-learn, by hand, and for any table."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, RobustScaler, StandardScaler
from support.tables import finite_tables, generator, mixed_table, module_of, set_up
from support.tolerances import assert_close, assert_same_bits, assert_same_state

from mlp_lightning.config.names import SCALINGS
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, DataError
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import encode

NAN = math.nan
DRAW = np.random.default_rng(0)


def number(name: str = "x", missing: bool = False) -> Column:
    return Column(name, "numeric", "float64", missing)


def fitted(
    columns: list[Column], raw_BF: np.ndarray, scaling: str = "standard", weights_B: np.ndarray | None = None
) -> Preprocessor:
    preprocessor = Preprocessor(columns, scaling)
    preprocessor.fit(lambda column: raw_BF[:, columns.index(column)], weights_B)
    return preprocessor


def features(columns: list[Column], raw_BF: Any, scaling: str = "standard", new_BF: Any = None) -> np.ndarray:
    """Features of ``new_BF`` (of the training rows, if there is none)."""
    raw_BF = np.asarray(raw_BF, dtype=np.float64)
    new_BF = raw_BF if new_BF is None else np.asarray(new_BF, dtype=np.float64)
    return fitted(columns, raw_BF, scaling)(torch.from_numpy(new_BF)).numpy()


# ---- scales ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1.0, 1e-200, 1e200, 1e6])
def test_standard_is_that_of_scikit_learn(unit: float) -> None:
    raw_BF = DRAW.normal(size=(101, 3)) * [1, 5, 0.1] + [0, 100, -3]
    new_BF = DRAW.normal(size=(20, 3)) * 10
    columns = [number(name) for name in "abc"]
    scaler = StandardScaler().fit(raw_BF)
    assert_close(features(columns, raw_BF * unit), scaler.transform(raw_BF), atol=1e-9)
    assert_close(features(columns, raw_BF * unit, new_BF=new_BF * unit), scaler.transform(new_BF), atol=1e-7)


@pytest.mark.parametrize("rows", [101, 97, 401])
def test_robust_is_that_of_scikit_learn_softly_cut_at_3(rows: int) -> None:
    # 4 n + 1 rows: then a quartile is a row, and not between two, where definitions differ.
    raw_BF = DRAW.standard_t(2, size=(rows, 2)) * [1, 5] + [0, 100]
    scaled_BF = RobustScaler().fit_transform(raw_BF)
    found_BF = features([number("a"), number("b")], raw_BF, "robust")
    assert_close(found_BF, scaled_BF / np.sqrt(1 + (scaled_BF / 3) ** 2), atol=1e-9)
    assert np.abs(found_BF).max() < 3


@pytest.mark.parametrize("rows", [8, 50, 102])
def test_robust_between_two_rows_is_near_that_of_scikit_learn(rows: int) -> None:
    raw_BF = DRAW.uniform(size=(rows, 1))
    scaled_BF = RobustScaler().fit_transform(raw_BF)
    found_BF = features([number()], raw_BF, "robust")
    assert_close(found_BF, scaled_BF / np.sqrt(1 + (scaled_BF / 3) ** 2), atol=2 / rows)


def test_robust_of_a_column_half_of_which_is_equal() -> None:
    raw_BF = np.array([[0.0]] * 9 + [[4.0]])
    # The quartiles are equal; half of the range replaces them.
    assert_close(features([number()], raw_BF, "robust")[-1], [2 / math.sqrt(1 + (2 / 3) ** 2)])


def test_quantile_is_near_that_of_scikit_learn() -> None:
    raw_BF = np.stack([DRAW.exponential(size=2001), DRAW.normal(size=2001) ** 3], axis=1)
    reference = QuantileTransformer(n_quantiles=65, output_distribution="normal", subsample=10**6).fit(raw_BF)
    inner = (raw_BF > np.quantile(raw_BF, 0.02, 0)) & (raw_BF < np.quantile(raw_BF, 0.98, 0))
    found_BF = features([number("a"), number("b")], raw_BF, "quantile")
    assert np.abs(found_BF - reference.transform(raw_BF))[inner].max() < 0.05
    assert_close(np.abs(found_BF).max(), -torch.special.ndtri(torch.tensor(0.001, dtype=torch.float64)))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=40),
    st.lists(st.floats(-1e308, 1e308), min_size=2, max_size=10),
    st.sampled_from(SCALINGS),
)
def test_a_larger_number_never_becomes_smaller(train: list[float], new: list[float], scaling: str) -> None:
    ordered = np.sort(np.array([*train, *new]))[:, None]
    found_B = features([number()], np.array(train)[:, None], scaling, ordered)[:, 0]
    assert np.isfinite(found_B).all()
    assert (np.diff(found_B) >= -1e-9).all()


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e308, 5e-324, 123456789.123])
def test_a_constant_column_is_not_divided_by_zero(scaling: str, value: float) -> None:
    found_BF = features([number()], [[value]] * 7, scaling)
    assert np.isfinite(found_BF).all()
    if scaling in ("standard", "robust"):
        assert np.abs(found_BF).max() <= 1e-9


def test_none_leaves_numbers_as_they_are() -> None:
    raw_BF = DRAW.normal(size=(20, 2)) * 1e6
    assert_same_bits(features([number("a"), number("b")], raw_BF, "none"), raw_BF)


def test_large_numbers_keep_their_small_differences() -> None:
    seconds = 1.7e9 + np.arange(10) / 1000
    assert_close(
        features([number()], seconds[:, None])[:, 0],
        StandardScaler().fit_transform(np.arange(10.0)[:, None])[:, 0],
        1e-3,
    )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_row_of_weight_two_is_two_rows(scaling: str) -> None:
    raw_BF = DRAW.normal(size=(30, 2))
    raw_BF[3:6, 1] = NAN
    weights_B = DRAW.integers(0, 4, 30).astype(np.float64)
    columns = [number("a"), number("b", missing=True)]
    repeated = fitted(columns, np.repeat(raw_BF, weights_B.astype(int), axis=0), scaling)
    weighted = fitted(columns, raw_BF, scaling, weights_B)
    for name, value in repeated.state_dict().items():
        assert_close(weighted.state_dict()[name], value, atol=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_zero_weights_give_finite_features(scaling: str) -> None:
    preprocessor = fitted([number()], np.ones((3, 1)), scaling, np.zeros(3))
    assert preprocessor(torch.ones(2, 1)).isfinite().all()


def test_truth_values_are_one_and_minus_one() -> None:
    column = Column("x", "boolean", "bool", missing=True)
    assert_same_bits(features([column], [[0], [1], [NAN], [0]]), np.array([[-1.0, 0], [1, 0], [0, 1], [-1, 0]]))


# ---- gaps --------------------------------------------------------------------------------------------------


def test_gaps_are_filled_and_marked_as_by_scikit_learn() -> None:
    raw_BF = DRAW.normal(size=(51, 3))
    raw_BF[DRAW.random((51, 3)) < 0.3] = NAN
    raw_BF[:, 1] = np.arange(51)
    columns = [number("a", True), number("b"), number("c", True)]
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    assert_close(features(columns, raw_BF, "none"), imputer.fit_transform(raw_BF), atol=1e-12)
    new_BF = np.array([[NAN, NAN, NAN], [1.0, 2, 3]])
    assert_close(features(columns, raw_BF, "none", new_BF), imputer.transform(new_BF), atol=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_column_that_is_all_gaps(scaling: str) -> None:
    found_BF = features([number("x", True)], [[NAN]] * 4, scaling, [[NAN], [5.0]])
    assert np.isfinite(found_BF).all()
    assert found_BF[:, 1].tolist() == [1, 0]


# ---- categories --------------------------------------------------------------------------------------------


def test_one_hot_is_that_of_scikit_learn() -> None:
    train = np.array(["b", "a", "c", "a", "ü"] * 3)[:, None]
    new = np.array(["a", "ü", "d", "", "b"])[:, None]
    column = Column("x", "categorical", "string", vocabulary=("a", "b", "c", "ü"), encoding="one_hot")
    preprocessor = Preprocessor([column])
    reference = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train)
    for texts in (train, new):
        raw_BF = encode(pa.table({"x": texts[:, 0]}), [column], str)
        assert_same_bits(preprocessor(torch.from_numpy(raw_BF)).numpy(), reference.transform(texts))
    assert preprocessor.feature_names == ["x = a", "x = b", "x = c", "x = ü"]


@pytest.mark.parametrize("missing", [True, False])
def test_a_gap_is_a_category_where_training_rows_have_it(missing: bool) -> None:
    column = Column("x", "categorical", "string", missing, ("a", "b"), "one_hot")
    found_BP = Preprocessor([column])(torch.tensor([[0.0], [1], [2], [3]])).tolist()
    if missing:
        assert found_BP == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    else:  # as a category that is not known
        assert found_BP == [[0, 0], [0, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize("missing", [True, False])
def test_codes_for_embeddings(missing: bool) -> None:
    column = Column("x", "categorical", "string", missing, ("a", "b"), "embedding")
    preprocessor = Preprocessor([number("n"), column])
    assert preprocessor.cardinalities == [4]
    assert preprocessor.numeric_features == 1
    codes = preprocessor(torch.tensor([[0.0, 0], [0, 1], [0, 2], [0, 3]]))[:, 1].tolist()
    # A gap that no training row has is an unknown category: gaps were not learned.
    assert codes == ([0, 1, 2, 3] if missing else [1, 1, 2, 3])


def test_embedded_columns_of_a_table() -> None:
    data = set_up(mixed_table(), max_one_hot=2)
    columns = {one.name: one for one in data.rows.report.columns}
    assert (columns["colour"].encoding, columns["town"].encoding) == ("embedding", "embedding")
    assert list(data.cardinalities) == [2 + len(columns["colour"].vocabulary), 2 + len(columns["town"].vocabulary)]
    codes_B2 = data.splits["train"].features_BF[:, -2:]
    for index, name in enumerate(("colour", "town")):
        values = mixed_table().column(name).to_pylist()
        expected = [0 if one is None else 2 + columns[name].vocabulary.index(one) for one in values]
        assert codes_B2[:, index].tolist() == expected


# ---- dates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [1, 1968, 1970, 2000, 2024, 9998])
def test_dates_are_cyclic(year: int) -> None:
    first = datetime.datetime(year, 1, 1)
    moments = [first + datetime.timedelta(days=17 * step, minutes=97 * step) for step in range(40)]
    table = pa.table({"x": pa.array([*moments, None], pa.timestamp("us"))})
    column = Column("x", "datetime", "timestamp", True, parts=("year", "week", "day"))
    raw_BF = encode(table, [column], str)
    preprocessor = fitted([column], raw_BF)
    found_BP = preprocessor(torch.from_numpy(raw_BF)).numpy()
    assert preprocessor.feature_names == [
        *("x", "x (year, sin)", "x (week, sin)", "x (day, sin)", "x (year, cos)", "x (week, cos)", "x (day, cos)"),
        "x missing",
    ]
    assert found_BP[-1].tolist() == [found_BP[-1, 0], 0, 0, 0, 0, 0, 0, 1]
    for moment, row in zip(moments, found_BP, strict=False):
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        of_day = (moment - midnight) / datetime.timedelta(days=1)
        # 1970 began on a Thursday.
        of_week = ((moment.weekday() - 3) % 7 + of_day) / 7
        of_year = (moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=365.2425) % 1
        phases = 2 * np.pi * np.array([of_year, of_week, of_day])
        assert_close(row[1:7], np.concatenate([np.sin(phases), np.cos(phases)]), atol=1e-6)


def test_only_cycles_that_vary_are_features() -> None:
    days = pa.array([datetime.date(2024, 1, 1) + datetime.timedelta(days=7 * row) for row in range(20)])
    data = set_up(pa.table({"day": days, "y": ["a", "b"] * 10}))
    assert data.preprocessor.feature_names == ["day", "day (year, sin)", "day (year, cos)"]


# ---- any table ---------------------------------------------------------------------------------------------


def test_numbers_whose_spread_is_beyond_all_numbers() -> None:
    """From -1e308 to 1e308: their difference is infinite."""
    table = pa.table(
        {"x": [1e308, 1e308, -1e308, -1e308, 0.0, -1e308], "s": ["train"] * 4 + ["val"] * 2, "y": [*"ababab"]}
    )
    for scaling in SCALINGS:
        data = set_up(table, scaling=scaling, split_column="s")
        assert all(rows.features_BF.isfinite().all() for rows in data.splits.values()), scaling
        assert len(data.splits["train"].features_BF.unique()) == 2


def set_up_with_effect(table: pa.Table, **options: Any) -> TabularDataModule:
    """Without the options that are refused as no column of the table needs them."""
    try:
        return set_up(table, **options)
    except ConfigError as error:
        idle = {fault.key.removeprefix("data.") for fault in error.faults}
        assert idle <= {"scaling", "max_one_hot"}
        return set_up(table, **{name: value for name, value in options.items() if name not in idle})


@settings(deadline=None, max_examples=120)
@given(
    finite_tables(),
    st.sampled_from(SCALINGS),
    st.integers(0, 5),
    st.sampled_from(["none", "periodic", "piecewise_linear"]),
)
def test_every_finite_table_gives_finite_logits(table: pa.Table, scaling: str, most: int, embedding: str) -> None:
    rows = table.num_rows // 2
    split = pa.array(["train"] * rows + ["val"] * (table.num_rows - rows))
    names = [name for name in table.column_names if name != "y"]
    kinds = {name: "categorical" for name in names if name.startswith("string")}
    options = {"scaling": scaling, "max_one_hot": most, "split_column": "split", "kinds": kinds}
    table = table.append_column("split", split)
    try:
        data = set_up_with_effect(table, **options)
    except DataError:
        # Constant or empty columns alone: nothing to learn from. As asked, they are used.
        kinds |= {
            name: {"float64": "numeric", "int64": "numeric", "bool": "boolean", "timestamp": "datetime"}[
                name.partition(" ")[0]
            ]
            for name in names
            if not name.startswith("string")
        }
        data = set_up_with_effect(table, **options)
    preprocessor = data.preprocessor
    module = module_of(data, numeric_embedding=embedding, embedding_size=3, embedding_frequencies=4)
    for one in data.splits.values():
        assert one.features_BF.shape[1] == preprocessor.out_features == len(preprocessor.feature_names)
        assert one.features_BF.isfinite().all()
        with torch.no_grad():
            assert module.mlp(one.features_BF).isfinite().all()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats() | st.sampled_from([1e308, -1e308, 5e-324]), min_size=6, max_size=6), st.sampled_from(SCALINGS)
)
def test_any_raw_numbers_give_finite_features(raw: list[float], scaling: str) -> None:
    # As many categories as there are of them: a code of an embedding is always a whole number.
    data = set_up(mixed_table(40), scaling=scaling, max_one_hot=20)
    raw_1F = torch.tensor([[0.0 if abs(one) == math.inf else one for one in raw]], dtype=torch.float64)
    assert raw_1F.shape[1] == data.preprocessor.in_features
    assert data.preprocessor(raw_1F).isfinite().all()


# ---- as a part of a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", SCALINGS)
def test_it_is_rebuilt_from_plain_data_and_buffers(scaling: str) -> None:
    data = set_up(mixed_table(), scaling=scaling)
    again = Preprocessor.from_dict(data.preprocessor.to_dict())
    again.load_state_dict(data.preprocessor.state_dict())
    raw_BF = torch.from_numpy(encode(mixed_table(seed=5), data.rows.report.columns, str))
    assert_same_bits(again(raw_BF), data.preprocessor(raw_BF))
    assert again.feature_names == data.preprocessor.feature_names
    assert not list(again.parameters())


def test_it_stays_in_double_precision_when_the_model_is_cast() -> None:
    data = set_up(mixed_table())
    module = module_of(data)
    before = {name: value.clone() for name, value in module.preprocessor.state_dict().items()}
    raw_BF = torch.from_numpy(encode(mixed_table(seed=5), data.rows.report.columns, str))
    expected = module.preprocessor(raw_BF)
    for cast in (module.half, module.double, module.bfloat16, module.float):
        cast()
        assert_same_state(module.preprocessor.state_dict(), before)
        assert_same_bits(module.preprocessor(raw_BF), expected)
    assert module.to(torch.float16).preprocessor.center_N.dtype == torch.float64


def test_rows_do_not_depend_on_each_other() -> None:
    data = set_up(mixed_table(), scaling="quantile")
    raw_BF = torch.from_numpy(encode(mixed_table(seed=5), data.rows.report.columns, str))
    order = torch.randperm(len(raw_BF), generator=generator())
    whole = data.preprocessor(raw_BF)
    assert_same_bits(data.preprocessor(raw_BF[order]), whole[order])
    assert_same_bits(torch.cat([data.preprocessor(one) for one in raw_BF.split(1)]), whole)
    assert data.preprocessor(raw_BF[:0]).shape == (0, data.preprocessor.out_features)


def test_feature_names_are_unique() -> None:
    names = set_up(mixed_table()).preprocessor.feature_names
    assert len(set(names)) == len(names)
    assert names[:4] == ["number", "whole", "flag", "when"]
    assert {"number missing", "flag missing", "when missing", "colour = missing", "colour = red"} <= set(names)
    assert names[-1] == "town"
