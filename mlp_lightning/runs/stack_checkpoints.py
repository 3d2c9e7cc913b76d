"""The state of a whole stack in one file: what a killed sweep continues from.

All members are written together, by one rename: the file holds the state of all of them after one step, or it is the
one before. A stack continues with the same slots, those of ended members included, because what a slot computes may
depend on how many there are, in the last bit.

Shapes: ``K`` slots.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlp_lightning.config import Config, parse_config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import CheckpointError
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.run_folder import config_hash
from mlp_lightning.runs.stack_keeper import Best, Moment, StackKeeper

_FORMAT = "mlp_lightning stack 1"


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
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{path} cannot be read as the state of a stack ({type(error).__name__}). Remove it to train its runs"
                " from the start."
            ) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise CheckpointError(f"{path} is not the state of a stack of this version. Remove it.")
        return cls(path, content)

    @property
    def step(self) -> int:
        return self.content["moment"]["step"]

    def check_rows(self, digests: Sequence[str]) -> None:
        """Refuse rows that are not those that the stack was trained on.

        Args:
            digests: of the rows of every slot.

        Raises:
            CheckpointError: the rows of a slot have changed.
        """
        for one, digest in zip(self.content["slots"], digests, strict=True):
            if one["rows"] != digest:
                name = one["config"]["data"]["path"] or one["config"]["data"]["name"]
                raise CheckpointError(f"{self.path} was trained on other rows than {name} has now")

    @property
    def hashes(self) -> list[str]:
        """Hash of the configuration of every member that still trained."""
        return [one["hash"] for one in self.content["slots"] if one["active"]]

    def slots(self, configs: Sequence[Config]) -> list[tuple[Config, int | None]]:
        """For every slot its configuration, and which of ``configs`` it is.

        ``None`` for a member that has ended, or that nobody asks for (it has ended after the stack was saved).

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
                slots.append((parse_config(one["config"]), None))
        return slots


def save_stack(
    path: Path, keeper: StackKeeper, members: Sequence[tuple[Config, str]], fixed: Mapping[str, Any]
) -> None:
    """Write the state of a stack between two steps.

    Args:
        path: of the file; an earlier one is replaced.
        keeper: of the stack.
        members: of all that the stack has had, the configuration and the digest of its rows.
        fixed: what a stack that continues takes over as it is: ``threads`` (another number may change the last bit) and
            ``steps_per_execution``.
    """
    assert keeper.module is not None
    present = keeper.module.present
    moment = keeper.moment()
    slots = []
    for slot, member in enumerate(present):
        best, (config, rows) = keeper.best[member], members[member]
        slots.append(
            {
                "config": config.to_dict(),
                "hash": config_hash(config),
                "rows": rows,
                "active": member in keeper.active,
                "stopped": keeper.stopped.get(member, ""),
                "best": {"value": best.value, "step": best.step},
                "best_moment": None if best.moment is None else _plain(best.moment, [best.moment.places[member]]),
            }
        )
        assert moment.places[member] == slot
    content = {
        "format": _FORMAT,
        "fixed": dict(fixed),
        "scales_loss": keeper.module.loop.optimizer.scales_loss,
        "slots": slots,
        "moment": _plain(moment, range(len(present))),
        "tensors": _on_cpu(keeper.tensors()),
        "best_tensors": _on_cpu(keeper.best_tensors),
        "initial": None if keeper.initial_N is None else keeper.initial_N.cpu(),
        "history": keeper.history.state(present),
    }
    with atomic_write(path) as file:
        torch.save(content, file)


def digest_of_rows(data: TabularDataModule) -> str:
    """SHA-256 of all rows of a data module: a table that has changed has another one."""
    digest = hashlib.sha256()
    for name, rows in data.splits.items():
        for values in (rows.features_BF, rows.targets, rows.weights_B):
            if values is not None:
                digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
                digest.update(values.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def restore_stack(keeper: StackKeeper, saved: SavedStack) -> None:
    """Bring a stack that has just been built to the state in which it was saved."""
    module, content = keeper.module, saved.content
    assert module is not None
    loop, model = module.loop, module.model
    moment = _moment(content["moment"], range(model.members))
    tensors = {name: one.to(model.flat_N.device) for name, one in content["tensors"].items()}
    with torch.no_grad():
        model.flat_N.copy_(tensors.pop("weights"))
    loop.optimizer.use_scaled_loss(content["scales_loss"])
    loop.optimizer.load_state(moment.common, tensors)
    loop.schedule.load_state(moment.schedules)
    loop.optimizer.set_rates(loop.schedule.rates())
    loop.epoch_loss_K = torch.tensor(moment.epoch_losses, dtype=torch.float64)
    if loop.dropout is not None and moment.generators is not None:
        loop.dropout.load_states(moment.generators)
    keeper.best_tensors = {name: one.to(model.flat_N.device) for name, one in content["best_tensors"].items()}
    initial_N = content["initial"]
    keeper.initial_N = None if initial_N is None else initial_N.to(model.flat_N.device)
    keeper.history.load_state(content["history"])
    for slot, one in enumerate(content["slots"]):
        then = one["best_moment"]
        keeper.best[slot] = Best(**one["best"], moment=None if then is None else _moment(then, [slot]))
        keeper.restore_member(slot, one["active"], moment.stopping[slot], one["stopped"])
        loop.active[slot] = one["active"]


def _plain(moment: Moment, places: Sequence[int]) -> dict[str, Any]:
    """What a snapshot says of the members at some places of it, as plain data."""
    return {
        "step": moment.step,
        "schedules": [list(moment.schedules[one]) for one in places],
        "common": moment.common,
        "epoch_losses": [moment.epoch_losses[one] for one in places],
        "stopping": [list(moment.stopping[one]) for one in places],
        "generators": None if moment.generators is None else [moment.generators[one] for one in places],
    }


def _moment(plain: Mapping[str, Any], members: Sequence[int]) -> Moment:
    return Moment(
        plain["step"],
        {member: place for place, member in enumerate(members)},
        [(alone, group) for alone, group in plain["schedules"]],
        plain["common"],
        plain["epoch_losses"],
        [(wait, score, stopped) for wait, score, stopped in plain["stopping"]],
        plain["generators"],
    )


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: one.detach().cpu() for name, one in tensors.items()}
