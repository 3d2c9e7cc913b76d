"""A search over parameters whose candidates and folds are all trained at once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _score
from sklearn.utils import _safe_indexing, indexable

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.estimators.base import BaseMLP, with_parameters
from mlp_lightning.estimators.many import Fits

if TYPE_CHECKING:
    from typing_extensions import Self

Split = tuple[NDArray[np.int64], NDArray[np.int64]]


class VectorizedSearchCV(BaseSearchCV):
    """Chooses parameters by cross-validation, as ``GridSearchCV`` and ``RandomizedSearchCV`` do.

    All candidates and folds that may share a stacked model train together, in about the time of a few of them.
    The results are those of scikit-learn's searches, to rounding, and so are the names: ``cv_results_``,
    ``best_estimator_``, ``best_params_``, ``best_score_``, ``best_index_``, ``scorer_``, ``n_splits_`` and
    ``refit_time_``.
    Fits are timed together: ``cv_results_`` has an equal share of the time for each. The scores tell which
    candidates are poor: of what is short of its baseline or has not converged, only the fit to all rows warns.

    Args:
        estimator: an :class:`MLPClassifier` or :class:`MLPRegressor`. (They scale features and handle missing
            values and categories; for a pipeline use ``GridSearchCV``.)
        param_grid: values to try of each parameter, or a list of such dicts; all combinations are tried.
        param_distributions: instead of ``param_grid``: lists or distributions to draw ``n_iter`` candidates from.
        n_iter: number of candidates drawn.
        scoring: as in scikit-learn: a name, a function, or several.
        refit: whether to fit the best candidate to all rows; of several scores, the name of the one to choose by.
        cv: number of folds, or how to split.
        random_state: decides which candidates are drawn.
        verbose: whether to print the number of fits.
        error_score: score of a candidate that cannot be fitted or scored, or ``raise``.
        return_train_score: whether to score the training rows of each fold, too.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from mlp_lightning.estimators import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> grid = {"learning_rate_init": [1e-3, 1e-2], "hidden_layer_sizes": [(8,), (32,)]}
        >>> search = VectorizedSearchCV(MLPClassifier(max_iter=20, random_state=0), grid, cv=3).fit(X, y)
        >>> len(search.cv_results_["params"]), search.score(X, y) > 0.8
        (4, True)
    """

    def __init__(
        self,
        estimator: BaseMLP,
        param_grid: Any = None,
        *,
        param_distributions: Any = None,
        n_iter: int = 10,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = 5,
        random_state: Any = None,
        verbose: int = 0,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.random_state = random_state

    def fit(  # type: ignore[override]  # these two are all that can be given
        self, X: Any, y: Any = None, *, groups: Any = None, sample_weight: Any = None
    ) -> Self:
        """Train and score all candidates on all folds, then the best on all rows.

        Args:
            X: as for the estimator.
            y: likewise.
            groups: of the rows, for a ``cv`` that asks for them.
            sample_weight: of the rows, in training; in scores too, if the installed scikit-learn does that.

        Raises:
            ConfigError: a parameter of the search is wrong.
            ValueError: no candidate could be fitted.
        """
        if not isinstance(self.estimator, BaseMLP):
            rule = "must be an MLPClassifier or an MLPRegressor of this package"
            raise ConfigError([Fault("estimator", self.estimator, rule, "use GridSearchCV for anything else")])
        scorers, refit_metric = self._get_scorers()
        X, y, groups, sample_weight = indexable(X, y, groups, sample_weight)
        candidates = self._candidates()
        given: Any = self.cv
        cv: Any = check_cv(given, y, classifier=is_classifier(self.estimator))
        splits = list(cv.split(X, y, groups))
        self.n_splits_ = len(splits)
        if self.verbose:
            total = len(candidates) * len(splits)
            print(  # noqa: T201 - as scikit-learn's searches do
                f"Fitting {len(splits)} folds for each of {len(candidates)} candidates, totalling {total} fits"
            )
        out = self._scored(candidates, splits, X, y, sample_weight, scorers)
        results = self._format_results(candidates, len(splits), out)
        self.multimetric_ = isinstance(out[0]["test_scores"], dict)
        self._choose(results, refit_metric)
        if self.refit:
            self._refit(X, y, sample_weight)
        self.scorer_ = getattr(scorers, "_scorers", scorers)
        self.cv_results_ = results
        return self

    def _candidates(self) -> list[dict[str, Any]]:
        if (self.param_grid is None) == (self.param_distributions is None):
            raise ConfigError(
                [Fault("param_grid", self.param_grid, "or param_distributions must be given, one of the two")]
            )
        if self.param_grid is not None:
            return list(ParameterGrid(self.param_grid))
        return list(ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state))

    def _scored(
        self,
        candidates: Sequence[Mapping[str, Any]],
        splits: Sequence[Split],
        X: Any,
        y: Any,
        sample_weight: Any,
        scorers: Any,
    ) -> list[dict[str, Any]]:
        """Train every candidate on every fold; the results as scikit-learn has them, with folds as the inner loop."""
        started = time.perf_counter()
        fits, estimators = Fits(), []
        # scikit-learn weights scores from 1.9 on, where the scorer can.
        accept_weights = getattr(self, "_check_scorers_accept_sample_weight", lambda: False)
        weighted = sample_weight is not None and accept_weights()
        parts = [_Fold(X, y, sample_weight, *split) for split in splits]
        for params in candidates:
            for number, part in enumerate(parts):
                estimator = with_parameters(self.estimator, params)
                estimators.append(estimator)
                fits.add(estimator, number, lambda one=estimator, part=part: one.read_inputs(*part.training))
        failures = [one if isinstance(one, Exception) else None for one in fits.train()]
        self._report_failures(failures)
        fit_time = (time.perf_counter() - started) / max(1, len(estimators))
        out = []
        for number, (estimator, failure) in enumerate(zip(estimators, failures, strict=True)):
            part = parts[number % len(parts)]
            out.append({"fit_time": fit_time, **self._scores(estimator, failure, part, scorers, weighted)})
        return out

    def _scores(
        self, estimator: BaseMLP, failure: Exception | None, part: _Fold, scorers: Any, weighted: bool
    ) -> dict[str, Any]:
        started = time.perf_counter()
        scored = {"test_scores": part.test}
        if self.return_train_score:
            scored["train_scores"] = part.training
        scores: dict[str, Any] = {}
        for name, (X, y, sample_weight) in scored.items():
            if failure is None:
                of_scorer = {"sample_weight": sample_weight} if weighted else None
                error_score: Any = self.error_score
                scores[name] = _score(estimator, X, y, scorers, of_scorer, error_score)
            else:
                names = getattr(scorers, "_scorers", None)
                scores[name] = self.error_score if names is None else dict.fromkeys(names, self.error_score)
        return {**scores, "score_time": time.perf_counter() - started}

    def _report_failures(self, failures: Sequence[Exception | None]) -> None:
        failed = [one for one in failures if one is not None]
        if not failed:
            return
        if self.error_score == "raise" or len(failed) == len(failures):
            raise failed[0]
        warnings.warn(
            f"{len(failed)} of {len(failures)} fits failed; they are scored {self.error_score}. The first one:"
            f" {type(failed[0]).__name__}: {failed[0]}",
            FitFailedWarning,
            stacklevel=4,
        )

    def _choose(self, results: dict[str, Any], refit_metric: Any) -> None:
        if not self.refit and self.multimetric_:
            return
        self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
        if not callable(self.refit):
            self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]

    def _refit(self, X: Any, y: Any, sample_weight: Any) -> None:
        started = time.perf_counter()
        self.best_estimator_ = with_parameters(self.estimator, self.best_params_)
        self.best_estimator_.fit(X, y, sample_weight)
        self.refit_time_ = time.perf_counter() - started
        names = getattr(self.best_estimator_, "feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = names


class _Fold:
    """The rows of one fold.

    Attributes:
        training: rows, targets and weights to fit to.
        test: those to score.
    """

    def __init__(self, X: Any, y: Any, sample_weight: Any, train: Any, test: Any) -> None:
        def chosen(rows: Any) -> tuple[Any, Any, Any]:
            weights = None if sample_weight is None else _safe_indexing(sample_weight, rows)
            return _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows), weights

        self.training, self.test = chosen(train), chosen(test)
