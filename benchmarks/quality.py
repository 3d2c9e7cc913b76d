"""Five-fold quality of the defaults for tables against scikit-learn's models: ``python benchmarks/quality.py``.

Folds are ``KFold(5, shuffle=True, random_state=0)``, as in the results quoted for RealMLP (pytabkit 1.7.3, two cores).
Accuracy or R² and log-loss are means over the folds, with the standard error over the folds; seconds are those of all
five fits together. Where pytabkit is installed, RealMLP is measured in the same run.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_friedman1,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier as SklearnClassifier
from sklearn.neural_network import MLPRegressor as SklearnRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_lightning.estimators import MLPClassifier, MLPRegressor

CLASSES = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer, "digits": load_digits}
NUMBERS: dict[str, Callable[[], Any]] = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "friedman1": lambda: make_friedman1(n_samples=1000, noise=1.0, random_state=0),
}
# Accuracy or R² and seconds of five fits, measured on another machine of this kind.
REALMLP_QUOTED = {
    "iris": (0.967, 13),
    "wine": (0.983, 14),
    "breast_cancer": (0.975, 21),
    "digits": (0.986, 77),
    "diabetes": (0.468, 18),
    "friedman1": (0.953, 30),
}


def contenders(classes: bool) -> dict[str, Callable[[int], Any]]:
    """Makers of fresh models, by name; each takes a seed."""
    if classes:
        found: dict[str, Callable[[int], Any]] = {
            "mlp_lightning": lambda seed: MLPClassifier(random_state=seed),
            "scikit-learn MLP, raw": lambda seed: SklearnClassifier(random_state=seed),
            "scikit-learn MLP, scaled": lambda seed: make_pipeline(
                StandardScaler(), SklearnClassifier(random_state=seed)
            ),
            "logistic": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            "boosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
        }
    else:
        found = {
            "mlp_lightning": lambda seed: MLPRegressor(random_state=seed),
            "scikit-learn MLP, raw": lambda seed: SklearnRegressor(random_state=seed),
            "scikit-learn MLP, scaled": lambda seed: make_pipeline(
                StandardScaler(), SklearnRegressor(random_state=seed)
            ),
            "ridge": lambda seed: make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
            "boosting": lambda seed: HistGradientBoostingRegressor(random_state=seed),
        }
    try:
        from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor  # pyright: ignore[reportMissingImports]

        made = RealMLP_TD_Classifier if classes else RealMLP_TD_Regressor
        found["RealMLP"] = lambda seed: made(device="cpu", random_state=seed)
    except ImportError:
        pass
    return found


def measure(make: Callable[[int], Any], features: Any, targets: Any, classes: bool, seeds: int, folds_seed: int) -> str:
    """One row of the table: score, log-loss and seconds."""
    scores, losses, seconds = [], [], []
    for seed in range(seeds):
        of_seed = 0.0
        for train, test in KFold(5, shuffle=True, random_state=folds_seed).split(features):
            model = make(seed)
            begun = time.perf_counter()
            model.fit(features[train], targets[train])
            of_seed += time.perf_counter() - begun
            scores.append(model.score(features[test], targets[test]))
            if classes:
                known = np.unique(targets)
                losses.append(log_loss(targets[test], model.predict_proba(features[test]), labels=known))
        seconds.append(of_seed)
    by_fold = np.reshape(scores, (seeds, 5)).mean(0)
    text = f"{by_fold.mean():.4f} ± {by_fold.std(ddof=1) / 5**0.5:.4f} | "
    if losses:
        of_folds = np.reshape(losses, (seeds, 5)).mean(0)
        text += f"{of_folds.mean():.4f} ± {of_folds.std(ddof=1) / 5**0.5:.4f}"
    return f"{text} | {np.median(seconds):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="model seeds; results are means over them")
    parser.add_argument("--folds-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=[*CLASSES, *NUMBERS])
    parser.add_argument("--only", nargs="*", help="names of models")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # scikit-learn's MLP says of nearly every fit that it has not converged
    # The first fit of a process loads parts of torch that every later one finds loaded.
    MLPClassifier(max_iter=1).fit(np.zeros((4, 1)), [0, 1, 0, 1])
    print("| set | model | accuracy or R² | log-loss | seconds, five fits |\n|---|---|---|---|---|")
    for name in arguments.sets:
        classes = name in CLASSES
        features, targets = CLASSES[name](return_X_y=True) if classes else NUMBERS[name]()
        for model, make in contenders(classes).items():
            if not arguments.only or model in arguments.only:
                row = measure(make, features, targets, classes, arguments.seeds, arguments.folds_seed)
                print(f"| {name} | {model} | {row} |", flush=True)
        score, seconds = REALMLP_QUOTED[name]
        print(f"| {name} | RealMLP, quoted | {score:.3f} |  | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
