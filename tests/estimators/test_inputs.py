"""Which rows estimators accept, and which they refuse."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
from numpy.typing import NDArray
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support.estimator_rows import FAST, NAMES, mixed, numbers

from mlp_lightning.errors import DataError
from mlp_lightning.estimators import MLPClassifier, MLPRegressor

# Most fits here are too short to learn anything: test_cautions.py is about what is said of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::mlp_lightning.errors.BaselineWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)
LEARNS: dict[str, Any] = {**FAST, "hidden_layer_sizes": (32,), "max_iter": 150, "learning_rate_init": 0.03}


def as_pandas(X: NDArray[np.float64]) -> Any:
    return pytest.importorskip("pandas").DataFrame(X, columns=NAMES)


def as_nullable_pandas(X: NDArray[np.float64]) -> Any:
    return as_pandas(X).convert_dtypes(dtype_backend="pyarrow")


def as_polars(X: NDArray[np.float64]) -> Any:
    return pytest.importorskip("polars").DataFrame(X, schema=NAMES, orient="row")


def as_arrow(X: NDArray[np.float64]) -> pa.Table:
    return pa.table(list(X.T), names=NAMES)


@pytest.mark.parametrize("as_frame", [as_pandas, as_nullable_pandas, as_polars, as_arrow])
@pytest.mark.parametrize("y_as", [np.asarray, list, pa.array])
def test_frames_of_numbers_give_the_same_as_arrays(as_frame, y_as) -> None:
    X, y = numbers()
    frame = as_frame(X)
    expected = MLPClassifier(**FAST).fit(X, y)
    fitted = MLPClassifier(**FAST).fit(frame, y_as(y))
    assert fitted.feature_names_in_.tolist() == NAMES
    assert np.array_equal(fitted.predict_proba(frame), expected.predict_proba(X))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        assert np.array_equal(fitted.predict_proba(X), expected.predict_proba(X))


def test_integers_float32_and_lists_are_numbers() -> None:
    X = np.arange(40).reshape(20, 2) % 7
    y = X[:, 0] > 3
    expected = MLPClassifier(**FAST).fit(X, y).predict_proba(X)
    for other in (X.astype(np.float32), X.tolist(), np.asfortranarray(X), X.astype(object)):
        assert np.array_equal(MLPClassifier(**FAST).fit(other, y).predict_proba(other), expected)


def test_columns_that_are_not_numbers_are_learned_from() -> None:
    table, y = mixed()
    fitted = MLPClassifier(**LEARNS).fit(table, y)
    assert fitted.score(table, y) > 0.9
    kinds = {one.name: one.kind for one in fitted.module_.preprocessor.columns}
    assert kinds["number"] == kinds["whole"] == "numeric"
    assert kinds["text"] == kinds["kind"] == kinds["nothing"] == "categorical"
    assert (kinds["flag"], kinds["when"]) == ("boolean", "datetime")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_mixed_frames_give_the_same_as_arrow(library) -> None:
    pytest.importorskip(library)
    table, y = mixed()
    frame = table.to_pandas() if library == "pandas" else __import__("polars").from_arrow(table)
    expected = MLPClassifier(**FAST).fit(table, y).predict_proba(table)
    assert np.array_equal(MLPClassifier(**FAST).fit(frame, y).predict_proba(frame), expected)


def test_arrays_of_objects_give_the_same_as_frames() -> None:
    table, y = mixed()
    frame = table.to_pandas()
    X = frame.to_numpy()
    assert X.dtype == object
    expected = MLPClassifier(**FAST).fit(frame, y).predict_proba(frame)
    assert np.array_equal(MLPClassifier(**FAST).fit(X, y).predict_proba(X), expected)
    assert np.array_equal(MLPClassifier(**FAST).fit(X.tolist(), y).predict_proba(X.tolist()), expected)


def test_bagging_over_a_mixed_frame() -> None:
    table, y = mixed()
    frame = table.to_pandas()
    bag = BaggingClassifier(MLPClassifier(**LEARNS), n_estimators=3, max_features=5, random_state=0).fit(frame, y)
    assert bag.score(frame, y) > 0.75


def test_numbers_beside_texts_in_an_array_of_texts_are_numbers() -> None:
    X = [["red", 1.5], ["blue", 2], ["red", 1e3], ["blue", -4]]
    as_texts = np.array(X)
    assert as_texts.dtype.kind == "U"
    fitted = MLPClassifier(**FAST).fit(as_texts, [0, 1, 0, 1])
    assert [one.kind for one in fitted.module_.preprocessor.columns] == ["categorical", "numeric"]
    as_objects = np.array(X, dtype=object)
    expected = MLPClassifier(**FAST).fit(as_objects, [0, 1, 0, 1]).predict_proba(as_objects)
    assert np.array_equal(fitted.predict_proba(as_texts), expected)
    assert np.array_equal(fitted.predict_proba(as_objects), expected)


@pytest.mark.parametrize("as_sparse", [scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_array])
def test_sparse_rows_are_trained_on_with_their_zeros(as_sparse) -> None:
    X, y = numbers(gaps=False)
    X[np.abs(X) < np.median(np.abs(X), 0)] = 0
    fitted = MLPClassifier(**FAST).fit(as_sparse(X), y)
    expected = MLPClassifier(**FAST).fit(X, y)
    assert np.array_equal(fitted.predict_proba(as_sparse(X)), expected.predict_proba(X))


def test_sparse_rows_that_do_not_fit_into_memory_are_refused() -> None:
    X = scipy.sparse.csr_matrix((1_000_000, 10_000_000))
    with pytest.raises(ValueError, match=r"1,000,000 x 10,000,000.*TruncatedSVD"):
        MLPClassifier(**FAST).fit(X, np.arange(1_000_000) % 2)


def test_texts_and_categories_made_sparse_by_a_pipeline() -> None:
    texts = [f"{colour} and {noise}" for noise in ("this", "that", "it") for colour in ("red", "blue") * 10]
    y = ["red" in one for one in texts]
    assert make_pipeline(TfidfVectorizer(), MLPClassifier(**LEARNS)).fit(texts, y).score(texts, y) == 1.0
    X = np.array([one.split() for one in texts])
    assert make_pipeline(OneHotEncoder(), MLPClassifier(**LEARNS)).fit(X, y).score(X, y) == 1.0


def test_intervals_of_pandas_are_categories() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = numbers(gaps=False)
    frame = pandas.DataFrame({"age": pandas.cut(X[:, 0], [-9, -1, 0, 1, 9]), "other": X[:, 1]})
    frame["other"] = frame["other"].where(X[:, 1] < 1e4)
    y = X[:, 0] > 0
    for rows in (frame, frame.to_numpy(), frame.assign(age=frame["age"].astype(object))):
        fitted = MLPClassifier(**LEARNS).fit(rows, y)
        first = fitted.module_.preprocessor.columns[0]
        assert (first.kind, first.vocabulary) == ("categorical", ("(-1, 0]", "(-9, -1]", "(0, 1]", "(1, 9]"))
        assert fitted.score(rows, y) == 1.0


def test_unknown_categories_and_new_gaps_are_predicted() -> None:
    table, y = mixed()
    fitted = MLPClassifier(**FAST).fit(table, y)
    other = table.set_column(2, "text", pa.array(["never seen"] * len(table)))
    other = other.set_column(1, "whole", pa.nulls(len(table), pa.int64()))
    assert np.isfinite(fitted.predict_proba(other)).all()


def test_many_categories_are_embedded() -> None:
    table = pa.table({"city": [f"city {number % 15}" for number in range(60)], "x": np.zeros(60)})
    y = np.arange(60) % 15 < 7
    fitted = MLPClassifier(**LEARNS).fit(table, y)
    assert fitted.score(table, y) == 1.0


def test_an_order_of_columns_that_differs_is_refused() -> None:
    frame = as_pandas(numbers()[0])
    fitted = MLPClassifier(**FAST).fit(frame, numbers()[1])
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[NAMES[::-1]])


@pytest.mark.parametrize("names", [[0, 1, 2, 3], ["", "b", "c", "d"], ["target", "weight", "x", "y"]])
def test_names_that_a_table_cannot_have(names) -> None:
    X, y = numbers()
    frame = as_pandas(X)
    frame.columns = names
    fitted = MLPClassifier(**FAST).fit(frame, y, sample_weight=np.ones(len(y)))
    assert np.array_equal(fitted.predict(frame), MLPClassifier(**FAST).fit(X, y, np.ones(len(y))).predict(X))


def test_constant_columns_and_row_numbers_are_not_dropped() -> None:
    X = np.stack([np.ones(30), np.arange(30)], axis=1)
    fitted = MLPRegressor(**FAST).fit(X, X[:, 1])
    assert fitted.n_features_in_ == len(fitted.module_.preprocessor.columns) == 2


def test_a_column_without_any_value() -> None:
    X, y = numbers()
    X[:, 1] = np.nan
    assert np.isfinite(MLPClassifier(**FAST).fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize("where", ["fit", "predict"])
@pytest.mark.parametrize("as_frame", [np.asarray, as_pandas])
def test_infinity_is_refused(where, as_frame) -> None:
    X, y = numbers()
    bad = X.copy()
    bad[3, 1] = np.inf
    fitted = MLPClassifier(**FAST).fit(as_frame(X), y)
    with pytest.raises(ValueError, match="infinity"):
        fitted.fit(as_frame(bad), y) if where == "fit" else fitted.predict(as_frame(bad))


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (np.eye(4), [[0, 1], [1, 2], [0, 0], [1, 0]], ValueError, "multilabel"),
        (np.eye(4), [0.5, 1.5, 0.1, 0.2], ValueError, "Unknown label type"),
        (np.eye(4), [0, 1, 0], ValueError, "inconsistent"),
        (np.eye(4), [0, 1, np.nan, 0], ValueError, "NaN"),
        (np.array([[1], ["b"], [2], [3]], dtype=object), [0, 1, 0, 1], DataError, "column 0"),
        (np.array([[1], [{}], [2], [3]], dtype=object), [0, 1, 0, 1], TypeError, "row 2: column 'x0' has a dict"),
        (np.array([[1, "a"], [np.inf, "b"]], dtype=object), [0, 1], DataError, "infinite"),
        (pa.table({"a": [[1], [2], [3], [4]]}), [0, 1, 0, 1], DataError, "list"),
        (pa.table({"a": pa.array([], pa.float64())}), [], ValueError, "minimum of 1"),
    ],
)
def test_rows_that_cannot_be_learned(X, y, error, message) -> None:
    with pytest.raises(error, match=message):
        MLPClassifier(**FAST).fit(X, y)


def test_a_frame_with_values_of_several_types_in_a_column() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"a": [1, "x", 2.5, [3]]})
    words = r"X: column 'a' has 1 \(a number\) in row 1, but 'x' \(a text\) in row 2\. Make all its values numbers"
    with pytest.raises(DataError, match=words):
        MLPClassifier(**FAST).fit(frame, [0, 1, 0, 1])
    array = np.array([[1, None], [2, True], [3, "x"], [4, False]], dtype=object)
    with pytest.raises(
        DataError, match=r"X: column 1 has True \(a truth value\) in row 2, but 'x' \(a text\) in row 3"
    ):
        MLPClassifier(**FAST).fit(array, [0, 1, 0, 1])


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [False, True], [0.0, 3.0], [10, 20, 30]])
def test_labels_come_back_as_they_were(labels) -> None:
    X, _ = numbers()
    y = np.array(labels)[np.arange(len(X)) % len(labels)]
    fitted = MLPClassifier(**FAST).fit(X, y)
    assert fitted.classes_.tolist() == sorted(labels)
    assert fitted.predict(X).dtype == y.dtype
    assert set(fitted.predict(X)) <= set(labels)
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (len(X), len(labels))
    assert probabilities.sum(1) == pytest.approx(np.ones(len(X)))
    assert fitted.predict_log_proba(X) == pytest.approx(np.log(probabilities))


def test_a_single_class_is_always_predicted() -> None:
    X, _ = numbers()
    fitted = MLPClassifier(**FAST).fit(X, ["only"] * len(X))
    assert (fitted.predict_proba(X) == 1).all()
    assert (fitted.predict(X) == "only").all()


def test_several_targets() -> None:
    X, _ = numbers(100, gaps=False)
    Y = np.stack([X[:, 0], 1e6 + 1e5 * X[:, 3]], axis=1)
    fitted = MLPRegressor(hidden_layer_sizes=(32,), max_iter=150, random_state=0, dropout=0.0, alpha=0.0).fit(X, Y)
    assert fitted.predict(X).shape == Y.shape
    assert fitted.score(X, Y) > 0.95


def test_a_prediction_does_not_depend_on_other_rows() -> None:
    X, y = numbers()
    fitted = MLPClassifier(**FAST).fit(X, y)
    alone = np.concatenate([fitted.predict_proba(row[None]) for row in X])
    np.testing.assert_allclose(fitted.predict_proba(X), alone, rtol=1e-12)


def test_no_warnings() -> None:
    X, y = numbers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
        MLPClassifier(**{**FAST, "max_iter": 40}).fit(X, y).predict(X)


# ---- texts that are numbers ----------------------------------------------------------------------------------


def amounts(rows: int = 40) -> tuple[pa.Table, NDArray[np.bool_]]:
    values = np.arange(rows) * 731.5 + 400
    return pa.table({"sales": [f"{one:,.2f}" for one in values], "b": values % 3}), values > 15_000


def test_texts_that_are_numbers_are_read_as_numbers() -> None:
    table, y = amounts()
    as_numbers = table.set_column(0, "sales", pa.array(np.arange(40) * 731.5 + 400))
    expected = MLPClassifier(**FAST).fit(as_numbers, y).predict_proba(as_numbers)
    fitted = MLPClassifier(**FAST).fit(table, y)
    assert np.array_equal(fitted.predict_proba(table), expected)
    # "1,131" alone could be 1.131; the rows of the fit have said what the comma is.
    new = pa.table({"sales": ["1,131"], "b": [0.0]})
    known = pa.table({"sales": [1131.0], "b": [0.0]})
    assert np.array_equal(fitted.predict_proba(new), fitted.predict_proba(known))


def test_numbers_without_the_unit_of_the_fit_are_refused() -> None:
    values = np.arange(40) % 11
    shares = pa.table({"share": [f"{one} %" for one in values], "b": values * 0.5})
    y = values > 5
    fitted = MLPClassifier(**FAST, warm_start=True).fit(shares, y)
    assert len(fitted.predict(shares.slice(0, 3))) == 3
    bare = shares.set_column(0, "share", pa.array(values / 100))
    for call in (fitted.predict, lambda X: fitted.partial_fit(X, y), lambda X: fitted.fit(X, y)):
        with pytest.raises(DataError, match=r"'share' \(such as '0.0\d*'\) have no unit, .* have the unit '%'"):
            call(bare)


def test_further_rows_are_read_as_the_first_ones_are_written() -> None:
    """Alone, the later rows would be read otherwise, or be categories."""
    table, y = amounts()
    numbers = pa.array(np.arange(40) * 731.5 + 400)
    words = pa.array(["red", "blue"] * 20)
    first = table.append_column("word", words)
    later = pa.table({"sales": ["1,131", "9,178"], "b": [0.0, 1.0], "word": ["7", "12 apples"]})
    plain = pa.table({"sales": [1131.0, 9178.0], "b": [0.0, 1.0], "word": ["7", "12 apples"]})
    written, typed = MLPClassifier(**FAST), MLPClassifier(**FAST)
    written.partial_fit(first, y, classes=[False, True]).partial_fit(later, [True, False])
    typed.partial_fit(first.set_column(0, "sales", numbers), y, classes=[False, True]).partial_fit(plain, [True, False])
    assert np.array_equal(written.predict_proba(later), typed.predict_proba(plain))
    # The third rows too: what the first have said is kept.
    written.partial_fit(plain, [True, False])
    assert np.array_equal(written.predict_proba(later), written.predict_proba(plain))


def test_further_rows_have_the_dates_of_the_first_ones() -> None:
    frame, y = dated("%d/%m/%Y")
    fitted = MLPClassifier(**FAST).partial_fit(frame, y, classes=[0, 1])
    some = frame.iloc[:1]
    assert some["when"][0] == "05/01/2021"
    fitted.partial_fit(some, y[:1])
    assert fitted.module_.preprocessor.columns[0].format == "%d/%m/%Y"


def test_one_word_among_numbers_is_refused_unless_they_are_categories() -> None:
    table, y = amounts()
    texts = [*table["sales"].to_pylist()[:-1], "lots"]
    faulty = table.set_column(0, "sales", pa.array(texts))
    with pytest.raises(
        DataError, match=r"X, row 40: column 'sales' has numbers \(such as '400.00', .* but 'lots' here"
    ):
        MLPClassifier(**FAST).fit(faulty, y)
    categories = faulty.set_column(0, "sales", pa.array(texts).dictionary_encode())
    kinds = [one.kind for one in MLPClassifier(**FAST).fit(categories, y).module_.preprocessor.columns]
    assert kinds == ["categorical", "numeric"]


def dated(form: str, rows: int = 60) -> tuple[Any, NDArray[Any]]:
    pd = pytest.importorskip("pandas")
    when = pd.date_range("2021-01-05", periods=rows, freq="6D")
    return pd.DataFrame({"when": when.strftime(form), "x": np.arange(rows) % 7 / 3}), np.arange(rows) % 2


def test_texts_of_dates_are_learned_from_as_dates() -> None:
    pd = pytest.importorskip("pandas")
    frame, y = dated("%d/%m/%Y")
    fitted = MLPClassifier(**FAST).fit(frame, y)
    stamps = frame.assign(when=pd.to_datetime(frame["when"], format="%d/%m/%Y"))
    expected = MLPClassifier(**FAST).fit(stamps, y)
    assert fitted.module_.preprocessor.columns[0].format == "%d/%m/%Y"
    assert np.array_equal(fitted.predict_proba(frame), expected.predict_proba(stamps))
    # Alone, these rows could be read otherwise.
    first = frame.iloc[:1]
    assert first["when"][0] == "05/01/2021"
    assert np.allclose(fitted.predict_proba(first), expected.predict_proba(stamps.iloc[:1]))


def test_texts_of_dates_in_no_certain_form() -> None:
    frame, y = dated("%d/%m/%Y")
    frame["when"] = ["03/04/2021", "05/06/2021"] * 30
    with pytest.raises(DataError, match=r"X, row 1: column 'when' has '03/04/2021'.*pandas\.to_datetime"):
        MLPClassifier(**FAST).fit(frame, y)
    MLPClassifier(**FAST).fit(frame.astype({"when": "category"}), y)
