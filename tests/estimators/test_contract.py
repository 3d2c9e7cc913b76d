"""scikit-learn's own checks of an estimator, all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from mlp_lightning.estimators import MLPClassifier, MLPRegressor

SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "max_iter": 40, "learning_rate_init": 0.02, "accelerator": "cpu"}
# The check of weights compares two trainings to 1e-7. Dropout looks at the number of a row, and sums of 15 float32
# numbers are not those of 30.
EXACT: dict[str, Any] = {"dropout": 0.0, "precision": "64"}
NOT_EXACT = {
    f"check_sample_weight_equivalence_on_{form}_data": "compares to 1e-7: tested with double precision"
    for form in ("dense", "sparse")
}


@parametrize_with_checks([MLPClassifier(**SMALL, **EXACT), MLPRegressor(**SMALL, **EXACT)])
def test_exact(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([MLPClassifier(), MLPRegressor()], expected_failed_checks=lambda estimator: NOT_EXACT)
def test_defaults(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
