"""The residuals of rows that a model did not train on, which its checkpoint keeps for intervals of its predictions.

Those of a single network, or of members that share a split, are of the validation rows; those of folds are of the rows
that each fold held out.

Shapes: ``N`` rows, ``T`` targets, ``C`` outputs, ``K`` members.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlp_lightning.config import Config
from mlp_lightning.engines.rows import Rows
from mlp_lightning.networks.conformal import Floats
from mlp_lightning.networks.tasks import Task, make_task
from mlp_lightning.runs.checkpoint_content import CALIBRATION_KEY
from mlp_lightning.runs.member import Member
from mlp_lightning.tables.randomness import derived_seed

#: With so many residuals the share of new rows inside of an interval of 0.9 varies by 0.007 (standard deviation).
MOST_RESIDUALS = 2_000
#: What the rows decided beside.
USES = {
    "learning_rate": "lowered the learning rate",
    "stopping": "decided when training stopped",
    "weights": "chose the weights that are reported",
    "selection": "selected and weighted the candidates",
}


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What intervals are made of.

    Attributes:
        residuals_NT: absolute differences of predictions and targets, in the targets' units; at most 2,000 rows.
        fold_N: which fold held each row out; ``None`` where there are no folds.
        fold_of_member: of each member of an ensemble; empty where there are no folds.
        used_for: names in :data:`USES`: what the rows decided of the model.
    """

    residuals_NT: Floats
    fold_N: NDArray[np.int64] | None
    fold_of_member: tuple[int, ...]
    used_for: tuple[str, ...]

    def content(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        return {
            "residuals": torch.from_numpy(self.residuals_NT),
            "folds": None if self.fold_N is None else torch.from_numpy(self.fold_N),
            "fold_of_member": list(self.fold_of_member),
            "used_for": list(self.used_for),
        }

    @classmethod
    def of_content(cls, content: Mapping[str, Any], targets: int, members: int) -> Calibration:
        """What :meth:`content` has made.

        Args:
            content: with the structure of :data:`~mlp_lightning.runs.checkpoint_content.CALIBRATION`.
            targets: of the model.
            members: of the model; 1 for a single network.

        Raises:
            ValueError: it does not belong to such a model.
        """
        residuals, folds = content["residuals"], content["folds"]
        if residuals.dtype != torch.float64 or residuals.dim() != 2 or residuals.shape[1] != targets:
            raise ValueError(f"its residuals are {residuals.dtype} {tuple(residuals.shape)}, of {targets} targets")
        if not 0 < len(residuals) <= MOST_RESIDUALS or not (residuals.isfinite() & (residuals >= 0)).all():
            raise ValueError(f"its residuals must be 1 to {MOST_RESIDUALS:,} finite numbers of at least 0")
        if unknown := set(content["used_for"]) - set(USES):
            raise ValueError(f"its residuals were used for {min(unknown)!r}, which this version does not know")
        of_member = tuple(content["fold_of_member"])
        if folds is None and of_member:
            raise ValueError("its members have folds, and its residuals have none")
        if folds is not None and (folds.dtype != torch.int64 or folds.shape != residuals.shape[:1]):
            raise ValueError(f"its folds are {folds.dtype} {tuple(folds.shape)}, of {len(residuals)} residuals")
        if folds is not None and (len(of_member) != members or not set(folds.tolist()) <= set(of_member)):
            raise ValueError(f"the folds of its residuals are not those of its {members} members")
        fold_N = None if folds is None else folds.numpy()
        return cls(residuals.numpy(), fold_N, of_member, tuple(content["used_for"]))


def calibration(
    residuals_NT: Floats,
    seed: int,
    used_for: Sequence[str],
    fold_N: NDArray[np.int64] | None = None,
    fold_of_member: Sequence[int] = (),
) -> Calibration | None:
    """Of at most 2,000 rows, drawn by the seed; ``None`` without rows, or where a residual is not finite."""
    if not len(residuals_NT) or not np.isfinite(residuals_NT).all():
        return None
    if len(residuals_NT) > MOST_RESIDUALS:
        random = np.random.default_rng(derived_seed(seed, "calibration"))
        drawn = np.sort(random.choice(len(residuals_NT), MOST_RESIDUALS, replace=False))
        residuals_NT, fold_N = residuals_NT[drawn], None if fold_N is None else fold_N[drawn]
    return Calibration(residuals_NT, fold_N, tuple(fold_of_member), tuple(used_for))


def residuals(task: Task, predictions_BC: Floats, rows: Rows) -> Floats:
    """Absolute differences of predictions and targets of numbers, in the targets' units, ``(B, T)``."""
    truths_BT = task.truths(rows.targets.double()).numpy()
    return np.abs(predictions_BC[: len(rows)] - truths_BT)


def of_validation(member: Member, predictions_BC: Floats, is_chosen: bool) -> dict[str, Any]:
    """What the checkpoint of a run has of its validation rows; nothing if a residual is not finite.

    Args:
        member: the run.
        predictions_BC: of its validation rows.
        is_chosen: whether a metric of these rows chose its weights.
    """
    data = member.data
    task = make_task(data.task, data.out_features, data.target.mean, data.target.scale)
    of_rows_NT = residuals(task, predictions_BC, data.splits["val"])
    found = calibration(of_rows_NT, member.config.seed, uses_of_validation(member.config, is_chosen))
    return {} if found is None else {CALIBRATION_KEY: found.content()}


def uses_of_validation(config: Config, is_chosen: bool) -> list[str]:
    """What the validation rows of a run decide of its model.

    Args:
        config: of the run.
        is_chosen: whether a metric of these rows chose its weights.
    """
    stopping = config.callbacks.early_stopping
    uses = {
        "learning_rate": config.scheduler.name == "plateau",
        "stopping": stopping is not None and stopping.monitor.endswith("/val"),
        "weights": is_chosen,
    }
    return [name for name, is_used in uses.items() if is_used]
