"""scikit-learn estimators: a classifier, a regressor, and searches that train all their candidates at once."""

from __future__ import annotations

from mlp_lightning.estimators.classifier import MLPClassifier
from mlp_lightning.estimators.many import fit_many
from mlp_lightning.estimators.regressor import MLPRegressor
from mlp_lightning.estimators.search import VectorizedSearchCV

__all__ = ["MLPClassifier", "MLPRegressor", "VectorizedSearchCV", "fit_many"]
