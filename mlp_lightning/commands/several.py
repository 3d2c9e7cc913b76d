"""The trainings of one command that belong together: folds, the members of an ensemble, the candidates of a preset."""

from __future__ import annotations

from pathlib import Path

from mlp_lightning.config import Config
from mlp_lightning.sweeps.records import objective


def train_several(config: Config, folder: Path, continues: bool) -> tuple[str, float]:
    """Train them.

    Args:
        config: asks for several.
        folder: of all of them.
        continues: whether an earlier command left it unfinished.

    Returns:
        How it ended, and the loss: of folds the mean log loss of what they held out, or the mean RMSE.
    """
    if config.data.cv.trains_all and config.preset.name == "default":
        from mlp_lightning.ensembles.cross_validation import cross_validate

        folds = cross_validate(config, folder, continues=continues)
        name = "log_loss" if "log_loss" in folds.metrics else "rmse"
        return folds.status, folds.metrics.get(name, {}).get("mean", float("inf"))
    if config.preset.name == "best":
        from mlp_lightning.ensembles.best import train_best

        result = train_best(config, folder, continues=continues)
    else:
        from mlp_lightning.ensembles.ensemble import train_ensemble

        result = train_ensemble(config, folder, continues=continues)
    return result.status, objective(result.metrics, held_out=False)
