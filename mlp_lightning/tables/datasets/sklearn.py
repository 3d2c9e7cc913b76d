"""The tables that scikit-learn ships, under names that can be typed on a command line.

Numbers are scikit-learn's own, bit for bit and in its row order; only the columns are renamed, and classes are
called by their names. Shapes: ``B`` rows, ``F`` features, ``T`` target columns.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
import pyarrow as pa

from mlp_lightning.config import DataConfig
from mlp_lightning.config.names import SKLEARN_SETS
from mlp_lightning.config.parsing import unknown_name
from mlp_lightning.errors import ConfigError

# Descriptive names for what scikit-learn calls "target". linnerud names its three targets itself.
_TARGETS = {
    "iris": "species",
    "wine": "cultivar",
    "breast_cancer": "diagnosis",
    "digits": "digit",
    "diabetes": "disease_progression",
}


def load(options: DataConfig) -> tuple[pa.Table, list[str]]:
    """A table of :data:`~mlp_lightning.config.names.SKLEARN_SETS`, read from scikit-learn's own files.

    ==============  ====  ==  ==========================================================================
    name               B   F  target
    ==============  ====  ==  ==========================================================================
    iris             150   4  species: setosa, versicolor, virginica
    wine             178  13  cultivar: class_0, class_1, class_2
    breast_cancer    569  30  diagnosis: malignant, benign
    digits          1797  64  digit: 0 to 9
    diabetes         442  10  disease_progression: a number
    linnerud          20   3  weight (pounds), waist (inches), pulse (beats per minute): three numbers
    ==============  ====  ==  ==========================================================================

    The features of diabetes are those of published results: centred, each column with a sum of squares of 1.
    Some pixels of digits are 0 in every row.

    Args:
        options: name it.

    Returns:
        The table, and the names of its target columns, which are its last ones. Features and numbers to predict
        are float64, classes are text, except that a digit is int64. No value is missing.

    Raises:
        ConfigError: there is no such set.

    >>> table, targets = load(DataConfig(name="iris"))
    >>> table.column_names
    ['sepal_length_cm', 'sepal_width_cm', 'petal_length_cm', 'petal_width_cm', 'species']
    >>> targets
    ['species']
    """
    name = options.name
    if name not in SKLEARN_SETS:
        rule = "must be one of " + ", ".join(SKLEARN_SETS)
        raise ConfigError([unknown_name("data.name", name, rule, SKLEARN_SETS)])
    # Imported when used: scikit-learn takes a second.
    shipped = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")()
    features_BF = np.asarray(shipped.data, dtype=np.float64)
    columns = {
        _column_name(feature): pa.array(features_B)
        for feature, features_B in zip(shipped.feature_names, features_BF.T, strict=True)
    }
    targets = _target_columns(name, shipped)
    return pa.table({**columns, **targets}), list(targets)


def _target_columns(name: str, shipped: Any) -> dict[str, pa.Array]:
    """The target columns of ``shipped``, scikit-learn's bunch of the set ``name``."""
    if name == "linnerud":
        targets_BT = np.asarray(shipped.target, dtype=np.float64)
        return {
            _column_name(target): pa.array(targets_B)
            for target, targets_B in zip(shipped.target_names, targets_BT.T, strict=True)
        }
    if name == "diabetes":
        return {_TARGETS[name]: pa.array(np.asarray(shipped.target, dtype=np.float64))}
    if name == "digits":
        return {_TARGETS[name]: pa.array(np.asarray(shipped.target, dtype=np.int64))}
    class_names = [str(one) for one in shipped.target_names]
    return {_TARGETS[name]: pa.array([class_names[label] for label in shipped.target], type=pa.string())}


def _column_name(name: str) -> str:
    """A name that needs no quotes in a shell or in Hydra's grammar: "sepal length (cm)" is sepal_length_cm."""
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
