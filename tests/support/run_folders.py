"""What a run leaves in its folder, read back and compared with what another run left."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2
from torch import Tensor

from mlp_lightning.config import names
from support.tolerances import assert_close

# What two ways of summing may differ by after a run.
AFTER_A_RUN = 1e-5
_TIMES = ("wall_time_s", "fit_time_s", "started_at", "ended_at", "run_dir")


def assert_same_content(actual: Any, expected: Any, where: str = "") -> None:
    """Nested dicts and lists with the same structure and types, and numbers as close as rounding leaves them."""
    if isinstance(expected, Mapping):
        assert isinstance(actual, Mapping), where
        assert set(actual) == set(expected), where
        for key in expected:
            assert_same_content(actual[key], expected[key], f"{where}.{key}")
        return
    assert type(actual) is type(expected), where
    if isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), where
        for place, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same_content(one, other, f"{where}[{place}]")
    elif isinstance(expected, Tensor):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), where
        assert_close(actual, expected, AFTER_A_RUN if expected.is_floating_point() else 0)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=AFTER_A_RUN, abs=AFTER_A_RUN, nan_ok=True), where
    elif isinstance(expected, str) and "Best score" in expected:
        # Early stopping says its best score in words.
        assert actual.partition("Best score")[0] == expected.partition("Best score")[0], where
    else:
        assert actual == expected, where


def files(run: Path) -> list[str]:
    """All files below a run folder; the names of event files say only when and where they were written."""
    found = [file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()]
    return sorted("events" if name.startswith("events.out.tfevents.") else name for name in found)


def metrics(run: Path) -> list[list[float | None]]:
    """The rows of ``metrics.csv``; ``None`` for an empty cell."""
    with (run / "metrics.csv").open(newline="") as file:
        return [[float(cell) if cell else None for cell in row] for row in list(csv.reader(file))[1:]]


def result(run: Path) -> dict[str, Any]:
    """``result.json`` without what is never the same twice."""
    content = json.loads((run / "result.json").read_text())
    assert all(content.pop(key) for key in _TIMES)
    content.pop("stack")  # only a member of a stack has something to say there
    assert content.pop("engine") in names.ENGINES
    return content


def checkpoint(run: Path, which: str = "last") -> dict[str, Any]:
    """A checkpoint, but for which engine it is of."""
    content = torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)
    assert content.pop("engine") in names.ENGINES
    return content


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows: {tag: [(step, value), …]}."""
    read = events(run)
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def session(run: Path) -> tuple[dict[str, Any], int | None]:
    """Hyperparameters and the status at the end, as the HParams tab has them."""
    content = events(run).summary_metadata
    start = plugin_data_pb2.HParamsPluginData.FromString(
        content[metadata.SESSION_START_INFO_TAG].plugin_data.content
    ).session_start_info
    hyperparameters = {key: value.WhichOneof("kind") and str(value) for key, value in start.hparams.items()}
    if metadata.SESSION_END_INFO_TAG not in content:
        return hyperparameters, None
    end = plugin_data_pb2.HParamsPluginData.FromString(content[metadata.SESSION_END_INFO_TAG].plugin_data.content)
    return hyperparameters, end.session_end_info.status


def graph(run: Path) -> bytes | None:
    read = events(run)
    return read.Graph().SerializeToString(deterministic=True) if read.Tags()["graph"] else None


def assert_same_run(
    actual: Path, expected: Path, checkpoints: Sequence[str] = ("last", "best"), *, has_session: bool = True
) -> None:
    """Two run folders that say the same, to rounding; with the same hyperparameters, unless they are not compared."""
    assert files(actual) == files(expected)
    assert (actual / "config.yaml").read_text() == (expected / "config.yaml").read_text()
    assert_same_content(result(actual), result(expected), "result")
    assert_same_log(actual, expected)
    if "metrics.csv" in files(expected):
        heads = [(run / "metrics.csv").read_text().splitlines()[0] for run in (actual, expected)]
        assert heads[0] == heads[1]
        assert_same_content(metrics(actual), metrics(expected), "metrics.csv")
    if "events" in files(expected):
        assert_same_content(scalars(actual), scalars(expected), "events")
        assert not has_session or session(actual) == session(expected)
        assert graph(actual) == graph(expected)
    for which in checkpoints:
        if f"checkpoints/{which}.ckpt" in files(expected):
            assert_same_content(checkpoint(actual, which), checkpoint(expected, which), which)


def assert_same_log(actual: Path, expected: Path) -> None:
    """The same beginning, and the same kinds of lines at the end; times and numbers of lines differ."""
    texts = [(run / "train.log").read_text() for run in (actual, expected)]
    for words in ("] Training ", "Final metrics", "Stopped as asked", "TensorBoard:", "Run folder:", "stopped early"):
        assert (words in texts[0]) == (words in texts[1]), words
    first = [text.partition("] Training ")[2].partition("\n")[0] for text in texts]
    assert first[0] == first[1]


def is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
