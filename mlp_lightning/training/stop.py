"""Stopping a run on request: Ctrl-C and the termination signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(request_stop: Callable[[], None]) -> Iterator[list[int]]:
    """Inside the context, the first Ctrl-C or termination signal calls ``request_stop``.

    The run then ends between two optimizer steps with its state saved. A second signal has its usual effect
    at once. Outside the main thread, where Python allows no signal handlers, nothing is changed.

    Yields:
        The numbers of the signals that have come.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    # A handler that was not set from Python reads as None and cannot be put back as it was.
    before = {int(number): signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        request_stop()
        signal.signal(number, before[number])

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
