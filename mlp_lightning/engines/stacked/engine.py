"""The engine for many small MLPs: one flat parameter with a member axis, gradients written out.

Shapes: ``K`` members, ``B`` rows, ``F`` input features, ``C`` outputs (logits), ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlp_lightning.engines.generators import InitialGenerators
from mlp_lightning.engines.protocol import ROWS_OF_GRADIENTS, MemberState, Trace, Unchanged
from mlp_lightning.engines.stacked.loop import StackedLoop
from mlp_lightning.engines.stacked.optimizer import SCHEDULED
from mlp_lightning.engines.stacked.stack import Stack
from mlp_lightning.engines.stacked.steps import StackedSteps
from mlp_lightning.engines.steps import Batch
from mlp_lightning.networks.tasks import Task

# Rows are evaluated in parts, so that no layer's output has more numbers than this.
_EVALUATED_NUMBERS = 2**24


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of every slot after some step, without tensors as large as the weights.

    Attributes:
        step: optimizer steps made.
        schedules: state of the scheduler alone, and entries of the parameter group.
        common: state of the optimizer that is the same for all.
        epoch_losses: sum of the epoch's losses so far.
    """

    step: int
    schedules: list[tuple[dict[str, Any], dict[str, Any]]]
    common: dict[str, Any]
    epoch_losses: list[float]

    def of(self, slot: int) -> Snapshot:
        """The state of one slot, without the states of the others."""
        return Snapshot(self.step, [self.schedules[slot]], self.common, [self.epoch_losses[slot]])

    def to_plain(self) -> dict[str, Any]:
        return {**vars(self), "schedules": [list(one) for one in self.schedules]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Snapshot:
        return cls(**{**plain, "schedules": [(alone, group) for alone, group in plain["schedules"]]})


class StackedEngine:
    """Trains a :class:`~mlp_lightning.engines.stacked.stack.Stack`.

    Args:
        loop: over the steps of the stack.
        rows: the rows of a split, of all members that the stack was built with.
        preprocessors: the buffers of the preprocessing of each member, by their names in its module.
        seeds: of each member.
    """

    name = "stacked"

    def __init__(
        self,
        loop: StackedLoop,
        rows: Callable[[str], StackedSteps],
        preprocessors: Sequence[Mapping[str, Tensor]],
        seeds: Sequence[int],
    ) -> None:
        self.loop = loop
        self._rows_of = rows
        self._rows: dict[str, StackedSteps] = {}
        self._preprocessors = list(preprocessors)
        self._seeds = list(seeds)
        #: For each slot, its number when the stack was built.
        self._present = list(range(loop.model.members))
        self._step = 0
        self._initial_N: Tensor | None = loop.model.flat_N.detach().clone()
        self._best: list[Snapshot | None] = [None] * loop.model.members
        self._best_tensors: dict[str, Tensor] = {}
        #: Weights by the steps after which they were kept.
        self._kept: dict[int, Tensor] = {}

    @property
    def members(self) -> int:
        return self.loop.model.members

    @property
    def model(self) -> Stack:
        return self.loop.model

    @property
    def task(self) -> Task:
        return self.loop.task

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.loop.optimizer.optimizer

    @property
    def learning_rates(self) -> list[float]:
        return self.loop.optimizer.learning_rates.tolist()

    def begin_execution(self) -> None:
        """Nothing to do: no step draws random numbers."""

    def run(self, first_step: int, count: int) -> Trace:
        """Make ``count`` optimizer steps, up to a requested stop."""
        trace = self.loop.run(first_step, count)
        self._step = trace.next_step
        return trace

    @torch.no_grad()
    def evaluate(self, split: str, best: bool = False) -> dict[str, list[float]]:
        """Loss and metric of every slot over all rows of a split."""
        features, targets, weights = self._split(split)
        model, task = self.model, self.task
        # Members with fewer rows than others have rows of weight 0.
        total_weight = features.shape[-2] if weights is None else weights.sum(-1)
        total: dict[str, Tensor] = {}
        for here in self._parts(features):
            part_weights = None if weights is None else weights[here]
            logits_KBC = self._logits(features[here], best)
            share = (logits_KBC.shape[1] if part_weights is None else part_weights.sum(-1)) / total_weight
            metrics = {
                "loss": task.loss(logits_KBC, targets[here], weights_B=part_weights),
                task.metric_name: task.metric(logits_KBC, targets[here], part_weights),
            }
            for name, metric in metrics.items():
                metric_K = metric.double() * share
                total[name] = total[name] + metric_K if name in total else metric_K
        return {name: metric_K.to(model.flat_N.dtype).tolist() for name, metric_K in total.items()}

    @torch.no_grad()
    def predictions(self, split: str, best: bool = False) -> NDArray[np.float64]:
        """Probabilities (or values) of every slot for all rows of a split, ``(K, B, C)``.

        A member with fewer rows than another has meaningless predictions after its own.
        """
        features = self._split(split)[0]
        parts = [self._logits(features[here], best).cpu() for here in self._parts(features)]
        return self.task.predictions(torch.cat(parts, dim=1)).double().numpy()

    def _parts(self, features: Tensor) -> Iterator[tuple[slice, ...]]:
        """Where the rows of a split are of which the hidden units of all members fit into memory together."""
        rows, part = features.shape[-2], max(1, _EVALUATED_NUMBERS // (self.model.members * self.model.widest))
        of_all = () if features.dim() == 2 else (slice(None),)
        return ((*of_all, slice(start, start + part)) for start in range(0, rows, part))

    def after_validation(self, losses: Sequence[float]) -> None:
        """Let schedules follow the validation loss of each slot."""
        self.loop.step_on_validation(losses)

    def end(self, slots: Sequence[int]) -> None:
        """Stop the schedules of these slots."""
        for slot in slots:
            self.loop.active[slot] = False

    def keep(self, slots: Sequence[int]) -> None:
        """Continue with these slots only; the others take no more time."""
        before, chosen = self.model, self.model.select(slots)
        self.loop = self.loop.select(slots, chosen)
        self._rows = {split: one.select(slots) for split, one in self._rows.items()}
        self._best_tensors = {name: before.selected(one, slots, chosen) for name, one in self._best_tensors.items()}
        self._kept = {step: before.selected(one, slots, chosen) for step, one in self._kept.items()}
        if self._initial_N is not None:
            self._initial_N = before.selected(self._initial_N, slots, chosen)
        self._present = [self._present[slot] for slot in slots]
        self._best = [self._best[slot] for slot in slots]
        self._preprocessors = [self._preprocessors[slot] for slot in slots]
        self._seeds = [self._seeds[slot] for slot in slots]

    def remember(self, slots: Sequence[int]) -> None:
        """Keep a copy of the present state of these slots as their best."""
        snapshot = self.snapshot()
        for slot in slots:
            self._best[slot] = snapshot.of(slot)
        index = torch.tensor(slots, device=self.model.flat_N.device)
        for name, present_N in self._tensors().items():
            kept_N = self._best_tensors.get(name)
            if kept_N is None or len(slots) == self.members:
                self._best_tensors[name] = present_N.clone()
                continue
            blocks = zip(self.model.per_member(kept_N), self.model.per_member(present_N), strict=True)
            for kept, present in blocks:
                kept[index] = present[index]

    def keep_weights(self) -> None:
        """Keep a copy of the present weights of all slots, to show the training by."""
        self._kept[self._step] = self.model.flat_N.detach().clone()

    def snapshot(self) -> Snapshot:
        """The present state of every slot, without tensors as large as the weights."""
        loop = self.loop
        return Snapshot(
            self._step,
            loop.schedule.state(),
            loop.optimizer.common_state(),
            loop.epoch_loss_K.tolist(),
        )

    def states(self, slots: Sequence[int], snapshot: Snapshot) -> list[MemberState]:
        """The state of these slots at the last step, on the CPU."""
        tensors = _on_cpu(self._tensors())
        states = [self._state(slot, tensors, snapshot.of(slot)) for slot in slots]
        if not self._kept:
            return states
        kept_SN, places_N = torch.stack([*self._kept.values()]).cpu(), torch.arange(self.model.flat_N.numel())
        for number, slot in enumerate(slots):
            places = self.model.state_of(places_N, slot)
            weights = {name: kept_SN[:, here].contiguous() for name, here in places.items()}
            kept = {"steps": [*self._kept], "weights": weights}
            states[number] = dataclasses.replace(states[number], snapshots=kept)
        return states

    def best_states(self, slots: Sequence[int]) -> list[MemberState | None]:
        """The best state of these slots, on the CPU; ``None`` for a slot without one."""
        tensors, best = _on_cpu(self._best_tensors), [self._best[slot] for slot in slots]
        return [None if one is None else self._state(slot, tensors, one) for slot, one in zip(slots, best, strict=True)]

    def unchanged(self) -> list[Unchanged]:
        """The members in which no parameter has changed since the start of the run; call it once."""
        initial_N, self._initial_N = self._initial_N, None
        if initial_N is None:
            return []
        model = self.model
        blocks = zip(model.learned(initial_N), model.learned(model.flat_N.detach()), strict=True)
        changed_K = torch.stack([(one != other).flatten(1).any(1) for one, other in blocks]).any(0)
        if changed_K.all():
            return []
        gradients = [block.flatten(1).any(1) for block in model.learned(self.loop.optimizer.gradient_N)]
        no_gradient_K = ~torch.stack(gradients).any(0)
        names, learning_rates = model.parameter_names, self.learning_rates
        return [
            Unchanged(slot, names, learning_rates[slot], bool(no_gradient_K[slot]))
            for slot in (~changed_K).nonzero().flatten().tolist()
        ]

    def gradient_norms(self) -> list[dict[str, float]]:
        """The norm of the gradient with respect to the outputs of each linear layer, for every slot."""
        features, targets, weights = self._split("train")
        rows, model = features.shape[-2], self.model
        part = _EVALUATED_NUMBERS // (model.members * model.widest)
        interval = -(-rows // max(1, min(ROWS_OF_GRADIENTS, part)))
        some = (slice(None, None, interval),)
        here = some if features.dim() == 2 else (slice(None), *some)
        with torch.enable_grad():
            outputs = list(model.layer_outputs(features[here]))
            part_weights = None if weights is None else weights[here]
            losses_K = self.task.loss(outputs[-1], targets[here], weights_B=part_weights)
            gradients = torch.autograd.grad(losses_K.sum(), outputs)
        norms_LK = [gradient_KBO.flatten(1).norm(dim=1).tolist() for gradient_KBO in gradients]
        return [dict(zip(model.layer_names, norms, strict=True)) for norms in zip(*norms_LK, strict=True)]

    def network(self, slot: int) -> nn.Module:
        """A copy of the network of one member, on the CPU."""
        return self.model.unstack(slot).cpu()

    def save(self) -> dict[str, Any]:
        """The state of all slots, their best included, as plain data and tensors on the CPU."""
        return self.saves(self.snapshot())()

    def saves(self, snapshot: Snapshot) -> Callable[[], dict[str, Any]]:
        """What gives the state of all slots, without working it out now."""
        # Evaluating the best puts other weights into the model meanwhile.
        tensors, best_tensors, best = self._tensors(), dict(self._best_tensors), list(self._best)
        initial_N, active, kept = self._initial_N, list(self.loop.active), dict(self._kept)

        def state() -> dict[str, Any]:
            return {
                "present": snapshot.to_plain(),
                "tensors": _on_cpu(tensors),
                "best": [None if one is None else one.to_plain() for one in best],
                "best_tensors": _on_cpu(best_tensors),
                "initial": None if initial_N is None else initial_N.cpu(),
                "kept": {step: one.cpu() for step, one in kept.items()},
                "scales_loss": self.loop.optimizer.scales_loss,
                "active": active,
            }

        return state

    def load(self, state: MemberState, best: MemberState | None) -> None:
        """Let the only member continue from a state that :meth:`states` returned, and from the best before it.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor is of another network or optimizer.
        """
        self._initial_N = None
        self._begin_at(*self._of_member(state))
        self._kept = {}
        for number, step in enumerate(state.snapshots.get("steps", [])):
            weights = {name: of_steps[number] for name, of_steps in state.snapshots["weights"].items()}
            self._kept[step] = self.model.flat_of_state(weights)
        if best is not None:
            snapshot, self._best_tensors = self._of_member(best)
            self._best = [snapshot]

    def continue_optimizer(self, state: Mapping[str, Any]) -> None:
        """Take over what the optimizer of the only member remembers of the weights, but not its options.

        Args:
            state: ``state_dict`` of torch's optimizer, parameter by parameter.
        """
        self.loop.optimizer.load_state(*self._optimizer_state(state))

    def _of_member(self, state: MemberState) -> tuple[Snapshot, dict[str, Tensor]]:
        """A state of the only member as this engine has it; the inverse of :meth:`_state`."""
        weights_N = self.model.flat_of_state(state.weights)
        common, tensors = self._optimizer_state(state.optimizer)
        group = {key: one for key, one in state.optimizer["param_groups"][0].items() if key in SCHEDULED}
        snapshot = Snapshot(state.step, [(dict(state.schedule), group)], common, [state.epoch_loss])
        return snapshot, {"weights": weights_N, **tensors}

    def _optimizer_state(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What torch's optimizer of the only member has for all weights together, and for each."""
        of_parameters = [one for _, one in sorted(state["state"].items())]
        if not of_parameters:
            return {}, {}
        shape = next(self.model.parts(self.model.flat_N, 0)).shape
        names = [key for key, one in of_parameters[0].items() if torch.is_tensor(one) and one.shape == shape]
        common = {key: one for key, one in of_parameters[0].items() if key not in names}
        return common, {name: self.model.flat_of([one[name] for one in of_parameters]) for name in names}

    def _begin_at(self, snapshot: Snapshot, tensors: Mapping[str, Tensor]) -> None:
        loop, flat_N = self.loop, self.model.flat_N
        of_weights = {name: one.to(flat_N.device) for name, one in tensors.items()}
        with torch.no_grad():
            flat_N.copy_(of_weights.pop("weights"))
        loop.optimizer.load_state(snapshot.common, of_weights)
        if loop.schedule.moment is not None:  # without one the learning rates are the configured ones
            loop.schedule.load_state(snapshot.schedules)
            loop.optimizer.set_learning_rates(loop.schedule.learning_rates())
        loop.epoch_loss_K = torch.tensor(snapshot.epoch_losses, dtype=torch.float64)
        self._step = snapshot.step

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`save` returned for the same members."""
        flat_N = self.model.flat_N
        self.loop.optimizer.use_scaled_loss(state["scales_loss"])
        self._begin_at(Snapshot.from_plain(state["present"]), state["tensors"])
        self.loop.active = list(state["active"])
        self._best = [None if one is None else Snapshot.from_plain(one) for one in state["best"]]
        self._best_tensors = {name: one.to(flat_N.device) for name, one in state["best_tensors"].items()}
        self._initial_N = None if state["initial"] is None else state["initial"].to(flat_N.device)
        self._kept = {step: one.to(flat_N.device) for step, one in state.get("kept", {}).items()}

    def _tensors(self) -> dict[str, Tensor]:
        """The present weights, called ``weights``, and the optimizer's state of each of them."""
        return {"weights": self.model.flat_N.detach(), **self.loop.optimizer.state_tensors()}

    def _state(self, slot: int, tensors: Mapping[str, Tensor], snapshot: Snapshot) -> MemberState:
        model = self.model
        parts = {name: list(model.copies(flat_N, slot)) for name, flat_N in tensors.items() if name != "weights"}
        schedule, group = snapshot.schedules[0]
        return MemberState(
            snapshot.step,
            OrderedDict({**self._preprocessors[slot], **model.state_of(tensors["weights"], slot)}),
            self.loop.optimizer.alone(slot, {**snapshot.common, **parts}, group),
            schedule,
            snapshot.epoch_losses[0],
            InitialGenerators(self._seeds[slot]),
        )

    def _logits(self, features: Tensor, best: bool) -> Tensor:
        if not best:
            return self.model(features)
        return torch.func.functional_call(self.model, {"flat_N": self._best_tensors["weights"]}, (features,))

    def _split(self, split: str) -> Batch:
        if split not in self._rows:
            self._rows[split] = self._rows_of(split).select(self._present)
        return next(self._rows[split].batches(0, 1))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().cpu() for name, one in tensors.items()}
