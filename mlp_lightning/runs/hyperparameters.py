"""The entry of a run in TensorBoard's HParams tab.

No experiment record is written: TensorBoard takes the columns of its table from one such record, while without any it
gathers them from all runs.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from tensorboard.compat.proto import summary_pb2 as _summary_pb2
from tensorboard.plugins.hparams import api_pb2 as _api_pb2
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams import plugin_data_pb2 as _plugin_data_pb2

from mlp_lightning.config import Config
from mlp_lightning.config.shared import SECTIONS, Remembered

# protobuf makes the classes in these modules when they are imported, so type checkers do not see them.
summary_pb2: Any = _summary_pb2
api_pb2: Any = _api_pb2
plugin_data_pb2: Any = _plugin_data_pb2

# File systems allow 255 bytes.
_LONGEST_LABEL = 100
# Keys of the configuration that say how a run is kept or shown, not what it is.
_NOT_HYPERPARAMETERS = (
    "name",
    "verbosity",
    "ckpt_path",
    "sweep",
    "search",
    "logger",
    "callbacks.checkpoint",
    "data.suggested_lr",
    "trainer.print_every_n_steps",
)


def session_start(config: Config, started: float) -> Any:
    """The summary that tells the HParams tab of a run: its hyperparameters and when it started (seconds since 1970)."""
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=started)
    for name, value in hyperparameters(config).items():
        kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[name], kind, value)
    return _session(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def session_end(status: str, now: float) -> Any:
    """The summary that tells the HParams tab that a run ends now, and how.

    Args:
        status: of ``result.json``; a run that is ``finished`` is a success, any other is not.
        now: in seconds since 1970.
    """
    outcome = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=outcome, end_time_secs=now)
    return _session(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _session(tag: str, **record: Any) -> Any:
    content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**record))
    value = summary_pb2.Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)
    return summary_pb2.Summary(value=[value])


def label(config: Config) -> str:
    """What a run of a sweep is called in TensorBoard, such as ``hidden_units=100 lr=0.5``; empty for another run."""
    values = _flat(config)
    keys = sorted((key for key in config.sweep.keys if key in values), key=lambda key: key == "seed")  # it comes last
    short = [key.rpartition(".")[2] for key in keys]
    names = [key if short.count(last) > 1 else last for key, last in zip(keys, short, strict=True)]
    text = " ".join(f"{name}={values[key]}" for name, key in zip(names, keys, strict=True))
    return re.sub(r"[^\w.,=+\-\[\] ]", "_", text)[:_LONGEST_LABEL].rstrip(" .")


def hyperparameters(config: Config) -> dict[str, float | str | bool]:
    """What TensorBoard's HParams tab lists of a run: all options, in a sweep those in which its runs differ."""
    values, keys = _flat(config), config.sweep.keys
    return {key: value for key, value in values.items() if key in keys} if keys else values


def _flat(config: Config) -> dict[str, float | str | bool]:
    """The configuration as flat values, e.g. ``model.hidden_units``."""
    flat: dict[str, float | str | bool] = {}
    for name, value in config.sections().items():
        if name not in _NOT_HYPERPARAMETERS:
            flat.update(_flat_section[name](value) if name in _flat_section else _flattened(name, value))
    return flat


def _flattened(prefix: str, value: Any) -> dict[str, float | str | bool]:
    if prefix in _NOT_HYPERPARAMETERS:
        return {}
    if not isinstance(value, dict):
        return {prefix: value if isinstance(value, (bool, int, float, str)) else str(value)}
    return {key: one for name, inner in value.items() for key, one in _flattened(f"{prefix}.{name}", inner).items()}


_flat_section = {name: Remembered(functools.partial(_flattened, name)) for name in SECTIONS}
