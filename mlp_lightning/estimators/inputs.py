"""From the arguments of scikit-learn's methods to the table that a run is trained on.

Shapes: ``B`` rows, ``F`` columns, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import _check_sample_weight, check_array, check_consistent_length, validate_data

from mlp_lightning.errors import DataError
from mlp_lightning.estimators.settings import RowsOfFit
from mlp_lightning.estimators.texts import kinds_of_texts, texts_of_moments
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.tables.batches import encoded_batches
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.reading.frames import arrow_table, is_frame, refuse_mixed, unreadable, without_intervals
from mlp_lightning.tables.reading.memory import MemorySource
from mlp_lightning.tables.reading.numbers import NumberForm
from mlp_lightning.tables.reading.types import converted, is_row_label
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.written_numbers import number_forms

# Its functions are created at import, where a type checker does not see them.
pc: Any = pyarrow.compute


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Rows to fit an estimator to.

    Attributes:
        table: columns that the model sees, targets and weights.
        kinds: kind of each column that the model sees.
        target: what is predicted.
        weights: name of the column of weights; ``None`` without one.
        attributes: attributes that scikit-learn expects of the fitted estimator.
    """

    table: pa.Table
    kinds: dict[str, str]
    target: Target
    weights: str | None
    attributes: dict[str, Any]

    @property
    def rows_of_fit(self) -> RowsOfFit:
        return RowsOfFit(self.target.task, self.kinds, list(self.target.names), self.weights, self.table.num_rows)


@dataclasses.dataclass(frozen=True)
class Features:
    """The columns of ``X``: a matrix ``(B, F)`` if all are numbers, else a table."""

    matrix_BF: NDArray[np.float64] | None
    table: pa.Table | None

    @property
    def names(self) -> list[str]:
        """Default names, for columns without names."""
        count = self.matrix_BF.shape[1] if self.matrix_BF is not None else self._table.num_columns
        return [f"x{number}" for number in range(count)]

    @property
    def array(self) -> NDArray[Any]:
        """An array of the shape of ``X``, for checks of its shape."""
        if self.matrix_BF is not None:
            return self.matrix_BF
        return np.empty((self._table.num_rows, self._table.num_columns), dtype=np.bool_)

    @property
    def _table(self) -> pa.Table:
        assert self.table is not None
        return self.table

    def columns(self, names: Sequence[str]) -> tuple[pa.Table, dict[str, str]]:
        """All columns under these names, and the kind of each."""
        if self.matrix_BF is None:
            table = self._table.rename_columns(list(names))
            return table, {field.name: _kind(field.type) for field in table.schema}
        columns = [pa.array(values_B, from_pandas=True) for values_B in self.matrix_BF.T]
        return pa.table(columns, names=list(names)), dict.fromkeys(names, "numeric")


def read_features(estimator: BaseEstimator, X: Any, y: Any = "no_validation", reset: bool = False) -> Features:
    """Check ``X`` as scikit-learn does, and return its columns.

    Args:
        estimator: its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
        X: array (also sparse), list of lists or data frame.
        y: only checked for presence.
        reset: whether to set them.

    Raises:
        ValueError: as scikit-learn's own estimators.
        DataError: a data frame has columns that cannot be read.
    """
    checked: dict[str, Any] = {"reset": reset, "skip_check_array": True}
    if not is_frame(X):
        features = _of_array(estimator, X, reset)
        _check_names(estimator, features.array, y, checked)
        return features
    # Names of a pandas frame need not be texts, nor differ.
    table = _in_seconds(arrow_table(X.set_axis(_texts_of_names(X), axis=1) if hasattr(X, "iloc") else X, "X"))
    # Not every scikit-learn sees the names of every library's frames; all of them see those of pandas and Arrow.
    _check_names(estimator, X if hasattr(X, "iloc") else table, y, checked)
    if not table.num_rows or not table.num_columns:
        raise ValueError(
            f"Found array with {table.num_rows} sample(s) and {table.num_columns} feature(s) (shape={table.shape})"
            " while a minimum of 1 is required."
        )
    if all(_kind(field.type) == "numeric" for field in table.schema):
        matrix_BF = np.stack([_float64(column) for column in table.columns], axis=1)
        assert_all_finite(matrix_BF, allow_nan=True, input_name="X")
        return Features(matrix_BF, None)
    return Features(None, _without_nan(table))


def _in_seconds(table: pa.Table) -> pa.Table:
    """The table with numbers for durations."""
    for number, field in enumerate(table.schema):
        if pa.types.is_duration(field.type):
            table = table.set_column(number, field.name, converted(table.column(number), pa.float64()))
    return table


def read_rows(
    estimator: BaseEstimator,
    features: Features,
    targets_BT: NDArray[Any],
    target: Target,
    weights_B: NDArray[np.float64] | None,
    known: Sequence[Column] = (),
) -> Inputs:
    """The table of a fit; rows of weight 0 are left out of it.

    Args:
        estimator: has the names of the features.
        features: of the rows.
        targets_BT: as ``target`` has them.
        target: what is predicted; its names are replaced.
        weights_B: of the rows; ``None``: all count the same.
        known: what the columns are by an earlier fit, which these rows continue.

    Raises:
        ValueError: all weights are 0.
    """
    names = _column_names(estimator, features)
    table, kinds = features.columns(names)
    if known:  # some rows more do not say anew what the columns are
        kinds |= {one.name: one.kind for one in known}
    else:
        kinds |= kinds_of_texts(table)
        kinds |= dict.fromkeys(texts_of_moments(table), "datetime")
    of_targets = [
        _free(f"target {number}" if targets_BT.shape[1] > 1 else "target", names)
        for number in range(targets_BT.shape[1])
    ]
    for number, name in enumerate(of_targets):
        table = table.append_column(name, pa.array(targets_BT[:, number]))
    weights = None
    if weights_B is not None:
        weights = _free("weight", names)
        table = table.append_column(weights, pa.array(weights_B))
        counts = weights_B > 0
        if not counts.any():
            raise ValueError("sample_weight is 0 for every row: there is nothing to learn from.")
        if not counts.all():
            table = table.filter(pa.array(counts))
    attributes = {name: getattr(estimator, name) for name in _ATTRIBUTES if hasattr(estimator, name)}
    named = zip(target.columns, of_targets, strict=True)
    target = Target(target.task, tuple(dataclasses.replace(one, name=name) for one, name in named))
    return Inputs(table, kinds, target, weights, attributes)


_ATTRIBUTES = ("n_features_in_", "feature_names_in_", "classes_", "_single_output")


def read_targets(features: Features, y: Any, numeric: bool) -> NDArray[Any]:
    """``y`` as an array ``(B,)`` or ``(B, T)``, without missing or infinite values."""
    y = y.toarray() if scipy.sparse.issparse(y) else y
    if isinstance(y, (pa.Array, pa.ChunkedArray)):
        y = y.to_numpy(zero_copy_only=False) if isinstance(y, pa.Array) else y.to_numpy()
    dtype: Any = np.float64 if numeric else None
    y = check_array(y, ensure_2d=False, dtype=dtype, input_name="y")
    check_consistent_length(features.matrix_BF if features.matrix_BF is not None else features.table, y)
    return y


def read_weights(features: Features, sample_weight: Any) -> NDArray[np.float64] | None:
    """Weights of rows ``(B,)``.

    Raises:
        ValueError: one is negative or not a number, or their number differs from that of the rows.
    """
    if sample_weight is None:
        return None
    rows = features.matrix_BF if features.matrix_BF is not None else features.table
    weights_B = _check_sample_weight(sample_weight, rows, dtype=np.float64)
    if (weights_B < 0).any():
        raise ValueError(f"sample_weight has the negative value {weights_B.min()}; a weight is a number of at least 0.")
    return weights_B


def raw_rows(
    features: Features, columns: Sequence[Column], forms: Mapping[str, NumberForm] | None = None
) -> NDArray[np.float64]:
    """The rows as a model of these columns takes them, ``(B, F)``.

    Args:
        features: of the rows.
        columns: what the model sees.
        forms: how the numbers of its training rows are written, where not as programs write them.
    """
    have_units = any(one.unit for one in (forms or {}).values())
    if features.matrix_BF is not None and all(one.kind == "numeric" for one in columns) and not have_units:
        return features.matrix_BF
    table, _ = features.columns([one.name for one in columns])
    source = MemorySource(table, "X")
    return np.concatenate(
        [batch.raw_BF for batch in encoded_batches(source, columns, None, Surprises(), trained=forms)]
    )


def _fitted_columns(estimator: BaseEstimator) -> Sequence[Column]:
    return estimator.module_.preprocessor.columns  # type: ignore[attr-defined]  # it is fitted


def _check_names(estimator: BaseEstimator, X: Any, y: Any, checked: dict[str, Any]) -> None:
    """Set or compare the number and the names of the columns."""
    validate_data(estimator, X, y, **checked)


def _kind(given: pa.DataType) -> str:
    kinds = pa.types
    if kinds.is_integer(given) or kinds.is_floating(given) or kinds.is_decimal(given):
        return "numeric"
    if kinds.is_boolean(given):
        return "boolean"
    if kinds.is_date(given) or kinds.is_timestamp(given):
        return "datetime"
    return "categorical"


def _float64(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return values.cast(pa.float64(), safe=False).to_numpy()


def _without_nan(table: pa.Table) -> pa.Table:
    """The table with NaN as missing values."""
    for number, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            values = table.column(number).cast(pa.float64())
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
            table = table.set_column(number, field.name, values)
    return table


def _of_array(estimator: BaseEstimator, X: Any, reset: bool) -> Features:
    """The columns of an array: numbers where all are, else each as its values are."""
    named: dict[str, Any] = {"estimator": estimator, "input_name": "X"}
    numeric: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
    if scipy.sparse.issparse(X):
        X = check_array(X, **{**named, **numeric, "accept_sparse": ["csr", "csc", "coo"]})
        return Features(_dense(X), None)
    if reset or all(one.kind == "numeric" for one in _fitted_columns(estimator)):
        try:
            return Features(check_array(X, **named, **numeric), None)
        except (ValueError, TypeError):
            if np.asarray(X).dtype.kind not in "OU":
                raise
            features = Features(None, _table_of_values(_as_it_is(X, named)))
            fitted: Any = None if reset else estimator
            has_forms = not reset and bool(number_forms(fitted.module_.hparams["preprocessing"]))
            all_numbers = all(_kind(field.type) == "numeric" for field in features._table.schema)
            if all_numbers or not (reset or has_forms):
                raise  # what is wrong is not that there are texts
            return features
    return Features(None, _table_of_values(_as_it_is(X, named)))


def _as_it_is(X: Any, named: dict[str, Any]) -> NDArray[Any]:
    kept: Any = None if np.asarray(X).dtype.kind == "U" else object
    return check_array(X, dtype=kept, ensure_all_finite=False, **named)


def _dense(X: Any) -> NDArray[np.float64]:
    """A sparse matrix with its zeros.

    Raises:
        ValueError: it would not fit into memory.
    """
    rows, columns = X.shape
    # In double precision here, once more as a table, and prepared in single precision.
    needed, available = 20 * rows * columns, available_memory()
    if needed > available:
        raise ValueError(
            f"X is a sparse matrix of {rows:,} x {columns:,} numbers, which is trained on with its zeros: that takes"
            f" about {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free. Make fewer columns of it, for"
            " example with TfidfVectorizer(max_features=1000) or TruncatedSVD(100) in the pipeline."
        )
    return np.asarray(X.toarray(), dtype=np.float64)


def _table_of_values(X: NDArray[Any]) -> pa.Table:
    """Columns of Python objects or of texts; texts of an array of texts are numbers where all of a column are."""
    columns = []
    for number, values_B in enumerate(X.T):
        if X.dtype.kind == "U":
            columns.append(_numbers_or_texts(values_B))
            continue
        try:
            columns.append(pa.array(without_intervals(values_B), from_pandas=True))
            if pa.types.is_temporal(columns[-1].type):
                refuse_mixed("X", f"column {number}", values_B)
        except DataError:
            raise
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            _refuse_objects(values_B, number)
            raise unreadable("X", [(f"column {number}", values_B)]) from error
    return _in_seconds(pa.table(columns, [f"x{number}" for number in range(X.shape[1])]))


def _numbers_or_texts(values_B: NDArray[np.str_]) -> pa.Array:
    # numpy makes texts of the numbers beside them.
    try:
        return pa.array(values_B.astype(np.float64), from_pandas=True)
    except ValueError:
        return pa.array(values_B)


def _refuse_objects(values_B: NDArray[Any], column: int) -> None:
    for row, value in enumerate(values_B):
        if isinstance(value, (dict, list, tuple, set, np.ndarray)):
            raise TypeError(
                f"X, row {row + 1}: column 'x{column}' has a {type(value).__name__}; this argument must be a string, a"
                " number, a truth value or a date."
            )


def _texts_of_names(X: Any) -> list[str]:
    """The names of the columns of a pandas frame as texts, or numbers where they are not unique."""
    names = [str(one) for one in X.columns]
    return names if len(set(names)) == len(names) else [f"x{number}" for number in range(X.shape[1])]


def _column_names(estimator: BaseEstimator, features: Features) -> list[str]:
    """The user's names, if a table can have them."""
    names = [str(one) for one in getattr(estimator, "feature_names_in_", ())]
    fit = bool(names) and len(set(names)) == len(names) and all(one.strip() and not is_row_label(one) for one in names)
    return names if fit else features.names


def _free(name: str, taken: Sequence[str]) -> str:
    """``name``, or one like it that is not taken."""
    while name in taken:
        name += "_"
    return name
