from __future__ import annotations

import random
import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import datasets
from support.tolerances import assert_same_bits

from mlp_lightning.config import DataConfig
from mlp_lightning.config.names import SKLEARN_SETS
from mlp_lightning.errors import ConfigError
from mlp_lightning.tables.datasets.sklearn import load

ROWS_AND_FEATURES = {
    "iris": (150, 4),
    "wine": (178, 13),
    "breast_cancer": (569, 30),
    "digits": (1797, 64),
    "diabetes": (442, 10),
    "linnerud": (20, 3),
}
TARGETS = {
    "iris": ["species"],
    "wine": ["cultivar"],
    "breast_cancer": ["diagnosis"],
    "digits": ["digit"],
    "diabetes": ["disease_progression"],
    "linnerud": ["weight", "waist", "pulse"],
}


def load_named(name: str) -> tuple[pa.Table, list[str]]:
    return load(DataConfig(name=name))


def matrix(table: pa.Table) -> np.ndarray:
    return np.column_stack([column.to_numpy() for column in table.columns])


def test_every_name_has_a_table() -> None:
    assert set(ROWS_AND_FEATURES) == set(TARGETS) == set(SKLEARN_SETS)


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_features_are_those_of_scikit_learn_in_their_order(name: str) -> None:
    table, targets = load_named(name)
    features = table.drop_columns(targets)
    assert features.shape == ROWS_AND_FEATURES[name]
    assert set(features.schema.types) == {pa.float64()}
    assert_same_bits(matrix(features), getattr(datasets, f"load_{name}")(return_X_y=True)[0])


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_target_columns_are_the_last_ones(name: str) -> None:
    table, targets = load_named(name)
    assert targets == TARGETS[name]
    assert table.column_names[-len(targets) :] == targets


@pytest.mark.parametrize("name", ["diabetes", "linnerud"])
def test_numbers_to_predict_are_those_of_scikit_learn(name: str) -> None:
    table, targets = load_named(name)
    expected = getattr(datasets, f"load_{name}")(return_X_y=True)[1]
    assert set(table.select(targets).schema.types) == {pa.float64()}
    assert_same_bits(matrix(table.select(targets)), expected.reshape(len(expected), -1))


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("iris", ["setosa", "versicolor", "virginica"]),
        ("wine", ["class_0", "class_1", "class_2"]),
        ("breast_cancer", ["malignant", "benign"]),
    ],
)
def test_classes_are_called_by_their_names(name: str, classes: list[str]) -> None:
    table, (target,) = load_named(name)
    assert table.schema.field(target).type == pa.string()
    labels = getattr(datasets, f"load_{name}")(return_X_y=True)[1].tolist()
    assert [classes.index(text) for text in table[target].to_pylist()] == labels


def test_digits_are_integers() -> None:
    table, _ = load_named("digits")
    assert table.schema.field("digit").type == pa.int64()
    assert table["digit"].to_pylist() == datasets.load_digits(return_X_y=True)[1].tolist()


def test_a_pixel_is_where_its_name_says() -> None:
    table, _ = load_named("digits")
    images = datasets.load_digits(return_X_y=True)[0].reshape(-1, 8, 8)
    for row, column in [(0, 2), (3, 5), (7, 7)]:
        assert table[f"pixel_{row}_{column}"].to_pylist() == images[:, row, column].tolist()


def test_a_measurement_is_in_the_column_of_its_name() -> None:
    # First rows as the sets' authors published them.
    first = {name: load_named(name)[0].slice(0, 1).to_pylist()[0] for name in SKLEARN_SETS}
    assert first["iris"] == {
        "sepal_length_cm": 5.1,
        "sepal_width_cm": 3.5,
        "petal_length_cm": 1.4,
        "petal_width_cm": 0.2,
        "species": "setosa",
    }
    assert first["linnerud"] == {"chins": 5, "situps": 162, "jumps": 60, "weight": 191, "waist": 36, "pulse": 50}
    wine = first["wine"]
    assert (wine["alcohol"], wine["od280_od315_of_diluted_wines"], wine["proline"]) == (14.23, 3.92, 1065)
    cancer = first["breast_cancer"]
    assert (cancer["mean_radius"], cancer["worst_fractal_dimension"]) == (17.99, 0.1189)
    assert cancer["diagnosis"] == "malignant"
    assert first["diabetes"]["disease_progression"] == 151


def test_features_of_diabetes_are_scaled_as_published() -> None:
    table, targets = load_named("diabetes")
    features = matrix(table.drop_columns(targets))
    np.testing.assert_allclose(features.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((features**2).sum(axis=0), 1, atol=1e-12)


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_column_names_need_no_quotes_and_differ(name: str) -> None:
    names = load_named(name)[0].column_names
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", one) for one in names)


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_nothing_is_missing(name: str) -> None:
    table, _ = load_named(name)
    table.validate(full=True)
    for column in table.columns:
        assert column.null_count == 0
        assert not pa.types.is_floating(column.type) or np.isfinite(column.to_numpy()).all()


def test_a_table_belongs_to_its_caller() -> None:
    assert load_named("iris")[0] is not load_named("iris")[0]
    assert load_named("iris")[0].equals(load_named("iris")[0])


def test_global_random_states_are_left_alone() -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), repr(np.random.get_state(legacy=False)), torch.get_rng_state().tolist()

    before = states()
    for name in SKLEARN_SETS:
        load_named(name)
    assert states() == before


def test_a_mistyped_name_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"data\.name = 'breastcancer' must be one of iris, .*did you mean breast_c"):
        load_named("breastcancer")
