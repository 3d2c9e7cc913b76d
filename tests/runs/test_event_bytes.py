"""Event files as bytes, against TensorBoard's writer and readers."""

from __future__ import annotations

import doctest
import io
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter

from mlp_lightning.runs import event_bytes
from mlp_lightning.runs.event_bytes import event_record, file_header, record, scalar_records

event_proto: Any = event_pb2
summary_proto: Any = summary_pb2

# At both sides of every step number that takes one byte more.
STEPS = [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**28, 2**31, 2**40, 2**62]
NUMBERS = np.array([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, -math.nan, 1e-45, 3.4e38], dtype=np.float32)
TAGS = ["loss/train", "accuracy/train", "learning_rate", "größe/Δ", "x" * 300]


def framed(payload: bytes) -> bytes:
    file = io.BytesIO()
    RecordWriter(file).write(payload)
    return file.getvalue()


def expected_records(steps, wall_times, tags, values_RST) -> list[bytes]:
    """The records of TensorBoard's writer, value by value."""
    runs = []
    for values_ST in values_RST:
        records = []
        for step, wall_time, values_T in zip(steps, wall_times, values_ST, strict=True):
            values = [
                summary_proto.Summary.Value(tag=tag, simple_value=float(value))
                for tag, value in zip(tags, values_T, strict=True)
            ]
            event = event_proto.Event(
                wall_time=float(wall_time), step=int(step), summary=summary_proto.Summary(value=values)
            )
            records.append(framed(event.SerializeToString()))
        runs.append(b"".join(records))
    return runs


def random_values(rng, runs: int, steps: int, tags: int) -> np.ndarray:
    """Of all sizes, with every fifth one from ``NUMBERS``."""
    values = (rng.standard_normal((runs, steps, tags)) * 10.0 ** rng.integers(-30, 30, (runs, steps, tags))).astype(
        np.float32
    )
    special = rng.random(values.shape) < 0.2
    values[special] = rng.choice(NUMBERS, int(special.sum()))
    return values


def test_record_is_framed_as_tensorboard_frames_it() -> None:
    rng = np.random.default_rng(1)
    for length in [*range(10), 127, 128, 129, 255, 256, 257, *rng.integers(258, 3000, 20), 5000, 20_011]:
        payload = rng.bytes(int(length))
        assert record(payload) == framed(payload), length


def test_file_header_is_that_of_tensorboard(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.75e9)
    EventFileWriter(str(tmp_path)).close()
    (path,) = tmp_path.iterdir()
    assert file_header(1.75e9) == path.read_bytes()


def test_event_record() -> None:
    event = event_proto.Event(wall_time=1.5, graph_def=b"\x0a\x00" * 10_000)
    assert event_record(event) == framed(event.SerializeToString())


@pytest.mark.parametrize("tag_count", range(6))
@pytest.mark.parametrize("run_count", [1, 2, 7])
def test_same_bytes_as_tensorboard(tag_count, run_count) -> None:
    rng = np.random.default_rng([tag_count, run_count])
    steps = np.sort(np.concatenate([STEPS, rng.integers(0, 2**16, 30)]))
    wall_times = 1.75e9 + rng.random(len(steps)).cumsum()
    tags = list(rng.permutation(TAGS)[:tag_count])
    values_RST = random_values(rng, run_count, len(steps), tag_count)
    assert scalar_records(steps, wall_times, tags, values_RST) == expected_records(steps, wall_times, tags, values_RST)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("step", STEPS)
def test_every_number_at_every_size_of_step(number, step) -> None:
    values_RST = np.full((1, 1, 2), number)
    assert scalar_records([step], [1.5], TAGS[:2], values_RST) == expected_records([step], [1.5], TAGS[:2], values_RST)


def test_steps_and_times_in_any_order() -> None:
    """Also what protobuf leaves out: a time of 0, an empty name."""
    rng = np.random.default_rng(2)
    steps = rng.permutation(np.repeat(STEPS, 3))
    wall_times = rng.choice([0.0, -0.0, 1.75e9], len(steps))
    values_RST = random_values(rng, 3, len(steps), 3)
    tags = ["", "a", "a"]
    assert scalar_records(steps, wall_times, tags, values_RST) == expected_records(steps, wall_times, tags, values_RST)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (0, 0, 0), (2, 0, 0)])
def test_nothing_to_write(shape) -> None:
    runs, steps, tags = shape
    assert scalar_records(range(steps), [1.0] * steps, TAGS[:tags], np.zeros(shape)) == [b""] * runs


def test_runs_are_independent() -> None:
    values_RST = random_values(np.random.default_rng(3), 10, 5, 2)
    case = (range(5), [1.75e9] * 5, TAGS[:2])
    alone = [scalar_records(*case, values_RST[[run]])[0] for run in range(10)]
    assert scalar_records(*case, values_RST) == alone


def test_values_in_any_memory_layout() -> None:
    rng = np.random.default_rng(4)
    values_STR = random_values(rng, 6, 2, 4)
    values_RST = values_STR.transpose(2, 0, 1)
    case = (range(6), [1.75e9] * 6, TAGS[:2])
    expected = scalar_records(*case, values_RST.copy())
    assert scalar_records(*case, values_RST) == expected
    assert scalar_records(*case, values_RST.astype(np.float64)) == expected
    assert scalar_records(*case, values_RST.astype(">f4")) == expected
    assert scalar_records(*case, values_RST.tolist()) == expected


def test_memory_beside_the_result_is_little() -> None:
    values_RST = np.zeros((400, 250, 3), dtype=np.float32)
    tracemalloc.start()
    try:
        written = scalar_records(range(250), [1.75e9] * 250, TAGS[:3], values_RST)
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > sum(map(len, written)) > 9e6
    assert peak - size < 8e6


def test_same_file_as_tensorboard(tmp_path, monkeypatch) -> None:
    """A whole file, as TensorBoard's writer of event files leaves it."""
    values_RST = random_values(np.random.default_rng(6), 1, len(STEPS), 2)
    values_RST[0, : len(NUMBERS), 0] = NUMBERS
    wall_times = 1.75e9 + np.arange(len(STEPS))
    monkeypatch.setattr("time.time", lambda: 1.75e9)
    writer = EventFileWriter(str(tmp_path))
    for step, wall_time, values_T in zip(STEPS, wall_times, values_RST[0], strict=True):
        event = event_proto.Event(wall_time=wall_time, step=step)
        for tag, value in zip(TAGS[:2], values_T, strict=True):
            event.summary.value.add(tag=tag, simple_value=value)
        writer.add_event(event)
    writer.close()
    (path,) = tmp_path.iterdir()
    assert file_header(1.75e9) + scalar_records(STEPS, wall_times, TAGS[:2], values_RST)[0] == path.read_bytes()


@pytest.fixture
def event_file(tmp_path) -> tuple[Path, np.ndarray]:
    """The file of the second of three runs, and its values."""
    values_RST = random_values(np.random.default_rng(5), 3, 1001, 3)
    path = tmp_path / "events.out.tfevents.1750000000.host.1.0"
    wall_times = 1.75e9 + np.arange(1001)
    path.write_bytes(file_header(1.75e9) + scalar_records(np.arange(1001) * 10, wall_times, TAGS[:3], values_RST)[1])
    return path, values_RST[1]


def test_read_by_event_accumulator(event_file) -> None:
    path, values_ST = event_file
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    assert events.Tags()["scalars"] == TAGS[:3]
    for position, tag in enumerate(TAGS[:3]):
        scalars = events.Scalars(tag)
        assert [one.step for one in scalars] == list(range(0, 10_010, 10))
        assert [one.wall_time for one in scalars] == [1.75e9 + second for second in range(1001)]
        np.testing.assert_array_equal(np.array([one.value for one in scalars], np.float32), values_ST[:, position])


def test_read_by_legacy_event_file_loader(event_file) -> None:
    path, values_ST = event_file
    header, *events = LegacyEventFileLoader(str(path)).Load()
    assert header.file_version == "brain.Event:2"
    assert [event.step for event in events] == list(range(0, 10_010, 10))
    assert all([value.tag for value in event.summary.value] == TAGS[:3] for event in events)
    read_ST = np.array([[value.simple_value for value in event.summary.value] for event in events], np.float32)
    np.testing.assert_array_equal(read_ST, values_ST)


@pytest.mark.parametrize(
    ("steps", "wall_times", "values"),
    [
        ((4,), (3,), (5, 4, 2)),
        ((3,), (4,), (5, 4, 2)),
        ((4,), (4,), (5, 3, 2)),
        ((4,), (4,), (5, 4, 3)),
        ((4,), (4,), (4, 2)),
        ((4, 1), (4, 1), (5, 4, 2)),
        ((), (), (5, 4, 2)),
    ],
)
def test_shapes_that_do_not_fit(steps, wall_times, values) -> None:
    with pytest.raises(ValueError, match=r"\(R, S, T\)") as raised:
        scalar_records(np.zeros(steps, dtype=np.int64), np.zeros(wall_times), ["a", "b"], np.zeros(values))
    for part in (str(steps), str(wall_times), str(values), "2 tags"):
        assert part in str(raised.value)


def test_examples_in_the_documentation() -> None:
    result = doctest.testmod(event_bytes)
    assert result.attempted >= 2
    assert result.failed == 0
