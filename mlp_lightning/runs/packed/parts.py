"""Writes what members of a stack leave that have ended together: a part of a packed sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save as safetensors_bytes

from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.history import Series
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.packed.checkpoints import Taken, stacked, take_apart
from mlp_lightning.runs.packed.curves import Curves, KeptCurves
from mlp_lightning.runs.run_folder import refuse_taken

FORMAT = "mlp_lightning packed 1"
CHECKPOINTS = ("last", "best")
# Texts that are different in every row; all else is worth a dictionary.
_DIFFERENT = ("run", "result", "log", "last", "best")
_ROWS_TOGETHER = 512


class PackedRuns:
    """Keeps runs in the files of one stack.

    Args:
        members: of the training.
        files: their curves.
        folder: of the packed runs, in that of the sweep.
        stack: a name that no other stack has.
        metric_name: of the task.
    """

    takes_checkpoints_live = False

    def __init__(
        self, members: Sequence[Member], files: KeptCurves, folder: Path, stack: str, metric_name: str
    ) -> None:
        self._members = members
        self._files = files
        self._folder = folder
        self._stack = stack
        self._metric = metric_name
        self._checkpoints: dict[str, dict[int, Taken]] = {which: {} for which in CHECKPOINTS}
        self._logs: dict[int, str] = {}

    def claim(self, members: Sequence[Member]) -> None:
        for one in members:
            refuse_taken(one.folder)

    def put_checkpoint(self, number: int, which: str, content: Mapping[str, Any]) -> None:
        self._checkpoints[which][number] = take_apart(content)

    def has_best(self, number: int) -> bool:
        return number in self._checkpoints["best"]

    def put_log(self, number: int, text: str) -> None:
        self._logs[number] = text

    def put_results(self, contents: Mapping[int, dict[str, Any]]) -> None:
        numbers = list(contents)
        name = f"{next_number(self._folder):06d}-{self._stack}"
        places, shapes, tensors = self._stacked(numbers)
        with atomic_write(self._folder / f"{name}.safetensors") as file:
            file.write(safetensors_bytes(tensors, {"format": FORMAT}))
        facts = {"format": FORMAT, "metric": self._metric, "shapes": json.dumps(shapes)}
        with atomic_write(self._folder / f"{name}.parquet") as file:
            writer = None
            for start in range(0, len(numbers), _ROWS_TOGETHER):
                table = self._rows(numbers[start : start + _ROWS_TOGETHER], contents, places)
                if writer is None:
                    schema = table.schema.with_metadata(facts)
                    writer = parquet_writer(file, schema, [one for one in schema.names if one not in _DIFFERENT])
                writer.write_table(table)
            assert writer is not None
            writer.close()
        for one in (*self._checkpoints.values(), self._logs, self._files.kept):
            one.clear()

    def _stacked(self, numbers: Sequence[int]) -> tuple[dict[int, tuple[int, int]], list[Any], dict[str, Any]]:
        """For each member the number of its shape and its place among those; the names of shapes; all tensors."""
        of_shape: dict[tuple[Any, ...], list[int]] = {}
        for number in numbers:
            taken = [self._checkpoints[which].get(number) for which in CHECKPOINTS]
            of_shape.setdefault(tuple(one and one.shape for one in taken), []).append(number)
        places, shapes, tensors = {}, [], {}
        for index, members in enumerate(of_shape.values()):
            places.update({number: (index, place) for place, number in enumerate(members)})
            shapes.append({})
            for which in CHECKPOINTS:
                if members[0] in self._checkpoints[which]:
                    names, kept = stacked([self._checkpoints[which][number] for number in members])
                    shapes[-1][which] = names
                    tensors.update({f"{index}/{which}/{name}": one for name, one in kept.items()})
        return places, shapes, tensors

    def _rows(
        self, numbers: Sequence[int], contents: Mapping[int, dict[str, Any]], places: Mapping[int, tuple[int, int]]
    ) -> pa.Table:
        curves = [self._files.kept[number] for number in numbers]
        results = [contents[number] for number in numbers]
        root = self._folder.parent
        columns: dict[str, Any] = {
            "run": [self._members[number].folder.path.relative_to(root).as_posix() for number in numbers],
            "status": [one["status"] for one in results],
            "result": [json.dumps(one) for one in results],
            "log": [self._logs[number] for number in numbers],
            "shape": [places[number][0] for number in numbers],
            "place": [places[number][1] for number in numbers],
            **{
                which: pa.array([self._pickle(which, number) for number in numbers], pa.binary())
                for which in CHECKPOINTS
            },
            "steps": [one.steps for one in curves],
            "started": [one.started for one in curves],
            "ended": [one.ended for one in curves],
            "final": [json.dumps(one.final) for one in curves],
            "event_file": [one.event_file for one in curves],
            "graph": pa.array([one.graph for one in curves], pa.binary()),
            **_columns(curves, self._metric),
        }
        return pa.table(columns)

    def _pickle(self, which: str, number: int) -> bytes | None:
        taken = self._checkpoints[which].get(number)
        return None if taken is None else taken.pickle


def next_number(folder: Path) -> int:
    """A number that is larger than those of all parts so far."""
    return max((int(one.name.partition("-")[0]) for one in folder.glob("[0-9]*-*.parquet")), default=-1) + 1


def parquet_writer(file: Any, schema: pa.Schema, dictionaries: Sequence[str]) -> pq.ParquetWriter:
    """A writer of small files.

    Args:
        file: open for writing.
        schema: of the rows.
        dictionaries: columns in which values are repeated.
    """
    options: dict[str, Any] = {"use_dictionary": list(dictionaries), "write_statistics": False}
    return pq.ParquetWriter(file, schema, compression="zstd", **options)


def curve_columns(metric_name: str) -> dict[str, tuple[str, ...]]:
    """The columns of a part that hold the values of its series."""
    return {
        "training": ("loss/train", f"{metric_name}/train", "learning_rate"),
        "validation": ("loss/val", f"{metric_name}/val"),
    }


def _columns(curves: Sequence[Curves], metric_name: str) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {}
    for split, names in curve_columns(metric_name).items():
        series: list[Series] = [getattr(one, split) for one in curves]
        offsets = np.cumsum([0, *(len(one.steps) for one in series)], dtype=np.int32)
        values = np.concatenate([one.values[0] for one in series])
        columns[f"{split}_steps"] = _lists(offsets, np.concatenate([one.steps for one in series]))
        columns[f"{split}_times"] = _lists(offsets, np.concatenate([one.wall_times for one in series]))
        for index, name in enumerate(names):
            columns[name] = _lists(offsets, np.ascontiguousarray(values[:, index]))
    return columns


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
