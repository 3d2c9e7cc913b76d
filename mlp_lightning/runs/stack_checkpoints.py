"""The state of a whole stack in one file: what a killed sweep continues from.

All members are written together, by one rename: the file holds the state of all of them after one step, or it is the
one before. A stack continues with the same slots, those of ended members included, because what a slot computes may
depend on how many there are, in the last bit.

Shapes: ``K`` slots.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs.checkpoint_content import SCALARS, Each, read_content
from mlp_lightning.runs.engines import Sizing
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.history import MetricsHistory
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.policies import Best, Policies, Snapshot, Stopping
from mlp_lightning.runs.run_folder import config_hash
from mlp_lightning.tables.fingerprint import differences

_FORMAT = "mlp_lightning stack 5"
_STOPPING = [(int, float, str)]
_SLOT = {
    "config": Each((*SCALARS, list, dict)),
    "hash": str,
    "rows": (dict, type(None)),
    "active": bool,
    "stopping": _STOPPING,
    "best": [(int, float, type(None), _STOPPING)],
}
# Whether the validation that is due at this step comes yet.
PENDING_KEY = "validation_pending"
_FIXED = {"engine": str, "threads": int, "steps_per_execution": int}
_STACK = {"format": str, "step": int, "fixed": _FIXED, "slots": [_SLOT], "engine": dict, "history": dict}
_STACK[f"{PENDING_KEY}?"] = bool


@dataclasses.dataclass(frozen=True)
class SavedStack:
    """A stack as it was saved.

    Attributes:
        path: its file.
        content: all of it, as plain data and tensors on the CPU.
    """

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> SavedStack:
        """Read a stack; never runs code that may be in the file.

        Raises:
            CheckpointError: the file is damaged, or is none of a stack.
        """
        try:
            content = read_content(path, _STACK, "the state of a stack of this version", prefix="")
            if content["format"] != _FORMAT:
                raise CheckpointError(f"{path} is not the state of a stack of this version.")
        except CheckpointError as error:
            raise CheckpointError(f"{error} Remove it to train its runs from the start.") from error
        return cls(path, content)

    @property
    def sizing(self) -> Sizing:
        return Sizing(**self.content["fixed"])

    @property
    def step(self) -> int:
        return self.content["step"]

    @property
    def has_best(self) -> bool:
        """Whether every member that still trained has a best."""
        return all(one["best"][1] is not None for one in self.content["slots"] if one["active"])

    def check_rows(self, fingerprints: Sequence[Mapping[str, Any]]) -> None:
        """Refuse rows that are not those that the stack was trained on.

        Args:
            fingerprints: of the rows of every slot.

        Raises:
            CheckpointError: the rows of a slot have changed.
        """
        for one, now in zip(self.content["slots"], fingerprints, strict=True):
            if changes := differences(one["rows"], now):
                name = one["config"]["data"]["path"] or one["config"]["data"]["name"]
                raise CheckpointError(f"{self.path} was trained on other rows than {name} has now: {changes}")

    @property
    def hashes(self) -> list[str]:
        """Hash of the configuration of every member that still trained."""
        return [one["hash"] for one in self.content["slots"] if one["active"]]

    def rows_of(self, hash_of_config: str) -> Mapping[str, Any]:
        """The fingerprint of the rows of a member."""
        return next(one["rows"] for one in self.content["slots"] if one["hash"] == hash_of_config)

    def slots(self, configs: Sequence[Config]) -> list[tuple[Config, int | None]]:
        """For every slot its configuration, and which of ``configs`` it is.

        ``None`` for a member that has ended, or that is not asked for (it has ended after the stack was saved).

        Raises:
            CheckpointError: one of ``configs`` is none of the members that still trained.
        """
        of_hash: dict[str, list[int]] = {}
        for number, one in enumerate(configs):
            of_hash.setdefault(config_hash(one), []).append(number)
        here = Counter(self.hashes)
        if any(len(numbers) > here[key] for key, numbers in of_hash.items()):
            raise CheckpointError(f"{self.path} holds other runs than these. Remove it to train them from the start.")
        slots: list[tuple[Config, int | None]] = []
        for one in self.content["slots"]:
            if one["active"] and of_hash.get(one["hash"]):
                number = of_hash[one["hash"]].pop(0)
                slots.append((configs[number], number))
            else:
                slots.append((parse_complete(one["config"]), None))
        return slots


def stack_content(
    policies: Policies, history: MetricsHistory, members: Sequence[Member], fixed: Sizing, snapshot: Snapshot
) -> Callable[[], dict[str, Any]]:
    """What gives the state of a stack between two steps; part of it is the stack's, unless it is copied.

    Another thread may call it as long as the stack measures its members and does nothing else.

    Args:
        policies: of the stack.
        history: what was measured.
        members: of all that the stack has had.
        fixed: what a stack that continues takes over as it is: another engine or number of threads may change the last
            bit.
        snapshot: of the state.
    """
    present, step = list(policies.present), policies.step
    slots = [(members[one], policies.is_active(one), policies.best[one], snapshot.stopping[one]) for one in present]
    engine_state = policies.engine.saves(snapshot.engine)
    # What the last validation has measured is measured again, unless it is one of those that all runs have.
    is_repeated = policies.milestones.validates(step) and not policies.milestones.is_regular_validation(step)

    def content() -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "step": step,
            "fixed": fixed._asdict(),
            "slots": [_slot_content(*one) for one in slots],
            "engine": engine_state(),
            "history": history.state(present, step if is_repeated else None),
        }

    return content


def _slot_content(member: Member, is_active: bool, best: Best, stopping: Stopping) -> dict[str, Any]:
    return {
        "config": member.config.sections(),
        "hash": config_hash(member.config),
        "rows": member.data.fingerprint,
        "active": is_active,
        "stopping": list(stopping),
        "best": [best.value, best.step, None if best.stopping is None else list(best.stopping)],
    }


def save_stack(path: Path, content: Mapping[str, Any]) -> None:
    """Write the state of a stack; an earlier file is replaced."""
    with atomic_write(path) as file:
        torch.save(content, file)


def restore_stack(policies: Policies, history: MetricsHistory, saved: SavedStack) -> None:
    """Bring a stack that has just been built to the state in which it was saved."""
    policies.engine.restore(saved.content["engine"])
    history.load_state(saved.content["history"])
    policies.step, policies.validation_pending = saved.step, saved.content.get(PENDING_KEY, False)
    for slot, one in enumerate(saved.content["slots"]):
        value, step, stopping = one["best"]
        best = Best(value, step, None if stopping is None else Stopping(*stopping))
        policies.restore_member(slot, one["active"], best, Stopping(*one["stopping"]))
