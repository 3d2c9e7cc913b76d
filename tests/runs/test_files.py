"""Files that cannot be written: the error names them, and what was there before stays."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.configurations import ComposeConfig

import mlp_lightning
from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs import files
from mlp_lightning.runs.checkpoints import write_checkpoint
from mlp_lightning.runs.files import atomic_write, complete_writes, refuse_full_disk, write_all
from mlp_lightning.sweeps.worker import train_part, unexpected_message

pytestmark = pytest.mark.posix


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses to make any file longer than 20,000 bytes, as a full disk would."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_checkpoint_that_does_not_fit(tmp_path: Path, small_files: None) -> None:
    """Torch's own message is about positions inside of the file."""
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="File too large") as caught:
        write_checkpoint(path, {"weights": torch.zeros(100_000)})
    assert caught.value.filename == str(path)
    assert unexpected_message(caught.value, tmp_path) == f"File too large: {path}"
    assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_bytes() == b"before"


def test_other_files_that_do_not_fit(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(OSError, match="File too large") as caught, atomic_write(tmp_path / "a") as file:
        file.write(bytes(30_000))
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="File too large") as caught:
        write_all({tmp_path / "b": bytes(30_000)}, tmp_path / ".1.journal")
    assert caught.value.filename == str(tmp_path / "b")
    with pytest.raises(OSError, match="File too large"):
        write_all({tmp_path / "c": b"fits", tmp_path / "d": bytes(30_000)}, tmp_path / ".1.journal")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="File too large") as caught:
        refuse_full_disk(tmp_path)
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(ValueError, match="of the caller"), atomic_write(tmp_path / "c"):
        raise ValueError("of the caller")


def test_a_training_names_the_file(tmp_path: Path, compose_config: ComposeConfig, small_files: None) -> None:
    config = compose_config("data=iris", "model.hidden_units=2000", "trainer.max_epochs=2", "verbosity=0")
    with pytest.raises(OSError, match=r"File too large: .*checkpoints/.*\.ckpt"):
        mlp_lightning.train(config, tmp_path / "alone")
    for outcome in train_part([config] * 2, [tmp_path / "a", tmp_path / "b"]):
        assert outcome.status == "failed"
        assert outcome.error.startswith("File too large: ")
        assert outcome.error.endswith(".ckpt")


def test_a_disk_that_fills_up(tmp_path: Path, compose_config: ComposeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the checkpoint that did not fit, although nothing can be recorded then; the one before stays."""
    config = compose_config("data=iris", "trainer.max_epochs=4", "callbacks.checkpoint.every_n_steps=1")
    last, sync, full = tmp_path / "run" / "checkpoints" / "last.ckpt", os.fsync, []

    def fill_up(handle: int) -> None:
        if last.exists() and stat.S_ISREG(os.fstat(handle).st_mode):
            full.append(last.read_bytes())
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OSError, match=r"No space left on device: .*checkpoints/.*\.ckpt") as caught:
        mlp_lightning.train(config, tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC
    assert last.read_bytes() == full[0]
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    resumed = mlp_lightning.train(dataclasses.replace(config, ckpt_path=str(last)), tmp_path / "resumed")
    assert resumed.metrics == mlp_lightning.train(config, tmp_path / "whole").metrics


# ---- journals of files that wait for their names -------------------------------------------------------------


def _left_waiting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process leaves that is killed after its journal: ``a`` and ``x/b`` wait for their names."""
    genuine, count = files.replace, 0

    def killed(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        genuine(source, target)

    (folder / "x").mkdir(parents=True)
    monkeypatch.setattr(files, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_all({folder / "a": b"1", folder / "x" / "b": b"2"}, folder / ".7.journal")
    monkeypatch.setattr(files, "replace", genuine)


def test_waiting_files_get_their_names_where_their_folder_is_now(tmp_path: Path, monkeypatch) -> None:
    _left_waiting(tmp_path / "before", monkeypatch)
    (tmp_path / "before").rename(tmp_path / "after")
    complete_writes(tmp_path / "after")
    found = {one.relative_to(tmp_path).as_posix(): one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    assert found == {"after/a": b"1", "after/x/b": b"2"}


def test_journals_of_earlier_versions_have_whole_paths(tmp_path: Path) -> None:
    waiting = tmp_path / ".a.host.7.waiting.tmp"
    waiting.write_bytes(b"1")
    (tmp_path / ".7.journal").write_text(json.dumps({str(waiting): str(tmp_path / "a")}))
    complete_writes(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("waiting", "name"),
    [
        ("../.mine.host.7.waiting.tmp", "mine"),
        ("{outside}/.mine.host.7.waiting.tmp", "mine"),
        ("link/.mine.host.7.waiting.tmp", "mine"),
        ("../mine", "stolen"),
        ("theirs", "other"),
        (".theirs.host.7.waiting.tmp", "mine"),
        (".theirs.host.7.waiting.tmp", ""),
        (".theirs.host.7.waiting.tmp", ".."),
    ],
)
def test_a_journal_of_a_stranger_moves_nothing_else(tmp_path: Path, waiting: str, name: str) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    for file in (tmp_path / "mine", tmp_path / ".mine.host.7.waiting.tmp", folder / "theirs"):
        file.write_text(file.name)
    (folder / ".theirs.host.7.waiting.tmp").write_text("theirs")
    (folder / ".9.journal").write_text(json.dumps({waiting.format(outside=tmp_path): name}))
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    with pytest.raises(RunFolderError, match=r"no waiting file in .*Remove it"):
        complete_writes(folder)
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"a": 1}', b"\xff", b"[" * 10**5])
def test_a_damaged_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".9.journal").write_bytes(content)
    with pytest.raises(RunFolderError, match="journal is damaged"):
        complete_writes(tmp_path)
