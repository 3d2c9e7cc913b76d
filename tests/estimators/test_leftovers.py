"""Many fits in one process leave no files, folders, threads or handlers behind."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.estimator_rows import FAST, numbers

from mlp_lightning.errors import TrainingError
from mlp_lightning.estimators import MLPClassifier, MLPRegressor, fit_many

pytestmark = pytest.mark.filterwarnings("ignore::mlp_lightning.errors.BaselineWarning")
_OPEN_FILES = Path("/proc/self/fd")


def left() -> dict[str, Any]:
    """What a fit could leave behind in its process, but for memory."""
    gc.collect()
    open_files = len(list(_OPEN_FILES.iterdir())) if _OPEN_FILES.is_dir() else 0
    loggers = [logging.getLogger(name) for name in ("", *logging.root.manager.loggerDict)]
    return {
        "open files": open_files,
        "threads": sorted(one.name for one in threading.enumerate()),
        "handlers of logs": sum(len(one.handlers) for one in loggers),
        "handlers of signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "filters of warnings": len(warnings.filters),
        "threads of torch": torch.get_num_threads(),
        "modules": sum(issubclass(type(one), torch.nn.Module) for one in gc.get_objects()),
    }


@pytest.mark.parametrize("kind", ["fit", "early stopping", "log_dir", "fit_many", "failed", "partial_fit"])
def test_nothing_is_left(kind, tmp_path, monkeypatch, torture) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    X, y = numbers()
    parameters = {**FAST, "max_iter": 1}

    def once() -> None:
        if kind == "fit":
            MLPClassifier(**parameters).fit(X, y).predict(X)
        elif kind == "early stopping":
            MLPRegressor(**parameters, early_stopping=True).fit(X, y * 1.5)
        elif kind == "log_dir":
            MLPClassifier(**parameters, log_dir=tmp_path / "runs").fit(X, y)
        elif kind == "fit_many":
            fit_many([{"alpha": 0.1}, {"alpha": 0.2}], X, y, estimator=MLPClassifier(**parameters))
        elif kind == "partial_fit":
            MLPClassifier(**parameters).fit(X, y).partial_fit(X, y)
        else:
            broken = {**parameters, "solver": "sgd", "learning_rate": "constant", "learning_rate_init": 1e30}
            with pytest.raises(TrainingError):
                MLPRegressor(**{**broken, "max_iter": 50}).fit(X, y * 1.5)

    for _ in range(2):  # what is imported or made once stays
        once()
    before = left()
    for _ in range(4 * torture):
        once()
    assert left() == before
    assert list(temporary.iterdir()) == []
