"""Which engine trains a run: a function of its configuration and of how many train together, never of measured time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlp_lightning.config import Config
from mlp_lightning.engines.sizing import compiled_seconds, explicit_seconds, stack_seconds
from mlp_lightning.engines.support import compiled_refuses, explicit_refuses, stacked_refuses
from mlp_lightning.errors import ConfigError, Fault

#: The engines of stacks.
STACKS = ("stacked", "compiled")
# A kernel has to save more than this.
_SECONDS_TO_COMPILE = 0.4


class EngineChoice(NamedTuple):
    """An engine and why it was chosen.

    Attributes:
        name: ``autograd``, ``explicit``, ``stacked`` or ``compiled``.
        reason: for the user.
    """

    name: str
    reason: str

    @property
    def is_stack(self) -> bool:
        """Whether the members have a leading axis, even if there is one of them."""
        return self.name in STACKS


class Work(NamedTuple):
    """What a training has to do.

    Attributes:
        layer_widths: of the widest member, from the input features to the outputs.
        rows_per_step: rows that one optimizer step sees.
        steps: of the whole run.
        needs_module: whether somebody looks at the module of a run alone while it trains.
    """

    layer_widths: Sequence[int]
    rows_per_step: int
    steps: int
    needs_module: bool = False


def choose_engine(
    config: Config, members: int, work: Work, rows_refuse: str = "", is_on_cpu: bool = True
) -> EngineChoice:
    """The engine for ``members`` runs like this one.

    Args:
        config: of the run.
        members: how many train together.
        work: of the training.
        rows_refuse: why the rows cannot be trained by the compiled kernel; empty if they can.
        is_on_cpu: whether the device of the training is the CPU.

    Raises:
        ConfigError: ``trainer.engine`` asks for one that cannot train the run.
    """
    wanted = config.trainer.engine
    refusal = ""
    if wanted == "stacked":
        refusal = stacked_refuses(config)
    elif wanted == "compiled":
        refusal = compiled_refuses(config) or rows_refuse or ("" if is_on_cpu else "it is compiled for CPUs")
    elif wanted == "explicit":
        refusal = explicit_refuses(config) or ("" if is_on_cpu else "it was tried on CPUs only")
    if refusal:
        other = "autograd" if wanted == "stacked" or stacked_refuses(config) else "stacked"
        hint = f"use trainer.engine={other}"
        raise ConfigError([Fault("trainer.engine", wanted, f"cannot train this run: {refusal}", hint)])
    if wanted == "auto" and members > 1:
        return _choose_for_stack(config, members, work, rows_refuse, is_on_cpu)
    if wanted == "auto":
        return _choose_for_one(config, work, rows_refuse, is_on_cpu)
    return EngineChoice(wanted, "as trainer.engine says")


def _choose_for_one(config: Config, work: Work, rows_refuse: str, is_on_cpu: bool) -> EngineChoice:
    refusal = explicit_refuses(config) or ("" if is_on_cpu else "explicit is for CPUs")
    if refusal:
        return EngineChoice("autograd", refusal)
    saved = work.steps * (explicit_seconds(work.layer_widths, work.rows_per_step) - _compiled(1, work))
    if saved > _SECONDS_TO_COMPILE and not (work.needs_module or rows_refuse or compiled_refuses(config)):
        return EngineChoice("compiled", "1 run of many small steps")
    return EngineChoice("explicit", "1 run")


def _compiled(members: int, work: Work) -> float:
    return compiled_seconds(members, work.layer_widths, work.rows_per_step)


def _choose_for_stack(config: Config, members: int, work: Work, rows_refuse: str, is_on_cpu: bool) -> EngineChoice:
    reason = f"{members} runs together"
    refusal = (compiled_refuses(config) or rows_refuse) if is_on_cpu else "compiled is for CPUs"
    if refusal:
        return EngineChoice("stacked", f"{reason}; {refusal}")
    stacked = stack_seconds(members, work.layer_widths, work.rows_per_step)
    saved = work.steps * (stacked - _compiled(members, work))
    return EngineChoice("compiled" if saved > _SECONDS_TO_COMPILE else "stacked", reason)
