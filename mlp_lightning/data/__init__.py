"""Data sets and how their rows reach the training loop."""

from __future__ import annotations

import importlib

from mlp_lightning.data.datamodule import TabularDataModule


def data_module_class(name: str) -> type[TabularDataModule]:
    """The LightningDataModule of a data set: the one class defined in ``mlp_lightning/data/<name>.py``."""
    module = importlib.import_module(f"mlp_lightning.data.{name}")
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, TabularDataModule) and one.__module__ == module.__name__
    ]
    (data_module,) = found
    return data_module


__all__ = ["TabularDataModule", "data_module_class"]
