"""What a module is made of, as plain data: the hyperparameters in its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mlp_lightning.config import ModelConfig, OptimizerConfig, OwnModelConfig, OwnOptimizerConfig, ScheduleConfig
from mlp_lightning.config.schedules import SCHEDULES
from mlp_lightning.config.shared import Remembered


@dataclasses.dataclass
class ModuleConfig:
    """The configuration of an :class:`~mlp_lightning.runs.module.MLPModule`.

    Sections may be given as dataclasses or as mappings of their fields; afterwards they are dataclasses.

    Attributes:
        in_features: F.
        out_features: C.
        task: one of :data:`~mlp_lightning.networks.tasks.TASKS`.
        model: shape of the MLP.
        optimizer: which optimizer.
        scheduler: how its learning rate changes.
        seed: the weights are those that ``torch.manual_seed(seed)`` draws in layer order.
        gradient_clip_val: largest norm (or value) of the gradient; ``None`` for no limit.
        gradient_clip_algorithm: ``norm`` or ``value``.
        histograms_every_n_steps: steps between two histograms; ``None`` for none.
        label_smoothing: share of every label that the training loss spreads evenly over all classes.
        preprocessing: what the columns of the table are, as :attr:`TabularDataModule.preprocessing` describes it;
            ``None``: the module takes them from the data module that it is trained on.
    """

    in_features: int
    out_features: int
    task: str
    model: ModelConfig
    optimizer: OptimizerConfig
    scheduler: ScheduleConfig
    seed: int = 0
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"
    histograms_every_n_steps: int | None = None
    label_smoothing: float = 0.0
    preprocessing: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, ModelConfig):
            model = _fields(self.model)
            self.model = (OwnModelConfig if "_target_" in model else ModelConfig)(**model)
        if not isinstance(self.optimizer, OptimizerConfig):
            optimizer = _fields(self.optimizer)
            self.optimizer = (OwnOptimizerConfig if "_target_" in optimizer else OptimizerConfig)(**optimizer)
        if not isinstance(self.scheduler, tuple(SCHEDULES.values())):
            fields = _fields(self.scheduler)
            self.scheduler = SCHEDULES[fields.get("name", "none")](**fields)
        if self.preprocessing is not None:
            self.preprocessing = dict(self.preprocessing)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data: ``MLPModule(**config.to_dict())`` builds the module again."""
        sections = ("model", "optimizer", "scheduler")
        return {
            field.name: _fields(value) if field.name in sections else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }


def _fields(section: Any) -> dict[str, Any]:
    """The fields of a dataclass, of a mapping or of nothing."""
    if section is None:
        return {}
    return dict(section) if isinstance(section, Mapping) else dict(_as_dict(section))


_as_dict: Remembered[dict[str, Any]] = Remembered(dataclasses.asdict)
