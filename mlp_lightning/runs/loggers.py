"""The loggers of a run: TensorBoard event files and ``metrics.csv``, both directly in the run folder."""

from __future__ import annotations

import csv
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto import summary_pb2 as _summary_pb2
from tensorboard.plugins.hparams import api_pb2 as _api_pb2
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams import plugin_data_pb2 as _plugin_data_pb2
from torch import nn

from mlp_lightning.config import Config
from mlp_lightning.runs.run_folder import RunFolder

# protobuf makes the classes in these modules when they are imported, so type checkers do not see them.
summary_pb2: Any = _summary_pb2
api_pb2: Any = _api_pb2
plugin_data_pb2: Any = _plugin_data_pb2

LR = "learning_rate"
# What is logged can be seen, in TensorBoard and in metrics.csv, after this long at most.
_SECONDS_BETWEEN_WRITES = 10

# Keys of the configuration that say how a run is kept or shown, not what it is.
_NOT_HYPERPARAMETERS = (
    "name",
    "verbosity",
    "ckpt_path",
    "sweep",
    "logger",
    "callbacks.checkpoint",
    "data.suggested_lr",
    "trainer.print_every_n_steps",
)


class MetricsCSV(Logger):
    """Appends a row for each call of ``log_metrics`` to ``metrics.csv``; cells without a value stay empty.

    The columns are fixed when the file is begun, so a row is never written twice and a run that is killed
    leaves a file that is complete up to its last flush.

    Args:
        path: the file; rows that it already has are kept.
        columns: metric names, in order; ``step`` comes before them.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        super().__init__()
        self._path = path
        self._columns = columns
        self._rows: list[list[str]] = []
        self._saved_at = time.monotonic()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run folder has them in ``config.yaml``."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._rows.append(
            [str(step), *("" if (v := metrics.get(c)) is None else repr(float(v)) for c in self._columns)]
        )
        if time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_WRITES:
            self.save()

    def save(self) -> None:
        self._saved_at = time.monotonic()
        if self._rows:
            head = [] if self._path.exists() else [["step", *self._columns]]
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(head + self._rows)
            self._rows = []

    def finalize(self, status: str) -> None:
        self.save()


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard event files in the run folder, with a truthful entry in the HParams tab.

    Lightning's own logger writes a placeholder metric and the end status SUCCESS when a run starts. Here the
    start of the session is written at the start (:meth:`open_session`) and its end, with its real status, at
    the end (:meth:`close_session`). No experiment record is written: TensorBoard takes the columns of its
    table from one such record, while without any it gathers them from all runs.
    """

    def __init__(self, folder: Path) -> None:
        # A queue that is never full: the training loop shall not wait for the thread that writes.
        super().__init__(
            save_dir=folder,
            name="",
            version="",
            default_hp_metric=False,
            max_queue=10_000,
            flush_secs=_SECONDS_BETWEEN_WRITES,
        )

    def open_session(self, config: Config) -> None:
        """Write the hyperparameters and the start time."""
        self._write(session_start(config))

    def close_session(self, status: str) -> None:
        """Write the end time and the status, and close the event file.

        Args:
            status: of ``result.json``; a run that is ``finished`` is a success, any other is not.
        """
        self._write(session_end(status))
        self.experiment.close()

    def add_event(self, event: Any) -> None:
        """Write an event of another file, as it is.

        It goes into the same file as all others: of several files TensorBoard decides by their names, in
        which 10 comes before 9, which one it reads first.
        """
        self.experiment._get_file_writer().event_writer.add_event(event)

    def write_graph(self, model: nn.Module, features_BF: torch.Tensor) -> None:
        """Write the model graph, traced with ``features_BF``."""
        with warnings.catch_warnings():
            # torch traces with a part of itself that it has deprecated; there is no other way to a graph yet.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)  # so on Python 3.14
            self.experiment.add_graph(model, features_BF)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: see :meth:`open_session`."""

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: see :meth:`write_graph`."""

    def save(self) -> None:
        """Bring what was logged to the disk."""
        if self._experiment is not None:
            self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Lightning calls this after fit and after test; the session ends in :meth:`close_session`."""
        self.save()

    def _write(self, summary: Any) -> None:
        self.experiment._get_file_writer().add_summary(summary)
        self.experiment.flush()


def graph_model(preprocessor: nn.Module | None, mlp: nn.Module) -> nn.Sequential:
    """What the graph in TensorBoard shows of a model."""
    model = nn.Sequential()
    if preprocessor is not None:
        model.add_module("preprocessor", preprocessor)
    model.add_module("mlp", mlp)
    return model


def session_start(config: Config) -> Any:
    """The summary that tells the HParams tab of a run: its hyperparameters and that it starts now."""
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in hyperparameters(config).items():
        kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[name], kind, value)
    return _session(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def session_end(status: str) -> Any:
    """The summary that tells the HParams tab that a run ends now, and how.

    Args:
        status: of ``result.json``; a run that is ``finished`` is a success, any other is not.
    """
    outcome = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=outcome, end_time_secs=time.time())
    return _session(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _session(tag: str, **record: Any) -> Any:
    content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**record))
    value = summary_pb2.Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)
    return summary_pb2.Summary(value=[value])


def metric_columns(metric_name: str) -> tuple[str, ...]:
    """The columns of ``metrics.csv`` after ``step``."""
    return (*(f"{name}/{split}" for split in ("train", "val", "test") for name in ("loss", metric_name)), LR)


def make_loggers(folder: RunFolder, config: Config, metric_name: str) -> list[Logger]:
    """The loggers that the configuration asks for."""
    loggers: list[Logger] = []
    if config.logger.tensorboard:
        loggers.append(RunTensorBoard(folder.path))
    if config.logger.csv:
        loggers.append(MetricsCSV(folder.metrics, metric_columns(metric_name)))
    return loggers


def hyperparameters(config: Config) -> dict[str, float | str | bool]:
    """The configuration as flat values for TensorBoard's HParams tab, e.g. ``model.hidden_units``."""
    flat: dict[str, float | str | bool] = {}

    def flatten(prefix: str, value: Any) -> None:
        if prefix in _NOT_HYPERPARAMETERS:
            return
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value if isinstance(value, (bool, int, float, str)) else str(value)

    flatten("", config.to_dict())
    return flat
