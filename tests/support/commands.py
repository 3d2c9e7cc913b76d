"""Running the project's real commands in separate processes.

Most of the time of a short command goes into importing torch and Lightning. ``train`` and ``start`` pay for that, as a
user does; ``train_forked`` and ``start_forked`` run the same script in a process that is forked from one where these
libraries have been imported, and nothing of this project. Whatever depends on how a process begins needs the former.
Outside Linux both do the same: Windows has no fork, and macOS's own libraries do not survive one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]
_HEAVY = ["lightning.pytorch", "torchmetrics", "sklearn.datasets", "tensorboard.summary.writer.event_file_writer"]
_HEAVY += ["tensorboard.plugins.hparams.api", "matplotlib.backends.backend_agg", "hydra.main", "rich.progress"]


def environment() -> dict[str, str]:
    """The environment of a command: one thread, output as it comes, in UTF-8 on every system."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def train(*overrides: str, folder: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """``python scripts/train.py`` with overrides, in ``folder``."""
    return subprocess.run(
        [*TRAIN, *overrides], cwd=folder, env=environment(), capture_output=True, encoding="utf-8", timeout=timeout
    )


def run_script(script: str, *arguments: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """``python scripts/<script>`` with arguments, which has to succeed."""
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, encoding="utf-8", timeout=timeout)
    assert done.returncode == 0, f"{script} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done


def start(*overrides: str, folder: Path) -> subprocess.Popen[str]:
    """Start the same command and return at once."""
    return subprocess.Popen(
        [*TRAIN, *overrides],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


class _Spawned(subprocess.Popen[bytes]):
    """A command as a new process, with the names of ``multiprocessing``."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def join(self, timeout: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout)


class Forked:
    """A script in a process forked from one that has imported the heavy libraries; named as in ``subprocess``."""

    def __init__(self, words: Sequence[str], folder: Path, **variables: str) -> None:
        self._words, self._folder = list(words), Path(tempfile.mkdtemp())
        self._process = self._begun(folder, {**environment(), **variables})
        weakref.finalize(self, _end, self._process, self._folder)

    def _begun(self, folder: Path, variables: Mapping[str, str]) -> multiprocessing.process.BaseProcess | _Spawned:
        if sys.platform != "linux":
            with (self._folder / "stdout").open("wb") as out, (self._folder / "stderr").open("wb") as err:
                return _Spawned([sys.executable, *self._words], cwd=folder, env=variables, stdout=out, stderr=err)
        with _environment_of_commands():  # the server, which comes with the first process, counts its threads by it
            arguments = (self._words, folder, variables, self._folder)
            process = multiprocessing.get_context("forkserver").Process(target=_run_script, args=arguments)
            process.start()
        return process

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait_for(self, pattern: str, timeout: float = 120) -> None:
        """Until a line of the output begins with the pattern."""
        deadline = time.monotonic() + timeout
        while not re.search(f"^{pattern}", self._printed("stdout"), re.MULTILINE):
            assert self.poll() is None, self._printed("stderr")
            assert time.monotonic() < deadline, self._printed("stdout")
            time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def finished(self, timeout: float | None) -> subprocess.CompletedProcess[str]:
        """Wait for the end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._words, timeout or 0.0)
        printed = [self._printed(name) for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(self._words, self._process.exitcode, *printed)

    def _printed(self, name: str) -> str:
        file = self._folder / name
        return file.read_text(encoding="utf-8") if file.exists() else ""


def start_forked(*overrides: str, folder: Path) -> Forked:
    """``start``, seconds faster."""
    return Forked([TRAIN[-1], *overrides], folder)


def train_forked(*overrides: str, folder: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """``train``, seconds faster."""
    return run_forked(TRAIN[-1], *overrides, folder=folder, timeout=timeout)


def run_forked(*words: str, folder: Path, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script and its arguments, with additional environment variables."""
    process = Forked(words, folder, **variables)
    try:
        return process.finished(timeout)
    finally:
        process.kill()


def _end(process: multiprocessing.process.BaseProcess | _Spawned, printed: Path) -> None:
    process.kill()
    shutil.rmtree(printed, ignore_errors=True)


def _run_script(words: list[str], folder: Path, variables: Mapping[str, str], printed: Path) -> None:
    """Become ``python words``, printing into files."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        with (printed / name).open("wb") as target:
            os.dup2(target.fileno(), number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False))
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")


@contextlib.contextmanager
def _environment_of_commands() -> Iterator[None]:
    multiprocessing.forkserver.set_forkserver_preload(_HEAVY)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield


def only_run(folder: Path, name: str) -> Path:
    """The folder of the one run called ``name`` below ``folder``."""
    (run,) = (folder / "lightning_logs" / name).iterdir()
    return run
