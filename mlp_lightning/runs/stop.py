"""Stopping a run on request: Ctrl-C and the termination signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Windows sends SIGBREAK for Ctrl-Break, the only one of these that a program there can send to another.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class _Interrupt:
    """What Ctrl-C does while nothing trains: it raises :class:`KeyboardInterrupt`, and is remembered."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        raise KeyboardInterrupt


def remember_interrupts() -> None:
    """From now on :func:`raise_lost_interrupt` knows of a Ctrl-C that some library swallowed.

    Libraries have places that catch every exception, many of them reached while they are imported, and a command
    imports for seconds.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has Ctrl-C ignored
        signal.signal(signal.SIGINT, _Interrupt())


def raise_lost_interrupt() -> None:
    """Raise :class:`KeyboardInterrupt` if there was one already and this code is still running."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, _Interrupt) and handler.received:
        raise KeyboardInterrupt


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
    raise_lost_interrupt()
    # A handler that was not set from Python reads as None and cannot be put back as it was.
    before = {int(number): signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        request_stop()
        signal.signal(number, before[number])

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
