"""Python warnings of fits that ended short of what they can be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from mlp_lightning.errors import BaselineWarning
from mlp_lightning.estimators.messages import in_parameters
from mlp_lightning.estimators.settings import FULL_LENGTH, tolerance
from mlp_lightning.runs.result import TrainingResult


def warn_of_fit(
    parameters: Mapping[str, Any], result: TrainingResult, losses: Sequence[float], stacklevel: int
) -> None:
    """Warn of a model that has not converged, and of one that is worse than its baseline.

    Args:
        parameters: of the estimator.
        result: of its training.
        losses: of the epochs of this training.
        stacklevel: frames up to the caller whom it concerns; 1 is the one that calls this function.
    """
    if not _has_converged(parameters, result, losses):
        watched = "validation" if parameters["early_stopping"] else "training"
        message = (
            f"Stochastic Optimizer: Maximum iterations ({parameters['max_iter']}) reached and the optimization hasn't"
            f" converged yet: the {watched} loss still fell by more than tol={tolerance(parameters)} within"
            f" n_iter_no_change={parameters['n_iter_no_change']} epochs. Raise max_iter, or let the learning rate end"
            " at 0 with learning_rate='one_cycle'."
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel + 1)
    if is_below_baseline(result):
        warnings.warn(in_parameters(" ".join(result.warnings)), BaselineWarning, stacklevel=stacklevel + 1)


def is_below_baseline(result: TrainingResult) -> bool:
    """Whether the loss is above that of a prediction that does not look at the features.

    It is that of the validation rows, where there are some. A loss of 0 is one of equal targets: nothing is below it.
    """
    if not result.warnings or result.baseline is None:
        return False
    split = "val" if "val" in result.metrics else "train"
    return result.metrics[split]["loss"] > result.baseline["metrics"][split]["loss"] > 0


def _has_converged(parameters: Mapping[str, Any], result: TrainingResult, losses: Sequence[float]) -> bool:
    """Whether more epochs would hardly change the model, by the rule of ``tol`` and ``n_iter_no_change``.

    A learning rate that has come down to 0 over all epochs leaves nothing to change.
    """
    if parameters["learning_rate"] in FULL_LENGTH or result.stopped_by:
        return True
    epochs = parameters["n_iter_no_change"]
    if parameters["learning_rate"] != "adaptive" or parameters["early_stopping"] or len(losses) <= epochs:
        return False
    return min(losses[:-epochs]) - min(losses[-epochs:]) <= tolerance(parameters)
