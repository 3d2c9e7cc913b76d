"""The output of a run after its reader has closed the pipe."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from mlp_lightning.runs.console import RunConsole, log


class _Closed(io.TextIOWrapper):
    """Writes to a file that exists, and fails like a pipe without a reader."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(open(os.devnull, "wb"), encoding="utf-8")  # noqa: PTH123, SIM115  # closed with the wrapper
        self.failure, self.writes = failure, 0

    def write(self, text: str) -> int:
        self.writes += 1
        raise self.failure


def lines_to(file: io.TextIOWrapper) -> None:
    console = RunConsole(1)
    console.rich.file = file
    for _ in range(3):
        console.line("a figure")


@pytest.mark.parametrize(
    ("failure", "platform"),
    [(BrokenPipeError(errno.EPIPE, "Broken pipe"), sys.platform), (OSError(errno.EINVAL, "Invalid argument"), "win32")],
)
def test_a_closed_pipe_ends_the_lines_and_not_the_run(failure, platform, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with _Closed(failure) as file:
        lines_to(file)
        assert file.writes == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EINVAL])
def test_other_faults_of_the_output_are_reported(number, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with _Closed(OSError(number, os.strerror(number))) as file, pytest.raises(OSError, match=os.strerror(number)):
        lines_to(file)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_log_on_a_full_disk_is_lost_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with RunConsole(1).logging_to(Path("/dev/full")):
        for _ in range(3):
            log.error("a line")
    assert capfd.readouterr() == ("", "")
