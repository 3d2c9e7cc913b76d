"""TensorBoard event files as bytes, made for all logged steps of many runs.

protobuf serialises the events and google-crc32c computes the checksums. TensorBoard's own writer computes each
checksum byte by byte in Python and passes every event to a thread of its file.

Shapes: ``R`` runs, ``S`` logged steps, ``T`` tags.

Sources:
    Framing of records: TFRecord, https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2 as _event_pb2

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
event_pb2: Any = _event_pb2


def file_header(wall_time: float) -> bytes:
    """The record that every event file begins with.

    It is that of TensorBoard's own writer, which it also names: TensorBoard logs a change of writer between
    the files of a run, and a run that was trained alone has that writer.
    """
    source = event_pb2.SourceMetadata(writer="tensorboard.summary.writer.event_file_writer")
    return event_record(event_pb2.Event(wall_time=wall_time, file_version="brain.Event:2", source_metadata=source))


def event_record(event: Any) -> bytes:
    """The record of an ``Event``."""
    return record(event.SerializeToString())


def record(payload: bytes) -> bytes:
    """A payload in its frame: length, checksum of the length, payload, checksum of the payload."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _checksum(length), payload, _checksum(payload)))


def scalar_records(
    steps: npt.ArrayLike, wall_times: npt.ArrayLike, tags: Sequence[str], values: npt.ArrayLike
) -> list[bytes]:
    """The records of the scalars of R runs: for every step one event, with one value for each tag.

    All runs have the same steps, times and tags. A value that is not finite is written as it is.

    Args:
        steps: (S,), integers from 0.
        wall_times: (S,), seconds since the epoch.
        tags: T names; their order is that of the values in an event.
        values: (R, S, T), of which single precision is kept.

    Returns:
        R byte strings, each to be appended to the file of its run.

    Raises:
        ValueError: the shapes do not fit together.

    Example:
        >>> values_RST = np.float32([[[0.7], [0.6]], [[0.9], [0.8]]])
        >>> [len(one) for one in scalar_records([1, 2], [1.7e9, 1.7e9], ["loss/train"], values_RST)]
        [96, 96]
    """
    steps_S, wall_times_S, values_RST = np.asarray(steps), np.asarray(wall_times), np.asarray(values, np.float32)
    if steps_S.ndim != 1 or wall_times_S.shape != steps_S.shape or values_RST.shape[1:] != (len(steps_S), len(tags)):
        raise ValueError(
            "steps and wall_times must be (S,) and values (R, S, T) for T tags; they are "
            f"{steps_S.shape}, {wall_times_S.shape} and {values_RST.shape} for {len(tags)} tags"
        )
    # All records are made from one event: changing its numbers is faster than making a new event with the same tags.
    event = event_pb2.Event()
    event.summary.SetInParent()  # an event without tags has a summary too
    scalars_T = [event.summary.value.add(tag=tag) for tag in tags]
    times = list(zip(steps_S.tolist(), wall_times_S.tolist(), strict=True))
    runs: list[bytes] = []
    for values_ST in values_RST:
        records: list[bytes] = []
        for (step, wall_time), values_T in zip(times, values_ST.tolist(), strict=True):
            event.step, event.wall_time = step, wall_time
            for scalar, value in zip(scalars_T, values_T, strict=True):
                scalar.simple_value = value
            records.append(event_record(event))
        runs.append(b"".join(records))
    return runs


def _checksum(data: bytes) -> bytes:
    """The CRC-32C as TFRecord writes it: masked, because the CRC of data that contain their own CRC says little."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
