"""Data sets and how their rows reach the training loop."""

from __future__ import annotations

import importlib

from mlp_lightning.config.names import TABLES
from mlp_lightning.data.datamodule import TabularDataModule


def data_module_class(name: str, as_table: bool = False) -> type[TabularDataModule]:
    """The LightningDataModule of a data set.

    That is the one class defined in ``mlp_lightning/data/<name>.py``; data sets without their own file are tables.
    ``as_table`` asks for the table of a data set that has both.
    """
    if as_table or name in TABLES:
        name = "table"
    module = importlib.import_module(f"mlp_lightning.data.{name}")
    # On Python 3.10 isinstance(NDArray[...], type) is true, and issubclass() refuses it: look at the type itself.
    classes = [one for one in vars(module).values() if issubclass(type(one), type)]
    found = [one for one in classes if issubclass(one, TabularDataModule) and one.__module__ == module.__name__]
    (data_module,) = found
    return data_module


__all__ = ["TabularDataModule", "data_module_class"]
