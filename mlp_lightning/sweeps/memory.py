"""How much memory is available for training."""

from __future__ import annotations

import os
from pathlib import Path

_ASSUMED = 4 * 2**30


def available_memory() -> int:
    """Bytes that are free without swapping: of the machine, or of the container if it has less.

    4 GiB if the system does not report it.
    """
    return min(_of_machine(), _of_container())


def _of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _ASSUMED


def _of_container() -> int:
    """Free memory in the control group, on Linux."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        return max(limit - int((group / "memory.current").read_text(encoding="utf-8")), limit // 10)
    except (OSError, ValueError):
        return 2**62
