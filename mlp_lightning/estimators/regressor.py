"""The regressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from mlp_lightning.estimators.base import BaseMLP
from mlp_lightning.estimators.fitting import Job
from mlp_lightning.estimators.settings import DEFAULTS
from mlp_lightning.tables.targets import Target, TargetColumn

if TYPE_CHECKING:
    from typing_extensions import Self


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron that predicts numbers, with scikit-learn's interface and parameter names.

    All parameters are those of :class:`~mlp_lightning.estimators.MLPClassifier`, where they are explained, except
    ``class_weight`` and ``label_smoothing``. Targets are standardised, so learning does not depend on their unit.

    - ``loss`` is ``squared_error``; scikit-learn's ``poisson`` is refused.
    - ``loss_`` and ``loss_curve_`` are mean squared errors of standardised targets.
    - With ``early_stopping``, training stops when that of the validation rows has not fallen by ``tol`` in
      ``n_iter_no_change`` epochs; ``validation_scores_`` are R²; for several targets, that of their standardised sum
      of squares.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> MLPRegressor(max_iter=30, random_state=0).fit(X, y).score(X, y) > 0.4
        True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = DEFAULTS["hidden_layer_sizes"],
        activation: str = DEFAULTS["activation"],
        *,
        solver: str = DEFAULTS["solver"],
        alpha: float = DEFAULTS["alpha"],
        batch_size: int | str = "auto",
        learning_rate: str = DEFAULTS["learning_rate"],
        learning_rate_init: float = DEFAULTS["learning_rate_init"],
        max_iter: int = DEFAULTS["max_iter"],
        shuffle: bool = True,
        random_state: Any = None,
        tol: float | None = None,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = DEFAULTS["beta_2"],
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        dropout: float = DEFAULTS["dropout"],
        scaling: str = DEFAULTS["scaling"],
        precision: str = "32",
        accelerator: str = "auto",
        log_dir: Any = None,
        max_fun: int = 15_000,
        power_t: float = 0.5,
        loss: str = "squared_error",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum, self.nesterovs_momentum = momentum, nesterovs_momentum
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.dropout = dropout
        self.scaling = scaling
        self.precision, self.accelerator = precision, accelerator
        self.log_dir = log_dir
        self.max_fun, self.power_t = max_fun, power_t
        self.loss = loss

    _targets_are_numbers = True
    _single_output: bool

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Make one pass over further rows with a constant learning rate; the optimizer continues.

        Args:
            X: as for :meth:`fit`. Scales and categories, also the scale of ``y``, are those of the first call.
            y: ``(B,)`` or ``(B, T)``.
            sample_weight: as for :meth:`fit`.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Values ``(B,)``, of several targets ``(B, T)``."""
        values_BT = self._predictions(X).astype(np.float64)
        return values_BT[:, 0] if self._single_output else values_BT

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _read_targets(self, y: NDArray[Any], continues: bool, classes: Any) -> tuple[NDArray[Any], Target]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._single_output = y.ndim == 1
        targets_BT = y.reshape(len(y), -1)
        columns = (TargetColumn(f"target {number}", "float64") for number in range(targets_BT.shape[1]))
        target = Target("regression", tuple(columns))
        if continues:
            known = self.module_.target
            assert known is not None
            if len(known.names) != targets_BT.shape[1]:
                raise ValueError(
                    f"y has {targets_BT.shape[1]} targets, and the regressor was fitted to {len(known.names)}."
                )
            target = known
        return targets_BT, target

    def _validation_scores(self, job: Job) -> list[float]:
        spread = float(job.data.splits["val"].targets.double().var(dim=0, correction=0).mean())
        return [1 - one["loss"] / spread if spread > 0 else float("nan") for one in job.curves.validations]
