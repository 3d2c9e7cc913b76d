"""The runs of a training: what is asked, their folders and rows, and what is known of all from the start on."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import time
from collections.abc import Collection, Sequence
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.protocol import MemberState
from mlp_lightning.runs.build import build_module, module_config
from mlp_lightning.runs.own_parts import OwnParts
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a training.

    Attributes:
        config: what to train.
        folder: claimed for it.
        data: its rows.
        own: its parts that are the user's own.
    """

    config: Config
    folder: RunFolder
    data: TabularDataModule
    own: OwnParts = OwnParts()

    @functools.cached_property
    def hyper_parameters(self) -> dict[str, Any]:
        """Those of its module, as plain data that checkpoints share; its rows are set up by now."""
        return module_config(self.config, self.data).to_dict()


@dataclasses.dataclass(frozen=True)
class TrainingFacts:
    """What is known of a training from its start on.

    Attributes:
        members: all of it.
        engine: that trains them.
        metric_name: of the task.
        last_step: number of steps of the whole training.
        left_out: members of which nothing is written: they had ended before the training continued.
        resumed_from: what it continues from; ``None`` if it is new.
        keeps_modules: whether the results of finished members have their trained modules.
        has_card: whether each finished member leaves a ``model_card.md``.
        logs_live: whether ``train.log`` is written while it trains.
        started_at: when it started.
        started: the same by the monotonic clock.
    """

    members: Sequence[Member]
    engine: str
    metric_name: str
    last_step: int
    left_out: Collection[int] = ()
    resumed_from: str | None = None
    keeps_modules: bool = False
    has_card: bool = False
    logs_live: bool = False
    started_at: datetime.datetime = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc)
    )
    started: float = dataclasses.field(default_factory=time.monotonic)


def with_module(
    result: TrainingResult, member: Member, last: MemberState | None, best: MemberState | None
) -> TrainingResult:
    """The result with the trained module, in the weights that are reported, and the optimizer's last state."""
    if last is None:
        return result
    state = best if result.weights == "best" and best is not None else last
    module = build_module(member.config, member.data, member.own).to(member.data.dtype)
    module.load_state_dict(state.weights)
    return dataclasses.replace(result, module=module, optimizer_state=dict(last.optimizer))
