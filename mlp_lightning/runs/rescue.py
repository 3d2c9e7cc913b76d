"""A process that is asked to end while a step takes long: the state before that step is on the disk within seconds.

A stop waits for the end of a step, or of a validation. Who asks may not wait that long: schedulers send SIGTERM and a
few seconds later SIGKILL. So what is slow is preceded by a copy of the state in memory, which takes little beside it,
and a thread writes that copy if the stop has not come after a moment. Torch lets other threads run while it computes.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator

#: What takes longer than this, in seconds, is worth a copy of the state.
SLOW = 0.5
_PATIENCE_S = 1.0


class Rescue:
    """What is written of a run that is ended before it can stop.

    Attributes:
        lock: whoever writes checkpoints holds it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._write: Callable[[], None] | None = None

    def keep(self, write: Callable[[], None]) -> None:
        """Keep what writes a copy of the present state."""
        with self.lock:
            self._write = write

    def forget(self) -> None:
        """The state on the disk is newer."""
        with self.lock:
            self._write = None

    def perform(self) -> None:
        """Write the copy, if there is one that is not on the disk."""
        with self.lock:
            if self._write is not None:
                self._write()
            self._write = None

    @contextlib.contextmanager
    def after(self, signals: Collection[int]) -> Iterator[None]:
        """Inside the context, write the copy some time after one of these signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, sender = socket.socketpair()
        sender.setblocking(False)
        # The system's own handler writes here at once; Python's run when the main thread is back in Python.
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        ended = threading.Event()

        def wait() -> None:
            while received := reader.recv(1):
                if received[0] in signals and not ended.wait(_PATIENCE_S):
                    with contextlib.suppress(OSError):  # the run itself will say so
                        self.perform()

        thread = threading.Thread(target=wait, name="rescue", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            ended.set()
            sender.close()
            thread.join()
            reader.close()
