"""What the live part of a page needs: the network, the ranges of its columns, and some rows.

Shapes: ``B`` rows, ``F`` raw columns, ``T`` targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlp_lightning.errors import CheckpointError
from mlp_lightning.inference.explanation.dependence import label
from mlp_lightning.inference.explanation.rows import ExplainedRows
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.inference.report.network import NotLive, encoded_weights, live_network
from mlp_lightning.runs.checkpoints import SNAPSHOTS_KEY, read_checkpoint
from mlp_lightning.runs.run_folder import RunFolder
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN

#: Columns whose values a reader can still change one by one.
MOST_COLUMNS = 100
# Categories that a reader can choose from.
_MOST_CATEGORIES = 200
# Of the weights of all snapshots together, before they become text.
_MOST_BYTES = 300_000
# Numbers of all rows together.
_MOST_VALUES = 20_000


def live_part(
    model: TrainedModel, folder: Path, importance: Sequence[str], of_splits: Mapping[str, ExplainedRows | None]
) -> dict[str, Any]:
    """What the page computes and shows of the network.

    Args:
        model: to compute.
        folder: of its run, which may have snapshots.
        importance: names of the columns, the most important first; empty if that is not known.
        of_splits: rows of the training and validation rows.

    Raises:
        NotLive: the page cannot compute this network.
    """
    if len(model.columns) > MOST_COLUMNS:
        raise NotLive("not_live_columns", columns=len(model.columns), most=MOST_COLUMNS)
    spec = live_network(model)
    found = {split: rows for split, rows in of_splits.items() if rows is not None}
    values_BF = np.concatenate([one.raw_BF for one in found.values()]) if found else np.empty((0, len(model.columns)))
    columns = [_column(model, number, one, values_BF[:, number]) for number, one in enumerate(model.columns)]
    names = [one.name for one in model.columns]
    in_order = [names.index(one) for one in importance] or list(range(len(names)))
    classes = [list(one.class_names) for one in model.target.columns]
    snapshots = _snapshots(spec, model, folder)
    return {
        "spec": spec,
        **({"snapshots": snapshots} if snapshots is not None else {}),
        "columns": columns,
        "axes": sorted(in_order[:2]) if len(in_order) > 1 else [0, 0],
        "outputs": _outputs(model),
        "classes": classes[0] if len(classes) == 1 and classes[0] else [],
        "points": {split: _points(one) for split, one in found.items()},
    }


def _snapshots(spec: Mapping[str, Any], model: TrainedModel, folder: Path) -> dict[str, Any] | None:
    """Weights of the steps that the run kept, and behind them those of the model; ``None`` if it kept none, or
    two of them do not fit into the page. Of more than fit into the page, evenly many.
    """
    path = RunFolder(folder).last_checkpoint
    try:
        content = read_checkpoint(path) if path.is_file() else {}
    except CheckpointError:  # the best may be whole where the last is damaged
        return None
    kept, present = content.get(SNAPSHOTS_KEY), model.module.state_dict()
    if not kept or any(name not in kept["weights"] for name in (f"mlp.{one}" for one in spec["tensors"])):
        return None
    steps, weights = kept["steps"], {name: kept["weights"][f"mlp.{name}"] for name in spec["tensors"]}
    if any(one.shape != (len(steps), *present[f"mlp.{name}"].shape) for name, one in weights.items()):
        return None
    bytes_of_each = sum(one[0].numel() for one in weights.values()) * (8 if spec["double"] else 4)
    if (count := min(len(steps), _MOST_BYTES // bytes_of_each)) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(steps) - 1, count).round().astype(int)).tolist()
    texts = [encoded_weights(spec, {name: one[place] for name, one in weights.items()}) for place in chosen]
    return {"steps": [*(steps[place] for place in chosen), None], "weights": [*texts, spec["weights"]]}


def _outputs(model: TrainedModel) -> list[str]:
    target = model.target
    if target.task in ("binary", "multiclass"):
        return list(target.class_names)
    if target.task == "multilabel":
        return [f"{one.name} = {one.class_names[1]}" for one in target.columns]
    return list(target.names)


def _column(model: TrainedModel, number: int, column: Column, values_B: np.ndarray) -> dict[str, Any]:
    """Its name, how a reader sets it, the range of its axis, and a value to begin with."""
    plain: dict[str, Any] = {"name": column.name, "kind": column.kind, "missing": column.missing}
    preprocessor = model.preprocessors[0]
    if column.kind == "categorical":
        known = range(FIRST_CATEGORY, FIRST_CATEGORY + min(len(column.vocabulary), _MOST_CATEGORIES))
        plain["codes"] = [[code, label(column, code)] for code in (*known, UNKNOWN)]
        plain["codes"] += [[MISSING, None]] if column.missing else []
        counts = np.bincount(values_B.astype(np.int64), minlength=FIRST_CATEGORY + 1)
        most_frequent = int(counts[FIRST_CATEGORY:].argmax()) + FIRST_CATEGORY
        return {**plain, "start": most_frequent if most_frequent in known else FIRST_CATEGORY}
    place = preprocessor.plan()["numbers"].index(number)
    median = float(preprocessor.median_N[place])
    if column.kind == "boolean":
        return {**plain, "codes": [[0, "False"], [1, "True"]], "start": 0}
    present_B = values_B[~np.isnan(values_B)]
    low, high = (float(present_B.min()), float(present_B.max())) if len(present_B) else (median - 1, median + 1)
    margin = 0.1 * (high - low) or max(1.0, abs(high)) / 2
    return {**plain, "low": low - margin, "high": high + margin, "start": median}


def _points(rows: ExplainedRows) -> dict[str, Any]:
    most = max(1, _MOST_VALUES // max(1, rows.raw_BF.shape[1]))
    chosen = np.unique(np.linspace(0, len(rows.raw_BF) - 1, min(most, len(rows.raw_BF))).astype(int))
    return {
        "raw": rows.raw_BF[chosen].tolist(),
        "targets": rows.targets_BT[chosen].tolist(),
        "rows": (rows.numbers_B[chosen] + 1).tolist(),
        "of": rows.drawn_from,
    }
