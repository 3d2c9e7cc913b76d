"""What the classifier and the regressor have in common.

Shapes: ``B`` rows, ``F`` columns, ``C`` outputs, ``T`` targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mlp_lightning.config import Config, ModelConfig
from mlp_lightning.engines.sizing import auto_threads, cpu_threads
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.estimators.cautions import warn_of_fit
from mlp_lightning.estimators.double import in_double
from mlp_lightning.estimators.fitting import Job, rows_of, train_alone
from mlp_lightning.estimators.inputs import Inputs, raw_rows, read_features, read_rows, read_targets, read_weights
from mlp_lightning.estimators.messages import in_parameters, speaking_of_parameters
from mlp_lightning.estimators.plain import as_arrays, as_tensors, module_of, plain_module
from mlp_lightning.estimators.settings import configuration
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.runs.fit import TrainingStart
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.written_numbers import number_forms

if TYPE_CHECKING:
    from typing_extensions import Self

# Rows that are predicted at once: the values of a hidden layer stay in the processor's cache.
_ROWS_AT_ONCE = 2_048


def with_parameters(estimator: BaseMLP, parameters: Mapping[str, Any]) -> BaseMLP:
    """A new estimator like ``estimator``, not fitted, with these parameters."""
    copied: Any = clone(estimator)
    return copied.set_params(**{name: clone(value, safe=False) for name, value in parameters.items()})


class BaseMLP(BaseEstimator, ABC):
    """Fits one model, and continues to fit it.

    Attributes set by ``fit``, in addition to scikit-learn's: ``module_``, the trained
    :class:`~mlp_lightning.runs.module.MLPModule`, which takes raw rows.
    """

    module_: MLPModule
    n_features_in_: int
    loss_curve_: list[float]
    random_state: Any
    warm_start: bool
    early_stopping: bool
    log_dir: Any
    verbose: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The attributes as plain data and arrays, for pickles and for libraries that know no torch modules."""
        state = {**super().__getstate__()}
        if "module_" in state:
            state["module_"] = plain_module(state["module_"])
            state["_optimizer_state"] = as_arrays(state["_optimizer_state"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "module_" in state:
            of_optimizer = as_tensors(state["_optimizer_state"])
            state = {**state, "module_": module_of(state["module_"]), "_optimizer_state": of_optimizer}
        super().__setstate__(state)

    # ---- fitting -----------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows.

        Args:
            X: ``(B, F)``: array or data frame (pandas, polars, Arrow) whose columns may be numbers, texts, truth
                values, dates or categories; or a sparse matrix, which is trained on with its zeros. NaN, None and null
                are missing values.
            y: ``(B,)``; ``(B, T)`` of several numbers, or of several labels of 0 and 1.
            sample_weight: ``(B,)``, how much each row counts. A row of weight 0 is left out.

        Raises:
            ConfigError: a parameter is wrong.
            ValueError: the rows cannot be used.
            TrainingError: the loss became NaN or infinite.

        Warns:
            ConvergenceWarning: ``max_iter`` was reached before the loss settled; not where the learning rate comes
                down to 0 over all epochs.
            BaselineWarning: the loss (of the validation rows, if there are some) is above that of a prediction that
                does not look at ``X``.
        """
        continues = bool(self.warm_start) and hasattr(self, "module_")
        with speaking_of_parameters():
            inputs = self.read_inputs(X, y, sample_weight, continues=continues)
            job = self.job(inputs, self._preprocessor if continues else None)
            start = self._start(job, with_optimizer=False) if continues else None
            before = self.loss_curve_ if continues else []
            result = train_alone(job, start)
            self.take(job, inputs, result, before)
        self.warn_of_fit(result, stacklevel=2)
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        if self.early_stopping:
            rule = "cannot be used: partial_fit does not support early_stopping=True, as it makes one pass"
            raise ConfigError([Fault("early_stopping", True, rule, "use fit")])
        continues = hasattr(self, "module_")
        with speaking_of_parameters():
            inputs = self.read_inputs(X, y, sample_weight, continues=continues, classes=classes)
            before = self.loss_curve_ if continues else []
            job = self.job(inputs, self._preprocessor if continues else None, one_pass=True, passes=len(before))
            result = train_alone(job, self._start(job, with_optimizer=True) if continues else None)
            self.take(job, inputs, result, before)
        self.n_iter_ = len(self.loss_curve_)
        self._optimizer_state = result.optimizer_state
        return self

    def read_inputs(
        self, X: Any, y: Any, sample_weight: Any = None, continues: bool = False, classes: Any = None
    ) -> Inputs:
        """Check the rows of a fit and set the attributes that scikit-learn expects.

        Args:
            X: as for :meth:`fit`.
            y: likewise.
            sample_weight: likewise.
            continues: whether the estimator has been fitted to other rows of the same kind.
            classes: of a classification, if the rows may lack some.
        """
        features = read_features(self, X, y, reset=not continues)
        targets_BT, target = self._read_targets(
            read_targets(features, y, self._targets_are_numbers), continues, classes
        )
        if continues and self.module_.task.name != target.task:
            rule = f"poses the task {target.task}, and the estimator was fitted to {self.module_.task.name}"
            raise ValueError(f"y {rule}: fit a new one, or set warm_start=False.")
        weights_B = self._weights(read_weights(features, sample_weight), targets_BT)
        known = self._preprocessor.columns if continues else ()
        return read_rows(self, features, targets_BT, target, weights_B, known)

    def job(
        self, inputs: Inputs, preprocessor: Preprocessor | None = None, one_pass: bool = False, passes: int = 0
    ) -> Job:
        """The training of this estimator on these rows; draws its seed.

        Args:
            inputs: the rows.
            preprocessor: of an earlier fit, to prepare the rows as then; ``None``: a new one.
            one_pass: whether to make a single pass over the rows.
            passes: number of passes already made.
        """
        config = self.configuration(inputs, one_pass, passes)
        forms = {} if preprocessor is None else number_forms(self.module_.hparams["preprocessing"])
        return Job(config, rows_of(config, inputs, preprocessor, forms), self.log_dir)

    def configuration(self, inputs: Inputs, one_pass: bool = False, passes: int = 0) -> Config:
        """The configuration of this training; draws its seed."""
        seen = self.t_ if passes else 0
        return configuration(self.get_params(deep=False), inputs.rows_of_fit, self._seed(passes), one_pass, seen)

    def take(self, job: Job, inputs: Inputs, result: TrainingResult, before: list[float] | None = None) -> None:
        """Take over the result of a training.

        Args:
            job: what was trained.
            inputs: the rows.
            result: of the training.
            before: losses of the epochs before it.
        """
        module = result.module
        assert module is not None
        if self.verbose:
            for one in result.warnings:
                print(f"Warning: {in_parameters(one)}")  # noqa: T201 - as scikit-learn's estimators print
        module.release()
        for name, value in inputs.attributes.items():
            setattr(self, name, value)
        self.module_ = module.cpu().eval()
        self._optimizer_state = None
        losses = job.curves.of_epochs(job.data.training_steps)
        self.loss_curve_ = [*(before or []), *losses]
        self.n_iter_ = len(losses)
        self.t_ = len(self.loss_curve_) * len(job.data.splits["train"])
        self.loss_ = self.loss_curve_[-1]
        self.n_layers_ = len(job.config.model.layer_widths) + 2
        self.n_outputs_ = job.data.out_features
        self.out_activation_ = self.module_.task.output_activation
        validates = "val" in job.data.splits
        self.validation_scores_ = self._validation_scores(job) if validates else None
        losses_of_validations = [one["loss"] for one in job.curves.validations]
        #: Of the weights that are kept, those of the least validation loss.
        self.best_validation_score_ = (
            self.validation_scores_[int(np.argmin(losses_of_validations))] if self.validation_scores_ else None
        )
        self.best_loss_ = None if validates else min(self.loss_curve_)

    def warn_of_fit(self, result: TrainingResult, stacklevel: int) -> None:
        """Warn of a fit that :meth:`take` took over, if it ended short of what it can be.

        Args:
            result: of the training.
            stacklevel: frames up to the caller whom it concerns; 1 is the one that calls this method.
        """
        warn_of_fit(self.get_params(deep=False), result, self.loss_curve_[-self.n_iter_ :], stacklevel + 1)

    def _seed(self, passes: int) -> int:
        given = self.random_state
        if isinstance(given, (int, np.integer)) and given >= 0:
            return (int(given) + passes) % 2**63
        return int(check_random_state(given).randint(2**31 - 1))

    def _start(self, job: Job, with_optimizer: bool) -> TrainingStart:
        fitted, wanted = ModelConfig(**self.module_.hparams["model"]).layer_widths, job.config.model.layer_widths
        if fitted != wanted:
            rule = f"is not {tuple(fitted)}, with which the estimator was fitted: training continues with its weights"
            raise ConfigError([Fault("hidden_layer_sizes", tuple(wanted), rule, "fit a new one with warm_start=False")])
        return TrainingStart(self.module_.state_dict(), self._optimizer_state if with_optimizer else None)

    @property
    def _preprocessor(self) -> Preprocessor:
        preprocessor = self.module_.preprocessor
        assert isinstance(preprocessor, Preprocessor)
        return preprocessor

    # ---- what classifier and regressor define -----------------------------------------------------------------------

    _targets_are_numbers: bool

    @abstractmethod
    def _read_targets(self, y: NDArray[Any], continues: bool, classes: Any) -> tuple[NDArray[Any], Target]:
        """The targets ``(B, T)`` and what they are."""

    def _weights(self, weights_B: NDArray[np.float64] | None, targets_BT: NDArray[Any]) -> NDArray[np.float64] | None:
        """Weights of the rows, those of their classes included."""
        return weights_B

    @abstractmethod
    def _validation_scores(self, job: Job) -> list[float]:
        """The score of every validation."""

    # ---- predicting --------------------------------------------------------------------------------------

    def _predictions(self, X: Any) -> NDArray[np.float64]:
        """Probabilities ``(B, C)`` or values ``(B, T)``, as :meth:`Task.predictions` has them."""
        check_is_fitted(self, "module_")
        with speaking_of_parameters():
            raw_BF = raw_rows(
                read_features(self, X), self._preprocessor.columns, number_forms(self.module_.hparams["preprocessing"])
            )
        # In double precision a prediction does not depend on the rows predicted with it.
        module = self.module_
        widths = [module.hparams["in_features"], *(one.shape[0] for one in self._matrices())]
        parts = []
        with torch.no_grad(), cpu_threads(auto_threads(widths, min(len(raw_BF), _ROWS_AT_ONCE))):
            # torch warns of read-only rows (of a memory map, say), although they are only read here.
            raw_BF = np.require(raw_BF, requirements="W")
            for rows_BF in torch.from_numpy(raw_BF).split(_ROWS_AT_ONCE):
                parts.append(module.task.predictions(in_double(module.mlp, module.preprocessor(rows_BF))))
        return torch.cat(parts).numpy()

    def _matrices(self) -> list[torch.Tensor]:
        return [one.weight.detach() for one in self._linears()]

    def _linears(self) -> list[torch.nn.Linear]:
        mlp = self.module_.mlp
        assert isinstance(mlp, MLP)
        return [one for one in mlp.layers if isinstance(one, torch.nn.Linear)]

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """The weights of each layer, ``(inputs, outputs)``; the first takes prepared features."""
        return [weight.t().numpy() for weight in self._matrices()]

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """The biases of each layer."""
        return [one.bias.detach().numpy() for one in self._linears()]
