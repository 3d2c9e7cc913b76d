"""Which engine trains a run: a function of its configuration and of how many train together, never of measured time."""

from __future__ import annotations

from typing import NamedTuple

from mlp_lightning.config import Config
from mlp_lightning.engines.support import stacked_refuses
from mlp_lightning.errors import ConfigError, Fault


class EngineChoice(NamedTuple):
    """An engine and why it was chosen.

    Attributes:
        name: ``autograd`` or ``stacked``.
        reason: for the user.
    """

    name: str
    reason: str


def choose_engine(config: Config, members: int, rows_refuse: str = "") -> EngineChoice:
    """The engine for ``members`` runs like this one.

    Args:
        config: of the run.
        members: how many train together.
        rows_refuse: why the rows cannot be trained by the stacked engine; empty if they can.

    Raises:
        ConfigError: ``trainer.engine`` asks for one that cannot train the run.
    """
    wanted = config.trainer.engine
    refusal = stacked_refuses(config) or rows_refuse
    if wanted == "stacked" and refusal:
        raise ConfigError(
            [Fault("trainer.engine", wanted, f"cannot train this run: {refusal}", "use trainer.engine=autograd")]
        )
    if wanted == "auto":
        return EngineChoice("stacked", f"{members} runs together") if members > 1 else EngineChoice("autograd", "1 run")
    return EngineChoice(wanted, "as trainer.engine says")
