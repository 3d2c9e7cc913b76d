"""How the rows of a table reach the training loop."""

from mlp_lightning.data.datamodule import IrisDataModule, TabularDataModule, XORDataModule

__all__ = ["IrisDataModule", "TabularDataModule", "XORDataModule"]
