"""Run folders, read as records: which folders count, their order, and errors for damaged files."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from support.leaderboard_records import failed, run, write_run

import mlp_lightning
from mlp_lightning.errors import RunFolderError
from mlp_lightning.sweeps.records import cause, read_records


def moved(record, folder):
    return dataclasses.replace(record, folder=folder)


def test_what_was_written_is_read(tmp_path) -> None:
    records = [run(0, 0.25, model__hidden_units=5), failed(1, model__hidden_units=7), run(2, math.nan, math.inf)]
    folders = [write_run(tmp_path, record) for record in records]
    read = read_records([tmp_path])
    # NaN is not equal to itself, its text is.
    assert list(map(repr, read)) == [
        repr(dataclasses.replace(moved(a, b), error=cause(a.error))) for a, b in zip(records, folders, strict=True)
    ]


def test_run_without_a_result_is_unended(tmp_path) -> None:
    folder = write_run(tmp_path, run(3))
    (folder / "result.json").unlink()
    (record,) = read_records([tmp_path])
    assert (record.status, record.metrics, record.number) == ("unended", {}, 3)


def test_run_of_python_has_no_overrides_and_no_number(tmp_path, compose_config) -> None:
    config = compose_config("data=iris", "trainer.max_epochs=2", "logger=none")
    result = mlp_lightning.train(config, tmp_path / "mine")
    (record,) = read_records([tmp_path])
    assert record.number is None
    assert record.overrides == ()
    assert record.config == config.to_dict()
    assert record.metrics == result.metrics
    assert record.steps == 2
    assert record.wall_time_s == result.wall_time_s


def test_order_and_ignored_folders(tmp_path) -> None:
    numbers = [10, 9, 100, 1]
    random.Random(0).shuffle(numbers)
    for sweep in ("b", "a"):
        for number in numbers:
            write_run(tmp_path, run(number, sweep=sweep))
    write_run(tmp_path / "a" / "superseded", run(7, sweep="a"))
    (tmp_path / "a" / "multirun.yaml").write_text("seed: 0\n")
    read = read_records([tmp_path])
    assert [(one.folder.parent.name, one.number) for one in read] == [(s, n) for s in "ab" for n in (1, 9, 10, 100)]
    # The same folders, reached in another way, count once.
    assert read_records([tmp_path / "b", tmp_path / "a", tmp_path / "a" / "9"]) == read
    assert [one.number for one in read_records([tmp_path / "a" / "9"])] == [9]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", b"a: [1", "is not valid YAML"),
        ("config.yaml", b"- 1", "a mapping of keys to values"),
        ("config.yaml", b"", "has None where a mapping"),
        ("config.yaml", b"\xff\xfe\x00a", "YAML|UTF-8"),
        (".hydra/overrides.yaml", b"seed: 1", "a list of overrides"),
        (".hydra/overrides.yaml", b"- 1", "a list of overrides as KEY=VALUE"),
        ("result.json", b"", "is not valid JSON"),
        ("result.json", b'{"status": "fini', "is not valid JSON"),
        ("result.json", b"[]", "a mapping of keys to values"),
        ("result.json", b"{}", "has the status None, which is not one of finished"),
        ("result.json", b'{"status": "finished", "metrics": {"train": 3}}', "metrics as"),
        ("result.json", b'{"status": "finished", "metrics": {"train": {"loss": "low"}}}', "'low' where a number"),
        ("result.json", b'{"status": "finished", "steps": true}', "True where a number"),
        ("result.json", b'{"status": "finished", "fingerprint": [1]}', "the fingerprint of tables as"),
        (
            "result.json",
            b'{"status": "finished", "fingerprint": {"data": {"rows": 3}}}',
            "the fingerprint of tables as",
        ),
    ],
)
def test_damaged_file_is_named(tmp_path, file, content, message) -> None:
    write_run(tmp_path, run(0))
    folder = write_run(tmp_path, run(1))
    (folder / file).write_bytes(content)
    with pytest.raises(RunFolderError, match=message) as caught:
        read_records([tmp_path])
    assert str(folder / file) in str(caught.value)
    assert "move its run folder" in str(caught.value)
