"""Shapley values against their definition, by all sets of columns, and what they promise."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.inference_tables import flowers

from mlp_lightning import explain
from mlp_lightning.errors import ConfigError
from mlp_lightning.inference.explanation.rows import ExplainedRows, rows_of_table
from mlp_lightning.inference.explanation.shapley import shapley_values
from mlp_lightning.inference.loading import load_model

COLUMNS = 5


class _Function:
    """A model whose prediction is a function of raw columns."""

    def __init__(self, function: Any) -> None:
        self.predict = function
        self.columns = tuple(range(COLUMNS))


def rows(count: int = 12, seed: int = 0, weights_B: np.ndarray | None = None) -> ExplainedRows:
    random = np.random.default_rng(seed)
    raw_BF = random.normal(size=(count, COLUMNS))
    raw_BF[1, 2] = np.nan
    empty = np.empty((count, 0))
    return ExplainedRows("rows", raw_BF, empty, weights_B, np.arange(count) * 10, None, None, count, 0, [])


def by_all_sets(function: Any, row_F: np.ndarray, background_MF: np.ndarray) -> np.ndarray:
    """The definition (Shapley, 1953): the weighted mean of what a column adds to each set of the others, ``(F, C)``."""

    def game(members: tuple[int, ...]) -> np.ndarray:
        changed_MF = background_MF.copy()
        changed_MF[:, list(members)] = row_F[list(members)]
        return function(changed_MF).mean(axis=0)

    values = []
    for column in range(COLUMNS):
        others = [one for one in range(COLUMNS) if one != column]
        values.append(
            sum(
                math.factorial(size)
                * math.factorial(COLUMNS - size - 1)
                / math.factorial(COLUMNS)
                * (game((*members, column)) - game(members))
                for size in range(COLUMNS)
                for members in itertools.combinations(others, size)
            )
        )
    return np.array(values)


def pairs(raw_BF: np.ndarray) -> np.ndarray:
    """Interactions of two columns each, and two outputs; a missing value counts as 3."""
    x = np.where(np.isnan(raw_BF), 3.0, raw_BF)
    return np.stack([x[:, 0] * x[:, 1] + np.sin(x[:, 2]) * x[:, 3] - 7, np.exp(x[:, 2]) + x[:, 0] * x[:, 3]], axis=1)


def triples(raw_BF: np.ndarray) -> np.ndarray:
    return pairs(raw_BF) + (raw_BF[:, :1] * raw_BF[:, 1:2] * raw_BF[:, 4:])


def background(of: ExplainedRows, count: int) -> np.ndarray:
    """All rows, each as often."""
    return np.concatenate([of.raw_BF] * (count // len(of.raw_BF)))


def test_they_are_exact_where_no_three_columns_interact() -> None:
    of = rows()
    found = shapley_values(_Function(pairs), of, 12, 12, 1)  # type: ignore[arg-type]
    for row, values_FC in zip(of.raw_BF, found.values_BFC, strict=True):
        np.testing.assert_allclose(values_FC, by_all_sets(pairs, row, background(of, 12)), atol=1e-12)
    np.testing.assert_allclose(found.base_C, pairs(of.raw_BF).mean(axis=0))
    assert np.abs(found.values_BFC[:, 4]).max() == 0  # the last column does nothing
    assert found.values_BFC[1, 2, 0] != 0


def test_else_they_are_as_near_as_their_errors_say() -> None:
    of, deviations = rows(8, 3), []
    of.raw_BF[1, 2] = 0.5
    for seed in range(20):
        found = shapley_values(_Function(triples), of, 8, 80, seed)  # type: ignore[arg-type]
        for row, values_FC in zip(of.raw_BF, found.values_BFC, strict=True):
            deviations.append(values_FC - by_all_sets(triples, row, background(of, 80)))
    found_again = shapley_values(_Function(triples), of, 8, 80, 0)  # type: ignore[arg-type]
    rms = np.sqrt(np.mean(np.square(deviations), axis=(0, 2)))
    assert rms[[2, 3]].max() < 1e-12
    # All rows are in the background equally often, so that the errors are a little larger than the truth.
    errors_F = found_again.errors_BFC.mean(axis=(0, 2))
    assert (rms <= 1.5 * errors_F + 1e-12).all()
    assert rms[[0, 1, 4]].min() > 0.005


@pytest.mark.parametrize("name", ["kind_model", "price_model", "big_model"])
def test_they_add_up_to_the_prediction(request: pytest.FixtureRequest, name: str) -> None:
    """Of real models with categories, gaps and several outputs."""
    model = load_model(request.getfixturevalue(name).checkpoint)
    used = rows_of_table(model, None, None, flowers(60, 8), None, 1000, 0)
    found = shapley_values(model, used, 25, 7, 4)
    assert [one.name for one in found.columns] == [one.name for one in model.columns]
    assert found.values_BFC.shape[1] == len(model.columns)
    scale = max(1, np.abs(model.predict(found.raw_BF)).max())  # of numbers in single precision
    np.testing.assert_allclose(
        found.base_C + found.values_BFC.sum(axis=1), model.predict(found.raw_BF), atol=1e-6 * scale
    )
    again, other = (shapley_values(model, used, 25, 7, seed) for seed in (4, 5))
    assert np.array_equal(found.values_BFC, again.values_BFC)
    assert not np.array_equal(found.values_BFC, other.values_BFC)


def test_a_column_that_the_model_does_not_use_has_none(kind_model) -> None:
    model = load_model(kind_model.checkpoint)
    number = [one.name for one in model.columns].index("place")
    predict = model.predict
    used = rows_of_table(model, None, None, flowers(60, 8), None, 1000, 0)

    class Deaf:
        columns = model.columns

        @staticmethod
        def predict(raw_BF: np.ndarray) -> np.ndarray:
            same_BF = raw_BF.copy()
            same_BF[:, number] = 2.0
            return predict(same_BF)

    found = shapley_values(Deaf(), used, 10, 5, 0)  # type: ignore[arg-type]
    assert np.abs(found.values_BFC[:, number]).max() == 0
    assert found.order()[-1] == number


def test_rows_by_number() -> None:
    of = rows()
    found = shapley_values(_Function(pairs), of, [41, 1], 12, 0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.raw_BF, of.raw_BF[[4, 0]])
    assert found.numbers_B.tolist() == [40, 0]
    with pytest.raises(ConfigError, match=r"shapley_rows = 2 is none of the rows"):
        shapley_values(_Function(pairs), of, [41, 2], 12, 0)  # type: ignore[arg-type]


def test_weighted_rows_count_by_their_weights() -> None:
    """In the background, and in the summary: as if a row was there so many times."""
    random = np.random.default_rng(2)
    weights_B = random.integers(1, 4, 10).astype(float)
    of = rows(10, 6, weights_B)
    found = shapley_values(_Function(pairs), of, 10, 5_000, 0)  # type: ignore[arg-type]
    many_MF = np.repeat(of.raw_BF, weights_B.astype(int), axis=0)
    np.testing.assert_allclose(found.base_C, pairs(many_MF).mean(axis=0), rtol=0.02, atol=0.02)
    means_FC, deviations_FC, _ = found.summary()
    sizes = np.repeat(np.abs(found.values_BFC), weights_B.astype(int), axis=0)
    np.testing.assert_allclose(means_FC, sizes.mean(axis=0))
    np.testing.assert_allclose(deviations_FC, sizes.std(axis=0))


def test_of_few_rows_all_are_drawn_again() -> None:
    of = rows(3, 7)
    found = shapley_values(_Function(pairs), of, 200, 6, 0)  # type: ignore[arg-type]
    assert len(found.values_BFC) == 3
    np.testing.assert_allclose(found.base_C, pairs(of.raw_BF).mean(axis=0))


# ---- what is written -----------------------------------------------------------------------------------------------


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_tables_have_the_values(kind_model, tmp_path) -> None:
    report = explain(kind_model.checkpoint, tmp_path, repeats=2, top=1, shapley_rows=9, shapley_samples=4)
    values, model = report.shapley, load_model(kind_model.checkpoint)
    assert values is not None
    assert len(values.raw_BF) == 9
    classes = ["probability_blue, light", "probability_red", 'probability_say "so"']
    names = [one.name for one in values.columns]
    means_FC, deviations_FC, errors_FC = values.summary()
    summary = table_of(tmp_path / "shapley.csv")
    assert [row["column"] for row in summary[::3]] == [names[f] for f in np.argsort(-means_FC.mean(axis=1))]
    for row in summary:
        at = names.index(row["column"]), classes.index(row["output"])
        assert [float(row[one]) for one in ("mean_abs", "sd_abs", "error")] == [
            means_FC[at],
            deviations_FC[at],
            errors_FC[at],
        ]
    singles = table_of(tmp_path / "shapley_values.csv")
    assert len(singles) == 9 * 3 * len(names)
    table, sums = flowers(), dict[tuple[int, str], float]()
    for row in singles:
        number = int(row["row"])
        given = table[row["column"]][number - 1].as_py()
        if row["column"] == "place":
            assert row["value"] == given
        else:
            assert (float(row["value"]) if row["value"] not in ("", "True", "False") else None) == (
                None if isinstance(given, bool) else given
            )
        key = number, row["output"]
        sums[key] = sums.get(key, 0) + float(row["shapley"])
    record = json.loads((tmp_path / "explanation.json").read_text(encoding="utf-8"))["shapley"]
    predictions_BC = model.predict(values.raw_BF)
    for (number, output), total in sums.items():
        place = values.numbers_B.tolist().index(number - 1)
        assert record["base"][output] + total == pytest.approx(predictions_BC[place, classes.index(output)], abs=1e-6)
    assert [one["mean_abs"] for one in record["columns"]] == [float(row["mean_abs"]) for row in summary]
    assert (tmp_path / "shapley.png").read_bytes()[:4] == b"\x89PNG"


def test_without_them_an_earlier_one_is_gone(price_model, tmp_path) -> None:
    explain(price_model.checkpoint, tmp_path, repeats=2, top=1, shapley_rows=[], shapley_samples=2)
    assert not list(tmp_path.glob("shapley*"))
    some = json.loads((price_model.result.run_dir / "result.json").read_text(encoding="utf-8"))["fingerprint"]["data"][
        "rows"
    ]
    with pytest.raises(ConfigError, match="shapley_rows = "):
        explain(price_model.checkpoint, tmp_path, repeats=2, top=1, shapley_rows=[some + 1])
    explain(price_model.checkpoint, tmp_path, repeats=2, top=1, shapley_rows=3, shapley_samples=2)
    assert len(list(tmp_path.glob("shapley*"))) == 3
    explain(price_model.checkpoint, tmp_path, repeats=2, top=1, shapley_rows=0)
    assert not list(tmp_path.glob("shapley*"))


def test_too_few_samples_are_refused(price_model, tmp_path) -> None:
    with pytest.raises(ConfigError, match="shapley_samples = 1 must be at least 2"):
        explain(price_model.checkpoint, tmp_path / "new", shapley_samples=1)
    with pytest.raises(ConfigError, match="shapley_rows = -1 must be at least 1"):
        explain(price_model.checkpoint, tmp_path / "new", shapley_rows=-1)
    assert not (tmp_path / "new").exists()
