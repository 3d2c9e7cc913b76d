"""A function in a process of limited memory and time, so that a crash or a hang is an outcome like any other."""

from __future__ import annotations

import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable

import pyarrow as pa
import torch

from mlp_lightning.errors import MLPLightningError

#: Memory that a child may take besides what its parent has, and its seconds.
MEMORY_BYTES, SECONDS = 3 << 29, 120
_LONGEST = 4000


def outcome(function: Callable[[], str], memory_bytes: int = MEMORY_BYTES, seconds: int = SECONDS) -> str:
    """What a function does in a child: what it returns, ``message: …`` for an error of ours, and else how it failed.

    ``signal N`` says that the child died of one; 14 is that of the clock.
    """
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads of libraries, which wait
        child = os.fork()
    if child == 0:
        try:
            os.close(here)
            os.write(there, _in_child(function, memory_bytes, seconds).encode(errors="replace")[:_LONGEST])
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


def _in_child(function: Callable[[], str], memory_bytes: int, seconds: int) -> str:
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(silent, descriptor)
    torch.set_num_threads(1)  # a fork has none of the threads that OpenMP would wait for
    pa.set_memory_pool(pa.system_memory_pool())  # its own would reserve a gibibyte at once
    most = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        return function()
    except MLPLightningError as error:
        return f"message: {error}"
    except BaseException:
        return f"traceback: {traceback.format_exc()[-_LONGEST + 100 :]}"


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * resource.getpagesize()
