"""TensorBoard event files as bytes, made for all steps of many runs at once.

A stack of a thousand networks logs millions of scalars. TensorBoard's own writer makes an object and walks
over the bytes in Python for every one of them; here numpy copies the values into records that are ready but
for them.

Shapes: ``R`` runs, ``S`` logged steps, ``T`` tags, ``N`` rows or records, ``L`` bytes of one.

Sources:
    Framing of records: TFRecord, https://www.tensorflow.org/tutorials/load_data/tfrecord
    Checksum: CRC-32C (Castagnoli), RFC 3720, appendix B.4
    Events: protobuf's wire format, https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2 as _event_pb2
from tensorboard.compat.proto import summary_pb2 as _summary_pb2

# protobuf makes the classes in these modules when they are imported, so type checkers do not see them.
event_pb2: Any = _event_pb2
summary_pb2: Any = _summary_pb2

_ALL_ONES = 0xFFFFFFFF
# 0x1EDC6F41 with its bits in reverse order, as the checksum takes the lowest bit of a byte first.
_POLYNOMIAL = 0x82F63B78
# A long payload is taken in rows of this many bytes: fewer make more steps in Python, more make larger tables.
_ROW_BYTES = 128
_CHECKSUM_BYTES, _FLOAT_BYTES = 4, 4
# Runs are made in blocks of about this size, which the processor's cache holds.
_BLOCK_BYTES = 1 << 21


def _byte_tables(length: int) -> npt.NDArray[np.uint32]:
    """What each value of each byte of a row adds to the remainder of the row: (length, 256)."""
    table: npt.NDArray[Any] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    tables = [table]
    while len(tables) < length:
        # One zero byte more behind it.
        tables.append(table[tables[-1] & 0xFF] ^ (tables[-1] >> 8))
    return np.stack(tables[::-1])


_ROW_TABLES = _byte_tables(_ROW_BYTES)
# The last byte's and the first four bytes' as lists, which Python reads faster.
_LAST_TABLE: list[int] = _ROW_TABLES[-1].tolist()
_FIRST_TABLES: list[list[int]] = _ROW_TABLES[:_CHECKSUM_BYTES].tolist()


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
    return _frame(payload, crc32c(payload))


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
    _check_shapes(steps_S, wall_times_S, tags, values_RST)
    template = _Template(steps_S, wall_times_S, tags)
    runs_per_block = max(1, _BLOCK_BYTES // max(1, template.size))
    written: list[bytes] = []
    for first in range(0, len(values_RST), runs_per_block):
        # In C order and of this type, the bits of the values can be read as integers.
        block_RST = np.ascontiguousarray(values_RST[first : first + runs_per_block], dtype="<f4")
        written += template.filled(block_RST.view("<u4"))
    return written


def crc32c(data: bytes) -> int:
    """The CRC-32C of ``data``.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    head, crc = len(data) % _ROW_BYTES, _ALL_ONES
    for byte in data[:head]:
        crc = _LAST_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    if head < len(data):
        rows_NL = np.frombuffer(data, dtype=np.uint8, offset=head).reshape(-1, _ROW_BYTES)
        remainders_N = np.bitwise_xor.reduce(_ROW_TABLES[np.arange(_ROW_BYTES), rows_NL], axis=1)
        # A checksum goes on into the next row as if it were added to the first four bytes of that row.
        at_0, at_1, at_2, at_3 = _FIRST_TABLES
        for remainder in remainders_N.tolist():
            carried = at_0[crc & 0xFF] ^ at_1[(crc >> 8) & 0xFF] ^ at_2[(crc >> 16) & 0xFF] ^ at_3[crc >> 24]
            crc = remainder ^ carried
    return crc ^ _ALL_ONES


class _Template:
    """The records of one run with the value 0 everywhere, to be copied for each run and filled in.

    The CRC-32C is linear over GF(2): if two payloads of one length differ in some bytes only, their checksums
    differ by the XOR of what these differences amount to, each for itself and by its distance from the end
    of the payload. So the checksum of a filled record is that of the record here XOR what a table has for
    each piece of a value.

    The payloads here are serialised by protobuf itself. Their lengths differ, as a step takes more or fewer
    bytes (0 takes none), but the distances of the values from the end are the same in all of them.
    """

    def __init__(self, steps_S: npt.NDArray[Any], wall_times_S: npt.NDArray[Any], tags: Sequence[str]) -> None:
        zeros = [summary_pb2.Summary.Value(tag=tag, simple_value=0.0) for tag in tags]
        event = event_pb2.Event(summary=summary_pb2.Summary(value=zeros))
        records: list[bytes] = []
        checksums: list[int] = []
        for step, wall_time in zip(steps_S.tolist(), wall_times_S.tolist(), strict=True):
            event.step, event.wall_time = step, wall_time
            payload = event.SerializeToString()
            checksums.append(crc32c(payload))
            records.append(_frame(payload, checksums[-1]))
        self._checksums_S = np.array(checksums, dtype=np.uint32)
        self._bytes = np.frombuffer(b"".join(records), dtype=np.uint8)
        self._lengths = [len(one) for one in records]
        # A value comes last in its message, so from there to the end are just the messages of the tags after it.
        sizes = [summary_pb2.Summary(value=[zero]).ByteSize() for zero in zeros]
        self._bytes_to_end_T = [_FLOAT_BYTES + sum(sizes[position + 1 :]) for position in range(len(sizes))]
        tables_L = _byte_tables(max(self._bytes_to_end_T, default=0))
        self._tables_T = [tables_L[len(tables_L) - to_end :][:_FLOAT_BYTES] for to_end in self._bytes_to_end_T]

    @property
    def size(self) -> int:
        """Bytes of one run."""
        return self._bytes.size

    def filled(self, bits_RST: npt.NDArray[np.uint32]) -> list[bytes]:
        """The records of R runs, with the values whose bits these are."""
        checksums_RS = _masked(self._checksums_of(bits_RST))
        runs_RL = np.tile(self._bytes, (len(bits_RST), 1))
        for span, place, record_bytes in self._spans():
            records_RS = runs_RL[:, place].view(self._fields(record_bytes))
            records_RS["checksum"] = checksums_RS[:, span]
            for position in range(bits_RST.shape[2]):
                records_RS[f"value_{position}"] = bits_RST[:, span, position]
        return [run_L.tobytes() for run_L in runs_RL]

    def _checksums_of(self, bits_RST: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        checksums_RS = np.tile(self._checksums_S, (len(bits_RST), 1))
        for position, tables_4 in enumerate(self._tables_T):
            for byte, table in enumerate(tables_4):
                checksums_RS ^= table[(bits_RST[:, :, position] >> (8 * byte)) & 0xFF]
        return checksums_RS

    def _spans(self) -> Iterator[tuple[slice, slice, int]]:
        """Neighbouring steps whose records have one length: (their steps, their bytes in a run, that length)."""
        step = place = 0
        for length, group in itertools.groupby(self._lengths):
            count = len(list(group))
            yield slice(step, step + count), slice(place, place + count * length), length
            step, place = step + count, place + count * length

    def _fields(self, record_bytes: int) -> np.dtype[Any]:
        """What of a record is filled in, as the fields of a numpy type that is as long as the record."""
        end = record_bytes - _CHECKSUM_BYTES
        places = {f"value_{t}": end - to_end for t, to_end in enumerate(self._bytes_to_end_T)}
        places["checksum"] = end
        return np.dtype(
            {
                "names": list(places),
                "formats": ["<u4"] * len(places),
                "offsets": list(places.values()),
                "itemsize": record_bytes,
            }
        )


def _frame(payload: bytes, checksum: int) -> bytes:
    length = struct.pack("<Q", len(payload))
    return b"".join((length, struct.pack("<I", _masked(crc32c(length))), payload, struct.pack("<I", _masked(checksum))))


def _masked(crc: Any) -> Any:
    """A checksum, or an array of them, as TFRecord writes it: the CRC of data that end in their own CRC is no good."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _ALL_ONES


def _check_shapes(
    steps_S: npt.NDArray[Any], wall_times_S: npt.NDArray[Any], tags: Sequence[str], values_RST: npt.NDArray[Any]
) -> None:
    if not (
        steps_S.ndim == 1
        and steps_S.shape == wall_times_S.shape
        and values_RST.ndim == 3
        and values_RST.shape[1:] == (len(steps_S), len(tags))
    ):
        raise ValueError(
            "steps and wall_times must be (S,) and values (R, S, T) for T tags; they are "
            f"{steps_S.shape}, {wall_times_S.shape} and {values_RST.shape} for {len(tags)} tags"
        )
