"""TensorBoard event files as bytes, made for all logged steps of many runs.

protobuf serialises the events of one run, numpy copies them for each run and fills in the values, and google-crc32c
computes the checksums. For the millions of scalars of a sweep this is many times faster than an object per scalar.

Shapes: ``R`` runs, ``S`` logged steps, ``T`` tags, ``L`` bytes of one run.

Sources:
    Framing of records: TFRecord, https://www.tensorflow.org/tutorials/load_data/tfrecord
    Events: protobuf's wire format, https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2 as _event_pb2
from tensorboard.compat.proto import summary_pb2 as _summary_pb2

# protobuf makes the classes in these modules when they are imported, so type checkers do not see them.
event_pb2: Any = _event_pb2
summary_pb2: Any = _summary_pb2

_LENGTH_BYTES, _CHECKSUM_BYTES, _FLOAT_BYTES = 8, 4, 4
# Runs are made in blocks of about this size, so that the copies beside the result need little memory.
_BLOCK_BYTES = 1 << 20


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
    steps_S, wall_times_S, values_RST = np.asarray(steps), np.asarray(wall_times), np.asarray(values)
    if steps_S.ndim != 1 or wall_times_S.shape != steps_S.shape or values_RST.shape[1:] != (len(steps_S), len(tags)):
        raise ValueError(
            "steps and wall_times must be (S,) and values (R, S, T) for T tags; they are "
            f"{steps_S.shape}, {wall_times_S.shape} and {values_RST.shape} for {len(tags)} tags"
        )
    template_L, spans = _template(steps_S, wall_times_S, tags)
    runs_per_block = max(1, _BLOCK_BYTES // max(1, template_L.size))
    written: list[bytes] = []
    for first in range(0, len(values_RST), runs_per_block):
        block_RST = values_RST[first : first + runs_per_block]
        runs_RL = np.tile(template_L, (len(block_RST), 1))
        for span in spans:
            _fill(runs_RL[:, span.at].view(span.fields), block_RST[:, span.steps])
        written += [run_L.tobytes() for run_L in runs_RL]
    return written


class _Span(NamedTuple):
    """Neighbouring steps whose records have one length, so that numpy can take them as one array."""

    steps: slice
    at: slice  # their bytes in a run
    fields: np.dtype[Any]  # of one record


def _template(
    steps_S: npt.NDArray[Any], wall_times_S: npt.NDArray[Any], tags: Sequence[str]
) -> tuple[npt.NDArray[np.uint8], list[_Span]]:
    """The records of one run with the value 0 everywhere, and where to fill in the values of another."""
    zeros = [summary_pb2.Summary.Value(tag=tag, simple_value=0.0) for tag in tags]
    event = event_pb2.Event(summary=summary_pb2.Summary(value=zeros))
    records: list[bytes] = []
    for step, wall_time in zip(steps_S.tolist(), wall_times_S.tolist(), strict=True):
        event.step, event.wall_time = step, wall_time
        records.append(event_record(event))
    # An event ends with its summary, and the message of a tag ends with the value. So only the messages of later tags
    # follow a value: its distance from the end of the event is the same at every step, although the length is not.
    sizes = [summary_pb2.Summary(value=[zero]).ByteSize() for zero in zeros]
    bytes_to_end_T = [_FLOAT_BYTES + sum(sizes[position + 1 :]) for position in range(len(sizes))]
    spans: list[_Span] = []
    step = position = 0
    for length, group in itertools.groupby(map(len, records)):
        next_step = step + len(list(group))
        next_position = position + (next_step - step) * length
        spans.append(_Span(slice(step, next_step), slice(position, next_position), _fields(length, bytes_to_end_T)))
        step, position = next_step, next_position
    return np.frombuffer(b"".join(records), dtype=np.uint8), spans


def _fields(record_bytes: int, bytes_to_end_T: list[int]) -> np.dtype[Any]:
    """A record as a numpy type of its length. Its fields overlap: the payload contains the values."""
    start, end = _LENGTH_BYTES + _CHECKSUM_BYTES, record_bytes - _CHECKSUM_BYTES
    return np.dtype(
        {
            "names": ["payload", "checksum", *(f"value_{position}" for position in range(len(bytes_to_end_T)))],
            "formats": [f"V{end - start}", "<u4", *["<f4"] * len(bytes_to_end_T)],
            "offsets": [start, end, *(end - to_end for to_end in bytes_to_end_T)],
            "itemsize": record_bytes,
        }
    )


def _fill(records_RS: npt.NDArray[Any], values_RST: npt.NDArray[Any]) -> None:
    """Put the values and then the checksums into records of one length."""
    for position in range(values_RST.shape[2]):
        records_RS[f"value_{position}"] = values_RST[:, :, position]
    # google-crc32c needs bytes objects. Making them from a field is faster than slicing the bytes of a run.
    payloads = records_RS["payload"].ravel().tolist()
    crcs = np.fromiter(map(google_crc32c.value, payloads), dtype=np.uint32, count=len(payloads))
    records_RS["checksum"] = _masked(crcs).reshape(records_RS.shape)


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", _masked(google_crc32c.value(data)))


def _masked(crc: Any) -> Any:
    """A CRC-32C, or an array of them, as TFRecord has it: the CRC of data that contain their own CRC says little."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
