"""The classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import column_or_1d

from mlp_lightning.errors import ConfigError, DataError, Fault
from mlp_lightning.estimators.base import BaseMLP
from mlp_lightning.estimators.fitting import Job
from mlp_lightning.estimators.settings import DEFAULTS
from mlp_lightning.tables.targets import Target, TargetColumn

if TYPE_CHECKING:
    from typing_extensions import Self


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron that classifies, with scikit-learn's interface and parameter names.

    Names of :class:`sklearn.neural_network.MLPClassifier` mean the same, with these exceptions:

    - Features are scaled, and missing values and columns that are not numbers are handled: no pipeline is needed.
    - ``solver`` has ``adamw`` (whose ``alpha`` is torch's decoupled weight decay) and no ``lbfgs``.
    - ``learning_rate`` also works for Adam. It may be ``constant``, ``cosine`` or ``one_cycle`` over all epochs, or
      ``adaptive``: a fifth when the loss has not fallen by ``tol`` (relative to it) in ``n_iter_no_change`` epochs.
      ``invscaling`` is for ``sgd``, as there.
    - With ``constant`` and ``invscaling``, training stops when the training loss has not fallen by ``tol`` in
      ``n_iter_no_change`` epochs, and warns (``ConvergenceWarning``) if ``max_iter`` comes first. ``cosine`` and
      ``one_cycle`` train for ``max_iter`` epochs, at whose end the rate is 0, unless a ``tol`` is given.
    - With ``early_stopping``, training stops when the loss (not the accuracy) of validation rows has not fallen by
      ``tol`` in ``n_iter_no_change`` epochs, and the weights of the least are kept. ``validation_scores_`` are
      accuracies, and ``best_validation_score_`` that of these weights.
    - A model whose loss (on validation rows, if there are any) is above that of the class frequencies warns
      (:class:`~mlp_lightning.errors.BaselineWarning`).
    - ``loss_`` and ``loss_curve_`` are of the data alone, without the penalty.

    Args:
        hidden_layer_sizes: width of each hidden layer, or of the only one; ``()`` for a linear model.
        activation: ``logistic``, or what ``model.activation`` takes: ``identity``, ``tanh``, ``relu``, ``silu`` …
        solver: ``adam``, ``adamw`` or ``sgd``.
        alpha: weight decay.
        batch_size: rows of a batch; ``auto``: 32 below 256 rows, then 64, 256 and 1,024.
        learning_rate: how the learning rate changes.
        learning_rate_init: learning rate at the start.
        max_iter: epochs.
        shuffle: whether to draw a new order in every epoch.
        random_state: seed, or a generator to draw one from; decides weights, order, split and dropout.
        tol: smallest improvement of the loss that counts as one; ``None``: 1e-4, and no stop by the training loss with
            ``cosine`` and ``one_cycle``.
        verbose: whether to print progress.
        warm_start: whether ``fit`` continues from the weights and the scaling of the previous fit.
        momentum: of ``sgd``.
        nesterovs_momentum: of ``sgd``.
        early_stopping: whether to keep validation rows and stop by them.
        validation_fraction: share of the rows that are validation rows with ``early_stopping``.
        beta_1: of ``adam`` and ``adamw``.
        beta_2: likewise.
        epsilon: likewise.
        n_iter_no_change: epochs without improvement before training stops.
        dropout: probability of zeroing a hidden unit in training.
        scaling: of numeric columns: ``standard``, ``robust``, ``quantile`` or ``none``.
        class_weight: ``None``, ``balanced`` or the weight of each class as a dict.
        label_smoothing: share of every label that the training loss spreads evenly over all classes.
        precision: number format of the training: ``32``, ``64`` or ``bf16-mixed``.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        log_dir: folder in which the run folder of every fit (curves for TensorBoard, checkpoints, configuration) is
            kept; ``None``: nothing is kept.
        max_fun: accepted and without effect: it belongs to scikit-learn's ``lbfgs``.
        power_t: of ``invscaling``.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> MLPClassifier(max_iter=30, random_state=0).fit(X, y).score(X, y) > 0.9
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
        class_weight: Any = None,
        label_smoothing: float = DEFAULTS["label_smoothing"],
        precision: str = "32",
        accelerator: str = "auto",
        log_dir: Any = None,
        max_fun: int = 15_000,
        power_t: float = 0.5,
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
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.precision, self.accelerator = precision, accelerator
        self.log_dir = log_dir
        self.max_fun, self.power_t = max_fun, power_t

    _targets_are_numbers = False

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Make one pass over further rows with a constant learning rate; the optimizer continues.

        Args:
            X: as for :meth:`fit`. Scales and categories are those of the first call: it needs rows of every kind.
            y: ``(B,)``, or ``(B, T)`` of several labels.
            classes: all classes that any call will have; needed in the first call.
            sample_weight: as for :meth:`fit`.
        """
        first = _check_partial_fit_first_call(self, classes)
        return self._partial_fit(X, y, sample_weight, self.classes_ if first else None)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities ``(B, C)`` of the classes in the order of ``classes_``; of several labels that each is 1."""
        probabilities_BC = self._predictions(X)
        return np.ones((len(probabilities_BC), 1)) if len(self.classes_) == 1 else probabilities_BC

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithms of the probabilities ``(B, C)``."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row, ``(B,)``; of several labels 0 or 1 for each, ``(B, T)``."""
        probabilities_BC = self.predict_proba(X)
        if self.module_.task.name == "multilabel":
            return (probabilities_BC > 0.5).astype(np.int64)
        return self.classes_[probabilities_BC.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _read_targets(self, y: NDArray[Any], continues: bool, classes: Any) -> tuple[NDArray[Any], Target]:
        if y.ndim == 2 and y.shape[1] > 1:
            return self._read_labels(y, continues, classes)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if continues or classes is not None:
            codes = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
            unknown = self.classes_[codes] != y
            if unknown.any():
                known = ", ".join(map(repr, self.classes_[:10].tolist()))
                raise ValueError(
                    f"y has the class {y[unknown].tolist()[0]!r}, which is not one of those that the classifier knows"
                    f" ({known})."
                )
        else:
            self.classes_, codes = np.unique(y, return_inverse=True)
        if self.early_stopping and not continues:
            counts = np.bincount(codes)
            rare = int(counts.argmin())
            if counts[rare] == 1:
                label, row = self.classes_.tolist()[rare], int((codes == rare).argmax())
                raise DataError(
                    f"y has the class {label!r} in row {row + 1} alone, which cannot be a training and a validation"
                    " row. Add rows of it, merge or remove the class, or train on all rows with early_stopping=False."
                )
        # A single class is trained against a second one without rows.
        count = max(2, len(self.classes_))
        task = "binary" if count == 2 else "multiclass"
        return codes.astype(np.int64)[:, None], Target(task, (TargetColumn("target", "int64", tuple(range(count))),))

    def _read_labels(self, y: NDArray[Any], continues: bool, classes: Any) -> tuple[NDArray[Any], Target]:
        count = y.shape[1]
        if not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"y has {count} columns, and several labels for a row (multilabel) have to be 0 or 1. For columns of"
                " other classes fit one classifier for each with sklearn.multioutput.MultiOutputClassifier."
            )
        known = len(self.classes_) if continues or classes is not None else count
        if count != known:
            raise ValueError(f"y has {count} labels, and the classifier knows {known}.")
        self.classes_ = np.arange(count)
        columns = (TargetColumn(f"target {number}", "int64", (0, 1)) for number in range(count))
        return y.astype(np.int64), Target("multilabel", tuple(columns))

    def _weights(self, weights_B: NDArray[np.float64] | None, targets_BT: NDArray[Any]) -> NDArray[np.float64] | None:
        given = self.class_weight
        if given is None or (isinstance(given, str) and given == "balanced"):
            return weights_B  # the run balances its training rows
        if not isinstance(given, dict):
            raise ConfigError([Fault("class_weight", given, "must be None, 'balanced' or a dict of weights by class")])
        if targets_BT.shape[1] > 1:
            raise ConfigError([Fault("class_weight", given, "needs one label for each row", "use sample_weight")])
        codes = targets_BT[:, 0]
        of_class_C = compute_class_weight(given, classes=self.classes_, y=self.classes_[codes])
        return of_class_C[codes] * (1.0 if weights_B is None else weights_B)

    def _validation_scores(self, job: Job) -> list[float]:
        return [one["accuracy"] for one in job.curves.validations]
