"""What a run says: to the terminal, and to ``train.log`` in its folder."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console, RenderableType

log = logging.getLogger("mlp_lightning")
log.addHandler(logging.NullHandler())  # where nobody logs, Python would print warnings a second time
#: How a line begins that warns.
WARNING = "Warning: "
# What the splits of the rows are called in prose.
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


class _PatientConsole(Console):
    """Continues silently when its pipe is closed, as after ``| head``: the training is what counts."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # What is still buffered would fail again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            # This is how Windows says that a pipe is closed.
            if sys.platform != "win32" or error.errno != errno.EINVAL:
                raise
            self.on_broken_pipe()


class _LogFile(logging.FileHandler):
    """A file of log lines. On a full disk they are lost without a traceback; what a run needs says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # the name of logging
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # what is still buffered
            super().close()


def level_of(line: str) -> str:
    """The level at which a line is logged."""
    return "WARNING" if line.startswith(WARNING) else "INFO"


def print_error(text: str) -> None:
    """Print on the standard error output, whatever the verbosity."""
    log.error("%s", text)
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def short_path(path: Path) -> Path:
    """The path as you would type it: relative if it is below the working folder, else absolute."""
    whole, here = Path(os.path.abspath(path)), Path.cwd()  # noqa: PTH100  # Path.resolve would follow your links
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


class RunConsole:
    """Prints for the user, unless verbosity is 0, and logs every line.

    Args:
        verbosity: 0 prints nothing, 1 the progress and the result, 2 also what Lightning has to say.
        console: where to print; standard output if ``None``.
    """

    def __init__(self, verbosity: int, console: Console | None = None) -> None:
        self.verbosity = verbosity
        self.rich = console or _PatientConsole(highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether there is a terminal that wants a moving progress bar."""
        return self.verbosity > 0 and self.rich.is_terminal

    def line(self, text: str = "", in_terminal: RenderableType | None = None) -> None:
        """Print and log one line (or several) of plain text.

        Args:
            text: what to print and log.
            in_terminal: what a terminal shows in its place.
        """
        if self.is_terminal and in_terminal is not None:
            self.rich.print(in_terminal)
        elif self.verbosity > 0:
            self.rich.print(text, markup=False)
        for one in text.splitlines():
            log.log(logging.getLevelName(level_of(one)), one)

    @contextmanager
    def logging_to(self, path: Path | None) -> Iterator[None]:
        """Inside the context, log lines of this package and of Lightning go to ``path``.

        Without a path Lightning's go nowhere, and this package's where they went before. For verbosity 2,
        Lightning's also go to the terminal.
        """
        file = logging.NullHandler() if path is None else _LogFile(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
        before: list[tuple[logging.Logger, int, list[logging.Handler], bool]] = []
        ours = () if path is None else ("mlp_lightning",)
        for name in (*ours, "lightning.pytorch", "lightning.fabric"):
            logger = logging.getLogger(name)
            before.append((logger, logger.level, logger.handlers.copy(), logger.propagate))
            logger.setLevel(logging.INFO)
            to_terminal = self.verbosity > 1 and name != "mlp_lightning"
            logger.handlers = [file, logging.StreamHandler()] if to_terminal else [file]
            logger.propagate = False
        try:
            yield
        finally:
            for logger, level, handlers, propagate in before:
                logger.setLevel(level)
                logger.handlers, logger.propagate = handlers, propagate
            file.close()
