"""What learns: the MLP, its preprocessing and embeddings, its tasks and optimizers. Mathematics, no loops."""

from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.tasks import Task, make_task

__all__ = ["MLP", "Task", "make_task"]
