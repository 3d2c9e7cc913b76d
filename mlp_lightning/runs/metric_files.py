"""What TensorBoard and ``metrics.csv`` show of a run: written while it trains, for one run or a thousand.

A thousand runs end at the same moment, so what costs a single run little (a thread per event file, 50 µs per logged
metric) is done for all of them together.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2 as _event_pb2
from torch import nn
from torch.utils.tensorboard.summary import histogram

from mlp_lightning.config import Config
from mlp_lightning.engines.trace import Histogram
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.own import OwnNetwork
from mlp_lightning.runs.console import log
from mlp_lightning.runs.event_bytes import event_record, file_header, scalar_records
from mlp_lightning.runs.files import names_file
from mlp_lightning.runs.history import MetricsHistory, Series
from mlp_lightning.runs.hyperparameters import label, session_end, session_start
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.model_graph import model_graph

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
event_pb2: Any = _event_pb2

LR = "learning_rate"
# What is logged can be seen after this long at most…
_SECONDS_BETWEEN_WRITES = 10
# …unless writing it takes more than this share of the time.
_SHARE_OF_TIME = 0.02
# Members are written in groups of this many, so that their events are never all in memory.
_WRITTEN_TOGETHER = 128


def metric_columns(metric_name: str) -> tuple[str, ...]:
    """The columns of ``metrics.csv`` after ``step``."""
    return (*(f"{name}/{split}" for split in ("train", "val", "test") for name in ("loss", metric_name)), LR)


class MetricFiles:
    """The event file and ``metrics.csv`` of every member.

    The x-axis is the number of optimizer steps made before a metric was measured, for all splits: the training loss at
    step s and a validation after s steps belong to the same weights. Training losses are those of single steps, as
    training saw them; the last one, after the last step, is that of all training rows.

    Args:
        members: of the training; they log alike.
        history: what was measured.
        metric_name: of the task.
        started: when the training started, in seconds since 1970.
        network: makes a copy of the network of a member, to draw its graph.
        keeps_history: whether what was written is still needed in memory.
        left_out: members of which nothing is written.
    """

    def __init__(
        self,
        members: Sequence[Member],
        history: MetricsHistory,
        metric_name: str,
        started: float,
        network: Callable[[int], nn.Module],
        keeps_history: bool,
        left_out: Collection[int] = (),
    ) -> None:
        self._members = members
        self._history = history
        self._metric = metric_name
        self._started = started
        self._network = network
        self._keeps_history = keeps_history
        self._left_out = left_out
        self._graphs: dict[tuple[Any, ...], bytes] = {}
        self._event_files: dict[int, Path] = {}
        self._written_rows = {"train": 0, "val": 0}
        self._histograms: list[bytes] = []
        self._due_at = time.monotonic() + _SECONDS_BETWEEN_WRITES
        self._finished: set[int] = set()
        self._with_lr = members[0].config.callbacks.lr_monitor
        #: All files written so far.
        self.paths: set[Path] = set()

    def begin(self, number: int, history: bytes | None = None) -> None:
        """Begin the event file of a member.

        Args:
            number: of the member.
            history: event records of the run that it continues, model graph included; ``None`` for a new run.
        """
        if self._members[number].config.logger.tensorboard:
            self._append(*self._event_file(number, history))

    def add_histograms(self, histograms: Sequence[Histogram]) -> None:
        """Take histograms of the only member, to be written next time."""
        if not histograms or not self._members[0].config.logger.tensorboard:
            return
        for one in histograms:
            for what, named in (("weights", one.weights), ("gradients", one.gradients)):
                for name, values in named.items():
                    summary = histogram(f"{what}/{name}", values.float().cpu().numpy(), _BINS)
                    event = event_pb2.Event(wall_time=time.time(), step=one.step, summary=summary)
                    self._histograms.append(event_record(event))

    def write_if_due(self, members: Sequence[int]) -> None:
        """Write what is new of these members, if the last time is long enough ago."""
        if time.monotonic() >= self._due_at:
            self.write(members)

    def write(self, members: Sequence[int]) -> None:
        """Write what is new of these members; all of them still train."""
        began = time.monotonic()
        members = [one for one in members if one not in self._left_out]
        for start in range(0, len(members), _WRITTEN_TOGETHER):
            part = members[start : start + _WRITTEN_TOGETHER]
            self._write_new(part, [False] * len(part))
        self._histograms.clear()
        if self._keeps_history:
            self._written_rows = {split: self._history.rows(split) for split in self._written_rows}
        else:
            self._history.forget()
        now = time.monotonic()
        self._due_at = now + max(_SECONDS_BETWEEN_WRITES, (now - began) / _SHARE_OF_TIME)

    def finish(
        self,
        members: Sequence[int],
        statuses: Sequence[str],
        final: Sequence[Mapping[str, float]],
        steps: Sequence[int],
    ) -> None:
        """Write the rest of members that have ended; nothing for those that had ended before.

        Args:
            members: their numbers.
            statuses: how each ended.
            final: what each adds to its curves at the end, by tag.
            steps: optimizer steps that each made.
        """
        for start in range(0, len(members), _WRITTEN_TOGETHER):
            part = slice(start, start + _WRITTEN_TOGETHER)
            if self._finished.issuperset(members[part]):
                continue
            # First: what fails while it writes is not to be written again.
            self._finished.update(members[part])
            self._write_new(members[part], [one == "failed" for one in statuses[part]])
            for number, status, values, made in zip(
                members[part], statuses[part], final[part], steps[part], strict=True
            ):
                self._write_end(number, status, values, made)

    def _write_new(self, members: Sequence[int], failed: Sequence[bool]) -> None:
        training = self._history.series("train", members, self._written_rows["train"])
        validation = self._history.series("val", members, self._written_rows["val"])
        logger = self._members[members[0]].config.logger
        scalars = [b""] * len(members)
        if logger.tensorboard:
            scalars = self._scalars(training, validation, failed)
        for index, (number, records) in enumerate(zip(members, scalars, strict=True)):
            if logger.tensorboard:
                path, head = self._event_file(number)
                self._append(path, head + records + b"".join(self._histograms))
            if logger.csv:
                own = training.of(index, failed[index]), validation.of(index, failed[index])
                self._append_csv(number, csv_lines(*own, self._with_lr))

    def _write_end(self, number: int, status: str, final: Mapping[str, float], steps: int) -> None:
        config = self._members[number].config
        if config.logger.tensorboard:
            path, head = self._event_file(number)
            self._append(path, head + events_at_end(status, final, steps, time.time()))
        if config.logger.csv:
            self._append_csv(number, csv_at_end(self._metric, final, steps))

    def _scalars(self, training: Series, validation: Series, failed: Sequence[bool]) -> list[bytes]:
        if not any(failed):
            return scalars(training, validation, self._metric, self._with_lr)
        # A failed run has metrics up to its failure only.
        both = ((training.of(*one), validation.of(*one)) for one in enumerate(failed))
        return [scalars(*one, self._metric, self._with_lr)[0] for one in both]

    def _append_csv(self, number: int, lines: Sequence[str]) -> None:
        path = self._members[number].folder.metrics
        head = [] if path.exists() else [csv_head(self._metric)]
        self._append(path, "".join([*head, *lines]).encode())

    def _append(self, path: Path, content: bytes) -> None:
        if content:
            with names_file(path), path.open("ab") as file:
                file.write(content)
            self.paths.add(path)

    def _event_file(self, number: int, history: bytes | None = None) -> tuple[Path, bytes]:
        """The event file of a member, and what it begins with if it is not yet there."""
        if number in self._event_files:
            return self._event_files[number], b""
        config, folder = self._members[number].config, self._members[number].folder
        path = self._event_files[number] = folder.path / event_file_name(config, self._started)
        path.parent.mkdir(exist_ok=True)
        if history is None and config.logger.graph:
            history = self._graph(number, config)
        return path, events_at_start(config, self._started) + (history or b"")

    def _graph(self, number: int, config: Config) -> bytes:
        """The record of the model graph; members of one shape have the same."""
        key = (tuple(config.model.layer_widths), config.model.dropout)
        if key not in self._graphs:
            mlp = self._network(number)
            assert isinstance(mlp, (MLP, OwnNetwork))
            try:
                self._graphs[key] = _graph_record(mlp, self._started)
            except Exception as error:
                if isinstance(mlp, MLP):
                    raise
                log.warning("There is no model graph in TensorBoard: the network cannot be followed (%s)", error)
                self._graphs[key] = b""
        return self._graphs[key]


def event_file_name(config: Config, started: float) -> str:
    """A name in the run folder that no other event file of this machine has."""
    # TensorBoard's own writer gives such a name, and it calls a run by its path.
    name = f"events.out.tfevents.{int(started):010d}.{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}"
    return f"{folder}/{name}" if (folder := label(config)) else name


def events_at_start(config: Config, started: float) -> bytes:
    """What the event file of a run begins with."""
    start = event_pb2.Event(wall_time=started, summary=session_start(config, started))
    return file_header(started) + event_record(start)


def scalars(training: Series, validation: Series, metric_name: str, with_lr: bool) -> list[bytes]:
    """The events of the curves of each run."""
    names = ["loss/train", f"{metric_name}/train", *([LR] if with_lr else [])]
    both = _records(training, names), _records(validation, ["loss/val", f"{metric_name}/val"])
    return [one + other for one, other in zip(*both, strict=True)]


def events_at_end(status: str, final: Mapping[str, float], steps: int, now: float) -> bytes:
    """What a run adds to its events when it ends, after so many steps."""
    parts = []
    if final:
        values = np.array([[list(final.values())]], dtype=np.float32)
        parts = scalar_records(np.array([steps]), np.array([now]), list(final), values)
    return b"".join([*parts, event_record(event_pb2.Event(wall_time=now, summary=session_end(status, now)))])


def csv_head(metric_name: str) -> str:
    """The first line of ``metrics.csv``."""
    return ",".join(["step", *metric_columns(metric_name)]) + "\n"


def csv_at_end(metric_name: str, final: Mapping[str, float], steps: int) -> list[str]:
    """What a run adds to ``metrics.csv`` when it ends."""
    cells = ("" if (value := final.get(name)) is None else repr(value) for name in metric_columns(metric_name))
    return [",".join([str(steps), *cells]) + "\n"] if final else []


# The edges of TensorBoard's histograms: powers of 1.1 on both sides of 0.
_EDGES = [1e-12 * 1.1**power for power in range(774)]
_BINS = [*(-one for one in reversed(_EDGES)), 0.0, *_EDGES]
# So that two event files of one process never share a name.
_file_numbers = itertools.count(1)


def _graph_record(network: MLP | OwnNetwork, wall_time: float) -> bytes:
    """The record of the graph."""
    with torch.random.fork_rng(devices=[]):
        graph = model_graph(network.float(), torch.zeros(1, network.in_features), "mlp")
    return event_record(event_pb2.Event(wall_time=wall_time, graph_def=graph))


def _records(series: Series, tags: Sequence[str]) -> list[bytes]:
    values: NDArray[np.float32] = series.values[..., : len(tags)].astype(np.float32)
    if not len(series.steps):
        return [b""] * len(values)
    return scalar_records(series.steps, series.wall_times, tags, values)


def csv_lines(training: Series, validation: Series, with_lr: bool) -> list[str]:
    """Lines of ``metrics.csv`` by step, a validation before the step that comes after it."""
    rows = [
        (step, 1, f"{step},{loss!r},{metric!r},,,,,{rate!r}\n" if with_lr else f"{step},{loss!r},{metric!r},,,,,\n")
        for step, (loss, metric, rate) in zip(training.steps.tolist(), training.values[0].tolist(), strict=True)
    ]
    if len(validation.steps):
        rows += [
            (step, 0, f"{step},,,{loss!r},{metric!r},,,\n")
            for step, (loss, metric) in zip(validation.steps.tolist(), validation.values[0].tolist(), strict=True)
        ]
        rows.sort(key=lambda row: row[:2])
    return [text for _, _, text in rows]
