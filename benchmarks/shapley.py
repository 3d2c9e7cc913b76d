"""Shapley values of this package and of ``shap``: how near they are, and what each takes.

    pip install shap && python benchmarks/shapley.py

Both explain the same rows of one network with the same background rows. ``shap.explainers.Permutation`` takes orders of
the columns and their reverses as :mod:`mlp_lightning.inference.explanation.shapley` does; ``shap.explainers.Exact`` all
sets of columns. The time of the first call of a process has what numba compiles in it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

import mlp_lightning
from mlp_lightning.inference.explanation.rows import rows_of_table
from mlp_lightning.inference.explanation.shapley import shapley_values
from mlp_lightning.inference.loading import load_model

ROWS, COLUMNS, EXPLAINED, BACKGROUND = 400, 8, 50, 50


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def main() -> None:
    random = np.random.default_rng(0)
    x_BF = random.normal(size=(ROWS, COLUMNS))
    y_B = x_BF[:, 0] * x_BF[:, 1] + np.sin(2 * x_BF[:, 2]) + x_BF[:, 3] + 0.1 * random.normal(size=ROWS)
    table = pa.table({f"x{number}": one_B for number, one_B in enumerate(x_BF.T)} | {"y": y_B})
    config = {"data": {"name": "table", "target": "y"}, "trainer": {"accelerator": "cpu"}, "verbosity": 0}
    folder = tempfile.mkdtemp() + "/run"
    result = mlp_lightning.train(config, folder, frame=table)
    model = load_model(f"{folder}/checkpoints/{result.weights}.ckpt")
    rows = rows_of_table(model, None, None, table, None, BACKGROUND, 0)
    chosen = [int(one) + 1 for one in rows.numbers_B[:EXPLAINED]]
    print(f"{EXPLAINED} rows, {COLUMNS} columns, {BACKGROUND} background rows, load {os.getloadavg()[0]:.1f}")
    for which in ("first", "second"):
        found, seconds = timed(lambda: shapley_values(model, rows, chosen, BACKGROUND, 0))
        print(f"this package, {which} call: {seconds:.2f} s, mean error {found.errors_BFC.mean():.4f}")
    shap, seconds = timed(lambda: __import__("shap"))
    print(f"shap {shap.__version__}, import: {seconds:.2f} s")

    def predict(raw_BF: np.ndarray) -> np.ndarray:
        return model.predict(np.ascontiguousarray(raw_BF, dtype=np.float64))

    masker = shap.maskers.Independent(rows.raw_BF, max_samples=BACKGROUND)
    explain = shap.explainers.Exact(predict, masker)
    exact, seconds = timed(lambda: explain(found.raw_BF, silent=True))
    print(f"shap, Exact, first call: {seconds:.2f} s")
    explain = shap.explainers.Permutation(predict, masker, seed=0)
    evaluations = 10 * (2 * COLUMNS + 1)
    for which in ("first", "second"):
        other, seconds = timed(lambda: explain(found.raw_BF, max_evals=evaluations, silent=True))
        print(f"shap, Permutation, {which} call: {seconds:.2f} s")
    for name, values in (("this package", found.values_BFC), ("shap, Permutation", other.values)):
        rms = np.sqrt(np.mean((values - exact.values.reshape(values.shape)) ** 2))
        print(f"{name}: root mean square difference from Exact {rms:.4f}")


if __name__ == "__main__":
    main()
