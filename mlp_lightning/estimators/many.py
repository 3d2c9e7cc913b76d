"""Many estimators at once: those that may be members of one stack are trained together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.utils.multiclass import type_of_target

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.estimators.base import BaseMLP, with_parameters
from mlp_lightning.estimators.classifier import MLPClassifier
from mlp_lightning.estimators.fitting import Job, rows_of, train_together
from mlp_lightning.estimators.inputs import Inputs
from mlp_lightning.estimators.messages import translated
from mlp_lightning.estimators.regressor import MLPRegressor
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.tables.targets import are_classes


def fit_many(
    params_list: Sequence[Mapping[str, Any]],
    X: Any,
    y: Any,
    sample_weight: Any = None,
    estimator: BaseMLP | None = None,
) -> list[BaseMLP]:
    """Fit an estimator for each set of parameters to the same rows.

    Those that may differ only in width of layers, learning rate, weight decay, dropout, label smoothing and seed train
    as one stacked model, in about the time of a few; the others train alone. Each estimator is the same as if fitted
    alone, to rounding.

    Args:
        params_list: parameters of each estimator, where they differ from those of ``estimator``.
        X: as for ``fit``.
        y: likewise.
        sample_weight: likewise.
        estimator: what to fit; ``None``: by the rule of ``data.target`` a classifier where ``y`` holds texts, truth
            values or few different whole numbers, else a regressor. It is not changed.

    Returns:
        The fitted estimators, in order.

    Raises:
        Exception: the first that could not be fitted, as ``fit`` would have raised it.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> narrow, wide = fit_many([{"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": (64,)}], X, y)
        >>> [one.coefs_[0].shape for one in (narrow, wide)]
        [(4, 8), (4, 64)]
    """
    if estimator is None:
        estimator = MLPClassifier() if _are_classes(y) else MLPRegressor()
    estimators = [with_parameters(estimator, params) for params in params_list]
    fits = Fits()
    for one in estimators:
        fits.add(one, 0, lambda one=one: one.read_inputs(X, y, sample_weight))
    for one, outcome in zip(estimators, fits.train(), strict=True):
        if isinstance(outcome, Exception):
            raise outcome
        one.warn_of_fit(outcome, stacklevel=2)
    return estimators


class Fits:
    """Fits of several estimators to several sets of rows, prepared one by one and trained all at once."""

    def __init__(self) -> None:
        self._fits: list[tuple[BaseMLP, Inputs, Job] | Exception] = []
        self._inputs: dict[str, Inputs] = {}
        self._data: dict[str, TabularDataModule] = {}

    def add(self, estimator: BaseMLP, rows: int, read: Any) -> None:
        """Prepare a fit.

        Args:
            estimator: not fitted yet; :meth:`train` fits it.
            rows: number of the set of rows; a set is read once.
            read: reads them.
        """
        try:
            if estimator.warm_start:
                raise ConfigError([Fault("warm_start", True, "has no earlier fit to continue from here", "use fit")])
            key = json.dumps([rows, _weights_of_classes(estimator)])
            if key not in self._inputs:
                self._inputs[key] = read()
            inputs = self._inputs[key]
            for name, value in inputs.attributes.items():
                setattr(estimator, name, value)
            config = estimator.configuration(inputs)
            self._fits.append((estimator, inputs, Job(config, self._rows(key, config, inputs), estimator.log_dir)))
        except Exception as error:
            self._fits.append(translated(error))

    def train(self) -> list[TrainingResult | Exception]:
        """Train all; this fits the estimators.

        Returns:
            For each fit, in order of :meth:`add`, its result, or why it failed.
        """
        ready = [one for one in self._fits if not isinstance(one, Exception)]
        results = iter(train_together([job for _, _, job in ready]))
        outcomes: list[TrainingResult | Exception] = []
        for one in self._fits:
            outcome = one if isinstance(one, Exception) else next(results)
            if isinstance(outcome, Exception):
                outcomes.append(translated(outcome))
                continue
            assert not isinstance(one, Exception)
            estimator, inputs, job = one
            estimator.take(job, inputs, outcome)
            # Without the module, which is the estimator's now.
            outcomes.append(dataclasses.replace(outcome, module=None, optimizer_state=None))
        return outcomes

    def _rows(self, inputs_key: str, config: Config, inputs: Inputs) -> TabularDataModule:
        """Rows that several runs share are prepared once."""
        precision, norm = config.trainer.precision, config.model.norm
        key = json.dumps([inputs_key, config.to_dict()["data"], config.seed, precision, norm])
        if key not in self._data:
            self._data[key] = rows_of(config, inputs)
        return self._data[key]


def _are_classes(y: Any) -> bool:
    """Whether a run of the command would classify rows with these targets."""
    values = np.asarray(y)
    if values.ndim > 1 and values.shape[1] > 1:
        return type_of_target(values, input_name="y") == "multilabel-indicator"
    return are_classes(pa.chunked_array([pa.array(values.reshape(-1), from_pandas=True)]))


def _weights_of_classes(estimator: BaseMLP) -> str:
    """The parameters of an estimator that change how it reads rows."""
    return repr(getattr(estimator, "class_weight", None))
