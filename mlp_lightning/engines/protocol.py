"""What an engine is: the part of a training that makes optimizer steps and has the weights.

A training has ``K`` members; a *slot* is the index of a member in its engine. The training around it (module, policies,
recorder) is the same for every engine.

Shapes: ``K`` members, ``S`` steps, ``B`` rows, ``C`` outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlp_lightning.engines.trace import Histogram
from mlp_lightning.networks.tasks import Task


@dataclasses.dataclass(frozen=True)
class Trace:
    """The steps of one call of :meth:`Engine.run`, on the CPU.

    Attributes:
        first_step: number of updates made before.
        losses_SK: training loss of every step, measured before its update.
        logged_steps: the steps to log.
        measure: gives :attr:`logged_SK3`; an engine may measure the steps of several traces together.
        histograms: the steps with histograms.
        rates: gives the learning rates of one of the steps, by its position among them: one per slot.
    """

    first_step: int
    losses_SK: Tensor
    logged_steps: list[int]
    measure: Callable[[], Tensor]
    histograms: Sequence[Histogram] = ()
    rates: Callable[[int], Sequence[float]] = lambda position: ()

    @property
    def logged_SK3(self) -> Tensor:
        """Loss, the task's metric and learning rate of the logged steps, on the rows of each; in double precision."""
        return self.measure()

    @property
    def steps(self) -> int:
        return self.losses_SK.shape[0]

    @property
    def next_step(self) -> int:
        """Number of updates made after these steps."""
        return self.first_step + self.steps


@dataclasses.dataclass(frozen=True)
class MemberState:
    """The state of one member as it would be if the run were trained alone.

    Attributes:
        step: optimizer steps made.
        weights: ``state_dict`` of the module.
        optimizer: ``state_dict`` of torch's optimizer.
        schedule: ``state_dict`` of torch's scheduler; empty for a constant learning rate.
        epoch_loss: sum of the losses of the current epoch so far, for a schedule that reads it.
        generators: states of the random number generators, as :mod:`mlp_lightning.engines.generators` has them.
        snapshots: what :meth:`Engine.keep_weights` kept: ``steps``, and ``weights`` by their names in the module, each
            with a leading axis over the steps; empty if it kept none.
    """

    step: int
    weights: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    epoch_loss: float
    generators: Mapping[str, Any]
    snapshots: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Unchanged:
    """A member whose parameters are still the initial ones.

    Attributes:
        slot: of the member.
        names: of its parameters.
        lr: its learning rate.
        gradients_are_zero: whether all gradients of the last step were 0.
        is_held: whether the optimizer has its parameters.
    """

    slot: int
    names: list[str]
    lr: float
    gradients_are_zero: bool
    is_held: bool = True


#: Rows that :meth:`Engine.gradient_norms` looks at, at most.
ROWS_OF_GRADIENTS = 4_096


class Engine(Protocol):
    """Makes optimizer steps for all of its members, and keeps the best state of each."""

    @property
    def name(self) -> str:
        """``autograd``, ``explicit``, ``stacked`` or ``compiled``."""
        ...

    @property
    def task(self) -> Task:
        """What the members learn."""
        ...

    @property
    def members(self) -> int:
        """Number of slots."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Torch's optimizer, for the Trainer."""
        ...

    def begin_execution(self) -> None:
        """Called before the steps of an execution: others may have drawn random numbers since the last."""
        ...

    def run(self, first_step: int, count: int) -> Trace:
        """Make ``count`` optimizer steps, up to a requested stop."""
        ...

    def evaluate(self, split: str, best: bool = False) -> dict[str, list[float]]:
        """Loss and metric of every slot over all rows of a split, in evaluation mode.

        Args:
            split: ``train``, ``val`` or ``test``.
            best: measure the best weights instead of the present ones.
        """
        ...

    def predictions(self, split: str, best: bool = False) -> NDArray[np.float64]:
        """Probabilities (or values) of every slot for all rows of a split, ``(K, B, C)``."""
        ...

    def after_validation(self, losses: Sequence[float]) -> None:
        """Let schedules follow the validation loss of each slot."""
        ...

    def end(self, slots: Sequence[int]) -> None:
        """These members have ended; they may still be trained, but their results are no longer read."""
        ...

    def keep(self, slots: Sequence[int]) -> None:
        """Continue with these slots only; the others take no more time."""
        ...

    def remember(self, slots: Sequence[int]) -> None:
        """Keep a copy of the present state of these slots as their best."""
        ...

    def keep_weights(self) -> None:
        """Keep a copy of the present weights of all slots, to show the training by."""
        ...

    def snapshot(self) -> Any:
        """What a validation may change; with the present weights it makes up the present state."""
        ...

    def states(self, slots: Sequence[int], snapshot: Any) -> list[MemberState]:
        """The state of these slots at the last step, on the CPU."""
        ...

    def best_states(self, slots: Sequence[int]) -> list[MemberState | None]:
        """The best state of these slots, on the CPU; ``None`` for a slot without one."""
        ...

    def load(self, state: MemberState, best: MemberState | None) -> None:
        """Let the only member continue from a state that :meth:`states` returned, and from the best before it."""
        ...

    def continue_optimizer(self, state: Mapping[str, Any]) -> None:
        """Take over what the optimizer of the only member remembers of the weights, but not its options.

        Args:
            state: ``state_dict`` of torch's optimizer, parameter by parameter.
        """
        ...

    def unchanged(self) -> list[Unchanged]:
        """The members in which no parameter has changed since the start of the run; call it once."""
        ...

    def gradient_norms(self) -> list[dict[str, float]]:
        """For each slot the norm of the gradient of the training loss with respect to the outputs of each linear layer.

        By layer, first to last, at the present weights, over at most some thousand of the training rows. (The gradient
        of the weights is no measure of what passes a layer: where nothing was learned, the rows cancel each other.)
        """
        ...

    def network(self, slot: int) -> nn.Module:
        """A copy of the network of one member, on the CPU."""
        ...

    def save(self) -> dict[str, Any]:
        """The state of all slots, their best included, as plain data and tensors on the CPU."""
        ...

    def saves(self, snapshot: Any) -> Callable[[], dict[str, Any]]:
        """What gives that state, with the present weights and a snapshot of the rest.

        Another thread may call it as long as the engine of a stack evaluates and does nothing else.
        """
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`save` returned for the same members."""
        ...
