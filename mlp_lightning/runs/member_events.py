"""The TensorBoard event files of the members of a stack, as bytes."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2 as _event_pb2

from mlp_lightning.config import Config
from mlp_lightning.networks.mlp import MLP, Standardizer
from mlp_lightning.runs.event_bytes import event_record, file_header, scalar_records
from mlp_lightning.runs.loggers import LR, RunTensorBoard, graph_model, session_end, session_start
from mlp_lightning.runs.stack_history import Series

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
event_pb2: Any = _event_pb2


class MemberEvents:
    """Makes event files; what many members have in common is made once.

    Args:
        metric_name: of the task.
    """

    def __init__(self, metric_name: str) -> None:
        self._metric = metric_name
        self._graphs: dict[tuple[Any, ...], bytes] = {}
        self._files = 0

    def scalars(self, training: Series, validation: Series, with_lr: bool) -> list[bytes]:
        """The records of all logged steps, for each member of the series."""
        names = ["loss/train", f"{self._metric}/train", *([LR] if with_lr else [])]
        train = _records(training, names)
        val = _records(validation, ["loss/val", f"{self._metric}/val"])
        return [one + other for one, other in zip(train, val, strict=True)]

    def file(
        self,
        config: Config,
        make_mlp: Callable[[], MLP],
        started: float,
        scalars: bytes,
        final: Mapping[str, float],
        steps: int,
        status: str,
    ) -> bytes:
        """The content of one event file.

        Args:
            config: of the run.
            make_mlp: makes the model, to draw its graph.
            started: when the run started, in seconds since 1970.
            scalars: records of its logged steps.
            final: figures measured at the end, by tag.
            steps: optimizer steps made.
            status: how it ended.
        """
        parts = [file_header(started), event_record(event_pb2.Event(wall_time=started, summary=session_start(config)))]
        if config.logger.graph:
            parts.append(self._graph(config, make_mlp))
        parts.append(scalars)
        now = time.time()
        if final:
            values = np.array([[list(final.values())]], dtype=np.float32)
            parts += scalar_records(np.array([steps]), np.array([now]), list(final), values)
        parts.append(event_record(event_pb2.Event(wall_time=now, summary=session_end(status))))
        return b"".join(parts)

    def file_name(self, started: float) -> str:
        """A name as TensorBoard's own writer gives it, which no other file has."""
        self._files += 1
        return f"events.out.tfevents.{int(started):010d}.{socket.gethostname()}.{os.getpid()}.{self._files}"

    def _graph(self, config: Config, make_mlp: Callable[[], MLP]) -> bytes:
        """The records of the model graph; members of one shape have the same."""
        model = config.model
        key = (tuple(model.layer_widths), model.dropout)
        if key not in self._graphs:
            self._graphs[key] = _traced(make_mlp(), not config.data.is_table)
        return self._graphs[key]


def _records(series: Series, tags: Sequence[str]) -> list[bytes]:
    values: NDArray[np.float32] = series.values[..., : len(tags)].astype(np.float32)
    if not len(series.steps):
        return [b""] * len(values)
    return scalar_records(series.steps, series.wall_times, tags, values)


def _traced(mlp: MLP, standardizes: bool) -> bytes:
    """The graph's records, as the writer of a single run makes them, without the header of its file."""
    model = graph_model(Standardizer(mlp.in_features) if standardizes else None, mlp)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        logger = RunTensorBoard(Path(folder))
        logger.write_graph(model.eval(), torch.zeros(1, mlp.in_features))
        logger.experiment.close()
        (file,) = Path(folder).glob("events.out.tfevents.*")
        content = file.read_bytes()
    # length (8 bytes), its checksum (4), payload, its checksum (4)
    return content[16 + int.from_bytes(content[:8], "little") :]
