"""The contenders of ``tables.py``: each fits to rows and predicts others.

Shapes: ``B`` rows, ``C`` classes.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Job(NamedTuple):
    """What to fit to, and what to predict.

    Attributes:
        train: rows with the column ``target``.
        test: rows without it.
        classes: of the target, sorted; none if it is a number.
        seed: of the contender.
        threads: most threads.
        folder: empty, for what the contender writes.
        budget: overrides for ``preset=best``.
        ablate: whether to take parts out of it, too.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    classes: list[str]
    seed: int
    threads: int
    folder: Path
    budget: tuple[str, ...]
    ablate: bool = False


class Prediction(NamedTuple):
    """Probabilities ``(B, C)`` or values ``(B,)`` of the test rows; seconds of the fit and of the prediction."""

    values: Floats
    fit_s: float
    predict_s: float
    variants: Mapping[str, Floats] = {}


# ---- this project --------------------------------------------------------------------------------------------------

OURS: dict[str, tuple[str, ...]] = {
    "default": (),
    "ensemble": ("ensemble.members=8",),
    "bagging": ("data.cv.folds=8", "data.cv.held_out_as=val"),
    "best": ("preset=best",),
}


def ours(job: Job, name: str) -> Prediction:
    """What the command does with these overrides: from the file with the rows to the checkpoint, and to predictions."""
    from mlp_lightning import cross_validate, train, train_best, train_ensemble
    from mlp_lightning.config.overrides import check_overrides
    from mlp_lightning.inference.loading import load_model

    path, run = job.folder / "train.parquet", job.folder / "run"
    job.train.to_parquet(path)
    more = [*OURS[name], *(job.budget if name == "best" else ()), *(() if job.classes else ("task=regression",))]
    fixed = ("data=table", f"data.path={path}", "data.target=target", "data.test_fraction=0", "logger=none")
    start = {"ensemble": train_ensemble, "bagging": cross_validate, "best": train_best}.get(name, train)
    begun = time.perf_counter()
    config: Any = check_overrides([*fixed, *more, f"seed={job.seed}", "verbosity=0"])
    start(config, run)
    fitted = time.perf_counter()
    model = load_model(run / "checkpoints" / "best.ckpt")
    values = _predictions(model, job)
    seconds = fitted - begun, time.perf_counter() - fitted
    return Prediction(values, *seconds, ablated(run, config, job, values) if job.ablate and name == "best" else {})


def _predictions(model: Any, job: Job) -> Floats:
    from mlp_lightning.inference.intervals import FurtherColumns
    from mlp_lightning.inference.predict import predicted_rows
    from mlp_lightning.tables.encoding import Surprises
    from mlp_lightning.tables.reading.memory import MemorySource

    source, further = MemorySource.of_frame(job.test), FurtherColumns(model, None, None)
    parts = predicted_rows(model, source, [], Surprises(), 4096, further)
    found = pd.concat([one.to_pandas() for one in parts])
    names = [f"probability_{one}" for one in job.classes] or "predicted_target"
    return found[names].to_numpy(np.float64)


def ablated(run: Path, config: Any, job: Job, whole: Floats) -> dict[str, Floats]:
    """What the model of ``preset=best`` would predict without one of its parts; trains nothing.

    Everything that remains is fitted anew to the rows that folds held out.

    Raises:
        AssertionError: the model with all parts does not come out as that of the run.
    """
    import torch

    from mlp_lightning.data.reading import Given, open_source
    from mlp_lightning.ensembles.ensemble import mean_predictions
    from mlp_lightning.ensembles.selection import greedy_weights, loss_of
    from mlp_lightning.inference.loading import TrainedModel, load_model
    from mlp_lightning.networks.calibration import best_temperature
    from mlp_lightning.networks.tasks import make_task
    from mlp_lightning.runs.build import build_data
    from mlp_lightning.runs.ensembles import combined
    from mlp_lightning.sweeps.folds import of_fold, of_member
    from mlp_lightning.tables.reading.memory import KeptSource

    source, alone = KeptSource(open_source(config.data, config.allow_targets)), of_member(config, 0)
    data = [build_data(of_fold(alone, fold), Given(source)) for fold in range(config.data.cv.folds)]
    tasks = [make_task(one.task, one.out_features, one.target.mean, one.target.scale) for one in data]
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    members = result["members"]
    models, held_out, targets = {}, {}, []
    for fold, one in enumerate(data):
        of_fold_B = one.splits["val"].targets
        numbers = tasks[0].logits(tasks[fold].truths(of_fold_B.double()))  # each fold standardises by its own rows
        targets.append(of_fold_B if job.classes else numbers)
        for number, member in enumerate(members):
            path = run / member["folder"] / f"fold-{fold}" / "checkpoints" / "best.ckpt"
            if path.is_file():
                models[number, fold] = load_model(path)
                held_out[number, fold] = mean_predictions([models[number, fold]], one.splits["val"])

    def predict(
        numbers: Iterable[int], folds: Sequence[int], weighs: bool = True, temperature: float | None = None
    ) -> Floats:
        """The model of some candidates, those that trained in all of these folds; fits the temperature if ``None``."""
        kept = [one for one in numbers if all((one, fold) in models for fold in folds)]
        found_NBC = torch.stack([torch.cat([held_out[one, fold] for fold in folds]) for one in kept])
        truths = torch.cat([targets[fold] for fold in folds])
        losses = [loss_of(tasks[0], one, truths) for one in found_NBC]
        best = [float(one == min(losses)) for one in losses]
        weights = greedy_weights(tasks[0], found_NBC, truths) if weighs else best
        mean_BC = (torch.tensor(weights, dtype=torch.float64)[:, None, None] * found_NBC).sum(0)
        if temperature is None:
            temperature = best_temperature(tasks[0], mean_BC, truths)
        pairs = [(one, fold, weight) for one, weight in zip(kept, weights, strict=True) for fold in folds if weight]
        modules: list[Any] = [models[one, fold].module for one, fold, _ in pairs]
        module = combined(modules, [weight for *_, weight in pairs], temperature)
        return _predictions(TrainedModel.of(module, config, run), job)

    every, folds = range(len(members)), range(len(data))
    plain = [one for one in every if members[one]["options"].get("model.numeric_embedding", "none") == "none"]
    as_trained = predict(every, folds, temperature=result["temperature"])
    np.testing.assert_allclose(as_trained, whole, rtol=1e-5, atol=1e-7)
    return {
        "best without folds (one split)": predict(every, [0]),
        "best without candidates (bagging and temperature)": predict([0], folds),
        "best without embedded numbers": predict(plain, folds),
        "best without ensemble selection (the best candidate)": predict(every, folds, weighs=False),
        **({"best without temperature": predict(every, folds, temperature=1.0)} if job.classes else {}),
    }


# ---- others ----------------------------------------------------------------------------------------------------------


def _texts(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]


def _plain(job: Job) -> tuple[pd.DataFrame, Any, pd.DataFrame]:
    """Training features and targets, and test features; names are plain, as LightGBM refuses some."""
    features, target = job.train.drop(columns="target"), job.train["target"].to_numpy()
    names = {name: f"x{number}" for number, name in enumerate(features)}
    return features.rename(columns=names), target, job.test.rename(columns=names)


def _categories(train: pd.DataFrame, test: pd.DataFrame, most: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Texts as categories of the training rows; as their numbers where there are more than ``most``."""
    train, test = train.copy(), test.copy()
    for name in _texts(train):
        known = sorted(train[name].dropna().unique())
        for frame in (train, test):
            found = pd.Series(pd.Categorical(frame[name], categories=known), index=frame.index)
            frame[name] = found.cat.codes.astype(float) if most is not None and len(known) > most else found
    return train, test


def _missing_named(train: pd.DataFrame, test: pd.DataFrame, numbers: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Missing texts as a further text; missing ``numbers`` as the median."""
    fill: dict[str, Any] = dict.fromkeys(_texts(train), "missing")
    if numbers:
        fill |= {str(name): train[name].median() for name in train if name not in fill}
    return train.fillna(fill), test.fillna(fill)


def _measured(model: Any, job: Job, data: tuple[pd.DataFrame, Any, pd.DataFrame], **options: Any) -> Prediction:
    train, target, test = data
    begun = time.perf_counter()
    model.fit(train, target, **options)
    fitted = time.perf_counter()
    found = model.predict_proba(test) if job.classes else np.ravel(model.predict(test))
    seconds = fitted - begun, time.perf_counter() - fitted
    if job.classes:
        found = pd.DataFrame(found, columns=[str(one) for one in model.classes_]).reindex(columns=job.classes).fillna(0)
    return Prediction(np.asarray(found, np.float64), *seconds)


def sklearn_mlp(job: Job) -> Prediction:
    """Scaled and one-hot; missing numbers become the median, and a feature marks them. Targets are scaled, too."""
    from sklearn.compose import TransformedTargetRegressor, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = _plain(job)
    texts = _texts(data[0])
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    prepared = make_column_transformer(
        (numbers, [name for name in data[0] if name not in texts]),
        (OneHotEncoder(handle_unknown="ignore"), texts),
        sparse_threshold=0,
    )
    if job.classes:
        model: Any = MLPClassifier(random_state=job.seed)
    else:
        model = TransformedTargetRegressor(MLPRegressor(random_state=job.seed), transformer=StandardScaler())
    return _measured(make_pipeline(prepared, model), job, data)


def boosting(job: Job) -> Prediction:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    train, target, test = _plain(job)
    made = HistGradientBoostingClassifier if job.classes else HistGradientBoostingRegressor
    prepared_train, prepared_test = _categories(train, test, most=255)  # it takes no more
    return _measured(made(random_state=job.seed), job, (prepared_train, target, prepared_test))


def lightgbm(job: Job) -> Prediction:
    from lightgbm import LGBMClassifier, LGBMRegressor  # pyright: ignore[reportMissingImports]

    train, target, test = _plain(job)
    made = LGBMClassifier if job.classes else LGBMRegressor
    model = made(random_state=job.seed, n_jobs=job.threads, verbosity=-1)
    prepared_train, prepared_test = _categories(train, test)
    return _measured(model, job, (prepared_train, target, prepared_test))


def catboost(job: Job) -> Prediction:
    from catboost import CatBoostClassifier, CatBoostRegressor  # pyright: ignore[reportMissingImports]

    train, target, test = _plain(job)
    made = CatBoostClassifier if job.classes else CatBoostRegressor
    model = made(random_seed=job.seed, thread_count=job.threads, verbose=False, allow_writing_files=False)
    prepared_train, prepared_test = _missing_named(train, test, numbers=False)
    return _measured(model, job, (prepared_train, target, prepared_test), cat_features=_texts(train))


def pytabkit(job: Job, name: str) -> Prediction:
    """RealMLP and TabM with the defaults that their authors tuned; both take no missing numbers.

    For classes they stop by the log-loss, which is what is measured, instead of the error rate; RealMLP without label
    smoothing, as its authors advise then.
    """
    import pytabkit as library  # pyright: ignore[reportMissingImports]

    train, target, test = _plain(job)
    made = getattr(library, f"{name}_{'Classifier' if job.classes else 'Regressor'}")
    options: dict[str, Any] = {"val_metric_name": "cross_entropy"} if job.classes else {}
    if job.classes and name == "RealMLP_TD":
        options["use_ls"] = False
    model = made(device="cpu", random_state=job.seed, n_threads=job.threads, **options)
    prepared_train, prepared_test = _missing_named(train, test, numbers=True)
    return _measured(model, job, (prepared_train, target, prepared_test), cat_col_names=_texts(train))


def contenders() -> dict[str, Callable[[Job], Prediction]]:
    """Those that are installed, by name."""
    found: dict[str, Callable[[Job], Prediction]] = {name: lambda job, name=name: ours(job, name) for name in OURS}
    found |= {"scikit-learn MLP": sklearn_mlp, "HistGradientBoosting": boosting}
    others: dict[str, tuple[str, Callable[[Job], Prediction]]] = {
        "LightGBM": ("lightgbm", lightgbm),
        "CatBoost": ("catboost", catboost),
        "RealMLP": ("pytabkit", lambda job: pytabkit(job, "RealMLP_TD")),
        "TabM": ("pytabkit", lambda job: pytabkit(job, "TabM_D")),
    }
    installed = {name: made for name, (package, made) in others.items() if importlib.util.find_spec(package)}
    return found | installed
