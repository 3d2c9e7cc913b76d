"""Every exception and warning of this package that a user can meet.

All exceptions derive from :class:`MLPLightningError`, so that a caller can catch all of them with one
name; each also derives from the built-in that fits it, so that code that knows
nothing of this package still handles it. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_VALUE = 300  # characters that a message shows
_LONGEST_NUMBER = 1000  # bits


class _Shown(reprlib.Repr):
    """Values as messages show them. Lists that hold each other many times have no end, so what is shown is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.left = self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = LONGEST_VALUE
        self.maxstring = self.maxother = self.maxlong = 2 * LONGEST_VALUE

    def repr1(self, x: Any, level: int) -> str:
        value = x
        self.left -= 1
        if self.left < 0:
            return "…"
        if isinstance(value, Mapping):  # reprlib sorts the keys
            if level <= 0:
                return "{…}"
            pairs = itertools.islice(value.items(), LONGEST_VALUE)
            return (
                f"{{{', '.join(f'{self.repr1(key, level - 1)}: {self.repr1(one, level - 1)}' for key, one in pairs)}}}"
            )
        if (
            isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER
        ):  # Python refuses to write thousands of digits
            return f"a number of {value.bit_length():,} bits"
        return super().repr1(value, level)


def shown(value: Any) -> str:
    """A value of any size as a message shows it: like ``repr``, on one line, of bounded length."""
    text = " ".join(_Shown().repr(value).split(maxsplit=100))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def shown_error(error: BaseException) -> str:
    """What an error is and says, on one line, of bounded length."""
    text = " ".join(f"{type(error).__name__}: {error}".split(maxsplit=100))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def counted(count: int, noun: str, form: str = ",") -> str:
    """A count with its noun, ``1 row`` or ``1,200 rows``; ``form`` is that of the number."""
    return f"{count:{form}} {noun if count == 1 else f'{noun}s'}"


class MLPLightningError(Exception):
    """Base of all errors that this package raises on purpose; its message is written for the user."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a configuration.

    Attributes:
        key: dotted name of the configuration key, e.g. ``model.hidden_units``.
        value: the value that was given.
        rule: what the value must satisfy, as the end of a sentence ("must be …", "is not a key of …").
        hint: what to do about it, often the nearest valid name; empty when the rule says it all.
    """

    key: str
    value: Any
    rule: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.key} = {shown(self.value)} {self.rule}"
        return f"{text}; {self.hint}" if self.hint else text


class ConfigError(MLPLightningError, ValueError):
    """The configuration is wrong; :attr:`faults` lists every fault that could be found."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        count = len(self.faults)
        title = "The configuration has a fault:" if count == 1 else f"The configuration has {count} faults:"
        return "\n".join([title, *(f"  {fault}" for fault in self.faults)])


class DataError(MLPLightningError, ValueError):
    """The data cannot be used as it is."""


class DeviceError(MLPLightningError, RuntimeError):
    """The requested accelerator or precision is not available on this machine."""


class CheckpointError(MLPLightningError, ValueError):
    """A checkpoint is missing, unreadable, or does not belong to this configuration."""


#: What is wrong with what was asked for, found before anything was done: it leaves nothing behind.
REFUSALS = (ConfigError, DataError, CheckpointError, DeviceError)


class RunFolderError(MLPLightningError, FileExistsError):
    """The run folder already belongs to another run."""


class TrainingError(MLPLightningError, RuntimeError):
    """Training cannot continue; the message names the cause and the optimizer step."""


class NonFiniteLossError(TrainingError):
    """The training loss became NaN or infinite."""


class NoParameterChangedError(TrainingError):
    """Optimizer steps were taken, yet no parameter of the model changed."""


class ExportError(MLPLightningError, RuntimeError):
    """A trained model cannot be exported, or what was exported does not predict as the model does."""


class BaselineWarning(UserWarning):
    """A fitted estimator predicts worse than the class frequencies, or than the mean of the targets."""
