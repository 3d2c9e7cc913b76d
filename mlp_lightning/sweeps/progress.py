"""Shows the progress of a sweep: one bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mlp_lightning.runs.console import RunConsole

_SECONDS_BETWEEN_REFRESHES = 0.1
_SECONDS_BETWEEN_LINES = 10.0


class SweepProgress:
    """Runs done, failed and left, optimizer steps of members per second, and the time left.

    Args:
        console: output for the progress.
        runs: number of runs.
        member_steps: optimizer steps of all runs together, as far as known.
    """

    def __init__(self, console: RunConsole, runs: int, member_steps: int) -> None:
        self._console = console
        self._runs = runs
        self._done = self._failed = 0
        self._steps = 0
        self._all_steps = max(1, member_steps)
        self._started_at = self._refreshed_at = self._line_at = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> SweepProgress:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[runs]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self._console.rich,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=self._all_steps, runs=self._counts(), speed="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._show(force=True)
            self._bar.stop()

    def steps_made(self, steps: int, members: int) -> None:
        """``members`` members have each made ``steps`` more optimizer steps."""
        self._steps += steps * members
        self._show()

    def ended(self, failed: bool) -> None:
        """One more run has ended."""
        self._done += not failed
        self._failed += failed
        self._show()

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._bar is None:
            if now - self._line_at >= _SECONDS_BETWEEN_LINES:
                self._line_at = now
                self._console.line(f"{self._counts()}  {self._speed(now)}")
        elif force or now - self._refreshed_at >= _SECONDS_BETWEEN_REFRESHES:
            self._refreshed_at = now
            steps = min(self._steps, self._all_steps)
            self._bar.update(self._task, completed=steps, runs=self._counts(), speed=self._speed(now))
            self._bar.refresh()

    def _counts(self) -> str:
        left = self._runs - self._done - self._failed
        return f"{self._done} done, {self._failed} failed, {left} left"

    def _speed(self, now: float) -> str:
        return f"{self._steps / max(now - self._started_at, 1e-9):,.0f} member-steps/s"


def silent() -> Console:
    """A console without output: the progress of a sweep is shown for all runs together."""
    return Console(quiet=True)
