"""Data sets that bring their own rows, each a table; one file each, or one for a family.

A file has ``load(options) -> (table, target columns)``, and may have ``describe_predictions``. A new data set is such a
file and one in ``conf/data``.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlp_lightning.config import DataConfig
from mlp_lightning.config.names import SKLEARN_SETS, SYNTHETIC_SETS

# Takes predictions (B, C) and targets (B, T).
Describer = Callable[[NDArray[np.float32], NDArray[np.float32]], str]


def load_dataset(options: DataConfig) -> tuple[pa.Table, list[str]]:
    """The table of ``options.name``, and the names of its target columns."""
    return _file_of(options.name).load(options)


def describer(name: str) -> Describer | None:
    """What says something of the final predictions of all training rows; most data sets have nothing to say."""
    return None if name in ("table", "frame") else getattr(_file_of(name), "describe_predictions", None)


def _file_of(name: str) -> types.ModuleType:
    family = "sklearn" if name in SKLEARN_SETS else "synthetic" if name in SYNTHETIC_SETS else name
    return importlib.import_module(f"{__name__}.{family}")
