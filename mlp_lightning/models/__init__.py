"""The MLP, its tasks and optimizers, and the LightningModule around them."""

from mlp_lightning.models.mlp import MLP, Standardizer
from mlp_lightning.models.module import MLPModule
from mlp_lightning.models.tasks import Task, make_task

__all__ = ["MLP", "MLPModule", "Standardizer", "Task", "make_task"]
