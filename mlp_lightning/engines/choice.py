"""Which engine trains a run: a function of its configuration and of how many train together, never of measured time."""

from __future__ import annotations

from typing import NamedTuple

from mlp_lightning.config import Config
from mlp_lightning.engines.support import explicit_refuses, stacked_refuses
from mlp_lightning.errors import ConfigError, Fault


class EngineChoice(NamedTuple):
    """An engine and why it was chosen.

    Attributes:
        name: ``autograd``, ``explicit`` or ``stacked``.
        reason: for the user.
    """

    name: str
    reason: str


def choose_engine(config: Config, members: int, rows_refuse: str = "", is_on_cpu: bool = True) -> EngineChoice:
    """The engine for ``members`` runs like this one.

    Args:
        config: of the run.
        members: how many train together.
        rows_refuse: why the rows cannot be trained by the stacked engine; empty if they can.
        is_on_cpu: whether the device of the training is the CPU.

    Raises:
        ConfigError: ``trainer.engine`` asks for one that cannot train the run.
    """
    wanted = config.trainer.engine
    refusal = ""
    if wanted == "stacked":
        refusal = stacked_refuses(config) or rows_refuse
    elif wanted == "explicit":
        refusal = explicit_refuses(config) or ("" if is_on_cpu else "it was tried on CPUs only")
    if refusal:
        raise ConfigError(
            [Fault("trainer.engine", wanted, f"cannot train this run: {refusal}", "use trainer.engine=autograd")]
        )
    if wanted == "auto" and members > 1:
        return EngineChoice("stacked", f"{members} runs together")
    if wanted == "auto":
        refusal = explicit_refuses(config) or ("" if is_on_cpu else "explicit is for CPUs")
        return EngineChoice("autograd", refusal) if refusal else EngineChoice("explicit", "1 run")
    return EngineChoice(wanted, "as trainer.engine says")
