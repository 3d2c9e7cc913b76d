"""The engine for any module: torch's autograd, hooks, normalisation, embeddings, mixed precision; one member.

Shapes: ``B`` rows, ``C`` outputs (logits).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.generators import as_plain, generator_states, restore_generators
from mlp_lightning.engines.protocol import ROWS_OF_GRADIENTS, MemberState, Trace, Unchanged
from mlp_lightning.engines.rows import EvaluationBatches, Rows
from mlp_lightning.engines.steps import Execution, TrainingSteps
from mlp_lightning.engines.trace import StepTrace, measure
from mlp_lightning.networks.activations import ACTIVATIONS
from mlp_lightning.networks.dropout import Dropout
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.networks.residual import ResidualBlock

# Modules that behave the same in training and in evaluation, as all activations do.
_WITHOUT_MODE = {
    *(MLP, ResidualBlock, nn.Linear, nn.Sequential, nn.LayerNorm),
    *(type(one.module()) for one in ACTIVATIONS.values()),
}


class AutogradEngine:
    """Trains one module.

    Args:
        module: the model with its preprocessing; its ``state_dict`` is what a checkpoint keeps.
        loop: over ``module.mlp``.
        steps: which rows each step sees, features as the network takes them.
        rows: the rows of a split, likewise.
        precision: context of every forward pass, such as autocast.
    """

    name = "autograd"
    members = 1

    def __init__(
        self,
        module: nn.Module,
        loop: StepLoop,
        steps: TrainingSteps,
        rows: Callable[[str], Rows],
        precision: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self.module = module
        self.loop = loop
        self.task = loop.task
        self._steps = steps
        self._rows_of = rows
        self._rows: dict[str, Rows] = {}
        self._precision = precision
        self._step = 0
        self._unmeasured: list[StepTrace] = []
        self._best: MemberState | None = None
        #: Weights of the network by the steps after which they were kept.
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._initial: dict[str, Tensor] | None = {
            name: one.detach().clone() for name, one in module.named_parameters()
        }
        mlp = loop.model
        self._has_mode = any(type(one) not in _WITHOUT_MODE for one in mlp.modules())
        # What draws random numbers has modes.
        self._draws = any(type(one) not in {*_WITHOUT_MODE, Dropout, nn.BatchNorm1d} for one in mlp.modules())
        self._generators: Mapping[str, Any] | None = None
        self._weights: Mapping[str, Tensor] | None = None

    @property
    def optimizer(self) -> Optimizer:
        return self.loop.optimizer

    def begin_execution(self) -> None:
        """Read the generators again: others may have drawn from them."""
        self._generators = None
        self._measure()

    def run(self, first_step: int, count: int) -> Trace:
        """Make ``count`` optimizer steps, up to a requested stop."""
        done = self.loop.make_steps(Execution(self._steps, first_step, count))
        self._step = done.next_step
        if self._draws:
            self._generators = None
        losses_S = done.losses_S().cpu() if done.losses else torch.empty(0)
        logged_steps = [one.step for one in done.to_log]
        if logged_steps:
            self._unmeasured.append(done)
        # The trace waits to be measured; copies of weights and gradients on the device do not.
        histograms, rates, done.histograms, done.rates, done.losses = done.histograms, done.rates, [], [], []

        def rates_of(position: int) -> list[float]:
            return [rates[position]]

        return Trace(first_step, losses_S[:, None], logged_steps, lambda: self._measured(done), histograms, rates_of)

    def _measured(self, trace: StepTrace) -> Tensor:
        self._measure()
        logged = [[[one.loss, one.metric, one.lr]] for one in trace.logged]
        return torch.tensor(logged, dtype=torch.float64) if logged else torch.empty(0, 1, 3, dtype=torch.float64)

    def _measure(self) -> None:
        """Measure the logged steps of all traces so far; together they take little longer than one."""
        traces, self._unmeasured = self._unmeasured, []
        logged = iter(measure(self.task, [step for trace in traces for step in trace.to_log]))
        for trace in traces:
            trace.logged = list(itertools.islice(logged, len(trace.to_log)))
            trace.to_log = []

    @torch.no_grad()
    def evaluate(self, split: str, best: bool = False) -> dict[str, list[float]]:
        """Loss and metric over all rows of a split, in evaluation mode."""
        loss = metric = 0.0
        rows = self._split(split)
        with self._evaluating(best) as forward:
            for features_BF, targets in _parts(rows):
                logits_BC = forward(features_BF)
                share = len(targets) / len(rows)
                loss += self.task.loss(logits_BC, targets).item() * share
                metric += self.task.metric(logits_BC, targets).item() * share
        return {"loss": [loss], self.task.metric_name: [metric]}

    @torch.no_grad()
    def predictions(self, split: str, best: bool = False) -> NDArray[np.float64]:
        """Probabilities (or values) for all rows of a split, ``(1, B, C)``."""
        with self._evaluating(best) as forward:
            parts = [forward(one).cpu() for one, _ in _parts(self._split(split))]
        return self.task.predictions(torch.cat(parts))[None].double().numpy()

    def after_validation(self, losses: Sequence[float]) -> None:
        """Let a schedule follow the validation loss."""
        schedule = self.loop.schedule
        if schedule is not None and schedule.moment == "validation":
            schedule.scheduler.step(losses[0])  # type: ignore[arg-type]  # a plateau scheduler takes the loss

    def end(self, slots: Sequence[int]) -> None:
        """Nothing to do: the training ends with its only member."""

    def keep(self, slots: Sequence[int]) -> None:
        """Nothing to do: there is one slot."""

    def remember(self, slots: Sequence[int]) -> None:
        """Keep a copy of the present state as the best."""
        state = self.snapshot()
        if self._best is None:
            weights = _clone(state.weights)
        else:
            weights = self._best.weights
            for name, one in state.weights.items():
                weights[name].copy_(one)
        kept = {name: _clone(one) for name, one in vars(state).items() if name not in ("weights", "generators")}
        self._best = MemberState(weights=weights, generators=state.generators, **kept)

    def keep_weights(self) -> None:
        """Keep a copy of the present weights, to show the training by."""
        state = self.module.state_dict()
        names = [name for name in state if name.startswith("mlp.")]
        self._kept[self._step] = {name: state[name].detach().cpu().clone() for name in names}

    def _snapshots(self) -> dict[str, Any]:
        if not self._kept:
            return {}
        names = next(iter(self._kept.values()))
        weights = {name: torch.stack([one[name] for one in self._kept.values()]) for name in names}
        return {"steps": [*self._kept], "weights": weights}

    def snapshot(self) -> MemberState:
        """The present state, with the tensors that train."""
        schedule = self.loop.schedule
        if self._weights is None:
            # The tensors that train: looking them up takes longer than copying those of a small network.
            self._weights = self.module.state_dict()
        if self._generators is None:
            self._generators = generator_states()
        return MemberState(
            self._step,
            self._weights,
            self._optimizer_state(),
            {} if schedule is None else schedule.scheduler.state_dict(),
            self.loop.epoch_loss,
            self._generators,
        )

    def states(self, slots: Sequence[int], snapshot: MemberState) -> list[MemberState]:
        """The state at the last step, on the CPU."""
        return [dataclasses.replace(_plain(snapshot), snapshots=self._snapshots()) for _ in slots]

    def best_states(self, slots: Sequence[int]) -> list[MemberState | None]:
        """The best state, on the CPU."""
        return [None if self._best is None else _plain(self._best) for _ in slots]

    def load(self, state: MemberState, best: MemberState | None) -> None:
        """Continue from a state that :meth:`states` returned, and from the best before it."""
        self.module.load_state_dict(state.weights)
        # The options of the optimizer come from its state: a schedule has changed them. Without one the learning rate
        # is the configured one, also after a schedule that has ended.
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._load_optimizer(state.optimizer)
        if self.loop.schedule is None:
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        else:
            self.loop.schedule.scheduler.load_state_dict(dict(state.schedule))
        self.loop.epoch_loss, self._step = state.epoch_loss, state.step
        if best is not None:  # evaluated on the device of the module
            present = self.module.state_dict()
            weights = {name: one.to(present[name].device) for name, one in best.weights.items()}
            best = dataclasses.replace(best, weights=weights)
        self._initial, self._best = None, best
        steps, weights = state.snapshots.get("steps", []), state.snapshots.get("weights", {})
        self._kept = {step: {name: one[n] for name, one in weights.items()} for n, step in enumerate(steps)}
        restore_generators(state.generators)

    def _optimizer_state(self) -> dict[str, Any]:
        """The state of the optimizer, parameter by parameter."""
        return self.optimizer.state_dict()

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(dict(state))

    def continue_optimizer(self, state: Mapping[str, Any]) -> None:
        """Take over what an optimizer remembers of the weights, but not its options.

        Args:
            state: ``state_dict`` of torch's optimizer, parameter by parameter.
        """
        self._load_optimizer({**state, "param_groups": self._optimizer_state()["param_groups"]})

    def unchanged(self) -> list[Unchanged]:
        """The member, if no parameter of it has changed since the start of the run."""
        initial, self._initial = self._initial, None
        current = dict(self.module.named_parameters())
        if initial is None or any(not torch.equal(one, current[name].detach()) for name, one in initial.items()):
            return []
        return [
            Unchanged(
                0,
                list(initial),
                max(group["lr"] for group in self.optimizer.param_groups),
                not any(one.grad is not None and one.grad.count_nonzero() for one in current.values()),
                self._holds(current.values()),
            )
        ]

    def _holds(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the optimizer has any of these parameters."""
        held = {id(one) for group in self.optimizer.param_groups for one in group["params"]}
        return any(id(one) in held for one in parameters)

    def gradient_norms(self) -> list[dict[str, float]]:
        """The norm of the gradient with respect to the outputs of each linear layer."""
        rows, model = self._split("train"), self.loop.model
        rows = rows[slice(None, None, -(-len(rows) // ROWS_OF_GRADIENTS))]
        linears = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
        outputs: dict[str, Tensor] = {}

        def keeping(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            def keep(module: nn.Module, given: Any, output: Tensor) -> None:
                outputs[name] = output

            return keep

        hooks = [one.register_forward_hook(keeping(name)) for name, one in linears.items()]
        with self._evaluating(best=False), torch.enable_grad():
            loss = self.task.loss(model(rows.features_BF), rows.targets)
            gradients = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True) if outputs else ()
        for hook in hooks:
            hook.remove()
        norms = [0.0 if one is None else float(one.norm()) for one in gradients]
        return [dict(zip((name.removeprefix("layers.") for name in outputs), norms, strict=True))]

    def network(self, slot: int) -> nn.Module:
        """A copy of the network, on the CPU."""
        return copy.deepcopy(self.loop.model).cpu()

    def save(self) -> dict[str, Any]:
        """Both states, the present one and the best."""
        return self.saves(self.snapshot())()

    def saves(self, snapshot: MemberState) -> Callable[[], dict[str, Any]]:
        """What gives both states."""
        best = None if self._best is None else vars(_plain(self._best))
        kept = self._snapshots()
        return lambda: {"present": {**vars(_plain(snapshot)), "snapshots": kept}, "best": best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`save` returned."""
        best = None if state["best"] is None else MemberState(**state["best"])
        self.load(MemberState(**state["present"]), best)

    def _split(self, split: str) -> Rows:
        if split not in self._rows:
            self._rows[split] = self._rows_of(split)
        return self._rows[split]

    @contextlib.contextmanager
    def _evaluating(self, best: bool) -> Iterator[Callable[[Tensor], Tensor]]:
        """The network in evaluation mode, with its present weights or the best."""
        model, forward = self.loop.model, self.loop.forward_function()
        if best:
            assert self._best is not None
            weights = {name[4:]: one for name, one in self._best.weights.items() if name.startswith("mlp.")}
            forward = functools.partial(_forward_with, model, weights)
        if self._has_mode:
            model.eval()
        try:
            with self._precision():
                yield forward
        finally:
            if self._has_mode:
                model.train()


def _forward_with(model: nn.Module, weights: dict[str, Tensor], features_BF: Tensor) -> Tensor:
    return torch.func.functional_call(model, weights, (features_BF,))


def _parts(rows: Rows) -> Iterable[tuple[Tensor, Tensor]]:
    """Features and targets in parts: the layers' outputs of all rows take memory."""
    batches = EvaluationBatches(rows)
    return batches if len(batches) > 1 else ((rows.features_BF, rows.targets),)


def _plain(state: MemberState) -> MemberState:
    """The state on the CPU, as a checkpoint keeps it."""
    content = {name: _on_cpu(one) for name, one in vars(state).items() if name != "generators"}
    return MemberState(**content, generators=as_plain(state.generators))


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return type(value)((key, _clone(one)) for key, one in value.items())
    if isinstance(value, list):
        return [_clone(one) for one in value]
    return value


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return type(value)((key, _on_cpu(one)) for key, one in value.items())
    if isinstance(value, list):
        return [_on_cpu(one) for one in value]
    return value
