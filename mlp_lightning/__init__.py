"""Train multi-layer perceptrons: PyTorch Lightning trains, Hydra configures, TensorBoard shows.

The public names are loaded when they are first used (PEP 562), so ``import mlp_lightning`` imports no
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_lightning.config import Config, parse_config
    from mlp_lightning.data import IrisDataModule, TabularDataModule, XORDataModule
    from mlp_lightning.ensembles.best import train_best
    from mlp_lightning.ensembles.cross_validation import cross_validate
    from mlp_lightning.ensembles.ensemble import train_ensemble
    from mlp_lightning.estimators import MLPClassifier, MLPRegressor
    from mlp_lightning.inference.evaluation.evaluate import evaluate
    from mlp_lightning.inference.explanation.explain import explain
    from mlp_lightning.inference.predict import predict
    from mlp_lightning.inference.report.report import report
    from mlp_lightning.networks import MLP
    from mlp_lightning.runs import TrainingResult, train
    from mlp_lightning.runs.module import MLPModule
    from mlp_lightning.sweeps.frame import load_sweep

__version__ = "0.1.0"

_HOME = {
    "Config": "mlp_lightning.config",
    "IrisDataModule": "mlp_lightning.data",
    "MLP": "mlp_lightning.networks",
    "MLPClassifier": "mlp_lightning.estimators",
    "MLPModule": "mlp_lightning.runs.module",
    "MLPRegressor": "mlp_lightning.estimators",
    "TabularDataModule": "mlp_lightning.data",
    "TrainingResult": "mlp_lightning.runs",
    "XORDataModule": "mlp_lightning.data",
    "cross_validate": "mlp_lightning.ensembles.cross_validation",
    "evaluate": "mlp_lightning.inference.evaluation.evaluate",
    "explain": "mlp_lightning.inference.explanation.explain",
    "load_sweep": "mlp_lightning.sweeps.frame",
    "parse_config": "mlp_lightning.config",
    "predict": "mlp_lightning.inference.predict",
    "report": "mlp_lightning.inference.report.report",
    "train": "mlp_lightning.runs",
    "train_best": "mlp_lightning.ensembles.best",
    "train_ensemble": "mlp_lightning.ensembles.ensemble",
}

__all__ = [
    "MLP",
    "Config",
    "IrisDataModule",
    "MLPClassifier",
    "MLPModule",
    "MLPRegressor",
    "TabularDataModule",
    "TrainingResult",
    "XORDataModule",
    "cross_validate",
    "evaluate",
    "explain",
    "load_sweep",
    "parse_config",
    "predict",
    "report",
    "train",
    "train_best",
    "train_ensemble",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
